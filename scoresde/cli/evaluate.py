"""``scoresde evaluate``: how far samples are from data."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.copies import copies, training_set
from scoresde.cli.data import read_options
from scoresde.cli.files import json_text
from scoresde.cli.output import OutFile, prove_writable
from scoresde.cli.params import Whole, device_option, find_device, json_option
from scoresde.cli.progress import steps_bar
from scoresde.cli.space import Space, check_pixels
from scoresde.cli.text import align, duration
from scoresde.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Dataset

LEAST, MOST_IMAGES, MOST_POINTS = 20, 5000, 1000
RANGES = 3  # of the samples' numbers, and so of their seeds: what another run of the sampler would give
WIDEST = 256  # pixels of a Fréchet distance, at most: its cost grows with their cube
USUAL = 10_000  # events of a figure that is to be compared with published ones
SHOWN = ("command", "model", "weights", "sha256", "settings", "class", "nfe")  # of the record of a run


@click.command("evaluate", short_help="Distances between samples and data, with intervals.")
@click.argument("samples", metavar="SAMPLES")
@click.option("--data", required=True, metavar="NAME|PATH", help="What they should be like, by name or a file.")
@click.option("--split", default="train", metavar="NAME", help="train (default), test or val, of sets that have it.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the reader of DATA and --train; repeat it.",
)
@click.option(
    "--train", metavar="NAME|PATH", help="Look for copies of these images (default: those of DATA's own training set)."
)
@click.option(
    "--features",
    default="auto",
    metavar="NAME|PATH",
    help="Of images: auto (default), pixels, classifier, inception, or the file of a classifier.",
)
@click.option(
    "--cache",
    envvar="SCORESDE_CACHE",
    metavar="FOLDER",
    help="Keep features there for the next time (default: $SCORESDE_CACHE, or not).",
)
@device_option
@click.option(
    "--n",
    "num",
    type=Whole(LEAST),
    metavar="N",
    help=f"Events of each side (default: the smaller side's, at most {MOST_IMAGES} images or {MOST_POINTS} points).",
)
@click.option("--allow-small", is_flag=True, help="A Fréchet distance of fewer than 2048 events too.")
@click.option("--draws", type=Whole(2), default=100, metavar="K", help="Resamplings of an interval (default: 100).")
@click.option("--seed", type=Whole(0), default=0, metavar="N", help="Of the rows that are drawn (default: 0).")
@click.option("--out", type=OutFile(".json"), metavar="JSON", help="Write the report there.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    samples: str,
    data: str,
    split: str,
    options: tuple[str, ...],
    train: str | None,
    features: str,
    cache: str | None,
    device: str,
    num: int | None,
    allow_small: bool,
    draws: int,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """How far SAMPLES, a file of `scoresde sample` or any other that `scoresde data inspect` reads, are from DATA.

    28x28 grey images are compared in the features of a frozen classifier, other images by their pixels or, if asked
    for, in the features of Inception, points by their coordinates. Every figure comes with an interval, and with what
    two sets of real events give.

    \b
    Examples:
      scoresde evaluate samples/ode-10-seed0.npz --data fashion_mnist --split test
      scoresde evaluate samples.npz --data moons --option seed=1 --n 500
      scoresde evaluate samples.npz --data train.npz --allow-small --out report.json
    """  # noqa: D301 (click wants the \b)
    from scoresde.data import Dataset, load

    start, given, kept = time.perf_counter(), read_options(options), cache_folder(cache)
    fake, real = load(samples), load(data, split, **given)
    check_pair(fake, real)
    space = Space(real, features, find_device(device), kept)
    n = size_of(fake, real, space.kind, num)
    rows = rows_of(len(real), len(fake), n, seed)
    if space.kind != "coordinates":
        for part in (rows[1], *ranges_of(len(fake), n)):
            check_pixels(fake, part)
    memory = training_set(real, data, split, given, train)
    near = copies(fake, real, memory, rows) if isinstance(memory, Dataset) else None
    report = measure(fake, real, space, rows, allow_small, draws, seed)
    if data == "gaussians":
        report["figures"] |= mode_rows(real.take(rows[0]), fake.take(rows[1]))
    if space.kind != "coordinates":
        report["memorisation"] = near
        report["notes"] += [f"copies were not looked for: {memory}"] if near is None else []
    report = {
        "command": shlex.join(["scoresde", *ctx.obj]),
        "samples": {"file": samples, "rows": len(fake), "n": n, "sha256": fake.sha256, "run": run_of(Path(samples))},
        "data": {"name": data, "split": split, "options": given, "rows": len(real), "n": n, "sha256": real.sha256},
        **report,
        "draws": draws,
        "seed": seed,
        "seconds": round(time.perf_counter() - start, 3),
    }
    click.echo(json_text(report) if as_json else as_text(report))
    if out is not None:
        from scoresde.checkpoint import write_atomically

        write_atomically(out, (json_text(report) + "\n").encode())
        if not as_json:
            click.echo(str(out))


def cache_folder(name: str | None) -> Path | None:
    """The folder of --cache, which is there and can be written to."""
    if name is None:
        return None
    if not name or not Path(name).is_dir():
        raise BadInput(f"--cache {name!r}: no such folder")
    prove_writable(Path(name))
    return Path(name)


def check_pair(fake: Dataset, real: Dataset) -> None:
    """Two sets of equal events, enough of them."""
    import torch

    if fake.event_shape != real.event_shape:
        raise BadInput(f"samples have events of shape {fake.event_shape}, {real.name} of {real.event_shape}")
    if fake.dtype == torch.uint8 != real.dtype:
        raise BadInput(f"samples are uint8 images, {real.name} holds {real.dtype} numbers: give both in one unit")
    for what, events in (("samples", fake), (real.name, real)):
        if len(events) < LEAST:
            raise BadInput(f"{what}: {len(events)} events are too few; at least {LEAST} are needed")


def size_of(fake: Dataset, real: Dataset, kind: str, num: int | None) -> int:
    """The events of each side: as many as asked for, or as both have, up to what takes a minute."""
    both = min(len(fake), len(real))
    if num is not None and num > both:
        raise BadInput(f"--n {num}: there are {len(fake)} samples and {len(real)} events of {real.name}")
    return num or min(both, MOST_POINTS if kind == "coordinates" else MOST_IMAGES)


def rows_of(real: int, fake: int, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """n rows of the real events, n of the fakes, and n other real ones where there are enough, drawn by the seed."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    order, own = torch.randperm(real, generator=generator), torch.randperm(fake, generator=generator)
    return order[:n].sort().values, own[:n].sort().values, order[n : 2 * n] if real >= 2 * n else None


