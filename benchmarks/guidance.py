"""What the weight of classifier-free guidance buys and costs on the shipped image model: class agreement, coverage.

    python benchmarks/guidance.py --out docs/guidance-free.png

For each weight, `--num` images of all classes alike, from the same noise. A classifier that saw clean images only
judges which are of the class that was asked; coverage is the share of as many test images that have a sample nearby in
its features (Naeem et al. 2020), precision the share of samples that have a test image nearby, spread the standard
deviation within a class beside that of the test images. Printed as the table of docs/guidance.md, and drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde.data import load, to_uint8
from scoresde.guidance import classifier_free
from scoresde.metrics import load_features, prdc, within_class_std
from scoresde.plotting.figure import empty, line_colour, plain

WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=500, help="images for each weight (default: 500)")
    parser.add_argument("--nfe", type=int, default=20, help="calls of dpm++2m (default: 20)")
    parser.add_argument("--out", type=Path, help="a PNG to draw")
    asked = parser.parse_args()
    model, judge, test = scoresde.load_model("fashion-mnist"), load_features(), load("fashion_mnist", "test")
    assert test.labels is not None
    y, real = torch.arange(asked.num) % len(model.classes), test.take(torch.arange(asked.num))
    features, spread = judge.features(real), within_class_std(real.float(), test.labels[: asked.num])
    print("| w | agreement | coverage | precision | spread within a class |\n|---|---|---|---|---|")
    found: list[tuple[float, float]] = []
    for w in WEIGHTS:
        guided, shape = classifier_free(model.denoiser, w), (asked.num, *model.event_shape)
        out = scoresde.sample(guided, shape, "dpm++2m", nfe=asked.nfe, cond={"y": y}, batch_size=100)
        images = to_uint8(model.scaler.decode(out.x))
        own = judge.features(images)
        near, agreed = prdc(features, own), float((judge.classify(own) == y).double().mean())
        found.append((agreed, near.coverage))
        ratio = within_class_std(images.float(), y) / spread
        print(f"| {w:g} | {agreed:.3f} | {near.coverage:.3f} | {near.precision:.3f} | {ratio:.2f} |", flush=True)
    if asked.out:
        figure = empty(4.2, 2.8, "agreement with the class asked rises with w, coverage of the test images falls")
        ax = figure.subplots()
        plain(ax)
        for k, name in enumerate(("agreement with the class asked", "coverage of test images")):
            ax.plot(WEIGHTS, [pair[k] for pair in found], "o-", color=line_colour(k), markersize=4, label=name)
        ax.set(xlabel="w of ε_u + w (ε_c - ε_u)", ylim=(0, 1))
        ax.legend(frameon=False, fontsize=8)
        figure.savefig(asked.out)


if __name__ == "__main__":
    main()
