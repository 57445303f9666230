"""An encoding or an edit done again, by the command in its record, and its files compared."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.files import free_name, json_text
from scoresde.cli.output import output_folder, write_together
from scoresde.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from scoresde.cli.record import Redone

REDONE = {  # the commands, and the facts of the files that go into each
    "encode": {"encoded"},
    "edit": {"image"},
    "inpaint": {"image", "mask"},
    "interpolate": {"images"},
    "restore": {"image"},
}
VERSIONS = ("scoresde", "torch", "numpy", "device")
# What decides the numbers, with the settings and the files that went in
DECIDE = ("sha256", "step", "weights", "class", "num", "operator", "method", "path")
# How a damaged .npz file shows
DAMAGED = (OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def again(path: Path, record: Redone, model: str | None, device: str | None, out: Path | None) -> None:
    """Do again what the record at ``path`` says, by the model and on the device of now, into ``out`` or beside it."""
    from scoresde.checkpoint import load_checkpoint
    from scoresde.cli.record import Redone
    from scoresde.model import find_model

    name, words = command_of(path, record)
    for flag, value in (("--model", model), ("--device", device or record.settings.device)):
        words = words if value is None else [flag, value, *without(words, flag)]
    of = model or record.model
    check_model(path, record.sha256, of, load_checkpoint(find_model(of, record.weights))[1]["sha256"])
    folder = out or path.parent
    beside = folder.resolve() == path.parent.resolve()
    with output_folder(folder), tempfile.TemporaryDirectory() as made:
        given = ["--out", made, *words]
        command: click.Command = import_module(f"scoresde.cli.{name}").command
        with contextlib.redirect_stdout(io.StringIO()):
            command.invoke(command.make_context(name, list(given), obj=[name, *given]))
        (found,) = Path(made).glob("*.json")
        facts = json.loads(found.read_text(encoding="utf-8"))
        check_facts(path, record, Redone.model_validate(facts))
        facts["command"] = shlex.join(["scoresde", name, "--out", str(folder), *words])
        files = {file.name.removeprefix(found.stem): file.read_bytes() for file in sorted(Path(made).iterdir())}
        lines = list(compared(path, files))
        stem = free_name(folder, f"{path.stem}{'-replay' if beside else ''}", facts)
        files[".json"] = (json_text(facts) + "\n").encode()
        for each in write_together(folder, {f"{stem}{end}": content for end, content in files.items()}):
            click.echo(str(each))
    click.echo("\n".join(lines))


def command_of(path: Path, record: Redone) -> tuple[str, list[str]]:
    """The command that wrote a record, and its words; inputs are looked for beside the record, too."""
    words: list[str] = []
    with contextlib.suppress(ValueError):  # an open quote
        words = shlex.split(record.command)
    if len(words) < 3 or words[0] != "scoresde" or words[1] not in REDONE:
        raise BadInput(f"{str(path)!r} is no whole record of a run: it names no command that can be done again")
    name, files = words[1], record.inputs()
    if files.keys() != REDONE[name]:
        has, needs = (" and ".join(map(repr, sorted(keys))) or "none" for keys in (files, REDONE[name]))
        raise BadInput(f"{str(path)!r} is no whole record of a run: the files of {name!r} are {needs}, it has {has}")
    found = {Path(each.file): each.find(path.parent) for sources in files.values() for each in sources}
    return name, [placed(word, found) for word in without(words[2:], "--out")]


def placed(word: str, found: dict[Path, Path]) -> str:
    """A word of a command, or its value, as the place where the file that it names is now.

    >>> found = {Path("x=y.png"): Path("new/x=y.png"), Path("m.png"): Path("m.png")}
    >>> [placed(word, found) for word in ("./x=y.png", "--mask=x=y.png", "./m.png", "a=m.png")]
    ['new/x=y.png', '--mask=new/x=y.png', './m.png', 'a=m.png']
    """
    flag, equals, value = word.partition("=")
    if Path(word) in found or not (equals and flag.startswith("--")):
        flag, equals, value = "", "", word
    now = found.get(Path(value), Path(value))
    return f"{flag}{equals}{value if now == Path(value) else now}"


def without(words: list[str], flag: str) -> list[str]:
    """The words less a flag and its value.

    >>> without(["a.png", "--out", "x", "--num=2"], "--out"), without(["--num=2"], "--num")
    (['a.png', '--num=2'], [])
    """
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == flag:
            next(rest, None)
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return kept


def check_model(path: Path, then: str, name: str, now: str) -> None:
    """Refuse another model than that of a record, by their SHA-256."""
    if then != now:
        raise BadInput(
            f"{str(path)!r} was made by another model: {name!r} has SHA-256 {now[:12]}…, the record {then[:12]}…;"
            " give the right one by --model"
        )


def check_facts(path: Path, then: Redone, now: Redone) -> None:
    """Refuse a repetition by another model, of another file or of another run."""

    def decisive(record: Redone) -> dict[str, Any]:
        facts = record.model_dump()
        kept = {key: facts.get(key) for key in DECIDE}
        kept |= {f"settings.{key}": value for key, value in facts["settings"].items() if key not in VERSIONS}
        return kept | {key: [each.sha256 for each in sources] for key, sources in record.inputs().items()}

    was, found = decisive(then), decisive(now)
    for key in was | found:
        if was.get(key) != found.get(key):
            shown = " then, ".join(json.dumps(facts.get(key))[:60] for facts in (was, found))
            raise BadInput(f"{str(path)!r}: {key!r} is not what it was: {shown} now")


def compared(path: Path, files: dict[str, bytes]) -> Iterator[str]:
    """What to say of files, by the endings of their names, beside those of the record: all but the records."""
    offs: list[float] = []
    equal, others = 0, {end: content for end, content in files.items() if end != ".json"}
    for end, content in others.items():
        before = path.with_name(f"{path.stem}{end}")
        if not before.is_file():
            yield f"nothing to compare with: {before.name} is not there"
        elif (old := before.read_bytes()) == content:
            equal += 1
        elif (off := farthest(end, old, content)) is None:
            yield f"nothing to compare with: {before.name} is damaged"
        else:
            offs.append(off)
    those, same = f"those of {path.name}", offs.count(0.0)
    for count, what in (
        (equal, f"are bitwise equal to {those}"),
        (same, f"hold the same numbers as {those}, in other bytes"),
        (len(offs) - same, f"differ from {those} by at most {max(offs, default=0.0):.3g}"),
    ):
        if count:
            yield f"{'files' if count == len(others) else f'{count} of {len(others)} files'} {what}"


def farthest(end: str, before: bytes, after: bytes) -> float | None:
    """The largest difference of any number, infinite where there are not the same numbers; None of a damaged file."""
    import numpy as np

    from scoresde.data.images import decode

    def read(content: bytes) -> dict[str, np.ndarray]:
        if not end.endswith(".npz"):
            return {"pixels": decode(content, end, 4)}
        with np.load(io.BytesIO(content)) as file:
            return {name: numbers(file[name]) for name in file.files}

    try:
        old, new = read(before), read(after)
    except DAMAGED:
        return None
    if {k: v.shape for k, v in old.items()} != {k: v.shape for k, v in new.items()}:
        return float("inf")
    return max((gap(old[k], new[k]) for k in old), default=0.0)


def numbers(values: np.ndarray) -> np.ndarray:
    """An array as it is, if it holds real numbers."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{values.dtype} are no real numbers")
    return values


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays, NaN equal to NaN and infinitely far from all else.

    >>> import numpy as np
    >>> nan, inf = np.nan, np.inf
    >>> [gap(np.array([1.0, x]), np.array([1.5, y])) for x, y in ((nan, nan), (inf, inf), (nan, 0.0), (0.0, inf))]
    [0.5, 0.5, inf, inf]
    """
    import numpy as np

    with np.errstate(all="ignore"):
        off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a.astype(float) - b))
    return float(np.where(np.isnan(off), np.inf, off).max(initial=0.0))
