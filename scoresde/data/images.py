"""From the bytes of an image file to pixels: decoded, in the wanted colours, and cropped and resized if asked."""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from scoresde.errors import BadInput

Size = tuple[int, int]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_size(size: int | Sequence[int] | None) -> Size | None:
    """(height, width) from one number for a square or from two.

    >>> read_size(64), read_size([48, 64])
    ((64, 64), (48, 64))
    """
    if size is None:
        return None
    both = [size, size] if isinstance(size, int) else list(size) if isinstance(size, list | tuple) else []
    if len(both) != 2 or not all(type(side) is int and side >= 1 for side in both):
        raise BadInput(f"size must be a whole number >= 1 or [height, width], not {size!r}")
    return both[0], both[1]


def check_channels(channels: int | None) -> int | None:
    """Return the number of channels if images can be read with it, else raise `BadInput`."""
    if channels not in (None, *MODES) or isinstance(channels, bool):
        raise BadInput(f"channels must be 1, 3 or 4, not {channels!r}")
    return channels


def decode(content: bytes, what: str, channels: int | None = None, size: Size | None = None) -> np.ndarray[Any, Any]:
    """The pixels of an image file, uint8 (channels, height, width), upright where its EXIF data say how it was held.

    Args:
        content: the file, in one of the formats of `SUFFIXES`.
        what: its name, for messages.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA) converts it; None keeps grey and RGBA and reads all else as RGB.
        size: (height, width): see `fit`. None keeps the size.

    Raises:
        BadInput: a damaged file, or pixels that are not 8 bits deep.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, of large images; what is damaged is an error
            with Image.open(io.BytesIO(content)) as image:
                image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = re.sub(r" file <.*>", "", str(error).replace("\n", " "))  # <_io.BytesIO object at 0x…>
        raise BadInput(f"{what}: cannot be read as an image ({reason})") from error
    return pixels(image, what, channels, size)


def pixels(image: Any, what: str, channels: int | None = None, size: Size | None = None) -> np.ndarray[Any, Any]:
    """As `decode`, from a Pillow image."""
    from PIL import ImageOps

    if image.mode.startswith(("I", "F")):
        raise BadInput(f"{what}: pixels of mode {image.mode} are not 8 bits deep; convert the image first")
    own = {"1": "L", "L": "L", "RGBA": "RGBA"}.get(image.mode, "RGB")
    image = ImageOps.exif_transpose(image).convert(own if channels is None else MODES[channels])
    values = np.asarray(fit(image, size) if size else image)
    return values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)


def fit(image: Any, size: Size) -> Any:
    """The middle of a Pillow image, as large as its aspect allows, resized to (height, width).

    Pillow's Lanczos filter grows with the reduction, so that nothing is aliased. An image that has the size already is
    returned as it is.

    >>> from PIL import Image
    >>> fit(Image.new("RGB", (500, 375), "red"), (64, 64)).size
    (64, 64)
    """
    from PIL import Image

    height, width = size
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = (left, top, left + scale * width, top + scale * height)
    return image.resize((width, height), Image.Resampling.LANCZOS, box)
