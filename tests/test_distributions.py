"""Every stochastic sampler draws from the data: distances to an exact set, against those between exact sets."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from exact import F64, STOCHASTIC

import scoresde
from scoresde import SAMPLERS

N = 1000


@cache
def hard() -> scoresde.GaussianMixture:
    """Far, thin and unequal: a heavy mode, two needles across each other, and a far one of weight 0.05."""
    needles = [[[0.5, 0.49], [0.49, 0.5]], [[0.5, -0.49], [-0.49, 0.5]]]
    covariances = torch.tensor([[[0.3, 0.0], [0.0, 0.3]], *needles, [[0.01, 0.0], [0.0, 0.01]]], dtype=F64)
    means = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [1.0, -1.0], [4.0, 3.0]], dtype=F64)
    return scoresde.GaussianMixture(torch.tensor([0.5, 0.25, 0.2, 0.05], dtype=F64), means, covariances)


def sliced_wasserstein(a: torch.Tensor, b: torch.Tensor, slices: int = 64) -> float:
    """Root mean square over directions of the 1-D Wasserstein-2 distance."""
    angle = math.pi * torch.arange(slices, dtype=F64) / slices
    directions = torch.stack([angle.cos(), angle.sin()])
    return float(((a @ directions).sort(0).values - (b @ directions).sort(0).values).square().mean().sqrt())


def energy(a: torch.Tensor, b: torch.Tensor) -> float:
    """sqrt(2 E|a - b| - E|a - a'| - E|b - b'|) (Székely & Rizzo 2013), without the zero distances."""
    own = sum(float(torch.cdist(x, x).sum()) / (len(x) * (len(x) - 1)) for x in (a, b))
    return math.sqrt(max(0.0, 2 * float(torch.cdist(a, b).mean()) - own))


DISTANCES = {"sliced Wasserstein": sliced_wasserstein, "energy": energy}


@cache
def floor(distance: str) -> tuple[float, float]:
    """Mean and spread of the distance between two exact sets."""
    found = [DISTANCES[distance](hard().sample(N, seed=2 * k + 2), hard().sample(N, seed=1)) for k in range(24)]
    return float(torch.tensor(found).mean()), float(torch.tensor(found).std())


OPTIONS = {  # what makes a sampler stochastic, or stochastic in another way
    "langevin": {"repeats": 20, "step": 0.2},
    "edm, churned": {"s_churn": 40.0},
    "ddim, η = 1": {"eta": 1.0},
    "eab2, τ = 1": {"tau": 1.0},
    "eab3, τ(t)": {"tau": lambda t: 2 * t},
    "pc, norm": {"rule": "norm"},
    "pc, em": {"predictor": "em", "correctors": 2},
    "cas, power 3": {"power": 3.0},
    "dpm++sde, η = 0.5": {"eta": 0.5},
}


def drawn(case: str) -> torch.Tensor:
    name, options = case.partition(",")[0], OPTIONS.get(case, {})
    steps = 60 if name == "langevin" else 120 if SAMPLERS[name].build else None
    denoiser = hard().denoiser(scoresde.VPSDE())
    return scoresde.sample(denoiser, (N, 2), name, steps, noise="device", dtype=F64, **options).x  # quickly drawn


@pytest.mark.parametrize("name", [*STOCHASTIC, *(case for case in OPTIONS if "," in case)])
def test_samples_are_as_close_to_the_data_as_data_are(name: str) -> None:
    x = drawn(name)
    for distance, measure in DISTANCES.items():
        mean, spread = floor(distance)
        assert measure(x, hard().sample(N, seed=1)) < mean + 4 * spread, distance


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_distances_see_a_missing_mode_and_a_bias(distance: str) -> None:
    mean, spread = floor(distance)
    x = hard().sample(N, seed=99)
    near = x[x[:, 0] < 3]
    for wrong in (near[torch.arange(N) % len(near)], x + 0.3):
        assert DISTANCES[distance](wrong, hard().sample(N, seed=1)) > mean + 4 * spread
