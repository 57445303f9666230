"""The command line: every command, what it writes, and how it fails."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save

import scoresde.model
from scoresde import SAMPLERS, checkpoint
from scoresde.cli import COMMANDS, draw, files, main, options, progress
from scoresde.cli import train as train_command
from scoresde.config import parse_config
from scoresde.data import Dataset
from scoresde.errors import OutputError
from scoresde.guidance import INPAINTING
from scoresde.train import objective, train
from scoresde.train.run import Run

pytestmark = pytest.mark.usefixtures("here")

CLASSES = ("T-shirt/top", "bag", "ankle boot")


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def works(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def fails(code: int, *args: object) -> str:
    """The one line that a failing command prints on stderr."""
    result = run(*args)
    assert result.exit_code == code, (result.output, result.exception)
    line = result.stderr.strip()
    assert line.startswith("scoresde: error: ") and "\n" not in line, result.stderr
    assert "Traceback" not in result.output
    return line


def points_config(**train_options: object) -> dict[str, object]:
    return {
        "data": {"name": "moons", "options": {"n": 64}},
        "network": {"name": "mlp", "width": 16, "depth": 1, "features": 8},
        "time": "t",
        "train": {"steps": 3, "batch_size": 16, "warmup": 1, "ema": 0.5, **train_options},
    }


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of points in the plane, three steps old."""
    return train(parse_config(points_config()), tmp_path_factory.mktemp("points") / "moons").parent


def image_run(broken: bool = False) -> Run:
    config = parse_config(
        {
            "data": {"name": "squares", "scaler": "image"},
            "network": {"name": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "heads": 1},
            "prediction": "v",
            "time": "1000t",
            "train": {"steps": 3, "batch_size": 12, "warmup": 1, "lr": 0.1, "ema": 0.5},
        }
    )
    labels = torch.arange(12) % 3
    x = (labels * 100)[:, None, None, None].expand(12, 1, 8, 8).to(torch.uint8).contiguous()
    run = Run(config, Dataset(x, labels, CLASSES, name="squares"))
    for _ in range(3):
        run.advance()
    if broken:
        for weights in (*run.ema.weights.values(), *run.network.parameters()):
            weights.data.fill_(torch.nan)
    return run


