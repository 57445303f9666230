"""Samplers with several calls in a step: their published recursions, identities, orders, and laws."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from exact import CONTINUOUS, F64, SDES, law_error, mixture, start
from torch.utils._python_dispatch import TorchDispatchMode

import scoresde
from scoresde import SAMPLERS, BadInput, Table
from scoresde.grids import make_grid
from scoresde.samplers.runge_kutta import TABLEAUX, Tableau, heun, midpoint, rk4, runge_kutta, sheun
from scoresde.samplers.singlestep import dpm2a, dpm2s, dpm3s, dpmpp_2s, dpmpp_2sa, dpmpp_3s, dpmpp_sde

ORDERS = {heun: 2, midpoint: 2, rk4: 4, dpm2s: 2, dpm3s: 3, dpmpp_2s: 2, dpmpp_3s: 3}
EXPONENTIAL = [dpm2s, dpm3s, dpmpp_2s, dpmpp_3s, dpm2a, dpmpp_2sa, dpmpp_sde]
STOCHASTIC = [dpm2a, dpmpp_2sa, dpmpp_sde, sheun]
CALLS = {rk4: 4, dpm3s: 3, dpmpp_3s: 3}  # of an interval; the others make two
KUTTA = Tableau(
    4, (0, 1 / 2, 1 / 2, 1), ((1 / 2,), (0, 1 / 2), (0, 0, 1)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)
)  # the classical method
X = (16, 2)

builders = partial(pytest.mark.parametrize, "build", ids=lambda build: build.__name__)
every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def denoiser_of(sde: scoresde.SDE, form: str) -> scoresde.Denoiser:
    """Any smooth nonlinear network in the given form: a recursion must agree for all of them."""
    return scoresde.Denoiser(lambda x, label: torch.tanh(x * (1 + label[:, None]) + 0.3), sde, form)


def level(sde: scoresde.SDE, t: float) -> tuple[float, float]:
    """α and ρ = σ/α."""
    at = sde.knots([t])
    return float(at.alpha[0]), float(at.sigma[0] / at.alpha[0])


def close(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-11) -> bool:
    return float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


# ------------------------------------------------------------------------------------------------ published recursions


@pytest.mark.parametrize("final", ["zero", "t_min"])
@every_sde
@pytest.mark.parametrize("method", TABLEAUX)
def test_tableaux_equal_torchdiffeq(method: str, sde: scoresde.SDE, final: str) -> None:
    denoiser, x = mixture().denoiser(sde), start(sde, X)
    times = make_grid("phi", sde, 4, final)
    ode = SAMPLERS["ode"].build
    assert ode
    table, other = runge_kutta(sde, times, TABLEAUX[method]), ode(sde, times, method=method)
    seen: list[tuple[torch.Tensor, torch.Tensor, int]] = []
    for solver in (table, other):
        *_, last = solver.iterate(denoiser, x.clone())
        seen.append((last.x, last.x0, last.nfe))
    assert close(seen[0][0], seen[1][0], 1e-12) and close(seen[0][1], seen[1][1], 1e-10)
    assert seen[0][2] == seen[1][2] == table.nfe


class Reads(TorchDispatchMode):
    """Counts reads of the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@builders([heun, midpoint, rk4, *EXPONENTIAL, sheun])
def test_nothing_is_read_from_the_device(build: Callable[..., Table]) -> None:
    sde = SDES["vp"]
    table = build(sde, make_grid("lambda", sde, 4, "zero"))
    assert table.nfe == CALLS.get(build, 2) * 3 + 1
    denoiser = scoresde.Denoiser(lambda x, label: 0.5 * x, sde, "v")
    with Reads() as reads:
        out, calls = table.run(denoiser, torch.ones(2, 3), lambda step, draw, x: torch.ones_like(x))
    assert reads.count == 0 and calls == table.nfe and out.isfinite().all()


def geometric(a: float, b: float, share: float) -> float:
    return math.exp((1 - share) * math.log(a) + share * math.log(b))


@every_sde
def test_dpm2s_is_k_diffusions_dpm2(sde: scoresde.SDE) -> None:
    """In y = x/α over ρ: Euler to the geometric middle, then from the start with the slope found there."""
    denoiser, times = denoiser_of(sde, "eps"), make_grid("karras", sde, 7, "zero")
    expected = x = start(sde, (3, 2))
    for t, t_next in pairwise(times):
        (alpha, rho), (alpha_next, rho_next) = level(sde, t), level(sde, t_next)
        y, slope = expected / alpha, denoiser.eps(expected, t)
        if rho_next:
            rho_mid = geometric(rho, rho_next, 0.5)
            t_mid = float(sde.t_of_rho(torch.tensor(rho_mid, dtype=F64)))
            slope = denoiser.eps(level(sde, t_mid)[0] * (y + (rho_mid - rho) * slope), t_mid)
        expected = alpha_next * (y + (rho_next - rho) * slope)
    assert close(dpm2s(sde, times).run(denoiser, x)[0], expected)


