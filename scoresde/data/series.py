"""Time series: windows of a table whose rows follow one another in time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde.data.dataset import Dataset
from scoresde.data.tables import read_numbers
from scoresde.errors import BadInput, choose, positive

OPTIONS = ("window", "stride", "part")


def windows(values: Tensor, window: int, stride: int = 1) -> Tensor:
    """Window k of a series (channels, rows) holds rows k·stride to k·stride + window − 1: (N, channels, window).

    N = (rows − window) // stride + 1. The windows are views of the series: they take no memory of their own.

    Raises:
        BadInput: a window or stride that is not a whole number >= 1, or a window longer than the series.

    Example:
        >>> import torch
        >>> windows(torch.arange(7.0)[None], window=3, stride=2).tolist()
        [[[0.0, 1.0, 2.0]], [[2.0, 3.0, 4.0]], [[4.0, 5.0, 6.0]]]
    """
    window, stride, rows = positive("window", window), positive("stride", stride), values.shape[-1]
    if window > rows:
        raise BadInput(f"window = {window}: the series has only {rows} rows")
    return values.unfold(1, window, stride).transpose(0, 1)


def read_series(
    path: str | Path,
    *,
    window: int | None = None,
    stride: int = 1,
    columns: str | Sequence[str | int] | None = None,
    part: Sequence[float] | None = None,
) -> Dataset:
    r"""Windows of the series in a csv or tsv file (see `read_table`), (N, channels, window) float32.

    Args:
        path: the file; its rows are times, in order, one column per channel.
        window: how many rows an event has.
        stride: from the start of one window to that of the next, in rows.
        columns: the channels, in this order: a list of names, or one string with commas. None takes every column that
            has a number in it, so that dates are left out.
        part: [a, b] takes the rows from fraction a to fraction b only, 0 <= a < b <= 1. Parts that share no fraction
            share no row, so a split in time is [0, 0.6], [0.6, 0.8] and [0.8, 1].

    Raises:
        BadInput: as `read_table` and `windows`, no window, or a part that is none.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "some.csv")
        ...     _ = path.write_text("day,load\nMon,1\nTue,2\nWed,3\nThu,4\n")
        ...     read_series(path, window=2, part=[0.0, 0.75]).x.tolist()
        [[[1.0, 2.0]], [[2.0, 3.0]]]
    """
    path = Path(path)
    if window is None:
        raise BadInput(f"{path}: window is needed: how many rows an event has")
    values = read_numbers(path, columns).T
    if part is not None:
        start, stop = _rows_of(part, values.shape[1])
        values = values[:, start:stop]
    return Dataset(windows(values, window, stride), name=path.stem, source=str(path), series=True)


def _rows_of(part: Any, rows: int) -> tuple[int, int]:
    ends = list(part) if isinstance(part, list | tuple) else []
    if len(ends) != 2 or not all(type(end) in (int, float) for end in ends) or not 0 <= ends[0] < ends[1] <= 1:
        raise BadInput(f"part must be [a, b] with 0 <= a < b <= 1, not {part!r}")
    return round(ends[0] * rows), round(ends[1] * rows)


ETTH1_SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
ETTH1_URL = (
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/ETTh1.csv"
)
MONTH = 30 * 24  # rows; the set's own convention
ETTH1_SPLITS = {"train": (0, 12 * MONTH), "val": (12 * MONTH, 16 * MONTH), "test": (16 * MONTH, 20 * MONTH)}


def etth1(
    split: str = "train", *, window: int = 96, stride: int = 1, columns: str | Sequence[str | int] | None = None
) -> Dataset:
    """ETTh1, hourly loads and oil temperature of a transformer: windows of the first 12, next 4 or next 4 months.

    Of its 17,420 rows the usual split takes 8,640, 2,880 and 2,880; no window crosses from one into another. The
    channels are HUFL, HULL, MUFL, MULL, LUFL, LULL and OT.

    Source: H. Zhou et al. 2021, Informer (arXiv:2012.07436); licence CC BY-ND 4.0.

    Example:
        >>> etth1("val", window=96, stride=24).x.shape  # doctest: +SKIP
        torch.Size([117, 7, 96])
    """
    from scoresde.data.public import find_file

    start, stop = ETTH1_SPLITS[choose("split of etth1", split, ETTH1_SPLITS)]
    path = find_file("ett/ETTh1.csv", ETTH1_URL, f"sha256:{ETTH1_SHA256}")
    values = read_numbers(path, columns)[start:stop].T
    source = f"{ETTH1_URL} (CC BY-ND 4.0)"
    return Dataset(windows(values, window, stride), name=f"etth1/{split}", source=source, series=True)
