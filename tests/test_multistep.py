"""Multistep families: the functionals their weights integrate, the recursions they publish, the orders they reach."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from exact import CONTINUOUS, F64, GAUSSIAN, SDES, law_error, mixture, start

import scoresde
from scoresde import BadInput, Row, Table
from scoresde.samplers.adams import deis, ipndm, lms, phi_ab, plms, pndm
from scoresde.samplers.dpm_solver import dpm2m, dpm3m, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde
from scoresde.samplers.law import output_law
from scoresde.samplers.multistep import ddim, eab2, eab3, eab4, exponential_multistep, mean_weights
from scoresde.samplers.predictor_corrector import sa_solver, unipc

Build = Callable[..., Table]


def levels(sde: scoresde.SDE, n: int, first: float = -2.0, last: float = 2.0, bend: float = 0.3) -> tuple[float, ...]:
    """Times whose λ rise from ``first`` to ``last`` in n smoothly uneven steps."""
    u = torch.linspace(0, 1, n + 1, dtype=F64)
    u = u + bend * (2 * math.pi * u).sin() / (2 * math.pi)
    return tuple(sde.t_of_lam(first + (last - first) * u).tolist())


def net(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Any smooth nonlinear network: a recursion must agree for all of them."""
    return torch.tanh(x * (1 + label[:, None]) + 0.3)


def output(x: torch.Tensor, t: float) -> torch.Tensor:
    return net(x, torch.full((len(x),), t, dtype=F64))


def ran(build: Build, sde: scoresde.SDE, times: tuple[float, ...], draws: torch.Tensor | None = None, **options: Any):
    """The state at the end of a run of `net` in the table's own space."""
    table = build(sde, times, **options)
    noise = None if draws is None else lambda i, j, x: draws[i]
    return table.run(scoresde.Denoiser(net, sde, table.space), start(sde, (3, 2)), noise)[0]


def agree(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-12) -> bool:
    return float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


def same_rows(a: Table, b: Table, tolerance: float = 1e-12) -> bool:
    """Equal weights, to rounding."""

    def numbers(row: Row) -> np.ndarray:
        return np.array([row.t, row.t_next, row.a, *row.b, *row.c])

    return len(a.rows) == len(b.rows) and all(
        np.allclose(numbers(x), numbers(y), rtol=tolerance, atol=tolerance) for x, y in zip(a.rows, b.rows, strict=True)
    )


# --------------------------------------------------------------------------------------------------------- functionals


@pytest.mark.parametrize("z", [-25.0, -3.0, -1e-3, 0.0, 1e-3, 0.4, 6.0, 60.0])
@pytest.mark.parametrize("ahead", [False, True])
def test_means_of_polynomials(z: float, ahead: bool) -> None:
    """Σ_j c_j u_j^m is the mean of u^m with density ∝ e^{-z(1-u)}, by mpmath; with a node at the step's end too."""
    mpmath.mp.dps = 40
    for past in ([0.0], [0.0, -0.7], [0.0, -0.7, -2.1], [0.0, -0.4, -1.9, -2.3]):
        nodes = np.array([1.0, *past] if ahead else past)
        c = mean_weights(z, nodes)
        integrals: list[Any] = [
            mpmath.quad(lambda u, m=m: mpmath.exp(-z * (1 - u)) * u**m, [0, 0.5, 0.9, 1]) for m in range(len(nodes))
        ]
        for m in range(len(nodes)):
            exact = integrals[m] / integrals[0]
            size = max(1.0, float(np.abs(c) @ np.abs(nodes) ** m))
            assert abs(float(c @ nodes**m) - exact) < 1e-12 * size


