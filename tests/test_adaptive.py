"""Adaptive solvers: the published pairs and rules, one sample's independence of the others, the tolerance, and how
they fail; then the methods that torchdiffeq brings."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
import torch
import torchdiffeq
from exact import CONTINUOUS, F64, SDES, few, mixture, start

import scoresde
from scoresde import BadInput, SolverFailure
from scoresde.grids import make_grid
from scoresde.noise import DeviceNoise, SeededNoise
from scoresde.samplers import adaptive, ode
from scoresde.samplers.adaptive import DormandPrince, DPMSolver, Path, dpm_adaptive, rk45, sde_adaptive
from scoresde.samplers.ode import ADAMS, ADAPTIVE, FIXED, FlowODE, ode_adaptive
from scoresde.samplers.per_sample import PerSample, Rule, Run, Solution

VP = SDES["vp"]
SOME = few(CONTINUOUS, "vp", "ve", "flow")
PAIRS: dict[str, Callable[..., PerSample]] = {
    "rk45": rk45,
    "dpm12": partial(dpm_adaptive, order=2),
    "dpm23": dpm_adaptive,
    "dpm12-x0": partial(dpm_adaptive, order=2, space="x0"),
    "dpm23-x0": partial(dpm_adaptive, space="x0"),
    "sde": sde_adaptive,
}
FLOWS = [name for name in PAIRS if name != "sde"]
STUCK = r"t=.*dt=.*(rtol|--dtype|--max-nfe)"
EVERY = [*PAIRS, "dopri5", "bosh3", "scipy-rk45"]


def ends(sde: scoresde.SDE) -> tuple[float, float]:
    return sde.t_max, sde.t_min


def build(name: str, sde: scoresde.SDE = VP, **options: object) -> PerSample | FlowODE:
    return (PAIRS[name] if name in PAIRS else partial(ode_adaptive, method=name))(sde, ends(sde), **options)


def rough(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A network that no step resolves."""
    return 1e6 * torch.sin(1e12 * x)


