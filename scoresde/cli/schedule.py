"""``scoresde schedule``: the noise schedule of an SDE as a table."""

from __future__ import annotations

from typing import Any

import click

from scoresde.cli.files import json_text
from scoresde.cli.params import Numbers, Whole, json_option
from scoresde.cli.table import find_sde
from scoresde.cli.text import align
from scoresde.errors import BadInput

COLUMNS = ("t", "alpha", "sigma", "lambda", "log-SNR", "rho", "phi", "f", "g2")
ROWS = 11


@click.command("schedule", short_help="The noise schedule of an SDE.")
@click.argument("name", required=False)
@click.option("--model", metavar="NAME|PATH", help="The SDE of a model instead.")
@click.option("--n", type=Whole(2), metavar="N", help=f"Times, evenly spaced from t_min to t_max (default: {ROWS}).")
@click.option("--times", type=Numbers(), metavar="LIST", help="Times of your own instead: 1,0.5,0.1,0.")
@click.option("--sampler", metavar="NAME", help="The times of this sampler's default grid instead.")
@click.option("--steps", type=Whole(), metavar="N", help="With --sampler: the intervals (default: its own number).")
@json_option
def command(
    name: str | None,
    model: str | None,
    n: int | None,
    times: tuple[float, ...] | None,
    sampler: str | None,
    steps: int | None,
    as_json: bool,
) -> None:
    """The noise schedule of an SDE, vp unless NAME or --model says another, at times from t_min to t_max.

    \b
        x_t = alpha x_0 + sigma z,     dx = f x dt + sqrt(g2) dw
        lambda = log(alpha/sigma), log-SNR = 2 lambda, rho = sigma/alpha, phi = atan(sigma/alpha)

    Time 0 is the data: alpha 1 and sigma 0, whatever the schedule tends to.

    \b
    Examples:
      scoresde schedule
      scoresde schedule cosine --n 21
      scoresde schedule edm --times 80,5,0.5,0.002 --json
      scoresde schedule --model fashion-mnist
      scoresde schedule --model fashion-mnist --sampler unipc --steps 10
    """  # noqa: D301 (click wants the \b)
    if name is not None and model is not None:
        raise BadInput(f"{name} and --model {model}: give one")
    given = [flag for flag, value in {"--n": n, "--times": times, "--sampler": sampler}.items() if value is not None]
    if len(given) > 1:
        raise BadInput(f"{' and '.join(given)}: give one")
    if steps is not None and sampler is None:
        raise BadInput(f"--steps {steps}: the steps of which --sampler? Evenly spaced times are --n")
    sde = find_sde(name, model)
    if sampler is not None:
        at = laid(sde, sampler, steps)
    else:
        at = even(sde, n or ROWS) if times is None else inside(sde, times)
    rows = numbers(sde, at)
    if as_json:
        facts = {"name": None if model else name or "vp", "model": model, "sde": str(sde)}
        ends = {"t_min": sde.t_min, "t_max": sde.t_max}
        click.echo(json_text({**facts, **ends, "rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows]}))
    else:
        cells = [COLUMNS, *([f"{value:.6g}" for value in row] for row in rows)]
        click.echo(f"{sde}\n{align(cells, right=range(len(COLUMNS)))}")


def even(sde: Any, n: int) -> list[float]:
    """Evenly spaced times, both ends among them."""
    import numpy as np

    return np.linspace(sde.t_min, sde.t_max, n).tolist()


def laid(sde: Any, sampler: str, steps: int | None) -> list[float]:
    """The times of a run by a sampler on its defaults, from t_max down."""
    from scoresde.samplers import plan_run
    from scoresde.samplers.registry import find_sampler

    found = find_sampler(sampler)
    if found.adaptive and steps is None:
        raise BadInput(f"--sampler {sampler}: it chooses its times as it runs{': give --steps' * bool(found.build)}")
    return list(plan_run(sde, found, steps)[0].times)


def inside(sde: Any, times: tuple[float, ...]) -> list[float]:
    """Given times, each within [0, t_max]."""
    if not times:
        raise BadInput("--times: give at least one time")
    for t in times:
        if not 0 <= t <= sde.t_max:
            raise BadInput(f"--times {t:g}: times of {sde} lie within [0, {sde.t_max}]")
    return list(times)


def numbers(sde: Any, times: list[float]) -> list[list[float]]:
    """A row of `COLUMNS` for each time, in float64."""
    import numpy as np
    import torch

    at, t = sde.knots(times), torch.tensor(times, dtype=torch.float64)
    rho, phi = np.exp(-at.lam), np.arctan2(at.sigma, at.alpha)
    columns = (at.t, at.alpha, at.sigma, at.lam, 2 * at.lam, rho, phi, sde.f(t).numpy(), sde.g2(t).numpy())
    return np.stack(columns, axis=1).tolist()
