"""Grids: their ends, their order and their own variable, for every grid, SDE, ending and number of steps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from exact import F64
from exact import SDES as FAMILIES
from scipy import stats

import scoresde
from scoresde import DDPM, SDE, BadInput, make_grid
from scoresde.ddpm import BETAS
from scoresde.grids import (
    ALIASES,
    FINALS,
    GRIDS,
    check_times,
    find_grid,
    from_lambdas,
    from_sigmas,
    loglinear,
    option_of,
)
from scoresde.grids.spacings import karras, uniform_phi

CHAINS = {f"ddpm-{betas}": DDPM.named(betas) for betas in BETAS if betas != "linear"}
SDES = FAMILIES | CHAINS | {"ddpm-50": DDPM.named("linear", 50)}
ZERO_SNR = {f"zero-snr-{betas}": DDPM.named(betas, zero_terminal_snr=True) for betas in ("linear", "cosine")}
STEPS = (1, 2, 3, 5, 11, 999, 1000, 1500)
UNBOUNDED = ("lambda", "karras", "polyexponential")  # without a finite value at the data, or where no signal is left
INDEX = ("index", "linspace", "leading")

# The variable in which each grid's steps are equal, as a function of t > 0; 0 at the data where it is finite there.
VARIABLE: dict[str, Callable[[SDE, torch.Tensor], torch.Tensor]] = {
    "t": lambda sde, t: t,
    "t:3": lambda sde, t: t ** (1 / 3),
    "t2": lambda sde, t: t.sqrt(),
    "lambda": lambda sde, t: sde.lam(t),
    "phi": lambda sde, t: sde.phi(t),
    "phi:0.5": lambda sde, t: torch.atan2(sde.sigma(t), 0.5 * sde.alpha(t)),
    "karras": lambda sde, t: sde.rho(t) ** (1 / 7),
    "karras:1": lambda sde, t: sde.rho(t),
    "polyexponential": lambda sde, t: sde.lam(t),
    "shift": lambda sde, t: sde.sigma(t) / (3 * sde.alpha(t) + sde.sigma(t)),
    "logitnormal": lambda sde, t: torch.from_numpy(stats.norm.cdf(-sde.lam(t).numpy())),
    "logitnormal:2": lambda sde, t: torch.from_numpy(stats.norm.cdf(-sde.lam(t).numpy(), scale=2)),
    "beta": lambda sde, t: torch.from_numpy(stats.beta.cdf((t / sde.t_max).numpy(), 0.6, 0.6)),
}
NAMES = (*VARIABLE, *INDEX, "leading:1")

every_sde = pytest.mark.parametrize("sde", (SDES | ZERO_SNR).values(), ids=SDES | ZERO_SNR)
every_grid = pytest.mark.parametrize("grid", GRIDS)
every_final = pytest.mark.parametrize("final", FINALS)


def unbounded(grid: str) -> bool:
    return grid.partition(":")[0] in UNBOUNDED


def uniform_part(grid: str, sde: SDE, times: tuple[float, ...], final: str) -> list[float]:
    """The grid's variable at the times that it spaces evenly: all but a last jump to the data."""
    to_data = final == "zero" and not unbounded(grid) and (len(times) == 2 or times[-2] > sde.t_min)
    kept = times if to_data or final == "t_min" else times[:-1]
    values = VARIABLE[grid](sde, torch.tensor([t for t in kept if t > 0], dtype=F64)).tolist()
    return [*values, 0.0] if kept[-1] == 0 else values


def test_every_grid_is_tested() -> None:
    assert set(GRIDS) <= set(NAMES)


