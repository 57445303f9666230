"""Classes of the shipped model at growing weights of classifier-free guidance, and what that costs.

    python examples/guided_classes.py
    python examples/guided_classes.py --steps 20 --classes 10 --out guidance.png

Each row of the picture is a weight, each column one noise. More weight shows more of the class and less variety; with
an interval of noise levels the guidance is left out where it only costs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import scoresde
from scoresde.data import to_uint8
from scoresde.guidance import classifier_free
from scoresde.pictures import image_grid

WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=5, help="columns, one class each (default: 5)")
    parser.add_argument("--steps", type=int, default=6, help="steps of dpm++2m (default: 6)")
    parser.add_argument("--out", type=Path, default=Path("guided-classes.png"))
    asked = parser.parse_args()

    model = scoresde.load_model("fashion-mnist")
    y = torch.arange(asked.classes)
    rows: list[torch.Tensor] = []
    print("weight  calls  network evaluations  inside 0.3 < sigma/alpha <= 3 only")
    for w in WEIGHTS:
        guided, shape = classifier_free(model.denoiser, w), (len(y), *model.event_shape)
        out = scoresde.sample(guided, shape, "dpm++2m", asked.steps, cond={"y": y})
        rows.append(out.x)
        guided = classifier_free(model.denoiser, w, interval=(0.3, 3.0))
        part = scoresde.sample(guided, (1, *model.event_shape), "dpm++2m", asked.steps, cond={"y": y[:1]})
        print(f"{w:6g}  {out.nfe:5}  {out.network_evals:19}  {part.network_evals:34}")
    images = to_uint8(model.scaler.decode(torch.cat(rows))).numpy()
    asked.out.write_bytes(image_grid(images, torch.arange(len(WEIGHTS)).repeat_interleave(len(y)).numpy()))
    print(f"written: {asked.out}")


if __name__ == "__main__":
    main()
