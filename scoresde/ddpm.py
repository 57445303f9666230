"""DDPM as a discretised VP-SDE: the chain of betas is a set of knots of a variance-preserving SDE.

Step n of N sits at t = (n + 1)/N; between knots log ᾱ is linear in t, that is β(t) is constant over a step. Then

    betas linspace(β_min/N, β_max/N, N)   ↔   `VPSDE`(β_min, β_max)

agree as N grows: log ᾱ(1) differs by Σ β_n²/2 + O(1/N²) = 67.0/N for (0.1, 20) (Song et al. 2021, appendix B).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import BadInput, choose, positive
from scoresde.families import VPSDE, SubVPSDE
from scoresde.sde import SDE, Chain

# Named betas of the literature for N steps; linear and scaled-linear keep their continuous limit as N changes.
BETAS = {
    "linear": lambda N: _ramp(0.1 / N, 20.0 / N, N),  # Ho et al. 2020 at N = 1000
    "scaled-linear": lambda N: _ramp(math.sqrt(0.85 / N), math.sqrt(12.0 / N), N) ** 2,  # Rombach et al. 2022
    "cosine": lambda N: _from_alpha_bar(N, lambda t: np.cos(0.5 * np.pi * (t + 0.008) / 1.008) ** 2),  # Nichol 2021
    "sigmoid": lambda N: _from_alpha_bar(N, _sigmoid_alpha_bar),  # Jabri et al. 2022, start -3, end 3, tau 1
}


def _ramp(first: float, last: float, N: int) -> np.ndarray:
    return np.linspace(last, first, N)[::-1]  # a chain of one step is the noisiest step


def _from_alpha_bar(N: int, alpha_bar: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    bar = alpha_bar(np.linspace(0.0, 1.0, N + 1))
    return np.minimum(1 - bar[1:] / bar[:-1], 0.999)


def _sigmoid_alpha_bar(t: np.ndarray) -> np.ndarray:
    level = 1 / (1 + np.exp(-np.array([-3.0, 3.0])))
    return (level[1] - 1 / (1 + np.exp(-(6.0 * t - 3.0)))) / (level[1] - level[0])


@dataclass(frozen=True, repr=False)
class DDPM(SDE):
    """The VP-SDE whose knots are a DDPM chain, q(x_n | x_{n-1}) = N(sqrt(1 - β_n) x_{n-1}, β_n I).

    (Ho et al. 2020, eq. 2.)

    >>> import torch, scoresde
    >>> ddpm = scoresde.DDPM.named("linear")
    >>> ddpm.N, bool(torch.isclose(ddpm.alpha(torch.tensor(0.001)) ** 2, torch.tensor(1 - 1e-4)))
    (1000, True)
    """

    betas: tuple[float, ...]
    t_min: float = 0.0
    t_max: float = 1.0

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, dtype=np.float64)
        if betas.ndim != 1 or not len(betas) or not ((betas > 0) & (betas <= 1)).all() or (betas[:-1] == 1).any():
            raise BadInput("DDPM: betas must be in (0, 1), the last one at most 1")
        object.__setattr__(self, "betas", tuple(betas.tolist()))
        object.__setattr__(self, "t_min", self.t_min or 1 / len(betas))
        if not 0 < self.t_min <= self.t_max:
            raise BadInput(f"DDPM: t_min = {self.t_min!r} must be in (0, {self.t_max}]")

    def __repr__(self) -> str:
        return f"DDPM(N={self.N}, betas from {self.betas[0]:.4g} to {self.betas[-1]:.4g})"

    @classmethod
    def named(cls, betas: str = "linear", N: int = 1000, zero_terminal_snr: bool = False) -> DDPM:
        """A chain of N steps by the name of its betas: linear, scaled-linear, cosine or sigmoid."""
        values = BETAS[choose("betas", betas, BETAS)](positive("N", N))
        if (values >= 1).any():
            raise BadInput(
                f"DDPM: {betas} betas reach {values.max():.3g} at N = {N}; they must stay below 1: use a larger N"
            )
        chain = cls(tuple(values.tolist()))
        return chain.zero_terminal_snr() if zero_terminal_snr else chain

    @property
    def N(self) -> int:
        """The number of steps of the chain."""
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """ᾱ_n = Π (1 - β), n = 0 … N-1, float64."""
        return np.exp(2 * self._log_alpha[1:])

    @cached_property
    def _log_alpha(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-np.asarray(self.betas)))])

    @cached_property
    def _rise(self) -> np.ndarray:
        """What log α gains over each step; 0 for a last step to α = 0, over which α itself is linear."""
        rise = np.diff(self._log_alpha)
        return np.where(np.isinf(rise), 0.0, rise)

    def log_alpha(self, t: Tensor) -> Tensor:
        # t is placed by its distance from the nearest knot k/N, given in two parts so that no digit of t is lost. The
        # float64 and the float32 nearest to k/N are that knot: it has its own value in the chain, and the rates of the
        # step that ends there, f(t) = N log(1 - β_n)/2, in every precision.
        def at(values: np.ndarray, index: Tensor) -> Tensor:
            return torch.from_numpy(values).to(t.dtype).to(t.device)[index]

        exact = np.arange(self.N + 1) / self.N
        rounded = torch.from_numpy(exact).to(t.dtype).double().numpy()
        t = t.clamp(0, 1)
        k = (t.detach() * self.N).round().long()
        past = ((t - at(rounded, k)) - at(exact - rounded, k)) * self.N  # in steps, from -1/2 to 1/2
        is_knot = (t == at(exact, k)) | (t == at(exact.astype(np.float32), k))
        past = past - torch.where(is_knot, past, torch.zeros_like(past)).detach()
        n = torch.where(past > 0, k, k - 1).clamp(0, self.N - 1)  # the step that t lies in
        log_alpha = at(self._log_alpha, n) + ((k - n) + past) * at(self._rise, n)
        if self.betas[-1] < 1:
            return log_alpha
        left = (n + 1 - k) - past
        return log_alpha + torch.where(n == self.N - 1, left, torch.ones_like(left)).log()

    def log_sigma(self, t: Tensor) -> Tensor:
        return 0.5 * (-torch.expm1(2 * self.log_alpha(t))).log()

    def t_of_lam(self, lam: Tensor) -> Tensor:
        log_alpha = -0.5 * torch.nn.functional.softplus(-2 * lam, threshold=60.0)
        knots = torch.from_numpy(self._log_alpha).to(lam.dtype).to(lam.device)
        n = (torch.searchsorted(-knots, -log_alpha.contiguous(), right=True) - 1).clamp(0, self.N - 1)
        low, high = knots[n], knots[n + 1]
        part = torch.where(high.isinf(), -torch.expm1(log_alpha - low), (log_alpha - low) / (high - low))
        return (n + part) / self.N

    def zero_terminal_snr(self) -> DDPM:
        """The chain rescaled so that α at the last step is 0 (Lin et al. 2024, algorithm 1); needs v or x0 networks."""
        alpha = np.exp(self._log_alpha[1:])
        alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
        squares = np.concatenate([[1.0], alpha**2])
        return DDPM(tuple((1 - squares[1:] / squares[:-1]).tolist()))

    def to_vpsde(self) -> VPSDE:
        """The continuous SDE of a chain with linear betas: β_min = N β_0, β_max = N β_{N-1}."""
        betas = np.asarray(self.betas)
        if not np.allclose(betas, np.linspace(betas[0], betas[-1], self.N), rtol=1e-9):
            raise BadInput("DDPM.to_vpsde: the betas are not linear, so no VPSDE(beta_min, beta_max) is their limit")
        return VPSDE(beta_min=self.N * self.betas[0], beta_max=self.N * self.betas[-1])

    @classmethod
    def from_vpsde(cls, sde: VPSDE, N: int = 1000) -> DDPM:
        """DDPM's published discretisation: betas linspace(β_min/N, β_max/N, N); raises where some β ≥ 1.

        >>> import scoresde
        >>> scoresde.DDPM.from_vpsde(scoresde.VPSDE()).betas[0]
        0.0001
        """
        if N < 1 or isinstance(sde, SubVPSDE):
            raise BadInput(f"DDPM.from_vpsde: needs a VPSDE and N ≥ 1, got {sde} and N = {N!r}")
        betas = _ramp(sde.beta_min / N, sde.beta_max / N, N)
        if betas.max() >= 1:
            raise BadInput(f"DDPM.from_vpsde: N = {N} gives β = {betas.max():.3g} ≥ 1: use N > {int(sde.beta_max)}")
        return cls(tuple(betas.tolist()))

    @classmethod
    def from_chain(cls, chain: Chain) -> DDPM:
        """The DDPM with exactly a chain's transitions (from `SDE.discretize`); the chain must preserve variance."""
        if not np.allclose(chain.scale**2 + chain.std**2, 1.0, rtol=0, atol=1e-12):
            raise BadInput("DDPM.from_chain: scale² + std² must be 1 (a variance-preserving SDE)")
        return cls(tuple((chain.std**2).tolist()))
