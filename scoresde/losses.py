"""Denoising score matching: E over t, x_0, ε of weight(t) ‖net(x_t, t) - target‖², for every form and weighting.

Its minimiser is the conditional mean of the target (Vincent 2011), so ε, v, x0 and score networks learn one function
under different weightings. With SNR = α²/σ² and the error of x̂_0 as the common currency:

| weighting     | weight on ‖x̂_0 - x_0‖² | source                                                        |
|---------------|-------------------------|---------------------------------------------------------------|
| simple        | that of the form        | plain error of the network's own output; for ε Ho et al. 2020, eq. 14 |
| snr           | SNR                     | error of ε̂ whatever the form (Ho et al. 2020)                |
| truncated_snr | max(SNR, 1)             | Salimans & Ho 2022, section 4                                 |
| min_snr       | min(SNR, γ), γ = 5      | Hang et al. 2023, eq. 8                                       |
| likelihood    | g² α²/(2 σ⁴)            | g² ‖ŝ - s‖²/2, Song et al. 2021 (maximum likelihood), eq. 7   |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.denoiser import Denoiser
from scoresde.errors import choose
from scoresde.schedule import like, per_sample
from scoresde.sde import SDE

GAMMA = 5.0

_ON_X0: dict[str, Callable[[SDE, Tensor], Tensor]] = {
    "snr": lambda sde, t: (2 * sde.lam(t)).exp(),
    "truncated_snr": lambda sde, t: (2 * sde.lam(t)).exp().clamp(min=1.0),
    "min_snr": lambda sde, t: (2 * sde.lam(t)).exp().clamp(max=GAMMA),
    "likelihood": lambda sde, t: 0.5 * sde.g2(t) * (2 * (sde.lam(t) - sde.log_sigma(t))).exp(),
}
WEIGHTINGS = ("simple", *_ON_X0)


def weight(weighting: str, denoiser: Denoiser, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The weight on the squared error of the network's own output, in the shape of t.

    >>> import torch, scoresde
    >>> d = scoresde.Denoiser(lambda x, t: x, scoresde.VPSDE(), "eps")
    >>> weight("simple", d, torch.tensor([0.3])), weight("snr", d, torch.tensor([0.3]))  # the same for ε networks
    (tensor([1.]), tensor([1.]))
    """
    if choose("weighting", weighting, WEIGHTINGS) == "simple":
        return torch.ones_like(t)
    return _ON_X0[weighting](denoiser.sde, t) * denoiser.pair("x0", t)[1].square()


def denoising_loss(
    denoiser: Denoiser,
    x0: Float[Tensor, "batch *event"],
    t: Float[Tensor, "batch"],
    noise: Float[Tensor, "batch *event"],
    weighting: str = "simple",
    **cond: Any,
) -> Float[Tensor, "batch"]:
    """weight(t) times the mean squared error of the network's output at x_t = α x_0 + σ ε, one number per sample."""
    x = denoiser.sde.perturb(x0, t, noise)
    error = (denoiser.output(x, t, **cond) - denoiser.target(x0, noise, t)).square()
    return weight(weighting, denoiser, like(t, x)).reshape(-1) * per_sample(error).mean(1)


def sample_times(n: int, sde: SDE, generator: torch.Generator, index: bool = False) -> Float[Tensor, "n"]:
    """n training times: uniform on [t_min, t_max], stratified over the batch; ``index``: (step + 1)/N of t_max.

    Stratified draws t_i = u + i/n mod 1 (Kingma et al. 2021, appendix I.1) are each uniform and together even, which
    lowers the variance of the loss. Returned float32 on the generator's device.

    >>> import torch, scoresde
    >>> t = sample_times(4, scoresde.VPSDE(), torch.Generator().manual_seed(0))
    >>> bool(((t >= 1e-3) & (t <= 1)).all())
    True
    """
    if index:
        N = int(getattr(sde, "N", 1000))
        return (torch.randint(N, (n,), generator=generator, device=generator.device) + 1.0) / N * sde.t_max
    u = torch.rand((), generator=generator, device=generator.device)
    u = (u + torch.arange(n, device=generator.device) / n) % 1
    return sde.t_min + (sde.t_max - sde.t_min) * u
