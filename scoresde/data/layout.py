"""The layout of `Dataset`, from the arrays that files hold."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import BadInput

_MAX_LABEL = 65_535  # a larger number is not a class but a mistake


def as_events(array: np.ndarray[Any, np.dtype[Any]], path: Path | str) -> Tensor:
    """An array in the layout of `Dataset`: images to uint8 (N, C, H, W), other numbers to float32.

    Example:
        >>> as_events(np.zeros((5, 28, 28), np.uint8), Path("grey")).shape
        torch.Size([5, 1, 28, 28])
    """
    if array.dtype.kind not in "buif":
        raise BadInput(f"{path}: values of type {array.dtype} are not numbers that can be read")
    if array.dtype != np.uint8 or array.ndim not in (3, 4):
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and Dataset names the row
            return torch.from_numpy(np.ascontiguousarray(array, np.float32))
    if array.ndim == 3:
        array = array[:, None]
    elif array.shape[3] in (1, 3, 4) and min(array.shape[1:3]) > array.shape[3]:
        array = np.moveaxis(array, 3, 1)
    return torch.from_numpy(np.ascontiguousarray(array))


def as_labels(
    values: np.ndarray[Any, np.dtype[Any]], classes: np.ndarray[Any, np.dtype[Any]] | None, path: Path | str
) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as int64 numbers, and the names of the classes: the given ones, the sorted names, or "0", "1", ...

    Example:
        >>> as_labels(np.array(["cat", "ant", "cat"]), None, Path("pets"))
        (tensor([1, 0, 1]), ('ant', 'cat'))
    """
    if values.ndim != 1:
        raise BadInput(f"{path}: labels must have shape (N,), not {values.shape}")
    if values.dtype.kind in "SU" and classes is None:
        unique, numbers = np.unique(_text(values, path), return_inverse=True)
        return torch.from_numpy(numbers.astype(np.int64)), tuple(unique.tolist())
    if values.dtype.kind not in "iu" or (values.size and not 0 <= values.min() <= values.max() <= _MAX_LABEL):
        raise BadInput(f"{path}: labels must be whole numbers in 0..{_MAX_LABEL}, not other {values.dtype} values")
    if classes is None:
        names = tuple(str(i) for i in range(int(values.max()) + 1 if values.size else 0))
    else:
        names = tuple(_text(classes, path).reshape(-1).tolist())
    return torch.from_numpy(values.astype(np.int64)), names


def _text(values: np.ndarray[Any, np.dtype[Any]], path: Path | str) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values.astype(str)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: class names are not UTF-8 text ({error})") from error
