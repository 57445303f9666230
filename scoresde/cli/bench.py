"""``scoresde bench``: error against network calls of the samplers most used, on data whose flow is known exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.files import json_text
from scoresde.cli.params import json_option
from scoresde.cli.text import align
from scoresde.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.denoiser import Denoiser

SAMPLERS = ("auto", "ode", "ddim", "dpm++2m", "ipndm", "deis", "unipc", "phi-ab", "heun")
CALLS = (5, 10, 20, 50)
DIMENSIONS = (2, 16)
SAMPLES = 64
NEAR_DATA = 1e-9  # the exact flow goes on to here, and jumps: its step there is below rounding


@click.command("bench", short_help="Error against network calls, on exact data.")
@click.argument("sampler", nargs=-1)
@json_option
def command(sampler: tuple[str, ...], as_json: bool) -> None:
    """Error against network calls of the named samplers, or of the most used, each on its defaults.

    Root mean square distance of 64 samples, from the same start, to where the exact probability flow takes them
    by the time at which the run ends, under VP in float64: mixtures of Gaussians in 2 and 16 dimensions, whose
    denoiser is known in closed form. Seconds on one core; `-` where the calls do not suffice for a step.

    \b
    Examples:
      scoresde bench
      scoresde bench dpm++3m eab4
      scoresde bench --json
    """  # noqa: D301 (click wants the \b)
    rows = measure(sampler or SAMPLERS)
    click.echo(json_text({"calls": CALLS, "rows": rows}) if as_json else as_text(rows))


def measure(samplers: tuple[str, ...]) -> list[dict[str, Any]]:
    """The errors of each sampler in each number of dimensions, one for each of `CALLS`; None where none can be."""
    import torch

    from scoresde.analytic import GaussianMixture
    from scoresde.families import VPSDE
    from scoresde.samplers import SAMPLERS as KNOWN
    from scoresde.samplers import sample
    from scoresde.samplers.registry import find_sampler

    for name in samplers:
        if name != "auto" and (find_sampler(name).stochastic or not KNOWN[name].build):
            raise BadInput(f"{name!r} draws noise or chooses its own steps: choose another, see `scoresde samplers`")
    rows: list[dict[str, Any]] = []
    for d in DIMENSIONS:
        denoiser = GaussianMixture.example(d).denoiser(VPSDE())
        x = torch.randn(SAMPLES, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        exact = flow(denoiser, x)
        for name in samplers:
            errors: list[float | None] = []
            for calls in CALLS:
                try:
                    out = sample(denoiser, (SAMPLES, d), name, nfe=calls, x=x)
                except BadInput:  # fewer calls than a step takes
                    errors.append(None)
                    continue
                errors.append(float((out.x - exact[out.times[-1] == 0]).square().mean().sqrt()))
            rows.append({"sampler": name, "dimensions": d, "errors": errors})
    return rows


def flow(denoiser: Denoiser, x: Tensor) -> tuple[Tensor, Tensor]:
    """Where the probability flow takes x: at t_min, and at the data."""
    import numpy as np

    from scoresde.samplers import sample

    how: dict[str, Any] = {"denoiser": denoiser, "shape": tuple(x.shape), "sampler": "rk4"}
    there = sample(x=x, steps=200, grid="phi", final="t_min", **how).x
    last = [*np.geomspace(denoiser.sde.t_min, NEAR_DATA, 9).tolist(), 0.0]
    return there, sample(x=there, grid=last, **how).x


def as_text(rows: list[dict[str, Any]]) -> str:
    """A line for each sampler: its errors in both numbers of dimensions."""
    names = list(dict.fromkeys(row["sampler"] for row in rows))
    head = [f"{d}-d, {calls}" for d in DIMENSIONS for calls in CALLS]
    cells = [("SAMPLER", *head)]
    for name in names:
        errors = [error for row in rows if row["sampler"] == name for error in row["errors"]]
        cells.append((name, *("-" if error is None else f"{error:.2e}" for error in errors)))
    return align(cells, right=range(1, len(head) + 1))
