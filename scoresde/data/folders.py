"""Readers of images in folders and in zip and tar archives, all at once or one by one when they are asked for."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from scoresde.data.dataset import Dataset, Streamed, in_memory
from scoresde.data.images import SUFFIXES, Size, check_channels, decode, read_size
from scoresde.data.layout import as_labels
from scoresde.errors import BadInput

SKIPPED = (".", "__MACOSX")  # how the names of files and folders start that are no part of the data


class Store(Protocol):
    """Files by their names."""

    @property
    def path(self) -> Path:
        """Where the store is."""
        ...

    def names(self) -> list[str]:
        """All files in it, as paths with slashes."""
        ...

    def read(self, name: str) -> bytes:
        """The content of one."""
        ...


class Folder:
    """A folder and what is below it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        found: list[str] = []
        for folder, folders, files in os.walk(self.path, onerror=_refuse, followlinks=True):
            here, names = Path(folder), [name for name in folders if not name.startswith(SKIPPED)]
            way = {each.resolve() for each in (here, *here.parents) if each.is_relative_to(self.path)}
            folders[:] = [name for name in names if (here / name).resolve() not in way]  # a link back has no end
            found += [(here / name).relative_to(self.path).as_posix() for name in files]
        return found

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise BadInput(f"{self.path / name}: cannot be read ({error.strerror})") from error


def _refuse(error: OSError) -> None:
    raise BadInput(f"{error.filename}: cannot be read ({error.strerror})") from error


