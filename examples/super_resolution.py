"""Super-resolution: Fashion-MNIST test images from 7 x 7 means of their pixels, by five methods and one model.

    python examples/super_resolution.py [--out super-resolution.png] [--num 6] [--steps 20]

A picture with one draw of p(image | its 4 x 4 means, with noise of 5 of 255) by each, and the PSNR of all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

import scoresde
from scoresde.data import load, to_uint8
from scoresde.guidance import Downsample, chain_strength, measured
from scoresde.pictures import film

NOISE = 5.0


def psnr(x: torch.Tensor, truth: torch.Tensor) -> float:
    """The mean over images of 10 log10(255²/mse)."""
    return float((10 * torch.log10(255**2 / (x.float() - truth.float()).square().mean((1, 2, 3)))).mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("super-resolution.png"))
    parser.add_argument("--num", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    model = scoresde.load_model()
    truth = load("fashion_mnist", "test").take(torch.arange(given.num))
    operator = Downsample(4, model.event_shape)
    y = operator(truth.float())
    y = y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))

    grid, final = scoresde.SAMPLERS["ddpm"].defaults(given.steps)
    chain = chain_strength(model.sde, scoresde.make_grid(grid, model.sde, given.steps, final), 5.0)
    columns = {
        "original": truth,
        "measured": to_uint8(operator.inverse(y)),
        "bilinear": to_uint8(interpolate(y, size=(28, 28), mode="bilinear")),
    }
    for method in ("ddnm", "diffpir", "pigdm", "dps", "mcg"):
        strength = chain if method in ("dps", "mcg") else 1.0
        d = measured(model.denoiser, y, operator, method, NOISE, strength, scaler=model.scaler)
        x = scoresde.sample(d, truth.shape, "ddpm", given.steps).x
        columns[method] = to_uint8(model.scaler.decode(x))
    print("PSNR in dB:" + "".join(f"  {name} {psnr(x, truth):.1f}" for name, x in columns.items() if x is not truth))
    given.out.write_bytes(film(np.stack([x.numpy() for x in columns.values()]), list(columns)))
    print(given.out)


if __name__ == "__main__":
    main()
