"""Reader of folders of images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from scoresde.data.dataset import Dataset
from scoresde.data.layout import as_labels
from scoresde.errors import BadInput

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def read_folder(path: str | Path, *, channels: int | None = None) -> Dataset:
    """The png and jpg images in a folder, all of one size; its sub-folders, where it has them, are the classes.

    Args:
        path: the folder. Names that start with a dot are skipped.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA) converts every image; None keeps grey images grey and RGBA images RGBA,
            and reads all others as RGB.

    Raises:
        BadInput: no images, images beside sub-folders with images, one that cannot be read, or one (the first is named)
            whose size differs from those before it.

    Example:
        >>> read_folder(Path("photos"), channels=3).x.shape  # doctest: +SKIP
        torch.Size([650, 3, 64, 64])
    """
    if channels not in (None, 1, 3, 4):
        raise BadInput(f"channels must be 1, 3 or 4, not {channels!r}")
    path = Path(path)
    names = sorted(
        name
        for name in (file.relative_to(path) for file in path.rglob("*"))
        if name.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in name.parts)
    )
    if not names:
        raise BadInput(f"{path}: no images ({', '.join(IMAGE_SUFFIXES)}) in this folder")
    first = _read_image(path / names[0], channels)
    x = np.empty((len(names), *first.shape), np.uint8)
    for i, name in enumerate(names):
        image = _read_image(path / name, channels)
        if image.shape != first.shape:
            raise BadInput(
                f"{path / name}: size {_size(image)} differs from {_size(first)} of {names[0]}; "
                "all images must have one size (channels=1, 3 or 4 makes their colours agree)"
            )
        x[i] = image
    groups = [name.parts[0] if len(name.parts) > 1 else "" for name in names]
    if not any(groups):
        return Dataset(torch.from_numpy(x), name=path.name, source=str(path))
    if not all(groups):
        raise BadInput(f"{path / names[groups.index('')]}: lies beside sub-folders with images; put it into a class")
    labels, classes = as_labels(np.array(groups), None, path)
    return Dataset(torch.from_numpy(x), labels, classes, name=path.name, source=str(path))


def _read_image(path: Path, channels: int | None) -> np.ndarray[Any, np.dtype[Any]]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path}: cannot be read as an image ({error})") from error
    if image.mode.startswith(("I", "F")):
        raise BadInput(f"{path}: pixels of mode {image.mode} are not 8 bits deep; convert the image first")
    own = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
    pixels = np.asarray(image.convert(own if channels is None else {1: "L", 3: "RGB", 4: "RGBA"}[channels]))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def _size(image: np.ndarray[Any, np.dtype[Any]]) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"
