"""`scoresde sample`: what it writes, what it refuses, and what a failure leaves behind."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save
from test_cli import CLASSES, drawn, fails, image_run, points_config, run, works

import scoresde
from scoresde import SAMPLERS, checkpoint
from scoresde.cli import draw, progress

pytestmark = pytest.mark.usefixtures("here")


def test_sample_points(points: Path):
    state = torch.get_rng_state()
    text = works("sample", "--model", points, "--steps", 10, "--num", 7, "--seed", 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert "ema weights" in text and "7 samples" in text
    for ending in ("png", "npz", "json"):
        assert f"samples/moons-ode-10-seed3.{ending}" in text.splitlines()
    arrays, record = drawn()
    assert set(arrays) == {"samples"} and arrays["samples"].shape == (7, 2) and arrays["samples"].dtype == np.float32
    model = scoresde.load_model(points)
    want = scoresde.sample(model.denoiser, (7, 2), "ode", 10, seed=3)
    np.testing.assert_array_equal(arrays["samples"], model.scaler.decode(want.x).numpy())
    assert record["settings"] == dict(want.settings) and record["times"] == list(want.times)
    assert record["nfe"] == record["network_evals"] == want.nfe and record["num"] == 7
    assert f" {want.nfe} network calls per sample, " in text
    assert record["sha256"] == model.info["sha256"] and record["class"] is None
    assert record["command"] == f"scoresde sample --model {points} --steps 10 --num 7 --seed 3"
    with Image.open("samples/moons-ode-10-seed3.png") as picture:
        assert picture.mode == "RGB" and min(picture.size) > 300


def test_sample_images(images: Path):
    works("sample", "--model", images, "--sampler", "ddim", "--steps", 2)
    arrays, record = drawn()
    assert arrays["samples"].shape == (63, 1, 8, 8) and arrays["samples"].dtype == np.uint8  # 64 less what is uneven
    np.testing.assert_array_equal(arrays["labels"], np.arange(63) % 3)
    assert record["class"] == "in turn" and record["classes"] == list(CLASSES)
    with Image.open("samples/squares-ddim-2-seed0.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (3 * 60 + 4, 21 * 60 + 4)  # a row per class, 7 x enlarged, gaps of 4
    np.testing.assert_array_equal(pixels[4 : 4 + 56 : 7, 4 : 4 + 56 : 7], arrays["samples"][0, 0])
    np.testing.assert_array_equal(pixels[64 : 64 + 56 : 7, 64 : 64 + 56 : 7], arrays["samples"][4, 0])


def test_the_same_command_gives_the_same_files(images: Path):
    args = ("sample", "--model", images, "--sampler", "ddpm", "--steps", 4, "--num", 5)
    works(*args, "--out", "a")
    works(*args, "--out", "b")
    for name in ("squares-ddpm-4-seed0.png", "squares-ddpm-4-seed0.npz"):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes()
    works(*args, "--out", "c", "--seed", 1)
    assert not np.array_equal(drawn("a")[0]["samples"], drawn("c")[0]["samples"])


@pytest.mark.parametrize("name", ["ddim", "ddpm", "pc", "travel", "ode", "rk45", "sde-adaptive"])
def test_a_sample_depends_on_seed_and_index_alone(name: str, points: Path):
    steps = ["--steps", 6] if SAMPLERS[name].build else []
    args = ("sample", "--model", points, "--sampler", name, *steps, "--dtype", "float64")
    works(*args, "--num", 8, "--out", "all")
    works(*args, "--num", 8, "--batch-size", 3, "--out", "batches")
    works(*args, "--num", 1, "--index", 5, "--out", "alone")
    all_, batches, alone = (drawn(out)[0]["samples"] for out in ("all", "batches", "alone"))
    assert all_.dtype == np.float64 and np.isfinite(all_).all()
    size = np.abs(all_).max()
    if SAMPLERS[name].build:
        np.testing.assert_allclose(batches, all_, rtol=0, atol=1e-11 * size)
        np.testing.assert_allclose(alone[0], all_[5], rtol=0, atol=1e-11 * size)
    else:  # rounding that tips a step from accepted to refused moves some samples further
        assert np.median(np.abs(batches - all_).max(1)) < 1e-5 * size and alone.shape == (1, 2)


def test_index_alone_keeps_its_class(images: Path):
    args = ("sample", "--model", images, "--sampler", "ddpm", "--steps", 3)
    works(*args, "--num", 7, "--out", "all")
    works(*args, "--num", 2, "--index", 5, "--out", "some")
    (full, _), (some, record) = drawn("all"), drawn("some")
    np.testing.assert_array_equal(some["labels"], full["labels"][5:])
    assert np.abs(some["samples"].astype(int) - full["samples"][5:]).max() <= 1  # rounding
    assert record["settings"]["first"] == 5 and Path("some/squares-ddpm-3-seed0-index5.npz").is_file()


@pytest.mark.parametrize("wanted", ["1", "bag", "BAG"])
def test_one_class(wanted: str, images: Path):
    works("sample", "--model", images, "--steps", 2, "--num", 3, "--class", wanted)
    arrays, record = drawn()
    assert arrays["labels"].tolist() == [1, 1, 1] and record["class"] == wanted


def test_no_class(images: Path):
    works("sample", "--model", images, "--steps", 2, "--num", 3, "--class", "none")
    arrays, _ = drawn()
    model = scoresde.load_model(images)
    x = scoresde.sample(model.denoiser, (3, 1, 8, 8), "ode", 2).x
    np.testing.assert_array_equal(arrays["samples"], model.scaler.decode(x).round().clamp(0, 255).to(torch.uint8))
    assert "labels" not in arrays


def test_adaptive_and_its_name(points: Path):
    text = works("sample", "--model", points, "--num", 4, "--rtol", "1e-3", "--atol", "1e-3")
    _, record = drawn()
    assert "adaptive" in text and Path("samples/moons-ode-adaptive-seed0.npz").is_file()
    assert record["settings"]["options"]["rtol"] == 1e-3 and record["settings"]["adaptive"]


def test_samples_that_stop_early_are_told_and_counted(points: Path):
    how = ("--sampler", "rk45", "--rtol", "1e-4", "--on-limit", "return")
    told = works("sample", "--model", points, "--num", 12, "--out", "free", *how)
    arrays, record = drawn("free")
    assert record["stopped"] == 0 and record["nfe"] == arrays["nfe"].max() > arrays["nfe"].min()
    assert np.array_equal(arrays["nfe"], 1 + 6 * (arrays["accepted"] + arrays["rejected"]))
    least, most = record["accepted"]
    assert [least, most] == [arrays["accepted"].min(), arrays["accepted"].max()]
    assert record["rejected"] == [arrays["rejected"].min(), arrays["rejected"].max()]
    assert f" network calls per sample, {draw.told(record)}" in told and f"{most} steps accepted, " in told
    text = works("sample", "--model", points, "--num", 12, "--max-nfe", int(arrays["nfe"].min()), *how)
    arrays, record = drawn()
    assert 0 < record["stopped"] < 12 and f"{record['stopped']} of them stopped" in text


def test_a_prior_far_from_the_data_is_told(points: Path, here: Path):
    assert "KL(p_T ‖ prior)" in works("inspect", points) and "too far" not in works("inspect", points)
    generator = np.random.default_rng(0)
    np.save("wide.npy", 50 * generator.normal(size=(64, 2)).astype(np.float32))
    config = {**points_config(steps=1), "data": {"name": "wide.npy", "scaler": "none"}, "sde": {"name": "edm"}}
    Path("wide.yaml").write_text(yaml.safe_dump(config))
    text = works("train", "wide.yaml", "--out", "wide")
    assert "too far apart" in text and "too far apart" in works("inspect", "wide")


def test_budget_of_calls(points: Path):
    works("sample", "--model", points, "--num", 4, "--nfe", 20)
    _, record = drawn()
    assert 17 <= record["nfe"] <= 20 and record["settings"]["steps"] == 5


@pytest.mark.parametrize(
    ("flag", "text", "times"),
    [
        ("--times", "1,0.5,0.1,0", [1, 0.5, 0.1, 0]),
        ("--times", "@grid.txt", [1, 0.25, 0]),
        ("--sigmas", "80,1,0.1,0", None),
        ("--logsnr", "-8,0,3,inf", None),
    ],
)
def test_grids_of_one_s_own(flag: str, text: str, times: list[float] | None, points: Path):
    Path("grid.txt").write_text("1.0\n0.25\n0\n")
    works("sample", "--model", points, "--num", 2, "--sampler", "eab2", flag, text)
    _, record = drawn()
    if times is None:
        sde, values = scoresde.VPSDE(), [float(v) for v in text.split(",")]
        lam = sde.knots(record["times"]).lam
        want = np.asarray(values) / 2 if flag == "--logsnr" else [-np.log(v) if v else np.inf for v in values]
        np.testing.assert_allclose(lam, want, atol=1e-10)
    else:
        assert record["times"] == times


def test_other_options(points: Path, images: Path):
    both = points / "checkpoint.safetensors"
    works("sample", "--model", both, "--num", 3, "--steps", 4, "--out", "ema")
    works("sample", "--model", both, "--num", 3, "--steps", 4, "--out", "raw", "--weights", "raw")
    works("sample", "--model", points, "--num", 3, "--steps", 4, "--out", "dev", "--noise", "device")
    ema, raw, dev = (drawn(out)[0]["samples"] for out in ("ema", "raw", "dev"))
    assert not np.allclose(ema, raw) and not np.allclose(ema, dev)
    assert drawn("raw")[1]["weights"] == "raw" and drawn("dev")[1]["settings"]["noise"] == "device"
    works("sample", "--model", images, "--num", 3, "--sampler", "ddim", "--clip-x0", "-0.1,0.1", "--out", "clip")
    arrays, record = drawn("clip")
    assert record["clip_x0"] == [-0.1, 0.1]
    assert arrays["samples"].min() >= 114 and arrays["samples"].max() <= 141
    works("sample", "--model", images, "--num", 3, "--steps", 4, "--out", "single")
    works("sample", "--model", images, "--num", 3, "--steps", 4, "--out", "double", "--dtype", "float64")
    single, double = (drawn(out)[0]["samples"].astype(int) for out in ("single", "double"))
    assert np.abs(single - double).max() <= 1


def test_a_folder_that_is_there_and_files_that_are_replaced(points: Path):
    Path("samples").mkdir()
    for _ in range(2):
        works("sample", "--model", points, "--num", 2, "--steps", 2)
    drawn()


def test_another_run_never_replaces_files(points: Path, here: Path):
    """The same run takes its own names again; a run with other settings gets names of its own."""
    common = ("sample", "--model", points, "--sampler", "ddim", "--steps", 3, "--num", 5)
    works(*common)
    before = (here / "samples" / "moons-ddim-3-seed0.npz").read_bytes()
    for _ in range(2):
        text = works(*common, "--eta", 1)
        assert "samples/moons-ddim-3-seed0-2.npz" in text.splitlines()
    works(*common)
    assert (here / "samples" / "moons-ddim-3-seed0.npz").read_bytes() == before
    assert len(list((here / "samples").iterdir())) == 6


def test_bars_on_a_terminal_change_nothing(points: Path, monkeypatch: pytest.MonkeyPatch):
    args = ("sample", "--model", points, "--num", 5, "--batch-size", 2)
    for extra in (["--sampler", "ddpm", "--steps", "7"], ["--sampler", "ode", "--rtol", "1e-2"]):
        monkeypatch.setattr(progress, "on_terminal", lambda: False)
        works(*args, *extra, "--out", "silent")
        monkeypatch.setattr(progress, "on_terminal", lambda: True)
        result = run(*args, *extra, "--out", "bar")
        assert result.exit_code == 0 and "network calls" in result.stderr
        assert ("21/21" in result.stderr) == ("ddpm" in extra)
    for silent in Path("silent").glob("*.npz"):
        assert silent.read_bytes() == Path("bar", silent.name).read_bytes()


BAD = [
    (("--steps", "0"), "steps must be a positive integer"),
    (("--steps", "-1"), "steps must be a positive integer"),
    (("--steps", "2.5"), "steps must be a positive integer"),
    (("--steps", "ten"), "steps must be a positive integer"),
    (("--nfe", "0"), "nfe must be a positive integer"),
    (("--num", "0"), "num must be a positive integer"),
    (("--batch-size", "0"), "batch-size must be a positive integer"),
    (("--seed", str(2**63)), "below 2^63"),
    (("--seed", "-1"), "seed must be an integer of at least 0"),
    (("--index", "x"), "index must be an integer of at least 0"),
    (("--steps", "4", "--nfe", "4"), "give one"),
    (("--nfe", "4", "--sampler", "pc", "--correctors", "9", "--steps", "2"), "give one"),
    (("--sampler", "dimm"), "did you mean 'ddim'?"),
    (("--sampler", "dpmppp"), "dpm++2m"),
    (("--sampler", "dpm++2m", "--rtol", "1e-5"), "no option 'rtol'"),
    (("--sampler", "ddim", "--eta", "2"), "[0, 1]"),
    (("--sampler", "ddim", "--eta", "x"), "--eta x: eta must be a number"),
    (("--sampler", "ddim", "--eta"), "--eta needs a value"),
    (("--eta", "--sampler", "ddim"), "--eta needs a value"),
    (("--sampler", "ddim", "--eat", "1"), "did you mean --eta"),
    (("--sampler", "pc", "--correctors", "1.5"), "correctors must be an integer"),
    (("--adaptive", "--steps", "10"), "--adaptive and --steps"),
    (("--adaptive", "--times", "1,0", "--nfe", "9"), "--adaptive and --nfe and --times"),
    (("--adaptive", "--sampler", "ddim"), "choose from ode"),
    (("--adaptve",), "did you mean --adaptive"),
    (("--start", "x"), "start must be a number"),
    (("--start", "nan"), "start must be a number"),
    (("--start", "2"), "an analytic start needs a grid"),
    (("--start", "2", "--times", "1,0"), "verbatim"),
    (("--save-every", "0"), "save-every must be a positive integer"),
    (("--sampler", "ddpm", "--variance", "uper"), "did you mean 'upper'?"),
    (("--sampler", "pc", "--predictor", "ode"), "ddpm, em, ddim"),
    (("--sampler", "autoo", "--nfe", "5"), "did you mean 'auto'?"),
    (("--sampler", "auto", "--times", "1,0.5,0"), "give nfe, or name a sampler for this grid"),
    (("--grid", "ddim50"), "keeps steps of a DDPM chain, VPSDE is none"),
    (("--sampler", "pc", "--snr", "nan"), "(0, 1)"),
    (("--steps", "10", "--rtol", "1e-5"), "adaptive"),
    (("--steps", "10", "--method", "dopri5"), "rk4"),
    (("--rtol", "0"), "(0, 1)"),
    (("--nfe", "1", "--final", "t_min"), "nfe = 1"),
    (("--grid", "lamda"), "did you mean 'lambda'?"),
    (("--steps", "4", "--final", "zeroo"), "did you mean 'zero'?"),
    (("--grid", "t", "--sigmas", "80,0"), "give one grid"),
    (("--sigmas", "80,1,2,0"), "strictly decreasing"),
    (("--times", "1,nan,0"), "strictly decreasing"),
    (("--times", "1,0.5,1e-9,0"), "below t_min = 0.001, where the network was not trained"),
    (("--sigmas", "80,5,0.5,1e-6"), "below t_min = 0.001"),
    (("--times", "0.2,0.1,0"), "it starts at t = 0.2, where 66% of the variance is of the data"),
    (("--times", "2,0"), "within [0, 1.0]"),
    (("--times", "1"), "at least two"),
    (("--times", "1,x"), "'x' is not a number"),
    (("--times", "@nowhere"), "No such file"),
    (("--logsnr", "-90,0"), "-45"),
    (("--times", "1,0", "--steps", "4"), "verbatim"),
    (("--clip-x0", "1"), "2 numbers"),
    (("--clip-x0", "1,-1"), "below"),
    (("--weights", "emma"), "did you mean 'ema'?"),
    (("--noise", "gpu"), "cpu, brownian, device"),
    (("--dtype", "float16"), "float32, float64"),
    (("--device", "tpu"), "auto, cpu, cuda"),
    (("--class", "3"), "has no classes"),
    (("--stpes", "3"), "did you mean --step"),
    (("--out", "a.png"), "must be a folder"),
    (("extra",), "extra"),
]


@pytest.mark.parametrize(("args", "words"), BAD, ids=[" ".join(args) for args, _ in BAD])
def test_bad_input(args: tuple[str, ...], words: str, points: Path, here: Path):
    assert words in fails(2, "sample", "--model", points, *args)
    assert not list(here.iterdir())


def test_bad_class(images: Path, here: Path):
    assert "did you mean 'ankle boot'?" in fails(2, "sample", "--model", images, "--class", "ankle bot")
    assert "0 to 2" in fails(2, "sample", "--model", images, "--class", "3")
    assert "0 to 2" in fails(2, "sample", "--model", images, "--class", "-1")
    assert not list(here.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_no_cuda(points: Path):
    assert "no CUDA device" in fails(2, "sample", "--model", points, "--device", "cuda")


def test_unknown_model(here: Path):
    assert "no model 'nowhere'" in fails(2, "sample", "--model", "nowhere")
    assert not list(here.iterdir())


@pytest.mark.parametrize("command", ["sample --model", "inspect", "table ddim --model"])
def test_damaged_checkpoints(command: str, points: Path):
    whole = (points / "checkpoint.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    flipped = bytearray(whole)
    flipped[header + 1000] ^= 1
    info = {"format": checkpoint.FORMAT, "sha256": checkpoint.digest({})}
    files = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "header-cut": whole[:100],
        "altered": bytes(flipped),
        "header-altered": whole.replace(b'\\"event_shape\\"', b'\\"event_shape\\x'),
        "foreign": save({"w": torch.zeros(3)}),
        "other-format": save({}, metadata={"scoresde": json.dumps({**info, "format": 99})}),
        "no-model": save({}, metadata={"scoresde": json.dumps(info)}),
        "no-json": save({}, metadata={"scoresde": "[1, 2]"}),
        "pickle": b"\x80\x04\x95" + bytes(100),
    }
    for name, content in files.items():
        Path("bad.safetensors").write_bytes(content)
        line = fails(2, *command.split(), "bad.safetensors")
        assert "bad.safetensors" in line, name
    assert [path.name for path in Path().iterdir()] == ["bad.safetensors"]


def test_folder_that_cannot_be_made(points: Path):
    Path("file").write_text("not a folder")
    assert "file/below" in fails(5, "sample", "--model", points, "--steps", 2, "--out", "file/below")
    assert "file" in fails(5, "sample", "--model", points, "--steps", 2, "--out", "file")
    assert [path.name for path in Path().iterdir()] == ["file"]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_no_space(at: int, points: Path, here: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def full(descriptor: int):
        calls.append(descriptor)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in fails(5, "sample", "--model", points, "--steps", 2, "--out", "a/b")
    assert not list(here.iterdir())


def test_solver_that_cannot_finish(points: Path, here: Path):
    assert "10 network calls" in fails(3, "sample", "--model", points, "--max-nfe", 10)
    assert not list(here.iterdir())


def test_network_that_returns_nan(tmp_path_factory: pytest.TempPathFactory, here: Path):
    path = tmp_path_factory.mktemp("broken") / "nan.safetensors"
    image_run(broken=True).save(path)
    for sampler in ("ode", "ddim"):
        fails(3, "sample", "--model", path, "--sampler", sampler, "--steps", 2)
    assert not list(here.iterdir())


def test_interrupt(points: Path, here: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*args: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(draw, "render", interrupted)
    fails(130, "sample", "--model", points, "--steps", 2)
    assert not list(here.iterdir())
