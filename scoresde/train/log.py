"""What a run has to tell of itself, in a file beside its checkpoint: one line of JSON every so many steps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from scoresde.errors import BadInput, OutputError
from scoresde.train.engine import Engine

LOG = "log.jsonl"


class Log:
    """Means over every ``every`` steps of the loss, the gradient's norm and the samples per second; losses by level.

    Steps that were not finite are left out of the means, and counted. Trackers are told the same.
    A run that goes on from step k drops the lines after k, so that the file is that of an uninterrupted run.
    """

    def __init__(self, folder: Path, every: int, step: int, engine: Engine) -> None:
        self.path, self.every, self.engine = folder / LOG, every, engine
        self.figures: list[dict[str, float]] = []
        if not engine.main:
            return
        lines = self.path.read_text(encoding="utf-8").splitlines() if step and self.path.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        if kept or self.path.is_file():
            self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def add(self, step: int, figures: dict[str, float]) -> bool:
        """Take in a step's figures; True where a line is due."""
        self.figures.append(figures)
        return step % self.every == 0

    def remove(self) -> None:
        """Leave nothing behind."""
        self.path.unlink(missing_ok=True)

    def write(self, step: int, **more: Any) -> None:
        """A line of the means since the last one."""
        fine = [each for each in self.figures if all(map(math.isfinite, each.values()))]
        means = {name: sum(each[name] for each in fine) / len(fine) for name in (fine[0] if fine else ())}
        skipped = len(self.figures) - len(fine)
        self.figures = []
        line: dict[str, Any] = {"step": step, **{name: float(f"{value:.6g}") for name, value in means.items()}, **more}
        if skipped:
            line["skipped"] = skipped
        self.engine.track({key: v for key, v in line.items() if isinstance(v, int | float) and key != "step"}, step)
        if not self.engine.main:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {str(self.path)!r}: {error.strerror}") from error


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    path = folder / LOG
    if not path.is_file():
        raise BadInput(f"{str(path)!r}: no such file: it is written by a training run")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
