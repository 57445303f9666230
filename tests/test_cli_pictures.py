"""Pictures: which one suits which samples, and that nothing odd breaks them."""

import io

import numpy as np
import pytest
from PIL import Image

from scoresde.pictures import LIMIT, arrange, image_grid, picture, scatter, ticks


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def test_arrange():
    assert arrange(3) == [[0, 1, 2]]
    assert [len(row) for row in arrange(20)] == [8, 8, 4]
    assert arrange(5, np.array([7, 7, 2, 7, 2])) == [[2, 4], [0, 1, 3]]
    assert arrange(3, np.array([1, 1, 1])) == [[0, 1, 2]]
    assert sum(map(len, arrange(10 * LIMIT))) == LIMIT
    assert sum(map(len, arrange(10 * LIMIT, np.arange(10 * LIMIT) % 10))) == LIMIT
    assert len(arrange(64, np.arange(64))) == 8  # too many classes for a row each


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_image_grid(channels: int):
    x = np.random.default_rng(0).integers(0, 256, (9, channels, 28, 20), dtype=np.uint8)
    sheet = pixels(image_grid(x))
    assert sheet.shape[:2] == (2 * 60 + 4, 8 * 44 + 4)
    shown = channels if channels in (3, 4) else 1
    cell = sheet.reshape(*sheet.shape[:2], shown)[4 : 4 + 56 : 2, 48 : 48 + 40 : 2]
    np.testing.assert_array_equal(cell, x[1, :shown].transpose(1, 2, 0))


def test_pictures_of_numbers_do_not_scale_each_image():
    x = np.zeros((2, 1, 4, 4), np.float32)
    x[1] = 1
    sheet = pixels(picture(x))
    assert sheet[10, 10] == 0 and sheet[10, 70] == 255
    np.testing.assert_array_equal(pixels(picture(x[:, 0])), sheet)
    assert pixels(picture(np.zeros((2, 1, 4, 4), np.float32))).max() == 255  # a constant field


@pytest.mark.parametrize("shape", [(1, 2), (50, 2), (50, 1), (50,), (50, 5), (3000, 2)])
def test_points(shape: tuple[int, ...]):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    sheet = pixels(picture(x, np.arange(len(x)) % 12))
    assert sheet.ndim == 3 and (sheet < 200).any()


@pytest.mark.parametrize("scale", [(1, 1), (1e-7, 1e5), (0, 0), (1, 0)])
def test_axes_of_any_size(scale: tuple[float, float]):
    points = np.random.default_rng(0).normal(size=(20, 2)) * scale + [1e3, -5]
    assert pixels(scatter(points)).shape[2] == 3


def test_ticks():
    assert ticks(-3.0, 3.1) == [-2, 0, 2]
    assert ticks(0.1, 0.35) == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3, 0.35])
    assert 3 <= len(ticks(-1e6, 7e6)) <= 7
