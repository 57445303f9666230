"""Langevin steps by both rules: score_sde's corrector as published, its limit in many dimensions, and its loop."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from exact import F64, GAUSSIAN, SDES, law_error, mixture, start
from test_tables import ddpm_chain
from torch.utils._python_dispatch import TorchDispatchMode

import scoresde
from scoresde import SAMPLERS, BadInput, Table
from scoresde.grids import make_grid
from scoresde.samplers import plan_run
from scoresde.samplers.edm import edm
from scoresde.samplers.langevin import PREDICTORS, NormLangevin, langevin, langevin_row, pc
from scoresde.samplers.multistep import exponential_multistep
from scoresde.samplers.runge_kutta import sheun
from scoresde.samplers.sde_steps import cas, ddpm
from scoresde.samplers.solver import Solver

VP, VE = SDES["vp"], SDES["ve"]
ONE_EPS_STEP = partial(exponential_multistep, order=1, space="eps")


def noises(shape: tuple[int, ...], count: int = 100) -> torch.Tensor:
    return torch.randn(count, *shape, dtype=F64, generator=torch.Generator().manual_seed(1))


def run(solver: Solver, x: torch.Tensor, z: torch.Tensor, denoiser: scoresde.Denoiser) -> torch.Tensor:
    """The solver's end when its k-th draw is z[k]."""
    draws = iter(z)
    return solver.run(denoiser, x, lambda step, draw, x: next(draws))[0]


def score_sde_step(x: torch.Tensor, score: torch.Tensor, z: torch.Tensor, snr: float, alpha: float) -> torch.Tensor:
    """Song et al. 2021, algorithms 4 and 5 (α of the chain, 1 under VE), norms averaged over the batch as published."""
    grad_norm, noise_norm = (v.reshape(len(v), -1).norm(dim=1).mean() for v in (score, z))
    size = 2 * alpha * (snr * noise_norm / grad_norm) ** 2
    return x + size * score + (2 * size).sqrt() * z


# ----------------------------------------------------------------------------------------------------------- norm rule


def test_norm_rule_equals_score_sdes_sampler_on_a_chain() -> None:
    """Algorithm 3, ancestral steps (eq. 4) and correctors on a DDPM chain, from its betas alone."""
    chain, bar, index, denoiser = ddpm_chain(40, 1)
    x, draws, snr = start(chain, (5, 2)), noises((5, 2), 120), 0.17
    expected, z = x, iter(draws)

    def score(x: torch.Tensor, n: int) -> torch.Tensor:
        return -denoiser.network(x, torch.full((len(x),), n - 1.0, dtype=F64)) / float(np.sqrt(1 - bar[n]))

    for n in index[:-2]:
        beta = float(1 - bar[n] / bar[n - 1])
        expected = (expected + beta * score(expected, n)) / math.sqrt(1 - beta) + math.sqrt(beta) * next(z)
        for _ in range(2):
            alpha = float(bar[n - 1] / bar[n - 2])
            expected = score_sde_step(expected, score(expected, n - 1), next(z), snr, alpha)
    solver = pc(chain, tuple(i / 40 for i in index[:-1]), correctors=2, snr=snr, rule="norm", variance="upper")
    out = run(solver, x, draws, denoiser)
    assert (out - expected).abs().max() < 1e-10 * float(expected.abs().max())


@pytest.mark.parametrize("prediction", ["x0", "eps"])
def test_norm_rule_equals_score_sdes_sampler_under_ve(prediction: str) -> None:
    """Algorithm 2 for VE: reverse diffusion and correctors, then NCSN's levels with the same corrector alone."""
    denoiser = mixture().denoiser(VE, prediction)
    times, draws = make_grid("lambda", VE, 8, "t_min"), noises((5, 2))
    sigma, x, snr = VE.knots(times).sigma.tolist(), start(VE, (5, 2)), 0.16
    expected, z = x, iter(draws)
    for k in range(8):
        gap = sigma[k] ** 2 - sigma[k + 1] ** 2
        expected = expected + gap * denoiser.score(expected, times[k]) + math.sqrt(gap) * next(z)
        expected = score_sde_step(expected, denoiser.score(expected, times[k + 1]), next(z), snr, 1.0)
    out = run(pc(VE, times, predictor="reverse-diffusion", snr=snr, rule="norm"), x, draws, denoiser)
    assert (out - expected).abs().max() < 1e-9 * float(expected.abs().max())

    expected, z = x, iter(draws)
    for t in times[:-1]:
        for _ in range(3):
            expected = score_sde_step(expected, denoiser.score(expected, t), next(z), snr, 1.0)
    out = run(langevin(VE, times, repeats=3, step=2 * snr**2, rule="norm"), x, draws, denoiser)
    assert (out - expected).abs().max() < 1e-9 * float(expected.abs().max())