def uneven(sde: scoresde.SDE, seen: list[tuple[float, float]], counts: Counter[int]) -> scoresde.Denoiser:
    """A smooth network under which the samples labelled above 0 sway with φ; it records its times and samples."""

    def network(x: torch.Tensor, t: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        seen.append((float(t.min()), float(t.max())))
        counts.update(who.tolist())
        return torch.tanh(x) + 2 * torch.sin(30 * who * sde.phi(t))[:, None]

    return scoresde.Denoiser(network, sde, "v")


@cache
def reference(name: str) -> torch.Tensor:
    sde = SDES[name]
    times = make_grid("phi", sde, 320)  # by the fewest calls for ten digits
    return ode.ode(sde, times, method="implicit_adams").run(mixture().denoiser(sde), start(sde, (16, 2)))[0]


# ----------------------------------------------------------------------------------------------------------- the pairs


def test_rk45_is_dormand_and_princes() -> None:
    """The numbers are scipy's, typed in by others from the same paper."""
    theirs = scipy.integrate.RK45
    rows = [*(row[: i + 1].tolist() for i, row in enumerate(theirs.A[1:])), theirs.B.tolist()]
    assert list(adaptive._NODES) == pytest.approx([*theirs.C[1:], 1.0], abs=1e-15)
    for ours, row in zip(adaptive._STAGES, rows, strict=True):
        assert list(ours) == pytest.approx(row, abs=1e-15)
    assert [abs(e) for e in adaptive._ERROR] == pytest.approx([abs(e) for e in theirs.E], abs=1e-15)


def textbook(space: str, order: int, sde: scoresde.SDE, x: torch.Tensor, s: float, t: float, D) -> list[torch.Tensor]:
    """One step of orders ``order`` - 1 and ``order``: Lu et al. 2022a, eq. 3.7 and algorithms 1-2; 2022b for x0."""
    lams = sde.knots([s, t]).lam
    h = float(lams[1] - lams[0])

    def at(r: float) -> tuple[float, float, float]:
        time = float(sde.t_of_lam(torch.tensor(lams[0] + r * h)))
        knots = sde.knots([s, time])
        (alpha_s, alpha), (sigma_s, sigma) = knots.alpha, knots.sigma
        if space == "eps":
            return time, alpha / alpha_s, -sigma
        return time, sigma / sigma_s, -alpha

    e = math.expm1 if space == "eps" else (lambda r: math.expm1(-r))
    first, (time, lead, scale) = D(x, s), at(1 / 2 if order == 2 else 1 / 3)
    if order == 2:
        middle = D(lead * x + scale * e(h / 2) * first, time)
        _, lead, scale = at(1.0)
        low = lead * x + scale * e(h) * first
        return [low, low + scale * e(h) * (middle - first)]
    one = D(lead * x + scale * e(h / 3) * first, time) - first
    time, lead, scale = at(2 / 3)
    growth = lambda r: e(r) / r - 1 if space == "eps" else e(r) / r + 1  # noqa: E731
    sign = 1 if space == "eps" else -1
    two = D(lead * x + scale * (e(2 * h / 3) * first + sign * 2 * growth(2 * h / 3) * one), time) - first
    _, lead, scale = at(1.0)
    low = lead * x + scale * e(h) * (first + 1.5 * one)
    return [low, lead * x + scale * (e(h) * first + sign * 1.5 * growth(h) * two)]


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("space", ["eps", "x0"])
@pytest.mark.parametrize("order", [2, 3])
def test_dpm_adaptive_takes_the_papers_steps(order: int, space: str, name: str) -> None:
    """State, error and step rule of one attempt, in the SDE's own x; the error is the published one under VP."""
    sde = SDES[name]
    x, denoiser = start(sde, (3, 2)), mixture().denoiser(sde)
    solver = dpm_adaptive(sde, ends(sde), order=order, space=space)
    run = Run(solver, denoiser, x, None, {})
    run.k = run.call(run.y, run.u)
    u = run.u + torch.tensor([0.05, 0.3, 1.0], dtype=F64)
    trial = solver.attempt(run, u)
    for i, t in enumerate(run.time(u).tolist()):
        low, high = textbook(space, order, sde, x[i : i + 1], ends(sde)[0], t, partial(denoiser.predict, space))
        size = solver.scale(torch.tensor(t, dtype=F64)).item()
        assert (size * trial.y[i] - high[0]).abs().max() < 1e-12 * x.abs().max()
        assert (size * trial.before[i] - low[0]).abs().max() < 1e-12 * x.abs().max()
        if name == "vp":
            delta = torch.maximum(torch.tensor(0.0078), 0.05 * torch.maximum(low.abs(), x[i].abs()))
            assert float(trial.error[i]) == pytest.approx(
                float(((high - low) / delta).square().mean().sqrt()), rel=1e-9
            )


def test_a_step_follows_the_rule_of_its_pair() -> None:
    """h ← 0.9 h E^{-p} to three digits, from a first step of a known length."""
    for name, first in {"rk45": 0.05, "dpm12": 0.05, "dpm23": 0.05, "sde": 0.01 * (VP.t_max - VP.t_min)}.items():
        solver = PAIRS[name](VP, ends(VP))
        power = {"rk45": 1 / 5, "dpm12": 1 / 2, "dpm23": 1 / 3, "sde": 0.9}[name]
        run = Run(solver, mixture().denoiser(VP), start(VP, (4, 2)), SeededNoise(0, range(4)), {})
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def attempt(run: Run, u: torch.Tensor, own=solver.attempt, seen=seen):
            trial = own(run, u)
            seen.append((u - run.u, trial.error))
            return trial

        object.__setattr__(solver, "attempt", attempt)
        next(run.attempts(False))
        (h, error), *_ = seen
        assert h.abs().tolist() == pytest.approx([first] * 4, rel=1e-9)
        lowest, highest = (0.2, 5.0) if name == "rk45" else (0.0, math.inf)
        expected = h * (0.9 * error**-power).clamp(lowest, highest)
        assert run.h.tolist() == pytest.approx(expected.tolist(), rel=2e-3)


@dataclasses.dataclass(frozen=True)
class _FixedSteps(DormandPrince):
    """Accepts everything and keeps its first step."""

    step: float = 0.1

    @property
    def rule(self) -> Rule:
        return super().rule._replace(first=self.step, bounds=(1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class _FixedDPM(DPMSolver):
    step: float = 0.1

    @property
    def rule(self) -> Rule:
        return super().rule._replace(first=self.step, bounds=(1.0, 1.0))


LOOSE = {"rtol": 0.999, "atol": 0.999, "max_nfe": 10**6}


def nth(span: float, n: int) -> float:
    """The n-th part of a span, rounded up to what the driver takes a step to be: the last step is a little shorter."""
    mantissa, exponent = math.frexp(span / n)
    return math.ldexp(math.ceil(1024 * mantissa) / 1024, exponent)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("space", ["eps", "x0"])
@pytest.mark.parametrize("order", [2, 3])
def test_the_order_of_dpm_pairs(order: int, space: str, name: str) -> None:
    """At equal steps in λ the state that a pair goes on from has the pair's order."""
    sde, errors = SDES[name], []
    low, high = sde.knots(ends(sde)).lam.tolist()
    for n in (40, 80):
        solver = _FixedDPM(sde, ends(sde), **LOOSE, order=order, space=space, step=nth(high - low, n))
        done = solver.solve(mixture().denoiser(sde), start(sde, (16, 2)))
        assert done.accepted.tolist() == [n] * 16 and not done.rejected.any()
        errors.append(float((done.x - reference(name)).abs().mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", SOME)
def test_the_order_of_rk45(name: str) -> None:
    """At equal steps in φ, where the mixture parts: over a whole run this flow's errors fall faster than any pair's."""
    sde, denoiser, states = SDES[name], mixture().denoiser(SDES[name]), []
    begin, end = sde.t_of_phi(torch.tensor([1.125, 0.625 + 1e-9], dtype=F64)).tolist()
    x = sde.perturb(mixture().sample(32, seed=5), torch.tensor(begin, dtype=F64), start(VP, (32, 2)))
    for n in (8, 16, 64):
        done = _FixedSteps(sde, (begin, end), **LOOSE, step=nth(0.5, n)).solve(denoiser, x)
        assert done.accepted.tolist() == [n] * 32 and not done.rejected.any()
        states.append(done.x)
    errors = [float((state - states[2]).abs().mean()) for state in states[:2]]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.2)


# ------------------------------------------------------------------------------------------------- tolerance and calls


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
@pytest.mark.parametrize("solver", FLOWS)
def test_the_error_falls_with_the_tolerance(solver: str, name: str) -> None:
    """In proportion, about: E is of the lower order, the state of the higher one."""
    sde, errors = SDES[name], []
    tolerances = (1e-4, 1e-7) if solver == "rk45" else (3e-2, 3e-4)
    for tol in tolerances:
        done = PAIRS[solver](sde, ends(sde), rtol=tol, atol=tol / 5).solve(mixture().denoiser(sde), start(sde, (16, 2)))
        errors.append(float((done.x - reference(name)).abs().median()))
    slope = math.log(errors[0] / errors[1]) / math.log(tolerances[0] / tolerances[1])
    assert 0.6 < slope < 1.6 and errors[1] < 10 * tolerances[1]


@pytest.mark.parametrize("solver", PAIRS)
def test_a_sample_is_the_same_in_any_company(solver: str) -> None:
    """15 easy samples and a stiff one, together and apart: states to rounding, and every count equal."""
    x, stiff = start(VP, (16, 2)), 7
    who = (torch.arange(16) == stiff).long()
    run, denoiser = build(solver, rtol=1e-5 if solver == "rk45" else 0.05), uneven(VP, [], Counter())

    def of(rows: list[int]) -> Solution:
        return run.solve(denoiser, x[rows], SeededNoise(3, rows), who=who[rows])

    together = of(list(range(16)))
    for rows in ([i for i in range(16) if i != stiff], [stiff], [11, 4]):
        apart = of(rows)
        assert (together.x[rows] - apart.x).abs().max() < 1e-12
        for field in ("t", "nfe", "accepted", "rejected"):
            assert getattr(together, field)[rows].tolist() == getattr(apart, field).tolist()
    assert together.nfe.argmax() == stiff and together.nfe[stiff] > 1.2 * np.median(together.nfe)


@pytest.mark.parametrize(
    "name, solver, final",
    [
        *(("vp", name, ()) for name in EVERY),
        ("edm", "sde", (0.0,)),
        ("flow", "dpm23", (0.0,)),
        ("ddpm", "rk45", (0.0,)),
    ],
)
def test_calls_are_counted_and_stay_within_the_run(name: str, solver: str, final: tuple[float, ...]) -> None:
    """Each sample is told apart by a label of its own, which leaves the batch with it."""
    sde, seen, counts = SDES[name], [], Counter()
    run = dataclasses.replace(build(solver, sde, rtol=0.2 if solver == "sde" else 0.01), times=(*ends(sde), *final))
    denoiser, x, noise, who = uneven(sde, seen, counts), start(sde, (3, 2)), SeededNoise(0, range(3)), torch.arange(3)
    _, calls = run.run(denoiser, x, noise, who=who)
    lowest, highest = zip(*seen, strict=True)
    assert sde.t_min <= min(lowest) and max(highest) <= sde.t_max and calls == max(counts.values())
    if isinstance(run, PerSample):
        counts.clear()
        done = run.solve(denoiser, x, noise, who=who)
        assert done.nfe.tolist() == [counts[i] for i in range(3)] and len(set(done.nfe.tolist())) > 1
        first, stages = {"rk45": (1, 6)}.get(solver, (0, {"sde": 2}.get(solver, int(solver[4:5] or 0))))
        steps = first + stages * done.accepted + (stages - (solver != "rk45")) * done.rejected + len(final)
        assert done.nfe.tolist() == steps.tolist()


@pytest.mark.parametrize("solver", PAIRS)
def test_intervals_lead_from_one_end_to_the_other(solver: str) -> None:
    sde, denoiser = SDES["edm"], mixture().denoiser(SDES["edm"])
    x, noise = start(sde, (6, 2)), SeededNoise(0, range(6))
    run = dataclasses.replace(build(solver, sde, rtol=0.1), times=(*ends(sde), 0.0))
    steps = list(run.iterate(denoiser, x, noise))
    assert steps[0].t == sde.t_max and steps[-1].t_next == 0.0 and [step.i for step in steps] == list(range(len(steps)))
    assert all(a.t_next == b.t and a.nfe <= b.nfe for a, b in pairwise(steps)) and all(s.t_next < s.t for s in steps)
    assert all(torch.isfinite(step.x).all() and torch.isfinite(step.x0).all() for step in steps)
    assert torch.equal(steps[-1].x, denoiser.x0(steps[-2].x, sde.t_min))
    assert (steps[0].x0 - denoiser.x0(x, sde.t_max)).abs().max() < 1e-12
    quiet, calls = run.run(denoiser, x, noise)
    assert torch.equal(quiet, steps[-1].x) and calls == steps[-1].nfe
    assert torch.equal(run.solve(denoiser, x, noise).x, quiet)


@pytest.mark.parametrize("event", [(), (2,), (1, 4, 4)])
@pytest.mark.parametrize("solver", EVERY)
def test_any_event_shape(solver: str, event: tuple[int, ...]) -> None:
    """The same numbers whatever the shape, for a network that acts on each coordinate alone."""
    denoiser = scoresde.Denoiser(lambda x, t: torch.tanh(x), VP, "x0")
    size = max(1, math.prod(event))
    x, z = start(VP, (3, size)), start(VP, (3, size), seed=1)
    noise = lambda i, j, x: (z * (-1) ** i).reshape(x.shape)  # noqa: E731
    out, _ = build(solver, rtol=0.2).run(denoiser, x.reshape(3, *event), noise)
    flat, _ = build(solver, rtol=0.2).run(denoiser, x, noise)
    assert out.shape == (3, *event) and (out.reshape(3, size) - flat).abs().max() < 1e-12


@pytest.mark.parametrize("solver", [*FLOWS, "dopri5"])
def test_encoding_is_the_same_run_upward(solver: str) -> None:
    """Times may rise: data to noise and back is the data."""
    data, denoiser = mixture().sample(8, seed=1), mixture().denoiser(VP)
    there = build(solver, rtol=1e-4, atol=1e-4)
    latent, _ = dataclasses.replace(there, times=ends(VP)[::-1]).run(denoiser, data)
    back, _ = there.run(denoiser, latent)
    assert (back - data).abs().median() < 1e-3 and latent.square().mean() == pytest.approx(1.0, abs=0.6)


@pytest.mark.parametrize("solver", ["rk45", "dpm23", "dopri5"])
def test_gradients_are_those_of_the_flow(solver: str) -> None:
    """d(output)/d(x_T) against central differences of the fine flow."""
    x, denoiser = start(VP, (1, 2)).requires_grad_(), mixture().denoiser(VP)
    run = build(solver, rtol=1e-6, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda x: run.run(denoiser, x)[0], x)[0, :, 0]
    d = 1e-4 * torch.eye(2, dtype=F64)
    around, _ = ode.ode(VP, make_grid("phi", VP, 100)).run(denoiser, torch.cat([x.detach() + d, x.detach() - d]))
    assert (jacobian.T - (around[:2] - around[2:]) / 2e-4).abs().max() < 0.01


# ----------------------------------------------------------------------------------------------------- the reverse SDE

MEAN, VARIANCE = torch.tensor([0.7, -0.4], dtype=F64), torch.tensor([1.3, 0.04], dtype=F64)


@pytest.mark.parametrize("name, n", [("vp", 6000), ("edm", 2000)])
def test_the_reverse_sde_has_the_right_law(name: str, n: int) -> None:
    """Mean and covariance of the output on Gaussian data, each within four standard errors; refused steps abound."""
    sde = SDES[name]
    at = sde.knots(ends(sde))
    alpha, sigma = at.alpha.tolist(), at.sigma.tolist()
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, n, 2, generator=generator, dtype=F64)
    x = alpha[0] * (MEAN + VARIANCE.sqrt() * data) + sigma[0] * noise
    denoiser = scoresde.Gaussian(MEAN, VARIANCE.diag()).denoiser(sde)
    done = sde_adaptive(sde, ends(sde)).solve(denoiser, x, DeviceNoise(1, torch.device("cpu")))
    assert done.rejected.mean() > 10
    variance = alpha[1] ** 2 * VARIANCE + sigma[1] ** 2
    standard = (done.x - alpha[1] * MEAN) / variance.sqrt()
    assert (standard.mean(0) * math.sqrt(n)).abs().max() < 4
    cov = standard.T.cov(correction=0)
    assert ((cov.diag() - 1) * math.sqrt(n / 2)).abs().max() < 4 and abs(cov[0, 1]) * math.sqrt(n) < 4


def test_the_reverse_sde_draws_the_mixture() -> None:
    """Sliced Wasserstein distance to exact draws, against that of two exact sets."""
    n, angles = 3000, torch.arange(12) * math.pi / 12
    lines = torch.stack([angles.cos(), angles.sin()]).double()

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a @ lines).sort(0).values - (b @ lines).sort(0).values).abs().mean())

    one, two, three = (mixture().sample(n, seed=seed) for seed in (1, 2, 3))
    x = VP.perturb(three, torch.tensor(VP.t_max, dtype=F64), start(VP, (n, 2)) / VP.prior_std())
    run = sde_adaptive(VP, (*ends(VP), 0.0), rtol=0.05)
    out, _ = run.run(mixture().denoiser(VP), x, DeviceNoise(1, torch.device("cpu")))
    assert distance(out, one) < 2 * distance(one, two)


