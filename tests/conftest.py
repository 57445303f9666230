"""Every test, and what it starts, runs on one thread; shapes in the annotations of core and networks are checked."""

import gc
import os
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"

import jaxtyping
from checker import checked, new_test

CORE = ("schedule", "sde", "families", "ddpm", "denoiser", "analytic", "noise", "grids", "losses", "samplers")
CHECKED = (*CORE, "likelihood", "nn")
jaxtyping.jaxtyped = checked
jaxtyping.install_import_hook([f"scoresde.{name}" for name in CHECKED], None)

import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look through it again."""
    gc.freeze()


def pytest_runtest_setup() -> None:
    new_test()


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of points in the plane, three steps old."""
    from test_cli import points_config

    from scoresde.config import parse_config
    from scoresde.train import train

    return train(parse_config(points_config()), tmp_path_factory.mktemp("points") / "moons").parent


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-conditional model of 8x8 images."""
    from test_cli import image_run

    path = tmp_path_factory.mktemp("images") / "squares.safetensors"
    image_run().save(path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
