"""From a config to a model: the loop around the steps of a run, which survives what may happen to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from scoresde.checkpoint import sweep
from scoresde.config import Config
from scoresde.data import Dataset, load
from scoresde.data.loader import WorkerLost
from scoresde.errors import BadInput, OutputError, TrainingStopped
from scoresde.model import export_model
from scoresde.train.keep import CHECKPOINT, MODEL, bring_forward, checkpoints, make, newest, rotate
from scoresde.train.log import Log
from scoresde.train.posthoc import save_snapshot
from scoresde.train.preview import Preview
from scoresde.train.report import write_report
from scoresde.train.run import Run, Tell, learning_rate
from scoresde.train.stop import stop_asked

Report = Callable[[int, Mapping[str, float]], None]


def train(
    config: Config,
    out: str | Path,
    resume: bool | str | Path = False,
    device: str | torch.device = "cpu",
    report: Report | None = None,
    data: Dataset | None = None,
    tell: Tell = lambda line: None,
) -> Path:
    """Train by ``config`` into the folder ``out`` and return the path of the model, the averaged weights alone.

    ``report(step, {"loss", "gradient", "per_second"})`` is called after every step, ``tell(line)`` where a user should
    know of something. With ``resume`` (True or "auto") the newest whole checkpoint in ``out`` is continued exactly, if
    there is one, or that of a file; without it, or if it is of another run, one that is there is an error, never
    overwritten. ``data`` are those of the config, if the caller has them already. In ``out`` come to lie the checkpoint
    and ``keep - 1`` before it, the model, log.jsonl (a line of means every ``log_every`` steps, with the losses, and of
    a classifier its accuracy, in eight equal parts of λ from noise to data), pictures of samples every ``sample_every``
    steps, and at the end a page about the run. A first Ctrl-C or SIGTERM raises KeyboardInterrupt(step) once that step
    is saved, a second one a bare KeyboardInterrupt at once.
    """
    out = Path(out)
    path = out / CHECKPOINT
    if not resume and (held := checkpoints(out)):
        raise BadInput(f"{str(held[0])!r} exists: pass --resume to continue it, or choose another --out")
    data = data or load(config.data.name, config.data.split, **config.data.options)
    run = Run(config, data, device, tell)
    make(out)
    if run.engine.main:
        sweep(out)
    begin(run, out, resume)
    log = Log(out, run.step, run.engine)
    try:
        preview = Preview(run, out)
        run.engine.start_trackers(str(out), config.model_dump(mode="json"))
        with stop_asked() as asked:
            while run.step < config.train.steps:
                stride(run, out, log, preview, report)
                if run.engine.any(asked()):
                    if not due(run):
                        save(run, out)
                    raise KeyboardInterrupt(run.step)
            if run.skipped:
                raise TrainingStopped(
                    f"step {run.step}: the run ended on {run.skipped} steps in a row that were not finite;"
                    " no model written"
                )
            save(run, out)
    except OutputError:
        if not path.exists():
            log.remove()
        raise
    except WorkerLost:
        if run.engine.world == 1 and not due(run):  # several: the others wait elsewhere
            save(run, out)
        raise
    except TrainingStopped:  # the weights may have grown useless before they failed: keep what is there
        if run.untold.skipped:
            write_line(run, log)
        if not path.exists():
            save(run, out)
        raise
    finally:
        run.close()
    if run.engine.main:
        export_model(path, out / MODEL)
    drawn = preview.draw() if config.train.report else b""
    if run.engine.main and config.train.report:
        write_report(out, drawn)
    run.engine.wait()
    return out / MODEL


def begin(run: Run, out: Path, resume: bool | str | Path) -> None:
    """Continue from what ``resume`` says, if it says so and there is one; not in the folder of another run."""
    named = resume if isinstance(resume, str | Path) and str(resume) != "auto" else None
    if not resume:
        return
    whole, faults = newest(out)
    path = Path(named) if named else whole
    for fault in faults:
        run.tell(f"{fault}; continuing from {path}")
    if named and whole:
        run.check(whole)
    if path:
        run.restore(path)
    run.engine.wait()  # until all have read it
    if whole and run.engine.main:
        bring_forward(out, whole)


def stride(run: Run, out: Path, log: Log, preview: Preview, report: Report | None) -> None:
    """One step, and what is due after it."""
    train, start = run.config.train, time.perf_counter()
    figures = run.advance()
    figures["per_second"] = train.batch_size / (time.perf_counter() - start)
    if report and run.engine.main:
        report(run.step, figures)
    if not run.skipped:
        run.untold.add(figures)
    if run.step % train.log_every == 0 or run.step == train.steps:
        write_line(run, log)
    if due(run):
        save(run, out)
    if train.snapshots and run.step % train.snapshots == 0:
        save_snapshot(run, out)
    if train.sample_every and run.step % train.sample_every == 0:
        preview.draw()


def write_line(run: Run, log: Log) -> None:
    """A line of the log, of all steps since the last one."""
    more = {"accuracy_by_level": run.accuracy.read()} if run.config.task == "classifier" else {}
    rate, levels = learning_rate(run.config, run.step - 1), run.by_level.read()
    log.write(run.step, **run.untold.read(), lr=rate, by_level=levels, **more)


def due(run: Run) -> bool:
    """Whether a checkpoint belongs to this step; that of the last one is written when the run has ended."""
    return run.step % run.config.train.checkpoint_every == 0 and run.step < run.config.train.steps


def save(run: Run, out: Path) -> None:
    """A new checkpoint; the others become one older."""
    if run.engine.main:
        rotate(out, run.config.train.keep)
    run.save(out / CHECKPOINT)
    run.engine.wait()