def test_a_path_remembers_where_it_was_looked_at() -> None:
    """Look to 1, refuse, go to 0.4, look to 0.7, refuse, go to 0.5, then to 1: increments of one Brownian motion."""
    n = 40000
    generator = torch.Generator().manual_seed(0)
    path = Path(torch.zeros(n, dtype=F64))

    def go(now: float, then: float) -> torch.Tensor:
        z = torch.randn(n, generator=generator, dtype=F64)
        return path.increment(torch.full((n,), now, dtype=F64), torch.full((n,), then, dtype=F64), z)

    far, first, middle, second, rest = go(0.0, 1.0), go(0.0, 0.4), go(0.4, 0.7), go(0.4, 0.5), go(0.5, 1.0)
    assert (go(0.5, 0.7) - (middle - second)).abs().max() < 1e-14
    assert (first + second + rest - far).abs().max() < 1e-14
    parts = torch.stack([first, second, middle - second, far - first - middle])
    cov, lengths = parts.cov(), torch.tensor([0.4, 0.1, 0.2, 0.3], dtype=F64)
    assert ((cov - lengths.diag()) / (lengths[:, None] * lengths).sqrt()).abs().max() < 4 * math.sqrt(2 / n)
    path.keep(torch.arange(n) < 5)
    assert len(path.known) == len(path.values) == 5


