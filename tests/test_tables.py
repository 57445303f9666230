"""Tables: the identities they must satisfy, the textbook recursions they must equal, the orders they must reach."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from exact import F64, SDES, TABLES, mixture, start

import scoresde
from scoresde import SAMPLERS, BadInput, Table
from scoresde.grids import GRIDS, make_grid
from scoresde.samplers.langevin import langevin_row, pc
from scoresde.samplers.multistep import exponential_multistep

EXACT = [name for name in TABLES if SAMPLERS[name].build(SDES["vp"], (1.0, 0.5, 0.01, 0.0)).exact]


def net(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Any smooth nonlinear network: a recursion must agree for all of them."""
    return torch.tanh(x * (1 + label[:, None]) + 0.3)


# ------------------------------------------------------------------------------------------------------- identities


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("name", EXACT)
def test_exact_tables_are_exact_on_a_point_mass(name: str, sde: scoresde.SDE) -> None:
    """To the rounding of the weights that have to cancel; one step over the whole of the noise may renounce it."""
    build = SAMPLERS[name].build
    assert build
    ends = ("zero", "t_min")
    for grid, final, n in [*product(GRIDS, ends, [7]), *product(["phi"], ends, [1]), *product(["lambda"], ends, [53])]:
        table = build(sde, make_grid(grid, sde, n, final))
        assert isinstance(table, Table) and (table.exact or n < 7)
        if table.exact:
            assert table.defect <= 1e-12 * max(1.0, *(sum(map(abs, row.b)) for row in table.rows))


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_exponential_multistep_is_exact_for_any_order_and_stochasticity(order: int, eta: float) -> None:
    sde = scoresde.VPSDE()
    table = exponential_multistep(sde, make_grid("lambda", sde, 20, "zero"), order=order, eta=eta)
    assert table.exact and table.defect <= 1e-12
    if not eta:
        up = exponential_multistep(sde, tuple(reversed(make_grid("phi", sde, 20))), order=order, space="eps")
        assert up.defect <= 1e-12


def test_a_wrong_table_cannot_be_built() -> None:
    rows = SAMPLERS["ddim"].build(SDES["vp"], (1.0, 0.5, 0.1)).rows
    broken = (rows[0], type(rows[1])(rows[1].t, rows[1].t_next, rows[1].a, (rows[1].b[0] * (1 + 1e-9),)))
    with pytest.raises(BadInput, match="point-mass"):
        Table(SDES["vp"], "x0", broken, exact=True)


@pytest.mark.parametrize("name, rate", [("em", 1.0), ("pc", 0.0)])
def test_the_defect_of_inexact_tables_vanishes_at_its_rate(name: str, rate: float) -> None:
    sde = scoresde.VPSDE()
    grids = [make_grid("t", sde, n, "t_min") for n in (500, 1000, 2000)]
    defects = [
        SAMPLERS[name].build(sde, times, **({"predictor": "em"} if name == "pc" else {})).defect for times in grids
    ]
    assert defects[-1] < 0.2
    if rate:
        assert math.log2(defects[1] / defects[2]) == pytest.approx(rate, abs=0.15)


# -------------------------------------------------------------------------------------------------------- textbooks


