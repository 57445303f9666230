"""Grids: their ends, their order and their own variable, for every grid, SDE, ending and number of steps."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from exact import F64
from exact import SDES as FAMILIES

from scoresde import DDPM, SDE, BadInput, make_grid
from scoresde.ddpm import BETAS
from scoresde.grids import FINALS, GRIDS, check_times, from_lambdas, from_sigmas

SDES = FAMILIES | {f"ddpm-{betas}": DDPM.named(betas) for betas in BETAS} | {"ddpm-50": DDPM.named("linear", 50)}
ZERO_SNR = {f"zero-snr-{betas}": DDPM.named(betas, zero_terminal_snr=True) for betas in BETAS}
STEPS = (*range(1, 13), 100, 999, 1000, 1001)
UNBOUNDED = ("lambda", "karras")  # variables without a finite value at the data, or where no signal is left

# The variable in which each grid's steps are equal, as a function of t > 0; 0 at the data where it is finite there.
VARIABLE: dict[str, Callable[[SDE, torch.Tensor], torch.Tensor]] = {
    "t": lambda sde, t: t,
    "t2": lambda sde, t: t.sqrt(),
    "lambda": lambda sde, t: sde.lam(t),
    "phi": lambda sde, t: sde.phi(t),
    "karras": lambda sde, t: sde.rho(t) ** (1 / 7),
    "index": lambda sde, t: t / sde.t_max * getattr(sde, "N", 1000),
}

every_sde = pytest.mark.parametrize("sde", (SDES | ZERO_SNR).values(), ids=SDES | ZERO_SNR)
every_grid = pytest.mark.parametrize("grid", GRIDS)
every_final = pytest.mark.parametrize("final", FINALS)


def uniform_part(grid: str, sde: SDE, times: tuple[float, ...], final: str) -> list[float]:
    """The grid's variable at the times that it spaces evenly: all but a last jump to the data."""
    to_data = final == "zero" and grid not in UNBOUNDED and (len(times) == 2 or times[-2] > sde.t_min)
    kept = times if to_data or final == "t_min" else times[:-1]
    values = VARIABLE[grid](sde, torch.tensor([t for t in kept if t > 0], dtype=F64)).tolist()
    return [*values, 0.0] if kept[-1] == 0 else values


@every_grid
@every_sde
def test_ends_order_and_uniformity(sde: SDE, grid: str) -> None:
    if grid in UNBOUNDED and sde in ZERO_SNR.values():
        with pytest.raises(BadInput, match=f"grid '{grid}' needs some signal at t_max = 1.0: choose 't', 't2'"):
            make_grid(grid, sde, 10)
        return
    N = getattr(sde, "N", 1000)
    for final in FINALS:
        for n in STEPS:
            times = make_grid(grid, sde, n, final)
            assert len(times) == n + (2 if final == "denoise" else 1) and all(type(t) is float for t in times)
            assert all(a > b for a, b in pairwise(times)) and times[0] == sde.t_max
            assert times[-1] == (sde.t_min if final == "t_min" else 0.0)
            assert times[-2] >= sde.t_min and (final != "denoise" or times[-2] == sde.t_min)
            values = np.array(uniform_part(grid, sde, times, final))
            if grid == "index":
                if n <= (N if final == "zero" else N - 1):
                    continue  # whole indices, below
                values = values[:-1]  # index 1 is t_min where t_min is not index 1
            even = np.linspace(values[0], values[-1], len(values))
            assert np.abs(values - even).max() <= 1e-9 * np.ptp(values)


@pytest.mark.parametrize("sde", [sde for sde in SDES.values() if isinstance(sde, DDPM)], ids=repr)
def test_trailing_indices_are_whole_and_the_published_ones(sde: DDPM) -> None:
    """round(N - k N/n), k = 0 … n-1 (Lin et al. 2024, table 2), computed in fractions; a half may go either way."""
    for n in [n for n in (*STEPS, 16, 37) if n <= sde.N]:
        labels = [t * sde.N - 1 for t in make_grid("index", sde, n, "zero")]
        assert labels[0] == sde.N - 1 and labels[-1] == -1
        for k, label in enumerate(labels):
            exact = sde.N - Fraction(k * sde.N, n)
            published = round(exact)  # a half to the even number
            assert abs(label - round(label)) < 1e-9
            assert round(label) + 1 in (
                {published} if exact % 1 != Fraction(1, 2) else {published, 2 * exact - published}
            )
        assert n != sde.N or [round(label) for label in labels] == list(range(sde.N - 1, -2, -1))


@every_final
def test_more_steps_than_indices_are_fractions_between_them(final: str) -> None:
    sde = SDES["ddpm-50"]
    times = make_grid("index", sde, 75, final)
    assert len({t * 50 for t in times}) == len(times) and any(abs(t * 50 - round(t * 50)) > 0.1 for t in times)


@every_grid
@every_sde
def test_the_next_time_of_a_step_starts_the_following_one(sde: SDE, grid: str) -> None:
    """A grid with twice the steps has every knot of the coarser one: nothing depends on n but the spacing."""
    if grid in (*UNBOUNDED, "index"):
        return
    coarse, fine = make_grid(grid, sde, 8, "t_min"), make_grid(grid, sde, 16, "t_min")
    assert fine[::2] == pytest.approx(coarse, rel=1e-9)


# --------------------------------------------------------------------------------------------------------- given lists


@every_sde
def test_given_lists_are_used_verbatim(sde: SDE) -> None:
    random = np.random.default_rng(0)
    for size in (2, 3, 17):
        times = sorted(random.uniform(0, sde.t_max, size).tolist(), reverse=True)
        for given in (times, tuple(times), [sde.t_max, *times[1:]], [*times[:-1], 0.0]):
            for final in FINALS:
                assert make_grid(given, sde, None, final) == tuple(given)


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
    with pytest.raises(BadInput, match=f"choose from {', '.join(GRIDS)}; did you mean 'karras'"):
        make_grid("karas", SDES["vp"], 5)
    with pytest.raises(BadInput, match=f"choose from {', '.join(FINALS)}; did you mean 'denoise'"):
        make_grid("t", SDES["vp"], 5, "denoised")
