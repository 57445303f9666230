"""Readers of idx files, compressed or not. See also `arrays` (npy, npz), `tables` (csv, tsv) and `folders` (images)."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.data.dataset import Dataset
from scoresde.data.layout import as_events, as_labels
from scoresde.errors import BadInput

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_bytes(path: Path, unpack: bool = True) -> bytes:
    """The bytes of a file, decompressed if they are gzip (told by the content, not by the name) and `unpack`.

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
    if not unpack or not raw.startswith(b"\x1f\x8b"):
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
        if raw[257:262] == b"ustar":
            raise BadInput(f"{path}: a compressed tar archive: uncompress it first (gunzip)")
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