@pytest.mark.parametrize("name", SDES)
def test_the_rules_agree_in_many_dimensions_where_the_score_is_the_noise(name: str) -> None:
    """On a point in 4096 dimensions ‖z‖ and σ‖s‖ are sqrt(d) to a percent, and the factor a_t is nearly 1."""
    sde, d = SDES[name], 4096
    denoiser = scoresde.Empirical(torch.linspace(-1, 1, d, dtype=F64).unsqueeze(0)).denoiser(sde)
    times, z, state = make_grid("phi", sde, 6, "t_min"), noises((4, d), 12), start(sde, (4, d))
    expected, norm = pc(sde, times, snr=0.2), pc(sde, times, snr=0.2, rule="norm")
    assert isinstance(expected, Table)
    for i, interval in enumerate(norm.iterate(denoiser, state, lambda step, draw, x: z[step])):
        alone = dataclasses.replace(expected, rows=expected.rows[2 * i : 2 * i + 2])  # from where norm's began
        other = run(alone, state, z[2 * i : 2 * i + 2], denoiser)
        sigma = float(sde.knots([interval.t_next]).sigma[0])
        assert 0 < float((interval.x - other).square().mean().sqrt()) < 0.03 * sigma
        state = interval.x


def test_on_wide_data_the_norm_rule_takes_longer_steps() -> None:
    """On N(0, S) the score has norm sqrt(d/V), V = S + σ²: the norm rule's ε is 2 snr² V, not 2 snr² σ²."""
    d, t, snr, S = 4096, 0.4, 0.1, 2.0
    sde, data = VE, scoresde.Gaussian(torch.zeros(1, dtype=F64), torch.tensor([[S]], dtype=F64))
    sigma2 = float(sde.knots([t]).sigma[0]) ** 2
    V = S + sigma2
    x, z = math.sqrt(V) * noises((2, d), 1)[0], noises((2, d), 2)[1:]
    network = data.network(sde, "x0")
    denoiser = scoresde.Denoiser(lambda x, t: network(x.reshape(-1, 1), t[:1]).reshape(x.shape), sde, "x0")
    table = Table(sde, "x0", (langevin_row(sde, t, 2 * snr**2, True),))
    longer = Table(sde, "x0", (langevin_row(sde, t, 2 * snr**2 * V / sigma2, True),))
    moved, expected = (run(solver, x, z, denoiser) - x for solver in (NormLangevin(table), longer))
    assert (moved - expected).norm() < 0.03 * expected.norm()
    assert (run(table, x, z, denoiser) - x).norm() < 0.5 * expected.norm()


def test_by_the_norm_rule_a_sample_depends_on_its_batch() -> None:
    """As published; the expected rule, the default, does not have it."""
    times, x = make_grid("phi", VP, 6, "zero"), start(VP, (8, 2))
    for rule, depends in (("norm", True), ("expected", False)):
        solver, z = pc(VP, times, rule=rule), noises((8, 2))
        whole, part = (run(solver, x[:n], z[:, :n], mixture().denoiser(VP)) for n in (8, 3))
        assert bool((whole[:3] - part).abs().max() > 1e-3) == depends


# ------------------------------------------------------------------------------------------------------------ the loop


