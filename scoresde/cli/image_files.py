"""Image files as a model's events and back: read and checked, written, and side by side on a sheet."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scoresde.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scoresde.model import Model

COLOURS = {1: "grey", 3: "RGB", 4: "RGBA"}


class ImageFile(NamedTuple):
    """A file's name and SHA-256, and its pixels, uint8 (channels, height, width)."""

    file: Path
    sha256: str
    pixels: np.ndarray

    @property
    def facts(self) -> dict[str, str]:
        """What a record says of it."""
        return {"file": str(self.file), "sha256": self.sha256}

    def x(self, model: Model) -> Tensor:
        """The image as one sample (1, *event) in the network's units."""
        import torch

        return model.scaler.encode(torch.tensor(self.pixels).float()[None])


def image_shape(model: Model) -> tuple[int, int, int]:
    """(channels, height, width) of a model of images; one of other data is refused."""
    shape = model.event_shape
    if len(shape) != 3 or shape[0] not in COLOURS or model.info["config"]["data"]["scaler"] != "image":
        raise BadInput(
            f"model {model.name!r} draws data of shape {shape}, not images: in Python scoresde.guidance takes any shape"
        )
    return shape[0], shape[1], shape[2]


def read_image(path: Path, model: Model, resize: bool = False) -> ImageFile:
    """A PNG, JPEG, WebP or BMP file of the model's size and colours; others are refused, or with ``resize`` made fit.

    What is equal is taken as such: grey pixels in an RGB file, RGB ones in an opaque RGBA file.
    """
    from scoresde.data.images import decode

    channels, *size = image_shape(model)
    content = _content(path)
    if resize:
        pixels = decode(content, str(path), channels, (size[0], size[1]))
    else:
        pixels = _same_colours(decode(content, str(path)), channels, path)
        _check_size(path, pixels.shape[1:], size)
    return ImageFile(path, hashlib.sha256(content).hexdigest(), pixels)


def read_mask(path: Path, model: Model, resize: bool = False) -> ImageFile:
    """A mask of the model's size, one channel of 255 where to paint, the lighter half of the file's greys, and 0."""
    import numpy as np

    from scoresde.data.images import decode

    _, *size = image_shape(model)
    content = _content(path)
    grey = decode(content, str(path), 1, (size[0], size[1]) if resize else None)
    _check_size(path, grey.shape[1:], size)
    light = grey >= 128
    if light.all() or not light.any():
        what = "white throughout, so it hides all" if light.all() else "black throughout, so it hides nothing"
        raise BadInput(f"{str(path)!r}: the mask is {what}: white is painted, black is kept")
    return ImageFile(path, hashlib.sha256(content).hexdigest(), np.where(light, 255, 0).astype(np.uint8))


def to_pixels(model: Model, x: Tensor) -> np.ndarray:
    """Samples in the network's units as uint8 (n, channels, height, width)."""
    from scoresde.data import to_uint8

    return to_uint8(model.scaler.decode(x.cpu())).numpy()


def png(pixels: np.ndarray) -> bytes:
    """The PNG file of one image, uint8 (channels, height, width), as it is."""
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))).save(
        buffer, "PNG", optimize=True
    )
    return buffer.getvalue()


def sheet(columns: Sequence[np.ndarray], titles: Sequence[str]) -> bytes:
    """The PNG file of images side by side, a column (n, channels, height, width) under each title.

    A column of one image is repeated in every row, one of one channel shown in the colours of the others.
    """
    import numpy as np

    from scoresde.pictures import film

    n, channels = (max(column.shape[axis] for column in columns) for axis in (0, 1))
    full = [np.broadcast_to(_coloured(column, channels), (n, channels, *column.shape[2:])) for column in columns]
    return film(np.stack(full), titles)


def _coloured(x: np.ndarray, channels: int) -> np.ndarray:
    """Images of one channel in more, opaque where there are four."""
    import numpy as np

    if x.shape[1] == channels:
        return x
    alpha = [np.full_like(x, 255)] if channels == 4 else []
    return np.concatenate([*[x] * (channels - len(alpha)), *alpha], axis=1)


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise BadInput(f"{str(path)!r}: no such file")
    return path.read_bytes()


def _same_colours(pixels: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """The same colours in the model's channels, if they can be said in them."""
    own = len(pixels)
    if own == 4 and channels < 4 and (pixels[3] == 255).all():
        pixels = pixels[:3]
    if len(pixels) == 3 and channels == 1 and (pixels == pixels[:1]).all():
        pixels = pixels[:1]
    if len(pixels) < channels and len(pixels) in (1, 3):
        pixels = _coloured(pixels[None], channels)[0] if len(pixels) == 1 else _with_alpha(pixels)
    if len(pixels) != channels:
        raise BadInput(
            f"{str(path)!r} is {COLOURS[own]}, the model draws {COLOURS[channels]} images: convert it, or give --resize"
        )
    return pixels


def _with_alpha(pixels: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.concatenate([pixels, np.full_like(pixels[:1], 255)])


def _check_size(path: Path, found: Sequence[int], size: Sequence[int]) -> None:
    if tuple(found) != tuple(size):
        raise BadInput(
            f"{str(path)!r} has {found[1]}x{found[0]} pixels, the model draws {size[1]}x{size[0]}: crop it, or give"
            " --resize"
        )
