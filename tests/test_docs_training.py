"""docs/training.md: its commands make pictures of a folder of images, its snippets and tables agree with the code."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml
from PIL import Image
from reading import save, some_pixels

from scoresde.cli import Commands
from scoresde.config import RUNTIME, Config, Train, load_config, parse_config
from scoresde.data import available, read_archive, read_array, read_folder, read_hub, read_series, read_table
from scoresde.data.readers import read_idx_set
from scoresde.denoiser import FORMS
from scoresde.losses.times import TIMES
from scoresde.losses.weightings import WEIGHTINGS
from scoresde.model import build, build_classifier
from scoresde.train.ema import EMA, RATES
from scoresde.train.engine import TRACKERS
from scoresde.train.objective import Objective

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
RECIPES = {path.stem: load_config(path) for path in sorted((ROOT / "configs").glob("*.yaml"))}
SNIPPETS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.S | re.M)
EVENTS = {"cifar10": (3, 32, 32), "etth1": (7, 96), "datasaurus": (2,), "swiss_roll": (2,)}  # else (1, 28, 28)
CLASSES = {"etth1": 0, "swiss_roll": 0, "datasaurus": 13}  # else 10


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(text: str, columns: int) -> list[list[str]]:
    """The rows of the one table with so many columns, without its head."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", text, re.M)]
    fit = [row for row in rows if len(row) == columns]
    assert [set(row) for row in fit].count({"---"}) == 1
    return fit[2:]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# ------------------------------------------------------------------------------------------------------------ commands


def test_the_first_commands_make_pictures_from_a_folder_of_images(tmp_path: Path) -> None:
    """The lines of the page, word for word but for three steps and a narrow network, on images of unequal sizes."""
    for i, (height, width) in enumerate([(20, 33), (47, 40), (32, 32), (64, 35)] * 8):
        save(tmp_path / "photos" / f"{i}.png", some_pixels(height, width, 3))
    (script,) = re.findall(r"^<!-- the tests run these lines -->\n\n```bash\n(.*?)^```", PAGE, re.S | re.M)
    assert len(script.splitlines()) <= 10 and script.count("scoresde train") == 1
    script = re.sub(r"^(scoresde train .*)$", r"\1 --steps 3", script, flags=re.M)
    assert script.count("channels: 48") == 1
    script = script.replace("channels: 48", "channels: 8")
    script = re.sub(r"^scoresde ", f'"{sys.executable}" -m scoresde ', script, flags=re.M)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = ["bash", "-euc", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (drawn,) = (tmp_path / "drawn").glob("*.png")
    for picture in (tmp_path / "photos.png", drawn):
        with Image.open(picture) as image:
            assert min(image.size) >= 2 * 32 and image.mode == "RGB"
    assert "32 images of 3 x 32 x 32" in done.stdout and (tmp_path / "runs/photos/report.html").is_file()


def test_exit_codes_are_those_of_the_command_line() -> None:
    told = dict(re.findall(r"^\| (\d+) \| (\w+)", section("A run that survives"), re.M))
    assert told == dict(re.findall(r"(\d+) (\w+)", (Commands.__doc__ or "").split("\n\n")[1]))


# ------------------------------------------------------------------------------------------------------------ snippets


def whole(values: dict) -> Config:
    """A snippet as a config: what it leaves out is small."""
    return parse_config({"data": {"name": "photos"}, "network": {"name": "mlp", "width": 8}, **values})


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_is_a_config(snippet: str) -> None:
    """It is read, its SDE, network and objective are built, its averages have names that are known."""
    config = whole(yaml.safe_load(snippet))
    channels, side = config.data.options.get("channels", 3), config.data.options.get("size", 32)
    shape = (channels, *(side if isinstance(side, list) else (side, side)))
    classes = 10 if config.train.objective == "distillation" else config.network.get("classes", 0)
    denoiser, network = build(config, shape, classes, "meta")
    Objective(config, denoiser)
    assert EMA(network, config.train.ema).averages
    assert not config.train.augment or config.network["augment"] == 9
    assert set(config.train.trackers) <= TRACKERS.keys()


def test_every_section_on_the_config_has_a_snippet() -> None:
    titles = re.findall(r"^## (.*)$", PAGE, re.M)[1:-1]
    assert len(titles) == 9 and all("```yaml" in section(title) for title in titles)


def test_the_fine_tuned_network_is_that_of_the_model() -> None:
    values = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```", section("Fine-tuning"), re.S | re.M)[0])
    theirs, ours = RECIPES["fashion_mnist"], whole(values)
    assert {**theirs.network, "classes": 10} == ours.network
    assert (theirs.sde["name"], theirs.prediction, theirs.time) == (ours.sde["name"], ours.prediction, ours.time)


# -------------------------------------------------------------------------------------------------------------- tables


def test_every_reader_is_listed_with_all_its_options() -> None:
    rows = {row[0]: quoted(row[2]) for row in table(section("Data"), 3)}
    readers = [read_folder, read_archive, read_array, read_table, read_series, read_idx_set, read_hub]
    assert len(rows) == len(readers) + 1
    for (name, told), reader in zip(rows.items(), readers, strict=False):
        parameters = inspect.signature(reader).parameters.values()
        assert sorted(told) == sorted(p.name for p in parameters if p.kind is p.KEYWORD_ONLY), name
    assert set(quoted(list(rows)[-1])) <= set(available())


def test_every_recipe_is_listed_with_its_size() -> None:
    rows = table(section("Network"), 4)
    assert sorted(name for row in rows for name in quoted(row[0])) == sorted(RECIPES)
    for name, network, millions, _ in rows:
        config = RECIPES[quoted(name)[0]]
        data = config.data.name
        event, classes = EVENTS.get(data, (1, 28, 28)), CLASSES.get(data, 10)
        if config.task == "classifier":
            _, built = build_classifier(config, event, tuple(map(str, range(classes))), "meta")
        else:
            _, built = build(config, event, classes, "meta")
        assert quoted(network) == [config.network["name"]]
        assert f"{sum(p.numel() for p in built.parameters()) / 1e6:.3g}" == millions, name


def test_the_published_methods_are_their_recipes() -> None:
    rows = table(section("Objective"), 9)
    assert len(rows) == 6
    for method, *cells in rows:
        sde, prediction, objective, weighting, times = (quoted(cell)[0] for cell in cells[:5])
        config = RECIPES[quoted(cells[-1])[0]]
        assert (sde, prediction, objective, weighting, times) == (
            config.sde["name"],
            config.prediction,
            config.train.objective,
            config.train.weighting,
            config.train.times["name"],
        ), method


def test_every_name_is_told() -> None:
    """Of what an objective is made of, of the averages, and of what may differ between the parts of a run."""
    objectives = get_args(Train.model_fields["objective"].annotation)
    told = set(quoted(section("Objective")))
    assert {*FORMS, *WEIGHTINGS, *TIMES, *objectives} <= told and len(objectives) == 5
    assert {quoted(row[0])[0].partition(":")[0] for row in table(section("Averages"), 2)} == RATES.keys()
    (runtime,) = re.findall(r"decides no weights: (.*?)\.$", section("A run that survives"), re.S | re.M)
    assert set(quoted(runtime)) == RUNTIME
