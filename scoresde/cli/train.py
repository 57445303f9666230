"""``scoresde train``: a config in, a checkpoint out, and the numbers worth watching in between."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scoresde.cli.output import output_folder
from scoresde.cli.params import Whole, device_option, find_device
from scoresde.cli.progress import TrainingMeter, say
from scoresde.cli.text import align

if TYPE_CHECKING:
    from scoresde.config import Config
    from scoresde.data import Dataset


@click.command("train", short_help="Train a model by a config file.")
@click.argument("config")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for the checkpoint.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="auto",
    metavar="[auto|FILE]",
    help="Continue exactly where the newest whole checkpoint in DIR, or FILE, stopped.",
)
@click.option("--steps", type=Whole(), metavar="N", help="Another number of steps than the config's.")
@device_option
@click.pass_context
def command(ctx: click.Context, config: str, out: Path, resume: str | None, steps: int | None, device: str) -> None:
    """Train by CONFIG, a YAML file or the name of a config that comes with scoresde.

    Prints what the data look like before and after scaling, then loss, gradient norm, speed and time left. A
    checkpoint is written every few hundred steps, on Ctrl-C and on SIGTERM; --resume continues it exactly.
    Ten steps in a row that are not finite end the run with exit code 4 and the last checkpoint intact.
    At the end report.html in DIR shows the losses, samples and settings.

    \b
    Examples:
      scoresde train swiss_roll --out runs/swiss          a config that comes with scoresde
      scoresde train my.yaml --out runs/mine --device cuda
      scoresde train my.yaml --out runs/mine --resume     go on where it stopped
      accelerate launch -m scoresde train my.yaml --out runs/mine --device cuda       on all GPUs
      scoresde train fashion_mnist --out runs/try --steps 200
    """  # noqa: D301 (click wants the \b)
    from scoresde.config import load_config
    from scoresde.data import load
    from scoresde.train import train
    from scoresde.train.keep import CHECKPOINT, checkpoints
    from scoresde.train.report import REPORT

    settings = load_config(find_config(config))
    if steps:
        settings = settings.model_copy(update={"train": settings.train.model_copy(update={"steps": steps})})
    device, path = find_device(device), out / CHECKPOINT
    first = os.environ.get("RANK", "0") == "0"  # of the processes that were launched together, the one that tells
    tell = say if first else lambda line: None
    with output_folder(out):
        held = checkpoints(out)
        if resume == "auto" and not held:
            tell(f"{out} holds no checkpoint yet: starting at step 0")
        data = None
        if resume or not held:  # else the trainer refuses
            data = load(settings.data.name, settings.data.split, **settings.data.options)
            tell(data_summary(settings, data))
        meter = TrainingMeter(settings.train.steps)
        try:
            with meter.watch() as report:
                model = train(settings, out, resume or False, device, report, data, meter.tell)
        except KeyboardInterrupt as stop:
            if path.exists() and first:
                again = [arg for arg in ctx.obj if arg not in ("--resume", resume)]
                what = f"after step {stop.args[0]}, saved in {path}" if stop.args else f"at once, last saved in {path}"
                say(f"stopped {what}; to continue:", err=True)
                say(f"  {shlex.join(['scoresde', *again, '--resume'])}", err=True)
            raise
    tell(f"model: {model} (averaged weights, step {settings.train.steps})")
    if settings.train.report:
        tell(f"report: {out / REPORT} (losses, samples, settings)")
    tell(f"checkpoint: {path} (all weights and the optimiser's state)")
    if settings.task == "classifier":
        tell(f"to guide with it: scoresde.load_classifier({str(out)!r})")
        return
    tell(f"to draw from it: {shlex.join(['scoresde', 'sample', '--model', str(out), '--steps', '10'])}")


def configs() -> dict[str, Path]:
    """The configs that come with scoresde: inside an installed package, at the top of a checkout."""
    import scoresde

    package = Path(scoresde.__file__).parent
    folders = (package / "configs", package.parent / "configs")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """A path as it is, or the file of a config that comes with scoresde."""
    from scoresde.errors import choose

    path = Path(name)
    if path.is_file() or path.suffix or path.name != name:
        return path
    shipped = configs()
    return shipped[choose("config", name, shipped)]


def data_summary(config: Config, data: Dataset) -> str:
    """Count, shape, and min, max, mean and standard deviation before and after scaling; a warning if odd."""
    import torch

    from scoresde.cli.inspect import PRIOR_KL, mismatch
    from scoresde.construct import construct
    from scoresde.data import Scaler, statistics
    from scoresde.sdes import SDES

    kind = config.data.scaler
    before, after = statistics(data), statistics(data, Scaler.fit(data, kind))
    classes = f", {len(data.classes)} classes" if data.classes else ""
    names = ("min", "max", "mean", "std")
    lines = [
        f"data: {data.name}, {len(data)} x {tuple(data.event_shape)}{classes}",
        align(
            [
                ("", *names),
                ("as read", *(f"{v:.4g}" for v in before)),
                (f"scaled ({kind})", *(f"{round(v, 6):.4g}" for v in after)),
            ],
            right=(1, 2, 3, 4),
        ),
    ]
    kl = construct("sde", SDES, config.sde).prior_kl(torch.tensor(after[2]), after[3] ** 2)
    if kl > PRIOR_KL:
        lines.append(f"warning: prior N(0, σ²){mismatch(kl)}")
    if not 0.2 <= after[3] <= 2:
        lines.append(
            f"warning: the standard deviation after scaling is {after[3]:.3g}, outside 0.2 to 2:"
            " choose another data.scaler, or samples will be poor"
        )
    return "\n".join(lines)
