"""The states of a run on their way to disk while it goes: one array, whole at the end or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from scoresde.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scoresde.model import Model

COLUMNS, ROWS, POINTS = 12, 8, 2000  # steps, and images or points of each, in the picture of a trajectory


class Trajectory:
    """The states after every ``every``-th interval and the last: float32 (saved steps, samples, *event), decoded.

    Batches come one after the other, each with intervals from 0; `add` takes them as a callback. The grid of a run
    with fixed steps is known, so each state goes to its own place in the file as it comes.
    """

    def __init__(self, file: IO[bytes], every: int, decode: Callable[[Tensor], Tensor], n: int, grid: Sequence[float]):
        self.file, self.every, self.decode, self.n = file, every, decode, n
        last = len(grid) - 2
        self.place = {i: k for k, i in enumerate(i for i in range(last + 1) if (i + 1) % every == 0 or i == last)}
        self.begin = self.end = self.start = 0  # of the batch among the samples; of the numbers in the file
        self.times: list[Any] = [grid[i + 1] for i in self.place]

    def add(self, i: int, t: float, t_next: float, x: Tensor, x0: Tensor, nfe: int) -> None:
        """The end of an interval: the arguments of a callback of `scoresde.sample`."""
        if i == 0:
            self.begin, self.end = self.end, self.end + len(x)
        if i in self.place:
            self._write(self._decoded(x), self.place[i] * self.n + self.begin, len(self.place))

    def complete(self) -> None:
        """After the last batch: everything is on disk, and the file is closed."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()

    @contextmanager
    def placed(self, path: Path) -> Generator[list[Path]]:
        """The file under its own name; gone again if what is done with it there fails."""
        try:
            Path(self.file.name).replace(path)
            yield [path]
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _decoded(self, x: Tensor) -> np.ndarray:
        return self.decode(x.detach().cpu()).numpy().astype("<f4")

    def _write(self, states: np.ndarray, row: int, steps: int) -> None:
        """States of one step, the first of which has this number among those of all steps."""
        from numpy.lib.format import write_array_header_1_0

        event = states.shape[1:]
        if not self.start:
            header = {"descr": "<f4", "fortran_order": False, "shape": (steps, self.n, *event)}
            write_array_header_1_0(self.file, header)
            self.start = self.file.tell()
        self.file.seek(self.start + row * (states.nbytes // len(states)))
        self.file.write(states.tobytes())


class AdaptiveTrajectory(Trajectory):
    """The same where the error decides the steps: in memory until their number is known.

    Each batch has steps and times of its own; one with fewer stays at its last state.
    """

    def __init__(self, file: IO[bytes], every: int, decode: Callable[[Tensor], Tensor], n: int):
        super().__init__(file, every, decode, n, ())
        self.batches: list[list[tuple[float, np.ndarray]]] = []
        self.latest: tuple[float, np.ndarray] | None = None  # not saved yet, and perhaps the batch's last

    def add(self, i: int, t: float, t_next: float, x: Tensor, x0: Tensor, nfe: int) -> None:
        if i == 0:
            self._end_batch()
            self.batches.append([])
        self.latest = (t_next, self._decoded(x))
        if (i + 1) % self.every == 0:
            self._end_batch()

    def _end_batch(self) -> None:
        if self.latest:
            self.batches[-1].append(self.latest)
        self.latest = None

    def complete(self) -> None:
        self._end_batch()
        steps, begin = max(map(len, self.batches)), 0
        filled = [batch + batch[-1:] * (steps - len(batch)) for batch in self.batches]
        for batch in filled:
            for k, (_, states) in enumerate(batch):
                self._write(states, k * self.n + begin, steps)
            begin += len(batch[0][1])
        times = [[t for t, _ in batch] for batch in filled]
        self.times = times[0] if len(times) == 1 else times
        super().complete()


@contextmanager
def partial_file(folder: Path) -> Generator[IO[bytes]]:
    """A hidden file in the folder, open for writing; gone in the end, unless it was renamed."""
    path = folder / f".trajectory.{os.getpid()}.partial"
    try:
        with path.open("wb") as file:
            yield file
    except OSError as error:
        if isinstance(error, OutputError) or not error.errno:
            raise
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            path.unlink()


def picture_of(path: Path, times: Sequence[Any], model: Model, labels: np.ndarray | None) -> bytes:
    """The picture of the states in a file: some of its steps, images in rows or points."""
    import numpy as np

    from scoresde.pictures import film

    states = np.load(path, mmap_mode="r")
    steps = np.unique(np.linspace(0, len(states) - 1, COLUMNS).round().astype(int)).tolist()
    shared = not isinstance(times[0], list)
    titles = [f"t = {times[k]:.2g}" if shared else f"state {k + 1} of {len(states)}" for k in steps]
    if states.ndim < 4:
        return film(states[steps, :POINTS], titles, None if labels is None else labels[:POINTS])
    shown = states[steps, :ROWS]
    if model.info["config"]["data"]["scaler"] == "image":
        shown = _pixels(shown, model, [times[k] if shared else 0.0 for k in steps])
    return film(shown, titles)


def _pixels(states: np.ndarray, model: Model, times: Sequence[float]) -> np.ndarray:
    """Decoded states of images as uint8, the noise of each step seen at the scale of the data: x/sqrt(α² + σ²)."""
    import numpy as np
    import torch

    from scoresde.data import to_uint8

    x = [
        model.scaler.decode(model.scaler.encode(torch.from_numpy(np.asarray(step))) / model.sde.prior_std(t))
        for step, t in zip(states, times, strict=True)
    ]
    return to_uint8(torch.stack(x)).numpy()
