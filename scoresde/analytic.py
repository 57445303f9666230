"""Data whose denoiser is known exactly: Gaussians, Gaussian mixtures, and a finite data set, under any SDE.

With x_t = α x_0 + σ ε every answer of a trained network has a closed form here, so a sampler, a loss or a likelihood
can be compared with the truth instead of a picture. For one Gaussian N(m, Q Λ Qᵀ), V = α² Λ + σ² and r = Qᵀ(x - α m):

    x_t ~ N(α m, Q V Qᵀ),      x̂_0 = m + Q (α Λ / V) r,      ε̂ = Q (σ / V) r,      score = -Q r / V,

so u x̂_0 + w ε̂ = u m + Q ((u α Λ + w σ) / V) r for every form of `scoresde.denoiser`, finite as σ → 0 and as α → 0.
A mixture averages this over its modes with their posterior probabilities (Bishop 2006, section 2.3.3); a data set is a
mixture of points, Λ = 0 (Karras et al. 2022, appendix B.3). Results follow x's dtype and device; gradients flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.denoiser import Denoiser, mix
from scoresde.errors import BadInput, choose
from scoresde.schedule import like
from scoresde.sde import SDE, Time

# The time a network is told by its label: the inverse of `labels.LABELS`.
_TIME_OF: dict[str, Callable[[SDE, Tensor], Tensor]] = {
    "t": lambda sde, label: label,
    "1000t": lambda sde, label: label / 1000,
    "index": lambda sde, label: (label + 1) / sde.label_steps,
    "score_sde": lambda sde, label: label / (sde.label_steps - 1),
    "lambda": lambda sde, label: sde.t_of_lam(label),
    "log_sigma/4": lambda sde, label: sde.t_of_lam(-4 * label),
}


class Distribution:
    """What all exact distributions share; a subclass supplies the density and one posterior mean.

    ``t`` is a float, a 0-d tensor, or one per sample; ``x`` has shape (batch, *event_shape).
    """

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one sample."""
        raise NotImplementedError

    def sample(self, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        """n draws of x_0, shape (n, *event_shape), from a generator of their own: the global state is not touched."""
        raise NotImplementedError

    def log_prob(self, x: Float[Tensor, "batch *event"], sde: SDE | None = None, t: Time | None = None) -> Tensor:
        """log density in nats at x, shape (batch,): of x_0, or of the marginal p_t of x_t where sde and t are given."""
        alpha, sigma = self._scales(x, sde, t)
        return self._log_prob(x, alpha, sigma)

    def score(self, x: Float[Tensor, "batch *event"], sde: SDE | None = None, t: Time | None = None) -> Tensor:
        """∇ log_prob at x, in the shape of x: of x_0, or of p_t where sde and t are given."""
        alpha, sigma = self._scales(x, sde, t)
        return self._mean(x, alpha, sigma, torch.zeros_like(sigma), -torch.ones_like(sigma))

    def x0(self, x: Float[Tensor, "batch *event"], sde: SDE, t: Time) -> Float[Tensor, "batch *event"]:
        """x̂_0 = E[x_0 | x_t = x]."""
        return self.predict("x0", x, sde, t)

    def predict(
        self, form: str, x: Float[Tensor, "batch *event"], sde: SDE, t: Time, sigma_data: float = 0.5
    ) -> Tensor:
        """Any form of `scoresde.denoiser` at (x, t): eps, x0, v, score, flow or edm, none computed through another."""
        if form == "score":
            return self.score(x, sde, t)
        time = like(t, x)
        alpha, sigma = self._scales(x, sde, time)
        u, w = mix(form, sde, time, sigma_data)
        return self._mean(x, alpha, sigma, u, w * sigma)

    def network(
        self, sde: SDE, prediction: str = "eps", sigma_data: float = 0.5, time: str = "t"
    ) -> Callable[..., Tensor]:
        """The network that a perfect training would end with: network(x, label, **cond), its output the named form.

        Made to be wrapped, ``Denoiser(dist.network(sde, "v"), sde, "v")``. ``time`` says what the label is, as in
        `Denoiser`; for "edm" the network is given c_in x, as there. Conditioning is ignored.
        """
        t_of = _TIME_OF[choose("time label", time, _TIME_OF)]
        mix(prediction, sde, torch.tensor(sde.t_max), sigma_data)  # refuses an unknown form now, not at the first call

        def network(x: Tensor, label: Tensor, **cond: Any) -> Tensor:
            # One label for the whole batch (an expanded scalar) stays one: cheaper, and seen without reading it.
            t = like(t_of(sde, label[0] if label.stride() == (0,) else label), x)
            if prediction == "edm":
                x = x * torch.hypot(sde.sigma(t), sde.alpha(t) * sigma_data)
            return self.predict(prediction, x, sde, t, sigma_data)

        return network

    def denoiser(self, sde: SDE, prediction: str = "x0", sigma_data: float = 0.5) -> Denoiser:
        """The exact denoiser of this distribution, through a network of the given form."""
        return Denoiser(self.network(sde, prediction, sigma_data), sde, prediction, sigma_data=sigma_data)

    def _scales(self, x: Tensor, sde: SDE | None, t: Time | None) -> tuple[Tensor, Tensor]:
        """(α, σ) to broadcast against x; (1, 0) is the data itself."""
        if x.shape[1:] != self.event_shape:
            raise BadInput(f"x has shape {tuple(x.shape)}; one sample here has shape {tuple(self.event_shape)}")
        if sde is None and t is None:
            return torch.ones((), dtype=x.dtype, device=x.device), torch.zeros((), dtype=x.dtype, device=x.device)
        if sde is None or t is None:
            raise BadInput("give both sde and t for the marginal at t, or neither for the data")
        time = like(t, x)
        return sde.alpha(time), sde.sigma(time)

    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        raise NotImplementedError

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor, u: Tensor, w_sigma: Tensor) -> Tensor:
        """u x̂_0 + w ε̂ from u and the product w σ, which is finite for every form."""
        raise NotImplementedError


