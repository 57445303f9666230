"""The checkpoints of a run's folder: the newest, and before it the last few, so that a damaged one costs little."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from scoresde.checkpoint import load_checkpoint
from scoresde.errors import BadInput, OutputError

CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"


def older(folder: Path, back: int) -> Path:
    """Where the checkpoint ``back`` saves before the newest is kept."""
    return folder / (f"checkpoint-{back}.safetensors" if back else CHECKPOINT)


def rotate(folder: Path, keep: int) -> None:
    """Make room for a new checkpoint: each becomes one older, the newest by a second name of the same file.

    There is a whole checkpoint under the newest's name at every moment. After a save that failed all has been done.
    """
    if not older(folder, 0).exists():
        return
    done = older(folder, 1).exists() and older(folder, 1).samefile(older(folder, 0))
    try:
        for back in range(0 if done else keep - 1, 0, -1):
            if back > 1:
                with contextlib.suppress(FileNotFoundError):
                    older(folder, back - 1).replace(older(folder, back))
            else:
                older(folder, 1).unlink(missing_ok=True)
                os.link(older(folder, 0), older(folder, 1))
    except OSError:  # no such links on this file system: the newest alone is kept
        older(folder, 1).unlink(missing_ok=True)
    for path in checkpoints(folder)[1:]:
        if int(path.stem.removeprefix("checkpoint-")) >= keep:
            path.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """Those of a folder, the newest first."""
    found = folder.glob("checkpoint-*.safetensors")
    back = {int(number): path for path in found if (number := path.stem.removeprefix("checkpoint-")).isdigit()}
    head = [older(folder, 0)] if older(folder, 0).exists() else []
    return head + [back[k] for k in sorted(back)]


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be read whole, if there is any, and a line on each newer one that cannot."""
    faults: list[str] = []
    for path in checkpoints(folder):
        try:
            load_checkpoint(path)
            return path, faults
        except BadInput as error:
            faults.append(str(error))
    if faults:
        raise BadInput(f"{faults[0]}; none of the {len(faults)} checkpoints in {str(folder)!r} can be read")
    return None, []


def bring_forward(folder: Path, path: Path) -> None:
    """Give a checkpoint the newest's name, by one rename, and remove those newer than it, which are damaged.

    Else the next `rotate` would put a damaged one in its place.
    """
    try:
        held = checkpoints(folder)
        path.replace(older(folder, 0))
        for each in held[: held.index(path)]:
            if each != older(folder, 0):
                each.unlink()
    except OSError as error:
        raise OutputError(f"cannot rename {str(path)!r}: {error.strerror}") from error


def make(folder: Path) -> None:
    """The folder, with those above it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot create {str(folder)!r}: {error.strerror}") from error
