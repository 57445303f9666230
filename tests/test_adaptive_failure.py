"""Runs with steps of their own that cannot finish: told with what is known of it, or ended where they are."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from exact import F64, mixture, start
from test_adaptive import EVERY, FLOWS, PAIRS, STUCK, VP, build, ends, reference, rough, uneven

import scoresde
from scoresde import BadInput, SolverFailure
from scoresde.grids import make_grid
from scoresde.noise import SeededNoise
from scoresde.samplers import ode
from scoresde.samplers.adaptive import dpm_adaptive, rk45, sde_adaptive
from scoresde.samplers.ode import STEPPING, ode_adaptive


@pytest.mark.parametrize("solver", EVERY)
def test_a_network_that_returns_nan_is_named_at_first_sight(solver: str) -> None:
    calls: list[float] = []

    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(float(t.min()))
        return torch.where((t < 0.1).reshape(-1, 1) & (x[:, :1] > -1e9), math.nan, torch.tanh(3 * x))

    with pytest.raises(SolverFailure, match=r"NaN or infinity at t = 0\.0\d+ \((sample \d+, )?call \d+\)$"):
        build(solver).run(scoresde.Denoiser(broken, VP, "x0"), start(VP, (3, 2)), SeededNoise(0, range(3)))
    assert min(calls) == calls[-1] < 0.1 and sum(t < 0.1 for t in calls) == 1


@pytest.mark.parametrize("solver", EVERY)
def test_too_many_calls_say_where_and_what_would_help(solver: str) -> None:
    run, rows = build(solver, max_nfe=20, rtol=1e-4, atol=1e-4), []
    inner = mixture().network(VP, "v")
    denoiser = scoresde.Denoiser(lambda x, t: rows.append(len(x)) or inner(x, t), VP, "v")
    with pytest.raises(SolverFailure, match=r"20 network calls reached.*" + STUCK) as caught:
        run.run(denoiser, start(VP, (3, 2)), SeededNoise(0, range(3)))
    assert "\n" not in str(caught.value) and sum(rows) <= 3 * 20


@pytest.mark.parametrize("solver", EVERY)
def test_on_limit_return_gives_what_was_reached(solver: str) -> None:
    """Finite samples, and a last interval without length that says when they are."""
    tol = 0.05 if solver == "sde" else 1e-4
    run = dataclasses.replace(build(solver, rtol=tol, atol=tol, on_limit="return"), times=(*ends(VP), 0.0))
    x, noise = start(VP, (3, 2)), SeededNoise(0, range(3))
    for max_nfe in (1, 30):
        run = dataclasses.replace(run, max_nfe=max_nfe)
        *_, last = run.iterate(mixture().denoiser(VP), x, noise)
        assert last.t == last.t_next > VP.t_min and last.nfe <= max_nfe and torch.isfinite(last.x).all()
        out, calls = run.run(mixture().denoiser(VP), x, noise)
        assert torch.equal(out, last.x) and calls == last.nfe
        assert (last.t == VP.t_max) == torch.equal(last.x, x)
    enough = dataclasses.replace(run, max_nfe=2000)
    *_, last = enough.iterate(mixture().denoiser(VP), x, noise)
    assert last.t_next == 0.0


@pytest.mark.parametrize("solver", FLOWS)
def test_on_limit_return_stops_a_hard_sample_alone(solver: str) -> None:
    x, who, denoiser = start(VP, (6, 2)), torch.tensor([0, 0, 1, 0, 0, 0]), uneven(VP, [], Counter())
    free = build(solver, rtol=1e-3).solve(denoiser, x, who=who)
    limit, easy = int(free.nfe[who == 0].max()), who == 0
    assert limit < free.nfe[2]
    done = build(solver, rtol=1e-3, max_nfe=limit, on_limit="return").solve(denoiser, x, who=who)
    assert (done.x[easy] - free.x[easy]).abs().max() < 1e-12 and done.nfe.max() <= limit
    assert done.t[2] > VP.t_min and (done.t[easy] == VP.t_min).all() and torch.isfinite(done.x).all()


def test_a_result_tells_each_samples_calls_and_where_it_stopped() -> None:
    x, who, denoiser = start(VP, (6, 2)), torch.tensor([0, 0, 1, 0, 0, 0]), uneven(VP, [], Counter())
    how = {"sampler": "rk45", "rtol": 1e-3, "x": x, "cond": {"who": who}, "batch_size": 4}
    free = scoresde.sample(denoiser, (6, 2), **how)
    assert len(set(free.nfe_each.tolist())) > 1 and free.nfe == free.nfe_each.max() and (free.t_each == VP.t_min).all()
    limit = int(free.nfe_each[who == 0].max())
    cut = scoresde.sample(denoiser, (6, 2), max_nfe=limit, on_limit="return", **how)
    assert (cut.t_each > VP.t_min).tolist() == (who == 1).tolist() and cut.nfe_each.max() <= limit
    whole = scoresde.sample(denoiser, (6, 2), "ode", x=x, cond={"who": who}, max_nfe=20, on_limit="return")
    assert VP.t_min < whole.t_each[0] < VP.t_max and len(set(whole.t_each)) == 1


@pytest.mark.parametrize(
    "name, how, first, each, refused",  # calls: of the first output, of an attempt, of a refused one
    [
        ("rk45", {"rtol": 1e-5}, 1, 6, 6),
        ("dpm-adaptive", {"rtol": 0.01}, 0, 3, 2),
        ("sde-adaptive", {"rtol": 0.1, "final": "t_min"}, 0, 2, 1),
        ("ode", {"method": "dopri5"}, 2, 6, 6),
        ("ode", {"method": "bosh3", "rtol": 1e-3}, 2, 3, 3),
    ],
)
@pytest.mark.parametrize("final", ["t_min", "denoise"])
def test_steps_taken_and_refused_add_up_to_the_calls(
    name: str, how: dict[str, object], first: int, each: int, refused: int, final: str
) -> None:
    out = scoresde.sample(mixture().denoiser(VP), (5, 2), name, dtype=F64, **{"final": final, **how})
    calls = first + each * out.accepted + refused * out.rejected + (out.times[-1] == 0)
    assert (calls == out.nfe_each).all() and out.rejected.max() > 0 and out.accepted.min() > 0


def test_where_steps_are_not_told_and_where_none_are_refused() -> None:
    out = scoresde.sample(mixture().denoiser(VP), (3, 2), "ode", method="scipy-rk45", dtype=F64)
    assert (out.accepted > 0).all() and out.rejected.tolist() == [-1] * 3
    out = scoresde.sample(mixture().denoiser(VP), (3, 2), "ddim", 7)
    assert out.accepted.tolist() == [7] * 3 and out.rejected.tolist() == [0] * 3
    stopped = scoresde.sample(mixture().denoiser(VP), (3, 2), "ode", max_nfe=20, on_limit="return", dtype=F64)
    assert 2 + 6 * (stopped.accepted + stopped.rejected)[0] <= stopped.nfe <= 20


@pytest.mark.parametrize("on_limit", ["raise", "return"])
@pytest.mark.parametrize("solver", [*PAIRS, "dopri5", "dopri8", "adaptive_heun"])
def test_a_step_below_float32_is_the_end(solver: str, on_limit: str) -> None:
    x = start(VP, (3, 2)).float()
    run, denoiser = (
        build(solver, rtol=1e-8, atol=1e-8, on_limit=on_limit, max_nfe=10**5),
        scoresde.Denoiser(rough, VP, "x0"),
    )
    if on_limit == "raise":
        with pytest.raises(SolverFailure, match=r"too small for torch\.float32.*" + STUCK):
            run.run(denoiser, x, SeededNoise(0, range(3)))
    else:
        *_, last = run.iterate(denoiser, x, SeededNoise(0, range(3)))
        assert last.t_next == last.t > VP.t_min and torch.isfinite(last.x).all()


@pytest.mark.parametrize("solver", [*FLOWS, *STEPPING])
def test_float32_with_a_tolerance_beyond_it_finishes_or_says_why(solver: str) -> None:
    x = start(VP, (16, 2))[:4].float()
    try:
        out, _ = build(solver, rtol=1e-8, atol=1e-8, max_nfe=200).run(mixture().denoiser(VP), x)
    except SolverFailure as failure:
        assert re.search(STUCK, str(failure))
    else:
        assert out.dtype == torch.float32 and (out - reference("vp")[:4]).abs().max() < 1e-3


def test_an_error_of_the_network_stays_its_own() -> None:
    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise AssertionError("mine")

    for solver in EVERY:
        with pytest.raises(AssertionError, match="mine"):
            build(solver).run(scoresde.Denoiser(broken, VP, "x0"), start(VP, (1, 2)), SeededNoise(0, [0]))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rk45(VP, (1.0, 0.5, 0.1)), "rk45 chooses its own steps"),
        (lambda: dpm_adaptive(VP, (1.0, 0.0)), "dpm-adaptive chooses its own steps"),
        (lambda: dpm_adaptive(VP, ends(VP), order=4), "order = 4 must be 2"),
        (lambda: dpm_adaptive(VP, ends(VP), space="v"), "unknown space 'v': choose from eps, x0"),
        (lambda: sde_adaptive(VP, (1e-3, 1.0)), "times must fall"),
        (lambda: rk45(VP, ends(VP), rtol=0.0), r"rtol = 0\.0 must be in"),
        (lambda: sde_adaptive(VP, ends(VP), atol=2.0), r"atol = 2\.0 must be in"),
        (lambda: rk45(VP, ends(VP), max_nfe=0), "max_nfe = 0"),
        (lambda: rk45(VP, ends(VP), on_limit="retrun"), "did you mean 'return'"),
        (lambda: ode_adaptive(VP, ends(VP), on_limit="stop"), "unknown on_limit 'stop'"),
        (lambda: ode_adaptive(VP, ends(VP), method="scipy-rk54"), "did you mean 'scipy-rk45'"),
        (lambda: ode_adaptive(VP, (1.0, 0.0)), "above 0"),
        (lambda: ode.ode(VP, make_grid("lambda", VP, 5), method="explicit_adams"), "equal steps in φ"),
        (lambda: ode.ode(VP, (1.0, 0.5), method="dopri5"), "unknown fixed-step ode method"),
    ],
)
def test_bad_requests(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


@pytest.mark.parametrize("solver", PAIRS)
def test_what_a_denoiser_cannot_give_is_refused_before_the_first_call(solver: str) -> None:
    """Pure noise at t_max: no λ and no rate there, and no v from an eps network."""
    sde, calls = scoresde.DDPM.named("linear", 100, zero_terminal_snr=True), []
    denoiser = scoresde.Denoiser(lambda x, t: calls.append(1) or x, sde, "eps" if solver == "rk45" else "v")
    with pytest.raises(BadInput, match="no signal"):
        build(solver, sde).run(denoiser, start(sde, (2, 2)), SeededNoise(0, range(2)))
    assert not calls
    if solver == "sde":
        with pytest.raises(BadInput, match="draws noise"):
            build(solver).run(mixture().denoiser(VP), start(VP, (2, 2)))