def drawn(out: str = "samples") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the record of the only run in a folder."""
    assert len(list(Path(out).iterdir())) == 3
    (arrays,), (record,) = Path(out).glob("*.npz"), Path(out).glob("*.json")
    with np.load(arrays) as file:
        return dict(file), json.loads(record.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------------ the group


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from scoresde.cli import COMMANDS, main\n"
        "for args in ([], ['--help'], ['--version'], *([name, '--help'] for name in COMMANDS)):\n"
        "    result = CliRunner().invoke(main, args)\n"
        "    assert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pydantic', 'rich', 'yaml', 'PIL', 'torchdiffeq'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = str(Path(scoresde.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=env)
    command = [sys.executable, "-m", "scoresde", "smaple"]
    bad = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert bad.returncode == 2 and "did you mean 'sample'?" in bad.stderr and bad.stdout == ""


def test_help_lists_every_command():
    text = works("--help")
    assert all(re.search(rf"^  {name} ", text, re.M) for name in COMMANDS)
    assert text == works()
    assert scoresde.__version__ in works("--version")


def test_examples_in_help_can_be_parsed():
    examples: list[list[str]] = []
    for args in ([], *([name] for name in COMMANDS)):
        lines = re.findall(r"^ +scoresde (.+?)(?:  .*)?$", works(*args, "--help"), re.M)
        assert len(lines) >= 3 or args == ["models"] or args == ["samplers"], args
        examples += [shlex.split(line) for line in lines]
    for example in examples:
        make_context(example)


def make_context(words: list[str]) -> None:
    """Read the words of a command line; raises what a user would see."""
    command = main.get_command(main.make_context("scoresde", ["models"]), words[0])
    assert command
    context = command.make_context(words[0], words[1:])
    if context.params.get("own"):
        name, own = context.params["sampler"], context.params["own"]
        name = name or INPAINTING[context.params["method"]].sampler
        given = options.read_options(name, own, options.flags_of(context))
        assert given.keys() <= options.option_kinds(SAMPLERS[name]).keys()


def test_the_options_in_help_are_those_of_some_sampler():
    known = {flag for name in SAMPLERS for flag in map(options.spell_flag, options.option_kinds(SAMPLERS[name]))}
    assert {usage.split()[0] for usage, _ in options.COMMON} <= known
    own = {flag for name in ("sample", "table") for flag in re.findall(r"--[\w-]+", flags_in_help(name))}
    assert not own & known  # a builder's option of the same name could never be reached


def flags_in_help(command: str) -> str:
    return "".join(re.findall(r"^  (--[^ ]+)", works(command, "--help").split("Options of some")[0], re.M))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_option_of_every_sampler_can_be_typed(name: str):
    """The default, written as a word, is read back as it was."""
    sampler = SAMPLERS[name]
    kinds = options.option_kinds(sampler)
    for adaptive in ([False] if sampler.build else []) + ([True] if sampler.adaptive else []):
        for option, default in sampler.options(adaptive).items():
            assert kinds[option], option
            if default is not None:
                flag, word = options.spell({option: default}).split()
                read = options.read_options(name, {flag: word}, [])[option]
                assert read == default and (isinstance(read, bool) == isinstance(default, bool))


def test_default_model_is_the_library_s():
    assert files.DEFAULT_MODEL == scoresde.model.DEFAULT


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def broken():
        raise RuntimeError("boom")

    monkeypatch.setattr(scoresde.model, "shipped", broken)
    result = run("models")
    assert result.exit_code == 1 and isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "x.npz"), 2),
        (MemoryError(), 2),
        (torch.OutOfMemoryError("CUDA out of memory"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_from_outside(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch):
    def broken():
        raise error

    monkeypatch.setattr(scoresde.model, "shipped", broken)
    fails(code, "models")


# --------------------------------------------------------------------------------------------------------------- sample


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


# ---------------------------------------------------------------------------------------------------------------- train


def write_config(**changes: object) -> str:
    path = "run.yaml"
    Path(path).write_text(json.dumps({**points_config(), **changes}))  # JSON is YAML
    return path


def test_train(here: Path):
    result = run("train", write_config(), "--out", "runs/a")
    assert result.exit_code == 0, result.stderr
    assert "moons, 64 x (2,)" in result.stdout and "scaled (standard)" in result.stdout
    assert re.search(r"^scaled.* 0  +1$", result.stdout, re.M)  # mean 0, standard deviation 1
    assert "warning" not in result.stdout and "scoresde sample --model runs/a" in result.stdout
    assert re.search(r"^step 3/3  loss .*samples/s", result.stderr)
    works("sample", "--model", "runs/a", "--num", 3, "--steps", 2)
    assert Path("samples/a-ode-2-seed0.png").is_file()
    assert "--resume" in fails(2, "train", "run.yaml", "--out", "runs/a")
    assert "another config" in fails(2, "train", "run.yaml", "--out", "runs/a", "--resume", "--steps", 4)
    works("train", "run.yaml", "--out", "runs/b", "--steps", 2)
    assert checkpoint.load_checkpoint("runs/b/checkpoint.safetensors")[1]["step"] == 2


def test_train_warns_of_odd_scales(here: Path):
    np.save("far.npy", np.random.default_rng(0).normal(50, 7, (64, 2)).astype(np.float32))
    text = works("train", write_config(data={"name": "far.npy", "scaler": "none"}), "--out", "a")
    assert "warning: the standard deviation after scaling is" in text


def test_interrupted_training_goes_on_exactly(monkeypatch: pytest.MonkeyPatch):
    write_config(train={"steps": 6, "batch_size": 16, "warmup": 1})
    works("train", "run.yaml", "--out", "whole")
    advance = Run.advance

    def interrupted(self: Run) -> dict[str, float]:
        if self.step == 3:
            signal.raise_signal(signal.SIGTERM)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "advance", interrupted)
        result = run("train", "run.yaml", "--out", "parts")
    assert result.exit_code == 130 and "Traceback" not in result.output
    assert "stopped after step 4" in result.stderr
    again = next(line for line in result.stderr.splitlines() if "--resume" in line)
    assert again.strip() == "scoresde train run.yaml --out parts --resume"
    works(*shlex.split(again)[1:])
    one, two = (checkpoint.load_checkpoint(f"{name}/checkpoint.safetensors") for name in ("whole", "parts"))
    assert one[1]["sha256"] == two[1]["sha256"] and two[1]["step"] == 6


def test_resume_of_nothing_starts():
    assert "starting at step 0" in works("train", write_config(), "--out", "a", "--resume")


def test_training_bar(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    result = run("train", write_config(), "--out", "a")
    assert result.exit_code == 0 and "3/3" in result.stderr and "samples/s" in result.stderr


def test_training_that_stops_itself(monkeypatch: pytest.MonkeyPatch, here: Path):
    write_config(train={"steps": 20, "batch_size": 16})
    monkeypatch.setattr(
        objective, "denoising_loss", lambda d, x0, t, noise, w, **cond: torch.nan * d.output(x0, t)[:, 0]
    )
    assert "ten steps in a row" in fails_last_line(4, "train", "run.yaml", "--out", "a")


def fails_last_line(code: int, *args: object) -> str:
    result = run(*args)
    assert result.exit_code == code and "Traceback" not in result.output, result.output
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"name": "moon"}}, "did you mean 'moons'?"),
        ({"data": {"name": "nowhere.csv"}}, "no such file"),
        ({"data": {"name": "bad.csv"}}, "line 2"),
        ({"data": {"name": "nan.npy"}}, "NaN"),
        ({"data": {"name": "cut.npz"}}, "cut.npz"),
        ({"netwrok": {}}, "did you mean 'network'?"),
        ({"network": {"name": "mpl"}}, "did you mean 'mlp'?"),
        ({"network": {"name": "mlp", "widht": 3}}, "did you mean 'width'?"),
        ({"sde": {"name": "vpp"}}, "did you mean 'vp'?"),
        ({"prediction": "epsilon"}, "did you mean 'eps'?"),
        ({"train": {"steps": 0}}, "train.steps = 0"),
        ({"train": {"stesp": 3}}, "did you mean 'steps'?"),
        ({"train": {"batch_size": 100}}, "larger than the data"),
    ],
)
def test_bad_configs(changes: dict[str, object], words: str, here: Path):
    Path("bad.csv").write_text("1,2\n3,x\n")
    np.save("nan.npy", np.full((64, 2), np.nan, np.float32))
    Path("cut.npz").write_bytes(b"PK\x03\x04 cut")
    line = fails_last_line(2, "train", write_config(**changes), "--out", "a")
    assert words in line and line.startswith("scoresde: error: ")
    assert not Path("a").exists()


def test_config_files(here: Path):
    assert "no such file" in fails(2, "train", "nowhere.yaml", "--out", "a")
    assert "did you mean 'fashion_mnist'?" in fails(2, "train", "fashion_mnits", "--out", "a")
    Path("bad.yaml").write_text("a: [1")
    assert "not YAML" in fails(2, "train", "bad.yaml", "--out", "a")
    assert "missing option '--out'" in fails(2, "train", "fashion_mnist")
    Path("file").write_text("")
    assert "cannot write into" in fails(5, "train", write_config(), "--out", "file/a")
    assert not Path("a").exists()


def test_every_shipped_config_can_be_read():
    from scoresde.config import load_config

    assert "fashion_mnist" in train_command.configs()
    for name, path in train_command.configs().items():
        assert train_command.find_config(name) == path
        load_config(path)


def test_no_space_while_training(monkeypatch: pytest.MonkeyPatch, here: Path):
    def full(path: object, content: bytes):
        raise OutputError(f"cannot write {str(path)!r}: No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    assert "No space left" in fails_last_line(5, "train", write_config(), "--out", "a")
    assert not Path("a").exists()


# ------------------------------------------------------------------------------------- models, samplers, table, inspect


def test_models(points: Path, images: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scoresde.model, "shipped", lambda: {})
    assert "no model is shipped" in works("models") and json.loads(works("models", "--json")) == []
    Path("tiny.safetensors").write_bytes(images.read_bytes())
    figures = {"floor": {"coverage": 1.0}, "ode-10": {"run": {"nfe": 37}, "classes": {"agreement": 0.9312, "k": 5}}}
    Path("tiny.json").write_text(json.dumps({"figures": figures}))
    monkeypatch.setattr(scoresde.model, "shipped", lambda: {"tiny": Path("tiny.safetensors")})
    header, row = works("models").splitlines()
    assert header.startswith("NAME") and row.startswith("tiny") and row.endswith("ode-10: agreement 0.931")
    assert "squares" in row and "vp" in row
    (fact,) = json.loads(works("models", "--json"))
    assert fact["name"] == "tiny" and fact["card"]["figures"] == figures


def test_shipped_models_can_be_listed():
    text = works("models")
    for name in scoresde.model.shipped():
        assert re.search(rf"^{name} ", text, re.M)
        works("inspect", name)
        assert max(map(len, text.splitlines())) <= 140


def test_samplers():
    text = works("samplers")
    assert all(re.search(rf"^{re.escape(name)} .*{re.escape(s.use)}$", text, re.M) for name, s in SAMPLERS.items())
    facts = {fact["name"]: fact for fact in json.loads(works("samplers", "--json"))}
    assert list(facts) == list(SAMPLERS) and facts["ddim"]["exact"] and facts["ddim"]["space"] == "x0"
    assert facts["ddim"]["options"] == {"eta": 0.0} and facts["ddpm"]["stochastic"] and facts["ode"]["order"] == 4
    assert facts["ode"]["adaptive_options"]["method"] == "dopri5"


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_sampler_in_full(name: str):
    text, sampler = works("samplers", name), SAMPLERS[name]
    assert text.startswith(f"{name}\n\n  ") and sampler.use in text and ">>>" not in text
    assert all(options.spell_flag(option) in text for option in options.option_kinds(sampler))
    example = text.splitlines()[-1].split(" scoresde ")[1]
    make_context(shlex.split(example))
    assert json.loads(works("samplers", name, "--json"))["use"] == sampler.use


def test_samplers_errors():
    assert "did you mean 'ddim'?" in fails(2, "samplers", "dimm")
    assert all("did you mean 'auto'?" in fails(2, command, "autoo") for command in ("samplers", "table"))
    assert "scoresde samplers ddim" in fails(2, "samplers", "ddim", "--aliases")


def test_table():
    text = works("table", "ddim", "--steps", 4)
    rows = text.splitlines()
    assert len(rows) == 7 and rows[0].startswith("ddim --eta 0.0 in x0 space under VPSDE(")
    assert rows[1].split() == ["row", "t", "t_next", "a", "b0"] and "4 network calls, order 1, no noise" in rows[-1]
    facts = json.loads(works("table", "eab3", "--steps", 8, "--grid", "karras", "--sde", "cosine", "--json"))
    build: Any = SAMPLERS["eab3"].build
    table = build(scoresde.CosineVPSDE(), tuple(facts["times"]))
    assert [row["b"] for row in facts["rows"]] == [list(row.b) for row in table.rows]
    assert facts["defect"] < 1e-12 and facts["order"] == 3 and facts["nfe"] == 8


@pytest.mark.parametrize("name", [name for name, s in SAMPLERS.items() if s.adaptive is None])
@pytest.mark.parametrize("sde", scoresde.SDES)
def test_tables_of_all(name: str, sde: str):
    assert "defect" in works("table", name, "--steps", 3, "--sde", sde)


def test_table_of_a_model(points: Path):
    assert works("table", "pc", "--steps", 3, "--model", points) == works("table", "pc", "--steps", 3)
    assert works("table", "em", "--sigmas", "3,1,0.1,0", "--sde", "edm").count("\n") == 6


def test_table_errors():
    assert "'ode' is not a table" in fails(2, "table", "ode", "--steps", 4)
    assert "did you mean 'cosine'?" in fails(2, "table", "ddim", "--sde", "cosin")
    assert "give one" in fails(2, "table", "ddim", "--sde", "vp", "--model", "x")
    assert "no option 'snr'" in fails(2, "table", "ddim", "--snr", "0.1")
    assert "missing argument 'SAMPLER'" in fails(2, "table")
    assert "did you mean --json" in fails(2, "table", "ddim", "--jsno")
    assert "name a sampler for this grid" in fails(2, "table", "auto", "--times", "1,0.5,0")


@pytest.mark.parametrize("grid, spec", [("ddim50", "ddim50"), ("respaced:10,10,10", "10,10,10"), ("respaced:7", "7")])
def test_table_of_a_respaced_chain(grid: str, spec: str):
    """Its times are those of the library's `respaced_times`, under a sampler of either default ending."""
    for sampler in ("ddpm", "dpm++2m"):
        facts = json.loads(works("table", sampler, "--sde", "ddpm", "--grid", grid, "--json"))
        times = scoresde.respaced_times(scoresde.SDES["ddpm"](), spec)
        assert facts["times"] == list(times) and facts["nfe"] == facts["steps"] == len(times) - 1
        assert facts["grid"] == grid and facts["final"] == "zero"
        assert works("table", sampler, "--sde", "ddpm", "--grid", grid, "--steps", len(times) - 1)
    for words, told in (
        (("--steps", 3), "steps, not 3: leave"),
        (("--nfe", 3), "give no nfe = 3"),
        (("--final", "t_min"), "final = 't_min': a respaced chain"),
        (("--start", 2), "an analytic start: a respaced chain"),
    ):
        assert told in fails(2, "table", "ddim", "--sde", "ddpm", "--grid", grid, *words)
    assert "VPSDE is none: use 'index'" in fails(2, "table", "ddim", "--grid", grid)
    assert "take 48 or 50" in fails(2, "table", "ddim", "--sde", "ddpm", "--grid", "ddim49")
    assert "did you mean 'respaced'" in fails(2, "table", "ddim", "--sde", "ddpm", "--grid", "respace:10")


