"""`scoresde edit`, `inpaint` and `interpolate`: images in, images out, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from test_cli import fails, works

import scoresde
from scoresde import SAMPLERS
from scoresde.cli.image_files import read_image, read_mask
from scoresde.guidance import edit, inpaint

pytestmark = pytest.mark.usefixtures("pictures")


def save(name: str, pixels: np.ndarray, **how: Any) -> None:
    Image.fromarray(pixels).save(name, **how)


@pytest.fixture
def pictures(here: Path) -> None:
    """Two grey images of 8x8, a mask of the right half, and files that are none of these."""
    a = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    save("a.png", a)
    save("b.png", 255 - a)
    half = np.zeros((8, 8), np.uint8)
    half[:, 4:] = 255
    save("half.png", half)
    save("none.png", 0 * half)
    save("all.png", 0 * half + 255)
    save("wide.png", np.tile(a, (1, 3)))
    save("same.png", np.stack([a, a, a], 2))
    save("colour.png", np.stack([a, 255 - a, a], 2))
    save("deep.png", a.astype(np.uint16) * 200)
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:60])


def pixels(name: str | Path) -> np.ndarray:
    return np.asarray(Image.open(name))


def record(folder: str = "edits") -> dict[str, Any]:
    (path,) = Path(folder).glob("*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_edit(images: Path) -> None:
    """The files are the library's own numbers; strength 0 is the image again."""
    flags = ("--model", images, "--sampler", "ddpm", "--steps", 3)
    text = works("edit", "a.png", *flags, "--strength", 0.6, "--num", 2, "--class", "bag", "--seed", 4)
    stem = "edits/a-edit0.6-squares-ddpm-3-seed4-bag"
    assert text.splitlines()[:4] == [f"{stem}-1.png", f"{stem}-2.png", f"{stem}-sheet.png", f"{stem}.json"]
    assert "2 of" in text and "by ddpm, 3 steps: 3 network calls per image" in text
    model = scoresde.load_model(images)
    x = read_image(Path("a.png"), model).x(model).expand(2, -1, -1, -1)
    want = edit(model.denoiser, x, 0.6, "ddpm", 3, seed=4, cond={"y": torch.tensor([1, 1])})
    for k in range(2):
        shown = model.scaler.decode(want.x[k, 0]).round().clamp(0, 255)
        np.testing.assert_array_equal(pixels(f"{stem}-{k + 1}.png"), shown.numpy())
    facts = record()
    assert facts["settings"]["edit"] == {"strength": 0.6} and facts["times"] == list(want.times)
    assert facts["image"]["file"] == "a.png" and facts["class"] == "bag" and facts["edited"] == "edit"
    assert pixels(f"{stem}-sheet.png").shape[1] < 200
    assert "bitwise equal" in works("replay", f"{stem}-2.png", "--out", "again")
    assert Path("again", Path(f"{stem}-2.png").name).read_bytes() == Path(f"{stem}-2.png").read_bytes()
    Path("a.png").rename("elsewhere.png")
    assert "a.png" in fails(2, "replay", f"{stem}.json")
    Path("elsewhere.png").rename("edits/a.png")  # beside the record is where it is looked for, too
    works("replay", f"{stem}.json", "--out", "once-more")
    Path("edits/a.png").rename("a.png")
    ImageOps.invert(Image.open("a.png")).save("b.png")
    Path("a.png").replace("kept.png")
    Path("b.png").replace("a.png")
    assert "is not what the run started from" in fails(2, "replay", f"{stem}.json", "--out", "other")
    assert not Path("other").exists()
    Path("kept.png").replace("a.png")
    works("edit", "a.png", *flags, "--strength", 0.6, "--num", 1, "--class", "bag", "--seed", 4)
    assert "bitwise equal" in works(
        "replay", f"{stem}-2.png", "--out", "again"
    )  # no other run took that picture's name
    works("edit", "a.png", *flags, "--strength", 0.3, "--out", ".")
    (here,) = Path().glob("a-edit0.3*.json")
    assert "bitwise equal" in works("replay", here) and "bitwise equal" in works("replay", here)
    (done,) = Path().glob("a-edit0.3*-replay.json")
    assert json.loads(done.read_text(encoding="utf-8"))["command"].startswith("scoresde edit --out . ")
    here.with_suffix(".png").write_bytes(here.with_suffix(".png").read_bytes()[:40])
    text = works("replay", here, "--out", "new/folder")
    assert "is damaged" in text and "1 of 2 files are bitwise equal" in text
    assert "must be a folder" in fails(2, "replay", here, "--out", "x.png")
    facts = json.loads(here.read_text(encoding="utf-8"))
    here.write_text(json.dumps({**facts, "command": "scoresde edit 'a.png"}), encoding="utf-8")
    assert "names no command" in fails(2, "replay", here)
    works("edit", "a.png", *flags, "--strength", 0, "--out", "same")
    np.testing.assert_array_equal(pixels("same/a-edit0-squares-ddpm-3-seed0.png"), pixels("a.png"))


