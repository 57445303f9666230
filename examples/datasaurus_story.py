"""How a small network learns a shape in the plane, in five steps, each with one more thing that matters.

    python examples/datasaurus_story.py

The shape is the dinosaur of the Datasaurus Dozen: 142 points, read from SCORESDE_DATA or downloaded once. Each of
the five is a training run, the same but for the settings below, and a picture of what the network draws, with the
Wasserstein distance to the data: how far a drawn point has to be moved, on average, for all of them together to be the
142 points, each as often. Nothing is held out: with so few points, to learn the set is to learn it by heart. The third
step gains nothing here, the others do, with each of seeds 0 to 2.

Written into --out: five pictures, and all side by side in story.png.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import scoresde
from scoresde.config import Config, parse_config
from scoresde.data import Dataset, load
from scoresde.metrics import wasserstein
from scoresde.train import train

STEPS: dict[str, dict[str, Any]] = {  # what each has, in sections of a config
    "no time": {"network": {"scales": [], "time": "none"}},
    "time as a number": {"network": {"scales": [], "time": "linear"}},
    "Fourier features of time": {"network": {"scales": [], "time": "fourier"}},
    "Fourier features of the point too": {"network": {"scales": [0.25, 1.0]}},
    "more times at little noise": {
        "network": {"scales": [0.25, 1.0]},
        "train": {"times": {"name": "lognormal", "mean": -1.2, "std": 1.2}},  # of EDM (Karras et al. 2022, table 1)
    },
}
INK, FAINT, BLUE = "#606060", "#d0d0d0", "#0072b2"


def config(step: dict[str, Any], steps: int, seed: int) -> Config:
    """A run of this step."""
    shared = {"steps": steps, "batch_size": 256, "lr": 4e-3, "warmup": min(100, steps - 1), "ema": 0.99, "seed": seed}
    return parse_config(
        {
            "data": {"name": "datasaurus:dino", "scaler": "standard"},
            "network": {"name": "mlp", "width": 128, "depth": 3, **step["network"]},
            "prediction": "v",
            "time": "t",
            "train": {**shared, "report": False, **step.get("train", {})},
        }
    )


def learn(step: dict[str, Any], dino: Dataset, steps: int, seed: int) -> torch.Tensor:
    """Train, and draw as many points as there are rows, by the probability flow."""
    with tempfile.TemporaryDirectory() as folder:
        model = scoresde.load_model(train(config(step, steps, seed), folder, data=dino))
    out = scoresde.sample(model.denoiser, (len(dino), 2), "ode", steps=25, seed=seed)
    return model.scaler.decode(out.x)


def draw(ax: Axes, drawn: torch.Tensor, data: torch.Tensor, title: str, distance: float) -> None:
    """Drawn points over those of the data."""
    ax.scatter(*data.T, s=9, c=FAINT, linewidths=0)
    ax.scatter(*drawn.T, s=3, c=BLUE, alpha=0.6, linewidths=0)
    ax.set(xlim=(0, 105), ylim=(-5, 110), aspect="equal", xticks=(0, 50, 100), yticks=(0, 50, 100))
    ax.set_title(f"{title}\ndistance {distance:.2f}", color=INK, fontsize=9)
    ax.tick_params(colors=INK, labelsize=7, length=2, color=FAINT)
    for side in ax.spines.values():
        side.set_color(FAINT)


def main() -> None:
    options = argparse.ArgumentParser(description="A network learns a shape, in five steps.")
    options.add_argument("--out", type=Path, default=Path("datasaurus-story"), help="folder for the pictures")
    options.add_argument("--steps", type=int, default=1000, help="of each training run")
    options.add_argument(
        "--copies", type=int, default=8, help="of each of 142 points, for a larger batch; as many are drawn"
    )
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    points = load("datasaurus:dino").x
    dino = Dataset(points.repeat(given.copies, 1), name="datasaurus:dino")
    given.out.mkdir(parents=True, exist_ok=True)
    whole = Figure(figsize=(13, 3.3), dpi=150, layout="constrained")
    for number, (ax, (title, step)) in enumerate(zip(whole.subplots(1, len(STEPS)), STEPS.items(), strict=True), 1):
        drawn = learn(step, dino, given.steps, given.seed)
        distance = wasserstein(drawn, dino.x, order=1).value
        print(f"{number}. {title:34}{distance:6.2f}", flush=True)
        alone = Figure(figsize=(4, 4.2), dpi=150, layout="constrained")
        for panel in (ax, alone.subplots()):
            draw(panel, drawn, points, f"{number}. {title}", distance)
        alone.savefig(given.out / f"{number}-{title.replace(' ', '-').lower()}.png")
    again = points[torch.randint(len(points), (len(dino),), generator=torch.Generator().manual_seed(given.seed))]
    floor = wasserstein(again, dino.x, order=1).value
    print(f"   {'the data, drawn at random':34}{floor:6.2f}")
    note = f"distance: Wasserstein, in units of the axes; of points drawn from the data themselves {floor:.2f}"
    whole.supxlabel(note, color=INK, fontsize=8)
    whole.savefig(given.out / "story.png")
    print(f"pictures: {given.out}")


if __name__ == "__main__":
    main()
