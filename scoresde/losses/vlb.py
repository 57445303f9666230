"""The variational bound of a chain, one term at a time, with a fixed or a learned variance.

    -log p(x_0) ≤ L_0 + Σ_n L_n + L_T
    L_n = KL(q(x_s | x_t, x_0) ‖ p(x_s | x_t)),   s = t_n, t = t_{n+1}                     (Ho et al. 2020, eq. 5)
    L_0 = -log p(x_0 | x_{t_1}),   a Gaussian around x̂_0, over the bin of a discrete x_0    (Ho et al. 2020, eq. 13)
    L_T = KL(q(x_T | x_0) ‖ N(0, prior_std²))

Both sides of L_n are Gaussians around posterior means, of x_0 and of x̂_0; p's variance is that of q (or β, "upper"),
or what the network has learned between them (Nichol & Dhariwal 2021, eq. 15).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.denoiser import Denoiser
from scoresde.errors import BadInput, choose, positive
from scoresde.losses.weightings import weight
from scoresde.schedule import like, per_sample
from scoresde.sde import SDE

VARIANCES = ("posterior", "upper")


def chain_times(sde: SDE, N: int, t: Tensor) -> Tensor:
    """s of the step of an N-step chain with even times that ends at s and starts from t: t - t_max/N, 0 at the first.

    >>> import scoresde, torch
    >>> chain_times(scoresde.VPSDE(), 10, torch.tensor([1.0, 0.1]))
    tensor([0.9000, 0.0000])
    """
    step = (t / sde.t_max * positive("N", N)).round() - 1
    return step.clamp(min=0) / N * sde.t_max


def vlb_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "batch *event"],
    t: Float[Tensor, "batch"],
    noise: Float[Tensor, "batch *event"],
    N: int | None = None,
    *,
    levels: int | None = None,
    variance: str = "posterior",
    **cond: Any,
) -> Float[Tensor, "batch"]:
    """The term of step t of the bound, in bits per coordinate, one number per sample; its mean over n is L_vlb/N.

    ``t`` are times of the chain, (n + 1) t_max/N; ``N`` is a DDPM chain's own. ``levels`` is the number of values of a
    discrete x_0 in [-1, 1] (256 for uint8); without it x_0 is continuous and L_0 a density. ``variance`` is p's where
    the network has learned none.

    >>> import torch, scoresde
    >>> chain = scoresde.DDPM.named("linear", 100)
    >>> exact = scoresde.Gaussian(torch.zeros(2), 0.01 * torch.eye(2)).denoiser(chain)
    >>> vlb_loss(exact, torch.zeros(3, 2), torch.full((3,), 0.5), torch.ones(3, 2)).shape
    torch.Size([3])
    """
    x = denoiser.sde.perturb(x0, t, noise)
    out, v = denoiser.outputs(x, t, **cond)
    return _term(denoiser, x0, x, t, out, v, N, levels, variance)


def hybrid_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "batch *event"],
    t: Float[Tensor, "batch"],
    noise: Float[Tensor, "batch *event"],
    weighting: str = "simple",
    N: int | None = None,
    *,
    levels: int | None = None,
    share: float = 1e-3,
    **cond: Any,
) -> Float[Tensor, "batch"]:
    """L_simple + ``share`` L_vlb of a network with a learned variance, in one call (Nichol & Dhariwal 2021, eq. 16).

    L_simple is `denoising_loss` with its weighting, which alone moves the mean; L_vlb = N times the term of step t
    moves the variance alone: the mean is held in it (their section 3.1).
    """
    if not denoiser.learned_variance:
        raise BadInput("the hybrid loss is for a network that learns its variance: Denoiser(learned_variance=True)")
    x = denoiser.sde.perturb(x0, t, noise)
    out, v = denoiser.outputs(x, t, **cond)
    error = per_sample((out - denoiser.target(x0, noise, t)).square()).mean(1)
    simple = weight(weighting, denoiser, like(t, x)).reshape(-1) * error
    return simple + share * chain_steps(denoiser.sde, N) * _term(
        denoiser, x0, x, t, out.detach(), v, N, levels, "posterior"
    )


def chain_steps(sde: SDE, N: int | None) -> int:
    """The steps of the chain that a bound is of."""
    if N is None and sde.N is None:
        raise BadInput(f"the bound needs a chain: give the number of steps N, {sde} has none of its own")
    return positive("N", sde.N if N is None else N)


def _term(
    denoiser: Denoiser,
    x0: Tensor,
    x: Tensor,
    t: Tensor,
    out: Tensor,
    v: Tensor | None,
    N: int | None,
    levels: int | None,
    variance: str,
) -> Tensor:
    """The term of the bound from the network's output at (x, t)."""
    sde, steps = denoiser.sde, chain_steps(denoiser.sde, N)
    if levels is not None and (not isinstance(levels, int) or levels < 2):
        raise BadInput(f"levels = {levels!r}: a discrete x_0 has at least 2 values")
    choose("variance", variance, VARIANCES)
    s = chain_times(sde, steps, t)
    first, at = like((s == 0).to(x.dtype), x).bool(), like(t, x)
    end = torch.where(first, 0.5 * at, like(s, x))  # stands for 0, where λ has no value, in what the first step drops
    skip, scale = denoiser.pair("x0", at)
    x0_hat = skip * x + scale * out
    share = -torch.expm1(2 * (sde.lam(at) - sde.lam(end)))
    log_q = sde.log_sigma(end) + 0.5 * share.log()  # of q(x_s | x_t, x_0)
    least, most = _decoder_stds(sde, steps, x)
    low = torch.where(first, least, log_q)
    high = torch.where(first, most, log_q + sde.log_sigma(at) - sde.log_sigma(end))
    log_p = (low if variance == "posterior" else high) if v is None else v * high + (1 - v) * low
    gap = sde.alpha(end) * share * (x0 - x0_hat)  # of the two means
    kl = log_p - log_q - 0.5 + 0.5 * ((2 * (log_q - log_p)).exp() + (gap * (-log_p).exp()).square())
    nats = torch.where(first, decoder_nats(x0, x0_hat, log_p.expand_as(x0), levels), kl)
    return per_sample(nats).mean(1) / math.log(2)