@pytest.mark.parametrize("method, own", [("repaint", ("--jump", 1, "--repeats", 1)), ("replacement", ())])
def test_inpaint(images: Path, method: str, own: tuple[object, ...]) -> None:
    """Known pixels are those of the file; hidden ones are the library's, and nothing hidden in the file counts."""
    flags = ("--mask", "half.png", "--model", images, "--method", method, "--steps", 2, *own)
    works("inpaint", "a.png", *flags)
    (path,) = (path for path in Path("edits").glob("*.png") if "sheet" not in path.name)
    out = pixels(path)
    np.testing.assert_array_equal(out[:, :4], pixels("a.png")[:, :4])
    model = scoresde.load_model(images)
    x = read_image(Path("a.png"), model).x(model)
    mask = torch.from_numpy(read_mask(Path("half.png"), model).pixels > 0)
    options: dict[str, Any] = {"jump": 1, "repeats": 1, "sampler": "travel"} if own else {"sampler": "ddpm"}
    want = model.scaler.decode(inpaint(model.denoiser, x, mask, method, steps=2, **options).x[0, 0]).round()
    np.testing.assert_array_equal(out[:, 4:], want.clamp(0, 255).numpy()[:, 4:])
    facts = record()
    assert facts["mask"]["file"] == "half.png" and facts["settings"]["inpaint"]["method"] == method
    other = pixels("a.png").copy()
    other[:, 4:] = 7
    save("a.png", other)
    works("inpaint", "a.png", *flags, "--out", "again")
    (again,) = (path for path in Path("again").glob("*.png") if "sheet" not in path.name)
    np.testing.assert_array_equal(pixels(again), out)


@pytest.mark.parametrize("sampler", ["ddim", "eab2"])
def test_both_ways_of_an_interpolation_take_one_grid(sampler: str, images: Path) -> None:
    """By default too: 100 steps on the grid of the encoding, which is not that of sampling."""
    works("interpolate", "a.png", "b.png", "--model", images, "--num", 2, "--sampler", sampler)
    settings, grid = record()["settings"], SAMPLERS[sampler].encode_grid
    assert settings["steps"] == 100 and settings["grid"] == grid != SAMPLERS[sampler].defaults(100)[0]
    assert record()["ends_off"] < 2


def test_interpolate(images: Path) -> None:
    flags = ("--model", images, "--num", 3, "--sampler", "heun", "--steps", 4, "--grid", "t")
    text = works("interpolate", "a.png", "b.png", *flags)
    stem = "edits/a-to-b-squares-heun-4-slerp"
    assert [f"{stem}-{k}.png" for k in (1, 2, 3)] == text.splitlines()[:3]
    assert "the ends come back to within" in text and record()["ends_off"] >= 0
    assert ": 8 network calls per image and 8 for each of A and B, " in text and record()["nfe"] == 8
    assert record()["encoding"] == {"nfe": 8, "network_evals": 8, "accepted": None, "rejected": None}
    model = scoresde.load_model(images)
    x = torch.cat([read_image(Path(f"{name}.png"), model).x(model) for name in "ab"])
    latent = scoresde.encode(model.denoiser, x, "heun", 4, grid="t").x
    between = scoresde.interpolate(latent[:1], latent[1:], 3)[:, 0]
    back = scoresde.sample(model.denoiser, between.shape, "heun", 4, grid="t", x=between, final="t_min").x
    for k in range(3):
        shown = model.scaler.decode(back[k, 0]).round().clamp(0, 255)
        np.testing.assert_array_equal(pixels(f"{stem}-{k + 1}.png"), shown.numpy())


