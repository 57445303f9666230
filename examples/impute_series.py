"""A day is missing from four days of a transformer's loads: what a diffusion model puts there, beside a straight line.

    python examples/impute_series.py

The shipped model of ETTh1 learned windows of 96 hours of seven channels as a whole, and nothing of gaps. Here x̂_0 is
replaced, wherever the data are known, by the data (`known_points`), at every step of an ancestral sampler, so that the
state there goes to the data as a noised window would, and the rest follows (Song et al. 2021, appendix I.2). It is done
for --windows windows of the test months, --draws times each, with a day missing and with half of all hours missing at
random.

RMSE is that of the mean of the draws; CRPS, E|X - y| - E|X - X'|/2 for draws X, X' and the truth y (Gneiting & Raftery
2007, eq. 21), judges them as a distribution, and of a single line is its mean absolute error. Both in units of each
channel's standard deviation in the training months, over missing hours alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import scoresde
from scoresde.data import load
from scoresde.denoiser import AnyDenoiser
from scoresde.plotting.figure import empty, line_colour, plain
from scoresde.transforms import Transformed

GAP = slice(36, 60)


def known_points(denoiser: AnyDenoiser, data: Tensor, known: Tensor) -> Transformed:
    """The denoiser with x̂_0 = data where it is known."""
    return Transformed(denoiser, lambda x0: torch.where(known, data, x0))


def impute(model: scoresde.Model, data: Tensor, known: Tensor, draws: int, steps: int) -> Tensor:
    """Windows (n, channels, hours) filled in ``draws`` times, (draws, n, channels, hours), in scaled space."""
    many = torch.where(known, data, 0.0).expand(draws, *data.shape).flatten(0, 1)
    seen = known.expand(draws, *known.shape).flatten(0, 1)
    return scoresde.sample(
        known_points(model.denoiser, many, seen), tuple(many.shape), "ddpm", steps, batch_size=len(many)
    ).x.unflatten(0, (draws, len(data)))


def straight(data: Tensor, known: Tensor) -> Tensor:
    """Linear interpolation over the known hours, the nearest beyond the first and last."""
    out, hours = data.clone(memory_format=torch.contiguous_format), np.arange(data.shape[-1])
    for window, seen in zip(out.flatten(0, 1), known.flatten(0, 1), strict=True):
        at = seen.numpy()
        window[~seen] = torch.from_numpy(np.interp(hours[~at], hours[at], window[seen].numpy())).float()
    return out


def rmse(draws: Tensor, truth: Tensor, missing: Tensor) -> float:
    """Of the mean of draws (m, ...)."""
    return float((draws.mean(0) - truth)[missing].square().mean().sqrt())


def crps(draws: Tensor, truth: Tensor, missing: Tensor) -> float:
    """Mean of E|X - y| - E|X - X'|/2, the second over pairs of different draws; of one draw the first alone."""
    own, ordered = draws[:, missing], draws[:, missing].sort(dim=0).values
    far, m = (own - truth[missing]).abs().mean(), len(draws)
    if m == 1:
        return float(far)
    rank = 2 * torch.arange(1, m + 1) - m - 1  # Σ over pairs of |X - X'| from the sorted draws
    return float(far - (rank[:, None] * ordered).sum(0).mean() / (m * (m - 1)))


def figure_of(draws: Tensor, line: Tensor, truth: Tensor, names: list[str], path: Path) -> None:
    """Three channels of the first window, in its own units: the truth, a line, and nine tenths of the draws."""
    figure = empty(9, 2.6, "the missing day of three channels: truth, straight line, and the model's draws")
    hours = torch.arange(truth.shape[-1])
    for ax, channel in zip(figure.subplots(1, 3), (0, 2, 6), strict=True):
        plain(ax)
        low, middle, high = draws[:, 0, channel].quantile(torch.tensor([0.05, 0.5, 0.95]), dim=0)
        wide = slice(GAP.start - 1, GAP.stop + 1)
        ax.fill_between(hours[wide], low[wide], high[wide], color=line_colour(0), alpha=0.25, linewidth=0, label="90 %")
        ax.plot(hours[wide], middle[wide], color=line_colour(0), linewidth=1.2, label="median of the draws")
        ax.plot(hours[wide], line[0, channel][wide], "--", color=line_colour(1), linewidth=1.2, label="straight line")
        ax.plot(hours, truth[0, channel], color="#606060", linewidth=1.0, label="data")
        ax.set(title=names[channel], xlabel="hour")
    entries = figure.axes[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path)


def main() -> None:
    options = argparse.ArgumentParser(description="A missing day, imputed.")
    options.add_argument("--out", type=Path, default=Path("impute-series.png"), help="the picture to write")
    options.add_argument("--windows", type=int, default=24, help="of the test months, spread evenly")
    options.add_argument("--draws", type=int, default=20, help="of each window")
    options.add_argument("--steps", type=int, default=50, help="of the ancestral sampler")
    given = options.parse_args()
    model, test = scoresde.load_model("etth1"), load("etth1", "test")
    rows = torch.linspace(0, len(test) - 1, given.windows).long()
    data = model.scaler.encode(test.take(rows))
    gap = torch.ones(data.shape, dtype=torch.bool)
    gap[..., GAP] = False
    scattered = torch.rand(data.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    print("| missing | method | RMSE | CRPS |\n|---|---|---|---|")
    for what, known in (("a day of all channels", gap), ("half of all hours", scattered)):
        draws, line = impute(model, data, known, given.draws, given.steps), straight(data, known)
        for method, found in (("straight line", line[None]), (f"model, {given.draws} draws", draws)):
            print(
                f"| {what} | {method} | {rmse(found, data, ~known):.3f} | {crps(found, data, ~known):.3f} |", flush=True
            )
        if known is gap:
            own = [model.scaler.decode(x) for x in (draws.flatten(0, 1), line, data)]
            names = ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
            figure_of(own[0].unflatten(0, draws.shape[:2]), own[1], own[2], names, given.out)
    print(f"picture: {given.out}")


if __name__ == "__main__":
    main()