@pytest.mark.parametrize("grid", NAMES)
@every_sde
def test_ends_order_and_uniformity(sde: SDE, grid: str) -> None:
    if unbounded(grid) and sde in ZERO_SNR.values():
        with pytest.raises(BadInput, match=r"needs some signal at t = 1, where .* has none: choose 't', 't2'"):
            make_grid(grid, sde, 10)
        return
    for final in FINALS:
        for n in STEPS if grid not in VARIABLE else (1, 2, 3, 11, 1500):
            times = make_grid(grid, sde, n, final)
            assert len(times) == n + (2 if final == "denoise" else 1) and all(type(t) is float for t in times)
            assert all(a > b for a, b in pairwise(times))
            assert times[0] == sde.t_max or (grid.startswith("leading") and times[0] < sde.t_max)
            assert times[-1] == (sde.t_min if final == "t_min" else 0.0)
            assert times[-2] >= sde.t_min and (final != "denoise" or times[-2] == sde.t_min)
            if grid in VARIABLE:
                values = np.array(uniform_part(grid, sde, times, final))
                even = np.linspace(values[0], values[-1], len(values))
                assert np.abs(values - even).max() <= 1e-9 * np.ptp(values)


@pytest.mark.parametrize("grid", NAMES)
@every_sde
def test_a_later_start(sde: SDE, grid: str) -> None:
    """The same rules from any first time; from t_max, the same grid."""
    if grid.startswith("leading"):
        with pytest.raises(BadInput, match="a leading grid begins where its stride says"):
            make_grid(grid, sde, 5, "zero", 0.5 * sde.t_max)
        return
    for first in (0.5 * sde.t_max, sde.t_min * 1.001):
        for final in ("zero", "t_min"):
            for n in (1, 2, 7, 300):
                times = make_grid(grid, sde, n, final, first)
                assert len(times) == n + 1
                assert times[0] == first and times[-1] == (sde.t_min if final == "t_min" else 0.0)
                assert times[-2] >= sde.t_min and all(a > b for a, b in pairwise(times))
                if grid in VARIABLE and first == 0.5 * sde.t_max:
                    values = np.array(uniform_part(grid, sde, times, final))
                    even = np.linspace(values[0], values[-1], len(values))
                    assert np.abs(values - even).max() <= 1e-9 * np.ptp(values)
    if not (unbounded(grid) and sde in ZERO_SNR.values()):
        assert make_grid(grid, sde, 7, "zero", sde.t_max) == make_grid(grid, sde, 7, "zero")


@pytest.mark.parametrize("grid", NAMES)
def test_a_t_min_far_above_the_first_index_is_kept(grid: str) -> None:
    for sde in (scoresde.VPSDE(t_min=0.05), scoresde.RectifiedFlow(t_min=0.1), scoresde.EDM(t_min=1.0)):
        for final in FINALS:
            for n in (1, 2, 10, 300):
                times = make_grid(grid, sde, n, final)
                assert min(t for t in times if t > 0) >= sde.t_min and all(a > b for a, b in pairwise(times))


