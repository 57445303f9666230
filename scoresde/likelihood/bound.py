"""The variational bound of a model at given data: of a chain, term by term, and of the SDE itself.

    -log p(x_0) ≤ L_T + Σ_{n=1}^{N-1} L_n + L_0                                             (Ho et al. 2020, eq. 5)

for the chain with N even steps, its terms those of `losses.vlb`; and for N → ∞ (Kingma et al. 2021, eq. 17),
in λ, half the log signal-to-noise ratio,

    L_T + ∫ E ‖ε - ε̂(x_λ)‖² dλ from λ(t_max) to λ(t_min) - E log p(x_0 | x_{t_min}).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scoresde.denoiser import Denoiser
from scoresde.errors import BadInput, positive
from scoresde.likelihood.density import Affine
from scoresde.likelihood.trace import BOUND
from scoresde.losses.vlb import chain_steps, decoder_nats, prior_bound, vlb_loss
from scoresde.noise import SeededNoise
from scoresde.samplers.checks import check_denoiser, check_index, check_state
from scoresde.schedule import per_sample

STRATA = 128  # of the continuous bound


@dataclass(frozen=True, eq=False)
class Bound:
    """What `variational_bound` returns, in nats of each sample and in the data's own units.

    terms            (n, N): L_0, L_1, ..., L_{N-1}; of the continuous bound the strata of the integral, from low to
                     high noise
    decoder          (n,): L_0, or -log p(x_0 | x_{t_min}), the units' log-determinant in it
    prior            (n,): L_T
    total            (n,): the bound of -log p(x_0)
    bits_per_dim     (n,): the total in bits per coordinate, where levels were declared
    """

    terms: Tensor = field(repr=False)
    decoder: Tensor
    prior: Tensor
    total: Tensor
    bits_per_dim: Tensor | None


def variational_bound(
    denoiser: Denoiser,
    x: Tensor,
    N: int | None = None,
    *,
    continuous: bool = False,
    strata: int | None = None,
    levels: int | None = None,
    variance: str | None = None,
    seed: int = 0,
    first: int = 0,
    scaler: Affine | None = None,
    cond: dict[str, Any] | None = None,
) -> Bound:
    """The bound at x with one draw of noise per sample and term: unbiased, with N calls per sample, or ``strata`` + 1.

    N             steps of the chain, a DDPM's own by default
    continuous    the limit N → ∞ instead, λ drawn uniformly in each of ``strata`` equal parts of its range (128)
    levels        x are whole numbers 0..levels-1 that the ``scaler`` takes to [-1, 1]; else L_0 is a density
    variance      of the chain's reverse steps where the network has learned none, as in `scoresde.losses.vlb_loss`:
                  "upper" by default, with which the bound tends to the likelihood; the decoder of "posterior" is too
                  narrow for a density
    seed, first   noise is a function of seed and of the sample's index, which counts from ``first``

    >>> import torch, scoresde
    >>> data = scoresde.Gaussian(torch.zeros(2), torch.eye(2))
    >>> bound = variational_bound(data.denoiser(scoresde.VPSDE()), torch.zeros(3, 2), 10)
    >>> bound.terms.shape, bound.total.shape
    (torch.Size([3, 10]), torch.Size([3]))
    """
    idle = {"N": N, "variance": variance} if continuous else {"strata": strata}
    for name, value in idle.items():
        if value is not None:
            bound, has = ("continuous", "no steps") if continuous else ("chain's", "no strata (continuous=True has)")
            raise BadInput(f"{name} = {value!r} does nothing here: the {bound} bound has {has}")
    check_denoiser(denoiser)
    first = check_index(first)
    x0 = x if scaler is None else scaler.encode(x)
    check_state(x0, x0.dtype)
    if not len(x0):
        raise BadInput("x: no samples")
    given, dims = dict(cond or {}), per_sample(x0).shape[1]
    noise = SeededNoise(seed, range(first, first + len(x0)))
    if levels is not None and bool((x0.abs() > 1 + 1e-6).any()):
        raise BadInput(f"levels = {levels}: discrete data lie in [-1, 1] in the denoiser's units: give their scaler")
    if levels is not None and bool(((level := (x0 + 1) * (levels - 1) / 2) - level.round()).abs().max() > 1e-2):
        raise BadInput(f"levels = {levels}: x is between the {levels} values that lie evenly in [-1, 1]")
    nats = dims * math.log(2)
    prior = nats * prior_bound(denoiser.sde, x0)
    if continuous:
        terms = _integral(denoiser, x0, positive("strata", STRATA if strata is None else strata), noise, given)
        decoder = _reconstruction(denoiser, x0, levels, noise, given)
        total = terms.sum(1) + decoder + prior
    else:
        steps = chain_steps(denoiser.sde, N)
        each: list[Tensor] = []
        for n in range(steps):
            t = torch.full((len(x0),), (n + 1) / steps * denoiser.sde.t_max, dtype=x0.dtype, device=x0.device)
            eps = noise(BOUND, n, x0)
            each.append(
                nats * vlb_loss(denoiser, x0, t, eps, steps, levels=levels, variance=variance or "upper", **given)
            )
        terms = torch.stack(each, 1)
        decoder, total = terms[:, 0], terms.sum(1) + prior
    if levels is None and scaler is not None:  # a density in the data's units; the probability of a bin has none
        constant = scaler.log_det(tuple(x0.shape[1:]))
        decoder, total = decoder - constant, total - constant
    return Bound(terms, decoder, prior, total, None if levels is None else total / nats)


def _integral(denoiser: Denoiser, x0: Tensor, strata: int, noise: SeededNoise, cond: dict[str, Any]) -> Tensor:
    """∫ E ‖ε - ε̂‖² dλ, (n, strata), one λ per sample and stratum."""
    sde = denoiser.sde
    low, high = sde.knots([sde.t_max, sde.t_min]).lam.tolist()
    if not math.isfinite(high - low):
        raise BadInput(f"continuous = True: λ is not finite at both ends of {sde}; use a chain of N steps")
    width, each = (high - low) / strata, list[Tensor]()
    for k in range(strata):
        place = noise(BOUND + 1, k, x0.new_empty(len(x0), 1)).squeeze(1).double()
        lam = high - width * (k + torch.special.ndtr(place))
        t = sde.t_of_lam(lam).clamp(sde.t_min, sde.t_max).to(x0.dtype)
        eps = noise(BOUND, k, x0)
        gap = eps - denoiser.eps(sde.perturb(x0, t, eps), t, **cond)
        each.append(width * per_sample(gap.square()).sum(1))
    return torch.stack(each, 1)


def _reconstruction(
    denoiser: Denoiser, x0: Tensor, levels: int | None, noise: SeededNoise, cond: dict[str, Any]
) -> Tensor:
    """-log p(x_0 | x_{t_min}), a Gaussian of standard deviation σ/α around x̂_0, over the bin of a discrete x_0."""
    sde = denoiser.sde
    t = torch.full((len(x0),), sde.t_min, dtype=x0.dtype, device=x0.device)
    mean = denoiser.x0(sde.perturb(x0, t, noise(BOUND + 2, 0, x0)), t, **cond)
    log_std = torch.full_like(x0, -float(sde.knots([sde.t_min]).lam[0]))
    return per_sample(decoder_nats(x0, mean, log_std, levels)).sum(1)