def power_sums(table: Table, values: np.ndarray, scale: np.ndarray, m: int) -> list[float]:
    """Σ_j b_j scale_j v_j^m of every row, v and scale given at the knots."""
    return [sum(w * scale[i - j] * values[i - j] ** m for j, w in enumerate(row.b)) for i, row in enumerate(table.rows)]


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_and_phi_ab_integrate_polynomials_exactly(order: int, sde: scoresde.SDE) -> None:
    """Σ_j b_j ρ_j^m = α_t ∫ ρ^m dρ and Σ_j b_j r_j φ_j^m = r_t ∫ φ^m dφ over the step, m below the outputs in use."""
    times = levels(sde, 7)
    at = sde.knots(times)
    rho, phi, r = at.sigma / at.alpha, np.arctan2(at.sigma, at.alpha), np.hypot(at.alpha, at.sigma)
    cases = (lms, rho, np.ones_like(r), at.alpha), (phi_ab, phi, r, r)
    for build, v, scale, out in cases:
        table = build(sde, times, order=order)
        for m in range(order):
            for i, total in enumerate(power_sums(table, v, scale, m)):
                if m < len(table.rows[i].b):
                    exact = out[i + 1] * (v[i + 1] ** (m + 1) - v[i] ** (m + 1)) / (m + 1)
                    assert total == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("name", ["vp", "flow"])
def test_deis_integrates_polynomials_in_t(name: str) -> None:
    """Σ_j b_j t_j^m = α_t ∫ t^m dρ = α_t ([t^m ρ] - m ∫ t^{m-1} ρ dt), by mpmath from the SDE's definition."""
    mpmath.mp.dps = 25

    def rho(t: Any) -> Any:
        return mpmath.sqrt(mpmath.expm1(t / 10 + t**2 * 19.9 / 2)) if name == "vp" else t / (1 - t)

    sde = SDES[name]
    times = levels(sde, 6, -3.0, 4.0)
    table, alpha = deis(sde, times, order=4), sde.knots(times).alpha
    for m in range(4):
        for i, total in enumerate(power_sums(table, np.array(times), np.ones(len(times)), m)):
            if m < len(table.rows[i].b):
                s, t = mpmath.mpf(times[i]), mpmath.mpf(times[i + 1])
                rest = mpmath.quad(lambda x, m=m: m * x ** (m - 1) * rho(x), [s, (s + t) / 2, t]) if m else 0
                assert total == pytest.approx(alpha[i + 1] * float(t**m * rho(t) - s**m * rho(s) - rest), rel=1e-10)


# --------------------------------------------------------------------------------------------------------- one of many


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_names_for_one_thing_are_one_thing(sde: scoresde.SDE) -> None:
    times = (*levels(sde, 7, -3.0, 3.0), 0.0)
    whole = {"lower_order_final": False}
    ancestral, first = ddim(sde, times, eta=1.0), exponential_multistep(sde, times, order=1, tau=1.0)
    assert same_rows(ancestral, first)
    assert same_rows(dpmpp_2m_sde(sde, times, solver="heun", eta=0.49), eab2(sde, times, tau=0.7))
    assert same_rows(dpmpp_2m_sde(sde, times, eta=0.0), dpmpp_2m(sde, times))
    assert same_rows(unipc(sde, times, order=2, corrector=False, **whole), dpmpp_2m(sde, times))
    assert same_rows(
        unipc(sde, times, order=2, corrector=False, space="eps"), dpm2m(sde, times, lower_order_final=True)
    )
    assert same_rows(sa_solver(sde, times, corrector_order=0, tau=0.5, **whole), eab3(sde, times, tau=0.5))
    assert same_rows(sa_solver(sde, times, predictor_order=4, corrector_order=0, tau=0, **whole), eab4(sde, times))
    for build in (lms, deis, ipndm):
        assert same_rows(build(sde, times, order=1), exponential_multistep(sde, times, space="eps"))


def test_variables_that_coincide() -> None:
    """t is σ under EDM and linear in λ under VE; with equal steps in ρ Adams' fixed weights are the integrals."""
    edm, ve = SDES["edm"], SDES["ve"]
    assert same_rows(deis(edm, levels(edm, 9), order=4), lms(edm, levels(edm, 9), order=4), 1e-10)
    exponential = exponential_multistep(ve, levels(ve, 9), order=4, space="eps")
    assert same_rows(deis(ve, levels(ve, 9), order=4), exponential, 1e-10)
    even = tuple(np.linspace(8.0, 0.5, 12).tolist())
    assert same_rows(ipndm(edm, even, order=4), lms(edm, even, order=4))


