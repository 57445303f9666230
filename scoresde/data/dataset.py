"""A data set: events in the data's own units, in memory or read when asked for, and labels where it has them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from scoresde.errors import BadInput, positive

LARGE = 2 * 2**30  # bytes of events from where readers that can do so leave them on the disk
PIECE = 2**22  # numbers read or hashed at a time


@dataclass(frozen=True, eq=False)
class Dataset:
    """N events in their own units, checked when built; nothing is scaled here (see `Scaler`).

    `take` and `pieces` read events, of this class as of `Streamed`, whose events lie on a disk; `x` is all of them, for
    sets in memory only.

    Args:
        x: (N, *event). Images are uint8 (N, C, H, W), 0 to 255; everything else is float32.
        labels: int64 (N,), each in 0..num_classes-1, or None.
        classes: the name of each label; empty without labels.
        name: what the set is called, for messages and model cards.
        source: where it came from (an address, a path, a recipe).
        sha256: SHA-256, in hex, of the bytes of x (C order) followed by those of the labels.
            Computed when left empty; when given, data that differ from it are refused.
        series: whether events are time series (channels, length), which `Scaler.fit` scales channel by channel.

    Raises:
        BadInput: a wrong dtype or shape, no events, a NaN or infinity (the row is named), a label out of range,
            or data that do not match `sha256`.

    Example:
        >>> data = Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]), ("a", "b"), name="tiny")
        >>> len(data), data.event_shape, data.num_classes
        (3, (2,), 2)
        >>> data.take(torch.tensor([2, 0])).shape, [len(piece) for piece in data.pieces(2)]
        (torch.Size([2, 2]), [2, 1])
    """

    x: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    name: str = ""
    source: str = ""
    sha256: str = ""
    series: bool = False

    def __post_init__(self) -> None:
        _check_layout(tuple(self.x.shape), self.x.dtype, self.series, self.name)
        start, size = 0, piece_size(self.event_shape)
        for piece in self.x.split(size):
            _check_finite(piece, range(start, start + size), self.name)
            start += size
        _check_labels(self.labels, self.classes, len(self.x), self.name)
        actual = _sha256((_bytes(piece) for piece in self.x.split(size)), self.labels)
        if self.sha256 and self.sha256 != actual:
            raise BadInput(f"data set {self.name!r}: its SHA-256 is {actual}, but {self.sha256} was expected")
        object.__setattr__(self, "sha256", actual)

    def __len__(self) -> int:
        """The number of events, N."""
        return len(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one event, e.g. (1, 28, 28) for grey images or (2,) for points in the plane."""
        return tuple(self.x.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """uint8 for images, float32 for everything else."""
        return self.x.dtype

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 without labels."""
        return len(self.classes)

    def take(self, rows: Tensor) -> Tensor:
        """The events of these rows (int64, (n,)), in their order and own units: (n, *event), uint8 or float32."""
        return self.x[rows]

    def pieces(self, size: int = 4096) -> Iterator[Tensor]:
        """All events in order, up to `size` at a time."""
        yield from self.x.split(positive("size", size))


class Events(Protocol):
    """N events that are read when asked for. It must survive pickling: worker processes read it too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *event)."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The type that `read` returns: uint8 for images, else float32."""
        ...

    def read(self, rows: Sequence[int]) -> Tensor:
        """The events of these rows, (n, *event)."""
        ...

    def content(self) -> Iterator[bytes] | None:
        """What the SHA-256 is taken of, if not the bytes of the events themselves."""
        ...


