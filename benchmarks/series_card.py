"""Measure how close a model of windows of a series is to test windows and write the figures on its card.

    python benchmarks/series_card.py --model etth1

As many windows as --num are drawn by `ode` in 10 steps and compared with as many test windows, spread evenly over their
months, by the sliced Wasserstein distance in units of each channel's standard deviation (root mean square over random
directions of unit length). The floors are other test windows, and training windows: the months differ. What the model
makes of gaps is told by examples/impute_series.py.
"""

from __future__ import annotations

import argparse
import json

import torch
from torch import Tensor

import scoresde
from scoresde.checkpoint import write_atomically
from scoresde.data import Dataset, load
from scoresde.metrics import sliced_wasserstein
from scoresde.model import shipped


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="etth1", choices=shipped())
    parser.add_argument("--num", type=int, default=512)
    given = parser.parse_args()
    model, path = scoresde.load_model(given.model), shipped()[given.model].with_suffix(".json")
    config = model.info["config"]["data"]
    train, test = (load(config["name"], split, **config["options"]) for split in ("train", "test"))

    def some(data: Dataset, first: int) -> Tensor:
        rows = torch.linspace(first, len(data) - 1, given.num).long()
        return model.scaler.encode(data.take(rows)).flatten(1).double()

    out = scoresde.sample(model.denoiser, (given.num, *model.event_shape), "ode", 10, batch_size=128)
    reference = some(test, 0)
    parts = {
        "floor: test": {"sliced_w2": sliced_wasserstein(some(test, 48), reference).value},
        "floor: train": {"sliced_w2": sliced_wasserstein(some(train, 0), reference).value},
        "ode-10": {"sliced_w2": sliced_wasserstein(out.x.flatten(1).double(), reference).value, "nfe": out.nfe},
    }
    card = {
        "model": given.model,
        "data": model.info["data"],
        "config": model.info["config"],
        "steps": model.info["step"],
        "parameters": sum(p.numel() for p in model.denoiser.network.parameters()),  # pyright: ignore
        "sha256": model.info["sha256"],
        "test": {"name": test.name, "rows": given.num, "sha256": test.sha256},
        "command": f"python benchmarks/series_card.py --model {given.model} --num {given.num}",
        "figures": parts,
    }
    write_atomically(path, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())
    for part, values in parts.items():
        print(f"{part:13} sliced W2 = {values['sliced_w2']:.4f}")


if __name__ == "__main__":
    main()
