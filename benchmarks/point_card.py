"""Measure how close a class-conditional model of points is to its data and write the figures on its card.

    python benchmarks/point_card.py --model datasaurus

For every class as many samples as there are points, drawn by `ode` in 10 and 50 steps; W2 is the exact Wasserstein-2
distance (an optimal assignment) in the units of the data. The floor is the data against points drawn from them with
replacement: what a perfect sampler of the data set itself would measure.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

import scoresde
from scoresde.checkpoint import write_atomically
from scoresde.data import load
from scoresde.metrics import wasserstein
from scoresde.model import shipped


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="datasaurus", choices=shipped())
    name = parser.parse_args().model
    model, path = scoresde.load_model(name), shipped()[name].with_suffix(".json")
    data = load(model.info["config"]["data"]["name"])
    assert data.labels is not None
    parts: dict[str, dict[str, float]] = {"floor": {}, "ode-10": {}, "ode-50": {}}
    rng = np.random.default_rng(0)
    for k, label in enumerate(model.classes):
        points = data.x[data.labels == k].double()
        again = points[torch.from_numpy(rng.integers(len(points), size=len(points)))]
        parts["floor"][label] = wasserstein(points, again).value
        for steps in (10, 50):
            cond = {"y": torch.full((len(points),), k)}
            out = scoresde.sample(model.denoiser, (len(points), 2), "ode", steps, cond=cond, first=1000 * k).x
            parts[f"ode-{steps}"][label] = wasserstein(points, model.scaler.decode(out).double()).value
    figures = {part: {"w2": float(np.mean(list(by.values()))), "w2_by_class": by} for part, by in parts.items()}
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    card = {
        **kept,
        "model": name,
        "data": model.info["data"],
        "config": model.info["config"],
        "steps": model.info["step"],
        "parameters": sum(p.numel() for p in model.denoiser.network.parameters()),  # pyright: ignore
        "sha256": model.info["sha256"],
        "command": f"python benchmarks/point_card.py --model {name}",
        "units": "those of the data, whose standard deviations are 16.8 and 26.9",
        "figures": figures,
    }
    write_atomically(path, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())
    for part, values in figures.items():
        print(f"{part:8} W2 = {values['w2']:.2f}")


if __name__ == "__main__":
    main()
