"""``scoresde average``: a model of another averaging width, from a run's snapshots."""

from __future__ import annotations

from pathlib import Path

import click

from scoresde.cli.params import Whole


@click.command("average", short_help="Another average of a run's weights, made afterwards.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--width", type=float, required=True, help="Relative width of the average, above 0 and below 0.288.")
@click.option("--step", type=Whole(), metavar="N", help="At this step, that of a snapshot; by default the last.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The model to write.")
def command(run: Path, width: float, step: int | None, out: Path) -> None:
    """Write the model whose weights are averaged over the RUN with another width than those trained with.

    The average counts the weights of step k as k^g, and its width is that profile's standard deviation relative to the
    length of the run. RUN is the folder of a run whose config has `snapshots: 1000`, say, and averages like
    `ema: [power:0.05, power:0.1]` (Karras et al. 2024, post-hoc EMA).

    \b
    Examples:
      scoresde average runs/mine --width 0.08 --out runs/mine/width-0.08.safetensors
      scoresde average runs/mine --width 0.15 --step 50000 --out early.safetensors
      scoresde sample --model runs/mine/width-0.08.safetensors --steps 10
    """  # noqa: D301 (click wants the \b)
    from scoresde.train.posthoc import reconstruct

    click.echo(f"model: {reconstruct(run, width, out, step)}")
