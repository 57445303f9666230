"""Image-to-image: data with noise up to a level, taken back by any sampler (SDEdit: Meng et al. 2022, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.analytic_start import Start
from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput
from scoresde.samplers import Result, sample
from scoresde.samplers.checks import check_denoiser, check_state
from scoresde.samplers.job import prepare
from scoresde.samplers.run import ALL_AT_ONCE
from scoresde.sde import SDE


def time_of(strength: float, sde: SDE) -> float:
    """The time t_0 of a strength: its share of the way from t_min to t_max in the angle φ = atan(σ/α).

        φ(t_0) = φ(t_min) + strength (φ(t_max) - φ(t_min)),

    so that a strength stands for one mix of data and noise whatever the SDE: at 0.5 they weigh about the same. On a
    DDPM chain t_0 is the next whole index.

    >>> import scoresde
    >>> round(time_of(0.5, scoresde.RectifiedFlow()), 3), round(time_of(0.5, scoresde.EDM()), 3)
    (0.5, 0.99)
    """
    low, high = sde.phi(torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)).tolist()
    t = float(sde.t_of_phi(torch.tensor(low + strength * (high - low), dtype=torch.float64)))
    return _on_chain(t, sde)


def _on_chain(t: float, sde: SDE) -> float:
    """The time itself, on a chain the next whole index above t_min."""
    if sde.by_index:
        step = sde.t_max / sde.label_steps
        t = max(math.ceil(t / step - 1e-9), math.floor(sde.t_min / step + 1e-9) + 1) * step
    return min(t, sde.t_max)


@dataclass(frozen=True, eq=False)
class Noised(Start):
    """The start x_0 α(t_0) + σ(t_0) z: all of ``x0`` (batch, *event) at the one noise level of ``t_0``.

    For ``sample(..., start=)``: the grid's first time is t_0. z is a draw that no run from t_max begins with: data that
    were drawn by the same seed would be found again by their own noise.

    >>> import torch, scoresde
    >>> start, sde = Noised(torch.ones(4, 2), 0.6), scoresde.RectifiedFlow()
    >>> start.time(sde), start.state(sde, torch.zeros(4, 2))[0]
    (0.6, tensor([0.4000, 0.4000]))
    """

    draw: ClassVar[int] = 1

    x0: Float[Tensor, "batch *event"]
    t_0: float

    @property
    def setting(self) -> float:
        """t_0."""
        return self.t_0

    def time(self, sde: SDE) -> float:
        """t_0."""
        return self.t_0

    def rows(self, rows: slice, dims: int) -> Self:
        """The start of some of the samples."""
        return replace(self, x0=self.x0[rows])

    def state(self, sde: SDE, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """x_{t_0}, with x a draw from the prior at t_max."""
        return sde.perturb(self.x0.to(x), self.t_0, x / sde.prior_std())


def edit(
    denoiser: AnyDenoiser,
    x: Float[Tensor, "batch *event"],
    strength: float | None = None,
    sampler: str = "ode",
    steps: int | None = None,
    *,
    t_0: float | None = None,
    **how: Any,
) -> Result:
    """Noise data x to a strength, and sample from there: SDEdit (Meng et al. 2022), image-to-image, variations.

    x_{t_0} = α x + σ z is one state at one noise level, and any sampler takes it to the data, all ``steps`` below t_0.
    What is coarser than the noise stays, what is finer is drawn anew.

    x          (batch, *event) of any event shape, in the denoiser's scaled space
    strength   from 0, which returns x itself without a call, to 1, which is `sample` with the same seed and knows
               nothing of x; between, t_0 by the angle of the mix of data and noise, see `time_of`
    t_0        instead of a strength: the time itself, as in the paper, above t_min and at most t_max
    how        what else `sample` takes: seed, first, nfe, grid, final, cond, batch_size, callback, options

    Variations of one image are copies of it, each with noise of its own, x.expand(8, -1, -1, -1), or several seeds.

    Raises BadInput before the first call: a strength outside [0, 1], x that is not finite, what `sample` refuses.

    >>> import torch, scoresde
    >>> denoiser = scoresde.Gaussian(torch.zeros(2), torch.eye(2)).denoiser(scoresde.VPSDE())
    >>> x = torch.tensor([[3.0, -1.0]])
    >>> edit(denoiser, x, 0.2, steps=10).x.shape, torch.equal(edit(denoiser, x, 0).x, x)
    (torch.Size([1, 2]), True)
    """
    check_denoiser(denoiser)
    check_state(x)
    if not (isinstance(x, Tensor) and x.ndim and len(x)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput("x: the data to edit are a tensor (batch, *event) with at least one sample")
    for name in ("x", "start", "shape"):
        if name in how:
            raise BadInput(f"{name}: an edit starts from its data with noise: leave it, or use sample")
    if (strength is None) == (t_0 is None):
        raise BadInput(f"strength = {strength!r} and t_0 = {t_0!r}: give one of them")
    how = {"dtype": x.dtype, "device": x.device, **how}
    if strength is None:
        t, facts = _checked_time(t_0, denoiser.sde), {"t_0": t_0}
    else:
        t, facts = time_of(_checked_strength(strength), denoiser.sde), {"strength": float(strength)}
    if strength == 0:
        settings = prepare(denoiser, x.shape, sampler, steps, **_without(how)).settings
        zeros = np.zeros(len(x), dtype=int)
        result = Result(x.clone(), 0, 0, (0.0,), zeros, zeros, zeros, np.zeros(len(x)), settings["seed"], settings)
    else:
        start = None if strength == 1 else Noised(x, t)
        result = sample(denoiser, x.shape, sampler, steps, start=start, **how)
    return replace(result, settings={**result.settings, "edit": facts})


def _without(how: dict[str, Any]) -> dict[str, Any]:
    """What `prepare` takes of what `sample` does."""
    return {name: value for name, value in how.items() if name not in ALL_AT_ONCE}


def _checked_strength(strength: float) -> float:
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"strength = {strength!r}: a number from 0, the data themselves, to 1, a draw from the model")
    return strength


def _checked_time(t_0: float | None, sde: SDE) -> float:
    if isinstance(t_0, bool) or not isinstance(t_0, int | float) or not sde.t_min < t_0 <= sde.t_max:
        raise BadInput(f"t_0 = {t_0!r}: a time above t_min = {sde.t_min:g} and at most t_max = {sde.t_max:g} of {sde}")
    return _on_chain(float(t_0), sde)
