"""Readers of binary files: idx, compressed or not, and npy/npz. See also `tables` (csv, tsv) and `folders` (images)."""

import gzip
import zlib
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from scoresde.data.dataset import Dataset
from scoresde.data.layout import as_events, as_labels
from scoresde.errors import BadInput

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# What np.load raises on damaged files; TokenError is for a header cut off within a bracket.
_NUMPY_ERRORS = (OSError, ValueError, EOFError, MemoryError, RuntimeError, BadZipFile, zlib.error, TokenError)
ARRAY_KEYS = ("images", "x", "data", "samples", "arr_0")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, decompressed if they are gzip (told by the content, not by the name).

    Raises:
        BadInput: the file cannot be read, or its gzip stream is damaged or cut off.

    Example:
        >>> read_bytes(Path("no/such/file"))
        Traceback (most recent call last):
        scoresde.errors.BadInput: no/such/file: cannot be read (No such file or directory)
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path}: damaged or truncated gzip file ({error})") from error


def read_idx(path: str | Path) -> Tensor:
    """The array of an idx file, compressed or not, in its own type (big-endian on disk).

    Raises:
        BadInput: not an idx file, or one whose length does not fit its header.

    Source: Y. LeCun, C. Cortes, C. Burges, the MNIST database, "file formats".

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels-idx1-ubyte")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        ...     read_idx(path)
        tensor([7, 9], dtype=torch.uint8)
    """
    return parse_idx(read_bytes(Path(path)), Path(path))


def parse_idx(raw: bytes, path: Path) -> Tensor:
    """As `read_idx`, from the decompressed bytes; `path` is only named in errors.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]), Path("labels"))
        tensor([7, 9], dtype=torch.uint8)
    """
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_TYPES or not 1 <= raw[3] <= 8:
        start = raw[:4].hex(" ") or "nothing"
        raise BadInput(f"{path}: not an idx file (it starts with {start}, not with 00 00 <type> <dimensions>)")
    dtype, start = np.dtype(IDX_TYPES[raw[2]]), 4 + 4 * raw[3]
    if len(raw) < start:
        raise BadInput(f"{path}: truncated idx file: {len(raw)} bytes, its header alone needs {start}")
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=raw[3], offset=4))
    if 0 in shape:
        raise BadInput(f"{path}: idx file of shape {shape} holds no values")
    expected, actual = prod(shape) * dtype.itemsize, len(raw) - start
    if expected != actual:
        what = "truncated idx file" if actual < expected else "idx file with bytes left over"
        raise BadInput(f"{path}: {what}: shape {shape} needs {expected} bytes of data, there are {actual}")
    return torch.from_numpy(np.frombuffer(raw, dtype, offset=start).astype(dtype.newbyteorder("=")).reshape(shape))


def read_idx_set(path: Path, *, labels: str | Path | None = None) -> Dataset:
    """The data set in an idx file, with the labels in another one if it is named.

    Raises:
        BadInput: as `read_idx`, or labels that do not fit.

    Example:
        >>> read_idx_set(Path("train-images-idx3-ubyte.gz"), labels="train-labels-idx1-ubyte.gz")  # doctest: +SKIP
    """
    x = as_events(read_idx(path).numpy(), path)
    if labels is None:
        return Dataset(x, name=path.name, source=str(path))
    numbers, classes = as_labels(read_idx(Path(labels)).numpy(), None, Path(labels))
    return Dataset(x, numbers, classes, name=path.name, source=str(path))


def read_array(path: str | Path) -> Dataset:
    """The data set in a .npy file, or in a .npz file with one of the keys images, x, data, arr_0.

    A .npz may also hold `labels` (N whole numbers or names) and `classes` (the name of each number). uint8 images of
    shape (N, H, W, C) are moved to (N, C, H, W) where C is 1, 3 or 4 and H and W are larger. No pickled object is ever
    loaded.

    Raises:
        BadInput: not such a file, damaged, pickled objects inside, no known key, or data that `Dataset` refuses.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/some.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=[0, 1])
        ...     read_array(Path(folder, "some.npz")).x.shape
        torch.Size([2, 3, 8, 8])
    """
    path = Path(path)
    arrays, found = _load_numpy(path)
    key = next((key for key in ARRAY_KEYS if key in arrays), None)
    if key is None:
        raise BadInput(f"{path}: has no array called {', '.join(ARRAY_KEYS)}; it has {', '.join(found) or 'none'}")
    x = as_events(arrays[key], path)
    if "labels" not in arrays:
        return Dataset(x, name=path.stem, source=str(path))
    labels, classes = as_labels(arrays["labels"], arrays.get("classes"), path)
    return Dataset(x, labels, classes, name=path.stem, source=str(path))


def _load_numpy(path: Path) -> tuple[dict[str, np.ndarray[Any, np.dtype[Any]]], list[str]]:
    """The arrays with a known name, and the names of all."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"data": loaded}, ["data"]
            known = [name for name in loaded.files if name in (*ARRAY_KEYS, "labels", "classes")]
            return {name: loaded[name] for name in known}, loaded.files
    except _NUMPY_ERRORS as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise BadInput(f"{path}: damaged, truncated or not a plain npy/npz file ({reason})") from error
