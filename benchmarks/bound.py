"""The variational bound, in bits per coordinate, that each objective reaches on the same data and budget.

    SCORESDE_DATA=... python benchmarks/bound.py                 forty minutes on one busy CPU core
    SCORESDE_DATA=... python benchmarks/bound.py --steps 4000

Fashion-MNIST at 14 x 14 (means of 2 x 2 pixels, 256 values), a small U-Net, a chain of cosine betas; every objective
gets the same network (with a learned variance as many weights more as its last convolution needs), steps, batches and
seed. The bound L_0 + ... + L_T is taken with the averaged weights on the first held-out images, at every step of the
chain, with the same noise for all; without a learned variance the better of the two fixed ones is reported. "±" is the
standard error of the paired difference to L_simple over the images.
"""

from __future__ import annotations

from typing import Any

import click
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from scoresde.config import parse_config
from scoresde.data import Dataset, load
from scoresde.likelihood import variational_bound
from scoresde.train.preview import averaged
from scoresde.train.run import Run

NETWORK = {"name": "unet", "channels": 24, "multipliers": [1, 2], "blocks": 1, "attention": [], "patch": 1}
LEARNED = {"learned_variance": True}
OBJECTIVES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # name: keys of the config, keys of its `train`
    "L_simple": ({}, {"times": "index"}),
    "hybrid, learned variance": (LEARNED, {"objective": "hybrid", "times": "index"}),
    "L_vlb, learned variance": (LEARNED, {"objective": "vlb", "times": "loss_aware"}),
    "likelihood weighting": ({}, {"weighting": "likelihood", "times": "importance"}),
}


def small(split: str, n: int) -> Dataset:
    """The first images at half the size."""
    data = load("fashion_mnist", split)
    x = F.avg_pool2d(data.x[:n].float(), 2).round().to(torch.uint8)
    return Dataset(x, name=f"{data.name}, 14 x 14")


def trained(name: str, data: Dataset, chain: int, steps: int, seed: int) -> Run:
    top, train = OBJECTIVES[name]
    common = {"steps": steps, "batch_size": 64, "lr": 1e-3, "warmup": 100, "ema": 0.995, "seed": seed}
    values = {"data": {"name": "fashion_mnist", "scaler": "image"}, "network": NETWORK, "prediction": "eps"}
    sde = {"name": "ddpm", "betas": "cosine", "N": chain}
    run = Run(parse_config({**values, "sde": sde, "time": "1000t", **top, "train": {**common, **train}}), data)
    for _ in track(range(steps), name, console=Console(stderr=True)):
        run.advance()
    return run


@torch.no_grad()
def bits(run: Run, x: Tensor, chain: int, variance: str) -> Tensor:
    """Bits per coordinate of every image."""
    bound = variational_bound(run.denoiser, x, chain, levels=256, variance=variance, scaler=run.scaler)
    assert bound.bits_per_dim is not None
    return bound.bits_per_dim


@click.command(help=__doc__)
@click.option("--steps", default=2000, show_default=True, type=click.IntRange(1))
@click.option("--chain", default=50, show_default=True, type=click.IntRange(2), help="N, the steps of the chain.")
@click.option("--images", default=256, show_default=True, type=click.IntRange(8))
@click.option("--seed", default=0, show_default=True)
def main(steps: int, chain: int, images: int, seed: int) -> None:
    data, held_out = small("train", 60_000), small("test", images)
    table = Table("objective", "bits per coordinate", "less than L_simple by", "±")
    simple: Tensor | None = None
    for name in OBJECTIVES:
        run = trained(name, data, chain, steps, seed)
        with averaged(run):
            fixed = [bits(run, held_out.x, chain, variance) for variance in ("posterior", "upper")]
        found = min(fixed, key=lambda each: float(each.mean()))
        simple = found if simple is None else simple
        gain = simple - found
        error = float(gain.std()) / len(gain) ** 0.5
        table.add_row(name, f"{float(found.mean()):.4f}", f"{float(gain.mean()):.4f}", f"{error:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
