"""From a config to a model: the loop around the steps of a run, which survives what may happen to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from scoresde.config import Config
from scoresde.data import Dataset, load
from scoresde.errors import BadInput, OutputError, TrainingStopped
from scoresde.model import export_model
from scoresde.train.keep import CHECKPOINT, MODEL, checkpoints, make, newest, rotate
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
    there is one, or that of a file; without it one that is there is an error, never overwritten. ``data`` are those of
    the config, if the caller has them already. In ``out`` come to lie the checkpoint and ``keep - 1`` before it, the
    model, log.jsonl (a line of means every ``log_every`` steps, with the losses, and of a classifier its accuracy, in
    eight equal parts of λ from noise to data), pictures of samples every ``sample_every`` steps, and at the end a page
    about the run.
    """
    out = Path(out)
    path = out / CHECKPOINT
    if not resume and (held := checkpoints(out)):
        raise BadInput(f"{str(held[0])!r} exists: pass --resume to continue it, or choose another --out")
    data = data or load(config.data.name, config.data.split, **config.data.options)
    run = Run(config, data, device, tell)
    make(out)
    begin(run, out, resume)
    log = Log(out, config.train.log_every, run.step, run.engine)
    try:
        preview = Preview(run, out)
        run.engine.start_trackers(str(out), config.model_dump(mode="json"))
        with stop_asked() as asked:
            while run.step < config.train.steps:
                stride(run, out, log, preview, report)
                if run.engine.any(asked()):
                    if not path.exists() or run.step % config.train.checkpoint_every:
                        save(run, out)
                    raise KeyboardInterrupt
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
    except TrainingStopped:  # the weights may have grown useless before they failed: keep what is there
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
    """Continue from what ``resume`` says, if it says so and there is one."""
    named = resume if isinstance(resume, str | Path) and str(resume) != "auto" else None
    if not resume:
        return
    path, faults = (Path(named), []) if named else newest(out)
    for fault in faults:
        run.tell(f"{fault}; continuing from {path}")
    if path:
        run.restore(path)


def stride(run: Run, out: Path, log: Log, preview: Preview, report: Report | None) -> None:
    """One step, and what is due after it."""
    train, start = run.config.train, time.perf_counter()
    figures = run.advance()
    figures["per_second"] = train.batch_size / (time.perf_counter() - start)
    if report and run.engine.main:
        report(run.step, figures)
    if log.add(run.step, figures) or run.step == train.steps:
        more = {"accuracy_by_level": run.accuracy.read()} if run.config.task == "classifier" else {}
        log.write(run.step, lr=learning_rate(run.config, run.step - 1), by_level=run.by_level.read(), **more)
    if run.step % train.checkpoint_every == 0 and run.step < train.steps:
        save(run, out)
    if train.snapshots and run.step % train.snapshots == 0:
        save_snapshot(run, out)
    if train.sample_every and run.step % train.sample_every == 0:
        preview.draw()


def save(run: Run, out: Path) -> None:
    """A new checkpoint; the others become one older."""
    if run.engine.main:
        rotate(out, run.config.train.keep)
    run.save(out / CHECKPOINT)
    run.engine.wait()