@every_sde
@pytest.mark.parametrize("r1", [0.3, 0.5, 0.8])
def test_dpm_solver_2_equals_the_papers_recursions(r1: float, sde: scoresde.SDE) -> None:
    """Lu et al. 2022a, algorithm 1 with any r1, and 2022b, algorithm 1."""
    times = make_grid("lambda", sde, 5)
    at, noise_net, data_net = sde.knots(times), denoiser_of(sde, "eps"), denoiser_of(sde, "x0")
    u = w = x = start(sde, (3, 2))
    for i, (t, _) in enumerate(pairwise(times)):
        (alpha, alpha_t), (sigma, sigma_t) = at.alpha[i : i + 2].tolist(), at.sigma[i : i + 2].tolist()
        h = float(at.lam[i + 1] - at.lam[i])
        mid = float(sde.t_of_lam(torch.tensor(float(at.lam[i]) + r1 * h, dtype=F64)))
        alpha_1, sigma_1 = (float(v[0]) for v in sde.knots([mid])[1:3])
        e = noise_net.eps(u, t)
        e_1 = noise_net.eps(alpha_1 / alpha * u - sigma_1 * math.expm1(r1 * h) * e, mid)
        u = alpha_t / alpha * u - sigma_t * math.expm1(h) * (e + (e_1 - e) / (2 * r1))
        d = data_net.x0(w, t)
        d_1 = data_net.x0(sigma_1 / sigma * w - alpha_1 * math.expm1(-r1 * h) * d, mid)
        w = sigma_t / sigma * w - alpha_t * math.expm1(-h) * ((1 - 1 / (2 * r1)) * d + 1 / (2 * r1) * d_1)
    assert close(dpm2s(sde, times, r1=r1).run(noise_net, x)[0], u, 1e-9)
    assert close(dpmpp_2s(sde, times, r1=r1).run(data_net, x)[0], w)


@every_sde
@pytest.mark.parametrize("space", ["eps", "x0"])
def test_dpm_solver_3_equals_the_papers_recursion(space: str, sde: scoresde.SDE) -> None:
    """Lu et al. 2022a, algorithm 2 with r = 1/3, 2/3; in data space (their code) σ for α, -h for h, and + for -."""
    times, denoiser = make_grid("lambda", sde, 5), denoiser_of(sde, space)
    data = space == "x0"

    def scales(t: float) -> tuple[float, float]:
        alpha, sigma = (float(v[0]) for v in sde.knots([t])[1:3])
        return (sigma, alpha) if data else (alpha, sigma)

    x = expected = start(sde, (3, 2))
    for t, t_next in pairwise(times):
        lam, lam_next = sde.knots([t, t_next]).lam.tolist()
        z = (lam - lam_next) if data else (lam_next - lam)
        lams = torch.tensor([lam + r * (lam_next - lam) for r in (1 / 3, 2 / 3)], dtype=F64)
        s1, s2 = sde.t_of_lam(lams).tolist()
        (a, _), (a1, b1), (a2, b2), (a3, b3) = map(scales, (t, s1, s2, t_next))
        phi = [math.expm1(r * z) for r in (1 / 3, 2 / 3, 1)]
        D = denoiser.predict(space, expected, t)
        D1 = denoiser.predict(space, a1 / a * expected - b1 * phi[0] * D, s1) - D
        u = a2 / a * expected - b2 * phi[1] * D - b2 * 2 * (phi[1] / (2 / 3 * z) - 1) * D1
        D2 = denoiser.predict(space, u, s2) - D
        expected = a3 / a * expected - b3 * phi[2] * D - b3 * 1.5 * (phi[2] / z - 1) * D2
    table = (dpmpp_3s if data else dpm3s)(sde, times)
    assert close(table.run(denoiser, x)[0], expected, 1e-11 if data else 1e-9)


def ancestral(rho: float, rho_next: float, eta: float) -> tuple[float, float]:
    """ρ_down and ρ_up."""
    up = min(rho_next, eta * math.sqrt(rho_next**2 * (rho**2 - rho_next**2) / rho**2))
    return math.sqrt(rho_next**2 - up**2), up


