"""`sample` and `encode`: what may change a result and what may not, for every registered sampler and SDE."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from exact import (
    DETERMINISTIC,
    F64,
    FIXED,
    SDES,
    TABLES,
    documented_nfe,
    few,
    mixture,
    start,
    steps_for,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import scoresde
from scoresde import SAMPLERS, BadInput, SolverFailure
from scoresde.grids import from_sigmas, make_grid
from scoresde.noise import SeededNoise
from scoresde.samplers.plan import plan_run

VP = SDES["vp"]


def draw(name: str, n: int = 12, sde: scoresde.SDE = VP, **how: object) -> scoresde.Result:
    loose = {"rtol": 0.2, "atol": 0.2} if name == "sde-adaptive" else {}  # which would take hundreds of calls
    how = {"steps": steps_for(name), "seed": 7, "dtype": F64, **loose, **how}
    return scoresde.sample(mixture().denoiser(sde), (n, 2), name, **how)


# --------------------------------------------------------------------------------------------- seeds, batches, threads


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sample_depends_on_its_seed_and_index_alone(name: str) -> None:
    whole = draw(name).x
    for size in (1, 5, 12):
        assert (draw(name, batch_size=size).x - whole).abs().max() < 1e-12
    assert (draw(name, n=1, first=5).x - whole[5:6]).abs().max() < 1e-12
    assert not torch.equal(draw(name, seed=8).x, whole)
    assert torch.equal(draw(name).x, whole)


def test_noise_is_bitwise_the_same_in_any_company_and_independent_otherwise() -> None:
    x = torch.zeros(6, 5, 4)
    source, shuffled = SeededNoise(3, range(6)), SeededNoise(3, [4, 1])
    assert torch.equal(source(2, 0, x)[[4, 1]], shuffled(2, 0, x[:2]))
    wide = torch.zeros(1, 20000)
    draws = [SeededNoise(s, [k])(i, j, wide)[0] for s, k, i, j in np.ndindex(2, 2, 3, 2)]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / math.sqrt(20000)
    pooled = torch.cat(draws).double()
    for power, moment in enumerate((0.0, 1.0, 0.0, 3.0), start=1):
        spread = math.sqrt([1, 2, 15, 96][power - 1] / len(pooled))
        assert abs(float(pooled.pow(power).mean()) - moment) < 5 * spread


STATES = """
import random, numpy, scoresde, torch
denoiser = scoresde.Gaussian(torch.zeros(2), torch.eye(2)).denoiser(scoresde.VPSDE())
for seed in (1, 2):
    torch.manual_seed(seed), numpy.random.seed(seed), random.seed(seed)
    states = lambda: (torch.get_rng_state().tolist(), str(numpy.random.get_state()), random.getstate())
    before = states()
    drawn = {
        name: scoresde.sample(denoiser, (2, 2), name, 3 if sampler.build else None).x
        for name, sampler in scoresde.SAMPLERS.items()
    }
    assert states() == before
    if seed == 2:
        assert all(torch.equal(drawn[name], first[name]) for name in drawn)
    first = drawn
