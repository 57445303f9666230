"""Arrays in .npy and .npz files: read whole, or mapped into memory and read in pieces."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from scoresde.data.dataset import Dataset, Streamed, in_memory
from scoresde.data.layout import as_events, as_labels
from scoresde.errors import BadInput

# What np.load raises on damaged files; TokenError is for a header cut off within a bracket.
_NUMPY_ERRORS = (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error, TokenError)
KEYS = ("images", "x", "data", "samples", "arr_0")


@dataclass
class Mapped:
    """An array that lies in a file as plain numbers, mapped into memory (an `Events`)."""

    path: Path
    offset: int
    stored: tuple[int, ...]  # its shape in the file, which `as_events` may change
    kind: np.dtype[Any]
    fortran: bool

    def __post_init__(self) -> None:
        self._map: Any = None
        like = as_events(np.empty((0, *self.stored[1:]), self.kind), self.path)
        self.shape: tuple[int, ...] = (self.stored[0], *like.shape[1:])
        self.dtype = like.dtype

    def read(self, rows: Sequence[int]) -> Tensor:
        if self._map is None:
            try:
                order = "F" if self.fortran else "C"
                self._map = np.memmap(self.path, self.kind, "r", self.offset, self.stored, order)
            except (OSError, ValueError) as error:
                raise BadInput(f"{self.path}: cannot be mapped into memory, is it truncated? ({error})") from error
        piece = self._map[slice(rows.start, rows.stop, rows.step) if isinstance(rows, range) else list(rows)]
        return as_events(np.array(piece), self.path)

    def content(self) -> None:
        """None: the events themselves."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}


def read_array(path: str | Path, *, stream: bool | None = None, series: bool = False) -> Dataset:
    """The data set in a .npy file, or in a .npz file with one of the keys images, x, data, samples, arr_0.

    A .npz may also hold `labels` (N whole numbers or names) and `classes` (the name of each number). uint8 images of
    shape (N, H, W, C) are moved to (N, C, H, W) where C is 1, 3 or 4 and H and W are larger. No pickled object is ever
    loaded.

    Args:
        path: the file.
        stream: True leaves the events in the file and maps it into memory (see `Streamed`), False reads them now; None
            does the latter up to 2 GiB. A compressed .npz (`np.savez_compressed`) can only be read whole.
        series: the events are time series (channels, length), scaled channel by channel.

    Raises:
        BadInput: not such a file, damaged, pickled objects inside, no known key, or data that `Dataset` refuses.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/some.npz", images=np.zeros((2, 8, 8, 3), np.uint8), labels=[0, 1])
        ...     data = read_array(Path(folder, "some.npz"), stream=True)
        ...     data.take(torch.tensor([1])).shape
        torch.Size([1, 3, 8, 8])
    """
    path = Path(path)
    mapped = find_array(path)
    if mapped is None or in_memory(mapped.shape, mapped.dtype, stream):
        arrays, found = _load_numpy(path)
        key = next((key for key in KEYS if key in arrays), None)
        if key is None:
            raise BadInput(f"{path}: has no array called {', '.join(KEYS)}; it has {', '.join(found) or 'none'}")
        x = as_events(arrays[key], path)
        if not in_memory((0,), torch.uint8, stream):
            raise BadInput(f"{path}: {key} is compressed and cannot be streamed; write the file with np.savez")
        return Dataset(x, *_labels(arrays, path), path.stem, str(path), series=series)
    arrays, _ = _load_numpy(path, ("labels", "classes"))
    return Streamed(mapped, *_labels(arrays, path), path.stem, str(path), series)


def find_array(path: Path) -> Mapped | None:
    """Where the events lie in a .npy file or an uncompressed .npz, or None where they cannot be mapped.

    >>> find_array(Path("no/such/file.npy"))
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                with zipfile.ZipFile(file) as archive:
                    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
                    member = members[next(key for key in KEYS if key in members)]
                    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                        return None
                file = path.open("rb")
                with file:
                    file.seek(member.header_offset + 26)
                    skip = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
                    file.seek(member.header_offset + 30 + skip)
                    return _mapped(file, path)
            file.seek(0)
            return _mapped(file, path)
    except (*_NUMPY_ERRORS, BadInput, StopIteration):
        return None  # what is wrong is said by the one who reads it whole


def _mapped(file: IO[bytes], path: Path) -> Mapped | None:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        return None
    shape, fortran, dtype = read(file)
    return Mapped(path, file.tell(), shape, dtype, fortran) if shape and not dtype.hasobject else None


def _labels(arrays: dict[str, np.ndarray[Any, Any]], path: Path) -> tuple[Tensor | None, tuple[str, ...]]:
    return as_labels(arrays["labels"], arrays.get("classes"), path) if "labels" in arrays else (None, ())


def _load_numpy(
    path: Path, wanted: Sequence[str] = (*KEYS, "labels", "classes")
) -> tuple[dict[str, np.ndarray[Any, Any]], list[str]]:
    """The arrays with a wanted name, and the names of all; the array of a .npy file is called data."""
    try:
        with path.open("rb") as file:
            if "data" not in wanted and file.read(2) != b"PK":
                return {}, ["data"]
            file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"data": loaded}, ["data"]
            return {name: loaded[name] for name in loaded.files if name in wanted}, loaded.files
    except PermissionError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except _NUMPY_ERRORS as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise BadInput(f"{path}: damaged, truncated or not a plain npy/npz file ({reason})") from error
