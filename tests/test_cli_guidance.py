"""``scoresde sample --guidance`` and ``scoresde replay`` of what it drew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import CLASSES, fails, image_run, points_config, run, works

import scoresde
from scoresde import SAMPLERS
from scoresde.config import parse_config
from scoresde.data import Dataset, to_uint8
from scoresde.guidance import autoguidance, classifier_free, classifier_guidance
from scoresde.guidance.strong import STRONG, enough_calls
from scoresde.train import train
from scoresde.train.run import Run

pytestmark = pytest.mark.usefixtures("here")
SIX = ("--sampler", "ddim", "--steps", 6, "--num", 6)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another state of the model of 8x8 images."""
    path, other = tmp_path_factory.mktemp("weak") / "weak.safetensors", image_run()
    other.advance()
    other.save(path)
    return path


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Classifiers of 8x8 images, one of them of other classes, and models: without classes, without a null class."""
    folder, x = tmp_path_factory.mktemp("others"), torch.arange(12)[:, None, None, None].expand(12, 1, 8, 8) * 20
    encoder = {"name": "encoder", "channels": 8, "multipliers": [1], "blocks": 1, "heads": 2}
    unet = {"name": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "heads": 1}
    short = {"steps": 3, "batch_size": 12, "warmup": 1, "lr": 0.1, "ema": 0.5}
    images: dict[str, Any] = {"data": {"name": "squares", "scaler": "image"}, "time": "1000t"}
    for name, classes, more in (
        ("classifier", CLASSES, {"task": "classifier", "network": encoder, "train": short}),
        ("stranger", ("a", "b", "c"), {"task": "classifier", "network": encoder, "train": short}),
        ("plain", (), {"network": unet, "prediction": "v", "train": short}),
        ("told", CLASSES, {"network": unet, "prediction": "v", "train": {**short, "label_dropout": 0.0}}),
    ):
        y = torch.arange(12) % 3 if classes else None
        data = Dataset(x.to(torch.uint8).contiguous(), y, classes, name="squares")
        made = Run(parse_config({**images, **more}), data)
        for _ in range(3):
            made.advance()
        made.save(folder / f"{name}.safetensors")
    return {path.stem: path for path in folder.iterdir()}


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
        "classifier": None,
        "classifier_sha256": None,
        "conditional": False,
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
    assert "another one now" in fails(2, "replay", path)


@pytest.mark.parametrize("name, more", [("squares", ()), ("plain", ()), ("told", ("--conditional",))])
def test_a_classifier_guides_and_must_be_the_same_in_a_replay(
    name: str, more: tuple[str, ...], images: Path, others: dict[str, Path]
) -> None:
    """A model by its null class, one without classes, and one that is told the class as well."""
    path = {**others, "squares": images}[name]
    how = ("--classifier", others["classifier"], "--guidance", 20, "--class", "bag", *more)
    works("sample", "--model", path, *SIX, *how)
    model = scoresde.load_model(path)
    classifier = scoresde.load_classifier(others["classifier"], model=model)
    guided, unguided = (classifier_guidance(model.denoiser, classifier, w, conditional=bool(more)) for w in (20.0, 0.0))
    y, found = torch.ones(6, dtype=torch.int64), samples(the("*.npz"))
    np.testing.assert_array_equal(found, drawn(path, guided, y))
    assert (found != drawn(path, unguided, y)).any()
    facts = record()
    assert facts["guidance"]["classifier_sha256"] == classifier.info["sha256"] and facts["network_evals"] == 6
    assert "bitwise equal" in works("replay", the("*.json"))
    record_path = the("*w20.json")
    facts["guidance"]["classifier_sha256"] = "0" * 64
    record_path.write_text(json.dumps(facts), encoding="utf-8")
    assert "another one now" in fails(2, "replay", record_path)


@pytest.mark.parametrize(
    "model, classifier, args, message",
    [
        ("plain", "classifier", (), "--class NAME"),
        ("plain", "classifier", ("--class", "bagg"), "did you mean 'bag'?"),
        ("plain", "classifier", ("--class", "bag", "--conditional"), "no classes to be told"),
        ("told", "stranger", ("--class", "bag"), "its classes"),
        ("told", "classifier", ("--class", "bag"), "--conditional"),
        ("told", "classifier", ("--class", "none", "--conditional"), "needs a class"),
        ("told", "classifier", ("--rescale", 0.5), "alone"),
        ("told", "classifier", ("--weak", "datasaurus"), "alone"),
        ("told", "plain", ("--class", "bag"), "is a denoiser, not a classifier"),
        ("told", "fashion-mnist-classifier", ("--conditional",), "its event shape"),
        ("told", "fashion-mnist-clasifier", ("--conditional",), "did you mean"),
    ],
)
def test_classifiers_that_cannot_guide(
    model: str, classifier: str, args: tuple[object, ...], message: str, others: dict[str, Path]
) -> None:
    by = ("--guidance", 2, "--classifier", others.get(classifier, classifier))
    assert message in fails(2, "sample", "--model", others[model], *SIX, *by, *args)
    assert not Path("samples").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        (("--classifier", "none"), "--classifier: say how strongly"),
        (("--guidance", 2, "--conditional"), "--conditional is of --classifier"),
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
    assert wanted in fails(2, "sample", "--model", path, *SIX, "--class", "none")


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