"""


def test_global_random_state_is_neither_read_nor_changed() -> None:
    """In a process of its own: the run-time checker of the tests draws random numbers itself."""
    subprocess.run([sys.executable, "-c", STATES], check=True)


def test_samplers_are_values_shared_by_threads() -> None:
    for sampler in SAMPLERS.values():
        assert dataclasses.is_dataclass(sampler) and sampler.__dataclass_params__.frozen
        solver = (sampler.build or sampler.adaptive)(VP, (1.0, 0.5, 0.01) if sampler.build else (1.0, 0.001))
        assert dataclasses.is_dataclass(solver) and solver.__dataclass_params__.frozen
    jobs = [(name, seed) for seed in (0, 1) for name in SAMPLERS]

    def job(name: str, seed: int) -> torch.Tensor:
        steps = steps_for(name)
        return draw(name, seed=seed, steps=steps and steps + seed).x

    alone = [job(*each) for each in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda each: job(*each), jobs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_an_aborted_run_leaves_nothing_behind() -> None:
    def stop(i: int, *rest: object) -> None:
        raise InterruptedError

    whole = draw("dpm++2m").x
    with pytest.raises(InterruptedError):
        draw("dpm++2m", callback=stop)
    assert torch.equal(draw("dpm++2m").x, whole)


# ------------------------------------------------------------------------------------------------------- counts, grids


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("name", FIXED)
def test_any_number_of_steps_under_any_sde(name: str, sde: str) -> None:
    """Finite, n falling intervals, calls within the ends; counted calls = result.nfe = the documented formula."""
    for n in (1, 2, 3, 4, 5, 7, 11, 27, 53):
        steps_and_calls(name, sde, n)


@pytest.mark.parametrize("sde", few(SDES, "vp"))
@pytest.mark.parametrize("name", FIXED)
def test_thousands_of_steps_under_any_sde(name: str, sde: str) -> None:
    """Cheap ones: one number a state, and noise that is drawn once."""
    for n in (999, 1500):
        steps_and_calls(name, sde, n)


def steps_and_calls(name: str, sde: str, n: int) -> None:
    one, ends, calls = torch.ones(1, 1, dtype=F64), SDES[sde], list[torch.Tensor]()
    denoiser = scoresde.Denoiser(lambda x, t: calls.append(t) or torch.tanh(x), ends, "x0")
    options = thrift(name) if n > 500 else {}
    out = scoresde.sample(denoiser, (1, 1), name, n, noise=lambda *step: one, dtype=F64, **options)
    assert len(calls) == out.nfe == (n if options.get("method") else documented_nfe(name, n, **options))
    assert len(out.times) == n + 1 and torch.isfinite(out.x).all()
    seen = torch.cat(calls)
    assert ends.t_min * (1 - 1e-9) <= seen.min() and seen.max() <= ends.t_max
    assert out.times[0] == ends.t_max and all(a > b for a, b in pairwise(out.times))


def thrift(name: str) -> dict[str, object]:
    """The options of fewest calls, for long runs of the samplers that make several at a level or step."""
    fewest: dict[str, dict[str, object]] = {
        "ode": {"method": "euler"},
        "travel": {"repeats": 1},
        "langevin": {"repeats": 1},
    }
    return fewest.get(name, {})


@pytest.mark.parametrize("name", [name for name, sampler in SAMPLERS.items() if sampler.by_steps])
def test_the_default_grid_is_a_function_of_the_sampler_and_its_steps(name: str) -> None:
    """Whether steps or calls are given, whatever the SDE; a chain's is that at its whole indices."""
    sampler = SAMPLERS[name]
    limits = [most for most, *_ in sampler.by_steps]
    assert limits == sorted(set(limits)) and sampler.defaults(10**6) == (sampler.grid, sampler.final)
    for n in (n for most in limits for n in (most, most + 1)):
        where = next(((g, f) for most, g, f in sampler.by_steps if n <= most), (sampler.grid, sampler.final))
        assert sampler.defaults(n) == where
        for sde in (VP, SDES["edm"], SDES["ddpm"]):
            by_steps, settings = plan_run(sde, sampler, n)
            assert by_steps.times == make_grid(settings["grid"], sde, n, where[1])
            assert (settings["grid"], settings["final"]) == (where[0] + "@index" * sde.by_index, where[1])
        assert plan_run(VP, sampler, nfe=plan_run(VP, sampler, n)[0].nfe)[1] == plan_run(VP, sampler, n)[1]


@pytest.mark.parametrize("name", FIXED)
def test_nfe_budgets_are_kept_and_used(name: str) -> None:
    out = draw(name, 2, steps=None, nfe=30)
    one_more = draw(name, 2, steps=len(out.times), nfe=None)
    assert out.nfe <= 30 < one_more.nfe


@pytest.mark.parametrize(
    "name, sde, nfe, how",
    [("edm", "edm", 35, {"s_churn": 40.0, "s_min": 0.05, "s_max": 50.0}), ("cas", "edm", 300, {"step": 0.06})],
)
def test_options_that_few_steps_cannot_take_find_their_budget(name: str, sde: str, nfe: int, how: dict) -> None:
    """Their tables refuse to be built for few steps, which the search for a budget passes."""
    grid = "karras" if name == "edm" else "lambda"
    with pytest.raises(BadInput):
        plan_run(SDES[sde], SAMPLERS[name], 2, grid=grid, options=how)
    table, _ = plan_run(SDES[sde], SAMPLERS[name], nfe=nfe, grid=grid, options=how)
    assert nfe - 2 < (table.nfe or 0) <= nfe


