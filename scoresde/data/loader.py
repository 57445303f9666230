"""Batches for a training run, read ahead by worker processes."""

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from scoresde.data.dataset import Dataset
from scoresde.errors import BadInput, TrainingStopped

Batch = tuple[Tensor, Tensor, Tensor | None]


class WorkerLost(TrainingStopped):
    """A process that reads data is gone. Nothing else is wrong: the steps before are whole."""


class _Rows:
    """The rows of each step, in order: what a DataLoader calls a sampler. It is asked in this process only."""

    def __init__(self, rows: Callable[[int], Tensor], start: int, stop: int) -> None:
        self.rows, self.steps = rows, range(start, stop)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.rows, self.steps)


class _Reader(torch.utils.data.Dataset[tuple[Tensor, Tensor | None, str]]):
    """Reads the events of a batch; a fault of the data comes back as words, which cross between processes unharmed."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor | None, str]:
        try:
            return rows, self.data.take(rows), ""
        except BadInput as error:
            return rows, None, str(error)


def batches(
    data: Dataset,
    rows: Callable[[int], Tensor],
    start: int,
    stop: int,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """(rows, events, labels or None) of the steps start to stop - 1, the same whatever `workers` is.

    Args:
        data: where the events come from.
        rows: which rows a step takes, int64 (n,); a function of the step. It is called in order, by this process.
        start: the first step.
        stop: the one after the last.
        workers: processes that read, each up to two batches ahead; 0 reads in this one, when a batch is asked for. They
            pay where reading is slow, as for images decoded on demand; events in memory are faster without.
        pin: put batches into pinned memory, from where a copy to an accelerator can run beside its work; without one
            this does nothing.

    Raises:
        BadInput: a number of workers below 0; a fault of the data, e.g. a damaged image, as `data.take` names it.
        WorkerLost: one of the processes was killed; found out when its batch is asked for, within seconds.

    The processes end with the iterator, also when it is closed early.

    Example:
        >>> data = Dataset(torch.arange(6.0)[:, None])
        >>> for rows, x, _ in batches(data, lambda step: torch.tensor([step, step + 1]), 2, 4):
        ...     print(rows.tolist(), x.tolist())
        [2, 3] [[2.0], [3.0]]
        [3, 4] [[3.0], [4.0]]
    """
    if type(workers) is not int or workers < 0:
        raise BadInput(f"workers must be a whole number >= 0, not {workers!r}")
    return _batches(data, rows, start, stop, workers, pin)


def _batches(
    data: Dataset, rows: Callable[[int], Tensor], start: int, stop: int, workers: int, pin: bool
) -> Iterator[Batch]:
    loader = torch.utils.data.DataLoader(
        _Reader(data),
        batch_size=None,
        sampler=_Rows(rows, start, stop),
        num_workers=workers,
        pin_memory=pin and torch.accelerator.is_available(),
        generator=torch.Generator(),  # it draws a seed for its workers: not from torch's own
        worker_init_fn=_heed_no_signal,
    )
    read = _start(loader)
    try:
        while (batch := _next(read)) is not None:
            chosen, x, fault = batch
            if x is None:
                raise BadInput(fault)
            yield chosen, x, None if data.labels is None else data.labels[chosen]
    finally:
        del read  # with it end its workers


def _heed_no_signal(worker: int) -> None:
    """What stops a run may be sent to all of its processes: its own decides, and ends those that read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _start(loader: torch.utils.data.DataLoader[Any]) -> Iterator[Any]:
    """Begin to read, without the handler by which torch, when a worker dies, raises in the middle of whatever runs."""
    number = getattr(signal, "SIGCHLD", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(number)
    read = iter(loader)
    signal.signal(number, before or signal.SIG_DFL)
    return read


def _next(read: Iterator[Any]) -> Any:
    """What is read next, None at the end; a worker that died is named."""
    try:
        return next(read, None)
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and "exited unexpectedly" not in str(error):
            raise
        raise WorkerLost(
            "a process that reads data was killed, perhaps for want of memory: continue with fewer train.workers"
        ) from error
