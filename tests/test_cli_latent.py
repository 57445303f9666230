"""Schedules in numbers, samples as latents and back, and what `auto` stands for."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import fails, points_config, works

import scoresde
from scoresde.config import parse_config
from scoresde.samplers import SAMPLERS
from scoresde.samplers.auto import AUTO, choose_for
from scoresde.train import train

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of points in the plane, trained until its flow is one that can be followed back."""
    options = {"steps": 400, "batch_size": 64, "lr": 0.01, "ema": 0.9}
    return train(
        parse_config({**points_config(**options), "prediction": "v"}), tmp_path_factory.mktemp("points") / "moons"
    ).parent


def the(pattern: str, folder: str = "samples") -> Path:
    (path,) = Path(folder).glob(pattern)
    return path


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def facts_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------------- schedule


def test_schedule() -> None:
    lines = works("schedule").splitlines()
    assert lines[0] == str(scoresde.VPSDE()) and len(lines) == 13
    assert lines[1].split() == ["t", "alpha", "sigma", "lambda", "log-SNR", "rho", "phi", "f", "g2"]
    facts = json.loads(works("schedule", "cosine", "--n", 3, "--json"))
    sde = scoresde.CosineVPSDE()
    assert [row["t"] for row in facts["rows"]] == np.linspace(sde.t_min, sde.t_max, 3).tolist()
    t = torch.tensor([row["t"] for row in facts["rows"]], dtype=torch.float64)
    for name in ("alpha", "sigma", "rho", "phi", "f", "g2"):
        want = getattr(sde, name)(t).tolist()
        assert [row[name] for row in facts["rows"]] == pytest.approx(want, rel=1e-12), name
    assert all(row["log-SNR"] == 2 * row["lambda"] for row in facts["rows"])


@pytest.mark.parametrize("name", scoresde.SDES)
def test_schedules_of_all(name: str) -> None:
    rows = json.loads(works("schedule", name, "--json"))["rows"]
    assert len(rows) == 11 and all(isinstance(v, float) or v in ("inf", "-inf") for row in rows for v in row.values())


@pytest.mark.parametrize("sampler", ["ode", "unipc", "pc", "restart", "ddpm"])
def test_the_schedule_of_a_sampler_is_the_grid_of_its_run(sampler: str, points: Path) -> None:
    rows = json.loads(works("schedule", "--model", points, "--sampler", sampler, "--steps", 13, "--json"))["rows"]
    works("sample", "--model", points, "--sampler", sampler, "--steps", 13, "--num", 1, "--out", sampler)
    assert [row["t"] for row in rows] == facts_of(the("*.json", sampler))["times"]
    assert "give --steps" in fails(2, "schedule", "--sampler", "ode")
    assert "which --sampler" in fails(2, "schedule", "--steps", 3)
    assert "give one" in fails(2, "schedule", "--sampler", "ddim", "--n", 3)


def test_schedule_at_given_times(points: Path) -> None:
    data = json.loads(works("schedule", "--model", points, "--times", "0.5,0", "--json"))["rows"][1]
    assert (data["alpha"], data["sigma"], data["lambda"], data["phi"]) == (1.0, 0.0, "inf", 0.0)
    assert "did you mean 'cosine'?" in fails(2, "schedule", "cosin")
    assert "give one" in fails(2, "schedule", "vp", "--model", points)
    assert "give one" in fails(2, "schedule", "--n", 3, "--times", "1,0")
    assert "--times 1.5: times of VPSDE" in fails(2, "schedule", "--times", "1,1.5")
    assert "--times nan" in fails(2, "schedule", "--times", "nan")
    assert "at least one" in fails(2, "schedule", "--times", ",")
    assert "at least 2" in fails(2, "schedule", "--n", 1)


# ------------------------------------------------------------------------------------------------------ encode and back


@pytest.mark.parametrize("options", ["ode --steps 100 --method midpoint", "ode --rtol 1e-4", "ddim", "eab2"])
def test_the_way_back_is_printed(options: str, points: Path) -> None:
    """The command after an encoding gives the samples again, to a hundredth of their spread."""
    works("sample", "--model", points, "--num", 10, "--steps", 20)
    flags = ("--weights", "raw", "--sampler", *options.split(), "--out", "a b")
    text = works("encode", the("*.npz"), "--model", points, *flags)
    words = shlex.split(text.splitlines()[-1].removeprefix("back to the samples: "))
    assert words[:2] == ["scoresde", "sample"]
    works(*words[1:], "--out", "back")
    before, after = arrays(the("*.npz"))["samples"], arrays(the("*.npz", "back"))["samples"]
    assert np.abs(after - before).max() < 0.01 * before.std()


