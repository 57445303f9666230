"""Simulation-based inference: posteriors of one, five and many observations before a classifier's two-sample test.

A test that cannot tell two sets of n events apart is right half of the time, give or take 1/sqrt(2 n).
"""

from __future__ import annotations

import pytest
import torch
from exact import F64, SDES
from test_compose import PRIOR
from torch import Tensor

import scoresde
from scoresde.guidance import Matrix, compose, gaussian_posterior
from scoresde.metrics import two_sample_accuracy

N, NOISE = 1000, 0.5
LOOK = Matrix(torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=F64), (3,))
AT_ZERO = gaussian_posterior(PRIOR, LOOK, torch.zeros(2, dtype=F64), NOISE)
UNITS = [gaussian_posterior(PRIOR, LOOK, row, NOISE).mean - AT_ZERO.mean for row in torch.eye(2, dtype=F64)]
STEPS = {"ode": None, "em": 100, "pc": 50}
RUNS = [(name, sampler) for name in ("vp", "subvp", "ve") for sampler in STEPS]


def observed(x0: Tensor, seed: int) -> Tensor:
    noise = torch.randn(len(x0), 2, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return x0 @ LOOK.entries.mT + NOISE * noise


def conditional(name: str) -> scoresde.Denoiser:
    """What a network that is shown x_t and y learns, E[x_0 | x_t, y], whose law moves with y and keeps its shape."""
    sde = SDES[name]
    at_zero, units = AT_ZERO.denoiser(sde), torch.stack(UNITS)

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        moved = y @ units
        return at_zero.x0(x - sde.alpha(t)[:, None] * moved, t) + moved

    return scoresde.Denoiser(network, sde, "x0")


def draw(denoiser: scoresde.denoiser.AnyDenoiser, sampler: str, seed: int, **cond: Tensor) -> Tensor:
    return scoresde.sample(denoiser, (N, 3), sampler, STEPS[sampler], seed=seed, dtype=F64, cond=cond).x


def indistinguishable(a: Tensor, b: Tensor) -> bool:
    return 0.45 < two_sample_accuracy(a, b).value < 0.58


@pytest.mark.parametrize("name, sampler", RUNS)
def test_one_observation(name: str, sampler: str) -> None:
    y = observed(PRIOR.sample(1, seed=1), 1)
    exact = gaussian_posterior(PRIOR, LOOK, y[0], NOISE)
    found = draw(conditional(name), sampler, 2, y=y.expand(N, 2))
    assert indistinguishable(exact.sample(N, seed=3), found)
    assert not indistinguishable(PRIOR.sample(N, seed=3), found)  # the test can fail


@pytest.mark.parametrize("name, sampler", RUNS)
def test_five_observations_of_one_thing(name: str, sampler: str) -> None:
    ys = observed(PRIOR.sample(1, seed=4).expand(5, 3), 5)
    parts = [gaussian_posterior(PRIOR, LOOK, y, NOISE) for y in ys]
    together = Matrix(LOOK.entries.repeat(5, 1), (3,))
    exact = gaussian_posterior(PRIOR, together, ys.flatten(), NOISE)
    sde = SDES[name]
    product = compose(PRIOR.denoiser(sde), [part.denoiser(sde) for part in parts], [PRIOR.cov, *[p.cov for p in parts]])
    assert indistinguishable(exact.sample(N, seed=6), draw(product, sampler, 7))


@pytest.mark.parametrize("name, sampler", RUNS)
def test_a_thousand_observations_in_one_call(name: str, sampler: str) -> None:
    """Of (x, y) drawn together, x drawn again given its y: the pairs have the law that they had."""
    x0 = PRIOR.sample(2 * N, seed=8)
    y = observed(x0, 9)
    found = draw(conditional(name), sampler, 10, y=y[N:])
    assert indistinguishable(torch.cat([x0[:N], y[:N]], 1), torch.cat([found, y[N:]], 1))
    assert not indistinguishable(torch.cat([x0[:N], y[:N]], 1), torch.cat([found.roll(1, 0), y[N:]], 1))
