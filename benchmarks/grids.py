"""Which grid and ending are each sampler's defaults: error against the converged flow, by sampler, budget and grid.

    python benchmarks/grids.py [--sde vp] [--model NAME]

Mean over samples of the rms error to the probability flow (rk4 in φ, 200 intervals), on the exact mixture in 2 and 16
dimensions, or with --model on that model's network; same start for all. The best of a row is bold.
"""

from __future__ import annotations

import argparse

import torch

import scoresde
from scoresde.denoiser import AnyDenoiser
from scoresde.samplers.ode import FIXED

CHOICES = [
    ("phi", "zero"), ("phi", "t_min"), ("t", "zero"), ("t", "t_min"), ("t2", "zero"), ("t2", "t_min"),
    ("lambda", "zero"), ("lambda", "t_min"), ("karras", "zero"), ("karras", "t_min"),
]  # fmt: skip
RUNS = [("ode", 10), *((name, n) for name in ("ddim", "dpm++2m", "eab2", "eab3") for n in (10, 20))]


def table(
    title: str, denoiser: AnyDenoiser, shape: tuple[int, ...], dtype: torch.dtype, cond: dict[str, torch.Tensor]
) -> None:
    reference = scoresde.sample(
        denoiser, shape, "ode", 200 if not cond else 60, grid="phi", final="t_min", dtype=dtype, cond=cond
    ).x
    print(f"\n{title}\n\n| sampler, steps | " + " | ".join(f"{grid}, {final}" for grid, final in CHOICES) + " |")
    print("|---" * (1 + len(CHOICES)) + "|")
    for name, steps in RUNS:
        errors: list[float] = []
        for grid, final in CHOICES:
            out = scoresde.sample(denoiser, shape, name, steps, grid=grid, final=final, dtype=dtype, cond=cond).x
            errors.append(float((out - reference).square().flatten(1).mean(1).sqrt().mean()))
        cells = (f"**{e:.4f}**" if e == min(errors) else f"{e:.4f}" for e in errors)
        print(f"| {name}, {steps} | " + " | ".join(cells) + " |", flush=True)
    print("\n| ode method | steps | calls | error |\n|---|---|---|---|")
    for method, calls in FIXED.items():
        out = scoresde.sample(denoiser, shape, "ode", 40 // calls, dtype=dtype, cond=cond, method=method)
        error = float((out.x - reference).square().flatten(1).mean(1).sqrt().mean())
        print(f"| {method} | {40 // calls} | {out.nfe} | {error:.5f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sde", default="vp", choices=scoresde.SDES)
    parser.add_argument("--model")
    args = parser.parse_args()
    if args.model:
        model = scoresde.load_model(args.model)
        n = 2 * max(1, len(model.classes))
        cond = {"y": torch.arange(n) % len(model.classes)} if model.classes else {}
        table(f"{args.model}, {n} samples", model.denoiser, (n, *model.event_shape), torch.float32, cond)
        return
    for d in (2, 16):
        exact = scoresde.GaussianMixture.example(d).denoiser(scoresde.SDES[args.sde]())
        table(f"mixture in {d} dimensions, {args.sde}, 256 samples", exact, (256, d), torch.float64, {})


if __name__ == "__main__":
    main()