# --------------------------------------------------------------------------------------------------------- torchdiffeq


@pytest.mark.parametrize("method", ADAPTIVE)
def test_every_method_of_torchdiffeq_meets_its_tolerance(method: str) -> None:
    tol, sde, counts = 1e-5, SDES["edm"], []
    if method in ("fehlberg2", "adaptive_heun", "scipy-bdf", "scipy-radau"):
        tol = 1e-3
    inner = mixture().network(sde, "v")
    denoiser = scoresde.Denoiser(lambda x, t: counts.append(1) or inner(x, t), sde, "v")
    run = ode_adaptive(sde, (*ends(sde), 0.0), method=method, rtol=tol, atol=tol)
    x = start(sde, (16, 2))[:4]
    steps = list(run.iterate(denoiser, x))
    assert steps[-1].nfe == len(counts) and run.nfe is None and [s.i for s in steps] == list(range(len(steps)))
    assert steps[0].t == sde.t_max and steps[-1].t_next == 0 and all(a.t_next == b.t for a, b in pairwise(steps))
    assert len(steps) > 5
    live: list[tuple] = []
    out, _ = run.run(denoiser, x, None, lambda *step: live.append(step))  # told while it goes, and keeps no states
    assert [s[:3] + s[5:] for s in live] == [s[:3] + s[5:] for s in steps] and torch.equal(out, steps[-1].x)
    assert (steps[-2].x - reference("edm")[:4]).abs().max() < 100 * tol