def prior_bound(sde: SDE, x0: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch"]:
    """L_T in bits per coordinate: KL(N(α_T x_0, σ_T²) ‖ N(0, prior_std²))."""
    t = torch.full((len(x0),), sde.t_max, dtype=x0.dtype, device=x0.device)
    mean, std = sde.marginal(x0, t)
    prior = sde.prior_std()
    kl = math.log(prior) - std.log() - 0.5 + 0.5 * (std.square() + mean.square()) / prior**2
    return per_sample(kl.expand_as(x0)).mean(1) / math.log(2)


def _decoder_stds(sde: SDE, N: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """log of the least and the largest standard deviation of p(x_0 | x_{t_1})."""
    one, two = (torch.full((), k / N * sde.t_max, dtype=x.dtype, device=x.device) for k in (1, min(2, N)))
    share = -torch.expm1(2 * (sde.lam(two) - sde.lam(one)))
    most = sde.log_sigma(one)
    return (most + 0.5 * share.log() if N > 1 else most), most


def decoder_nats(x0: Tensor, mean: Tensor, log_std: Tensor, levels: int | None) -> Tensor:
    """-log of the Gaussian's mass on x_0's bin, the outer bins open; without ``levels`` of its density."""
    z = (x0 - mean) * (-log_std).exp()
    if levels is None:
        return 0.5 * z.square() + log_std + 0.5 * math.log(2 * math.pi)
    half = (-log_std).exp() / (levels - 1)
    upper, lower = z + half, z - half
    # The mass of the bin on the side of the tail where it is not a difference of numbers near 1.
    flip = z > 0
    a, b = torch.where(flip, -upper, lower), torch.where(flip, -lower, upper)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    inside = log_b + torch.log(-torch.expm1((log_a - log_b).clamp(max=-1e-7)))
    lowest, highest = x0 <= -1 + 1e-6, x0 >= 1 - 1e-6
    outer = torch.where(lowest, torch.special.log_ndtr(upper), torch.special.log_ndtr(-lower))
    return -torch.where(lowest | highest, outer, inside)