@pytest.mark.parametrize("sde", [sde for sde in SDES.values() if isinstance(sde, DDPM)], ids=repr)
def test_index_grids_are_whole_and_the_published_ones(sde: DDPM) -> None:
    """Lin et al. 2024, table 2, for indices 1 … N, computed in fractions; a half may go either way.

    trailing round(N - k N/n), linspace round(1 + k (N - 1)/(n - 1)), leading 1 + k ⌊N/n⌋, k = 0 … n - 1; with the
    offset of Stable Diffusion one more.
    """
    N = sde.N
    for n in [n for n in (*STEPS, 7, 16, 37) if n <= N]:
        stride = Fraction(N - 1, max(n - 1, 1))
        published = {
            "index": [N - Fraction(k * N, n) for k in range(n)],
            "linspace": [N - k * stride for k in range(n)],
            "leading": [1 + k * (N // n) for k in reversed(range(n))],
        }
        if 2 + (n - 1) * (N // n) <= N:  # else its last index does not exist: Stable Diffusion has none either
            published["leading:1"] = [2 + k * (N // n) for k in reversed(range(n))]
        for grid, exact in published.items():
            times = make_grid(grid, sde, n, "zero")
            assert times[-1] == 0
            for t, index in zip(times[:-1], exact, strict=True):
                assert abs(t * N - round(t * N)) < 1e-9
                half = index % 1 == Fraction(1, 2)
                assert round(t * N) in ({math.floor(index), math.ceil(index)} if half else {round(index)})
            if grid == "leading:1":  # its calls are the same where it lands on t_min
                assert make_grid(grid, sde, n, "t_min") == (*times[:-1], sde.t_min)


@every_final
@pytest.mark.parametrize("grid", INDEX)
def test_more_steps_than_indices_are_fractions_between_them(grid: str, final: str) -> None:
    sde = SDES["ddpm-50"]
    times = make_grid(grid, sde, 75, final)
    assert len({t * 50 for t in times}) == len(times) and any(abs(t * 50 - round(t * 50)) > 0.1 for t in times)


@pytest.mark.parametrize("grid", VARIABLE)
@every_sde
def test_the_next_time_of_a_step_starts_the_following_one(sde: SDE, grid: str) -> None:
    """A grid with twice the steps has every knot of the coarser one: nothing depends on n but the spacing."""
    if unbounded(grid) and sde in ZERO_SNR.values():
        return
    coarse, fine = make_grid(grid, sde, 8, "t_min"), make_grid(grid, sde, 16, "t_min")
    assert fine[::2] == pytest.approx(coarse, rel=1e-9)


# ------------------------------------------------------------------------------------------------- published formulas


def rho(sde: SDE, times: tuple[float, ...]) -> np.ndarray:
    at = sde.knots(times)
    return at.sigma / at.alpha


CONTINUOUS = pytest.mark.parametrize("sde", FAMILIES.values(), ids=FAMILIES)


@CONTINUOUS
@pytest.mark.parametrize("n", [2, 5, 20])
def test_noise_levels_of_k_diffusion(sde: SDE, n: int) -> None:
    """n levels from σ_max to σ_min, then 0: karras, exponential and polyexponential, ρ as given."""
    high, low = rho(sde, (sde.t_max, sde.t_min))
    u = np.linspace(0, 1, n)
    published = {
        "karras": (high ** (1 / 7) + u * (low ** (1 / 7) - high ** (1 / 7))) ** 7,
        "karras:3": (high ** (1 / 3) + u * (low ** (1 / 3) - high ** (1 / 3))) ** 3,
        "exponential": np.exp(np.linspace(np.log(high), np.log(low), n)),
        "polyexponential:2": np.exp((1 - u) ** 2 * np.log(high / low) + np.log(low)),
    }
    for grid, levels in published.items():
        assert rho(sde, make_grid(grid, sde, n, "zero")) == pytest.approx([*levels, 0.0], rel=1e-7)


@CONTINUOUS
@pytest.mark.parametrize("n", [2, 5, 20])
def test_spacings_that_are_quantiles(sde: SDE, n: int) -> None:
    """Equal shares of a distribution: of Beta(0.6, 0.6) in time, of a logistic, normal or secant one in log noise."""
    left = 1 - np.arange(1, n) / n
    inner = {grid: make_grid(grid, sde, n, "zero")[1:-1] for grid in ("beta:0.7", "shift:2")}
    assert inner["beta:0.7"] == pytest.approx(sde.t_max * stats.beta.ppf(left, 0.7, 0.7), rel=1e-9)
    begin = rho(sde, (sde.t_max,))[0]
    flow = begin / (2 + begin) * left
    assert rho(sde, inner["shift:2"]) == pytest.approx(2 * flow / (1 - flow), rel=1e-7)
    normal = stats.norm.cdf(math.log(begin), scale=1.5) * left
    levels = np.exp(stats.norm.ppf(normal, scale=1.5))
    assert rho(sde, make_grid("logitnormal:1.5", sde, n, "zero")[1:-1]) == pytest.approx(levels, rel=1e-7)
    angle = math.atan(begin / 0.5) * left
    assert rho(sde, make_grid("phi:0.5", sde, n, "zero")[1:-1]) == pytest.approx(0.5 * np.tan(angle), rel=1e-7)


def test_the_shift_of_sd3() -> None:
    """t' = s t/(1 + (s - 1) t) of equally spaced t from 1 to 0 (Esser et al. 2024), where the flow goes up to 1."""
    sde = scoresde.RectifiedFlow(t_max=1 - 1e-12)
    for shift in (1.0, 3.0, 0.5):
        t = np.linspace(1, 0, 11)
        grid = make_grid(f"shift:{shift}", sde, 10, "zero")
        assert grid == pytest.approx(shift * t / (1 + (shift - 1) * t), rel=1e-9, abs=1e-12)


@CONTINUOUS
def test_grids_that_meet(sde: SDE) -> None:
    """One grid under two names, and the limits in which one spacing becomes another."""
    for one, other in (("t:2", "t2"), ("t:1", "t"), ("karras:7", "karras"), ("polyexponential:1", "lambda")):
        for final in FINALS:
            assert make_grid(one, sde, 9, final) == make_grid(other, sde, 9, final)
    level = make_grid("lambda", sde, 9)
    for limit in ("karras:1e7", "logitnormal:1e6"):
        assert make_grid(limit, sde, 9) == pytest.approx(level, rel=1e-4)
    assert rho(sde, make_grid("phi:1e6", sde, 9)) == pytest.approx(rho(sde, make_grid("karras:1", sde, 9)), rel=1e-5)


def test_words_of_other_toolkits() -> None:
    """Each alias on the formula of the toolkit it comes from; those that round otherwise agree to within one index."""
    chain, n = SDES["ddpm-scaled-linear"], 20
    assert isinstance(chain, DDPM)
    N, k = chain.N, np.arange(n)
    from_zero = {  # in the indices 0 … N - 1 of those codes
        "trailing": N - k * N / n - 1,
        "simple": N - 1 - np.floor(k * N / n),
        "sgm_uniform": np.linspace(N - 1, 0, n + 1)[:-1],
        "normal": np.linspace(N - 1, 0, n),
        "ddim_uniform": 1 + (N // n) * k[::-1],
        "time_uniform": N * (1 - k / n) - 1,
        "time_quadratic": N * (1 - k / n) ** 2 - 1,
        "quad": N * (1 - k / n) ** 2 - 1,
    }
    high, low = rho(chain, (chain.t_max, chain.t_min))
    from_noise = {
        "logsnr": np.exp(np.linspace(np.log(high), np.log(low), n)),
        "exponential": np.exp(np.linspace(np.log(high), np.log(low), n)),
        "kl_optimal": np.tan(np.linspace(np.arctan(high), np.arctan(low), n)),
    }
    assert {*from_zero, *from_noise} == set(ALIASES)
    rounded = ("simple", "sgm_uniform", "normal")
    for name, index in from_zero.items():
        times = np.array(make_grid(name, chain, n, "zero"))[:-1]
        assert np.abs(times * N - 1 - index).max() < (1 if name in rounded else 1e-9)
    for name, levels in from_noise.items():
        assert rho(chain, make_grid(name.upper(), chain, n - 1, "t_min")) == pytest.approx(levels, rel=1e-6)


# --------------------------------------------------------------------------------------------------------- given lists


@every_sde
def test_given_lists_are_used_verbatim(sde: SDE) -> None:
    """As a list, a tuple, an array or a tensor."""
    random = np.random.default_rng(0)
    for size in (2, 3, 17):
        times = sorted(random.uniform(0, sde.t_max, size).tolist(), reverse=True)
        for given in (times, tuple(times), [sde.t_max, *times[1:]], [*times[:-1], 0.0]):
            for final in FINALS:
                assert make_grid(given, sde, None, final) == tuple(given)
        for given in (np.array(times), torch.tensor(times, dtype=F64), torch.tensor(times, dtype=F64).requires_grad_()):
            assert make_grid(given, sde, None) == tuple(times) and type(make_grid(given, sde, None)[0]) is float
        single = np.array(times, dtype=np.float32)
        assert make_grid(single, sde, None) == make_grid(torch.from_numpy(single), sde, None) == tuple(single.tolist())


def test_levels_may_be_arrays() -> None:
    sde, levels = SDES["edm"], [80.0, 7.0, 0.5]
    for kind in (np.array, lambda values: torch.tensor(values, dtype=F64)):
        assert from_sigmas(sde, kind(levels)) == tuple(levels)
        assert from_lambdas(sde, kind([-4.0, 1.0])) == from_lambdas(sde, [-4.0, 1.0])
        assert loglinear(kind(levels), 7) == loglinear(levels, 7)


def test_a_function_of_one_s_own() -> None:
    """Anything that takes (sde, first, n, to_zero), such as a spacing with another option."""
    sde = SDES["vp"]
    for final in FINALS:
        assert make_grid(partial(karras, rho=5.0), sde, 6, final) == make_grid("karras:5", sde, 6, final)
        assert make_grid(uniform_phi, sde, 6, final, 0.5) == make_grid("phi", sde, 6, final, 0.5)
    assert make_grid(lambda sde, first, n, to_zero: np.geomspace(first, sde.t_min, n + 1), sde, 3)[1] == pytest.approx(
        0.1
    )
    for end in (True, False):
        with pytest.raises(
            BadInput, match=r"grid 'short': 3 steps are 4 times that end at (0|t_min), it made \[1, 0.5"
        ):

            def short(sde: SDE, first: float, n: int, to_zero: bool) -> np.ndarray:
                return np.array([1.0, 0.5, 0.2, 0.0 if not to_zero else sde.t_min][: n + 1])

            make_grid(short, sde, 3, "zero" if end else "t_min")


# Sabour et al. 2024 publish lists for 10 steps; this is the one for Stable Diffusion 1.5.
TEN_STEPS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]


@pytest.mark.parametrize("jump", [[], [0.0]])
def test_levels_for_another_number_of_steps(jump: list[float]) -> None:
    levels, n = [*TEN_STEPS, *jump], len(TEN_STEPS) - 1 + len(jump)
    assert loglinear(levels, n) == tuple(levels)
    for steps in (1, 2, 5, 17, 20, 40):
        new = loglinear(levels, steps)
        assert len(new) == steps + 1 and all(a > b for a, b in pairwise(new))
        assert new[0] == levels[0] and (steps == 1 or new[-1 - len(jump)] == TEN_STEPS[-1]) and new[-1] == levels[-1]
    double = loglinear(TEN_STEPS, 20)
    assert double[::2] == tuple(TEN_STEPS)
    assert double[1::2] == pytest.approx([math.sqrt(a * b) for a, b in pairwise(TEN_STEPS)])
    sde = SDES["vp"]
    assert rho(sde, from_sigmas(sde, loglinear(levels, 15))) == pytest.approx(loglinear(levels, 15), rel=1e-7)


@every_sde
def test_noise_levels_become_the_times_that_have_them(sde: SDE) -> None:
    inside = torch.linspace(sde.t_max, sde.t_min, 13, dtype=F64)[1:]
    lams = np.linspace(sde.lam(inside[0]).item(), sde.lam(inside[-1]).item(), 9)
    for end in ((), (math.inf,)):
        times = from_lambdas(sde, [*lams, *end])
        assert sde.lam(torch.tensor(times[:9], dtype=F64)).numpy() == pytest.approx(lams, rel=1e-9, abs=1e-9)
        assert times[9:] == (0.0,) * len(end)
        again = from_sigmas(sde, [*np.exp(-lams), *(0.0 for _ in end)])
        assert again == pytest.approx(times, rel=1e-9, abs=1e-12) and again[9:] == times[9:]
    if sde not in ZERO_SNR.values():  # the end itself, and nothing beyond it
        first = float(sde.rho(torch.tensor(sde.t_max, dtype=F64)))
        start = from_sigmas(sde, [first, 0])[0]
        assert start == pytest.approx(sde.t_max, rel=1e-9) and start <= sde.t_max
        with pytest.raises(BadInput, match=r"σ/α = .* is noisier than t_max"):
            from_sigmas(sde, [1.01 * first, 0])
        with pytest.raises(BadInput, match=r"λ = .* is noisier than t_max"):
            from_lambdas(sde, [-math.log(first) - 0.01, 9.0])


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "times, message",
    [
        ([], "at least two times"),
        ([1.0], "at least two times"),
        ([1.0, 1.0], "strictly decreasing"),
        ([0.1, 0.5], "strictly decreasing"),
        ([1.0, math.nan], "finite"),
        ([math.inf, 0.5], "finite"),
        ([1.1, 0.5], r"within \[0, 1.0\]"),
        ([0.5, -0.1], r"within \[0, 1.0\]"),
    ],
)
def test_bad_lists_of_times(times: list[float], message: str) -> None:
    for check in (check_times, lambda times, sde: make_grid(times, sde, None)):
        with pytest.raises(BadInput, match=message) as caught:
            check(times, SDES["vp"])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("times", [np.ones((2, 2)), torch.ones(2, 2), np.array(1.0), torch.tensor(1.0)])
def test_what_is_no_list_of_numbers(times: object) -> None:
    with pytest.raises(BadInput, match="give numbers, as a list or in one dimension") as caught:
        inspect.unwrap(make_grid)(times, SDES["vp"], None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make, values, message",
    [
        (from_sigmas, [], "at least two"),
        (from_sigmas, [1.0, -0.5], "not negative"),
        (from_sigmas, [math.inf, 1.0], "finite"),
        (from_sigmas, [math.nan, 1.0], "finite"),
        (from_sigmas, [1.0, 2.0], "strictly decreasing"),
        (from_sigmas, [1.0, 0.0, 0.0], "strictly decreasing"),
        (from_lambdas, [1.0, math.nan], "numbers"),
        (from_lambdas, [-math.inf, 1.0], "numbers"),
        (from_lambdas, [2.0, 1.0], "strictly decreasing"),
        (from_lambdas, [1.0], "at least two"),
    ],
)
def test_bad_lists_of_levels(make: Callable[..., object], values: list[float], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        make(SDES["vp"], values)
    assert "\n" not in str(caught.value)


def test_a_level_below_all_noise_is_not_the_data() -> None:
    """VE starts at σ_min: a smaller σ has no time, and only an exact 0 means the data."""
    assert from_sigmas(SDES["ve"], [50, 1, 0])[-1] == 0
    with pytest.raises(BadInput, match=r"σ/α = 0.005 is less noise"):
        from_sigmas(SDES["ve"], [50, 1, 0.005])


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "5"])
def test_steps_must_be_a_positive_integer(n: object) -> None:
    with pytest.raises(BadInput, match=f"steps = {n!r}: steps must be a positive integer"):
        inspect.unwrap(make_grid)("t", SDES["vp"], n)  # without the run-time checker of the tests, as users run it


def test_names_are_taught() -> None:
    with pytest.raises(BadInput, match=f"choose from {', '.join(GRIDS)}; .*; did you mean 'karras'"):
        make_grid("karas", SDES["vp"], 5)
    with pytest.raises(BadInput, match=f"unknown grid 'exponental': choose from {', '.join(GRIDS)}; .* 'exponential'"):
        make_grid("exponental", SDES["vp"], 5)
    with pytest.raises(BadInput, match=f"choose from {', '.join(FINALS)}; did you mean 'denoise'"):
        make_grid("t", SDES["vp"], 5, "denoised")
    with pytest.raises(BadInput, match="grid 'karras' needs a number of steps"):
        make_grid("karras", SDES["vp"], None)


@pytest.mark.parametrize(
    "grid, message",
    [
        ("karras:x", "after the colon comes its rho, a number, as in 'karras:7'"),
        ("karras:", "after the colon comes its rho"),
        ("karras:0", "rho = 0.0: the grid's rho must be a positive number"),
        ("polyexponential:-1", "rho = -1.0"),
        ("t:nan", "power = nan"),
        ("phi:inf", "scale = inf"),
        ("shift:-3", "shift = -3.0"),
        ("logitnormal:0", "scale = 0.0"),
        ("beta:-0.6", "alpha = -0.6"),
        ("leading:1.5", "comes its offset, an integer, as in 'leading:0'"),
        ("leading:-1", "offset = -1: the offset of a leading grid must be an integer from 0 to 998"),
        ("leading:999", "offset = 999"),
        ("t2:3", "'t2' takes no number; these do: t, phi, karras, polyexponential"),
        ("exponential:2", "'lambda' takes no number"),
        ("t3", "unknown grid 't3'"),
    ],
)
def test_the_number_of_a_grid_is_checked(grid: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        make_grid(grid, SDES["vp"], 5)
    assert "\n" not in str(caught.value)


def test_an_alias_may_carry_the_number_of_its_grid() -> None:
    chain = SDES["ddpm"]
    assert make_grid("ddim_uniform:3", chain, 5) == make_grid("leading:3", chain, 5)
    assert make_grid("kl_optimal:0.5", chain, 5) == make_grid("phi:0.5", chain, 5)
    assert [option_of(find_grid(name)) for name in ("lambda", "index")] == [None, None]


@pytest.mark.parametrize("first", [0.0, 1e-3, 1.1, -1.0, math.nan])
def test_a_start_outside_the_times(first: float) -> None:
    with pytest.raises(
        BadInput, match=f"start = {first}: a grid starts above t_min = 0.001 and at most at t_max = 1.0"
    ):
        make_grid("phi", SDES["vp"], 5, "zero", first)


def test_a_list_has_its_own_start() -> None:
    with pytest.raises(BadInput, match=r"start = 0\.5: a list of times is used verbatim"):
        make_grid([0.5, 0.1], SDES["vp"], None, "zero", 0.5)


@pytest.mark.parametrize(
    "levels, n, message",
    [
        ([], 5, "give at least two positive, falling"),
        ([1.0, 0.0], 5, "give at least two positive, falling"),
        ([0.5, 1.0], 5, "falling"),
        ([1.0, math.inf], 5, "falling"),
        ([1.0, -0.5, 0.0], 5, "positive"),
        ([1.0, 0.5], 0, "steps = 0"),
    ],
)
def test_bad_levels_to_interpolate(levels: list[float], n: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        loglinear(levels, n)


@pytest.mark.parametrize("final", ["zero", "t_min", "denoise"])
@pytest.mark.parametrize("grid", ["lambda", "phi", "logitnormal:2", "karras", "index", "t2"])
@pytest.mark.parametrize("n", [1, 2, 7, 20, 60, 99, 100, 150])
def test_whole_indices_are_the_nearest_and_all_different(n: int, grid: str, final: str) -> None:
    chain = scoresde.DDPM.named("cosine", 100)
    plain, whole = (np.array(make_grid(name, chain, n, final)) * 100 for name in (grid, f"{grid}@index"))
    assert len(whole) == len(plain) and whole[0] == 100 and whole[-1] == plain[-1]
    if n <= 99:
        assert np.abs(whole - whole.round()).max() < 1e-9 and (np.diff(whole.round()) <= -1).all()
    if n <= 20 and np.diff(-plain).min() > 1.01:  # none in another's way
        assert np.abs(whole - plain).max() <= 0.5 + 1e-9


def test_what_follows_the_at_of_a_grid() -> None:
    with pytest.raises(BadInput, match="after @ comes index"):
        make_grid("lambda@step", scoresde.VPSDE(), 5)