def ranges_of(fake: int, n: int) -> list[Tensor]:
    """The first rows, the next and the ones after, n of each, where there are so many samples; else none."""
    import torch

    return list(torch.arange(RANGES * n).split(n)) if fake >= RANGES * n else []


def measure(
    fake: Dataset,
    real: Dataset,
    space: Space,
    rows: tuple[Tensor, Tensor, Tensor | None],
    allow_small: bool,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """The figures, in which space they were taken, and what there is to know of them."""
    from scoresde.metrics.compare import compare, feature_groups, figures_of, frechet_name, point_groups
    from scoresde.metrics.frechet import LEAST as TRUSTED

    points = [space.points(real, rows[0]), space.points(fake, rows[1])]
    points += [] if rows[2] is None else [space.points(real, rows[2])]
    notes: list[str] = []
    n, dims = points[0].shape
    if space.kind == "coordinates":
        groups = point_groups(points[0], points[1])
    else:
        small, wide = n < TRUSTED and not allow_small, space.kind == "pixels" and dims > WIDEST
        groups = feature_groups(n, not small and not wide)
        if wide:
            notes.append(f"no Fréchet distance of {dims} pixels: it needs at most {WIDEST} features; KID does not")
        elif small:
            notes.append(f"{frechet_name(n)} refused: biased below {TRUSTED} events (--allow-small); KID is unbiased")
        elif n < USUAL:
            notes.append(f"{frechet_name(n)} is biased by its n: compare it with figures of this n only")
    if rows[2] is None:
        notes.append(f"{real.name} has fewer than {2 * n} events: no figures of real against real")
    with steps_bar("evaluate", draws * len(groups)) as done:
        found = compare(groups, points[0], points[1], *points[2:], draws=draws, seed=seed, done=done)
    parts = [space.points(fake, part) for part in ranges_of(len(fake), n)]
    again = figures_of(groups, points[0], parts)
    return {
        "space": {**space.facts, "dims": dims},
        "dtype": {"samples": str(fake.dtype)[6:], "data": str(real.dtype)[6:], "figures": "float64"},
        "rounded_to_uint8": fake.dtype != real.dtype,
        "figures": {
            row.name: {k: v for k, v in row._asdict().items() if k != "name"} | {"ranges": again.get(row.name)}
            for row in found
        },
        "notes": notes,
    }


def mode_rows(real: Tensor, fake: Tensor) -> dict[str, Any]:
    """The modes that are covered and the samples near them, for the set in the plane that is a mixture of Gaussians."""
    import math

    import torch

    from scoresde.analytic import GaussianMixture
    from scoresde.metrics import high_quality_share, mode_coverage

    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)
    mixture = GaussianMixture(torch.ones(8), means, 0.09 * torch.eye(2, dtype=torch.float64).expand(8, 2, 2))
    none = dict.fromkeys(("low", "high", "by", "ranges"))
    found: dict[str, Any] = {}
    for name, figure in (("modes covered", mode_coverage), ("high-quality samples", high_quality_share)):
        value, n, m = figure(fake, mixture)
        found[name] = {"value": value, **none, "floor": figure(real, mixture).value, "n": n, "m": m}
    return found


