"""What the weight of guidance buys and costs on the shipped image model: class agreement, coverage.

    python benchmarks/guidance.py --out docs/guidance-free.png
    python benchmarks/guidance.py --classifier --num 200 --sampler ddim --nfe 15 --out docs/guidance-curve.png

For each weight, `--num` images of all classes alike, from the same noise. A classifier that saw clean images only
judges which are of the class that was asked; coverage is the share of as many test images that have a sample nearby in
its features (Naeem et al. 2020), precision the share of samples that have a test image nearby, spread the standard
deviation within a class beside that of the test images. Printed as the table of a page in
docs/, and drawn. Guidance is classifier-free, or by the shipped classifier of a model that is told no class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde.data import load, to_uint8
from scoresde.guidance import classifier_free, classifier_guidance
from scoresde.metrics import load_features, prdc, within_class_std
from scoresde.plotting.figure import empty, line_colour, plain

FREE, BY_CLASSIFIER = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0), (0.0, 1.0, 2.0, 4.0, 8.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=500, help="images for each weight (default: 500)")
    parser.add_argument("--nfe", type=int, default=20, help="calls (default: 20)")
    parser.add_argument("--sampler", default="dpm++2m")
    parser.add_argument("--classifier", action="store_true", help="guide by the shipped classifier")
    parser.add_argument("--out", type=Path, help="a PNG to draw")
    asked = parser.parse_args()
    model, judge, test = scoresde.load_model("fashion-mnist"), load_features(), load("fashion_mnist", "test")
    assert test.labels is not None
    other = scoresde.load_classifier("fashion-mnist-classifier", model=model) if asked.classifier else None
    values = BY_CLASSIFIER if other else FREE
    y, real = torch.arange(asked.num) % len(model.classes), test.take(torch.arange(asked.num))
    features, spread = judge.features(real), within_class_std(real.float(), test.labels[: asked.num])
    print("| w | agreement | coverage | precision | spread within a class |\n|---|---|---|---|---|")
    found: list[tuple[float, float]] = []
    for w in values:
        guided = classifier_guidance(model.denoiser, other, w) if other else classifier_free(model.denoiser, w)
        shape = (asked.num, *model.event_shape)
        out = scoresde.sample(guided, shape, asked.sampler, nfe=asked.nfe, cond={"y": y}, batch_size=100)
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
            ax.plot(values, [pair[k] for pair in found], "o-", color=line_colour(k), markersize=4, label=name)
        ax.set(xlabel="w of w ∇ log p(y | x_t)" if other else "w of ε_u + w (ε_c - ε_u)", ylim=(0, 1))
        ax.legend(frameon=False, fontsize=8)
        figure.savefig(asked.out)


if __name__ == "__main__":
    main()
