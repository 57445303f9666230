"""``scoresde sample --guidance`` and ``scoresde replay`` of what it drew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import fails, image_run, points_config, run, works

import scoresde
from scoresde import SAMPLERS
from scoresde.config import parse_config
from scoresde.data import to_uint8
from scoresde.guidance import autoguidance, classifier_free
from scoresde.guidance.strong import STRONG, enough_calls
from scoresde.train import train

pytestmark = pytest.mark.usefixtures("here")
SIX = ("--sampler", "ddim", "--steps", 6, "--num", 6)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another state of the model of 8x8 images."""
    path, other = tmp_path_factory.mktemp("weak") / "weak.safetensors", image_run()
    other.advance()
    other.save(path)
    return path


def the(pattern: str) -> Path:
    (path,) = Path("samples").glob(pattern)
    return path


def record() -> dict[str, Any]:
    return json.loads(the("*.json").read_text(encoding="utf-8"))


def samples(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["samples"]


def drawn(path: Path, denoiser: Any, y: torch.Tensor) -> np.ndarray:
    """Six images by ddim in six steps, as the command writes them."""
    model = scoresde.load_model(path)
    x = scoresde.sample(denoiser, (6, *model.event_shape), "ddim", 6, cond={"y": y}).x
    return to_uint8(model.scaler.decode(x)).numpy()


def test_the_command_guides_as_the_library_does_and_replay_again(images: Path) -> None:
    args = (
        "--class",
        "bag",
        "--guidance",
        2.5,
        "--guidance-interval",
        "0.2,4",
        "--rescale",
        0.5,
        "--negative-class",
        0,
    )
    text = works("sample", "--model", images, *SIX, *args)
    denoiser = scoresde.load_model(images).denoiser
    guided = classifier_free(denoiser, 2.5, null=0, interval=(0.2, 4.0), rescale=0.5)
    np.testing.assert_array_equal(samples(the("*.npz")), drawn(images, guided, torch.ones(6, dtype=torch.int64)))
    found = record()
    assert found["guidance"] == {
        "w": 2.5,
        "interval": [0.2, 4.0],
        "rescale": 0.5,
        "negative_class": "0",
        "weak": None,
        "weak_sha256": None,
    }
    assert 6 < found["network_evals"] < 12 and f"({found['network_evals']} network evaluations)" in text
    assert the("*.npz").stem.endswith("-bag-w2.5")
    assert "bitwise equal" in works("replay", the("*.png"))


@pytest.mark.parametrize("w, same", [(1, ()), (0, ("--class", "none"))])
def test_weights_of_one_and_nothing_change_nothing(w: int, same: tuple[str, ...], images: Path) -> None:
    works("sample", "--model", images, *SIX, "--guidance", w)
    works("sample", "--model", images, *SIX, *same, "--out", "plain")
    (plain,) = Path("plain").glob("*.npz")
    np.testing.assert_array_equal(samples(the("*.npz")), samples(plain))
    assert record()["network_evals"] == 6


def test_a_weaker_model_guides_and_must_be_the_same_in_a_replay(images: Path, weak: Path) -> None:
    works("sample", "--model", images, *SIX, "--guidance", 2, "--weak", weak, "--threshold", 0.9, "--dtype", "float64")
    found = record()["guidance"]
    assert found["weak"] == str(weak) and len(found["weak_sha256"]) == 64
    assert "bitwise equal" in works("replay", the("*.json"))
    model = scoresde.load_model(images)
    guided = scoresde.dynamic_threshold(autoguidance(model.denoiser, scoresde.load_model(weak).denoiser, 2.0), 0.9)
    near = drawn(images, guided, torch.arange(6) % 3).astype(int)
    assert np.abs(near - samples(the("*0-w2.npz"))).max() <= 1
    path = the("*0-w2.json")
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["guidance"]["weak_sha256"] = "0" * 64
    path.write_text(json.dumps(facts), encoding="utf-8")
    assert "another model now" in fails(2, "replay", path)


@pytest.mark.parametrize(
    "args, message",
    [
        (("--guidance", "nan"), "must be a number"),
        (("--guidance", "two"), "must be a number"),
        (("--rescale", 0.5), "--guidance W"),
        (("--guidance-interval", "1,2"), "--guidance-interval: say how strongly"),
        (("--guidance", 2, "--guidance-interval", "2,1"), "low < high"),
        (("--guidance", 2, "--rescale", 2), "rescale"),
        (("--guidance", 2, "--negative-class", "bagg"), "did you mean 'bag'?"),
        (("--guidance", 2, "--negative-class", 7), "0 to 2"),
        (("--guidance", 2, "--class", "bagg"), "did you mean 'bag'?"),
        (("--guidance", 2, "--class", "none"), "needs a class"),
        (("--guidance", 2, "--weak", "fashion-mnist"), "other data"),
        (("--guidance", 2, "--weak", "fashion-mnist", "--rescale", 0.5), "alone"),
        (("--threshold", 1.5), "quantile"),
        (("--threshold", 0.9, "--clip-x0", "-1,1"), "give one"),
    ],
)
def test_faults_are_found_before_anything_is_written(args: tuple[object, ...], message: str, images: Path) -> None:
    assert message in fails(2, "sample", "--model", images, *SIX, *args)
    assert not Path("samples").exists()


def test_models_without_a_null_class_are_not_guided_to_one(tmp_path: Path) -> None:
    plain = {**points_config(label_dropout=0.0), "data": {"name": "moons", "options": {"n": 64}}}
    path = train(parse_config(plain), tmp_path / "moons").parent
    model = scoresde.load_model(path)
    wanted = "label_dropout = 0" if model.classes else "no classes"
    assert wanted in fails(2, "sample", "--model", path, *SIX, "--guidance", 2)


def test_strong_guidance_in_few_calls_is_warned_of(images: Path) -> None:
    strong = ("--num", 3, "--guidance", STRONG)
    for name, calls, warned in (("edm", 11, True), ("ddim", 6, False), ("unipc", 12, False)):
        result = run("sample", "--model", images, "--sampler", name, "--nfe", calls, *strong)
        assert result.exit_code == 0 and ("warning" in result.stderr) == warned
    quiet = run("sample", "--model", images, "--sampler", "edm", "--nfe", 11, "--num", 3, "--guidance", 2)
    assert "warning" not in quiet.stderr
    assert all(1 <= enough_calls(name) <= 400 for name in SAMPLERS)


def test_a_record_from_before_guidance_is_still_drawn(images: Path) -> None:
    works("sample", "--model", images, *SIX)
    path = the("*.json")
    facts = json.loads(path.read_text(encoding="utf-8"))
    assert facts.pop("guidance") is None and facts.pop("threshold") is None
    path.write_text(json.dumps(facts), encoding="utf-8")
    assert "bitwise equal" in works("replay", path)