class _Modes(NamedTuple):
    """K Gaussians over D flattened coordinates, covariances diagonalised: basis diag(spread) basisᵀ."""

    log_weights: Tensor
    means: Tensor
    basis: Tensor
    spread: Tensor


class _Gaussians(Distribution):
    """The code of `Gaussian` and `GaussianMixture`."""

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """weights (K,), means (K, *event), covariances (K, D, D)."""
        raise NotImplementedError

    @cached_property
    def _modes(self) -> _Modes:
        weights, means, covs = (part.detach().to(torch.float64) for part in self._parts())
        name, modes, dims = type(self).__name__, len(means), means[0].numel()
        if weights.shape != (modes,) or not bool((weights > 0).all()):
            raise BadInput(f"{name}: weights must be {modes} positive numbers, got {weights.tolist()}")
        if covs.shape != (modes, dims, dims):
            raise BadInput(f"{name}: covariances of shape {tuple(covs.shape)} need shape {(modes, dims, dims)}")
        if not torch.allclose(covs, covs.mT, rtol=1e-6, atol=1e-12):
            raise BadInput(f"{name}: a covariance is not symmetric")
        spread, basis = torch.linalg.eigh(covs)
        if not bool((spread >= -1e-6 * spread.amax(-1, keepdim=True)).all()):
            raise BadInput(f"{name}: a covariance has the negative eigenvalue {spread.min().item():.3g}")
        return _Modes((weights / weights.sum()).log(), means.reshape(modes, dims), basis, spread.clamp(min=0))

    def __post_init__(self) -> None:
        _ = self._modes  # checks the numbers now

    @property
    def event_shape(self) -> torch.Size:
        return self._parts()[1].shape[1:]

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean, of the event's shape, and covariance (D, D) of x_0, float64."""
        modes = self._modes
        weights = modes.log_weights.exp()
        mean = weights @ modes.means
        between = modes.means - mean
        within = (modes.basis * modes.spread.unsqueeze(1)) @ modes.basis.mT
        cov = torch.einsum("k,kde->de", weights, within) + torch.einsum("k,kd,ke->de", weights, between, between)
        return mean.reshape(self.event_shape), cov

    def sample(self, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        modes, generator = self._modes, torch.Generator().manual_seed(seed)
        which = torch.multinomial(modes.log_weights.exp().cpu(), n, replacement=True, generator=generator)
        x = torch.randn(n, modes.means.shape[1], dtype=torch.float64, generator=generator)
        for k, (mean, basis, spread) in enumerate(zip(*(part.cpu() for part in modes[1:]), strict=True)):
            x[which == k] = mean + (x[which == k] * spread.sqrt()) @ basis.mT
        return x.reshape(n, *self.event_shape).to(dtype)

    def _at(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[_Modes, Tensor, Tensor, Tensor]:
        """The modes like x; r and V of the head of this file, (batch, K, D); log(weight · density), (batch, K)."""
        modes = _Modes(*(part.to(x) for part in self._modes))
        offset = x.reshape(-1, 1, modes.means.shape[1]) - alpha.reshape(-1, 1, 1) * modes.means
        r = torch.einsum("bkd,kde->bke", offset, modes.basis)
        V = alpha.reshape(-1, 1, 1) ** 2 * modes.spread + sigma.reshape(-1, 1, 1) ** 2
        return modes, r, V, modes.log_weights - 0.5 * (r**2 / V + (2 * math.pi * V).log()).sum(-1)

    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return self._at(x, alpha, sigma)[3].logsumexp(1)

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor, u: Tensor, w_sigma: Tensor) -> Tensor:
        modes, r, V, log_each = self._at(x, alpha, sigma)
        share = log_each.softmax(1)
        gain = (u * alpha).reshape(-1, 1, 1) * modes.spread + w_sigma.reshape(-1, 1, 1)
        moved = torch.einsum("bke,kde->bd", share.unsqueeze(-1) * (gain / V) * r, modes.basis)
        return (u.reshape(-1, 1) * (share @ modes.means) + moved).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Gaussian(_Gaussians):
    """N(mean, cov), mean of any event shape, cov (D, D) over its D flattened coordinates.

    >>> import torch, scoresde
    >>> data, sde = Gaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, 4.0]))), scoresde.RectifiedFlow()
    >>> data.x0(torch.ones(1, 2, dtype=torch.float64), sde, 0.5)  # α Λ / V = 0.5 Λ / (0.25 Λ + 0.25)
    tensor([[1.0000, 1.6000]], dtype=torch.float64)
    """

    mean: Tensor
    cov: Tensor

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ones(1), self.mean.unsqueeze(0), self.cov.unsqueeze(0)


@dataclass(frozen=True, eq=False)
class GaussianMixture(_Gaussians):
    """Σ_k weights_k N(means_k, covs_k): weights (K,), scaled to sum to 1, means (K, *event), covs (K, D, D).

    >>> import scoresde
    >>> data, sde = GaussianMixture.example(d=2), scoresde.VPSDE()
    >>> x = data.sample(5, seed=1)
    >>> data.log_prob(x).shape, data.x0(x, sde, 0.3).shape, data.denoiser(sde).eps(x, 0.3).shape
    (torch.Size([5]), torch.Size([5, 2]), torch.Size([5, 2]))
    """

    weights: Tensor
    means: Tensor
    covs: Tensor

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weights, self.means, self.covs

    @classmethod
    def example(cls, d: int = 2, seed: int = 0) -> GaussianMixture:
        """The test problem of this library in d = 1, 2, 16 or any number of dimensions.

        Three modes of weights 0.5, 0.3, 0.2, placed with no symmetry, each with its own tilted covariance, whose
        standard deviations are up to a factor 3 apart. The mean is 0.3; the variance, averaged over coordinates, is 1,
        a fifth of it within the modes. ``seed`` picks the scatter of the places and the tilts.
        """
        generator = torch.Generator().manual_seed(seed)
        weights, places, widths = torch.tensor(
            [[0.5, 0.3, 0.2], [-1.0, 0.6, 1.6], [1.0, 0.7, 1.3]], dtype=torch.float64
        )
        scatter = torch.randn(3, d, dtype=torch.float64, generator=generator)
        means = torch.stack([places.roll(j) for j in range(d)], dim=1) * (1 + 0.1 * scatter)
        tilt = torch.linalg.qr(torch.randn(3, d, d, dtype=torch.float64, generator=generator)).Q
        std = torch.logspace(0, -math.log10(3), d, dtype=torch.float64) * widths.unsqueeze(1)
        covs = (tilt * std.square().unsqueeze(1)) @ tilt.mT
        means = means - weights @ means
        covs = covs * (0.2 * d / torch.einsum("k,kdd->", weights, covs))
        means = means * (0.8 * d / torch.einsum("k,kd,kd->", weights, means, means)).sqrt()
        return cls(weights, means + 0.3, covs)


@dataclass(frozen=True, eq=False)
class Empirical(Distribution):
    """The data set itself, each of its N rows with probability 1/N: the denoiser that memorises; data (N, *event).

    x̂_0 is the mean of the data weighted by softmax(-‖x - α data_i‖²/(2 σ²)). Distances are taken directly, in blocks
    of at most ``block`` numbers, so that float32 keeps its digits at small σ. It has a density only where σ_t > 0.

    >>> import torch, scoresde
    >>> data = Empirical(torch.tensor([[0.0], [1.0]]))
    >>> data.x0(torch.tensor([[0.5], [0.1]]), scoresde.EDM(), 0.1)
    tensor([[0.5000], [0.0000]])
    """

    data: Tensor
    block: int = 2**22

    def __post_init__(self) -> None:
        if self.data.ndim < 1 or not self.data.numel() or not self.data.is_floating_point():
            raise BadInput(f"Empirical: data must be floating point, (N, *event), got {tuple(self.data.shape)}")

    @property
    def event_shape(self) -> torch.Size:
        return self.data.shape[1:]

    def sample(self, n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        which = torch.randint(len(self.data), (n,), generator=torch.Generator().manual_seed(seed))
        return self.data[which.to(self.data.device)].to(dtype)

    def _scales(self, x: Tensor, sde: SDE | None, t: Time | None) -> tuple[Tensor, Tensor]:
        if sde is None or t is None:
            raise BadInput("Empirical: points have no density of their own: give sde and t, with σ_t > 0")
        return super()._scales(x, sde, t)

    def _logits(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """In blocks over the batch: -‖x - α data_i‖²/(2 σ²), (rows, N), and the data like x, (N, D)."""
        data = self.data.to(x).reshape(len(self.data), -1)
        flat = x.reshape(len(x), 1, data.shape[1])
        alpha, sigma = alpha.reshape(-1, 1, 1), sigma.reshape(-1, 1)
        rows = max(1, self.block // data.numel())
        for start in range(0, max(len(x), 1), rows):
            part = slice(start, start + rows)
            own = slice(None) if len(alpha) == 1 else part  # α and σ of this block, where each sample has its time
            gap = (flat[part] - alpha[own] * data).square().sum(-1)
            yield gap / (-2 * sigma[own] ** 2), data

    def _log_prob(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        each = torch.cat([logits.logsumexp(1) for logits, _ in self._logits(x, alpha, sigma)])
        dims = self.data[0].numel()
        return each - math.log(len(self.data)) - dims * (sigma.reshape(-1).log() + 0.5 * math.log(2 * math.pi))

    def _mean(self, x: Tensor, alpha: Tensor, sigma: Tensor, u: Tensor, w_sigma: Tensor) -> Tensor:
        x0 = torch.cat([logits.softmax(1) @ data for logits, data in self._logits(x, alpha, sigma)]).reshape(x.shape)
        return u * x0 + w_sigma * ((x - alpha * x0) / sigma**2)
