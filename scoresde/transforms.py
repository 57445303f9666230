"""Denoisers made of denoisers: what is done to x̂_0, or to the calls, whatever the network and the sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser, Plan
from scoresde.errors import BadInput, SolverFailure
from scoresde.schedule import like, per_sample
from scoresde.sde import SDE


@dataclass(frozen=True, eq=False)
class Wrapper(AnyDenoiser):
    """A denoiser around another one, of the same SDE and with the same calls."""

    inner: AnyDenoiser
    sde: SDE = field(init=False)

    def __post_init__(self) -> None:
        for name in ("sde", "rows_per_call", "varies", "sigma_data"):
            object.__setattr__(self, name, getattr(self.inner, name))

    def rows(self, t: Tensor) -> Tensor:
        return self.inner.rows(t)


@dataclass(frozen=True, eq=False)
class Transformed(Wrapper):
    """A denoiser whose x̂_0 goes through ``transform``; all other forms follow from the transformed x̂_0.

    Clipping and thresholding are transforms.
    """

    transform: Callable[[Tensor], Tensor]

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        skip, scale = self.from_x0(form, like(t, x))
        return skip * x + scale * self.transform(self.inner.predict("x0", x, t, **cond))

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        inner = self.inner.plan("x0", times, x, **cond)
        skip, scale = self.from_x0(form, torch.tensor(list(times), dtype=torch.float64))

        def learned(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            assert inner.learned
            out, v = inner.learned(i, x)
            return self.transform(torch.add(inner.skip[i] * x, out, alpha=inner.scale[i])), v

        spread = learned if inner.learned else None
        return Plan(skip.tolist(), scale.tolist(), lambda i, x: self.transform(inner(i, x)), spread)


@dataclass(frozen=True, eq=False)
class Checkpointed(Wrapper):
    """A denoiser whose calls keep no activations for the backward pass, but are made again in it.

    ``sample(..., grad="checkpoint")`` uses it: memory then grows by a state per step, not by a network.
    """

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        return _again(partial(self.inner.predict, form, **cond), x, t)

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        skip, scale, net, learned = self.inner.plan(form, times, x, **cond)
        return Plan(skip, scale, partial(_again, net), learned and partial(_again, learned))


@dataclass(frozen=True, eq=False)
class Watched(Wrapper):
    """A denoiser that looks at each output and stops at the first that is not finite, which costs a read per call."""

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        return _finite(self.inner.predict(form, x, t, **cond), x, float(torch.as_tensor(t).flatten()[0]))

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        skip, scale, net, learned = self.inner.plan(form, times, x, **cond)

        def spread(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            assert learned
            out, v = learned(i, x)
            return _finite(out, x, times[i], i), _finite(v, x, times[i], i)

        return Plan(skip, scale, lambda i, x: _finite(net(i, x), x, times[i], i), spread if learned else None)


@dataclass(frozen=True, eq=False)
class Counted(Wrapper):
    """A denoiser that counts the network rows of each sample, ``counts`` (n,): they differ where it ``varies``.

    Its calls have one condition more, ``row``: the numbers of the samples in the batch.
    """

    counts: Tensor

    def predict(self, form: str, x: Tensor, t: float | Tensor, *, row: Tensor, **cond: Any) -> Tensor:
        self.counts[row] += self.rows(torch.as_tensor(t, dtype=torch.float64).cpu().flatten())
        return self.inner.predict(form, x, t, **cond)

    def plan(self, form: str, times: Sequence[float], x: Tensor, *, row: Tensor, **cond: Any) -> Plan:
        skip, scale, net, learned = self.inner.plan(form, times, x, **cond)
        each = self.rows(torch.tensor(list(times), dtype=torch.float64)).tolist()

        def counted(call: Callable[[int, Tensor], Any]) -> Callable[[int, Tensor], Any]:
            def count(i: int, x: Tensor) -> Any:
                self.counts[row] += each[i]
                return call(i, x)

            return count

        return Plan(skip, scale, counted(net), counted(learned) if learned else None)


def _finite(out: Tensor, x: Tensor, t: float, call: int | None = None) -> Tensor:
    number = "" if call is None else f", call {call + 1}"
    if not bool(torch.isfinite(x).all()):
        raise SolverFailure(f"the state is not finite at t = {t:.4g}{number}: take more steps or another sampler")
    if not bool(torch.isfinite(out).all()):
        sample = int((~torch.isfinite(per_sample(out)).all(1)).nonzero()[0])
        raise SolverFailure(f"the network returned NaN or infinity at t = {t:.4g}{number} (sample {sample})")
    return out


def _again(function: Callable[..., Any], *args: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)


def clip(denoiser: AnyDenoiser, low: float = -1.0, high: float = 1.0) -> Transformed:
    """x̂_0 clipped to [low, high], as DDPM does for images. Never applied unless asked for.

    >>> import torch, scoresde
    >>> d = scoresde.Denoiser(lambda x, t: torch.zeros_like(x), scoresde.VPSDE())
    >>> scoresde.clip(d).x0(torch.full((1, 2), 9.0), 0.01)
    tensor([[1., 1.]])
    """
    if not low < high:
        raise BadInput(f"clip: low = {low} must be below high = {high}")
    return Transformed(denoiser, lambda x0: x0.clamp(low, high))


def dynamic_threshold(denoiser: AnyDenoiser, quantile: float = 0.995, floor: float = 1.0) -> Transformed:
    """x̂_0 clipped to [-s, s] and divided by s/floor, s = max(floor, quantile of |x̂_0|) per sample.

    Dynamic thresholding (Saharia et al. 2022, section 2.3), for data in [-floor, floor].
    """
    if not 0 < quantile <= 1:
        raise BadInput(f"dynamic_threshold: quantile = {quantile} must be in (0, 1]")

    def transform(x0: Tensor) -> Tensor:
        s = like(torch.quantile(per_sample(x0.abs()), quantile, dim=1).clamp(min=floor), x0)
        return x0.clamp(-s, s) * (floor / s)

    return Transformed(denoiser, transform)
