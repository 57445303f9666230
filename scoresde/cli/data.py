"""``scoresde data``: what a data set holds, and the sets that are known by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.files import json_text
from scoresde.cli.output import OutFile
from scoresde.cli.params import json_option
from scoresde.cli.text import align, size_of
from scoresde.errors import BadInput, choose

if TYPE_CHECKING:
    from scoresde.data import Dataset

SHOWN = {"images": 64, "series": 12, "points": 5000}  # on a sheet, at most
ROWS = 16  # of figures in the text, at most
ABOUT = {
    "mnist": "handwritten digits, 28x28 grey, 60,000 and 10,000",
    "fashion_mnist": "clothes, 28x28 grey, 60,000 and 10,000",
    "cifar10": "photographs, 32x32 colour, 50,000 and 10,000; or 8,000 and 2,000 of them",
    "flowers64": "650 photographs of flowers, 64x64 colour",
    "etth1": "hourly loads and oil temperature of a transformer, 7 channels; window, stride",
    "datasaurus": "13 sets of 142 points with equal means and deviations; datasaurus:dino is one",
}


class DataCommands(click.Group):
    """The two commands; another name is answered with them."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if not args[0].startswith("-"):
            choose("command of data", args[0], self.commands)
        return super().resolve_command(ctx, args)