@pytest.mark.parametrize("name", [*PREDICTORS, "eps space", "learned variance"])
def test_rows_that_are_no_langevin_steps_run_as_in_the_table(name: str) -> None:
    """Without correctors the solver is the table, with a learned variance too, and so are its intervals."""
    times, x, z = make_grid("phi", VP, 7, "zero"), start(VP, (3, 2, 4)), noises((3, 2, 4))
    network = lambda x, t: torch.tanh(x * (1 + t[:, None, None]))  # noqa: E731
    denoiser = scoresde.Denoiser(network, VP, "x0")
    if name == "learned variance":
        denoiser = scoresde.Denoiser(lambda x, t: torch.cat([network(x, t), x.cos()], 1), VP, learned_variance=True)
    table = {**PREDICTORS, "eps space": ONE_EPS_STEP, "learned variance": ddpm}[name](VP, times)
    solver = NormLangevin(table)
    assert (run(solver, x, z, denoiser) - run(table, x, z, denoiser)).abs().max() < 1e-12
    how = {"noise": lambda step, draw, x: z[step]}
    for ours, theirs in zip(solver.iterate(denoiser, x, **how), table.iterate(denoiser, x, **how), strict=True):
        assert ours[:3] == theirs[:3] and ours.nfe == theirs.nfe
        assert (ours.x0 - theirs.x0).abs().max() < 1e-11


def test_the_solver_is_a_value_with_the_tables_grid_and_calls() -> None:
    times = make_grid("phi", VP, 5, "zero")
    table, solver = pc(VP, times, correctors=2), pc(VP, times, correctors=2, rule="norm")
    assert dataclasses.is_dataclass(solver) and solver.__dataclass_params__.frozen
    assert solver.times == table.times == times and solver.nfe == table.nfe == 5 + 2 * 4
    seen: list[int] = []
    denoiser = scoresde.Denoiser(lambda x, t: seen.append(1) or torch.tanh(x), VP)
    out = [solver.run(denoiser, start(VP, (3, 2)), lambda step, draw, x: noises((3, 2))[step]) for _ in range(2)]
    assert torch.equal(out[0][0], out[1][0]) and out[0][1] == solver.nfe == len(seen) // 2
    with pytest.raises(BadInput, match="draws noise"):
        solver.run(denoiser, start(VP, (3, 2)))


