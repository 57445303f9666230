"""`scoresde restore`: a picture, its measurement, and what a model makes of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import fails, works

from scoresde.cli.restore import METHODS
from scoresde.guidance import OPERATORS, parse_operator

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def photo(here: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(here / "photo.png")
    return "photo.png"


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("method", METHODS)
def test_restore(method: str, photo: str, images: Path) -> None:
    """The restored ones, a sheet of the picture, its measurement and these, a record; the same again."""
    command = ("restore", photo, "--operator", "down:2", "--method", method, "--model", images, "--steps", 3)
    said = works(*command, "--num", 2, "--seed", 5)
    name = f"edits/photo-down2-{method}-squares-ddpm-3-seed5"
    assert said.splitlines()[:4] == [f"{name}-1.png", f"{name}-2.png", f"{name}-sheet.png", f"{name}.json"]
    assert "by ddpm, 3 steps: 3 network calls" in said
    assert ("backward" in said) == (method in ("dps", "pigdm", "mcg"))
    sheet, results = pixels(f"{name}-sheet.png"), [pixels(f"{name}-{k}.png") for k in (1, 2)]
    scale = math.ceil(56 / 8)
    side = 8 * scale + 4
    assert sheet.shape == (20 + 2 * side + 4, 3 * side + 4)
    cells = [sheet[24 : 24 + 8 * scale : scale, 4 + k * side : 4 + k * side + 8 * scale : scale] for k in range(3)]
    before = pixels(photo)
    np.testing.assert_array_equal(cells[0], before)
    np.testing.assert_allclose(cells[1][::2, 1::2], before.reshape(4, 2, 4, 2).mean((1, 3)), atol=0.51)
    np.testing.assert_array_equal(cells[2], results[0])
    assert (results[0] != results[1]).any()
    record = json.loads(Path(f"{name}.json").read_text(encoding="utf-8"))
    assert (record["method"], record["operator"], record["nfe"], record["num"]) == (method, "down:2", 3, 2)
    error = [((x.astype(float) - before) ** 2).mean() for x in results]
    np.testing.assert_allclose(record["psnr"], 10 * np.log10(255**2 / np.array(error)), atol=0.005)
    assert "bitwise equal" in works("replay", f"{name}-sheet.png", "--out", "again")
    if method == METHODS[0]:
        assert works(*command, "--num", 2, "--seed", 5, "--batch-size", 1).splitlines()[3] == f"{name}.json"
        np.testing.assert_allclose(pixels(f"{name}-1.png").astype(int), results[0], atol=1)


def test_a_noiseless_projection_keeps_what_was_measured(photo: str, images: Path) -> None:
    """Of a network of any quality: A of the restored picture is the measurement, to rounding and clipping."""
    works("restore", photo, "--operator", "mask:0.5", "--method", "ddnm", "--model", images, "--nfe", 4)
    mask = parse_operator("mask:0.5", (8, 8)).seen
    restored, before = pixels("edits/photo-mask0.5-ddnm-squares-ddpm-4-seed0.png"), pixels(photo)
    np.testing.assert_allclose(restored[mask].astype(int), before[mask].astype(int), atol=1)


@pytest.mark.parametrize("operator", ["hole:3", "blur:0.7", "fourier:2", "radon:6"])
def test_every_operator_and_the_samplers_own_options(operator: str, photo: str, images: Path) -> None:
    how = ("--method", "diffpir", "--sampler", "ddim", "--eta", 0.5, "--steps", 2, "--noise-std", 5, "--class", "bag")
    assert "2 network calls" in works("restore", photo, "--operator", operator, "--model", images, *how)
    assert operator.partition(":")[0] in OPERATORS


@pytest.mark.parametrize(
    "more, said",
    [
        (("--operator", "blurr:2"), "did you mean 'blur'"),
        (("--operator", "down:3"), "divisor"),
        (("--operator", "mask:0.5", "--method", "ddmn"), "did you mean 'ddnm'"),
        (("--operator", "mask:0.5", "--strength", "nan"), "--strength nan"),
        (("--operator", "mask:0.5", "--strength", "-1"), "--strength -1"),
        (("--operator", "mask:0.5", "--noise-std", "-1"), "--noise-std -1"),
        (("--operator", "mask:0.5", "--sampler", "ddmp"), "did you mean"),
        (("--operator", "mask:0.5", "--etta", "0.5"), "no such option --etta"),
        (("--operator", "mask:0.5", "--class", "nobody"), "unknown --class"),
        (("--operator", "mask", "--sampler", "rk45"), "chooses its own steps"),
        (("--method", "ddnm"), "missing option '--operator'"),
    ],
)
def test_bad_input_is_exit_2(more: tuple[str, ...], said: str, photo: str, images: Path) -> None:
    assert said in fails(2, "restore", photo, "--model", images, "--steps", 40, *more)
    assert not Path("edits").exists()


def test_a_strength_beyond_the_range_of_floats_is_exit_3(photo: str, images: Path) -> None:
    how = ("--operator", "mask:0.5", "--steps", 40, "--method", "pigdm", "--strength", "1e30")
    assert "under method 'pigdm' with strength = 1e+30" in fails(3, "restore", photo, "--model", images, *how)
    assert not Path("edits").exists()


def test_an_adaptive_run(photo: str, images: Path) -> None:
    how = (
        "restore",
        photo,
        "--operator",
        "hole:3",
        "--model",
        images,
        "--sampler",
        "rk45",
        "--rtol",
        0.1,
        "--atol",
        0.1,
    )
    assert "by rk45, adaptive" in works(*how, "--method", "ddnm")
    assert "--method dps: its steps" in fails(2, *how, "--method", "dps")


def test_pictures_that_do_not_fit(photo: str, images: Path) -> None:
    Path("words.png").write_text("no picture", encoding="utf-8")
    Image.new("L", (9, 8)).save("wide.png")
    how = ("--operator", "mask", "--model", images)
    for file, said in (("words.png", "cannot be read"), ("wide.png", "9x8 pixels"), ("none.png", "none.png")):
        assert said in fails(2, "restore", file, *how)
    works("restore", "wide.png", *how, "--resize", "--steps", 2, "--method", "ddnm")
    assert "not images" in fails(2, "restore", photo, "--operator", "mask", "--model", "datasaurus")
