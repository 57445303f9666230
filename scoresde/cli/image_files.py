"""Pictures from files and to them, as tensors (channels, height, width) in 0..255."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from scoresde.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_image(path: Path, shape: tuple[int, ...]) -> Tensor:
    """The picture in a file, uint8, of the given shape: converted to its channels, never resized."""
    import numpy as np
    import torch
    from PIL import Image, UnidentifiedImageError

    if len(shape) != 3 or shape[0] not in MODES:
        raise BadInput(f"the model's events of shape {shape} are no pictures of 1, 3 or 4 channels")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(MODES[shape[0]]))
    except FileNotFoundError:
        raise BadInput(f"{str(path)!r}: no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"{str(path)!r}: no picture that can be read ({' '.join(str(error).split())})") from None
    height, width = pixels.shape[:2]
    if (height, width) != shape[1:]:
        raise BadInput(f"{str(path)!r}: {width} x {height} pixels, the model's pictures have {shape[2]} x {shape[1]}")
    return torch.from_numpy(pixels.reshape(height, width, shape[0]).transpose(2, 0, 1).copy())


def png(image: Tensor) -> bytes:
    """The content of a PNG file of one picture, values outside 0..255 clipped."""
    from PIL import Image

    from scoresde.data import to_uint8

    pixels = to_uint8(image).permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
