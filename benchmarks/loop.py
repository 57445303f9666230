"""What the loop around the network costs: ours beside the shortest loop one would write, diffusers' and k-diffusion's.

    python benchmarks/loop.py

A network that costs nothing (it returns its input), 50 steps; each loop many times, given its coefficients or schedule
before the clock starts. What ours takes to compute them, once a run, stands in a column of its own. Reported are
medians; ours and the floor run in turn, and their ratio is the median of those of neighbouring runs, which a noisy
machine disturbs least. The peers' columns need what `adapters.py` says.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from problems import floor, free
from torch import Tensor

import scoresde
from scoresde.denoiser import AnyDenoiser, Plan
from scoresde.grids import make_grid
from scoresde.samplers import SAMPLERS, Table

STEPS, REPEATS = 50, 200
SHAPES = ((1, 3, 32, 32), (16, 3, 32, 32), (64, 3, 64, 64))
# ours, and the same update in diffusers and k-diffusion
LOOPS = {"ddim": ("DDIM", {"clip_sample": False}, "euler"), "dpm++2m": ("DPMSolverMultistep", {}, "dpmpp_2m")}

Run = Callable[[], Tensor]
Prepare = Callable[[], Run]  # what comes before the clock, and the loop it leads to


class Planned(AnyDenoiser):
    """A denoiser whose plan was made before the clock started."""

    def __init__(self, denoiser: scoresde.Denoiser, table: Table, x: Tensor) -> None:
        self.sde, self.made = denoiser.sde, denoiser.plan(table.space, [row.t for row in table.rows], x)

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: object) -> Plan:
        return self.made


def ours(table: Table, denoiser: scoresde.Denoiser, x: Tensor) -> Run:
    """The library's loop, its plan made."""
    planned = Planned(denoiser, table, x)

    def run() -> Tensor:
        with torch.no_grad():
            return table.run(planned, x)[0]

    return run


def diffusers(name: str, config: Mapping[str, object], x: Tensor) -> Prepare:
    """A scheduler's loop as its pipelines write it."""
    from adapters import scheduler_class

    scheduler = scheduler_class(name)(timestep_spacing="trailing", **config)

    def prepare() -> Run:
        scheduler.set_timesteps(STEPS)
        return run

    def run() -> Tensor:
        y = x
        with torch.no_grad():
            for t in scheduler.timesteps:
                y = scheduler.step(free(scheduler.scale_model_input(y, t), t), t, y, return_dict=False)[0]
        return y

    return prepare


def k_diffusion(name: str, x: Tensor) -> Prepare:
    """A sampling function on given noise levels."""
    from adapters import k_diffusion, k_sigmas

    sample = getattr(k_diffusion(), f"sample_{name}")
    sigmas = torch.tensor(k_sigmas("karras", scoresde.VPSDE(), STEPS, True), dtype=x.dtype)
    return lambda: partial(sample, free, x, sigmas, disable=True)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def row(name: str, shape: tuple[int, ...]) -> list[str]:
    """The cells of one sampler at one shape."""
    sde = scoresde.VPSDE()
    denoiser = scoresde.Denoiser(free, sde, "eps")
    build = SAMPLERS[name].build
    table = build(sde, make_grid("phi", sde, STEPS, "zero")) if build else None
    assert isinstance(table, Table)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mine, shortest = ours(table, denoiser, x), floor(table, denoiser, x)
    assert torch.allclose(shortest(), mine(), rtol=1e-4, atol=1e-4)
    repeats = REPEATS if x.numel() < 1e5 else REPEATS // 10
    pairs = [(seconds(mine), seconds(shortest)) for _ in range(repeats)]
    ratio = statistics.median(a / b for a, b in pairs)
    costs = [_per_step(column) for column in zip(*pairs, strict=True)]
    scheduler, config, function = LOOPS[name]
    theirs = [
        _per_step([seconds(prepare()) for _ in range(repeats)]) if prepare else "–"
        for prepare in (
            diffusers(scheduler, config, x) if importlib.util.find_spec("diffusers") else None,
            k_diffusion(function, x) if importlib.util.find_spec("k_diffusion") else None,
        )
    ]
    plan = 1e6 * statistics.median(seconds(partial(Planned, denoiser, table, x)) for _ in range(20))
    return [name, str(shape), *costs, f"{ratio:.2f}", *theirs, f"{plan:.0f}"]


def _per_step(times: Sequence[float]) -> str:
    return f"{1e6 * statistics.median(times) / STEPS:.1f}"


def main() -> None:
    torch.set_num_threads(1)
    heads = ("ours, µs/step", "floor, µs/step", "ours / floor", "diffusers", "k-diffusion", "our plan, µs/run")
    print("| sampler | shape | " + " | ".join(heads) + " |\n" + "|---" * (2 + len(heads)) + "|")
    for name in LOOPS:
        for shape in SHAPES:
            print("| " + " | ".join(row(name, shape)) + " |", flush=True)


if __name__ == "__main__":
    main()