class Draws:
    """Unit normal draws in the order they are asked for, kept to be used again."""

    def __init__(self) -> None:
        self.given: list[torch.Tensor] = []

    def __call__(self, step: int, draw: int, x: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(100 + len(self.given))
        self.given.append(torch.randn(x.shape, generator=generator, dtype=x.dtype))
        return self.given[-1]


def at_rho(sde: scoresde.SDE, rho: float) -> tuple[float, float]:
    """The time at which σ/α is ρ, and α there."""
    t = float(sde.t_of_rho(torch.tensor(rho, dtype=F64)))
    return t, level(sde, t)[0]


@every_sde
@pytest.mark.parametrize("eta", [0.4, 1.0])
@builders([dpm2a, dpmpp_2sa])
def test_ancestral_steps_equal_k_diffusions(build: Callable[..., Table], eta: float, sde: scoresde.SDE) -> None:
    """In y = x/α over ρ: a second-order step to ρ_down, then noise of size ρ_up; x̂_0 at the end."""
    space = "x0" if build is dpmpp_2sa else "eps"
    denoiser, times, draws = denoiser_of(sde, space), make_grid("karras", sde, 6, "zero"), Draws()
    x = start(sde, (3, 2))
    out, _ = build(sde, times, eta=eta).run(denoiser, x, draws)
    expected, given = x, iter(draws.given)
    for t, t_next in pairwise(times):
        (alpha, rho), (alpha_next, rho_next) = level(sde, t), level(sde, t_next)
        if not rho_next:
            expected = denoiser.x0(expected, t)
            continue
        down, up = ancestral(rho, rho_next, eta)
        mid = geometric(rho, down, 0.5)
        t_mid, alpha_mid = at_rho(sde, mid)
        y = expected / alpha
        if space == "eps":
            slope = denoiser.eps(alpha_mid * (y + (mid - rho) * denoiser.eps(expected, t)), t_mid)
            y = y + (down - rho) * slope
        else:
            h = math.log(rho / down)
            y_mid = mid / rho * y - math.expm1(-h / 2) * denoiser.x0(expected, t)
            y = down / rho * y - math.expm1(-h) * denoiser.x0(alpha_mid * y_mid, t_mid)
        expected = alpha_next * (y + up * next(given))
    assert next(given, None) is None and close(out, expected)


@every_sde
@pytest.mark.parametrize("eta, r1", [(1.0, 0.5), (0.4, 0.5), (1.0, 0.3)])
def test_dpmpp_sde_equals_k_diffusions(eta: float, r1: float, sde: scoresde.SDE) -> None:
    """Both noises are increments of one Brownian motion in ρ, from the start of the step."""
    denoiser, times, draws = denoiser_of(sde, "x0"), make_grid("karras", sde, 6, "zero"), Draws()
    x = start(sde, (3, 2))
    out, _ = dpmpp_sde(sde, times, eta=eta, r1=r1).run(denoiser, x, draws)
    expected, given = x, iter(draws.given)
    for t, t_next in pairwise(times):
        (alpha, rho), (alpha_next, rho_next) = level(sde, t), level(sde, t_next)
        D, y = denoiser.x0(expected, t), expected / alpha
        if not rho_next:
            expected = D
            continue
        mid = geometric(rho, rho_next, r1)
        t_mid, alpha_mid = at_rho(sde, mid)
        brown_mid = math.sqrt(rho - mid) * next(given)
        brown = brown_mid + math.sqrt(mid - rho_next) * next(given)
        down, up = ancestral(rho, mid, eta)
        y_mid = down / rho * y + (1 - down / rho) * D + up * brown_mid / math.sqrt(rho - mid)
        mixed = (1 - 1 / (2 * r1)) * D + 1 / (2 * r1) * denoiser.x0(alpha_mid * y_mid, t_mid)
        down, up = ancestral(rho, rho_next, eta)
        y = down / rho * y + (1 - down / rho) * mixed + up * brown / math.sqrt(rho - rho_next)
        expected = alpha_next * y
    assert next(given, None) is None and close(out, expected)


@every_sde
def test_stochastic_heun_is_the_mean_of_two_euler_maruyama_steps(sde: scoresde.SDE) -> None:
    denoiser, times, draws = denoiser_of(sde, "eps"), make_grid("lambda", sde, 6, "zero"), Draws()
    x = start(sde, (3, 2))
    out, _ = sheun(sde, times).run(denoiser, x, draws)
    expected = x
    for i, (t, t_next) in enumerate(pairwise(times)):
        if t_next == 0:
            expected = denoiser.x0(expected, t)
            continue
        dt, euler = t_next - t, expected
        for s in (t, t_next):
            drift = sde.reverse_drift(euler, s, denoiser.score(euler, s))
            euler = euler + drift * dt + sde.diffusion(euler, s) * math.sqrt(-dt) * draws.given[i]
        expected = 0.5 * (expected + euler)
    assert len(draws.given) == 5 and close(out, expected)


@every_sde
def test_no_noise_leaves_the_deterministic_sampler(sde: scoresde.SDE) -> None:
    times = make_grid("lambda", sde, 5, "zero")
    for noisy, plain in (
        (dpm2a, dpm2s),
        (dpmpp_2sa, dpmpp_2s),
        (partial(dpmpp_sde, r1=0.3), partial(dpmpp_2s, r1=0.3)),
    ):
        table, other = noisy(sde, times, eta=0.0), plain(sde, times)
        assert not table.stochastic and table.order == other.order == 2
        denoiser = denoiser_of(sde, table.space)
        x = start(sde, (3, 2))
        assert close(table.run(denoiser, x)[0], other.run(denoiser, x)[0])


# ------------------------------------------------------------------------------------------------------- identities


@every_sde
@builders(EXPONENTIAL)
def test_exponential_tables_are_exact_on_a_point_mass(build: Callable[..., Table], sde: scoresde.SDE) -> None:
    """Up to the rounding of weights that cancel, as a table itself demands."""
    for grid in ("t", "lambda", "karras"):
        for n in (2, 7, 25):
            table = build(sde, make_grid(grid, sde, n, "zero"))
            size = max(sum(map(abs, row.b)) for row in table.rows)
            assert table.exact or table.space == "eps"
            assert table.defect <= 1e-12 * max(1.0, size) or not table.exact


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("build, order", [(heun, 2), (midpoint, 2), (rk4, 4), (sheun, 2)])
def test_the_defect_of_inexact_tables_vanishes_at_its_rate(build: Callable[..., Table], order: int, name: str) -> None:
    defects = [build(SDES[name], make_grid("lambda", SDES[name], n)).defect for n in (50, 100)]
    assert math.log2(defects[0] / defects[1]) == pytest.approx(order, abs=0.25)
    assert not build(SDES[name], make_grid("lambda", SDES[name], 2)).exact


# ----------------------------------------------------------------------------------------------------------- orders


@cache
def reference(name: str) -> torch.Tensor:
    """The flow's end at t_min, nine digits of it, by the classical method in φ."""
    sde = SDES[name]
    return runge_kutta(sde, make_grid("phi", sde, 200), KUTTA).run(mixture().denoiser(sde), start(sde, X))[0]


def slope(build: Callable[..., Table], name: str, n: int, grid: str) -> float:
    sde, errors = SDES[name], []
    for steps in (n, 2 * n):
        out, _ = build(sde, make_grid(grid, sde, steps)).run(mixture().denoiser(sde), start(sde, X))
        errors.append(float((out - reference(name)).abs().mean()))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("build, order", ORDERS.items(), ids=[build.__name__ for build in ORDERS])
def test_declared_orders(build: Callable[..., Table], order: int, name: str) -> None:
    table = build(SDES[name], make_grid("lambda", SDES[name], 3))
    assert table.order == table.order_with_start == order
    n, grid = (40, "lambda") if table.exact else (20 if order == 4 else 40, "phi")
    assert slope(build, name, n, grid) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("r1", [0.3, 0.8])
@builders([dpm2s, dpmpp_2s])
def test_any_r1_keeps_the_order(build: Callable[..., Table], r1: float) -> None:
    assert slope(partial(build, r1=r1), "vp", 60, "lambda") == pytest.approx(2, abs=0.2)


def test_a_tableau_of_ones_own_is_one_line() -> None:
    ralston = Tableau(2, (0, 2 / 3), ((2 / 3,),), (1 / 4, 3 / 4))
    for tableau, order in ((ralston, 2), (TABLEAUX["heun3"], 3)):
        build = partial(runge_kutta, tableau=tableau)
        assert slope(build, "edm", 40, "phi") == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", CONTINUOUS)
@builders([heun, dpm2s, dpm3s])
def test_upward_they_encode(build: Callable[..., Table], name: str) -> None:
    """Up the flow from t_min and down again: back to the start, with an error that falls with the steps."""
    sde, denoiser = SDES[name], mixture().denoiser(SDES[name])
    x = torch.randn(X, dtype=F64, generator=torch.Generator().manual_seed(0))
    errors: list[float] = []
    for n in (15, 60):
        down = make_grid("phi", sde, n)
        up, _ = build(sde, down[::-1]).run(denoiser, x)
        errors.append(float((build(sde, down).run(denoiser, up)[0] - x).abs().mean()))
    assert errors[1] < 0.02 and errors[1] < errors[0] / 4


# ------------------------------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("eta, name", [(0.5, "vp"), *((1.0, name) for name in SDES)])
@builders([dpm2a, dpmpp_2sa, dpmpp_sde])
def test_the_output_law_converges_at_second_order(build: Callable[..., Table], eta: float, name: str) -> None:
    sde = SDES[name]
    coarse, fine = (law_error(build(sde, make_grid("lambda", sde, n), eta=eta), sde) for n in (30, 60))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.25) and fine < 0.06


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_law_of_stochastic_heun_converges_at_second_order(name: str) -> None:
    sde = SDES[name]
    coarse, fine = (law_error(sheun(sde, make_grid("lambda", sde, n)), sde) for n in (100, 200))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.3) and fine < 5e-3


