"""Files for the tests of data, and what a refusal looks like."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scoresde.data import load
from scoresde.errors import BadInput


def write(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def save(path: Path, pixels: np.ndarray[Any, Any], mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


def refuses(path: Path | str, *words: str, **options: Any) -> None:
    """Loading fails with one line that holds the words and, for a file, its path."""
    with pytest.raises(BadInput) as caught:
        load(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (*words, str(path)):
        assert word in message, message


def some_pixels(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
