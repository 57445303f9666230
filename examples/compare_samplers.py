"""Samplers compared on equal terms: the same start, an exact denoiser, the error against the converged flow.

    python examples/compare_samplers.py

Deterministic samplers are measured against the flow itself, at the same number of network calls; stochastic ones by the
sliced Wasserstein distance of their samples to exact ones, with the distance of two exact sets as the floor.
"""

from __future__ import annotations

import torch

import scoresde
from scoresde.metrics import sliced_wasserstein

SHAPE, BUDGETS = (400, 2), (8, 16, 32, 64)


def main() -> None:
    data = scoresde.GaussianMixture.example(2)
    denoiser = data.denoiser(scoresde.VPSDE())
    flow = scoresde.sample(denoiser, SHAPE, "ode", steps=200, dtype=torch.float64).x

    print("rms error to the probability flow, by network calls")
    print(f"{'sampler':18}" + "".join(f"{n:>10}" for n in BUDGETS))
    for name, sampler in scoresde.SAMPLERS.items():
        if sampler.build and not sampler.stochastic:
            outs = [
                scoresde.sample(denoiser, SHAPE, name, nfe=n, final="t_min", dtype=torch.float64).x for n in BUDGETS
            ]
            print(f"{name:18}" + "".join(f"{float((out - flow).square().mean().sqrt()):10.1e}" for out in outs))

    exact, other = data.sample(SHAPE[0], seed=1), data.sample(SHAPE[0], seed=2)
    print("\nsliced Wasserstein distance to exact samples, 128 calls")
    print(f"{'exact':18}{sliced_wasserstein(exact, other, order=1).value:10.3f}")
    for name, sampler in scoresde.SAMPLERS.items():
        if sampler.build and sampler.stochastic:
            out = scoresde.sample(denoiser, SHAPE, name, nfe=128, dtype=torch.float64).x
            print(f"{name:18}{sliced_wasserstein(exact, out, order=1).value:10.3f}")


if __name__ == "__main__":
    main()
