"""Samplers compared on equal terms: the same start, the error against the converged flow at as many network calls.

    python examples/compare_samplers.py

On a mixture with its exact denoiser: deterministic samplers against the flow itself, stochastic ones by the sliced
Wasserstein distance of their samples to exact ones, with the distance of two exact sets as the floor. Then some of them
on the shipped image model, classes in turn: not every order of the mixture is that of images.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import scoresde
from scoresde.metrics import sliced_wasserstein

BUDGETS = (8, 16, 32, 64)
OF_IMAGES, FEW = ("auto", "ddim", "heun", "dpm++2m", "unipc", "ode"), (6, 12)


def mixture(num: int) -> None:
    shape = (num, 2)
    data = scoresde.GaussianMixture.example(2)
    denoiser = data.denoiser(scoresde.VPSDE())
    flow = scoresde.sample(denoiser, shape, "ode", steps=200, dtype=torch.float64).x

    print("rms error to the probability flow, by network calls")
    print(f"{'sampler':18}" + "".join(f"{n:>10}" for n in BUDGETS))
    for name, sampler in scoresde.SAMPLERS.items():
        if sampler.build and not sampler.stochastic:
            outs = [
                scoresde.sample(denoiser, shape, name, nfe=n, final="t_min", dtype=torch.float64).x for n in BUDGETS
            ]
            print(f"{name:18}" + "".join(f"{float((out - flow).square().mean().sqrt()):10.1e}" for out in outs))

    exact, other = data.sample(num, seed=1), data.sample(num, seed=2)
    print("\nsliced Wasserstein distance to exact samples, 128 calls")
    print(f"{'exact':18}{sliced_wasserstein(exact, other, order=1).value:10.3f}")
    for name, sampler in scoresde.SAMPLERS.items():
        if sampler.build and sampler.stochastic:
            out = scoresde.sample(denoiser, shape, name, nfe=128, dtype=torch.float64).x
            print(f"{name:18}{sliced_wasserstein(exact, out, order=1).value:10.3f}")


def images(num: int) -> None:
    model = scoresde.load_model()
    how: dict[str, Any] = {"cond": {"y": torch.arange(num) % len(model.classes)}, "final": "t_min"}
    shape = (num, *model.event_shape)
    flow = scoresde.sample(model.denoiser, shape, "ode", 25, **how).x
    print(
        f"\nrms error to the probability flow of the image model, {num} images of pixels in [-1, 1], by network calls"
    )
    print(f"{'sampler':18}" + "".join(f"{n:>10}" for n in FEW))
    for name in OF_IMAGES:
        outs = [scoresde.sample(model.denoiser, shape, name, nfe=n, **how).x for n in FEW]
        print(f"{name:18}" + "".join(f"{float((out - flow).square().mean().sqrt()):10.3f}" for out in outs), flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description="Samplers on a mixture and on images.")
    options.add_argument("--images", type=int, default=8, help="images to draw by each sampler")
    options.add_argument("--points", type=int, default=400, help="points of the mixture to draw by each sampler")
    given = options.parse_args()
    mixture(given.points)
    images(given.images)


if __name__ == "__main__":
    main()
