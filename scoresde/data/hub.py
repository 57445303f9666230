"""Data sets of the Hugging Face hub, by their library `datasets` (the extra of that name)."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.data.dataset import Dataset, Streamed, in_memory
from scoresde.data.images import Size, check_channels, pixels, read_size
from scoresde.data.layout import as_labels
from scoresde.errors import BadInput, choose

IMAGES, LABELS = ("image", "img", "images"), ("label", "labels", "fine_label")


class Column:
    """A column of a table of images or of lists of numbers, read when it is asked for (an `Events`)."""

    def __init__(self, table: Any, column: str, channels: int | None, size: Size | None, name: str) -> None:
        self.table, self.column, self.channels, self.size, self.name = table, column, channels, size, name
        first = self._event(0)
        self.shape: tuple[int, ...] = (len(table), *first.shape)
        self.dtype = torch.uint8 if first.dtype == np.uint8 else torch.float32

    def read(self, rows: Sequence[int]) -> Tensor:
        events = [self._event(row) for row in rows]
        for row, event in zip(rows, events, strict=True):
            if event.shape != self.shape[1:] or (event.dtype == np.uint8) != (self.dtype == torch.uint8):
                raise BadInput(
                    f"{self.name}: row {row} has shape {event.shape}, row 0 has {self.shape[1:]}; all events must have "
                    "one shape (of images, size=64 crops and resizes, channels=1, 3 or 4 makes colours agree)"
                )
        return torch.from_numpy(np.stack(events))

    def content(self) -> Iterator[bytes] | None:
        """None: the events themselves."""
        return None

    def _event(self, row: int) -> np.ndarray[Any, Any]:
        value, what = self.table[int(row)][self.column], f"{self.name}, row {row}"
        if hasattr(value, "mode"):  # an image
            try:
                return pixels(value, what, self.channels, self.size)
            except (OSError, SyntaxError, ValueError) as error:
                raise error if isinstance(error, BadInput) else BadInput(f"{what}: no image ({error})") from error
        try:
            return np.asarray(value, np.float32)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{what}: {self.column} is neither an image nor a list of numbers ({error})") from error


def read_hub(
    path: str,
    split: str = "train",
    *,
    image: str | None = None,
    label: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    channels: int | None = None,
    size: int | Sequence[int] | None = None,
    stream: bool | None = None,
) -> Dataset:
    """A data set of the Hugging Face hub, downloaded once into that library's cache.

    Args:
        path: its name there, e.g. "ylecun/mnist".
        split: one of its splits.
        image: the column of events, images or lists of numbers. None takes one called image, img or images.
        label: the column of labels. None takes one called label, labels or fine_label where there is one.
        config: which of its configurations, where it has several.
        revision: the branch, tag or commit; the newest one else.
        channels, size, stream: as `read_folder`.

    Raises:
        BadInput: the library is not installed, an unknown data set, split or column, a failed download, or values that
            are no images or numbers.

    Example:
        >>> read_hub("ylecun/mnist", "test").event_shape  # doctest: +SKIP
        (1, 28, 28)
    """
    check_channels(channels)
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise BadInput(
            f"hf:{path}: needs the library datasets, which is not installed: pip install scoresde[datasets]"
        ) from error
    try:
        table: Any = datasets.load_dataset(path, config, split=split, revision=revision)
    except Exception as error:  # its own, the hub's, the network's
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise BadInput(f"hf:{path}: split {split!r} cannot be loaded ({reason})") from error
    name, columns = f"hf:{path}/{split}", list(table.column_names)
    if not len(table):
        raise BadInput(f"{name}: has no rows")
    image = choose(f"column of {name}", image or next((c for c in IMAGES if c in columns), "image"), columns)
    label = label or next((c for c in LABELS if c in columns and c != image), None)
    labels, classes = None, ()
    if label is not None:
        values = np.asarray(list(table[choose(f"column of {name}", label, columns)]))
        names = getattr(table.features[label], "names", None)
        labels, classes = as_labels(values, np.array(names) if names else None, name)
    events = Column(table, image, channels, read_size(size), name)
    source = f"https://huggingface.co/datasets/{path}"
    if in_memory(events.shape, events.dtype, stream):
        return Dataset(events.read(range(len(table))), labels, classes, name, source)
    return Streamed(events, labels, classes, name, source)
