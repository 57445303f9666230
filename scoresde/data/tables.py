"""Reader of tables of numbers: csv and tsv."""

import csv
from collections.abc import Sequence
from math import nan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.data.dataset import Dataset
from scoresde.errors import BadInput, choose

LABEL_NAMES = ("dataset", "label", "class")
_LARGEST = float(np.finfo(np.float32).max)


def read_table(
    path: str | Path, *, columns: str | Sequence[str | int] | None = None, label_column: str | int | None = None
) -> Dataset:
    r"""The points in a csv or tsv file, (N, d) float32: one row each, one column per coordinate.

    The separator is a tab where the first line has one, else a comma. The first line is a header if none of its cells
    is a number; without a header the columns are called "0", "1", ... Blank lines are skipped.

    Args:
        path: the file, UTF-8 text.
        columns: the coordinates, in this order: a list of names, or one string with commas. None takes every column
            but the label.
        label_column: the column with the class of each row. None takes one called dataset, label or class, where there
            is one that `columns` does not name. The classes are sorted, whole numbers by value and all else as text.

    Raises:
        BadInput: not a text file, no rows, rows of unequal length, an unknown column, or a cell that is empty, not a
            number, NaN, infinite or too large for float32 (the line, counted from 1, and the column are named).

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "points.csv")
        ...     _ = path.write_text("x,y,label\n1,2,b\n3,4,a\n")
        ...     data = read_table(path)
        >>> data.x.tolist(), data.labels.tolist(), data.classes
        ([[1.0, 2.0], [3.0, 4.0]], [1, 0], ('a', 'b'))
    """
    path = Path(path)
    names, rows = _read_rows(path)
    asked = _asked(columns)
    label = _find_label(path, names, asked, label_column)
    coordinates = asked or [name for name in names if name != label]
    if not coordinates or label in coordinates:
        raise BadInput(f"{path}: needs columns of numbers, and the label column {label!r} cannot be one of them")
    x = _numbers(path, names, rows, coordinates)
    if label is None:
        return Dataset(x, name=path.stem, source=str(path))
    place = names.index(label)
    for line, cells in rows:
        if not cells[place]:
            raise BadInput(f"{path}: line {line}, column {label!r}: the label is empty")
    texts = [cells[place] for _, cells in rows]
    classes = tuple(_sorted(set(texts)))
    number = {name: i for i, name in enumerate(classes)}
    labels = torch.tensor([number[text] for text in texts])
    return Dataset(x, labels, classes, name=path.stem, source=str(path))


def read_numbers(path: Path, columns: str | Sequence[str | int] | None = None) -> Tensor:
    """The numbers of a csv or tsv file, (rows, columns) float32: of the named columns, or of all that have a number.

    Raises:
        BadInput: as `read_table`.
    """
    names, rows = _read_rows(path)
    asked = _asked(columns) or [
        name for place, name in enumerate(names) if any(_is_number(cells[place]) for _, cells in rows)
    ]
    if not asked:
        raise BadInput(f"{path}: has no column of numbers")
    return _numbers(path, names, rows, asked)


Rows = list[tuple[int, list[str]]]  # the line number of each row, and its cells


def _numbers(path: Path, names: list[str], rows: Rows, columns: list[str]) -> Tensor:
    places = [names.index(choose(f"column of {path}", name, names)) for name in columns]
    values = [[_number(path, line, names[place], cells[place]) for place in places] for line, cells in rows]
    return torch.tensor(values, dtype=torch.float32)


def _read_rows(path: Path) -> tuple[list[str], Rows]:
    """The names of the columns, and for each row its line number and cells."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = "\t" if "\t" in file.readline() else ","
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: not a csv or tsv file of UTF-8 text ({error})") from error
    names = [str(i) for i in range(len(rows[0][1]))] if rows else []
    if rows and not any(_is_number(cell) for cell in rows[0][1]):
        names = rows.pop(0)[1]
    if not rows:
        raise BadInput(f"{path}: has no rows of numbers")
    if len(set(names)) < len(names):
        raise BadInput(f"{path}: two columns have the same name; the header is {', '.join(names)}")
    for line, cells in rows:
        if len(cells) != len(names):
            raise BadInput(f"{path}: line {line} has {len(cells)} cells, but the first line has {len(names)}")
    return names, rows


def _asked(columns: str | Sequence[str | int] | None) -> list[str]:
    if isinstance(columns, str):
        columns = columns.split(",")
    if columns is not None and (not isinstance(columns, list | tuple) or not columns):
        raise BadInput(f"columns must be a list of names, not {columns!r}")
    return [str(name).strip() for name in columns or ()]  # a file without a header has columns 0, 1, ...


def _find_label(path: Path, names: list[str], asked: list[str], label: str | int | None) -> str | None:
    if label is not None:
        return choose(f"column of {path}", str(label), names)
    found = [name for name in names if name.lower() in LABEL_NAMES and name not in asked]
    if len(found) > 1:
        raise BadInput(f"{path}: which column is the label, {' or '.join(found)}? Say it with label_column")
    return found[0] if found else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(path: Path, line: int, column: str, cell: str) -> float:
    value = float(cell) if _is_number(cell) and "_" not in cell else nan
    if not abs(value) <= _LARGEST:  # NaN fails it too
        raise BadInput(f"{path}: line {line}, column {column!r}: {cell!r} is not a finite float32 number")
    return value


def _sorted(texts: set[str]) -> list[str]:
    if all(text.isdecimal() for text in texts):
        return sorted(texts, key=int)
    return sorted(texts)
