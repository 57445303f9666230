"""T-shirts from a model that is told no class: a classifier of noisy images steers it, the more the larger w.

    python examples/guided_tshirts.py
    python examples/guided_tshirts.py --curve guidance-curve.png

The score of p(x_t | y) is ∇ log p(x_t) + ∇ log p(y | x_t) (Song et al. 2021, eq. 14); the second term is taken w times
(Dhariwal & Nichol 2021, section 4). The model is the shipped one of Fashion-MNIST with its null class, the classifier
the shipped one of noisy images; how many of the results are T-shirts is judged by a third network, which saw clean
images only. Each row of the picture starts from the same noise; the top row is not guided.

With --curve a second picture and a table show what w costs: for --total images of all classes alike, the share that the
judge finds in the class that was asked, and coverage, the share of as many test images that have a sample nearby.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde import Model
from scoresde.data import load, to_uint8
from scoresde.guidance import classifier_guidance
from scoresde.metrics import load_features, prdc, within_class_std
from scoresde.pictures import image_grid
from scoresde.plotting.figure import empty, line_colour, plain

WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)


def draw(model: Model, classifier: scoresde.NoisyClassifier, w: float, y: torch.Tensor, steps: int) -> torch.Tensor:
    """An image of each class in y, sample i from noise i whatever w is."""
    denoiser, shape = classifier_guidance(model.denoiser, classifier, w), (len(y), *model.event_shape)
    out = scoresde.sample(denoiser, shape, "ddim", steps, cond={"y": y}, batch_size=100)
    return to_uint8(model.scaler.decode(out.x))


def curve(model: Model, classifier: scoresde.NoisyClassifier, total: int, steps: int, path: Path) -> None:
    """Agreement and coverage at each w, printed as a table and drawn."""
    judge, test, y = load_features(), load("fashion_mnist", "test"), torch.arange(total) % len(model.classes)
    assert test.labels is not None
    real = test.take(torch.arange(total))
    features, spread = judge.features(real), within_class_std(real.float(), test.labels[:total])
    print("| w | agreement | coverage | spread within a class |\n|---|---|---|---|")
    found: list[tuple[float, float]] = []
    for w in WEIGHTS:
        images = draw(model, classifier, w, y, steps)
        own = judge.features(images)
        agreed = float((judge.classify(own) == y).double().mean())
        found.append((agreed, prdc(features, own).coverage))
        ratio = within_class_std(images.float(), y) / spread
        print(f"| {w:g} | {agreed:.3f} | {found[-1][1]:.3f} | {ratio:.2f} |", flush=True)
    figure = empty(4.2, 2.8, "agreement with the class that was asked rises with w, coverage of the test images falls")
    ax = figure.subplots()
    plain(ax)
    for k, name in enumerate(("agreement with the class asked", "coverage of test images")):
        ax.plot(WEIGHTS, [pair[k] for pair in found], "o-", color=line_colour(k), markersize=4, label=name)
    ax.set(xlabel="weight w of ∇ log p(y | x_t)", ylim=(0, 1))
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main() -> None:
    options = argparse.ArgumentParser(description="Guided T-shirts.")
    options.add_argument("--out", type=Path, default=Path("guided-tshirts.png"), help="the picture to write")
    options.add_argument("--num", type=int, default=16, help="T-shirts for each w")
    options.add_argument("--steps", type=int, default=25, help="of DDIM")
    options.add_argument("--label", default="T-shirt/top", help="another class")
    options.add_argument("--curve", type=Path, help="write this picture too, of agreement and coverage")
    options.add_argument("--total", type=int, default=200, help="images for each w of the curve")
    given = options.parse_args()
    model = scoresde.load_model("fashion-mnist")
    classifier = scoresde.load_classifier("fashion-mnist-classifier", model=model)
    judge, k = load_features(), model.classes.index(given.label)
    rows: list[torch.Tensor] = []
    for w in WEIGHTS:
        rows.append(draw(model, classifier, w, torch.full((given.num,), k), given.steps))
        share = float((judge.predict(rows[-1]) == k).double().mean())
        print(f"w = {w:g}: {share:.0%} are of class {given.label}", flush=True)
    labels = torch.arange(len(rows)).repeat_interleave(given.num)
    given.out.write_bytes(image_grid(torch.cat(rows).numpy(), labels.numpy()))
    print(f"picture: {given.out}")
    if given.curve:
        curve(model, classifier, given.total, given.steps, given.curve)


if __name__ == "__main__":
    main()