def test_tau_of_t_is_held_over_each_step_at_its_start() -> None:
    sde = SDES["vp"]
    times = (*levels(sde, 6), 0.0)
    late = eab3(sde, times, tau=1.0)
    for build in (eab3, sa_solver):
        assert same_rows(build(sde, times, tau=lambda t: 0.7), build(sde, times, tau=0.7))
    varied = eab3(sde, times, tau=lambda t: float(t <= times[3]))
    assert varied.rows[:3] == eab3(sde, times).rows[:3] and varied.rows[3:] == late.rows[3:]
    assert varied.defect <= 1e-12 and varied.order is None


# --------------------------------------------------------------------------------------------------------------- exact


EXACT: dict[str, Build] = {
    "eab2": eab2,
    "eab3 tau": partial(eab3, tau=1.0),
    "eab4 tau": partial(eab4, tau=lambda t: 0.3 + t / (1 + t)),
    "dpm2m": dpm2m,
    "dpm3m": dpm3m,
    "dpmpp_2m": partial(dpmpp_2m, lower_order_final=True),
    "dpmpp_3m": dpmpp_3m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "deis": deis,
    "lms": lms,
    "ipndm": partial(ipndm, order=4),
    "unipc": unipc,
    "unipc eps": partial(unipc, space="eps", variant="bh1", lower_order_final=False),
    "sa_solver": sa_solver,
}
STARTED: dict[str, Build] = {"plms": plms, "pndm": pndm}
GRIDS = ("lambda", "phi")


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("name", EXACT)
def test_exact_on_a_point_mass_and_at_the_ends(name: str, sde: scoresde.SDE) -> None:
    """On every grid and for any number of steps; the step into the data is x = x̂_0, without noise."""
    for grid in GRIDS:
        for n in (1, 2, 9):
            for final in ("zero", "t_min"):
                times = scoresde.grids.make_grid(grid, sde, n, final)
                table = EXACT[name](sde, times)
                assert table.exact and table.nfe == n and table.times == times
                if final == "zero":
                    at = sde.knots([times[-2]])
                    a, b = (0.0, 1.0) if table.space == "x0" else (1 / at.alpha[0], -at.sigma[0] / at.alpha[0])
                    last = table.rows[-1]
                    assert (last.a, *last.b, *last.c) == pytest.approx((a, b), rel=1e-15)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("name", [*STARTED, "phi_ab"])
def test_any_number_of_steps(name: str, sde: scoresde.SDE) -> None:
    """Finite tables with the calls they document, ending on x = x̂_0 where they end on the data."""
    build = {**STARTED, "phi_ab": partial(phi_ab, order=4)}[name]
    calls = {"plms": lambda m: m + (m > 0), "pndm": lambda m: m + 3 * min(m, 3), "phi_ab": lambda m: m}[name]
    for n in (1, 2, 3, 4, 11):
        for final in ("zero", "t_min"):
            times = scoresde.grids.make_grid("phi", sde, n, final)
            table = build(sde, times)
            assert table.times == times and table.nfe == (calls(n - 1) + 1 if final == "zero" else calls(n))
            if final == "zero":
                x, denoiser = start(sde, (3, 2)), scoresde.Denoiser(net, sde, table.space)
                out, _ = Table(sde, table.space, table.rows[-1:]).run(denoiser, x)
                assert agree(out, denoiser.x0(x, times[-2]))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_defects_on_a_point_mass(name: str) -> None:
    """A start of several calls keeps the identity, up to rounding that it amplifies; in the angle it errs by O(h²)."""
    sde = SDES[name]
    for build in STARTED.values():
        assert build(sde, levels(sde, 20)).defect < 1e-11
    for order in (1, 2, 3, 4):
        few, many = (phi_ab(sde, levels(sde, n, -1.0, 1.0), order=order).defect for n in (60, 120))
        assert math.log2(few / many) == pytest.approx(min(2, order), abs=0.2)
        assert not phi_ab(sde, levels(sde, 3)).exact


# -------------------------------------------------------------------------------------------------------------- orders