# ------------------------------------------------------------------------------------------------- few and odd steps


@every_sde
@builders([heun, midpoint, rk4, *EXPONENTIAL, sheun])
def test_any_number_of_steps_is_finite_with_the_documented_calls(
    build: Callable[..., Table], sde: scoresde.SDE
) -> None:
    calls = CALLS.get(build, 2)
    for n in (1, 2, 3, 7):  # a table with a coefficient that is not finite cannot exist
        zero = build(sde, make_grid("phi", sde, n, "zero"))
        assert zero.nfe == calls * (n - 1) + 1 and not zero.rows[-1].c
        assert build(sde, make_grid("lambda", sde, n, "t_min")).nfe == calls * n
    assert build(sde, make_grid("t", sde, 2, "denoise")).nfe == calls * 2 + 1
    x, draws = start(sde, (2, 2)), Draws()
    uneven = (sde.t_max, 0.9 * sde.t_max, 0.1 * sde.t_max, 0.09 * sde.t_max, 0.0)
    table = build(sde, uneven)
    out, used = table.run(mixture().denoiser(sde), x, draws)
    assert table.times == uneven and used == table.nfe and out.isfinite().all()
    assert len(draws.given) == {dpmpp_sde: 6, dpm2a: 3, dpmpp_2sa: 3, sheun: 3}.get(build, 0)


