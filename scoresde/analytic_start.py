"""An analytic start: the noisiest part of the probability flow in closed form, from the data's mean and variance.

At high noise all data look like N(μ, s² I), whose flow is known: x_t - α_t μ keeps its direction and grows with the
standard deviation sqrt(α_t² s² + σ_t²) of the marginal. So the first network call can wait until t_0 < t_max:

    λ_0 = λ(t_max) + shift,    y_0 = α_0 μ + κ (x_T - α_T μ),    κ² = (α_0² s² + σ_0²) / (α_T² s² + σ_T²).

GENIE's "analytical first step" (Dockhorn et al. 2022) is one DDIM step of this flow with μ = 0 and s = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.sde import SDE

_CHUNK = 2**22  # numbers turned into float64 at a time while measuring data


class Start:
    """A run that begins below t_max: its first time, and its first state, made of a draw from the prior at t_max.

    ``draw`` is the number of that draw: 0 is the one that a run from t_max begins with.
    """

    draw: ClassVar[int] = 0

    @property
    def setting(self) -> float:
        """What a result's settings tell of it."""
        raise NotImplementedError

    def time(self, sde: SDE) -> float:
        """t_0, the time of the first network call."""
        raise NotImplementedError

    def rows(self, rows: slice, dims: int) -> Self:
        """The start of some samples of a batch whose states have ``dims`` dimensions, itself if all have the same."""
        raise NotImplementedError

    def state(self, sde: SDE, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """The state at `time` from x at t_max, in x's dtype and on its device."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class AnalyticStart(Start):
    """Call the network first at λ(t_max) + ``shift``, carrying x there along the flow of N(μ, s² I).

    ``mean`` μ and ``variance`` s² are numbers, tensors of one sample's shape, or of all states' shape, (batch, *event).
    As one number s² is the mean of (x - μ)² over data and coordinates; in a tensor it may be 0 in some coordinates.

    Exact where the data are such a Gaussian; for others a larger shift saves more steps and errs more itself, so
    measure before you choose it. The data of a conditional network are those of its condition: give every sample the
    mean of its class, for the error of a common mean is soon larger than what the start saves.

    Raises BadInput for a shift below 0, a variance that is not positive, or shapes that do not fit.

    >>> import torch, scoresde
    >>> start, sde = AnalyticStart(mean=0.3, variance=1.0, shift=3.0), scoresde.VPSDE()
    >>> round(start.time(sde), 3), start.state(sde, torch.zeros(4, 2)).shape
    (0.634, torch.Size([4, 2]))
    """

    mean: float | Tensor = 0.0
    variance: float | Tensor = 1.0
    shift: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.shift < math.inf:
            raise BadInput(f"shift = {self.shift!r}: an analytic start moves λ up by a number of at least 0")
        mean, variance = _host(self.mean), _host(self.variance)
        if not bool(torch.isfinite(mean).all()):
            raise BadInput("mean: an analytic start needs a finite mean")
        if not bool((torch.isfinite(variance) & (variance >= 0)).all() and (variance > 0).any()):
            given = f"variance = {variance.item():g}" if variance.ndim == 0 else f"variance from {variance.min():g}"
            raise BadInput(f"{given}: an analytic start needs data of a positive variance")

    @classmethod
    def from_data(cls, x: Float[Tensor, "batch *event"], shift: float = 2.0, per_coordinate: bool = False) -> Self:
        """Measured on data x, in the space the network sees: a mean, and one variance for all coordinates or one each.

        >>> import torch
        >>> start = AnalyticStart.from_data(torch.tensor([[0.0, 1.0], [4.0, 1.0]]))
        >>> start.mean, start.variance
        (tensor([2., 1.], dtype=torch.float64), tensor(2., dtype=torch.float64))
        """
        if len(x) < 2:
            raise BadInput(f"{len(x)} of data: an analytic start needs at least 2 samples to measure a variance")
        parts = x.split(max(1, _CHUNK // max(1, x[0].numel())))
        mean, variance = torch.zeros(x.shape[1:], dtype=torch.float64), torch.zeros(x.shape[1:], dtype=torch.float64)
        for part in parts:
            mean += _host(part).sum(0) / len(x)
        for part in parts:
            variance += (_host(part) - mean).square().sum(0) / len(x)
        return cls(mean, variance if per_coordinate else variance.mean(), shift)

    @property
    def setting(self) -> float:
        """λ_0 - λ(t_max)."""
        return self.shift

    def time(self, sde: SDE) -> float:
        """t_0, the time of the first network call."""
        if self.shift == 0:
            return sde.t_max
        start, end = sde.knots([sde.t_max, sde.t_min]).lam.tolist()
        if not math.isfinite(start):
            raise BadInput(f"shift = {self.shift:g}: λ is -∞ at t_max of {sde}, an analytic start cannot count from it")
        if start + self.shift >= end:
            raise BadInput(f"shift = {self.shift:g}: from t_max to t_min of {sde} λ rises by {end - start:.4g} only")
        return min(float(sde.t_of_lam(torch.tensor(start + self.shift, dtype=torch.float64))), sde.t_max)

    def rows(self, rows: slice, dims: int) -> Self:
        """The start of some samples of a batch whose states have ``dims`` dimensions, itself if all have the same."""
        mean, variance = (
            value[rows] if isinstance(value, Tensor) and value.ndim == dims else value
            for value in (self.mean, self.variance)
        )
        return replace(self, mean=mean, variance=variance)

    def state(self, sde: SDE, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """y_0 at `time` from x at t_max, in x's dtype and on its device."""
        mean, variance = _host(self.mean), _host(self.variance)
        for name, value in {"mean": mean, "variance": variance}.items():
            if value.ndim and value.shape not in (x.shape, x.shape[1:]):
                raise BadInput(
                    f"the {name} of an analytic start has shape {tuple(value.shape)}: give that of a sample,"
                    f" {tuple(x.shape[1:])}, or of all states, {tuple(x.shape)}"
                )
        at = sde.knots([sde.t_max, self.time(sde)])
        (alpha_T, alpha), (sigma_T, sigma) = at.alpha.tolist(), at.sigma.tolist()
        kappa = ((alpha**2 * variance + sigma**2) / (alpha_T**2 * variance + sigma_T**2)).sqrt()
        offset = (alpha - kappa * alpha_T) * mean
        return kappa.to(x.dtype).to(x.device) * x + offset.to(x.dtype).to(x.device)


def _host(value: float | Tensor) -> Tensor:
    """A number or a tensor in float64 on the CPU."""
    return value.detach().cpu().double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
