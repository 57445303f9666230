"""The reverse SDE and the probability-flow ODE carry the same marginals along different paths.

    python examples/same_marginals.py --out marginals.png

A mixture on the line under VP, with its exact denoiser. Both runs start from the same draws of the prior; at some
levels of noise on the way the states of each are held against draws of the exact marginal p_t by the Wasserstein
distance, with that of two sets of exact draws as the floor. The picture has some paths of each over p_t: those of the
SDE are rough, those of the ODE smooth, and they never cross.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import scoresde
from scoresde.metrics import sliced_wasserstein  # on the line exact

SDE, DATA, GRID = scoresde.VPSDE(), scoresde.GaussianMixture.example(1), "phi"
INK, FAINT, BLUE, ORANGE = "#606060", "#d0d0d0", "#0072b2", "#d55e00"


def states(sampler: str, n: int, steps: int) -> tuple[list[float], Tensor]:
    """Times and states (times, n) of a run, the draws of the prior first."""
    start = SDE.prior_std() * torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    how: dict[str, Any] = {"x": start, "grid": GRID, "final": "t_min", "dtype": torch.float64}
    run = list(scoresde.trajectory(DATA.denoiser(SDE), (n, 1), sampler, steps, x0=False, **how))
    return [run[0].t, *(each.t_next for each in run)], torch.stack([start, *(each.x for each in run)]).squeeze(2)


def exact(t: float, n: int, seed: int) -> Tensor:
    """Draws of p_t."""
    noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)
    return SDE.perturb(DATA.sample(n, seed=seed), torch.full((n,), t, dtype=torch.float64), noise)


def draw(ax: Axes, title: str, times: list[float], paths: Tensor, colour: str) -> None:
    """Paths over the density, in φ: the share of noise as an angle."""
    phi = SDE.phi(torch.tensor(times, dtype=torch.float64)).numpy()
    x = torch.linspace(-3.2, 3.2, 200, dtype=torch.float64)
    density = np.stack([DATA.log_prob(x[:, None], SDE, t).exp().numpy() for t in times], 1)
    ax.pcolormesh(phi, x.numpy(), density**0.5, cmap="Greys", vmin=0, vmax=1.0, shading="gouraud", rasterized=True)
    ax.plot(phi, paths.numpy(), color=colour, linewidth=0.7, alpha=0.8)
    ax.set(xlim=(float(phi[0]), float(phi[-1])), ylim=(-3.2, 3.2), xlabel="φ, from noise to data")
    ax.set_title(title, color=INK, fontsize=10)
    ax.tick_params(colors=INK, labelsize=7, color=FAINT)
    for side in ax.spines.values():
        side.set_color(FAINT)


def main() -> None:
    options = argparse.ArgumentParser(description="The reverse SDE and the ODE carry the same marginals.")
    options.add_argument("--out", type=Path, help="a PNG to draw")
    options.add_argument("--n", type=int, default=4000, help="samples of each run")
    options.add_argument("--steps", type=int, default=300, help="of the SDE; the ODE takes a third")
    given = options.parse_args()
    runs = {"em": states("em", given.n, given.steps), "ode": states("ode", given.n, given.steps // 3)}
    print(f"Wasserstein distance to p_t, n = {given.n}\n{'t':>6}{'reverse SDE':>13}{'ODE':>9}{'exact':>9}")
    for share in (0.25, 0.5, 0.75, 1.0):
        row: list[str] = []
        for times, found in runs.values():
            i = round(share * (len(times) - 1))
            distance = sliced_wasserstein(exact(times[i], given.n, 1), found[i, :, None], order=1, directions=1)
            row.append(f"{distance.value:.3f}")
        t = runs["ode"][0][round(share * given.steps // 3)]
        floor = sliced_wasserstein(exact(t, given.n, 1), exact(t, given.n, 2), order=1, directions=1).value
        print(f"{t:6.3f}{row[0]:>13}{row[1]:>9}{floor:9.3f}", flush=True)
    ends = [found[-1] for _, found in runs.values()]
    moved = float((ends[0] - ends[1]).abs().mean())
    print(f"yet from one start the two end {moved:.2f} apart on average")
    if given.out:
        figure = Figure(figsize=(8, 3.2), dpi=120, layout="constrained")
        for ax, title, name, colour in zip(
            figure.subplots(1, 2, sharey=True), ("reverse SDE", "probability flow"), runs, (ORANGE, BLUE), strict=True
        ):
            times, found = runs[name]
            draw(ax, title, times, found[:, :14], colour)
        figure.savefig(given.out)
        print(f"picture: {given.out}")


if __name__ == "__main__":
    main()
