"""`scoresde likelihood`: its table, its JSON, what it refuses."""

from __future__ import annotations

import json
import math
import re
import shlex
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import CLASSES, fails, image_run, run, works

import scoresde
from scoresde import bits_per_dim, discrete_log_prob, log_prob
from scoresde.checkpoint import load_checkpoint, save_checkpoint
from scoresde.cli.params import find_device
from scoresde.data import Streamed, load
from scoresde.losses import prior_bound


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A class-conditional model of 8x8 images, and events of its kind in events.npz; in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    x = (torch.arange(6) * 40 % 256)[:, None, None, None].expand(6, 1, 8, 8).to(torch.uint8).numpy()
    np.savez("events.npz", images=x, labels=np.arange(6) % 3, classes=np.array(CLASSES))
    np.savez("flat.npz", images=np.zeros((3, 2), np.float32))
    np.savez("many.npz", images=x, labels=np.arange(6))
    image_run().save(Path("squares.safetensors"))
    return Path("squares.safetensors")


def test_the_command(images: Path) -> None:
    base: list[Any] = ["likelihood", "events.npz", "--model", images, "--steps", 2, "--seed", 3]
    facts = json.loads(works(*base, "--levels", 256, "--json", "--out", "nats.npz"))
    with np.load("nats.npz") as file:
        arrays = dict(file)
    assert {key: value.tolist() for key, value in arrays.items() if key != "standard_error"} == {
        key: facts[key] for key in ("log_prob", "bits_per_dim", "labels")
    }
    assert shlex.split(facts["command"])[:3] == ["scoresde", "likelihood", "events.npz"] and facts["seed"] == 3
    assert facts["data"] == {
        "name": "events.npz", "split": "train", "options": {}, "rows": 6, "sha256": load("events.npz").sha256
    }  # fmt: skip
    own = facts["settings"]
    assert (own["levels"], own["draws"], own["device"]) == (256, 1, str(find_device("auto")))
    assert (own["scoresde"], own["torch"], own["numpy"]) == (scoresde.__version__, torch.__version__, np.__version__)
    assert facts["num"] == 6 and facts["nfe"] == 8 and facts["mean"] == pytest.approx(arrays["log_prob"].mean())
    model = scoresde.load_model(images)
    with np.load("events.npz") as file:
        x, y = torch.from_numpy(file["images"]), torch.from_numpy(file["labels"])
    own = {"divergence": "hutchinson", "seed": 3, "scaler": model.scaler}
    want = discrete_log_prob(model.denoiser, x, 2, cond={"y": y}, **own)
    assert np.allclose(want.log_prob.numpy(), arrays["log_prob"], rtol=1e-5)
    assert bits_per_dim(want).tolist() == pytest.approx(facts["bits_per_dim"], rel=1e-5)
    parts = json.loads(works(*base, "--levels", 256, "--json", "--batch-size", 4))
    assert parts["log_prob"] == pytest.approx(facts["log_prob"], rel=1e-5)
    assert json.loads(works(*base, "--levels", 256, "--json", "--num", 2))["log_prob"] == pytest.approx(
        facts["log_prob"][:2], rel=1e-5
    )
    nats = 64 * math.log(2) * prior_bound(model.sde, model.scaler.encode(x))
    assert facts["prior_term"] == pytest.approx(float(nats.mean()), rel=1e-5)
    assert facts["noise"] == pytest.approx(float(model.sde.sigma(torch.tensor(model.sde.t_min))), rel=1e-2)
    bare = json.loads(works(*base, "--class", "none", "--json"))
    nats = log_prob(model.denoiser, x, 2, **own).log_prob.tolist()
    assert (
        bare["seed"] == 3
        and bare["log_prob"] == pytest.approx(nats, rel=1e-5)
        and bare["bits"] is None
        and "labels" not in bare
    )
    text = works(*base, "--levels", 256)
    assert "bits/dim" in text and "± " in text and "8 network calls" in text and "log P ≥" in text
    assert "bits/dim" not in works(*base, "--num", 1)