def test_files_that_are_equal_in_other_colours_and_sizes(images: Path) -> None:
    """Grey pixels of an RGB file are those of a grey one; --resize takes the middle in the model's colours."""
    model = scoresde.load_model(images)
    grey = read_image(Path("a.png"), model)
    np.testing.assert_array_equal(read_image(Path("same.png"), model).pixels, grey.pixels)
    np.testing.assert_array_equal(read_image(Path("wide.png"), model, resize=True).pixels, grey.pixels)
    assert read_image(Path("colour.png"), model, resize=True).pixels.shape == (1, 8, 8)
    save("a.jpg", pixels("a.png"), quality=100)
    assert np.abs(read_image(Path("a.jpg"), model).pixels.astype(int) - grey.pixels).max() < 8


@pytest.mark.parametrize(
    "words, line",
    [
        ("edit a.png --strength 1.5", "strength = 1.5"),
        ("edit a.png --strength -1", "strength = -1"),
        ("edit a.png --strength nan", "must be a number"),
        ("edit none.jpg", "'none.jpg': no such file"),
        ("edit text.png", "cannot be read as an image"),
        ("edit cut.png", "cannot be read as an image"),
        ("edit wide.png", "24x8 pixels, the model draws 8x8"),
        ("edit colour.png", "is RGB, the model draws grey"),
        ("edit deep.png", "not 8 bits deep"),
        ("edit a.png --sampler dimm", "did you mean 'ddim'"),
        ("edit a.png --class dog", "--class"),
        ("edit a.png --etta 1", "no such option --etta"),
        ("inpaint a.png", "mask"),
        ("inpaint a.png --mask none.png", "black throughout"),
        ("inpaint a.png --mask all.png", "white throughout"),
        ("inpaint a.png --mask wide.png", "24x8 pixels"),
        ("inpaint a.png --mask text.png", "cannot be read"),
        ("inpaint a.png --mask half.png --method repiant", "did you mean 'repaint'"),
        ("inpaint a.png --mask half.png --sampler ode", "choose from"),
        ("inpaint a.png --mask half.png --method replacement --jump 2", "no option 'jump'"),
        ("interpolate a.png", "missing argument"),
        ("interpolate a.png wide.png", "24x8 pixels"),
        ("interpolate a.png b.png --num 1", "at least 2"),
        ("interpolate a.png b.png --sampler ddpm", "cannot encode"),
    ],
)
def test_what_is_refused_in_one_line_before_any_folder_is_made(images: Path, words: str, line: str) -> None:
    assert line in fails(2, *words.split(), "--model", images)
    assert not Path("edits").exists()


@pytest.mark.parametrize(
    "words",
    [
        "edit a.png",
        "inpaint a.png --mask half.png",
        "interpolate a.png b.png",
        "restore a.png --operator down:2",
    ],
)
def test_a_folder_that_cannot_be_written_is_told_before_any_call(
    images: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def called(*args: object, **how: object) -> None:
        pytest.fail("the model was run")

    monkeypatch.setattr("scoresde.cli.editing.Task.sample", called)
    monkeypatch.setattr("scoresde.samplers.encode", called)
    line = fails(5, *words.split(), "--model", images, "--out", "text.png/edits")
    assert "cannot write into 'text.png/edits'" in line


@pytest.mark.parametrize("error, code", [(KeyboardInterrupt, 130), (scoresde.SolverFailure, 3)])
def test_a_run_that_is_cut_short_leaves_no_folder(
    images: Path, error: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **how: object) -> None:
        raise error("stop")

    monkeypatch.setattr("scoresde.cli.editing.Task.sample", stop)
    fails(code, "edit", "a.png", "--model", images, "--out", "new/edits")
    assert not Path("new").exists()


def test_a_model_of_points_takes_no_images() -> None:
    assert "not images" in fails(2, "edit", "a.png", "--model", "datasaurus")
