"""Orders of convergence: every deterministic sampler, with every order it offers, under every continuous SDE.

A declared order must be the measured one within 0.2, in float64, on an exact asymmetric mixture, to t_min. First the
recurrence's own, from exact history; then that of a whole run, started as users start it.
"""

from __future__ import annotations

import inspect
import math
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import CONTINUOUS, DETERMINISTIC, F64, SDES, few, mixture, start

import scoresde
from scoresde import SAMPLERS
from scoresde.grids import make_grid

# A chain's β jumps at its knots, which caps every order.
SIX = [name for name in CONTINUOUS if name != "sigmoid"]
X = (16, 2)
PAST = 4  # outputs before the first row: as many as any sampler looks back


def variants(name: str) -> list[dict[str, Any]]:
    """The options to test a sampler with: each of its orders and spaces, to the last step."""
    options = SAMPLERS[name].options()
    whole = {"lower_order_final": False} if "lower_order_final" in options else {}
    orders = [{"order": k} for k in range(1, 5)] if "order" in options else [{}]
    spaces = [{}, {"space": "eps"}] if "space" in options else [{}]
    return [{**order, **space, **whole} for order in orders for space in spaces]


def built(name: str, sde: scoresde.SDE, times: tuple[float, ...], past: tuple[float, ...] = (), **options: Any) -> Any:
    """The solver, or None if it has no such order."""
    build = SAMPLERS[name].build
    try:
        return build(sde, times, past, **options) if past else build(sde, times, **options)
    except scoresde.BadInput:
        return None


CASES = [
    pytest.param(name, options, id="-".join([name, *(str(v) for k, v in options.items() if k in ("order", "space"))]))
    for name in DETERMINISTIC
    if SAMPLERS[name].build
    for options in variants(name)
    if built(name, SDES["vp"], (1.0, 0.8, 0.5, 0.1), **options)
]


def flow(sde: scoresde.SDE, x: torch.Tensor, t: float, t_next: float, steps: int) -> torch.Tensor:
    """The exact mixture's probability flow by rk4 in φ."""
    ends = sde.phi(torch.tensor([t, t_next], dtype=F64)).tolist()
    inner = sde.t_of_phi(torch.linspace(*ends, steps + 1, dtype=F64)[1:-1]).tolist()
    return SAMPLERS["rk4"].build(sde, (t, *inner, t_next)).run(mixture().denoiser(sde), x)[0]


@cache
def reference(name: str) -> torch.Tensor:
    """The flow's end at t_min, ten digits of it."""
    sde = SDES[name]
    return flow(sde, start(sde, X), sde.t_max, sde.t_min, 800)


@cache
def early(name: str, n: int) -> list[torch.Tensor]:
    """The flow at the first knots of a λ grid of n intervals."""
    sde, states = SDES[name], [start(SDES[name], X)]
    for t, t_next in pairwise(make_grid("lambda", sde, n)[: PAST + 1]):
        states.append(flow(sde, states[-1], t, t_next, 3))
    return states


def measured(errors: list[float]) -> float:
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize("name", few(CONTINUOUS, *SIX))
@pytest.mark.parametrize("sampler, options", CASES)
def test_order_of_the_recurrence_from_exact_history(sampler: str, options: dict[str, Any], name: str) -> None:
    sde, denoiser, errors = SDES[name], mixture().denoiser(SDES[name]), []
    build = SAMPLERS[sampler].build
    looks_back = "past" in inspect.signature(build).parameters
    solver = build(sde, make_grid("lambda", sde, 8), **options)
    order = getattr(solver, "order", SAMPLERS[sampler].order)
    sizes = {4: (400, 800), 3: (200, 400)}.get(order, (100, 200)) if solver.nfe == 8 else (80, 160)
    for n in sizes:
        times, states = make_grid("lambda", sde, n), early(name, n)
        if looks_back:
            table = build(sde, times[PAST:], times[:PAST][::-1], **options)
            history = [denoiser.predict(table.space, states[i], times[i]) for i in reversed(range(PAST))]
            out, _ = table.run(denoiser, states[PAST], history=history)
        else:
            out, _ = build(sde, times, **options).run(denoiser, states[0])
        errors.append(float((out - reference(name)).abs().mean()))
    assert measured(errors) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", ["vp", "edm"])
@pytest.mark.parametrize("sampler, options", CASES)
def test_order_of_a_whole_run(sampler: str, options: dict[str, Any], name: str) -> None:
    """At least what is declared for a run with its own start: on a λ grid the low-order first rows hardly show."""
    sde, denoiser, errors = SDES[name], mixture().denoiser(SDES[name]), []
    build = SAMPLERS[sampler].build
    solver = build(sde, make_grid("lambda", sde, 8), **options)
    with_start = getattr(solver, "order_with_start", None) or SAMPLERS[sampler].order or 0
    for n in (100, 200):
        out, _ = build(sde, make_grid("lambda", sde, n), **options).run(denoiser, start(sde, X))
        errors.append(float((out - reference(name)).abs().mean()))
    assert measured(errors) > with_start - 0.2
