"""``scoresde replay``: do again what is in a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scoresde.cli.again import DAMAGED, VERSIONS, again, check_model, gap, numbers
from scoresde.cli.params import OneOf, find_device
from scoresde.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from scoresde.cli.draw import Drawn, Run
    from scoresde.cli.record import Record
    from scoresde.samplers import Sampler


@click.command("replay", short_help="Do again what is in a file, and compare.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write into (default: beside FILE, NAME-replay).",
)
@click.option("--model", metavar="NAME|PATH", help="Where the model is now (default: where the record says).")
@click.option(
    "--device", type=OneOf("auto", "cpu", "cuda"), metavar="NAME", help="auto, cpu or cuda (default: the record's)."
)
@click.pass_context
def command(ctx: click.Context, file: Path, out: Path | None, model: str | None, device: str | None) -> None:
    """Do again what is in FILE, which `sample`, `encode`, `edit`, `inpaint`, `interpolate` or `restore` wrote.

    The record beside FILE (.json) says how. The model must be the same, to the last bit, and so must be the numbers of
    the sampler (its revision). The samples are bitwise the same where torch and the machine are.

    \b
    Examples:
      scoresde replay samples/ode-10-seed0.png             beside it, as ode-10-seed0-replay.png, .npz and .json
      scoresde replay samples/ode-10-seed0.npz --out again
      scoresde replay old/swiss-ddim-50-seed3.json --model runs/swiss
    """  # noqa: D301 (click wants the \b)
    from scoresde.cli.draw import Run, report
    from scoresde.cli.record import Redone, find_record, read_record
    from scoresde.model import load_model
    from scoresde.samplers.registry import find_sampler

    path = find_record(file)
    record = read_record(path)
    if isinstance(record, Redone):
        again(path, record, model, device, out)
        return
    sampler = find_sampler(record.settings.sampler)
    check_revision(record, sampler)
    device = find_device(device or record.settings.device)
    loaded = load_model(model or record.model, record.weights, device)
    check_model(path, record.sha256, loaded.name, loaded.info["sha256"])
    latent = record.from_latent.find(path.parent) if record.from_latent else None
    run = Run(record.request(loaded, sampler, device, latent), loaded)
    check_times(record, run)
    before = read_samples(path.with_suffix(".npz"))
    beside = out is None or out.resolve() == path.parent.resolve()
    drawn = run.draw(
        out or path.parent, shlex.join(["scoresde", *ctx.obj]), f"{path.stem}{'-replay' if beside else ''}"
    )
    report(drawn)
    click.echo(compare(record, before, drawn, f"{path.stem}.npz"))


def check_revision(record: Record, sampler: Sampler) -> None:
    """Refuse a record of other numbers under the same name."""
    if record.settings.revision != sampler.revision:
        raise BadInput(
            f"the record was drawn by revision {record.settings.revision} of sampler {sampler.name!r}, this version of"
            f" scoresde has revision {sampler.revision}: its numbers are others"
        )


def check_times(record: Record, run: Run) -> None:
    """Refuse a record whose grid this version would lay otherwise."""
    import numpy as np

    if len(record.times) != len(run.times) or not np.allclose(record.times, run.times, rtol=1e-9, atol=0):
        raise BadInput(f"grid {record.settings.grid!r} of this version of scoresde has other times than the record")


def read_samples(path: Path) -> np.ndarray | None:
    """The samples of a run, if they are still there."""
    import numpy as np

    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return numbers(arrays["samples"])
    except DAMAGED as error:
        raise BadInput(
            f"{str(path)!r} holds no samples ({str(error)[:60]}): remove it to draw without comparing"
        ) from None


def compare(record: Record, before: np.ndarray | None, drawn: Drawn, name: str) -> str:
    """Whether the samples are the same, to the last bit, and if not by how much they differ."""
    after = read_samples(next(path for path in drawn.paths if path.suffix == ".npz"))
    if before is None or after is None:
        return f"nothing to compare with: {name} is not there"
    if before.shape != after.shape:
        return f"samples differ from {name} in shape: {before.shape} there, {after.shape} now"
    if before.dtype == after.dtype and before.tobytes() == after.tobytes():
        return f"samples are bitwise equal to {name}"
    largest = gap(before, after)
    then, now = record.settings.model_dump(), drawn.record["settings"]
    changed = [f"{key} {then[key]} then, {now[key]} now" for key in VERSIONS if then[key] != now[key]]
    return f"samples differ from {name} by at most {largest:.3g}{' (' + '; '.join(changed) + ')' if changed else ''}"
