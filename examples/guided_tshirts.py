"""T-shirts from a model that is told no class: a classifier of noisy images steers it, the more the larger w.

    python examples/guided_tshirts.py

The score of p(x_t | y) is ∇ log p(x_t) + ∇ log p(y | x_t) (Song et al. 2021, eq. 14); the second term is taken w times
(Dhariwal & Nichol 2021, section 4). The model is the shipped one of Fashion-MNIST with its null class, the classifier
the shipped one of noisy images; how many of the results are T-shirts is judged by a third network, which saw clean
images only. Each row of the picture starts from the same noise; the top row is not guided.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde import Model
from scoresde.data import to_uint8
from scoresde.guidance import classifier_guidance
from scoresde.metrics import load_features
from scoresde.pictures import image_grid

WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)


def draw(model: Model, classifier: scoresde.NoisyClassifier, w: float, y: torch.Tensor, steps: int) -> torch.Tensor:
    """An image of each class in y, sample i from noise i whatever w is."""
    denoiser, shape = classifier_guidance(model.denoiser, classifier, w), (len(y), *model.event_shape)
    out = scoresde.sample(denoiser, shape, "ddim", steps, cond={"y": y}, batch_size=100)
    return to_uint8(model.scaler.decode(out.x))


def main() -> None:
    options = argparse.ArgumentParser(description="Guided T-shirts.")
    options.add_argument("--out", type=Path, default=Path("guided-tshirts.png"), help="the picture to write")
    options.add_argument("--num", type=int, default=16, help="T-shirts for each w")
    options.add_argument("--steps", type=int, default=25, help="of DDIM")
    options.add_argument("--label", default="T-shirt/top", help="another class")
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


if __name__ == "__main__":
    main()
