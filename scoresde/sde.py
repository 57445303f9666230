"""Linear SDEs dx = f(t) x dt + g(t) dw on any event shape.

A family (`families`, `ddpm`) is two methods, ``log_alpha`` and ``log_sigma``; the marginals, transitions, posteriors,
reverse SDE and probability flow are derived from them here, once. Times are floats, 0-d tensors, or one per sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.errors import BadInput, positive
from scoresde.schedule import NoiseSchedule, like, per_sample

Time = float | Tensor


class Chain(NamedTuple):
    """A Markov chain x_{n+1} = scale_n x_n + std_n z on the times t_0 = 0 < ... < t_N, float64 on the host."""

    times: np.ndarray
    scale: np.ndarray
    std: np.ndarray


class SDE(NoiseSchedule):
    """What every linear SDE can do, from its schedule alone (Song et al. 2021, section 3).

    >>> import torch, scoresde
    >>> sde, x0 = scoresde.VPSDE(), torch.ones(4, 2)
    >>> mean, std = sde.marginal(x0, torch.full((4,), 0.5))
    >>> mean.shape, std.shape
    (torch.Size([4, 2]), torch.Size([4, 1]))
    """

    def __post_init__(self) -> None:
        numbers = (value for value in vars(self).values() if isinstance(value, float))
        require(all(map(math.isfinite, numbers)), self, "finite numbers")
        require(0 <= self.t_min < self.t_max, self, "0 <= t_min < t_max")

    @property
    def N(self) -> int | None:
        """Steps of the chain that it is; a continuous SDE is none."""
        return None

    @property
    def by_index(self) -> bool:
        """Whether it is a chain, whose networks know whole steps alone."""
        return self.N is not None

    @property
    def label_steps(self) -> int:
        """The steps that indices and labels count: the chain's, or 1000 (Song et al. 2021)."""
        return self.N or 1000

    def drift(self, x: Float[Tensor, "batch *event"], t: Time) -> Float[Tensor, "batch *event"]:
        """The forward drift f(t) x."""
        return self.f(self._time(t, x)) * x

    def diffusion(self, x: Float[Tensor, "batch *event"], t: Time) -> Tensor:
        """The diffusion coefficient g(t), shaped to broadcast against x."""
        return self.g2(self._time(t, x)).sqrt()

    def marginal(self, x0: Float[Tensor, "batch *event"], t: Time) -> tuple[Tensor, Tensor]:
        """Mean α_t x_0 and standard deviation σ_t of q(x_t | x_0). Finite on all of [0, t_max]."""
        t = self._time(t, x0)
        return self.alpha(t) * x0, self.sigma(t)

    def perturb(self, x0: Float[Tensor, "batch *event"], t: Time, noise: Tensor) -> Float[Tensor, "batch *event"]:
        """x_t = α_t x_0 + σ_t ε, a draw from q(x_t | x_0) made of the given standard normal ``noise``."""
        mean, std = self.marginal(x0, t)
        return mean + std * noise

    def transition(self, x: Float[Tensor, "batch *event"], s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(x_t | x_s), s ≤ t.

        mean = (α_t/α_s) x_s,   var = σ_t² - (α_t/α_s)² σ_s² = σ_t² (1 - e^{-2(λ_s - λ_t)})
        (Kingma et al. 2021, appendix A.1).
        """
        s, t = self._time(s, x), self._time(t, x)
        scale = (self.log_alpha(t) - self.log_alpha(s)).exp()
        return scale * x, self.sigma(t) * (-torch.expm1(2 * (self.lam(t) - self.lam(s)))).sqrt()

    def posterior(self, x: Float[Tensor, "batch *event"], x0: Tensor, s: Time, t: Time) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(x_s | x_t, x_0), s < t, with h = λ_s - λ_t.

        mean = (σ_s/σ_t) e^{-h} x_t + α_s (1 - e^{-2h}) x_0,   std = σ_s sqrt(1 - e^{-2h})
        (Ho et al. 2020, eq. 6-7, written in λ).
        """
        s, t = self._time(s, x), self._time(t, x)
        h = self.lam(s) - self.lam(t)
        share = -torch.expm1(-2 * h)
        keep = (self.log_sigma(s) - self.log_sigma(t) - h).exp()
        return keep * x + self.alpha(s) * share * x0, self.sigma(s) * share.sqrt()

    def _time(self, t: Time, x: Tensor) -> Tensor:
        """The time beside x; one that is a Python number is checked."""
        if isinstance(t, int | float) and not 0 <= t <= self.t_max * (1 + 1e-6):
            raise BadInput(f"t = {t!r}: times of {self} lie in [0, {self.t_max}]")
        return like(t, x)

    def prior_std(self, t: float | None = None) -> float:
        """Standard deviation sqrt(α_t² + σ_t²) of x_t for data of zero mean and unit variance; t defaults to t_max."""
        at = self.knots([self.t_max if t is None else t])
        return float(np.hypot(at.alpha[0], at.sigma[0]))

    def prior_sample(self, noise: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """A draw from the prior N(0, prior_std² I) made of the given standard normal ``noise``."""
        return self.prior_std() * noise

    def prior_log_prob(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch"]:
        """log density in nats of the prior N(0, prior_std² I) at x, one number per sample."""
        std, dims = self.prior_std(), x[0].numel()
        return -0.5 * per_sample((x / std).square()).sum(1) - dims * (math.log(std) + 0.5 * math.log(2 * math.pi))

    def prior_kl(self, mean: Float[Tensor, "*event"], variance: float | Tensor) -> float:
        """KL(p_T ‖ prior) in nats per coordinate, p_T taken as Gaussian, for data of this mean and variance.

        Sampling starts from the prior where it should from p_T = N(α_T m, α_T² v + σ_T²): more than 0.01 shows in what
        is drawn, in colour or brightness first.

        >>> import torch, scoresde
        >>> round(scoresde.EDM().prior_kl(torch.zeros(2), 50.0**2), 3)  # data of std 50 against σ_max 80
        0.03
        """
        at, prior = self.knots([self.t_max]), self.prior_std() ** 2
        alpha2, mean = float(at.alpha[0]) ** 2, mean.double()
        share = (alpha2 * torch.as_tensor(variance, dtype=torch.float64) + float(at.sigma[0]) ** 2) / prior
        return float((0.5 * (share - 1 - share.log()) + 0.5 * alpha2 * mean.square() / prior).mean())

    def reverse_drift(self, x: Float[Tensor, "batch *event"], t: Time, score: Tensor) -> Float[Tensor, "batch *event"]:
        """Drift f x - g² s of the reverse SDE dx = (f x - g² s) dt + g dw̄ (Anderson 1982; Song et al. 2021, eq. 6)."""
        return self.drift(x, t) - self.g2(self._time(t, x)) * score

    def flow_drift(self, x: Float[Tensor, "batch *event"], t: Time, score: Tensor) -> Float[Tensor, "batch *event"]:
        """Drift f x - g² s / 2 of the probability-flow ODE (Song et al. 2021, eq. 13)."""
        return self.drift(x, t) - 0.5 * self.g2(self._time(t, x)) * score

    def discretize(self, N: int) -> Chain:
        """The exact Markov chain of this SDE at t_n = n t_max / N: it has the SDE's own marginals for every N.

        >>> import scoresde
        >>> scoresde.VPSDE().discretize(10).scale.shape
        (10,)
        """
        times = np.linspace(0.0, self.t_max, positive("N", N) + 1)
        at = self.knots(times.tolist())
        h = at.lam[:-1] - at.lam[1:]
        return Chain(times, at.alpha[1:] / at.alpha[:-1], at.sigma[1:] * np.sqrt(-np.expm1(-2 * h)))


def require(condition: bool, sde: SDE, rule: str) -> None:
    """Refuse fields of an SDE that break a rule."""
    if not condition:
        raise BadInput(f"{sde}: needs {rule}")