@pytest.mark.parametrize("name", FIXED)
def test_a_given_grid_is_used_verbatim(name: str) -> None:
    """Every interval starts with a call at its knot; only methods of several calls a step make others, in between."""
    sde, sigmas = SDES["edm"], [80, 24, 6, 1.5, 0.3, 0.05, 0]
    seen: list[float] = []
    inner = mixture().network(sde, "x0")
    denoiser = scoresde.Denoiser(lambda x, t: seen.append(float(t[0])) or inner(x, t), sde, "x0")
    out = scoresde.sample(denoiser, (1, 2), name, grid=from_sigmas(sde, sigmas), dtype=F64)
    assert out.times == tuple(map(float, sigmas))
    tolerance = 1e-6 if name == "ode" else 1e-12  # its clock runs in φ
    at_knots = [min(range(6), key=lambda k, t=t: abs(math.log(t / sigmas[k]))) for t in seen]
    assert all(any(math.isclose(t, sigma, rel_tol=tolerance) for t in seen) for sigma in sigmas[:-1])
    if out.nfe == 6:
        assert at_knots == list(range(6))


@pytest.mark.parametrize("name", FIXED)
def test_the_callback_sees_every_interval_and_changes_nothing(name: str) -> None:
    seen: list[tuple] = []
    plain = draw(name, 3, steps=5)
    out = draw(
        name, 3, steps=5, callback=lambda i, t, t_next, x, x0, nfe: seen.append((i, t, t_next, x.clone(), x0, nfe))
    )
    assert torch.equal(out.x, plain.x)
    assert [s[0] for s in seen] == list(range(5))
    assert [s[1] for s in seen] == list(out.times[:-1]) and [s[2] for s in seen] == list(out.times[1:])
    assert all(a[5] < b[5] for a, b in pairwise(seen)) and seen[-1][5] == out.nfe
    assert torch.equal(seen[-1][3], out.x) and all(
        torch.isfinite(s[4]).all() and s[4].shape == out.x.shape for s in seen
    )


@pytest.mark.parametrize("name", TABLES)
def test_the_last_step_to_the_data_draws_no_noise(name: str) -> None:
    for n in (10, 25):
        table = SAMPLERS[name].build(VP, make_grid("t", VP, n, "zero"))
        assert table.rows[-1].t_next == 0 and not any(table.rows[-1].c)
        assert all(a > b for a, b in pairwise(table.times))


# ------------------------------------------------------------------------------------------------- predictions, shapes


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_prediction_type_gives_the_same_samples(name: str) -> None:
    """One exact denoiser through its own ε, x0, v, score, flow and EDM outputs."""
    for sde in (VP, SDES["subvp"], SDES["ve"]) if SAMPLERS[name].build else (VP,):
        x, exact = start(sde, (4, 2)), mixture()
        loose = {"rtol": 0.2, "atol": 0.2} if name == "sde-adaptive" else {}
        outs = []
        for prediction in ("x0", "eps", "v", "score", "flow", "edm"):
            denoiser = scoresde.Denoiser(exact.network(sde, prediction), sde, prediction)
            outs.append(scoresde.sample(denoiser, (4, 2), name, steps_for(name), x=x, dtype=F64, **loose).x)
        scale = max(1.0, float(outs[0].abs().max()))
        assert all((out - outs[0]).abs().max() < 1e-8 * scale for out in outs)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_network_that_returns_nan_is_named_with_its_time(name: str) -> None:
    """From the middle of the noise on, in one sample of five."""
    middle = float(VP.t_of_phi(torch.tensor(0.8)))

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        bad = (t < middle) & (torch.arange(len(x)) == 3)
        return torch.where(bad[:, None], math.nan, 0.5 * x)

    if SAMPLERS[name].encode:
        how = {"steps": 6} if SAMPLERS[name].build else {}
        with pytest.raises(SolverFailure, match=r"NaN or infinity at t = 0\.\d+"):
            scoresde.encode(scoresde.Denoiser(network, VP, "x0"), torch.zeros(5, 2, dtype=F64), name, **how)
    with pytest.raises(SolverFailure, match=r"^[a-z+0-9-]+: the network returned NaN or infinity at t = 0\.\d+"):
        scoresde.sample(scoresde.Denoiser(network, VP, "x0"), (5, 2), name, steps_for(name), dtype=F64)


