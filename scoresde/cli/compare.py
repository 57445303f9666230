"""``scoresde compare``: samplers within budgets of network calls, from the same noise, on one page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.data import read_options
from scoresde.cli.files import DEFAULT_MODEL, json_text
from scoresde.cli.output import output_folder, write_together
from scoresde.cli.params import Names, Whole, Wholes, device_option, find_device, json_option, weights_option
from scoresde.cli.progress import steps_bar
from scoresde.cli.space import check_pixels, draws_images
from scoresde.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.comparison import Comparison
    from scoresde.data import Dataset
    from scoresde.model import Model

IMAGES, POINTS = 64, 1000  # samples, unless told otherwise
NAME = "comparison"


@click.command("compare", short_help="Samplers side by side: figures, curves, samples, one page.")
@click.option(
    "--model",
    default=DEFAULT_MODEL,
    metavar="NAME|PATH",
    help=f"A shipped model (default: {DEFAULT_MODEL}) or a checkpoint: see `scoresde models`.",
)
@click.option(
    "--samplers",
    type=Names(),
    default="ode,ddim,ddpm,dpm++2m",
    metavar="LIST",
    help="By name, with commas (default: ode,ddim,ddpm,dpm++2m): see `scoresde samplers`.",
)
@click.option(
    "--nfe",
    type=Wholes(),
    default="5,10,20,50",
    metavar="LIST",
    help="Budgets of network calls, with commas (default: 5,10,20,50).",
)
@click.option("--num", type=Whole(), metavar="N", help=f"Samples (default: {IMAGES} images, or {POINTS} points).")
@click.option("--seed", type=Whole(0), default=0, metavar="N", help="Of the noise that all start from (default: 0).")
@click.option("--class", "class_", metavar="NAME|INDEX", help="One class, or none for no class (default: all in turn).")
@weights_option
@click.option(
    "--data",
    metavar="NAME|PATH",
    help="What samples should be like (default: the model's own data; none: no distance to data).",
)
@click.option("--split", metavar="NAME", help="Of the data (default: test, where there is one).")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of DATA's reader; repeat it.")
@click.option("--batch-size", type=Whole(), metavar="N", help="Samples at a time (default: as memory suits).")
@device_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(NAME),
    metavar="DIR",
    help=f"A new or empty folder to write into (default: {NAME}).",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    samplers: tuple[str, ...],
    nfe: tuple[int, ...],
    num: int | None,
    seed: int,
    class_: str | None,
    weights: str,
    data: str | None,
    split: str | None,
    options: tuple[str, ...],
    batch_size: int | None,
    device: str,
    out: Path,
    as_json: bool,
) -> None:
    """Draw by every sampler within every budget of network calls, from the same noise, and compare.

    Each run has its seconds, its distance to the converged probability flow, sample by sample, and its distance to the
    data: KID of images, the energy distance of points, with an interval. Writes one page for a browser
    (.html, nothing to fetch: curves, samples, a slider along each run), and the numbers (.json, .csv).

    \b
    Examples:
      scoresde compare
      scoresde compare --samplers ode,ddim,dpm++2m,ipndm --nfe 5,10,20 --num 256
      scoresde compare --model datasaurus --class dino --num 500 --out dino
      scoresde compare --model runs/mine --data none
    """  # noqa: D301 (click wants the \b)
    from scoresde.cli.draw import choose_labels
    from scoresde.comparison import Draw, compare, plan
    from scoresde.comparison.facts import as_csv, facts
    from scoresde.comparison.page import render
    from scoresde.comparison.run import total_calls
    from scoresde.model import load_model

    for name, value in (("split", split), ("option", " ".join(options))):
        if data == "none" and value:
            raise BadInput(f"--{name} {value}: --data none reads no data; leave one of the two")
    device = find_device(device)
    loaded = load_model(model, weights, device)
    num = num or (IMAGES if len(loaded.event_shape) > 1 else POINTS)
    labels = choose_labels(loaded, class_, num, 0)
    draw = Draw(loaded, num, seed, labels, device, batch_size)
    planned = plan(draw, samplers, nfe)
    if out.is_dir() and any(out.iterdir()):
        raise BadInput(f"--out {str(out)!r} holds files already: name a new folder")
    real = None if data == "none" else load_real(loaded, data, split, read_options(options))
    events = None if real is None else of_class(real, loaded, labels, class_)
    rounded = real is not None and events is not None and events.dtype != real.dtype
    about = {
        "weights": weights,
        "class": class_ or ("in turn" if loaded.classes else None),
        "data": real and {"name": real.name, "events": len(real), "sha256": real.sha256, "rounded_to_uint8": rounded},
    }
    with output_folder(out):
        with steps_bar("compare", total_calls(draw, planned) + len(planned) + 1) as done:
            how: dict[str, Any] = {"device": device, "batch_size": batch_size, "done": done}
            found = compare(loaded, samplers, nfe, num=num, seed=seed, labels=labels, real=events, **how)
            report = facts(found, shlex.join(["scoresde", *ctx.obj]), about)
            page = render(found, report, done)
        files = {
            f"{NAME}.html": page,
            f"{NAME}.json": (json_text(report) + "\n").encode(),
            f"{NAME}.csv": as_csv(report["runs"]),
        }
        written = write_together(out, files)
    if as_json:
        click.echo(json_text(report))
        return
    show(found)
    for note in report["notes"]:
        click.echo(note)
    for path in written:
        click.echo(str(path))


def load_real(model: Model, data: str | None, split: str | None, options: dict[str, Any]) -> Dataset:
    """The data that samples should be like: those named, or the model's own, of their test split where there is one."""
    import torch

    from scoresde.data import Streamed, load
    from scoresde.data.load import SPLITS

    config = model.info["config"]["data"]
    name, options = (data, options) if data else (config["name"], {**config.get("options", {}), **options})
    splits = SPLITS[name][1] if name in SPLITS else ()
    try:
        real = load(name, split or ("test" if "test" in splits else "train"), **options)
    except BadInput as error:
        raise BadInput(f"{error} (--data names other data; --data none compares without)") from None
    if isinstance(real, Streamed):
        raise BadInput(f"--data {name}: too large to be held in memory; name a smaller file, or none")
    if draws_images(model) and real.event_shape == model.event_shape:
        check_pixels(real, torch.arange(len(real)))
    return real


def of_class(real: Dataset, model: Model, labels: Tensor | None, class_: str | None) -> Tensor:
    """The events of the class that is drawn, or all; images are rounded as samples are when saved."""
    from scoresde.data import to_uint8

    x = to_uint8(real.x) if draws_images(model) and real.x.is_floating_point() else real.x
    if class_ is None or labels is None or class_ == "none":
        return x
    if real.labels is None or real.classes != model.classes:
        raise BadInput(f"--class {class_}: {real.name} does not have the model's classes: leave it, or use --data none")
    return x[real.labels == labels[0]]


def show(found: Comparison) -> None:
    """The runs as a table on the terminal, the best of each budget in bold."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from scoresde.comparison.facts import head, lines

    table = Table()
    for name in head(found):
        table.add_column(name, justify="left" if name == "sampler" else "right", no_wrap=True)
    before = ""
    for cells, best in lines(found):
        if before and cells[0] != before:
            table.add_section()
        table.add_row(*(Text(text, "bold green" if mark else "") for text, mark in zip(cells, best, strict=True)))
        before = cells[0]
    Console(width=None if Console().is_terminal else 120, highlight=False).print(table)
