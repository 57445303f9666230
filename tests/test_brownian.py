"""Brownian noise: the path's exact law, what a row's noise is of it, and runs that converge path by path."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from exact import F64, SDES, STOCHASTIC, mixture

import scoresde
from scoresde import SAMPLERS, BadInput, Row, Table
from scoresde.brownian import LEAF, SPAN, BrownianNoise, _value, brownian
from scoresde.grids import make_grid
from scoresde.noise import START, SeededNoise
from scoresde.samplers.multistep import exponential_multistep

# ------------------------------------------------------------------------------------------------------ the path's law


def normals(lams: Sequence[float]) -> np.ndarray:
    """Y at each λ as coefficients of the tree's normals, one row per λ: its law without a draw."""
    place: dict[int, int] = {}  # of a node's normal among all that were asked for

    def unit(node: int) -> torch.Tensor:
        return basis[place.setdefault(node, len(place))]

    basis = torch.eye(30 * len(lams), dtype=F64)

    return torch.stack([_value(lam, unit) for lam in lams]).numpy()


def test_the_path_has_the_covariance_of_brownian_motion() -> None:
    """cov(Y, Y') = e^{-|λ-λ'|}, that is cov(B(u), B(u')) = min(u, u'), from one leaf's distance to the whole span."""
    rng = np.random.default_rng(0)
    for gap in (1.01 * LEAF, 1e-4, 0.02, 0.7, 5.0):
        lams = rng.uniform(-SPAN, SPAN - 4 * gap, 6)
        lams = np.concatenate([[-SPAN, SPAN], *(lams + k * gap for k in range(4))])
        Y = normals(lams.tolist())
        assert np.abs(Y @ Y.T - np.exp(-np.abs(lams[:, None] - lams))).max() < 1e-13


@pytest.mark.parametrize("h", [2.0**-19, 1e-3, 0.3, 10.0])
def test_disjoint_intervals_have_independent_standard_normals(h: float) -> None:
    lams = -25.3 + h * np.cumsum([0.0, 1.0, 0.6, 1.7, 1.1])
    Y = normals(lams.tolist())
    rest = np.exp(-np.diff(lams))[:, None]
    z = (Y[1:] - rest * Y[:-1]) / np.sqrt(1 - rest**2)
    assert np.abs(z @ z.T - np.eye(4)).max() < 1e-13 / h + 1e-12


def test_increments_add_up_whatever_the_steps() -> None:
    x, noise = torch.zeros(2, 50, dtype=F64), BrownianNoise(3, [4, 9], ())
    lams = [-4.1, -1.0, -0.999, 0.37, 5.2]
    u = np.exp(2 * np.array(lams))
    parts = sum(noise.between(*step, x) * size for step, size in zip(pairwise(lams), np.sqrt(np.diff(u)), strict=True))
    whole = noise.between(lams[0], lams[-1], x) * math.sqrt(u[-1] - u[0])
    assert (parts - whole).abs().max() < 1e-12 * math.sqrt(u[-1])
    assert torch.equal(noise.between(0.37, -1.0, x), -noise.between(-1.0, 0.37, x))
    origin = noise.between(-math.inf, -4.1, x) * math.sqrt(u[0])  # B(0) = 0
    from_origin = noise.between(-math.inf, 5.2, x) * math.sqrt(u[-1])
    assert (origin + whole - from_origin).abs().max() < 1e-12 * math.sqrt(u[-1])


def test_draws_are_standard_normal() -> None:
    noise, x = BrownianNoise(0, range(4), ()), torch.zeros(4, 3, 4000, dtype=F64)
    z = torch.stack([noise.between(a, b, x) for a, b in ((-5.0, -4.9), (-4.9, 1.0), (1.0, 1.001))]).reshape(3, -1)
    n = z.shape[1]
    assert (z.mean(1).abs() < 4 / math.sqrt(n)).all()
    assert ((z.square().mean(1) - 1).abs() < 4 * math.sqrt(2 / n)).all()
    assert ((z**4).mean(1) - 3).abs().max() < 4 * math.sqrt(96 / n)
    assert (torch.corrcoef(z) - torch.eye(3)).abs().max() < 4 / math.sqrt(n)