def test_a_state_that_overflows_is_told_from_a_bad_network() -> None:
    denoiser = scoresde.Denoiser(lambda x, t: 1e30 * x, VP, "x0")
    with pytest.raises(SolverFailure, match=r"state is not finite at t = 0\.\d+|NaN or infinity"):
        scoresde.sample(denoiser, (2, 2), "ddim", 6)
    assert not torch.isfinite(scoresde.sample(denoiser, (2, 2), "ddim", 6, check=False).x).all()


@pytest.mark.parametrize("event", [(), (2,), (7, 3), (1, 16, 24), (3, 4, 4, 4)], ids=str)
@pytest.mark.parametrize("name", FIXED)
def test_any_event_shape_gives_the_same_coordinates(name: str, event: tuple[int, ...]) -> None:
    """On independent identical coordinates every coordinate is sampled like a scalar."""
    denoiser = scoresde.Denoiser(lambda x, t: 0.8 * torch.tanh(x), VP, "x0")
    size, how = math.prod(event), {"steps": steps_for(name), "dtype": F64}

    def noise(step: int, draw: int, x: torch.Tensor) -> torch.Tensor:
        return SeededNoise(1, [0])(step, draw, torch.zeros(1, 2 * size, dtype=x.dtype)).reshape(x.shape)

    shaped = scoresde.sample(denoiser, (2, *event), name, noise=noise, **how).x
    flat = scoresde.sample(denoiser, (2 * size,), name, noise=noise, **how).x
    assert shaped.shape == (2, *event) and (shaped.reshape(-1) - flat).abs().max() < 1e-12


# ---------------------------------------------------------------------------------------------------------- the device


