"""The problems with known answers that the sampler tests share."""

from __future__ import annotations

import torch

import scoresde
from scoresde.samplers import SAMPLERS

F64 = torch.float64
SDES = {name: build() for name, build in scoresde.SDES.items()}
TABLES = [name for name, sampler in SAMPLERS.items() if not sampler.adaptive]
DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if not sampler.stochastic]
STOCHASTIC = [name for name, sampler in SAMPLERS.items() if sampler.stochastic]


def mixture(d: int = 2) -> scoresde.GaussianMixture:
    """An asymmetric mixture: its flow is smooth and nonlinear."""
    return scoresde.GaussianMixture.example(d)


def start(sde: scoresde.SDE, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """A float64 state at t_max."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64) * sde.prior_std()


def steps_for(name: str) -> int:
    """Few steps that every sampler can take."""
    return {"langevin": 3}.get(name, 6)
