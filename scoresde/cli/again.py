"""An encoding or an edit done again, by the command in its record, and its files compared."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import tempfile
import zipfile
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

    from scoresde.cli.record import Source

REDONE = ("encode", "edit", "inpaint", "interpolate", "restore")
VERSIONS = ("scoresde", "torch", "numpy", "device")
FILES = ("encoded", "image", "images", "mask")  # facts of the files that went in
# and what else decides the numbers
DECIDE = ("sha256", "step", "weights", "class", "num", "operator", "method", "path")


def again(path: Path, facts: dict[str, Any], model: str | None, device: str | None, out: Path | None) -> None:
    """Do again what the record at ``path`` says, by the model and on the device of now, into ``out`` or beside it."""
    name, words = command_of(path, facts)
    settings = facts["settings"] if isinstance(facts.get("settings"), dict) else {}
    for flag, value in (("--model", model), ("--device", device or settings.get("device"))):
        words = words if value is None else [flag, value, *without(words, flag)]
    folder = out or path.parent
    beside = folder.resolve() == path.parent.resolve()
    with output_folder(folder), tempfile.TemporaryDirectory() as made:
        given = ["--out", made, *words]
        command: click.Command = import_module(f"scoresde.cli.{name}").command
        with contextlib.redirect_stdout(io.StringIO()):
            command.invoke(command.make_context(name, list(given), obj=[name, *given]))
        (found,) = Path(made).glob("*.json")
        record = json.loads(found.read_text(encoding="utf-8"))
        check_facts(path, facts, record)
        record["command"] = shlex.join(["scoresde", name, "--out", str(folder), *words])
        files = {file.name.removeprefix(found.stem): file.read_bytes() for file in sorted(Path(made).iterdir())}
        lines = list(compared(path, files))
        stem = free_name(folder, f"{path.stem}{'-replay' if beside else ''}", record)
        files[".json"] = (json_text(record) + "\n").encode()
        for each in write_together(folder, {f"{stem}{end}": content for end, content in files.items()}):
            click.echo(str(each))
    click.echo("\n".join(lines))


def command_of(path: Path, facts: dict[str, Any]) -> tuple[str, list[str]]:
    """The command that wrote a record, and its words; inputs are looked for beside the record, too."""
    words: list[str] = []
    with contextlib.suppress(ValueError):  # an open quote
        words = shlex.split(str(facts.get("command", "")))
    if len(words) < 3 or words[0] != "scoresde" or words[1] not in REDONE:
        raise BadInput(f"{str(path)!r} is no whole record of a run: it names no command that can be done again")
    found = {each.file: str(each.find(path.parent)) for each in inputs(facts)}
    parts = [word.rpartition("=") for word in without(words[2:], "--out")]
    return words[1], [f"{flag}{equals}{found.get(value, value)}" for flag, equals, value in parts]


def inputs(facts: dict[str, Any]) -> Iterator[Source]:
    """The files that went in."""
    from scoresde.cli.record import Source

    for key in FILES:
        for each in facts[key] if isinstance(facts.get(key), list) else [facts.get(key)]:
            if isinstance(each, dict) and "file" in each and "sha256" in each:
                known: dict[str, Any] = each
                yield Source(file=str(known["file"]), sha256=str(known["sha256"]))


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


def check_facts(path: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a repetition by another model or of another run."""

    def decided(facts: dict[str, Any], key: str) -> Any:
        if key == "settings":
            return {name: value for name, value in dict(facts[key]).items() if name not in VERSIONS}
        return facts.get(key)

    for key in (*DECIDE, "settings"):
        was, found = decided(then, key), decided(now, key)
        if was != found:
            shown = " then, ".join(json.dumps(each)[:60] for each in (was, found))
            raise BadInput(f"{str(path)!r}: {key!r} is not what it was: {shown} now")


def compared(path: Path, files: dict[str, bytes]) -> Iterator[str]:
    """What to say of files, by the endings of their names, beside those of the record: all but the records."""
    worst, equal, others = 0.0, 0, {end: content for end, content in files.items() if end != ".json"}
    for end, content in others.items():
        before = path.with_name(f"{path.stem}{end}")
        if not before.is_file():
            yield f"nothing to compare with: {before.name} is not there"
        elif (old := before.read_bytes()) == content:
            equal += 1
        elif (off := farthest(end, old, content)) is None:
            yield f"nothing to compare with: {before.name} is damaged"
        else:
            worst = max(worst, off)
    if worst:
        yield f"files differ from those of {path.name} by at most {worst:.3g}"
    elif equal:
        which = "files are" if equal == len(others) else f"{equal} of {len(others)} files are"
        yield f"{which} bitwise equal to those of {path.name}"


def farthest(end: str, before: bytes, after: bytes) -> float | None:
    """The largest difference of any number, infinite where there are not the same numbers; None of a damaged file."""
    import numpy as np
    from PIL import Image

    def read(content: bytes) -> dict[str, np.ndarray]:
        if end.endswith(".npz"):
            with np.load(io.BytesIO(content)) as arrays:
                return dict(arrays)
        return {"pixels": np.asarray(Image.open(io.BytesIO(content)))}

    try:
        old, new = read(before), read(after)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    if {k: v.shape for k, v in old.items()} != {k: v.shape for k, v in new.items()}:
        return float("inf")
    return max(float(np.abs(old[k].astype(np.float64) - new[k].astype(np.float64)).max()) for k in old)
