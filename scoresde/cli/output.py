"""Where results go: a folder that is known to be writable before any work, and files that are whole or not there."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from scoresde.errors import BadInput, OutputError


class OutFile(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] (not generic before click 8.4)
    """A file to write, of one of these endings, in a folder that is there and known to be writable."""

    name = "file"

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path, flag = Path(value), param.opts[0] if param else self.name
        if path.suffix.lower() not in self.allowed:
            endings = " or ".join([*filter(None, [", ".join(self.allowed[:-1])]), self.allowed[-1]])
            raise BadInput(f"{flag} {value}: the name must end in {endings}")
        try:
            there, taken = path.parent.is_dir(), path.is_dir()
        except OSError as error:  # too long a name
            raise OutputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
        if not there:
            raise BadInput(f"{flag} {value}: no folder {str(path.parent)!r}")
        if taken:
            raise BadInput(f"{flag} {value}: a folder has that name already; name a file")
        prove_writable(path.parent)
        return path


def prove_writable(path: Path) -> None:
    """Make the folder if need be, and refuse one that no file can be put into."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(f"cannot write into {str(path)!r}: {error.strerror or error}") from error


@contextmanager
def output_folder(path: Path) -> Generator[Path]:
    """Make the folder if need be and prove that it can be written to; if the work fails, leave no empty folder."""
    if path.suffix in (".png", ".npz", ".npy", ".json", ".safetensors"):
        raise BadInput(f"--out {str(path)!r} must be a folder; the names of the files in it are given")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        prove_writable(path)
        yield path
    except BaseException:
        for folder in made:
            with suppress(OSError):  # it holds something by now, so it stays
                folder.rmdir()
        raise


def write_together(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Write all files, each atomically; if one cannot be written, take back those before it."""
    from scoresde.checkpoint import write_atomically

    written: list[Path] = []
    try:
        for name, content in files.items():
            write_atomically(folder / name, content)
            written.append(folder / name)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written
