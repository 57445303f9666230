"""Samples and the states on the way to them, as what a page can show: small pictures, or points in a square."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.comparison.plan import Planned
from scoresde.model import Model
from scoresde.page import image, source
from scoresde.pictures import tiled

COLUMNS, ROWS = 4, 2  # images in a cell
SIDE = 64  # pixels of an image, at most
POINTS, WALKERS = 1000, 150  # points in a cell, and on the way
SQUARE = 1000  # the side of the square that points lie in
ROOM = 3_000_000  # bytes that all states may take


@dataclass(frozen=True, eq=False)
class Way:
    """A run of some samples: x_t at every time of the grid, and the x̂_0 that was found from each."""

    label: str
    times: list[float]
    calls: list[int]
    x: list[Tensor]
    x0: list[Tensor]


def way(planned: Planned, label: str, first: int) -> Way:
    """Walk the first samples of a run again, apart from the run whose time was taken."""
    job = planned.job(first)
    with torch.no_grad():
        x, noise, cond = next(job.batches(first))
        times, calls, states, estimates = [job.solver.times[0]], [0], [x.cpu()], list[Tensor]()
        for step in job.solver.iterate(job.denoiser, x, noise, **cond):
            times.append(step.t_next)
            calls.append(step.nfe)
            states.append(step.x.cpu())
            estimates.append(step.x0.cpu())
    return Way(label, times, calls, states, [*estimates, estimates[-1]])


class Images:
    """Events with rows and columns, large ones reduced; pixels as they are, other numbers from smallest to largest."""

    kind, first = "images", 1

    def __init__(self, model: Model) -> None:
        self.model, self.pixels = model, model.info["config"]["data"]["scaler"] == "image"
        self.bytes = 4 * min(SIDE, max(model.event_shape)) ** 2 // 3

    def cell(self, x: Tensor, alt: str) -> str:
        """The first samples as a block of a page."""
        return image(tiled(self._shades(x[: COLUMNS * ROWS]), COLUMNS), alt)

    def frames(self, x: Sequence[Tensor]) -> list[Any]:
        """The first sample of each step."""
        return [source(tiled(self._shades(step[:1]), 1)) for step in x]

    def _shades(self, x: Tensor) -> np.ndarray:
        x = self.model.scaler.decode(x)
        x = x if x.ndim == 4 else x[:, None]
        x = torch.nn.functional.avg_pool2d(x, -(-max(x.shape[2:]) // SIDE), ceil_mode=True)
        low, high = (0.0, 255.0) if self.pixels else (float(x.min()), float(x.max()))
        return ((x - low) * (255 / max(high - low, 1e-9))).round().clamp(0, 255).to(torch.uint8).numpy()


class Points:
    """Events without, by their first two coordinates; all that a page shows of them lies in one square."""

    kind, first = "points", WALKERS

    def __init__(self, model: Model, extent: Tensor) -> None:
        self.model, self.bytes = model, 9 * WALKERS
        at = self._plane(extent)
        low, high = at.amin(0), at.amax(0)
        self.span = 1.1 * (high - low).max().clamp(min=1e-9)
        self.low = (low + high - self.span) / 2

    def cell(self, x: Tensor, alt: str) -> str:
        """The samples as dots."""
        at = self._square(x[:POINTS])
        dots = "".join(f"M{a} {b}h0" for a, b in zip(at[::2], at[1::2], strict=True))
        label = f'role="img" aria-label="{html.escape(alt)}"'
        return f'<svg class="dots" viewBox="0 0 {SQUARE} {SQUARE}" {label}><path d="{dots}"/></svg>'

    def frames(self, x: Sequence[Tensor]) -> list[Any]:
        """The coordinates of each step: x, y, x, y, ..."""
        return [self._square(step) for step in x]

    def _square(self, x: Tensor) -> list[int]:
        at = (self._plane(x) - self.low) / self.span * SQUARE
        at[:, 1] = SQUARE - at[:, 1]
        return at.round().clamp(-SQUARE, 2 * SQUARE).int().flatten().tolist()

    def _plane(self, x: Tensor) -> Tensor:
        flat = self.model.scaler.decode(x).flatten(1)
        if flat.shape[1] > 1:
            return flat[:, :2]
        return torch.cat([flat, torch.linspace(0, 1, len(flat))[:, None]], dim=1)  # numbers, one above the other


def walked(ways: Sequence[Way], model: Model, view: Images | Points) -> list[dict[str, Any]]:
    """The ways as numbers and texts for a page, of each as many steps as all have room for.

    States are shown at the scale of the data: x_t / sqrt(α² + σ²).
    """
    most = max(2, ROOM // (2 * view.bytes * len(ways)))
    shown: list[dict[str, Any]] = []
    for each in ways:
        last = len(each.times) - 1
        steps = sorted({round(k * last / (most - 1)) for k in range(most)}) if last >= most else range(last + 1)
        shown.append(
            {
                "label": each.label,
                "times": [f"{each.times[k]:.3g}" for k in steps],
                "calls": [each.calls[k] for k in steps],
                "x": view.frames([each.x[k] / model.sde.prior_std(each.times[k]) for k in steps]),
                "x0": view.frames([each.x0[k] for k in steps]),
            }
        )
    return shown
