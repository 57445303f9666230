"""Stochastic and re-noising samplers: the published recursions, the identities, and the exact law of what they draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from exact import F64, SDES, law_error, mixture, start
from test_orders import CONTINUOUS, X, flow, measured
from test_tables import ddpm_chain, net

import scoresde
from scoresde import BadInput, Table
from scoresde.grids import from_sigmas, make_grid
from scoresde.samplers.edm import edm
from scoresde.samplers.multistep import ddim
from scoresde.samplers.restart import restart, travel
from scoresde.samplers.sde_steps import cas, ddpm, forward_row, reverse_diffusion

EDM, VE = SDES["edm"], SDES["ve"]
SIGMAS = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 18) ** 7  # Karras et al. 2022, table 1


def noises(shape: tuple[int, ...], count: int = 100) -> torch.Tensor:
    return torch.randn(count, *shape, dtype=F64, generator=torch.Generator().manual_seed(1))


def run(table: Table, x: torch.Tensor, z: torch.Tensor, denoiser: scoresde.Denoiser) -> torch.Tensor:
    """The table's end when its k-th draw is z[k]."""
    draws = iter(z)
    return table.run(denoiser, x, lambda step, draw, x: next(draws))[0]


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-11 * max(1.0, float(b.abs().max())))


def label(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.full((len(x),), float(t), dtype=F64)


# -------------------------------------------------------------------------------------------- the published recursions


@pytest.mark.parametrize("s_churn, s_min, s_max, s_noise", [(0, 0, math.inf, 1), (5, 0.05, 20, 1.007), (90, 0, 50, 1)])
def test_edm_equals_algorithm_2(s_churn: float, s_min: float, s_max: float, s_noise: float) -> None:
    """Karras et al. 2022, algorithm 2, as it is printed; from σ = 30, since churn at 80 would go beyond t_max."""
    x, z, sigmas = 30 * noises((3, 2), 1)[0], noises((3, 2)), [*SIGMAS[SIGMAS < 30], 0.0]
    n, draws, expected = len(sigmas) - 1, iter(z), x
    for now, then in pairwise(sigmas):
        gamma = min(s_churn / n, math.sqrt(2) - 1) if s_min <= now <= s_max else 0.0
        hat = now + gamma * now
        if gamma:
            expected = expected + math.sqrt(hat**2 - now**2) * s_noise * next(draws)
        d = (expected - net(expected, label(x, hat))) / hat
        moved = expected + (then - hat) * d
        if then:
            moved = expected + (then - hat) * (0.5 * d + 0.5 * (moved - net(moved, label(x, then))) / then)
        expected = moved
    options = {"s_churn": float(s_churn), "s_min": s_min, "s_max": s_max, "s_noise": s_noise}
    table = edm(EDM, tuple(map(float, sigmas)), **options)
    assert close(run(table, x, z, scoresde.Denoiser(net, EDM, "x0")), expected)
    assert table.nfe == 2 * n - 1 and table.exact == (s_noise == 1) and table.order == (None if s_churn else 2)


@pytest.mark.parametrize("name", SDES)
def test_in_the_noise_level_all_sdes_are_one(name: str) -> None:
    """A table in ρ acts on x/α: at the same levels ρ it is EDM's own under every SDE."""
    levels, x, z = [30, 5, 1, 0.2, 0.05, 0.03, 0], noises((3, 2), 1)[0], noises((3, 2))
    for build in (lambda sde, times: edm(sde, times, s_churn=3.0), restart, cas):
        ends = []
        for sde in (SDES[name], EDM):
            times = from_sigmas(sde, levels)
            at = sde.knots(times)
            ends.append(run(build(sde, times), 30 * float(at.alpha[0]) * x, z, mixture().denoiser(sde)))
        assert (ends[0] - ends[1]).abs().max() < 1e-9


def test_churn_never_leaves_the_times_of_the_sde() -> None:
    for sde in SDES.values():
        table = edm(sde, make_grid("karras", sde, 8, "zero"), s_churn=100.0)
        assert max(row.t for row in table.rows) <= sde.t_max and table.rows[0].calls
        assert sum(not row.calls for row in table.rows) == 7  # all knots but the first, which is t_max already


def test_restart_equals_algorithm_1() -> None:
    """Xu et al. 2023, algorithm 1, with Karras' Heun steps: 18 of them, two of the two steps from 0.3, 43 calls."""
    x, z, sigmas, calls = 80 * noises((3, 2), 1)[0], noises((3, 2)), [*SIGMAS, 0.0], [0]

    def heun(x: torch.Tensor, levels: list[float]) -> torch.Tensor:
        for now, then in pairwise(levels):
            d = (x - net(x, label(x, now))) / now
            moved = x + (then - now) * d
            calls[0] += 1 + (then > 0)
            x = moved if not then else x + 0.5 * (then - now) * (d + (moved - net(moved, label(x, then))) / then)
        return x

    low = int(np.abs(np.array(sigmas) - 0.06).argmin())
    path = (np.linspace(0.3 ** (1 / 7), sigmas[low] ** (1 / 7), 3) ** 7).tolist()
    expected = heun(x, sigmas[: low + 1])
    for k in range(2):
        expected = heun(expected + math.sqrt(path[0] ** 2 - path[-1] ** 2) * 1.003 * z[k], path)
    expected = heun(expected, sigmas[low:])
    table = restart(EDM, tuple(map(float, sigmas)), s_noise=1.003)
    assert close(run(table, x, z, scoresde.Denoiser(net, EDM, "x0")), expected)
    assert table.nfe == calls[0] == 43 and len(table.times) == 19 and not table.exact


@pytest.mark.parametrize("n, jump, repeats", [(12, 3, 2), (10, 4, 1), (11, 1, 3), (6, 5, 2)])
def test_travel_walks_as_repaint_does(n: int, jump: int, repeats: int) -> None:
    """The walk of Lugmayr et al. 2022, figure 9: levels n - 1 (the start) … 0 (the last call), and -1, the data."""
    left = {level: repeats for level in range(0, n - jump, jump)}
    walk, level = [n - 1], n - 1
    while level >= 0:
        if left.get(level, 0):
            left[level] -= 1
            level += jump
        else:
            level -= 1
        walk.append(level)
    sde = SDES["vp"]
    times = make_grid("t", sde, n, "zero")
    table, chain = travel(sde, times, jump=jump, repeats=repeats), ddpm(sde, times).rows
    assert [(row.t, row.t_next) for row in table.rows] == [
        (times[n - 1 - i], times[n - 1 - j]) for i, j in pairwise(walk)
    ]
    assert table.times == times and table.nfe == n + repeats * jump * ((n - 1) // jump)
    for row in table.rows:
        if row.t > row.t_next:
            same = chain[times.index(row.t)]
            assert (row.a, row.b, row.c, row.c_max) == (same.a, same.b, same.c, same.c_max)
        else:
            mean, std = sde.transition(torch.ones(1, dtype=F64), row.t, row.t_next)
            assert not row.calls and (row.a, row.c[0]) == pytest.approx((float(mean), float(std)), rel=1e-12)


def test_reverse_diffusion_equals_the_papers_rules() -> None:
    """Song et al. 2021, appendix F, the predictors of VP (2 - sqrt(1 - β)) and of VE, written from β and from σ."""
    chain, bar, index, denoiser = ddpm_chain(50, 1)
    x, z = start(chain, (3, 2)), noises((3, 2))
    expected = x
    for k, n in enumerate(index[:-2]):
        score = -denoiser.network(expected, label(x, n - 1)) / float(np.sqrt(1 - bar[n]))
        beta = float(1 - bar[n] / bar[n - 1])
        expected = (2 - math.sqrt(1 - beta)) * expected + beta * score + math.sqrt(beta) * z[k]
    times = tuple(i / 50 for i in index[:-1])
    assert close(run(reverse_diffusion(chain, times), x, z, denoiser), expected)

    sigmas = [50.0, 20.0, 6.0, 1.0, 0.1]
    exact, times, expected = mixture().denoiser(VE), from_sigmas(VE, sigmas), 50 * x
    for k, (now, then) in enumerate(pairwise(sigmas)):
        gap = now**2 - then**2
        expected = expected + gap * exact.score(expected, times[k]) + math.sqrt(gap) * z[k]
    assert close(run(reverse_diffusion(VE, times), 50 * x, z, exact), expected)


@pytest.mark.parametrize("step", [0.3, 0.9, 1.2])
def test_cas_equals_algorithm_2(step: float) -> None:
    """Jolicoeur-Martineau et al. 2021a, algorithm 2: geometric levels, one step ε, the noise β σ, the denoised end."""
    gamma, levels = 0.75, 12
    sigmas = [50 * gamma**i for i in range(levels)]
    exact, x, z = mixture().denoiser(VE), 50 * noises((3, 2), 1)[0], noises((3, 2))
    times = (*from_sigmas(VE, sigmas), 0.0)
    beta, expected = math.sqrt(1 - (1 - step) ** 2 / gamma**2), x
    for i, sigma in enumerate(sigmas):
        score = exact.score(expected, times[i])
        if i == levels - 1:
            expected = expected + sigma**2 * score
        else:
            expected = expected + step * sigma**2 * score + beta * gamma * sigma * z[i]
    assert close(run(cas(VE, times, step=step), x, z, exact), expected)
    if step < 1:  # on geometric levels a fixed step is a power
        power = cas(VE, times, power=math.log1p(-step) / math.log(gamma))
        assert close(run(power, x, z, exact), expected)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_cas_goes_from_ddim_to_ancestral_sampling(sde: scoresde.SDE) -> None:
    times = make_grid("phi", sde, 9, "zero")
    for power, other in ((1.0, ddim(sde, times)), (2.0, ddpm(sde, times))):
        table = cas(sde, times, power=power)
        assert table.order == (1 if power == 1 else None)
        for row, same in zip(table.rows, other.rows, strict=True):
            assert (row.a, *row.b, *row.c) == pytest.approx((same.a, *same.b, *same.c), rel=1e-10, abs=1e-13)


def test_travel_by_default_always_has_a_way_back() -> None:
    """RePaint's jump of 10 where the run has that many steps above its last call, and all of them where it has fewer;
    a run of one step is the plain chain, whatever the jump."""
    sde = SDES["cosine"]
    for n in (2, 5, 10, 11, 12, 40):
        times = make_grid("phi", sde, n, "zero")
        assert travel(sde, times).rows == travel(sde, times, jump=min(10, n - 1)).rows
        assert travel(sde, times, repeats=1).nfe > n
    for jump in (None, 1, 10):
        assert travel(sde, (0.9, 0.0), jump=jump).rows == ddpm(sde, (0.9, 0.0)).rows


# ---------------------------------------------------------------------------------------------- identities and counts

BUILDERS: dict[str, tuple[Callable[..., Table], Callable[[int], int]]] = {
    "edm": (edm, lambda n: 2 * n),
    "edm, churned": (lambda sde, times: edm(sde, times, s_churn=30.0), lambda n: 2 * n),
    "restart": (restart, lambda n: 2 * n + 8),
    "travel": (
        lambda sde, times: travel(sde, times, repeats=2),
        lambda n: n + 2 * min(10, n - 1) * max(1, (n - 1) // 10),
    ),
    "reverse-diffusion": (reverse_diffusion, lambda n: n),
    "cas": (cas, lambda n: n),
}


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("name", BUILDERS)
def test_any_grid_gives_a_table_with_the_stated_calls(name: str, sde: scoresde.SDE) -> None:
    """Finite (or it would not exist), exact on a point mass, n intervals, every call within [t_min, t_max]."""
    build, calls = BUILDERS[name]
    for grid in ("karras", "index"):
        for final in ("zero", "t_min"):
            for n in (1, 2, 3, 7, 20):
                times = make_grid(grid, sde, n, final)
                table = build(sde, times)
                size = max(1.0, max(sum(map(abs, row.b)) for row in table.rows))
                assert table.exact == (name != "reverse-diffusion")
                assert not table.exact or table.defect <= 1e-12 * size
                assert table.times == times and all(row.c == () for row in table.rows if row.t_next == 0)
                called = [row.t for row in table.rows if row.calls]
                assert sde.t_min * (1 - 1e-9) <= min(called) and max(called) <= sde.t_max
                assert table.nfe == len(called) == calls(n) - (final == "zero" and name.startswith(("edm", "restart")))


@pytest.mark.parametrize("name", SDES)
def test_the_defect_of_reverse_diffusion_vanishes_at_first_order(name: str) -> None:
    sde = SDES[name]
    defects = [reverse_diffusion(sde, make_grid("lambda", sde, n, "t_min")).defect for n in (400, 800)]
    assert math.log2(defects[0] / defects[1]) == pytest.approx(1.0, abs=0.1) and defects[1] < 0.05


@pytest.mark.parametrize("build, options", [(edm, {"s_churn": 5.0}), (restart, {})])
def test_scaled_noise_is_declared_inexact_and_is(build: Callable[..., Table], options: dict) -> None:
    times = make_grid("karras", EDM, 12, "t_min")
    table = build(EDM, times, s_noise=1.1, **options)
    assert not table.exact and table.defect > 1e-4 and build(EDM, times, **options).defect < 1e-12


@pytest.mark.parametrize("name", SDES)
def test_going_up_is_the_forward_transition(name: str) -> None:
    sde = SDES[name]
    for s, t in ((0.2, 0.7), (0.3, 0.3001)):
        s, t = s * sde.t_max, t * sde.t_max
        row, (mean, std) = forward_row(sde, s, t), sde.transition(torch.ones(1, dtype=F64), s, t)
        assert (row.a, row.c[0]) == pytest.approx((float(mean), float(std)), rel=1e-9)
    at, row = sde.knots([sde.t_max]), forward_row(sde, 0.0, sde.t_max)  # from the data: q(x_t | x_0)
    assert (row.a, row.c[0]) == (float(at.alpha[0]), float(at.sigma[0]))


# ------------------------------------------------------------------------------------------------------ order and law


@pytest.mark.parametrize("name", CONTINUOUS)
def test_edm_without_churn_is_second_order(name: str) -> None:
    sde, errors = SDES[name], []
    end = flow(sde, start(sde, X), sde.t_max, sde.t_min, 100)
    for n in (50, 100):
        table = edm(sde, make_grid("karras", sde, n, "t_min"))
        out, _ = table.run(mixture().denoiser(sde), start(sde, X))
        errors.append(float((out - end).abs().mean()))
    assert measured(errors) == pytest.approx(2, abs=0.2) and table.order == table.order_with_start == 2


LAWS: dict[str, tuple[Callable[[scoresde.SDE, tuple[float, ...], int], Table], str, str, int, float]] = {
    "reverse-diffusion": (lambda sde, times, n: reverse_diffusion(sde, times), "phi", "zero", 200, 1),
    "cas": (lambda sde, times, n: cas(sde, times), "lambda", "t_min", 200, 1),
    "cas, power 3": (lambda sde, times, n: cas(sde, times, power=3.0), "lambda", "t_min", 300, 1),
    "travel": (lambda sde, times, n: travel(sde, times, jump=n // 20, repeats=1), "phi", "zero", 160, 1),
    "edm, churned": (lambda sde, times, n: edm(sde, times, s_churn=5.0), "karras", "t_min", 100, 2),
    "restart": (lambda sde, times, n: restart(sde, times, inner=n // 10), "lambda", "t_min", 100, 2),
}


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("sampler", LAWS)
def test_the_output_law_converges_to_the_data(sampler: str, name: str) -> None:
    """On Gaussian data the law is exact, without Monte Carlo: its error falls like n^-order, order 2 for Heun's steps.

    Noise added by forward transitions and steps of any order do not spoil each other: churn and restarts keep Heun's
    order, though they are stochastic. (Euler-Maruyama and ancestral sampling: see test_stochastic.)
    """
    build, grid, final, n, order = LAWS[sampler]
    sde = SDES[name]
    errors = []
    for k in (n // 2, n):
        table = build(sde, make_grid(grid, sde, k, final), k)
        assert table.stochastic
        errors.append(law_error(table, sde))
    left = (2**order * errors[1] - errors[0]) / (2**order - 1)  # extrapolated to n = ∞
    assert measured(errors) > order - 0.15 and abs(left) < 0.15 * errors[1]


def test_a_fixed_step_of_cas_keeps_a_bias_of_its_size() -> None:
    """At one level the chain is stationary at V (2 - η)/(2 - η σ²/V), not at V: fine grids inherit an error O(η)."""
    biases = []
    for step in (0.4, 0.2):
        biases.append([law_error(cas(VE, make_grid("lambda", VE, n, "t_min"), step=step), VE) for n in (150, 600)])
    assert all(fine > 0.5 * coarse for coarse, fine in biases)
    assert 1.5 < biases[0][1] / biases[1][1] < 2.7
    t, step = 0.5, 0.3
    sigma = float(VE.knots([t]).sigma[0])
    V = 0.7 + sigma**2
    gain = 1 - step * sigma**2 / V
    row = cas(VE, (t, t * (1 - 1e-12)), step=step).rows[0]
    assert row.c[0] ** 2 / (1 - gain**2) == pytest.approx(V * (2 - step) / (2 - step * sigma**2 / V), rel=1e-6)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "build, options, message",
    [
        (edm, {"s_churn": -1.0}, r"s_churn = -1\.0"),
        (edm, {"s_churn": math.inf}, "s_churn = inf"),
        (edm, {"s_min": math.nan}, "s_min = nan"),
        (edm, {"s_min": 2.0, "s_max": 1.0}, r"s_min = 2\.0 must be at most s_max = 1\.0"),
        (edm, {"s_noise": 0.0}, r"s_noise = 0\.0"),
        (restart, {"s_noise": math.inf}, "s_noise = inf"),
        (restart, {"repeats": 0}, "repeats must be a positive integer"),
        (restart, {"inner": -1}, "inner must be a positive integer"),
        (restart, {"low": 0.5}, r"low = 0\.5 and high = 0\.3 .* low < high"),
        (restart, {"high": 1e4}, r"high = 10000\.0 .* high from 0\.01049 to 152"),
        (restart, {"high": 0.08}, r"the grid ends at σ/α = 0\.1, above high = 0\.08"),
        (travel, {"jump": 3}, "jump = 3 in 3 steps leaves no way back: it must be below the number of steps"),
        (travel, {"jump": 0}, "jump must be a positive integer"),
        (travel, {"repeats": True}, "repeats must be a positive integer"),
        (travel, {"variance": "uper"}, "did you mean 'upper'"),
        (cas, {"power": 0.9}, r"power = 0\.9"),
        (cas, {"power": 2.0, "step": 0.5}, r"power = 2\.0 and step = 0\.5: give one"),
        (cas, {"step": 0.05}, r"step = 0\.05 cannot go from t = .* needs 0\.\d+ to 1\.\d+, so use more steps or power"),
        (ddpm, {"variance": "posteriour"}, "did you mean 'posterior'"),
    ],
)
def test_what_the_builders_refuse(build: Callable[..., Table], options: dict, message: str) -> None:
    sde = SDES["vp"]
    with pytest.raises(BadInput, match=message) as caught:
        build(sde, from_sigmas(sde, [100, 10, 1, 0.1]), **options)
    assert "\n" not in str(caught.value)


def test_from_pure_noise() -> None:
    """Where no signal is left at the start, σ/α is infinite: Heun in it does not exist, steps of the SDE do."""
    sde = scoresde.DDPM.named("linear", 100, zero_terminal_snr=True)
    times = make_grid("index", sde, 10, "zero")
    for build in (edm, restart):
        with pytest.raises(BadInput, match=r"no finite coefficients for the step .* to 0\.9 .* use another grid"):
            build(sde, times)
    assert cas(sde, times).defect < 1e-12 and cas(sde, times, power=1.0).defect < 1e-12
    assert travel(sde, times, jump=2, repeats=1).defect < 1e-12
    assert all(map(math.isfinite, (value for row in reverse_diffusion(sde, times).rows for value in (row.a, *row.b))))