class Archive:
    """A zip or tar file. What is open stays with its process: worker processes open the file for themselves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: tuple[int, _Zip | _Tar] | None = None

    def names(self) -> list[str]:
        return list(self._get().members)

    def read(self, name: str) -> bytes:
        try:
            return self._get().read(name)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise BadInput(f"{self.path / name}: cannot be read from the archive ({error})") from error

    def _get(self) -> "_Zip | _Tar":
        if self._open is None or self._open[0] != os.getpid():
            kind = _Tar if self.path.suffix.lower() == ".tar" else _Zip
            try:
                self._open = os.getpid(), kind(self.path)
            except (zipfile.BadZipFile, tarfile.TarError, OSError, EOFError) as error:
                raise BadInput(f"{self.path}: damaged, or not a {self.path.suffix[1:]} archive ({error})") from error
        return self._open[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_open": None}


def _plain(name: str) -> str:
    """A name without the ./ that archives may put in front."""
    return str(PurePosixPath(name))


class _Zip:
    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path)
        self.members = {_plain(member.filename): member for member in self.archive.infolist() if not member.is_dir()}

    def read(self, name: str) -> bytes:
        return self.archive.read(self.members[name])


class _Tar:
    """An uncompressed tar file: where each member lies, and the file."""

    def __init__(self, path: Path) -> None:
        with tarfile.open(path, "r:") as archive:
            files = [member for member in archive if member.isreg()]
        self.members = {_plain(member.name): (member.offset_data, member.size) for member in files}
        self.file = path.open("rb")

    def read(self, name: str) -> bytes:
        offset, size = self.members[name]
        self.file.seek(offset)
        content = self.file.read(size)
        if len(content) < size:
            raise EOFError("the archive is truncated")
        return content

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


class Images:
    """Images of a store, all of one size and colour, decoded when they are read (an `Events`)."""

    dtype = torch.uint8

    def __init__(self, store: Store, names: Sequence[str], channels: int | None, size: Size | None) -> None:
        self.store, self.files, self.channels, self.size = store, list(names), channels, size
        self.shape: tuple[int, ...] = (len(names), *self._decode(names[0]).shape)

    def read(self, rows: Sequence[int]) -> Tensor:
        x = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for i, row in enumerate(rows):
            image = self._decode(self.files[row])
            if image.shape != self.shape[1:]:
                raise BadInput(
                    f"{self.store.path / self.files[row]}: size {_size(image.shape)} differs from "
                    f"{_size(self.shape[1:])} of {self.files[0]}; all images must have one size (size=64 crops and "
                    "resizes them, channels=1, 3 or 4 makes their colours agree)"
                )
            x[i] = image
        return torch.from_numpy(x)

    def content(self) -> Iterator[bytes]:
        """How they are read, and the name, the length and the bytes of each file."""
        yield f"channels {self.channels}, size {self.size}\n".encode()
        for name in self.files:
            file = self.store.read(name)
            yield f"{name}\n{len(file)}\n".encode()
            yield file

    def _decode(self, name: str) -> np.ndarray[Any, Any]:
        return decode(self.store.read(name), str(self.store.path / name), self.channels, self.size)


def read_folder(
    path: str | Path,
    *,
    channels: int | None = None,
    size: int | Sequence[int] | None = None,
    stream: bool | None = None,
) -> Dataset:
    """The png, jpg, webp and bmp images in a folder; its sub-folders, where it has them, are the classes.

    Args:
        path: the folder. Names that start with a dot are skipped.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA) converts every image; None keeps grey images grey and RGBA images RGBA,
            and reads all others as RGB.
        size: a number, or [height, width]: the middle of every image, as large as the aspect allows, is resized to it.
            None asks for images of one size.
        stream: True decodes images when they are asked for (see `Streamed`), False reads all of them now; None does
            the latter for up to 2 GiB of pixels.

    Raises:
        BadInput: no images, images beside sub-folders with images, a sub-folder or an image that cannot be read, or one
            (it is named) whose size differs from that of the first; images of a streamed set when they are read.

    Example:
        >>> read_folder(Path("photos"), channels=3, size=64).x.shape  # doctest: +SKIP
        torch.Size([3670, 3, 64, 64])
    """
    return _read_store(Folder(Path(path)), "folder", channels, size, stream)


def read_archive(
    path: str | Path,
    *,
    channels: int | None = None,
    size: int | Sequence[int] | None = None,
    stream: bool | None = None,
) -> Dataset:
    """The images in a .zip or an uncompressed .tar archive, as `read_folder` reads a folder.

    Folders of the archive that hold all of its images are passed over: those below them are the classes.

    Example:
        >>> read_archive("photos.zip", size=[48, 64]).event_shape  # doctest: +SKIP
        (3, 48, 64)
    """
    return _read_store(Archive(Path(path)), "archive", channels, size, stream)


def _read_store(
    store: Store, kind: str, channels: int | None, size: int | Sequence[int] | None, stream: bool | None
) -> Dataset:
    check_channels(channels)
    size = read_size(size)
    names = sorted(PurePosixPath(name) for name in store.names() if _is_image(PurePosixPath(name)))
    if not names:
        raise BadInput(f"{store.path}: no images ({', '.join(SUFFIXES)}) in this {kind}")
    top = _common([name.parts[:-1] for name in names]) if kind == "archive" else 0
    groups = [name.parts[top] if len(name.parts) > top + 1 else "" for name in names]
    if any(groups) and not all(groups):
        bare = store.path / names[groups.index("")]
        raise BadInput(f"{bare}: lies beside sub-folders with images; put it into a class")
    labels, classes = as_labels(np.array(groups), None, store.path) if any(groups) else (None, ())
    images = Images(store, [str(name) for name in names], channels, size)
    name, source = store.path.stem if kind == "archive" else store.path.name, str(store.path)
    if in_memory(images.shape, images.dtype, stream):
        return Dataset(images.read(range(len(names))), labels, classes, name, source)
    return Streamed(images, labels, classes, name, source)


def _common(folders: Sequence[Sequence[str]]) -> int:
    """How many folders, from the first, all have in common."""
    return sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False)))


def _is_image(name: PurePosixPath) -> bool:
    hidden = any(part.startswith(SKIPPED) for part in name.parts)
    return name.suffix.lower() in SUFFIXES and not hidden


def _size(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"