class Streamed(Dataset):
    """A data set whose events are read from the disk when `take` or `pieces` asks for them.

    Its `x` is refused with a `BadInput`: what is written for any set uses `take` and `pieces`. Values are looked
    through for NaN and infinities as they are read. `sha256` is computed in one pass when it is first asked for: of the
    same bytes as in memory, so that an array has one SHA-256 however it is read; or of what `events.content` gives, for
    images the name and the file of each, undecoded.

    Args:
        events: what reads them; of shape (N, *event).
        labels, classes, name, source, series: as `Dataset`.

    Raises:
        BadInput: as `Dataset`; a NaN or infinity when it is read.
    """

    def __init__(
        self,
        events: Events,
        labels: Tensor | None = None,
        classes: tuple[str, ...] = (),
        name: str = "",
        source: str = "",
        series: bool = False,
    ) -> None:
        fields = {"labels": labels, "classes": classes, "name": name, "source": source, "series": series}
        self.__dict__.update(fields, events=events)
        _check_layout(events.shape, events.dtype, series, name)
        _check_labels(labels, classes, len(self), name)

    def __repr__(self) -> str:
        return f"Streamed({self.name!r}, {len(self)} x {self.event_shape}, {self.dtype})"

    def __len__(self) -> int:
        return self.events.shape[0]

    @property
    def events(self) -> Events:
        """What reads the events."""
        return self.__dict__["events"]

    @property
    def x(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise BadInput(f"data set {self.name!r} is read from the disk in pieces: use take(rows) or pieces(), not x")

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.events.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        return self.events.dtype

    @cached_property
    def sha256(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        content = self.events.content()
        if content is None:
            content = (_bytes(piece) for piece in self.pieces(piece_size(self.event_shape)))
        return _sha256(content, self.labels)

    def take(self, rows: Tensor) -> Tensor:
        return self._read(rows.tolist())

    def pieces(self, size: int = 4096) -> Iterator[Tensor]:
        for start in range(0, len(self), positive("size", size)):
            yield self._read(range(start, min(start + size, len(self))))

    def _read(self, rows: Sequence[int]) -> Tensor:
        x = self.events.read(rows)
        _check_finite(x, rows, self.name)
        return x


def piece_size(event_shape: tuple[int, ...]) -> int:
    """How many events to read at a time, so that they hold about four million numbers.

    >>> piece_size((3, 1024, 1024)), piece_size((2,))
    (1, 2097152)
    """
    return max(1, PIECE // max(1, prod(event_shape)))


def in_memory(shape: tuple[int, ...], dtype: torch.dtype, stream: bool | None) -> bool:
    """Whether events of this shape are read at once: as `stream` says, and left to itself up to 2 GiB.

    >>> in_memory((60_000, 1, 28, 28), torch.uint8, None), in_memory((1_300_000, 3, 64, 64), torch.uint8, None)
    (True, False)
    """
    if stream not in (None, True, False):
        raise BadInput(f"stream must be true or false, not {stream!r}")
    return prod(shape) * dtype.itemsize <= LARGE if stream is None else not stream


def _check_layout(shape: tuple[int, ...], dtype: torch.dtype, series: bool, name: str) -> None:
    if dtype not in (torch.uint8, torch.float32):
        raise BadInput(f"data set {name!r}: x has dtype {dtype}; uint8 images or float32 values are allowed")
    if dtype == torch.uint8 and len(shape) != 4:
        raise BadInput(f"data set {name!r}: uint8 images must have shape (N, C, H, W), not {shape}")
    if not shape or prod(shape) == 0:
        raise BadInput(f"data set {name!r}: x of shape {shape} holds no events; at least one is needed")
    if series and len(shape) != 3:
        raise BadInput(f"data set {name!r}: series must have shape (N, channels, length), not {shape}")


def _check_finite(x: Tensor, rows: Sequence[int], name: str) -> None:
    if x.is_floating_point():
        good = torch.isfinite(x).reshape(len(x), -1).all(dim=1)
        if not good.all():
            row = rows[int((~good).nonzero()[0])]
            raise BadInput(f"data set {name!r}: row {row} (counted from 0) has a NaN or infinite value")


def _check_labels(labels: Tensor | None, classes: tuple[str, ...], count: int, name: str) -> None:
    if labels is None:
        if classes:
            raise BadInput(f"data set {name!r}: {len(classes)} classes but no labels")
        return
    if labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        raise BadInput(
            f"data set {name!r}: labels must be int64 of shape ({count},), not {labels.dtype} {tuple(labels.shape)}"
        )
    bad = (labels < 0) | (labels >= len(classes))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise BadInput(
            f"data set {name!r}: row {row} (counted from 0) has label {int(labels[row])}; "
            f"with {len(classes)} classes 0..{len(classes) - 1} are allowed"
        )


def _bytes(x: Tensor) -> memoryview:
    return x.detach().cpu().contiguous().numpy().data


def _sha256(content: Iterator[bytes | memoryview], labels: Tensor | None) -> str:
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    if labels is not None:
        digest.update(_bytes(labels))
    return digest.hexdigest()