def test_there_and_back(points: Path) -> None:
    """The samples again, to a hundredth of their spread."""
    works("sample", "--model", points, "--num", 40, "--steps", 20)
    text = works("encode", the("*.npz"), "--model", points, "--steps", 100, "--out", "latents", "--batch-size", 16)
    file = Path("latents/moons-ode-20-seed0-latent.npz")
    assert text.splitlines()[:2] == [str(file), str(file.with_suffix(".json"))]
    assert re.search(r"40 samples encoded by .* ode, 100 steps: 400 network calls per sample, \d", text)
    latent = arrays(file)
    assert list(latent) == ["latent"] and latent["latent"].shape == (40, 2) and latent["latent"].dtype == np.float32
    works("sample", "--model", points, "--from-latent", file, "--steps", 100, "--out", "back")
    assert the("*.npz", "back").name == "moons-ode-100-from-moons-ode-20-seed0-latent.npz"
    before, after = arrays(the("*.npz"))["samples"], arrays(the("*.npz", "back"))["samples"]
    assert np.abs(after - before).max() < 0.01 * before.std()
    record = facts_of(the("*.json", "back"))
    sha256 = facts_of(file.with_suffix(".json"))["sha256"]
    assert record["sha256"] == sha256 and record["from_latent"]["file"] == str(file)
    assert record["settings"]["final"] == "t_min" and record["num"] == 40 and record["class"] is None


def test_latents_are_the_library_s(images: Path) -> None:
    works("sample", "--model", images, "--num", 5, "--steps", 2)
    file = the("*.npz")
    works("encode", file, "--model", images, "--sampler", "ddim", "--steps", 3, "--grid", "t")
    model, drawn = scoresde.load_model(images), arrays(file)
    x, y = model.scaler.encode(torch.from_numpy(drawn["samples"])), torch.from_numpy(drawn["labels"])
    for flags, cond in (((), {"y": y}), (("--class", "bag"), {"y": torch.ones_like(y)}), (("--class", "none"), {})):
        works("encode", file, "--model", images, "--sampler", "ddim", "--steps", 3, "--grid", "t", *flags, "--out", "z")
        latent = arrays(the("*-latent.npz", "z"))
        want = scoresde.encode(model.denoiser, x, "ddim", 3, grid="t", cond=cond)
        np.testing.assert_array_equal(latent["latent"], want.x.numpy())
        assert ("labels" in latent) == bool(cond) and (not cond or (latent["labels"] == cond["y"].numpy()).all())
        works("sample", "--model", images, "--from-latent", the("*-latent.npz", "z"), "--steps", 2, "--out", "b")
        again = scoresde.sample(model.denoiser, x.shape, steps=2, x=want.x, cond=cond, final="t_min")
        want_pixels = model.scaler.decode(again.x).round().clamp(0, 255)
        np.testing.assert_array_equal(arrays(the("*.npz", "b"))["samples"], want_pixels.numpy())
        shutil.rmtree("z")
        shutil.rmtree("b")


def test_dark_pixels_and_floats_are_encoded_as_they_are(images: Path) -> None:
    """A range tells units only of numbers that are no uint8."""
    dark = np.arange(192).reshape(3, 1, 8, 8) % 2
    for name, samples in (("dark", dark.astype(np.uint8)), ("float", 200.25 * dark)):
        np.savez(f"{name}.npz", samples=samples)
        works("encode", f"{name}.npz", "--model", images, "--sampler", "ddim", "--steps", 1)
        assert arrays(Path(f"{name}-latent.npz"))["latent"].shape == (3, 1, 8, 8)


def test_replay_of_a_run_from_latents(points: Path) -> None:
    works("sample", "--model", points, "--num", 4, "--steps", 3)
    works("encode", the("*.npz"), "--model", points, "--steps", 5, "--out", "z")
    file = the("*.npz", "z")
    works("sample", "--model", points, "--from-latent", file, "--steps", 3, "--final", "denoise", "--out", "back")
    assert "bitwise equal" in works("replay", the("*.npz", "back"), "--out", "again")
    first, second = facts_of(the("*.json", "back")), facts_of(the("*.json", "again"))
    assert {**first, "seconds": 0, "command": ""} == {**second, "seconds": 0, "command": ""}
    assert "z/" in works("replay", file) and "bitwise equal" in works("replay", file, "--out", "z2")
    assert {path.name for path in Path("z2").iterdir()} == {file.name, f"{file.stem}.json"}
    assert arrays(file)["latent"].tobytes() == arrays(Path("z") / f"{file.stem}-replay.npz")["latent"].tobytes()
    for made in Path("z").glob("*-replay.*"):
        made.unlink()
    shutil.move(file, "back")
    assert "bitwise equal" in works("replay", the("*.json", "back"), "--out", "again")
    moved = Path("back") / file.name
    content = arrays(moved)
    np.savez(moved, latent=content["latent"] + 1)
    assert "is not what the run started from" in fails(2, "replay", the("*.json", "back"))
    moved.unlink()
    assert "which is not there" in fails(2, "replay", the("*.json", "back"))