@builders([heun, midpoint, rk4, dpmpp_2s, dpmpp_3s, dpmpp_2sa, dpmpp_sde])
def test_pure_noise_is_left_by_one_step(build: Callable[..., Table]) -> None:
    """From α = 0 data-space steps are of first order, in angle nothing is special; both are right in law."""
    sde = scoresde.DDPM.named("linear", 100, zero_terminal_snr=True)
    table = build(sde, make_grid("index", sde, 20, "zero"))
    assert table.defect <= (1e-12 if table.exact else 0.02)


# -------------------------------------------------------------------------------------------------------- bad input


def test_what_they_refuse() -> None:
    sde, zero = scoresde.VPSDE(), scoresde.DDPM.named("linear", zero_terminal_snr=True)
    for build in (dpm2s, dpmpp_2s, dpmpp_sde):
        for r1 in (0.0, 1.0, math.nan):
            with pytest.raises(BadInput, match=r"r1 = .* must be in \(0, 1\)"):
                build(sde, (1.0, 0.5), r1=r1)
    for build in (dpm2a, dpmpp_2sa, dpmpp_sde):
        with pytest.raises(BadInput, match=r"eta = 1\.5"):
            build(sde, (1.0, 0.5), eta=1.5)
    for build in (dpm2s, dpm3s, dpm2a):
        with pytest.raises(BadInput, match="pure noise"):
            build(zero, (1.0, 0.5))
    with pytest.raises(BadInput, match="sheun: no signal"):
        sheun(zero, (1.0, 0.5))
    for build in STOCHASTIC:
        with pytest.raises(BadInput, match="draws noise"):
            build(sde, (1.0, 0.5)).run(mixture().denoiser(sde), start(sde, (2, 2)))


def options(build: Callable[..., Table]) -> set[str]:
    return {p.name for p in inspect.signature(build).parameters.values() if p.kind is p.KEYWORD_ONLY}


def test_only_what_a_user_may_set_is_an_option() -> None:
    assert {
        build.__name__: options(build) for build in (*EXPONENTIAL, heun, midpoint, rk4, sheun) if options(build)
    } == {
        "dpm2s": {"r1"},
        "dpmpp_2s": {"r1"},
        "dpm2a": {"eta"},
        "dpmpp_2sa": {"eta"},
        "dpmpp_sde": {"eta", "r1"},
    }
