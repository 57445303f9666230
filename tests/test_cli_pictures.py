"""Pictures: which one suits which samples, and that nothing odd breaks them."""

import io

import numpy as np
import pytest
from PIL import Image

from scoresde.pictures import LIMIT, arrange, film, image_grid, picture, scatter, ticks


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


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_film_of_images(channels: int):
    x = np.random.default_rng(0).integers(0, 256, (5, 3, channels, 28, 20), dtype=np.uint8)
    sheet = pixels(film(x, [f"t = {k}" for k in range(5)]))
    assert sheet.shape[:2] == (20 + 3 * 60 + 4, 5 * 44 + 4)  # a column per step, a row per image, titles on top
    shown = channels if channels in (3, 4) else 1
    cell = sheet.reshape(*sheet.shape[:2], shown)[20 + 64 : 20 + 64 + 56 : 2, 92 : 92 + 40 : 2]
    np.testing.assert_array_equal(cell, x[2, 1, :shown].transpose(1, 2, 0))
    dark = sheet.reshape(*sheet.shape[:2], shown)[:20, :, 0] < 200
    assert all(part.any() for part in np.array_split(dark, 5, axis=1))


def test_film_shows_numbers_by_the_range_of_their_step():
    x = np.zeros((2, 2, 4, 4), np.float32)  # images without channels
    x[0, 1], x[1, 1] = 100, 1
    sheet = pixels(film(x, ["a", "b"]))
    assert [int(sheet[20 + 70, column]) for column in (30, 90)] == [255, 255]
    assert [int(sheet[20 + 10, column]) for column in (30, 90)] == [0, 0]


@pytest.mark.parametrize("event", [(2,), (), (1,), (5,)])
@pytest.mark.parametrize("scale", [1.0, 100.0, 0.0])
def test_film_of_points(event: tuple[int, ...], scale: float):
    x = np.random.default_rng(0).normal(size=(3, 40, *event)).astype(np.float32)
    x[0] *= scale
    sheet = pixels(film(x, ["1", "2", "3"], np.arange(40) % 3))
    assert sheet.shape == (224, 3 * 240, 3)
    assert all((panel[20:] < 120).any() for panel in np.split(sheet, 3, axis=1))


def test_film_of_alike_steps_has_one_scale():
    """Alike steps share their axes; where the ranges are very unlike, each step fills its own."""
    x = np.random.default_rng(0).normal(size=(40, 2))
    same, other, wide = (pixels(film(np.stack([x, f * x]), ["", ""])) for f in (1, 2, 50))
    np.testing.assert_array_equal(*np.split(same, 2, axis=1))
    np.testing.assert_array_equal(np.split(wide, 2, axis=1)[0][:160, 56:], np.split(same, 2, axis=1)[0][:160, 56:])
    assert not np.array_equal(np.split(other, 2, axis=1)[0][:160, 56:], np.split(same, 2, axis=1)[0][:160, 56:])


def test_ticks():
    assert ticks(-3.0, 3.1) == [-2, 0, 2]
    assert ticks(0.1, 0.35) == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3, 0.35])
    assert 3 <= len(ticks(-1e6, 7e6)) <= 7