def test_encode_errors(points: Path, images: Path, here: Path) -> None:
    works("sample", "--model", points, "--num", 3, "--steps", 2)
    file = the("*.npz")
    assert "no such file" in fails(2, "encode", "nowhere.npz", "--model", points)
    assert "no whole .npz" in fails(2, "encode", the("*.json"), "--model", points)
    np.savez("a.npz", sample=np.zeros((3, 2)))
    assert "no array 'samples': it has sample; did you mean 'sample'?" in fails(2, "encode", "a.npz", "--model", points)
    assert "has shape (3, 2), model" in fails(2, "encode", file, "--model", images)
    for bad, words in ((np.full((3, 2), np.nan), "not finite"), (np.full((3, 2), "x"), "not real numbers")):
        np.savez("b.npz", samples=bad)
        assert words in fails(2, "encode", "b.npz", "--model", points)
    np.savez("c.npz", samples=np.zeros((3, 1, 8, 8), np.uint8), labels=np.array([0, 1, 3]))
    assert "the classes 0 to 2" in fails(2, "encode", "c.npz", "--model", images)
    for low, high in ((0, 1), (-1, 1), (0, 6e4)):
        np.savez("d.npz", samples=np.linspace(low, high, 192, dtype=np.float32).reshape(3, 1, 8, 8))
        line = fails(2, "encode", "d.npz", "--model", images)
        assert f"'d.npz': its values are in [{low}, {high:.4g}], but pixels 0 to 255 are needed" in line
    assert "cannot encode: choose from ode" in fails(2, "encode", file, "--model", points, "--sampler", "ddpm")
    assert "name a sampler here" in fails(2, "encode", file, "--model", points, "--sampler", "auto")
    assert "did you mean 'ddim'?" in fails(2, "encode", file, "--model", points, "--sampler", "dimm")
    assert "no option 'eta'" in fails(2, "encode", file, "--model", points, "--steps", 3, "--eta", 1)
    assert "has no classes" in fails(2, "encode", file, "--model", points, "--class", 1)
    assert not list(here.rglob("*latent*"))


def test_from_latent_errors(points: Path, here: Path) -> None:
    sample = ("sample", "--model", points, "--from-latent", "z.npz")
    assert "no such file" in fails(2, *sample)
    np.savez("z.npz", latent=np.zeros((3, 2)))
    for flags in (("--num", 3), ("--class", "none"), ("--start", 2), ("--seed", 0), ("--index", 1)):
        assert f"--from-latent and {flags[0]}: " in fails(2, *sample, "--steps", 2, *flags)
    assert "--num and --seed" in fails(2, *sample, "--num", 3, "--seed", 1)
    assert "states at t_max = 1: the grid starts at 0.5" in fails(2, *sample, "--times", "0.5,0.1,0")
    np.savez("z.npz", samples=np.zeros((3, 2)))
    assert "no array 'latent': it has samples" in fails(2, *sample)
    assert not Path("samples").exists()


# ----------------------------------------------------------------------------------------------------- auto, own levels


def test_auto_is_listed() -> None:
    assert works("samplers").splitlines()[-1].startswith("auto  by budget: the measured best for --nfe N")
    rows = works("samplers", "auto").splitlines()
    for choice in AUTO:
        assert any({choice.sampler, choice.grid} <= set(row.split()) for row in rows), choice
    facts = json.loads(works("samplers", "auto", "--json"))
    assert [(fact["sampler"], fact["options"]) for fact in facts] == [(c.sampler, dict(c.options)) for c in AUTO]
    assert "auto" in works("sample", "--help")


@pytest.mark.parametrize("nfe", [6, 8, 30])
def test_table_of_auto(nfe: int) -> None:
    choice = choose_for(nfe)
    facts = json.loads(works("table", "auto", "--nfe", nfe, "--json"))
    assert facts["sampler"] == choice.sampler in SAMPLERS and facts["grid"] == choice.grid and facts["nfe"] <= nfe
    named = ("--grid", choice.grid, *(word for k, v in choice.options.items() for word in (f"--{k}", v)))
    assert works("table", "auto", "--nfe", nfe) == works("table", choice.sampler, "--nfe", nfe, *named)
    assert "sets its own options" in fails(2, "table", "auto", "--nfe", nfe, "--order", 2)


def test_levels_are_complained_about_as_typed() -> None:
    line = fails(2, "table", "ddim", "--sigmas", "20,5,9,0")
    assert "sigmas [20, 5, 9, 0]: noise levels must be strictly decreasing, 9 follows 5" in line
    line = fails(2, "table", "ddim", "--logsnr=-9,1,-3")
    assert "--logsnr: log α²/σ² must be strictly increasing, -3 follows 1" in line