MOVING = (-2.0, 1.0)  # the λ between which orders are measured
DEPTH = 4  # outputs before the first row: as many as any method looks back
WHOLE = {"lower_order_final": False}
ORDERED: dict[str, Build] = {
    "eab2": eab2,
    "eab3": eab3,
    "eab4": eab4,
    "dpm2m": dpm2m,
    "dpm3m": dpm3m,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    **{f"{f.__name__} {k}": partial(f, order=k) for f in (lms, deis, ipndm, phi_ab) for k in (2, 3, 4)},
    "phi_ab 1": partial(phi_ab, order=1),
    **{f"unipc {k}": partial(unipc, order=k, **WHOLE) for k in (1, 2, 3)},
    "unipc 1 bh1": partial(unipc, order=1, variant="bh1", **WHOLE),
    "unipc 3 eps": partial(unipc, space="eps", **WHOLE),
    **{
        f"sa_solver {p} {c}": partial(sa_solver, predictor_order=p, corrector_order=c, tau=0.0, **WHOLE)
        for p, c in ((1, 1), (1, 2), (2, 3), (3, 4))
    },
}


def flow(sde: scoresde.SDE, x: torch.Tensor, t: float, t_next: float, steps: int) -> torch.Tensor:
    """The exact mixture's probability flow by the classical Runge-Kutta method in φ, written out here."""
    denoiser = mixture().denoiser(sde)
    phi, end = sde.phi(torch.tensor([t, t_next], dtype=F64)).tolist()
    h = (end - phi) / steps

    def slope(phi: float, y: torch.Tensor) -> torch.Tensor:
        at = float(sde.t_of_phi(torch.tensor(phi, dtype=F64)))
        r = sde.prior_std(at)
        return denoiser.predict("v", r * y, at) / r

    y = x / sde.prior_std(t)
    for i in range(steps):
        p = phi + i * h
        k1 = slope(p, y)
        k2 = slope(p + h / 2, y + h / 2 * k1)
        k3 = slope(p + h / 2, y + h / 2 * k2)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(p + h, y + h * k3))
    return sde.prior_std(t_next) * y


@cache
def middle(name: str) -> torch.Tensor:
    """States at λ = -2, where the flow is in full motion: a start of low order shows."""
    sde = SDES[name]
    return flow(sde, start(sde, (8, 2)), sde.t_max, levels(sde, 1, *MOVING)[0], 60)


@cache
def reference(name: str) -> torch.Tensor:
    """The flow's end at λ = 1, from there."""
    return flow(SDES[name], middle(name), *levels(SDES[name], 1, *MOVING), 160)


@cache
def early(name: str, n: int) -> tuple[tuple[float, ...], list[torch.Tensor]]:
    """A grid and the exact states at its first knots."""
    sde, states = SDES[name], [middle(name)]
    times = levels(sde, n, *MOVING)
    for t, t_next in pairwise(times[: DEPTH + 1]):
        states.append(flow(sde, states[-1], t, t_next, 3))
    return times, states


def from_exact_history(build: Build, name: str, n: int) -> torch.Tensor:
    """The end of a run whose outputs before its first row are those of the flow."""
    times, states = early(name, n)
    denoiser, table = mixture().denoiser(SDES[name]), build(SDES[name], times[DEPTH:], times[:DEPTH][::-1])
    history = [denoiser.predict(table.space, states[i], times[i]) for i in reversed(range(DEPTH))]
    return table.run(denoiser, states[DEPTH], history=history)[0]


def from_own_start(build: Build, name: str, n: int) -> torch.Tensor:
    times, states = early(name, n)
    return build(SDES[name], times).run(mixture().denoiser(SDES[name]), states[0])[0]


def rate(few: torch.Tensor, many: torch.Tensor) -> float:
    """The order of convergence from the errors of n and of 2n steps."""
    return math.log2(float(few.abs().mean() / many.abs().mean()))


