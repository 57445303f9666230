"""What the loop around the network costs: ours beside a hand-written loop with the same coefficients as Python floats.

    python benchmarks/loop.py

A network that costs nothing (it returns its input), 50 steps; both loops in turn, many times, in one run, both given
their coefficients. What ours takes to compute them, once a run, stands in a column of its own. Reported are medians and
the median of the ratios of neighbouring runs, which a noisy machine disturbs least.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

import scoresde
from scoresde.denoiser import AnyDenoiser, Plan
from scoresde.grids import make_grid
from scoresde.samplers import SAMPLERS, Table

STEPS, REPEATS = 50, 200


def network(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return x


def by_hand(table: Table, denoiser: scoresde.Denoiser, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The table's numbers in the shortest loop one would write for a first- or second-order multistep method."""
    plan = denoiser.plan(table.space, [row.t for row in table.rows], x)
    labels = torch.tensor([row.t for row in table.rows], dtype=x.dtype).unsqueeze(1).expand(-1, len(x)).unbind()
    second = any(len(row.b) > 1 for row in table.rows)
    fused = [(r.a + r.b[0] * k, r.b[0] * s) for r, k, s in zip(table.rows, plan.skip, plan.scale, strict=True)]
    steps = [
        (k, s, r.a, r.b[0], r.b[1] if len(r.b) > 1 else 0.0) for r, k, s in zip(table.rows, *plan[:2], strict=True)
    ]

    def first_order() -> torch.Tensor:
        y = x
        with torch.no_grad():
            for i, (a, b) in enumerate(fused):
                y = torch.mul(y, a).add_(network(y, labels[i]), alpha=b)
        return y

    def second_order() -> torch.Tensor:
        y, older = x, None
        with torch.no_grad():
            for i, (skip, scale, a, b0, b1) in enumerate(steps):
                out = torch.add(skip * y, network(y, labels[i]), alpha=scale)
                y = torch.mul(y, a).add_(out, alpha=b0)
                if older is not None:
                    y.add_(older, alpha=b1)
                older = out
        return y

    return second_order if second else first_order


class Planned(AnyDenoiser):
    """A denoiser whose plan was made before the clock started."""

    def __init__(self, denoiser: scoresde.Denoiser, table: Table, x: torch.Tensor) -> None:
        self.sde, self.made = denoiser.sde, denoiser.plan(table.space, [row.t for row in table.rows], x)

    def plan(self, form: str, times: Sequence[float], x: torch.Tensor, **cond: object) -> Plan:
        return self.made


def tabled(table: Table, denoiser: scoresde.Denoiser, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The library's loop, its plan made."""
    planned = Planned(denoiser, table, x)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return table.run(planned, x)[0]

    return run


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    sde = scoresde.VPSDE()
    denoiser = scoresde.Denoiser(network, sde, "eps")
    print("| sampler | shape | ours, µs/step | by hand, µs/step | ratio | plan, µs/run |\n|---|---|---|---|---|---|")
    for name in ("ddim", "dpm++2m"):
        table = SAMPLERS[name].build(sde, make_grid("phi", sde, STEPS, "zero"))
        assert isinstance(table, Table)
        for shape in ((1, 3, 32, 32), (16, 3, 32, 32), (64, 3, 64, 64)):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            ours, hand = tabled(table, denoiser, x), by_hand(table, denoiser, x)
            assert torch.allclose(hand(), ours(), rtol=1e-4, atol=1e-4)
            repeats = REPEATS if x.numel() < 1e5 else REPEATS // 10
            pairs = [(seconds(ours), seconds(hand)) for _ in range(repeats)]
            mine, floor = (1e6 * statistics.median(column) / STEPS for column in zip(*pairs, strict=True))
            plan = 1e6 * statistics.median(seconds(partial(Planned, denoiser, table, x)) for _ in range(20))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"| {name} | {shape} | {mine:.1f} | {floor:.1f} | {ratio:.2f} | {plan:.0f} |")


if __name__ == "__main__":
    main()