class Reads(TorchDispatchMode):
    """Scalar reads, and the floating dtypes that operations create."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.dtypes, self.on = 0, set(), False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.on:
            self.reads += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
            self.dtypes |= {v.dtype for v in (out if isinstance(out, tuple) else (out,)) if isinstance(v, torch.Tensor)}
        return out


@pytest.mark.parametrize("build", [partial(pc, correctors=2), partial(langevin, repeats=2)], ids=["pc", "langevin"])
def test_the_norm_rule_reads_nothing_from_the_device(build: partial[Any]) -> None:
    """From the first call to the last, all is float32 arithmetic on the device's own tensors."""
    watch, z = Reads(), noises((2, 3)).float()

    def network(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        watch.on = True
        return torch.tanh(x)

    solver = build(VP, make_grid("phi", VP, 6, "zero"), rule="norm")
    with watch:
        x, _ = solver.run(scoresde.Denoiser(network, VP), start(VP, (2, 3)).float(), lambda step, draw, x: z[step])
        watch.on = False
    assert watch.reads == 0 and watch.dtypes == {torch.float32} and torch.isfinite(x).all()


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("rule", ["expected", "norm"])
def test_any_number_of_steps_under_any_sde(rule: str, sde: scoresde.SDE) -> None:
    for n in (1, 2, 3, 7):
        for final in ("zero", "t_min"):
            for build, grid in ((pc, "phi"), (langevin, "lambda")):
                solver = build(sde, make_grid(grid, sde, n, final), rule=rule)
                out = run(solver, start(sde, (3, 2)), noises((3, 2)), mixture().denoiser(sde))
                assert torch.isfinite(out).all() and len(solver.times) == n + 1


# ------------------------------------------------------------------------------------------------------------ expected


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_a_langevin_row_is_one_step_in_either_space(sde: scoresde.SDE) -> None:
    """x + ε s + sqrt(2ε) z with ε = step σ²."""
    t, x, z = 0.4 * sde.t_max, start(sde, (4, 2)), noises((4, 2))
    denoiser, sigma = mixture().denoiser(sde), float(sde.knots([t]).sigma[0])
    size = 0.1 * sigma**2
    expected = x + size * denoiser.score(x, t) + math.sqrt(2 * size) * z[0]
    for space in ("x0", "eps"):
        out = run(Table(sde, space, (langevin_row(sde, t, 0.1, True, space),)), x, z, denoiser)
        assert (out - expected).abs().max() < 1e-9 * float(expected.abs().max())


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_pc_with_every_predictor_approaches_the_data(predictor: str) -> None:
    """The exact law of its output on Gaussian data: a corrector's bias, of order snr², vanishes with σ; the predictor's
    with n, which of second order are below it from the first."""
    errors = []
    for n in (60, 240):
        errors.append(law_error(pc(VP, make_grid("phi", VP, n, "zero"), predictor=predictor), VP))
    assert errors[1] < max(0.5 * errors[0], 0.16**2 / 4) and errors[1] < 0.06


@pytest.mark.parametrize("predictor", ["ddpm", "em", "reverse-diffusion"])
def test_a_corrector_is_worth_its_calls_against_an_error_of_scale(predictor: str) -> None:
    """At equal calls, in the exact law: a network 5 % off draws nearer to the data with correctors than without."""

    def error(sampler: str, scale: float, **options: Any) -> float:
        network = GAUSSIAN.network(VP, "eps")
        denoiser = scoresde.Denoiser(lambda x, t: scale * network(x, t), VP, "eps")
        solver, _ = plan_run(VP, SAMPLERS[sampler], nfe=600, options=options)
        return law_error(solver, VP, GAUSSIAN, denoiser)

    for scale in (0.95, 1.05):
        assert error("pc", scale, predictor=predictor) < 0.8 * error(predictor, scale)


def test_stochastic_heun_is_a_predictor_of_two_calls_a_step() -> None:
    errors = []
    for predictor, calls in (("sheun", 120), ("ddpm", 60)):
        table = pc(VP, make_grid("lambda", VP, 60, "t_min"), predictor=predictor, correctors=2)
        assert isinstance(table, Table) and table.nfe == calls + 2 * 60
        errors.append(law_error(table, VP))
    assert errors[0] < 0.5 * errors[1]
    whole = pc(VP, make_grid("phi", VP, 60, "zero"), predictor="sheun")
    assert whole.nfe == 2 * 60 - 1 + 59


@pytest.mark.parametrize("predictor", ["sheun", edm])
def test_the_norm_rule_after_a_step_of_two_calls(predictor: Any) -> None:
    """Step by step: the predictor's own rows, then score_sde's corrector at its end."""
    denoiser, times, snr = mixture().denoiser(VE), make_grid("lambda", VE, 6, "t_min"), 0.16
    solver, z = pc(VE, times, predictor=predictor, snr=snr, rule="norm"), noises((5, 2))
    alone = (sheun if predictor == "sheun" else predictor)(VE, times)
    expected, row, k = start(VE, (5, 2)), 0, 0
    for t in times[1:]:
        expected = run(dataclasses.replace(alone, rows=alone.rows[row : row + 2]), expected, z[k:], denoiser)
        row, k = row + 2, k + alone.stochastic
        expected, k = score_sde_step(expected, denoiser.score(expected, t), z[k], snr, 1.0), k + 1
    assert solver.nfe == 3 * 6
    out = run(solver, start(VE, (5, 2)), z, denoiser)
    assert (out - expected).abs().max() < 1e-9 * float(expected.abs().max())


def test_predictors_by_name_or_as_builders_are_one() -> None:
    times = make_grid("phi", VP, 6, "zero")
    rows = pc(VP, times, predictor=partial(cas, power=2.0)).rows
    for row, same in zip(rows, pc(VP, times).rows, strict=True):
        assert (row.a, *row.b, *row.c) == pytest.approx((same.a, *same.b, *same.c), rel=1e-9, abs=1e-13)


def test_what_is_refused() -> None:
    times = (1.0, 0.5, 0.2, 0.1)
    with pytest.raises(BadInput, match=r"unknown rule 'norms'.*did you mean 'norm'"):
        pc(VP, times, rule="norms")
    with pytest.raises(BadInput, match="unknown rule 'exact': choose from expected, norm"):
        langevin(VP, times, rule="exact")
    with pytest.raises(BadInput, match="did you mean 'reverse-diffusion'"):
        pc(VP, times, predictor="reverse_diffusion")
    with pytest.raises(BadInput, match="'cas' has no option 'eta'"):
        pc(VP, times, predictor="cas", eta=0.5)
    assert pc(VP, times, predictor=edm).nfe == 6 + 3  # Heun's two calls, then the corrector's