def ddpm_chain(n: int, stride: int) -> tuple[scoresde.DDPM, np.ndarray, list[int], scoresde.Denoiser]:
    chain = scoresde.DDPM.named("linear", n)
    bar = np.concatenate([[1.0], np.cumprod(1 - np.asarray(chain.betas, dtype=np.longdouble))])  # 1 - ᾱ cancels
    exact = mixture().network(chain, "eps")

    def network(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:  # told of step n, as DDPM's networks are
        return exact(x, (index + 1) / n)

    return chain, bar, list(range(n, -1, -stride)), scoresde.Denoiser(network, chain, "eps", time="index")


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("stride", [1, 20])
def test_ddim_equals_the_papers_recursion(eta: float, stride: int) -> None:
    """Song et al. 2021b, eq. 12 and 16, from ᾱ alone."""
    chain, bar, index, denoiser = ddpm_chain(200, stride)
    x = start(chain, (3, 2))
    draws = torch.randn(len(index), 3, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected = x
    for i, (now, then) in enumerate(pairwise(index)):
        eps = denoiser.network(expected, torch.full((3,), now - 1.0, dtype=F64))
        x0 = (expected - float(np.sqrt(1 - bar[now])) * eps) / float(np.sqrt(bar[now]))
        s = eta * np.sqrt((1 - bar[then]) / (1 - bar[now])) * np.sqrt(1 - bar[now] / bar[then])
        rest = float(np.sqrt(max(0.0, 1 - bar[then] - s**2)))
        expected = float(np.sqrt(bar[then])) * x0 + rest * eps + float(s) * draws[i]
    times = [i / 200 for i in index]
    out = scoresde.sample(denoiser, (3, 2), "ddim", x=x, grid=times, noise=lambda i, j, x: draws[i], dtype=F64, eta=eta)
    assert (out.x - expected).abs().max() < 1e-12 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("variance", ["posterior", "upper"])
def test_ancestral_sampling_equals_ddpm(variance: str) -> None:
    """Ho et al. 2020, algorithm 2 with eq. 6-7 (posterior) or σ² = β (upper), from the betas alone."""
    chain, bar, index, denoiser = ddpm_chain(200, 1)
    betas = np.concatenate([[0.0], chain.betas])
    x = start(chain, (3, 2))
    draws = torch.randn(len(index), 3, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected = x
    for i, n in enumerate(index[:-1]):
        eps = denoiser.network(expected, torch.full((3,), n - 1.0, dtype=F64))
        mean = (expected - float(betas[n] / np.sqrt(1 - bar[n])) * eps) / math.sqrt(1 - betas[n])
        var = betas[n] * ((1 - bar[n - 1]) / (1 - bar[n]) if variance == "posterior" else 1.0)
        expected = mean + (math.sqrt(var) * draws[i] if n > 1 else 0.0)
    options = {"grid": [i / 200 for i in index], "noise": lambda i, j, x: draws[i], "variance": variance}
    out = scoresde.sample(denoiser, (3, 2), "ddpm", x=x, dtype=F64, **options)
    assert (out.x - expected).abs().max() < 1e-12 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_dpmpp_2m_equals_the_papers_recursion(sde: scoresde.SDE) -> None:
    """Lu et al. 2022b, algorithm 2."""
    denoiser = scoresde.Denoiser(net, sde, "x0")
    times = make_grid("lambda", sde, 12, "t_min")
    at, x = sde.knots(times), start(sde, (3, 2))
    expected, older, h_old = x, None, 0.0
    for i in range(12):
        D = net(expected, torch.full((3,), times[i], dtype=F64))
        h = at.lam[i + 1] - at.lam[i]
        r = h_old / h
        mixed = D if older is None else (1 + 1 / (2 * r)) * D - 1 / (2 * r) * older
        expected = at.sigma[i + 1] / at.sigma[i] * expected - at.alpha[i + 1] * math.expm1(-h) * mixed
        older, h_old = D, h
    out = scoresde.sample(denoiser, (3, 2), "dpm++2m", x=x, grid=times, dtype=F64).x
    assert (out - expected).abs().max() < 1e-12 * float(expected.abs().max())


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_names_for_one_thing_are_one_thing(sde: scoresde.SDE) -> None:
    """DDIM is Euler in σ/α; its two spaces agree; η = 1 is the ancestral chain."""
    denoiser, x = mixture().denoiser(sde), start(sde, (4, 2))
    times = make_grid("lambda", sde, 9, "t_min")
    ddim = scoresde.sample(denoiser, (4, 2), "ddim", x=x, grid=times, dtype=F64).x
    eps_space, _ = exponential_multistep(sde, times, space="eps").run(denoiser, x)
    at, euler = sde.knots(times), x
    for i in range(9):
        rho = at.sigma[i : i + 2] / at.alpha[i : i + 2]
        slope = denoiser.eps(euler, times[i])
        euler = at.alpha[i + 1] * (euler / at.alpha[i] + (rho[1] - rho[0]) * slope)
    assert (eps_space - ddim).abs().max() < 1e-10 * float(x.abs().max())
    assert (euler - ddim).abs().max() < 1e-10 * float(x.abs().max())
    ancestral = scoresde.sample(denoiser, (4, 2), "ddpm", x=x, grid=times, dtype=F64).x
    assert torch.equal(ancestral, scoresde.sample(denoiser, (4, 2), "ddim", x=x, grid=times, dtype=F64, eta=1.0).x)


# --------------------------------------------------------------------------------------------------------- Langevin


@pytest.mark.parametrize("step", [0.05, 0.3])
@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_langevin_row_has_its_stationary_variance(sde: scoresde.SDE, step: float) -> None:
    """On N(0, V) the chain x + ε s + sqrt(2ε) z is stationary at V / (1 - ε/(2V)), whatever the batch."""
    t, data = 0.3 * sde.t_max, 0.7
    row, at = langevin_row(sde, t, step, True), sde.knots([t])
    alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
    V, eps = alpha**2 * data + sigma**2, step * sigma**2
    gain = row.a + row.b[0] * alpha * data / V  # x̂_0 = α S x / V on Gaussian data
    assert row.c[0] ** 2 / (1 - gain**2) == pytest.approx(V / (1 - eps / (2 * V)), rel=1e-6)


@pytest.mark.parametrize("how", [{"variance": "upper"}, {"predictor": "ddim", "eta": 0.5}, {"predictor": "own"}])
def test_pc_takes_any_first_order_predictor_with_its_options(how: dict[str, Any]) -> None:
    """Its intervals are the predictor's own rows, each followed by its correctors; a state in eps space too."""
    sde, times = SDES["vp"], make_grid("phi", SDES["vp"], 5, "zero")
    own = partial(exponential_multistep, order=1, space="eps")
    options = {k: v for k, v in how.items() if k != "predictor"}
    alone = (
        own(sde, times)
        if how.get("predictor") == "own"
        else SAMPLERS[how.get("predictor", "ddpm")].build(sde, times, **options)
    )
    table = pc(sde, times, **{**how, **({"predictor": own} if how.get("predictor") == "own" else {})}, correctors=2)
    steps = [row for row in table.rows if row.t_next != row.t]
    assert [(row.a, row.b, row.c) for row in steps] == [(row.a, row.b, row.c) for row in alone.rows]
    assert table.times == alone.times and table.nfe == 5 + 2 * 4


def test_pc_refuses_what_is_no_first_order_predictor() -> None:
    sde, times = SDES["vp"], (1.0, 0.5, 0.2, 0.1)
    with pytest.raises(BadInput, match="'em' has no option 'eta'"):
        pc(sde, times, predictor="em", eta=0.5)
    with pytest.raises(BadInput, match="'eab2' uses outputs of earlier steps"):
        pc(sde, times, predictor=SAMPLERS["eab2"].build)
    with pytest.raises(BadInput, match="'ode' is no table"):
        pc(sde, times, predictor=SAMPLERS["ode"].build)


# -------------------------------------------------------------------------------------------------------- bad input


def test_what_a_table_refuses() -> None:
    sde, zero = scoresde.VPSDE(), scoresde.DDPM.named("linear", zero_terminal_snr=True)
    with pytest.raises(BadInput, match=r"eta = 1\.5"):
        SAMPLERS["ddim"].build(sde, (1.0, 0.5), eta=1.5)
    with pytest.raises(BadInput, match="x0 space"):
        exponential_multistep(sde, (1.0, 0.5), space="eps", eta=0.5)
    with pytest.raises(BadInput, match="pure noise"):
        exponential_multistep(zero, (1.0, 0.5), space="eps")
    with pytest.raises(BadInput, match="correctors = 0"):
        SAMPLERS["pc"].build(sde, (1.0, 0.5), correctors=0)
    with pytest.raises(BadInput, match=r"snr = 1\.5"):
        SAMPLERS["pc"].build(sde, (1.0, 0.5), snr=1.5)
    with pytest.raises(BadInput, match="did you mean 'posterior'"):
        SAMPLERS["ddpm"].build(sde, (1.0, 0.5), variance="posteriour")
    with pytest.raises(BadInput, match=r"step = 2\.0"):
        SAMPLERS["langevin"].build(sde, (1.0, 0.5), step=2.0)
    with pytest.raises(BadInput, match="draws noise"):
        SAMPLERS["ddpm"].build(sde, (1.0, 0.5)).run(mixture().denoiser(sde), start(sde, (2, 2)))


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_zero_terminal_snr_starts_from_pure_noise(prediction: str) -> None:
    """The first step from α = 0 is finite for v and x0 networks and lands in law on a point mass."""
    sde = scoresde.DDPM.named("linear", 100, zero_terminal_snr=True)
    table = SAMPLERS["eab2"].build(sde, make_grid("index", sde, 10, "zero"))
    assert table.defect <= 1e-12
    gaussian = scoresde.Gaussian(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    denoiser = scoresde.Denoiser(gaussian.network(sde, prediction), sde, prediction)
    assert torch.isfinite(scoresde.sample(denoiser, (4, 2), "ddim", 10, grid="index", dtype=F64).x).all()
