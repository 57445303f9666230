"""Known coordinates kept at the noise level of the rest: in the denoiser, or drawn anew after each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scoresde.denoiser import Plan
from scoresde.errors import BadInput
from scoresde.schedule import like
from scoresde.sde import SDE
from scoresde.transforms import Wrapper


@dataclass(frozen=True, eq=False)
class Replaced(Wrapper):
    """A denoiser that knows a part of the data: x̂_0 is ``known`` where ``hidden`` is False, else the inner one's.

    Both are given to each call, as `cond` of `sample`, for each sample: (batch, *event). A known coordinate is then
    data at a single point y, to which every form is exact, ε̂ = (x - α y)/σ, so that a state which starts with

        x = α y + σ z    there    stays    α_t y + σ_t z',  z' ~ N(0, I),    at the noise level of the rest

    under every sampler that is exact on a point mass (`Table.defect`, the yes of the column "exact" in the list of
    samplers) and up to its own error under any other, adaptive ones included. Under a deterministic sampler z' = z.
    Under `ddpm` the known part is a draw from q(x_s | x_t, x_0 = y) at each step, so its path is one of the forward
    process from y: the replacement method whose bias Trippe et al. 2023 show.

    Hidden coordinates are untouched. A learned variance is the posterior's own where the data are known.

    >>> import torch, scoresde
    >>> inner = scoresde.Denoiser(lambda x, t: 0 * x, scoresde.VPSDE(), "x0")
    >>> known, hidden = torch.tensor([[5.0, 0.0]]), torch.tensor([[False, True]])
    >>> Replaced(inner).x0(torch.ones(1, 2), 0.5, known=known, hidden=hidden)
    tensor([[5., 0.]])
    """

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        known, hidden, cond = _known(x, cond)
        skip, scale = self.from_x0(form, like(t, x))
        return torch.where(hidden, self.inner.predict(form, x, t, **cond), skip * x + scale * known)

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        known, hidden, cond = _known(x, cond)
        inner = self.inner.plan(form, times, x, **cond)
        at = torch.tensor(list(times), dtype=torch.float64)
        skip, scale = (values.tolist() for values in self.from_x0(form, at))

        def merge(i: int, x: Tensor, out: Tensor) -> Tensor:
            out = torch.add(inner.skip[i] * x, out, alpha=inner.scale[i])
            return torch.where(hidden, out, torch.add(skip[i] * x, known, alpha=scale[i]))

        def learned(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            assert inner.learned
            out, v = inner.learned(i, x)
            return merge(i, x, out), v.where(hidden, 0.0)

        n = len(skip)
        spread = learned if inner.learned else None
        return Plan([0.0] * n, [1.0] * n, lambda i, x: merge(i, x, inner.net(i, x)), spread)


def _known(x: Tensor, cond: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """What is known and hidden of states like x, and the rest of the condition."""
    given = [cond.get(name) for name in ("known", "hidden")]
    for name, value in zip(("known", "hidden"), given, strict=True):
        if not isinstance(value, Tensor) or value.shape != x.shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else value
            raise BadInput(
                f"cond: {name!r} of a Replaced denoiser is {found!r:.60}: a tensor of shape {tuple(x.shape)}"
            )
    known, hidden = given
    assert known is not None and hidden is not None
    return known, hidden, {name: value for name, value in cond.items() if name not in ("known", "hidden")}


@dataclass(frozen=True, eq=False)
class Renoised:
    """The hook that draws what is known anew after every row: x := α_t y + σ_t z where ``hidden`` is False, z fresh.

    With `travel` this is RePaint (Lugmayr et al. 2022, algorithm 1), with `pc` the score-SDE way (Song et al. 2021,
    appendix I.2), whose code draws at the time before the step; here it is the time that the state has reached. It
    draws after the way up of a jump too, where the paper goes on by q(x_t | x_s): the law is the same, for what the way
    up starts from was drawn at its foot and seen by nothing else.

    >>> import torch, scoresde
    >>> hook = Renoised(torch.tensor([[5.0, 0.0]]), torch.tensor([[False, True]]), scoresde.VPSDE())
    >>> hook(0.0, torch.ones(1, 2), lambda: torch.randn(1, 2))
    tensor([[5., 1.]])
    """

    known: Float[Tensor, "batch *event"]
    hidden: Bool[Tensor, "batch *event"]
    sde: SDE

    def rows(self, rows: slice) -> Self:
        """The hook of some of the samples."""
        return replace(self, known=self.known[rows], hidden=self.hidden[rows])

    def __call__(self, t: float, x: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        at = self.sde.knots([t])
        alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
        level = alpha * self.known
        return torch.where(self.hidden, x, torch.add(level, noise(), alpha=sigma) if sigma else level)
