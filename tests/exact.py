"""The problems with known answers that the sampler tests share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import pytest
import torch

import scoresde
from scoresde.samplers import SAMPLERS
from scoresde.samplers.law import output_law
from scoresde.samplers.solver import Solver

F64 = torch.float64
SDES = {name: build() for name, build in scoresde.SDES.items()}
FIXED = [name for name, sampler in SAMPLERS.items() if sampler.build]
TABLES = [name for name, sampler in SAMPLERS.items() if sampler.build and not sampler.adaptive]
DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if not sampler.stochastic]
STOCHASTIC = [name for name, sampler in SAMPLERS.items() if sampler.stochastic]


GAUSSIAN = scoresde.Gaussian(
    torch.tensor([0.7, -0.4, 1.5], dtype=F64), torch.tensor([1.3, 0.25, 0.04], dtype=F64).diag()
)
CONTINUOUS = [name for name in SDES if name != "ddpm"]  # a chain's β jumps at its knots, which caps every order


def few(names: Iterable[str], *always: str) -> list[Any]:
    """Names as parameters of a test: all but some are left to `pytest -m exhaustive`."""
    return [pytest.param(name, marks=() if name in always else pytest.mark.exhaustive) for name in names]


@cache
def mixture(d: int = 2) -> scoresde.GaussianMixture:
    """An asymmetric mixture: its flow is smooth and nonlinear."""
    return scoresde.GaussianMixture.example(d)


def law_error(
    solver: Solver, sde: scoresde.SDE, data: scoresde.Gaussian = GAUSSIAN, denoiser: Any = None, **cond: Any
) -> float:
    """Largest distance of the output's mean and covariance from those of the data, noised to where the run ends."""
    end = sde.knots([solver.times[-1]])
    alpha, sigma = float(end.alpha[0]), float(end.sigma[0])
    mean, cov = output_law(solver, denoiser or data.denoiser(sde), data, **cond)
    wanted = alpha**2 * data.cov + sigma**2 * torch.eye(len(mean))
    return max(float((mean - alpha * data.mean).abs().max()), float((cov - wanted).abs().max()))


def start(sde: scoresde.SDE, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """A float64 state at t_max."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64) * sde.prior_std()


def documented_nfe(name: str, n: int, **options: object) -> int:
    """NFE(n) as `scoresde samplers` prints it, with the options' values for their names."""
    sampler = SAMPLERS[name]
    formula = re.sub(r"(\d)([a-z])", r"\1*\2", sampler.nfe)
    return int(eval(formula, {}, {**sampler.options(), **options, "n": n}))


def steps_for(name: str) -> int | None:
    """Few steps that every sampler can take; None for those that choose their own."""
    return {"langevin": 3}.get(name, 6) if SAMPLERS[name].build else None
