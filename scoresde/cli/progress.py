"""Progress on stderr: a bar on a terminal, silence or plain lines elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from scoresde.cli.text import duration

PLAIN_EVERY = 100  # training steps between two plain lines


def on_terminal() -> bool:
    """Whether there is anyone to watch a bar."""
    return bool(sys.stderr and sys.stderr.isatty())


def say(line: str, err: bool = False) -> None:
    """Print a line; once nobody can read it, as in a pipe that was closed, this and all that follow go nowhere."""
    try:
        click.echo(line, err=err)
    except OSError:
        setattr(sys, "stderr" if err else "stdout", Path(os.devnull).open("w"))  # noqa: SIM115 (to the end)


@contextmanager
def _bar(label: str, total: float, *columns: str) -> Generator[Callable[..., None]]:
    """A bar that ends with the columns; yields update(advance=..., **fields), whose ``line`` is printed above it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    texts = (TextColumn(column) for column in columns)
    shown = Progress(
        TextColumn("{task.description}"), BarColumn(), *texts, TimeRemainingColumn(), console=Console(stderr=True)
    )
    with shown:
        task = shown.add_task(label, total=total, text="")

        def update(line: str = "", **fields: Any) -> None:
            if line:
                shown.console.print(line, highlight=False, markup=False)
            shown.update(task, **fields)

        yield update


@contextmanager
def sampling_bar(label: str, intervals: int | None, batches: int) -> Generator[Callable[..., None] | None]:
    """A callback for `scoresde.sample` that moves a bar once per interval, or by time where the error decides."""
    if not on_terminal():
        yield None
        return
    total = float((intervals or 1) * batches)
    with _bar(
        label, total, "{task.completed:.0f}/{task.total:.0f}" if intervals else "", "{task.fields[text]}"
    ) as update:
        span: list[float] = []

        def callback(i: int, t: float, t_next: float, x: Any, x0: Any, nfe: int) -> None:
            span[:] = span or [t]
            update(advance=1 if intervals else (t - t_next) / span[0], text=f"{nfe} network calls")

        yield callback


@contextmanager
def steps_bar(label: str, total: int) -> Generator[Callable[[int], None]]:
    """Yields a function that is told how many more of all are done."""
    if not on_terminal():
        yield lambda count: None
        return
    with _bar(label, float(total), "{task.completed:.0f}/{task.total:.0f}") as update:
        yield lambda count: update(advance=count)


class TrainingMeter:
    """Loss, gradient norm, samples per second and time left: a bar on a terminal, else a line every hundred steps."""

    def __init__(self, total: int) -> None:
        self.total, self.step = total, 0
        self.begin: tuple[int, float] | None = None  # the first step that was seen, and when
        self.sums: dict[str, float] = {}
        self.count = 0
        self.tell: Callable[[str], None] = lambda line: say(line, err=True)  # a line of its own

    @contextmanager
    def watch(self) -> Generator[Callable[[int, Mapping[str, float]], None]]:
        """Yields the report function for `scoresde.train.train`."""
        if not on_terminal():
            yield self._plain
            return
        with _bar(
            "training", float(self.total), "{task.completed:.0f}/{task.total:.0f}", "{task.fields[text]}"
        ) as update:

            def show(**fields: Any) -> None:
                with suppress(OSError):  # a terminal that is gone
                    update(**fields)

            self.tell = lambda line: show(line=line)

            def report(step: int, figures: Mapping[str, float]) -> None:
                self._add(step, figures)
                show(completed=step, text=self._text())
                if self.count >= 2 * PLAIN_EVERY:  # forget slowly: means over the last one or two hundred steps
                    self.sums, self.count = {k: v / 2 for k, v in self.sums.items()}, self.count // 2

            yield report

    def _plain(self, step: int, figures: Mapping[str, float]) -> None:
        self._add(step, figures)
        if step % PLAIN_EVERY == 0 or step == self.total:
            first, since = self.begin or (step, 0.0)
            left = (time.perf_counter() - since) / max(1, step - first) * (self.total - step)
            say(f"step {step}/{self.total}  {self._text()}  {duration(left)} left", err=True)
            self.sums, self.count = {}, 0

    def _add(self, step: int, figures: Mapping[str, float]) -> None:
        self.begin = self.begin or (step, time.perf_counter())
        self.step = step
        if all(map(math.isfinite, figures.values())):  # a step that was skipped is told elsewhere
            self.count += 1
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in figures.items()}

    def _text(self) -> str:
        if not self.count:
            return "no finite step yet"
        mean = {name: value / self.count for name, value in self.sums.items()}
        return f"loss {mean['loss']:.4f}  gradient {mean['gradient']:.3g}  {mean['per_second']:.0f} samples/s"
