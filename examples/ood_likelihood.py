"""Is what a model finds likely what it was trained on? Bits per dimension of held-out images, blanks and noise.

    SCORESDE_DATA=... python examples/ood_likelihood.py --out ood.png

The shipped model of clothes and log P of whole numbers by the probability flow. Noise and shuffled pixels are told at
once: they cost many bits. Blank images cost the least of all, less than the clothes the model was trained on: a
likelihood alone does not say that something belongs to the data (Nalisnick et al. 2019). A better question is how far
from the usual the bits of an image are, on either side.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import scoresde
from scoresde.data import load

INK = "#606060"


def sets(num: int) -> dict[str, Tensor]:
    """Images of each kind, uint8."""
    generator = torch.Generator().manual_seed(0)
    held_out = load("fashion_mnist", "test").x[:num]
    order = torch.stack([torch.randperm(784, generator=generator) for _ in range(num)])
    flat = held_out.flatten(1)
    return {
        "held-out clothes": held_out,
        "flipped upside down": held_out.flip(2),
        "inverted": 255 - held_out,
        "black": torch.zeros_like(held_out[:1]),
        "grey": torch.full_like(held_out[:1], 128),
        "pixels shuffled": flat.gather(1, order).reshape(held_out.shape),
        "uniform noise": torch.randint(0, 256, held_out.shape, generator=generator, dtype=torch.uint8),
    }


def main() -> None:
    options = argparse.ArgumentParser(description="Bits per dimension of images in and out of the data.")
    options.add_argument("--out", type=Path, help="a PNG to draw")
    options.add_argument("--num", type=int, default=6, help="images of each kind")
    options.add_argument("--steps", type=int, default=12, help="of rk4")
    given = options.parse_args()
    model, kinds = scoresde.load_model(), sets(given.num)
    print(f"{'':22}{'bits/dim':>9}{'least':>8}{'most':>8}")
    bits: dict[str, Tensor] = {}
    for name, x in kinds.items():
        found = scoresde.discrete_log_prob(model.denoiser, x, given.steps, scaler=model.scaler, divergence="hutchinson")
        bits[name] = scoresde.bits_per_dim(found)
        print(f"{name:22}{bits[name].mean():9.2f}{bits[name].min():8.2f}{bits[name].max():8.2f}", flush=True)
    if given.out:
        figure = Figure(figsize=(9, 1.8), dpi=120, layout="constrained")
        ranked = sorted(kinds, key=lambda name: float(bits[name].mean()))
        for ax, name in zip(figure.subplots(1, len(kinds)), ranked, strict=True):
            ax.imshow(kinds[name][0, 0].numpy(), cmap="gray", vmin=0, vmax=255)
            ax.set_title(f"{name}\n{float(bits[name].mean()):.2f} bits", color=INK, fontsize=7)
            ax.set_axis_off()
        figure.savefig(given.out)
        print(f"picture: {given.out}")


if __name__ == "__main__":
    main()
