"""The published recipes of configs/: their networks have the published size, and what they ask for can be trained."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from scoresde.config import Config, load_config
from scoresde.data import Dataset
from scoresde.model import build, load_model
from scoresde.train import train as run_training
from scoresde.train.trainer import Run

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*_cifar10.yaml"))
EVENT, CLASSES = (3, 32, 32), 10
MILLIONS = {  # of parameters, where the literature tells them
    "ddpm_cifar10": 35.7,  # Ho et al. 2020, appendix B
    "edm_cifar10": 55.7,  # Karras et al. 2022, the networks of CIFAR-10
    "dit_cifar10": 33.0,  # Peebles & Xie 2023, table 1
}
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


@every_recipe
def test_the_network_of_a_recipe_is_built_without_weights(path: Path) -> None:
    config = load_config(path)
    assert config.data.name == "cifar10"
    denoiser, network = build(config, EVENT, CLASSES, "meta")
    assert all(parameter.device.type == "meta" for parameter in network.parameters())
    size = sum(parameter.numel() for parameter in network.parameters())
    assert size == pytest.approx(1e6 * MILLIONS.get(path.stem, size / 1e6), rel=0.02)
    assert network.classes == config.network.get("classes", CLASSES)
    assert denoiser.learned_variance == config.learned_variance == (config.train.objective == "hybrid")


def in_small(config: Config) -> Config:
    """The same run with a network that a test can afford."""
    small = {"width": 16, "depth": 1} if config.network["name"] == "dit" else {"channels": 8, "blocks": 1}
    network = {**config.network, **small, "heads": 2}
    if "head_channels" in network:
        network["head_channels"] = 8
    train = config.train.model_copy(update={"batch_size": 2})
    return config.model_copy(update={"network": network, "train": train})


@every_recipe
def test_a_recipe_trains(path: Path) -> None:
    """A step on images is finite; the loss of a new network, which returns 0, is the mean square of its target."""
    images = torch.randint(256, (4, *EVENT), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    config = in_small(load_config(path))
    run = Run(config, Dataset(images, torch.arange(4), tuple("0123456789"), name="cifar10"))
    loss = run.advance()["loss"]
    assert math.isfinite(loss) and run.skipped == 0
    if config.prediction == "eps" and not config.learned_variance:
        assert 0.9 < loss < 1.1
    assert config.train.steps % config.train.checkpoint_every == 0 and config.train.warmup < config.train.steps


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("SCORESDE_DATA"), reason="SCORESDE_DATA is not set")
@every_recipe
def test_a_recipe_trains_on_the_photographs(path: Path, tmp_path: Path) -> None:
    """From its own data by name, or the part of them at hand, to a model that loads: its scaling, flips and labels."""
    config = in_small(load_config(path))
    train = config.train.model_copy(update={"steps": 2, "sample_every": 0, "report": False, "compile": False})
    model = load_model(run_training(config.model_copy(update={"train": train}), tmp_path / "run"))
    assert model.event_shape == EVENT and model.info["data"]["rows"] in (8000, 50_000)
    assert model.denoiser.x0(torch.zeros(2, *EVENT), model.sde.t_max / 2).isfinite().all()


@every_recipe
def test_a_recipe_names_its_source_and_how_it_differs(path: Path) -> None:
    head = path.read_text(encoding="utf-8").split("\ndata:")[0]
    assert all(line.startswith("# ") for line in head.splitlines())
    assert (" et al. 20" in head or " & " in head) and "Differs:" in head