@pytest.mark.parametrize("method, name", [(m, "vp") for m in ORDERED] + [("deis 3", name) for name in CONTINUOUS[1:]])
def test_declared_orders_are_the_measured_ones(method: str, name: str) -> None:
    """The recurrence's from exact history; a start of lower order by what it adds to a run.

    Only deis and pndm look at t, here under every SDE: all others make equal runs under every SDE, as tested below.
    """
    build = ORDERED[method]
    declared = build(SDES[name], levels(SDES[name], 3))
    order, with_start = declared.order, declared.order_with_start
    assert order and with_start
    sizes = (60, 120) if order < 3 else (90, 180)
    exact, own = ([run(build, name, n) for n in sizes] for run in (from_exact_history, from_own_start))
    few, many = (out - reference(name) for out in exact)
    assert rate(few, many) == pytest.approx(order, abs=0.2)
    few, many = (a - (b if with_start < order else reference(name)) for a, b in zip(own, exact, strict=True))
    assert rate(few, many) == pytest.approx(with_start, abs=0.2)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("method", STARTED)
def test_a_start_of_several_calls_keeps_the_second_order(method: str, name: str) -> None:
    few, many = (from_own_start(STARTED[method], name, n) - reference(name) for n in (40, 80))
    assert rate(few, many) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("method", ["eab3", "dpm3m", "lms 4", "ipndm 4", "phi_ab 3", "unipc 3", "unipc 3 eps"])
def test_equal_levels_are_equal_runs_under_every_sde(method: str) -> None:
    """x / sqrt(α² + σ²) at given λ knows nothing of the SDE, nor does a method that never looks at t."""
    ends = list[torch.Tensor]()
    for sde in SDES.values():
        times = levels(sde, 15)
        x = torch.linspace(-1.5, 1.5, 12, dtype=F64).reshape(6, 2) * sde.prior_std(times[0])
        out, _ = ORDERED[method](sde, times).run(mixture().denoiser(sde), x)
        ends.append(out / sde.prior_std(times[-1]))
    assert all(agree(end, ends[0], 1e-9) for end in ends)


@pytest.mark.parametrize("build", [partial(unipc, order=3), partial(sa_solver, tau=0.0), dpmpp_3m])
def test_a_last_step_of_first_order_costs_the_run_its_order(build: Build) -> None:
    """What ``lower_order_final`` changes is O(h²), once: such runs claim the second order."""
    assert build(SDES["vp"], levels(SDES["vp"], 9), lower_order_final=True).order_with_start == 2
    few, many = (
        from_own_start(partial(build, lower_order_final=True), "vp", n)
        - from_own_start(partial(build, lower_order_final=False), "vp", n)
        for n in (40, 80)
    )
    assert rate(few, many) == pytest.approx(2, abs=0.2)


@cache
def encoded() -> tuple[torch.Tensor, torch.Tensor]:
    """States at λ = 2 and what the flow of VP makes of them at λ = -2."""
    x = torch.linspace(-1.5, 1.5, 12, dtype=F64).reshape(6, 2)
    return x, flow(SDES["vp"], x, *levels(SDES["vp"], 1)[::-1], 120)


@pytest.mark.parametrize("build", [lms, deis, ipndm, dpm2m, phi_ab], ids=["lms", "deis", "ipndm", "dpm2m", "phi_ab"])
def test_times_that_rise_encode(build: Build) -> None:
    """Noise and v space run from data to noise as well, with a run's order; down again returns the state."""
    sde, errors = SDES["vp"], list[torch.Tensor]()
    denoiser, (x, truth) = mixture().denoiser(sde), encoded()
    for n in (60, 120):
        times = levels(sde, n)
        latent, _ = build(sde, times[::-1]).run(denoiser, x)
        errors.append(latent - truth)
    assert rate(*errors) == pytest.approx(2, abs=0.3)
    assert (build(sde, times).run(denoiser, latent)[0] - x).abs().max() < 5e-3


# --------------------------------------------------------------------------------------------------------------- noise


WEAK: dict[str, tuple[Build, int]] = {
    "one output": (partial(exponential_multistep, order=1, tau=1.0), 1),
    "eab2": (partial(eab2, tau=1.0), 2),
    "eab3": (partial(eab3, tau=0.5), 2),
    "eab2 tau(t)": (partial(eab2, tau=lambda t: 2 * t / (1 + t)), 2),
    "dpmpp_2m_sde": (dpmpp_2m_sde, 2),
    "dpmpp_3m_sde": (dpmpp_3m_sde, 2),
    "sa_solver": (sa_solver, 2),
    "sa_solver 1 2": (partial(sa_solver, predictor_order=1, corrector_order=2), 2),
}


