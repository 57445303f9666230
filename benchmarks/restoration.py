"""Restoration of Fashion-MNIST test images by the shipped model's null class, against what needs no model.

    python benchmarks/restoration.py [--first 5000] [--num 100] [--steps 20] [--noise-std 10] [--methods ...]

Per operator and method: PSNR in dB, the mean over images of 10 log10(255²/mse), and the distance in features, the mean
Euclidean distance of an image's 64 features (`scoresde.metrics.load_features`) from those of the original; both on
images rounded to uint8, one draw each. Baselines: bilinear enlargement, the blurred image itself, zero-filled pixels
and Fourier lines, and for CT the regularised inverse. Rows are printed, and written, as they are done.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import scoresde
from scoresde.data import load, to_uint8
from scoresde.guidance import Linear, chain_strength, measured, parse_operator
from scoresde.metrics import load_features

OPERATORS = ("down:4", "mask:0.3", "blur:2", "fourier:4", "radon:8")
METHODS = ("ddnm", "pigdm", "dps", "diffpir", "mcg")
ZETA = 5.0


def baseline(word: str, operator: Linear, y: Tensor, noise_std: float) -> Tensor:
    """What is done without a model."""
    if word.startswith("down"):
        return interpolate(y, size=operator.shape[-2:], mode="bilinear")
    if word.startswith("blur"):
        return y
    return operator.inverse(y, (noise_std / 64) ** 2) if word.startswith("radon") else operator.adjoint(y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=5000, help="the first image's row; below 100 settings were chosen")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--noise-std", type=float, default=10.0)
    parser.add_argument("--operators", nargs="+", default=OPERATORS)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    model, features = scoresde.load_model(), load_features()
    truth = load("fashion_mnist", "test").take(torch.arange(given.first, given.first + given.num))
    wanted = features.features(truth)
    grid, final = scoresde.SAMPLERS["ddpm"].defaults(given.steps)
    chain = chain_strength(model.sde, scoresde.make_grid(grid, model.sde, given.steps, final), ZETA)
    rows: list[dict[str, object]] = []

    def report(word: str, method: str, x: Tensor, seconds: float) -> None:
        image = to_uint8(x)
        mse = (image.float() - truth.float()).square().mean((1, 2, 3))
        psnr = 10 * torch.log10(255**2 / mse)
        distance = (features.features(image) - wanted).norm(dim=1)
        row = {"operator": word, "method": method, "psnr": psnr, "features": distance}
        row = {
            k: [float(v.mean()), float(v.std()) / len(v) ** 0.5] if isinstance(v, Tensor) else v for k, v in row.items()
        }
        rows.append({**row, "seconds": round(seconds, 1), **{k: v for k, v in vars(given).items() if k != "json"}})
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print(f"| {word} | {method} | {psnr.mean():.2f} | {distance.mean():.2f} | {seconds:.0f} |", flush=True)

    measurements: dict[str, tuple[Linear, Tensor]] = {}
    for word in given.operators:
        operator = parse_operator(word, model.event_shape)
        y = operator(truth.float())
        y = y + given.noise_std * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
        measurements[word] = operator, y
        report(word, "baseline", baseline(word, operator, y, given.noise_std), 0.0)
    for method in given.methods:
        for word, (operator, y) in measurements.items():
            strength = chain if method in ("dps", "mcg") else 1.0
            d = measured(model.denoiser, y, operator, method, given.noise_std, strength, scaler=model.scaler)
            start = time.process_time()
            x = scoresde.sample(d, truth.shape, "ddpm", given.steps).x
            report(word, method, model.scaler.decode(x), time.process_time() - start)


if __name__ == "__main__":
    main()