def test_a_sample_has_its_path_in_any_batch_and_seeds_differ() -> None:
    x = torch.zeros(8, 3)
    batch = BrownianNoise(0, range(8), ()).between(-1.0, 0.5, x)
    assert batch.dtype == torch.float32
    assert torch.equal(BrownianNoise(0, [5, 2], ()).between(-1.0, 0.5, x[:2]), batch[[5, 2]])
    other = BrownianNoise(1, range(8), ()).between(-1.0, 0.5, x)
    assert (other != batch).all() and len(batch.unique()) == batch.numel()


# --------------------------------------------------------------------------------------------- what a row's noise is


VP = SDES["vp"]


def lam(t: float) -> float:
    return float(VP.knots([t]).lam[0])


def table(*rows: Row) -> Table:
    return Table(VP, "x0", rows)


def built(name: str, sde: scoresde.SDE, times: tuple[float, ...], **options: Any) -> Any:
    build = SAMPLERS[name].build
    assert build
    return build(sde, times, **options)


def moves(name: str) -> bool:
    """Whether a sampler of many steps draws noise on its way, and not at each level alone."""
    solver = built(name, VP, make_grid("lambda", VP, 9, "zero"))
    return isinstance(solver, Table) and solver.stochastic and name != "langevin"


@pytest.mark.parametrize("name", [name for name in STOCHASTIC if SAMPLERS[name].build and moves(name)])
@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_no_two_rows_of_a_sampler_share_a_piece_of_the_path(sde: scoresde.SDE, name: str) -> None:
    """Each row that draws has its own stretch within the run, or a draw of its own."""
    sampler = SAMPLERS[name]
    for n in (2, 7, 200):
        grid, final = sampler.defaults(n)
        solver = built(name, sde, make_grid(grid, sde, n, final))
        spans = [sorted(span) for span in brownian(0, [0], solver).clock if span]
        assert spans and all(b[0] >= a[1] for a, b in pairwise(sorted(spans)))
        ends = sde.knots([solver.times[0], min(t for t in solver.times if t)]).lam
        assert spans[0][0] >= ends[0] and spans[-1][1] <= ends[1] + 1e-12


def test_one_noise_per_step_is_the_steps_increment() -> None:
    clock = brownian(0, [0], built("ddpm", VP, (1.0, 0.5, 0.2, 0.0))).clock
    assert clock[-1] is None
    assert np.allclose(clock[:2], [(lam(1.0), lam(0.5)), (lam(0.5), lam(0.2))], rtol=0, atol=1e-14)


def test_correctors_draw_for_themselves_and_predictors_follow_the_path() -> None:
    times, x = (1.0, 0.5, 0.2), torch.zeros(1, 4)
    alone, corrected = (built(name, VP, times) for name in ("ddpm", "pc"))
    noise = brownian(0, [3], corrected)
    assert [span is None for span in noise.clock] == [False, True, False, True]
    assert noise.clock[::2] == brownian(0, [3], alone).clock
    assert torch.equal(noise(1, 0, x), SeededNoise(0, [3])(1, 0, x))


@pytest.mark.parametrize("weights", [(0.3, 0.4), (0.3, -0.4), (1e-2, 2.0), (2.0, 1e-2)])
def test_stages_that_leave_their_noise_make_up_the_steps_increment(weights: tuple[float, float]) -> None:
    first, second = weights
    rows = (Row(0.8, 0.6, 0.5, c=(first / 0.7,), ends=False), Row(0.6, 0.5, 0.7, c=(second,)))
    noise, x = brownian(0, range(2), table(*rows)), torch.zeros(2, 30, dtype=F64)
    total = first * noise(0, 0, x) + second * noise(1, 0, x)
    assert (total - math.hypot(*weights) * noise.between(lam(0.8), lam(0.5), x)).abs().max() < 1e-12
    assert (noise(0, 0, x) - noise(1, 0, x)).abs().min() > 0