def test_table_with_an_analytic_start():
    facts = json.loads(works("table", "ddim", "--steps", 3, "--start", 2, "--json"))
    lam = scoresde.VPSDE().knots([1.0, facts["times"][0]]).lam
    assert lam[1] - lam[0] == pytest.approx(2) and len(facts["times"]) == 4


def test_bench_measures_what_it_says():
    """More calls, less error; others are refused."""
    facts = json.loads(works("bench", "ddim", "pndm", "--json"))
    assert facts["calls"] == [5, 10, 20, 50] and [row["dimensions"] for row in facts["rows"]] == [2, 2, 16, 16]
    for row in facts["rows"]:
        errors = [error for error in row["errors"] if error is not None]
        assert errors == sorted(errors, reverse=True) and errors[-1] < 0.05
    assert "'ddpm' draws noise" in fails(2, "bench", "ddpm") and "'rk45'" in fails(2, "bench", "rk45")
    assert "did you mean 'unipc'" in fails(2, "bench", "unipcc")


def test_inspect(points: Path, images: Path):
    text = works("inspect", points / "checkpoint.safetensors")
    assert re.search(r"^step +3 of 3$", text, re.M)
    assert re.search(r"^sde +vp, t_min = 0.001 \(λ = 4.558\), t_max = 1 \(λ = -5.025\)$", text, re.M)
    assert re.search(r"^time +continuous, t in \[0.001, 1\], labels 0.001 to 1 \(t\)$", text, re.M)
    assert all(re.search(rf"^{group} .*sha256", text, re.M) for group in ("ema", "raw", "opt"))
    facts = json.loads(works("inspect", images, "--json"))
    assert facts["classes"] == list(CLASSES) and facts["event_shape"] == [1, 8, 8] and facts["prediction"] == "v"
    raw = checkpoint.group(checkpoint.load_checkpoint(images)[0], "raw")
    assert facts["weights"]["raw"]["sha256"] == checkpoint.digest(raw)


def test_inspect_says_which_index(tmp_path: Path):
    config = {**points_config(steps=1, times="index"), "time": "index", "sde": {"name": "ddpm", "N": 500}}
    train(parse_config(config), "chain")
    assert re.search(r"^time +discrete, N=500, labels 0..499$", works("inspect", "chain"), re.M)
    assert "no model 'nowhere'" in fails(2, "inspect", "nowhere")
