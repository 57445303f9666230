"""Folders and archives of images of any size: cropping, resizing, classes, and what is refused."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reading import refuses, save, some_pixels, write

from scoresde.data import load
from scoresde.data.images import SUFFIXES, fit

SHAPES = [(50, 70), (70, 50), (64, 64), (200, 30), (9, 11), (33, 31)]


def pack(folder: Path, kind: str, name: str = "packed") -> Path:
    return Path(shutil.make_archive(str(folder.parent / name), kind, folder))


@pytest.mark.parametrize("size", [16, [12, 20], [40, 8]])
def test_a_constant_image_stays_constant(tmp_path: Path, size: Any) -> None:
    for i, (height, width) in enumerate(SHAPES):
        save(tmp_path / f"{i}.png", np.full((height, width, 3), (200, 3, 77), np.uint8))
    x = load(tmp_path, size=size).x
    height, width = (size, size) if isinstance(size, int) else size
    assert x.shape == (len(SHAPES), 3, height, width)
    assert (x == torch.tensor([200, 3, 77], dtype=torch.uint8).reshape(3, 1, 1)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_centre_is_kept(shape: tuple[int, int]) -> None:
    """Mirroring commutes with fitting, and a ramp has its middle value in the middle."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def fitted(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(fit(Image.fromarray(values), (16, 16))).astype(int)

    for flip in (np.fliplr, np.flipud):
        assert abs(flip(fitted(pixels)) - fitted(np.ascontiguousarray(flip(pixels)))).max() <= 1
    for axis in (0, 1):
        ramp = np.linspace(0, 255, shape[axis])
        values = fitted(np.broadcast_to(ramp[:, None] if axis == 0 else ramp, shape).round().astype(np.uint8))
        profile = values.mean(axis=1 - axis)
        assert (np.diff(profile) > 0).all() and profile[7:9].mean() == pytest.approx(127.5, abs=1)
        step = 255 / (shape[axis] - 1) * min(shape) / 16  # one new pixel is min(shape)/16 old ones
        assert profile[12] - profile[3] == pytest.approx(9 * step, rel=0.05, abs=1)


def test_images_that_fit_are_not_touched_and_large_ones_are_not_aliased(tmp_path: Path) -> None:
    pixels = some_pixels(16, 16, 3)
    save(tmp_path / "a.png", pixels)
    assert np.array_equal(load(tmp_path, size=16).x[0].numpy(), np.moveaxis(pixels, 2, 0))
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255  # every second column: picking pixels would give black or white
    reduced = np.asarray(fit(Image.fromarray(stripes), (32, 32))).astype(int)
    assert abs(reduced - 127.5).max() < 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    pixels = np.full((12, 10, 3), 90, np.uint8)
    save(tmp_path / f"a{suffix}", pixels)
    x = load(tmp_path).x
    assert x.shape == (1, 3, 12, 10) and (x.int() - 90).abs().max() <= 2


def test_images_are_turned_upright(tmp_path: Path) -> None:
    pixels = some_pixels(6, 9, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(load(tmp_path).x[0].numpy(), np.moveaxis(np.rot90(pixels, -1), 2, 0))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("top", ["", "all/of/it/"])
def test_an_archive_is_the_folder_that_was_packed(tmp_path: Path, kind: str, top: str) -> None:
    for i, pixels in enumerate(some_pixels(6, 8, 8, 3)):
        save(tmp_path / f"f/{top}{'dog' if i % 3 else 'cat'}/{i}.png", pixels)
    save(tmp_path / "f/__MACOSX/cat/0.png", some_pixels(8, 8))
    write(tmp_path / "f/readme.txt", "no image")
    folder, archive = load(tmp_path / f"f/{top or '.'}", size=8), load(pack(tmp_path / "f", kind))
    assert archive.name == "packed" and archive.classes == ("cat", "dog")
    if top:
        assert archive.sha256 == folder.sha256
    assert archive.labels is not None and archive.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert load(pack(tmp_path / "f", kind), size=[4, 6], channels=1).event_shape == (1, 4, 6)


def test_malformed_archives(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for kind in ("zip", "tar"):
        refuses(pack(empty, kind, "empty"), "no images", "archive")
        refuses(write(tmp_path / f"junk.{kind}", b"nothing of that kind" * 99), "damaged, or not a")
        refuses(tmp_path / f"missing.{kind}", "no such file")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a.png", b"no image")
    refuses(tmp_path / "bad.zip", "bad.zip/a.png: cannot be read as an image")
    save(tmp_path / "f/a.png", some_pixels(40, 40))
    whole = pack(tmp_path / "f", "zip").read_bytes()
    at = whole.index(b"IDAT") + 50
    refuses(write(tmp_path / "crc.zip", whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]), "a.png", "archive")
    with tarfile.open(tmp_path / "cut.tar", "w") as tar:
        content = (tmp_path / "f/a.png").read_bytes()
        for name in ("a.png", "b.png"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    refuses(write(tmp_path / "cut.tar", (tmp_path / "cut.tar").read_bytes()[:3500]), "cut.tar")


@pytest.mark.parametrize("size", [0, -3, 2.5, "64", [8], [8, 0], [1, 2, 3], True])
def test_sizes_that_are_none_are_refused(tmp_path: Path, size: Any) -> None:
    save(tmp_path / "a.png", some_pixels(8, 8))
    refuses_size = pytest.raises(ValueError, match=r"size must be a whole number >= 1 or \[height, width\]")
    with refuses_size:
        load(tmp_path, size=size)