class Watch(TorchDispatchMode):
    """Counts scalar reads and records the floating dtypes that operations create."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.dtypes, self.on = 0, set(), False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self.on:
            self.reads += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
            for value in out if isinstance(out, tuple | list) else (out,):
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    self.dtypes.add(value.dtype)
        return out


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", TABLES)
def test_between_calls_nothing_is_read_and_nothing_is_wider_or_narrower(name: str, half: bool) -> None:
    """Inside the loop: no scalar read, no float64, no half outside the network, not even with a bf16 network."""
    watch, dtype = Watch(), torch.bfloat16 if half else None

    def network(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        watch.on = False
        assert x.dtype == (dtype or torch.float32)
        out = torch.tanh(x)
        watch.on = True
        return out

    denoiser = scoresde.Denoiser(network, VP, "eps", dtype=dtype)
    with watch:
        out = scoresde.sample(denoiser, (2, 3), name, 6, check=False)
    assert watch.reads == 0 and watch.dtypes <= {torch.float32, *({dtype} if dtype else ())}
    assert out.x.dtype == torch.float32 and torch.isfinite(out.x).all()


@pytest.mark.parametrize("name", [name for name in DETERMINISTIC if name in FIXED])
def test_gradients_flow_when_asked(name: str) -> None:
    x = start(VP, (2, 2)).requires_grad_()
    how = {"steps": 4, "dtype": F64, "grad": True}
    denoiser = mixture().denoiser(VP)
    assert torch.autograd.gradcheck(lambda x: scoresde.sample(denoiser, (2, 2), name, x=x, **how).x, x, atol=1e-6)
    assert not scoresde.sample(denoiser, (2, 2), name, 4, x=x, dtype=F64).x.requires_grad


@pytest.mark.parametrize("name", FIXED)
def test_gradients_by_parameters_are_those_of_differences(name: str) -> None:
    network, h = mixture().network(VP, "eps"), 1e-5

    def mean(factor: Tensor | float, grad: bool | str = False) -> Tensor:
        denoiser = scoresde.Denoiser(lambda x, t: factor * network(x, t), VP, "eps")
        return scoresde.sample(denoiser, (3, 2), name, 4, dtype=F64, grad=grad).x.mean()

    factor = torch.tensor(0.98, dtype=F64, requires_grad=True)
    numeric = float(mean(0.98 + h) - mean(0.98 - h)) / (2 * h)
    for grad in (True, "checkpoint"):
        (slope,) = torch.autograd.grad(mean(factor, grad), factor)
        assert float(slope) == pytest.approx(numeric, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", FIXED)
def test_states_alive_do_not_grow_with_the_steps(name: str) -> None:
    """Without gradients a run holds a few states and outputs, however long it is, and with a callback too."""

    def most(steps: int, **how: Any) -> int:
        seen, alive = list[weakref.ref[Tensor]](), 0
        network = mixture().network(VP, "v")

        def watched(x: Tensor, t: Tensor) -> Tensor:
            nonlocal alive
            out = network(x, t)
            seen.extend((weakref.ref(x), weakref.ref(out)))
            alive = max(alive, sum(each() is not None for each in seen))
            return out

        scoresde.sample(scoresde.Denoiser(watched, VP, "v"), (2, 2), name, steps, dtype=F64, **how)
        return alive

    short, long = most(12), most(60)
    assert long <= short <= 16 and most(60, callback=lambda *_: None) <= short + 2


def test_no_two_samplers_are_the_same() -> None:
    """At ten steps, but for the pairs that are one method by two names."""
    ends = {name: draw(name, n=4, steps=10 if SAMPLERS[name].build else None).x for name in SAMPLERS}
    same = {(a, b) for a, b in combinations(ends, 2) if (ends[a] - ends[b]).abs().max() < 1e-9}
    assert same == {("ode", "rk4")}  # torchdiffeq's, and a table


MULTISTEP = [name for name in DETERMINISTIC if name in TABLES and SAMPLERS[name].nfe.startswith("n")]


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
@pytest.mark.parametrize("name", MULTISTEP)
def test_a_bfloat16_network_moves_samples_by_its_rounding(name: str, prediction: str) -> None:
    """A state and an output rounded to 8 bits are off by up to 2^-8 each; samples move by less than 8 such roundings.

    Data are Gaussian: their denoiser is linear and has no edge between modes, across which a rounding sends a sample.
    """
    data = scoresde.Gaussian(torch.linspace(-1, 1, 8), torch.linspace(0.1, 1.5, 8).diag())
    exact, x = data.network(VP, prediction), start(VP, (64, 8)).float()

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return exact(x.float(), t.float()).to(x.dtype)

    full, narrow = (
        scoresde.sample(scoresde.Denoiser(network, VP, prediction, dtype=dtype), (64, 8), name, 20, x=x).x
        for dtype in (None, torch.bfloat16)
    )
    assert 0 < (narrow - full).norm() < 0.03 * full.norm()


# -------------------------------------------------------------------------------------------------------- a user's own


@dataclasses.dataclass(frozen=True)
class Mine(scoresde.SDE):
    """A VP-SDE by two methods, without a closed inverse."""

    t_min: float = 1e-3
    t_max: float = 1.0

    def log_alpha(self, t: torch.Tensor) -> torch.Tensor:
        return VP.log_alpha(t)

    def log_sigma(self, t: torch.Tensor) -> torch.Tensor:
        return VP.log_sigma(t)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_sde_of_two_methods_samples_like_the_built_in_one(name: str) -> None:
    out, built_in = draw(name, sde=Mine()), draw(name)
    assert out.times == pytest.approx(built_in.times, rel=1e-9, abs=0)
    assert (out.x - built_in.x).abs().max() < 1e-6


def test_the_state_keeps_its_dtype_and_times_may_be_close() -> None:
    latent = scoresde.encode(mixture().denoiser(VP), mixture().sample(3), "ode", 10).x
    assert scoresde.sample(mixture().denoiser(VP), (3, 2), "ode", 10, x=latent).x.dtype == F64
    for times in ([0.6, 0.5999, 0.59, 0.02, 0.0], from_sigmas(VP, [20, 10, 9.999, 1, 0.1, 0])):
        assert torch.isfinite(draw("eab3", steps=None, grid=times).x).all()
    assert math.isfinite(SAMPLERS["eab2"].build(SDES["edm"], (80.0, 79.0, 1e-8, 0.0), tau=1.0).defect)


@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_network_rows_are_counted_through_wrappers(prediction: str) -> None:
    denoiser = scoresde.Denoiser(lambda x, t: x, VP, prediction)
    object.__setattr__(denoiser, "rows_per_call", 2)
    out = scoresde.sample(scoresde.clip(denoiser), (2, 2), "ddim", 4)
    assert out.nfe == 4 and out.network_evals == 8