def run_of(path: Path) -> dict[str, Any] | None:
    """What `scoresde sample` recorded beside the samples: weights, sampler, calls, seed."""
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if path.suffix != ".npz" or not isinstance(record, dict) or "settings" not in record:
        return None
    return {key: record[key] for key in SHOWN if key in record}


def as_text(report: dict[str, Any]) -> str:
    """The figures as a table, and what they are of."""

    def figure(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    samples, figures = report["samples"], report["figures"]
    table = [("", "value", "95 % interval", "real : real", "n")]
    for name, row in figures.items():
        interval = "" if row["low"] is None else f"{figure(row['low'])} to {figure(row['high'])}"
        table.append((name, figure(row["value"]), interval, figure(row["floor"]), f"{row['n']} : {row['m']}"))
    if any(row["ranges"] for row in figures.values()):
        spans = (f"{figure(min(k))} to {figure(max(k))}" if (k := row["ranges"]) else "" for row in figures.values())
        spread = (f"{RANGES} ranges of {samples['n']:,}", *spans)
        table = [(*row[:3], span, *row[3:]) for row, span in zip(table, spread, strict=True)]
    data, space = report["data"], report["space"]
    rounded = ", samples rounded to uint8" if report["rounded_to_uint8"] else ""
    known = f" ({space['trained_on']}, {space['sha256'][:12]}…)" if "sha256" in space else ""
    known += f", {space['kept']} of {space['sets']} sets from the cache" if "kept" in space else ""
    about = [
        ("samples", f"{samples['n']:,} of {samples['rows']:,} in {samples['file']}"),
        ("data", f"{data['n']:,} of {data['rows']:,} of {data['name']}, {data['split']}"),
        ("space", f"{space['dims']} {'features of ' if known else ''}{space['features']}{known}{rounded}"),
    ]
    near = report.get("memorisation")
    if near is not None:
        about.append(
            (
                "nearest",
                f"training images are at {near['median']:.3f} of the distance from real ones, at least"
                f" {near['smallest']:.3f}; {near['closer']:.1%} are very near (about 1 % of new images are)",
            )
        )
    about.append(("time", duration(report["seconds"])))
    notes = [f"note: {text}" for text in report["notes"]]
    wide = len(table[0])
    return "\n".join([align(table, right=(1, wide - 2, wide - 1)), align(about), *notes])