@click.group("data", cls=DataCommands, invoke_without_command=True, short_help="What a data set holds.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """What a data set holds, before anything is trained on it; the sets known by name.

    \b
    Examples:
      scoresde data list
      scoresde data inspect fashion_mnist --split test
      scoresde data inspect photos.zip --option size=64 --sheet photos.png
    """  # noqa: D301 (click wants the \b)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("inspect", short_help="Count, shape, values and classes of a data set; a contact sheet.")
@click.argument("name", metavar="NAME|PATH")
@click.option("--split", default="train", metavar="NAME", help="train (default), test or val, of sets that have it.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the reader; repeat it.")
@click.option("--sheet", type=OutFile(".png"), metavar="PNG", help="Write a picture of some events there.")
@json_option
def inspect(name: str, split: str, options: tuple[str, ...], sheet: Path | None, as_json: bool) -> None:
    """What a data set holds: count, shape, smallest and largest value, mean and standard deviation, classes.

    It is read once, whole, in pieces. NaN, damaged files and labels out of range are errors; constant channels and
    empty classes are warned of. Options are those of a config's data.options.

    \b
    Examples:
      scoresde data inspect moons --option n=2000 --sheet moons.png
      scoresde data inspect photos --option size=64 --option channels=3
      scoresde data inspect load.csv --option window=96 --option part=[0,0.6]
      scoresde data inspect etth1 --split val --json
    """  # noqa: D301 (click wants the \b)
    from scoresde.data import load

    data = load(name, split, **read_options(options))
    facts = describe(data)
    if sheet is not None:
        from scoresde.checkpoint import write_atomically

        write_atomically(sheet, contact_sheet(data))
    click.echo(json_text(facts) if as_json else as_text(facts))
    if sheet is not None and not as_json:
        click.echo(f"sheet: {sheet}")


@command.command("list", short_help="The data sets known by name.")
@json_option
def list_(as_json: bool) -> None:
    """The data sets known by name, with their splits. Any other name is a path.

    Public sets are read from the folder that the variable SCORESDE_DATA names; where it is not set, they are downloaded
    once.

    \b
    Examples:
      scoresde data list
      scoresde data list --json
      scoresde data inspect NAME
    """  # noqa: D301 (click wants the \b)
    from scoresde.data import TOY, available
    from scoresde.data.load import SPLITS

    rows: list[tuple[str, str, str]] = []
    for name in available():
        splits = SPLITS[name][1] if name in SPLITS else ("train",)
        about = ABOUT.get(name) or (TOY[name].__doc__ or "").split("\n")[0].split(":")[0].rstrip(".")
        rows.append((name, " ".join(splits), about))
    if as_json:
        click.echo(
            json_text([{"name": name, "splits": splits.split(), "about": about} for name, splits, about in rows])
        )
        return
    click.echo(align([("NAME", "SPLITS", "WHAT"), *rows]))
    folder = os.environ.get("SCORESDE_DATA")
    click.echo(f"public sets: {f'in {folder} (SCORESDE_DATA)' if folder else 'downloaded when first used'}")


def read_options(words: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE, with values as in a config: numbers, true, [0, 0.6], and words."""
    import yaml

    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadInput(f"--option {word}: write it as key=value, e.g. size=64")
        try:
            options[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            options[key.strip()] = value
    return options


def describe(data: Dataset) -> dict[str, Any]:
    """The facts of a data set, from one reading of its events."""
    from math import prod

    from scoresde.data import Streamed, measure

    kind, shape = kind_of(data), data.event_shape
    by_place = kind in ("images", "series") or (len(shape) == 1 and shape[0] <= 64)
    moments = measure(data, axis=1 if by_place else None)
    counts = [] if data.labels is None else data.labels.bincount(minlength=data.num_classes).tolist()
    place = "coordinate" if kind == "points" else "channel"
    each = [figures._asdict() for figures in moments.each()] if by_place else []
    total = moments.total()._asdict()
    warnings = [f"{place} {i} is constant ({f['low']:g})" for i, f in enumerate(each) if f["low"] == f["high"]]
    if total["low"] == total["high"]:
        warnings = [f"the data are constant ({total['low']:g}): there is nothing to learn"]
    warnings += [f"class {c!r} has no events" for c, count in zip(data.classes, counts, strict=True) if not count]
    return {
        "name": data.name,
        "source": data.source,
        "kind": kind,
        "rows": len(data),
        "event_shape": list(shape),
        "dtype": str(data.dtype).removeprefix("torch."),
        "bytes": len(data) * prod(shape) * data.dtype.itemsize,
        "streamed": isinstance(data, Streamed),
        "sha256": data.sha256,
        "statistics": {"all": total, place: each},
        "classes": [{"name": name, "rows": count} for name, count in zip(data.classes, counts, strict=True)],
        "warnings": warnings,
    }


def kind_of(data: Dataset) -> str:
    """Images, series or points; numbers for what is none of them."""
    import torch

    if data.series:
        return "series"
    if data.dtype == torch.uint8:
        return "images"
    return "points" if len(data.event_shape) <= 1 else "numbers"


def as_text(facts: dict[str, Any]) -> str:
    """The facts line by line, and a table of figures."""
    shape = " x ".join(map(str, facts["event_shape"])) or "single numbers"
    where = "left on the disk" if facts["streamed"] else "in memory"
    classes = [f"{each['name']} ({each['rows']:,})" for each in facts["classes"]]
    rows = [
        ("data", f"{facts['name']}, {facts['rows']:,} {facts['kind']} of {shape}"),
        ("from", facts["source"] or "?"),
        ("values", f"{facts['dtype']}, {size_of(facts['bytes'])}, {where}"),
        ("sha256", facts["sha256"]),
        ("classes", f"{len(classes)}: {', '.join(classes)}" if classes else "none"),
    ]
    ((place, each),) = [(key, value) for key, value in facts["statistics"].items() if key != "all"]
    figures = [("all", facts["statistics"]["all"])]
    if len(each) > 1:
        figures += [(f"{place} {i}", value) for i, value in enumerate(each[:ROWS])]
    names = ("low", "high", "mean", "std")
    table = [("", "min", "max", "mean", "std"), *((name, *(f"{f[k]:.4g}" for k in names)) for name, f in figures)]
    more = [f"{len(each) - ROWS} more: --json"] if len(each) > ROWS else []
    warnings = [f"warning: {text}" for text in facts["warnings"]]
    return "\n".join([align(rows), align(table, right=(1, 2, 3, 4)), *more, *warnings])


def contact_sheet(data: Dataset) -> bytes:
    """A PNG: images from all of the set, a row per class, points in the plane, or the first windows of a series."""
    import torch

    from scoresde.pictures import curves, picture

    kind = kind_of(data)
    if len(data.event_shape) > 3:
        raise BadInput(f"--sheet: no picture shows events of shape {data.event_shape}")
    most = SHOWN.get(kind, SHOWN["images"])
    if kind == "series":
        return curves(data.take(torch.arange(min(most, len(data)))).numpy())
    rows = torch.linspace(0, len(data) - 1, min(most, len(data)), dtype=torch.float64).round().long()
    labels = None if data.labels is None else data.labels[rows].numpy()
    return picture(data.take(rows).numpy(), labels)
