"""`scoresde likelihood`: its table, its JSON, what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import fails, image_run, works

import scoresde
from scoresde import bits_per_dim, discrete_log_prob, log_prob
from scoresde.checkpoint import load_checkpoint, save_checkpoint
from scoresde.data import Streamed
from scoresde.losses import prior_bound


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A class-conditional model of 8x8 images, and events of its kind in events.npz; in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    x = (torch.arange(6) * 40 % 256)[:, None, None, None].expand(6, 1, 8, 8).to(torch.uint8).numpy()
    np.savez("events.npz", images=x, labels=np.arange(6) % 3)
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
    assert bare["log_prob"] == pytest.approx(nats, rel=1e-5) and bare["bits"] is None and "labels" not in bare
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
        ("many.npz", "--class none"),
        ("none.npz", "no such file"),
        ("nan.npz", "row 0 (counted from 0) has a NaN"),
        ("torn.npz", "torn.npz"),
        ("empty", "empty"),
    ]:
        assert words in fails(2, "likelihood", file, "--model", images)
