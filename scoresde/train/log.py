"""What a run has to tell of itself, in a file beside its checkpoint: one line of JSON every so many steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from scoresde.errors import BadInput, OutputError
from scoresde.train.engine import Engine

LOG = "log.jsonl"


class Untold:
    """Of the steps since the last line of the log: the sums of their figures, and what is known of those skipped."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.number = 0
        self.skipped: list[dict[str, Any]] = []

    def add(self, figures: Mapping[str, float]) -> None:
        """Count a step's figures, if they are finite."""
        if all(map(math.isfinite, figures.values())):
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in figures.items()}
            self.number += 1

    def skip(self, step: int, t: float | None, gradient: float) -> None:
        """Count a step that was skipped, at a time t where its loss is not finite, if there is one."""
        norm = gradient if math.isfinite(gradient) else str(gradient)
        self.skipped.append({"step": step, "t": t, "gradient": norm})

    def read(self) -> dict[str, Any]:
        """The means, and the skipped steps if there are any; begins anew."""
        found: dict[str, Any] = {name: float(f"{value / self.number:.6g}") for name, value in self.sums.items()}
        if self.skipped:
            found |= {"skipped": len(self.skipped), "skipped_steps": self.skipped}
        self.load({})
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep, for JSON; nothing if there is nothing to tell."""
        held = {"sums": self.sums, "number": self.number, "skipped": self.skipped}
        return held if self.number or self.skipped else {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.sums, self.number = dict(state.get("sums", {})), int(state.get("number", 0))
        self.skipped = list(state.get("skipped", []))


class Log:
    """A line every so many steps: means of the loss, the gradient's norm and the samples per second; losses by level.

    Steps that were not finite are left out of the means, and told: at what t, where the loss was not finite, and with
    what gradient norm. Trackers are told the same, but for these.
    A run that goes on from step k drops the lines after k; its checkpoint holds the sums of the steps since the last of
    the others. So the file is that of an uninterrupted run, but for the speed.
    """

    def __init__(self, folder: Path, step: int, engine: Engine) -> None:
        self.path, self.engine = folder / LOG, engine
        if not engine.main:
            return
        if self.path.is_file():
            kept = [line for line in _whole(self.path) if line["step"] <= step] if step else []
            self.path.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")

    def remove(self) -> None:
        """Leave nothing behind."""
        self.path.unlink(missing_ok=True)

    def write(self, step: int, **figures: Any) -> None:
        """A line; trackers are told its numbers, those of lists one by one."""
        self.engine.track(_numbers(figures), step)
        if not self.engine.main:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {str(self.path)!r}: {error.strerror}") from error


def _numbers(figures: Mapping[str, Any]) -> dict[str, int | float]:
    """Those of a line's figures that are numbers, or numbers in a list, by names as in "by_level/0".

    >>> _numbers({"loss": 0.5, "by_level": [0.25, None], "skipped_steps": [{"step": 3}]})
    {'loss': 0.5, 'by_level/0': 0.25}
    """
    parts = {name: value for name, value in figures.items() if not isinstance(value, list)}
    for name, value in figures.items():
        if isinstance(value, list):
            parts |= {f"{name}/{i}": each for i, each in enumerate(value)}
    return {name: value for name, value in parts.items() if isinstance(value, int | float)}


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    path = folder / LOG
    if not path.is_file():
        raise BadInput(f"{str(path)!r}: no such file: it is written by a training run")
    return list(_whole(path))


def _whole(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log that were written to their end."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            yield json.loads(line)