def test_torchdiffeqs_clock_is_in_the_precision_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every device has float64, which torchdiffeq would take."""
    seen, own = [], torchdiffeq.odeint

    def spy(f, y, t, **how):
        seen.extend((how["options"]["dtype"], y.dtype, t.dtype, how["options"]["step_t"].dtype))
        return own(f, y, t, **how)

    monkeypatch.setattr(torchdiffeq, "odeint", spy)
    for dtype in (torch.float32, F64):
        seen.clear()
        out, _ = ode_adaptive(VP, ends(VP)).run(mixture().denoiser(VP), start(VP, (4, 2)).to(dtype))
        assert set(seen) == {dtype} and out.dtype == dtype


@pytest.mark.parametrize("final", ["zero", "t_min"])
@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_make_the_calls_they_say(method: str, final: str) -> None:
    for n in (1, 2, 3, 7, 30):
        counts, steps = [], []
        denoiser = scoresde.Denoiser(lambda x, t, counts=counts: counts.append(1) or torch.tanh(x), VP, "x0")
        run = ode.ode(VP, make_grid("phi", VP, n, final), method=method)
        out, calls = run.run(denoiser, start(VP, (2, 2)).float(), None, lambda *step, steps=steps: steps.append(step))
        assert calls == len(counts) == run.nfe and out.dtype == torch.float32
        assert [s[0] for s in steps] == list(range(n)) and (steps[0][1], *(s[2] for s in steps)) == run.times
        assert torch.equal(steps[-1][3], out) and steps[-1][5] == calls


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("method, order", [("explicit_adams", 4), ("implicit_adams", 5)])
def test_the_order_of_adams_methods(method: str, order: int, name: str) -> None:
    sde, errors = SDES[name], []
    assert method in ADAMS
    for n in (160, 320) if order == 4 else (80, 160):
        out, _ = ode.ode(sde, make_grid("phi", sde, n), method=method).run(mixture().denoiser(sde), start(sde, (16, 2)))
        errors.append(float((out - reference(name)).abs().mean()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("method", ADAMS)
def test_adams_methods_encode(method: str) -> None:
    data, denoiser = mixture().sample(8, seed=1), mixture().denoiser(VP)
    times = make_grid("phi", VP, 150)
    latent, _ = ode.ode(VP, times[::-1], method=method).run(denoiser, data)
    assert (ode.ode(VP, times, method=method).run(denoiser, latent)[0] - data).abs().max() < 1e-4


def test_scipy_says_when_it_gives_up_and_that_it_has_no_gradient() -> None:
    run = ode_adaptive(VP, ends(VP), method="scipy-rk45", rtol=1e-12, atol=1e-12, max_nfe=10**5)
    with pytest.raises(SolverFailure, match=r"scipy-rk45 gave up.*" + STUCK):
        run.run(scoresde.Denoiser(rough, VP, "v"), start(VP, (2, 2)))
    with pytest.raises(BadInput, match="no gradient"):
        run.run(mixture().denoiser(VP), start(VP, (2, 2)).requires_grad_())