@pytest.mark.parametrize(
    "method, sde", [(m, SDES["vp"]) for m in WEAK] + [(m, sde) for m in ("eab2", "sa_solver") for sde in SDES.values()]
)
def test_weak_orders_on_gaussian_data(method: str, sde: scoresde.SDE) -> None:
    """Without Monte Carlo: the output's mean is exact, its variance errs by O(h) or, from two outputs on, O(h²)."""
    build, order = WEAK[method]
    errors = list[float]()
    for n in (50, 100):
        table = build(sde, scoresde.grids.make_grid("lambda", sde, n, "t_min"))
        mean, _ = output_law(table, GAUSSIAN.denoiser(sde), GAUSSIAN)
        assert (mean - float(sde.knots([table.times[-1]]).alpha[0]) * GAUSSIAN.mean).abs().max() < 1e-11
        errors.append(law_error(table, sde))
    assert math.log2(errors[0] / errors[1]) > order - 0.25
    assert errors[1] < (0.25 if order == 1 else 0.03)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "build, options, message",
    [
        (lms, {"order": 5}, "order = 5: order must be an integer from 1 to 4"),
        (unipc, {"order": 4}, "order = 4: order must be an integer from 1 to 3"),
        (deis, {"order": 0}, "order = 0"),
        (phi_ab, {"order": -1}, "order = -1"),
        (ipndm, {"order": 9}, "order = 9"),
        (unipc, {"variant": "bh3"}, "unknown variant 'bh3': choose from bh1, bh2; did you mean"),
        (unipc, {"space": "v"}, "unknown space 'v': choose from x0, eps"),
        (sa_solver, {"predictor_order": 0}, "predictor_order = 0: predictor_order must be an integer from 1 to 4"),
        (sa_solver, {"corrector_order": 5}, "corrector_order = 5: corrector_order must be an integer from 0 to 4"),
        (sa_solver, {"tau": -0.5}, "tau = -0.5: tau must be a number of at least 0"),
        (eab3, {"tau": math.inf}, "tau = inf: tau must"),
        (eab2, {"tau": lambda t: math.nan}, "tau = nan at t = 1: tau must"),
        (dpmpp_2m_sde, {"solver": "huen"}, "unknown solver 'huen': choose from midpoint, heun; did you mean 'heun'"),
        (dpmpp_3m_sde, {"eta": -1.0}, "eta = -1.0: eta must be a number of at least 0"),
        (ddim, {"eta": 1.5}, "eta = 1.5 must be in"),
        (exponential_multistep, {"eta": 0.5, "tau": 0.5}, "give one"),
        (exponential_multistep, {"tau": 0.5, "space": "eps"}, "tau = 0.5 needs x0 space"),
    ],
)
def test_what_the_builders_refuse(build: Build, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        build(SDES["vp"], (1.0, 0.5, 0.1), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build", [lms, deis, ipndm, plms, pndm, dpm2m, partial(unipc, space="eps")])
def test_noise_space_refuses_pure_noise(build: Build) -> None:
    chain = scoresde.DDPM.named("linear", 100, zero_terminal_snr=True)
    with pytest.raises(BadInput, match="no step to or from pure noise"):
        build(chain, (1.0, 0.5, 0.1))


@pytest.mark.parametrize("build", [eab3, dpmpp_2m_sde, unipc, sa_solver, phi_ab])
def test_data_and_v_space_start_from_pure_noise(build: Build) -> None:
    chain = scoresde.DDPM.named("linear", 100, zero_terminal_snr=True)
    times = scoresde.grids.make_grid("index", chain, 8, "zero")
    table = build(chain, times)
    denoiser = scoresde.Denoiser(mixture().network(chain, "v"), chain, "v")
    noise = torch.randn(8, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    out, calls = table.run(denoiser, start(chain, (3, 2)), lambda i, j, x: noise[i])
    assert torch.isfinite(out).all() and calls == 8 and (table.space == "v" or table.defect <= 1e-12)