def test_the_command_reads_large_data_in_pieces(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with np.load("events.npz") as file:
        np.save("events.npy", file["images"])
    base: list[Any] = ["likelihood", "events.npy", "--model", images, "--steps", 1, "--json", "--class", "none"]
    whole = json.loads(works(*base))
    monkeypatch.setattr("scoresde.data.dataset.LARGE", 100)
    taken: list[int] = []
    take = Streamed.take
    monkeypatch.setattr(Streamed, "take", lambda self, rows: taken.append(len(rows)) or take(self, rows))
    parts = json.loads(works(*base, "--batch-size", 2))
    assert taken == [2, 2, 2] and parts["log_prob"] == pytest.approx(whole["log_prob"], rel=1e-5)


def test_what_the_command_refuses(images: Path) -> None:
    base: list[Any] = ["likelihood", "events.npz", "--model", images]
    for args, words in [
        (["--divergence", "exat"], "did you mean 'exact'"),
        (["--divergence", "exact", "--probes", 7], "--probes 7: --divergence exact draws no vectors"),
        (["--divergence", "exact", "--probe", "gaussian"], "--probe gaussian: --divergence exact"),
        (["--divergence", "hutch++", "--probe", "gaussian"], "--probe gaussian: the vectors of --divergence hutch++"),
        (["--probe", "gausian"], "did you mean 'gaussian'"),
        (["--eta", 1], "no such option --eta"),
        (["--steps", 3, "--rtol", 1e-3], "give no steps"),
        (["--levels", 100, "--steps", 1], "whole numbers 0 to 99"),
        (["--draws", 2], "needs --levels"),
        (["--class", "bgg"], "did you mean 'bag'"),
        (["--out", "nats.json"], "must end in .npz"),
        (["--out", "no/such/nats.npz"], "no folder"),
    ]:
        assert words in fails(2, *base, *args)
    Path("empty").mkdir()
    Path("torn.npz").write_bytes(Path("events.npz").read_bytes()[:80])
    np.savez("nan.npz", images=np.full((3, 1, 8, 8), np.nan, np.float32))
    tensors, info = load_checkpoint(images)
    save_checkpoint("bare.safetensors", tensors, {key: value for key, value in info.items() if key != "scaler"})
    assert "it has no scaler" in fails(2, "likelihood", "events.npz", "--model", "bare.safetensors")
    for file, words in [
        ("flat.npz", "(2,)"),
        ("many.npz", "its class '0' is none of model"),
        ("none.npz", "no such file"),
        ("nan.npz", "row 0 (counted from 0) has a NaN"),
        ("torn.npz", "torn.npz"),
        ("empty", "empty"),
    ]:
        assert words in fails(2, "likelihood", file, "--model", images)


def refuse(*args: object, **how: object) -> Any:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_cannot_be_written_is_told_before_the_run(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base: list[Any] = ["likelihood", "events.npz", "--model", images, "--steps", 1]
    Path("taken.npz").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("scoresde.cli.likelihood.run", lambda *_: pytest.fail("the model was run"))
        assert "--out taken.npz: a folder has that name" in fails(2, *base, "--out", "taken.npz")
        assert "cannot write 'nnn" in fails(5, *base, "--out", "n" * 300 + ".npz")
        patch.setattr(tempfile, "TemporaryFile", refuse)
        assert "cannot write into '.': Permission denied" in fails(5, *base, "--out", "nats.npz")
    monkeypatch.setattr("scoresde.cli.likelihood.write", refuse)  # a disk that is full by then: the figures are there
    done = run(*base, "--out", "nats.npz")
    assert done.exit_code != 0 and "log p" in done.stdout and not Path("nats.npz").exists()


def test_all_of_the_data_are_whole_numbers_before_any_is_used(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoresde.likelihood.discrete_log_prob", lambda *_, **how: pytest.fail("the model was run"))
    monkeypatch.setattr("scoresde.data.dataset.PIECE", 128)
    for value in (7.5, -1, 256):
        x = np.full((6, 1, 8, 8), 255, np.float32)
        x[4, 0, 3, 2] = value
        np.savez("bad.npz", images=x)
        line = fails(2, "likelihood", "bad.npz", "--model", images, "--levels", 256, "--batch-size", 2)
        assert "--levels 256: row 4 (counted from 0) of bad is not of the whole numbers 0 to 255" in line


def test_a_tolerance_out_of_reach_names_no_option_that_is_not_there(images: Path) -> None:
    line = fails(3, "likelihood", "events.npz", "--model", images, "--num", 1, "--rtol", "1e-14")
    assert "loosen the tolerances rtol" in line and "--dtype" not in line and "--max-nfe" not in line


def test_floats_are_pixels_only_where_their_range_is_that_of_pixels(images: Path) -> None:
    """Noise may leave 0 to 255; numbers of another unit, or far outside, are refused with their range."""
    with np.load("events.npz") as file:
        x = file["images"].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 20, x.shape).astype(np.float32)
    base: list[Any] = ["--model", images, "--steps", 1, "--class", "none"]
    for name, values in [("plain", x), ("noisy", x + noise), ("bright", x + 250)]:
        np.savez(f"{name}.npz", images=values)
        works("likelihood", f"{name}.npz", *base)
    for name, values, words in [
        ("unit", x / 255, "unit: its values are in [0, 0.7843], but pixels 0 to 255 are needed"),
        ("signed", x / 127.5 - 1, "in [-1, 0.5686]"),
        ("black", x * 0, "in [0, 0]"),
        ("wild", x - 2000, "in [-2000, -1800]"),
        ("deep", x * 257, "in [0, 5.14e+04]"),
    ]:
        np.savez(f"{name}.npz", images=values)
        assert words in fails(2, "likelihood", f"{name}.npz", *base)


def test_labels_of_the_data_are_those_of_the_model_by_name(images: Path) -> None:
    """In whatever order the data have them; other classes, though as many, are refused."""
    base: list[Any] = ["--model", images, "--steps", 1, "--json"]
    with np.load("events.npz") as file:
        x, y, names = file["images"], file["labels"], file["classes"]
    want = json.loads(works("likelihood", "events.npz", *base))
    for order in ([2, 0, 1], [1, 2, 0]):  # order[k]: the model's number of the data's class k
        np.savez("other.npz", images=x, labels=np.argsort(order)[y], classes=names[order])
        found = json.loads(works("likelihood", "other.npz", *base))
        assert (found["labels"], found["log_prob"]) == (y.tolist(), want["log_prob"])
    few = y == 1
    np.savez("few.npz", images=x[few], labels=np.zeros(few.sum(), int), classes=names[1:2])
    assert json.loads(works("likelihood", "few.npz", *base))["labels"] == [1] * few.sum()
    np.savez("numbers.npz", images=x, labels=y)  # as `scoresde sample` writes them
    assert json.loads(works("likelihood", "numbers.npz", *base))["log_prob"] == want["log_prob"]
    np.savez("others.npz", images=x, labels=y, classes=np.array(["cat", "dog", "bag"]))
    for digit, image in enumerate(x[:, 0]):
        Path(f"digits/{digit % 3}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(f"digits/{digit % 3}/{digit}.png")
    for others in ("others.npz", "digits"):
        line = fails(2, "likelihood", others, *base)
        assert "is none of model" in line and "--class none" in line
        bare = json.loads(works("likelihood", others, *base, "--class", "none"))
        assert "labels" not in bare and bare["class"] == "none"
        assert set(json.loads(works("likelihood", others, *base, "--class", "bag"))["labels"]) == {1}
    assert want["class"] == "the data's own" and re.search(
        "class +bag", works("likelihood", "digits", *base[:-1], "--class", "bag")
    )


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_probes_are_those_of_the_library_and_their_error_is_told(images: Path, probe: str) -> None:
    base: list[Any] = ["likelihood", "events.npz", "--model", images, "--steps", 1, "--class", "none"]
    facts = json.loads(works(*base, "--probe", probe, "--probes", 4, "--json"))
    model = scoresde.load_model(images)
    with np.load("events.npz") as file:
        x = torch.from_numpy(file["images"])
    own: dict[str, Any] = {"divergence": "hutchinson", "probes": 4, "probe": probe, "scaler": model.scaler}
    want = log_prob(model.denoiser, x, 1, **own)
    assert facts["log_prob"] == pytest.approx(want.log_prob.tolist(), rel=1e-5)
    assert facts["settings"]["probe"] == probe
    error = float(want.standard_error.double().square().mean().sqrt())
    assert facts["probes_standard_error"] == pytest.approx(error, rel=1e-3)
    text = works(*base, "--probe", probe, "--probes", 4)
    assert f"4 probes have a standard error of {facts['probes_standard_error']:.3g} nats" in text
    assert json.loads(works(*base, "--json"))["probes_standard_error"] is None
    assert "standard error" not in works(*base)


def test_of_each_batch_only_the_numbers_stay(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """States at t_max are as large as the data: those of a batch are gone before the next one starts."""
    latents = list[weakref.ref[torch.Tensor]]()

    def watched(*args: Any, **how: Any) -> Any:
        assert all(latent() is None for latent in latents)
        found = log_prob(*args, **how)
        latents.append(weakref.ref(found.latent))
        return found

    monkeypatch.setattr("scoresde.likelihood.log_prob", watched)
    works("likelihood", "events.npz", "--model", images, "--steps", 1, "--batch-size", 2)
    assert len(latents) == 3
