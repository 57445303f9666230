"""`scoresde data`: what it prints agrees with the data, and its sheets are pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from reading import save, some_pixels, write

from scoresde.cli import data as data_command
from scoresde.cli import main
from scoresde.data import TOY, available, load


def run(*args: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["data", *map(str, args)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stderr.strip() if code else result.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, pixels in enumerate(some_pixels(10, 9, 12, 3)):
        save(tmp_path / f"pets/{('cat', 'dog')[i % 2]}/{i}.png", pixels)
    return tmp_path / "pets"


def test_figures_are_those_of_the_data(folder: Path) -> None:
    for option in ("stream=true", "stream=false"):
        facts = json.loads(run("inspect", folder, "--option", option, "--json"))
        x = load(folder).x.double()
        assert facts["rows"] == 10 and facts["event_shape"] == [3, 9, 12] and facts["dtype"] == "uint8"
        assert facts["streamed"] is (option == "stream=true") and facts["warnings"] == []
        assert facts["classes"] == [{"name": "cat", "rows": 5}, {"name": "dog", "rows": 5}]
        for figures, values in [
            (facts["statistics"]["all"], x),
            *zip(facts["statistics"]["channel"], x.unbind(dim=1), strict=True),
        ]:
            expected = (values.min(), values.max(), values.mean(), values.std(correction=0))
            assert list(figures.values()) == pytest.approx([float(value) for value in expected])
    text = run("inspect", folder, "--option", "size=[4, 8]")
    assert "10 images of 3 x 4 x 8" in text and "cat (5), dog (5)" in text and "channel 2" in text


SERIES = "when,load,flat\n" + "".join(f"h{k},{k % 7},3\n" for k in range(40))


def test_what_is_odd_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", SERIES)
    text = run("inspect", path, "--option", "window=8", "--option", "part=[0,0.5]")
    assert "13 series of 2 x 8" in text and "warning: channel 1 is constant (3)" in text
    np.savez(tmp_path / "a.npz", x=np.full((4, 2), 5.0), labels=np.array([0, 2, 2, 0]))
    text = run("inspect", tmp_path / "a.npz")
    assert "the data are constant (5)" in text and "class '1' has no events" in text
    np.save(tmp_path / "nan.npy", np.array([[0.0], [np.nan]]))
    assert "row 1 " in run("inspect", tmp_path / "nan.npy", code=2)


@pytest.mark.parametrize("kind", ["images", "series", "points", "numbers", "single"])
def test_sheets_are_pictures(folder: Path, tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(30, 5, 6)))
    np.save(tmp_path / "b.npy", np.random.default_rng(0).normal(size=30))
    words: dict[str, list[Any]] = {
        "images": [folder],
        "series": [write(tmp_path / "a.csv", SERIES), "--option", "window=8"],
        "points": ["moons", "--option", "n=200"],
        "numbers": [tmp_path / "a.npy"],
        "single": [tmp_path / "b.npy"],
    }
    sheet = tmp_path / "sheet.png"
    assert str(sheet) in run("inspect", *words[kind], "--sheet", sheet)
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("L"))
    assert min(pixels.shape) >= 60 and pixels.std() > 1
    assert not list(tmp_path.glob(".*"))


def test_list() -> None:
    text = run("list")
    listed = json.loads(run("list", "--json"))
    assert [each["name"] for each in listed] == list(available()) and all(each["about"] for each in listed)
    assert all(line.startswith(name) for line, name in zip(text.splitlines()[1:], available(), strict=False))
    assert set(data_command.ABOUT) == set(available()) - set(TOY)
    assert next(each for each in listed if each["name"] == "etth1")["splits"] == ["train", "val", "test"]


def test_mistakes_teach(folder: Path, tmp_path: Path) -> None:
    assert "did you mean 'inspect'" in run("inspct", code=2)
    assert "did you mean 'moons'" in run("inspect", "mooons", code=2)
    assert "key=value" in run("inspect", "moons", "--option", "n", code=2)
    assert "did you mean 'seed'" in run("inspect", "moons", "--option", "sed=3", code=2)
    assert "no split 'test'" in run("inspect", "moons", "--split", "test", code=2)
    assert "end in .png" in run("inspect", "moons", "--sheet", "a.jpg", code=2)
    missing = run("inspect", "moons", "--option", "n=50", "--sheet", tmp_path / "no/a.png", code=2)
    assert "no folder" in missing
    write(folder / "cat/0.png", "no image")
    assert "0.png: cannot be read as an image" in run("inspect", folder, code=2)
    assert run() == run("--help")
