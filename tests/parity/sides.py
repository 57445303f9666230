"""What the tests beside other libraries share: the problem, each side's run on it, and their comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from exact import F64, mixture, start

import scoresde

N, SHAPE = 8, (6, 2)
VP = ("vp", "cosine")  # the SDEs diffusers knows
ALL = ("vp", "cosine", "subvp", "ve", "edm", "flow")  # k-diffusion works on x/α, so any of ours
RAW, TRAILING = {"clip_sample": False}, {"timestep_spacing": "trailing"}
FULL = {"lower_order_final": False}


def draws() -> Callable[[torch.Tensor], torch.Tensor]:
    """The same standard normal noise in the same order for each side."""
    generator = torch.Generator().manual_seed(1)
    return lambda x: torch.randn(x.shape, dtype=F64, generator=generator)


def ours(name: str, sde: scoresde.SDE, times: Sequence[float], **options: Any) -> scoresde.Result:
    """Our sampler of this name on the exact mixture."""
    own = draws()
    how = {"x": start(sde, SHAPE), "grid": times, "noise": lambda step, draw, x: own(x), **options}
    return scoresde.sample(mixture().denoiser(sde), SHAPE, name, dtype=F64, **how)


def levels(sde: scoresde.SDE, times: Sequence[float]) -> list[float]:
    """σ/α at the knots, 0 at the data."""
    return np.exp(-sde.knots(times).lam).tolist()


def chain(times: Sequence[float]) -> list[float]:
    """A grid as a training chain of diffusers, one index a knot, noisiest last; the data is no index."""
    return list(times[-2::-1]) if times[-1] == 0 else list(times[::-1])


def beyond(times: Sequence[float]) -> list[float]:
    """The chain with an index below the last call, for schedulers whose spacing leaves out the lowest."""
    return chain(times) if times[-1] else [times[-2] / 2, *chain(times)]


def same(x: torch.Tensor, y: torch.Tensor, tolerance: float = 1e-9) -> None:
    """Both finite, and equal to ``tolerance`` of the larger of 1 and the state."""
    assert torch.isfinite(y).all()
    assert (x - y).abs().max() < tolerance * max(1.0, float(y.abs().max()))
