"""Where results go: a folder that is known to be writable before any work, and files that are whole or not there."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from scoresde.errors import BadInput, OutputError


@contextmanager
def output_folder(path: Path) -> Generator[Path]:
    """Make the folder if need be and prove that it can be written to; if the work fails, leave no empty folder."""
    if path.suffix in (".png", ".npz", ".npy", ".json", ".safetensors"):
        raise BadInput(f"--out {str(path)!r} must be a folder; the names of the files in it are given")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise OutputError(f"cannot write into {str(path)!r}: {error.strerror or error}") from error
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