def test_a_noise_used_again_and_one_removed_again() -> None:
    """z_0 is used by two rows of its step; z_1 perturbs a stage and is taken out by the next."""
    again = table(Row(0.8, 0.6, 0.5, c=(0.3,), ends=False), Row(0.6, 0.5, 0.7, c=(0.0, 0.2)))
    assert brownian(0, [0], again).clock == (brownian(0, [0], table(Row(0.8, 0.5, 1.0, c=(1.0,)))).clock[0], None)
    later = table(Row(0.8, 0.5, 0.5, c=(0.3,)), Row(0.5, 0.2, 0.7, c=(0.2, 0.1)))  # by the next step too
    assert brownian(0, [0], later).clock == ((lam(0.8), lam(0.5)), (lam(0.5), lam(0.2)))
    removed = table(Row(0.8, 0.6, 0.5, c=(0.3,), ends=False), Row(0.6, 0.5, 0.7, c=(0.2, -0.21)))
    assert brownian(0, [0], removed).clock == (None, brownian(0, [0], again).clock[0])
    nearly = table(Row(0.8, 0.6, 0.5, c=(0.3,), ends=False), Row(0.6, 0.5, 1e-4, c=(0.2,)))
    assert brownian(0, [0], nearly).clock == brownian(0, [0], removed).clock


def test_an_ancestral_step_of_two_stages_draws_at_its_end() -> None:
    """Down to 0.5 without noise, as DPM2 ancestral, then noise by the row that stays there: the step's only one."""
    ancestral = table(Row(0.8, 0.5, 0.5, (0.1,), ends=False), Row(0.5, 0.5, 1.0, (0.1,), (0.3,)))
    assert brownian(0, [0], ancestral).clock == (None, (lam(0.8), lam(0.5)))


def test_noise_on_the_way_up_covers_the_step_it_begins() -> None:
    """Churn: up from 0.5 to 0.6, then down to 0.3 without noise."""
    churned = table(Row(0.5, 0.6, 0.9, c=(0.4,), ends=False, calls=False), Row(0.6, 0.3, 0.8, (0.1,)))
    assert brownian(0, [0], churned).clock == ((lam(0.5), lam(0.3)), None)


def test_ground_covered_before_gets_noise_of_its_own() -> None:
    down, up = Row(0.8, 0.5, 0.5, c=(0.3,)), Row(0.5, 0.8, 0.5, c=(0.3,), calls=False)
    clock = brownian(0, [0], table(down, up, down, Row(0.5, 0.2, 0.5, c=(0.3,)))).clock
    assert [span is None for span in clock] == [False, True, True, False]


def test_the_start_is_the_seeds_own() -> None:
    noise, x = brownian(7, range(3), built("ddpm", VP, (1.0, 0.5, 0.0))), torch.zeros(3, 2)
    assert torch.equal(noise(START, 0, x), SeededNoise(7, range(3))(START, 0, x))
    assert torch.equal(noise(0, 1, x), SeededNoise(7, range(3))(0, 1, x))


def test_a_path_from_pure_noise() -> None:
    """Where α = 0 the path begins at B = 0, and the first z is the later one's past."""
    chain = scoresde.DDPM.named("linear", 100, zero_terminal_snr=True)
    clock = brownian(0, [0], built("ddpm", chain, (1.0, 0.5, 0.0))).clock
    assert clock[0] is not None and clock[0][0] == -math.inf and math.isfinite(clock[0][1])


