"""The probability of data that are whole numbers, such as the pixels 0 to 255, under a density; bits per dimension.

    P(x) = ∫ p(x + u) du over |u_i| < 1/2 ≥ exp E log p(x + u)         (Theis et al. 2016, section 3.1; Ho et al. 2019)

and of several draws the log of the mean density is the tighter bound (Burda et al. 2016, eq. 8). The bins are centred
on the values, which is where a network trained on whole numbers has seen them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, positive
from scoresde.likelihood.density import Likelihood, log_prob
from scoresde.likelihood.trace import DEQUANTISE
from scoresde.noise import SeededNoise, check_seed
from scoresde.samplers.checks import check_index


def dequantise(x: Tensor, indices: Sequence[int], seed: int = 0, draw: int = 0) -> Tensor:
    """x + u with u uniform in (-1/2, 1/2), a function of seed, sample index and draw; whole numbers become float32.

    >>> import torch
    >>> x = torch.arange(6, dtype=torch.uint8).reshape(3, 2)
    >>> torch.equal(dequantise(x, range(3)).round(), x.float())
    True
    """
    x = x if x.is_floating_point() else x.float()
    z = SeededNoise(seed, indices)(DEQUANTISE, draw, x)
    return x + torch.special.ndtr(z.double()).sub(0.5).clamp(-0.499, 0.499).to(x.dtype)


def discrete_log_prob(
    denoiser: AnyDenoiser,
    x: Tensor,
    steps: int | None = None,
    *,
    levels: int = 256,
    draws: int = 1,
    seed: int = 0,
    first: int = 0,
    **how: Any,
) -> Likelihood:
    """A lower bound of log P(x) in nats for whole numbers x in 0..levels-1: log-mean-exp of p(x + u) over ``draws``.

    ``how`` is all that `log_prob` takes; its ``scaler`` takes 0..levels-1 to the denoiser's units. The draws share the
    probes of a sample, so that an estimate's error does not enter the mean of exponentials, which it would raise.

    >>> import torch, scoresde
    >>> data, sde = scoresde.Gaussian(torch.zeros(1), 9 * torch.eye(1)), scoresde.EDM()
    >>> x = torch.arange(2).reshape(2, 1)
    >>> found = discrete_log_prob(data.denoiser(sde), x, 10, levels=2, draws=4)
    >>> bits_per_dim(found).round(decimals=1)
    tensor([2.9, 3.0])
    """
    if not isinstance(levels, int) or levels < 2:
        raise BadInput(f"levels = {levels!r}: discrete data have at least 2 values")
    whole = not x.is_floating_point() or bool((x == x.round()).all())
    if not len(x) or not whole or not 0 <= x.min().item() <= x.max().item() < levels:  # on the host: 256 is no uint8
        raise BadInput(f"x: with levels = {levels} its values are the whole numbers 0 to {levels - 1}")
    first, seed = check_index(first), check_seed(seed)
    indices = range(first, first + len(x))
    found = [
        log_prob(denoiser, dequantise(x, indices, seed, draw), steps, seed=seed, first=first, **how)
        for draw in range(positive("draws", draws))
    ]
    each = torch.stack([one.log_prob for one in found])
    share = each.detach().softmax(0)
    error = (share * torch.stack([one.standard_error for one in found])).sum(0)  # the same probes: errors add
    settings: Mapping[str, Any] = {**found[0].settings, "levels": levels, "draws": draws, "seed": seed}
    return Likelihood(
        each.logsumexp(0) - math.log(draws),
        error,
        found[0].latent,
        sum(one.nfe for one in found),
        sum(one.products for one in found),
        found[0].times,
        settings,
    )


def bits_per_dim(
    found: Likelihood | Float[Tensor, "n"], width: float | None = None, dims: int | None = None
) -> Float[Tensor, "n"]:
    """-log₂ P(x)/d of each sample.

    Of the result of `discrete_log_prob` it follows; a density has none until the data's bins are declared: P is then
    the density times ``width`` for each of the ``dims`` coordinates (those of the result).

    >>> import math, torch
    >>> bits_per_dim(torch.tensor([-16 * math.log(2.0)]), width=1.0, dims=2)
    tensor([8.])
    """
    if isinstance(found, Likelihood):
        dims = found.latent[0].numel()
        width = 1.0 if "levels" in found.settings else width
        found = found.log_prob
    if width is None or dims is None or not 0 < width < math.inf:
        raise BadInput(
            "bits per dimension are of discrete data: use discrete_log_prob(levels=...),"
            f" or declare the width of a bin in the data's units and the dims; got width = {width}, dims = {dims}"
        )
    return -(found / positive("dims", dims) + math.log(width)) / math.log(2)