def test_what_a_path_refuses() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(BadInput, match="draws none"):
        brownian(0, [0], built("ddim", VP, (1.0, 0.5)))
    with pytest.raises(BadInput, match="draws none"):
        brownian(0, [0], built("langevin", VP, (1.0, 0.5)))
    with pytest.raises(BadInput, match="no table"):
        brownian(0, [0], built("ode", VP, (1.0, 0.5)))
    with pytest.raises(BadInput, match=r"resolved to 9\.54e-07"):
        brownian(0, [0], built("ddpm", VP, (1.0, 1 - 1e-8, 0.5)))
    with pytest.raises(BadInput, match=r"λ in \[-32, 32\]"):
        BrownianNoise(0, [0], ((0.0, 33.0),))
    with pytest.raises(BadInput, match="row 1 of a table of 1 rows"):
        BrownianNoise(0, [0, 1], (None,))(1, 0, x)
    with pytest.raises(BadInput, match="seed = -1"):
        BrownianNoise(-1, [0], ())
    with pytest.raises(BadInput, match="noise for 1 samples"):
        BrownianNoise(0, [0], ((0.0, 1.0),))(0, 0, x)


# ---------------------------------------------------------------------------------------------- strong convergence


# What adds noise of another size than the reverse SDE's (another SDE, so another limit), or adds it again (no limit).
OWN_NOISE = ("cas", "restart", "travel", "pc", "langevin")
FOLLOWERS: dict[str, Callable[..., Any]] = {
    **{name: SAMPLERS[name].build for name in STOCHASTIC if SAMPLERS[name].build and name not in OWN_NOISE},
    "exponential": partial(exponential_multistep, order=2, eta=1.0),
}


def end(
    sde: scoresde.SDE, sampler: str | Callable[..., Any], n: int, source: Callable[[Table], scoresde.noise.Noise]
) -> torch.Tensor:
    """64 runs on the mixture from a fixed start to t_min; their noise is one sample's, of 128 coordinates."""
    solver = (FOLLOWERS[sampler] if isinstance(sampler, str) else sampler)(sde, make_grid("lambda", sde, n, "t_min"))
    noise = source(solver)
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=F64) * sde.prior_std()
    return solver.run(mixture().denoiser(sde), x, lambda i, j, x: noise(i, j, x.reshape(1, -1)).reshape(x.shape))[0]


@pytest.mark.parametrize("name", ["vp", "flow"])
def test_runs_converge_path_by_path(name: str) -> None:
    """Strong order 1, that of additive noise, for every sampler, all to one limit; 0 with a draw for each step."""
    sde, n = SDES[name], 12
    limit = end(sde, "sheun", 32 * n, lambda solver: brownian(0, [0], solver))

    def errors(sampler: str, source: Callable[[Table], scoresde.noise.Noise]) -> list[float]:
        return [float((end(sde, sampler, steps, source) - limit).abs().mean()) for steps in (n, 8 * n)]

    for sampler in FOLLOWERS:
        coarse, fine = errors(sampler, lambda solver: brownian(0, [0], solver))
        assert math.log2(coarse / fine) / 3 > 0.85, sampler
        assert fine < 0.1, sampler
    assert min(errors("ddpm", lambda solver: SeededNoise(0, [0]))) > 0.5


@pytest.mark.parametrize("name", ["vp", "flow"])
def test_another_sde_has_a_path_of_its_own(name: str) -> None:
    """`cas` with its power goes to the path of the SDE with τ² = power - 1, not to that of the reverse SDE, power 2."""
    sde, n = SDES[name], 12

    def limit(square: float) -> torch.Tensor:
        build = partial(SAMPLERS["eab2"].build, tau=math.sqrt(square))
        return end(sde, build, 32 * n, lambda solver: brownian(0, [0], solver))

    ends = [end(sde, SAMPLERS["cas"].build, steps, lambda solver: brownian(0, [0], solver)) for steps in (n, 8 * n)]
    coarse, fine = (float((x - limit(0.5)).abs().mean()) for x in ends)
    assert math.log2(coarse / fine) / 3 > 0.85 and fine < 0.1
    assert float((ends[1] - limit(1.0)).abs().mean()) > 2 * fine
