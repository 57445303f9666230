"""`scoresde train`: configs, bars, interruptions, and what it says."""

from __future__ import annotations

import inspect
import json
import math
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import fails, points_config, run, works

from scoresde import checkpoint
from scoresde.cli import progress
from scoresde.cli import train as train_command
from scoresde.config import Train
from scoresde.errors import OutputError
from scoresde.nn import UNet
from scoresde.train import objective
from scoresde.train.run import Run

pytestmark = pytest.mark.usefixtures("here")


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


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("last", [4, 6])
def test_what_is_said_of_a_stop_is_so(last: int, signals: int, monkeypatch: pytest.MonkeyPatch):
    """After a first signal, also in the last step, the step that is told is saved; after a second none is told."""
    write_config(train={"steps": 6, "batch_size": 16, "warmup": 1, "checkpoint_every": 2})
    advance = Run.advance

    def interrupted(self: Run) -> dict[str, float]:
        for _ in range(signals if self.step == last - 1 else 0):
            signal.raise_signal(signal.SIGTERM)
        return advance(self)

    monkeypatch.setattr(Run, "advance", interrupted)
    result = run("train", "run.yaml", "--out", "a")
    assert result.exit_code == 130 and "scoresde train run.yaml --out a --resume" in result.stderr
    said = re.search(r"stopped (after step (\d+), saved|at once, last saved) in a/checkpoint", result.stderr)
    saved = checkpoint.load_checkpoint("a/checkpoint.safetensors")[1]["step"]
    assert said and said[2] == (str(last) if signals == 1 else None) and saved == (last if signals == 1 else last - 2)


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


def test_out_of_memory_names_what_a_config_has(monkeypatch: pytest.MonkeyPatch):
    """Keys, each of them known, and no option that the command lacks."""

    def full(*given: object, **cond: object):
        raise torch.OutOfMemoryError("tried to allocate 1 TiB")

    monkeypatch.setattr(objective, "denoising_loss", full)
    line = fails_last_line(2, "train", write_config(), "--out", "a")
    assert line.startswith("scoresde: error: out of memory: in the config, use ") and "--" not in line
    assert "checkpoint" in inspect.signature(UNet).parameters and "network.checkpoint: true" in line
    assert "batch_size" in Train.model_fields and "train.batch_size" in line


def test_resume_of_nothing_starts():
    assert "starting at step 0" in works("train", write_config(), "--out", "a", "--resume")


def test_training_bar(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    result = run("train", write_config(), "--out", "a")
    assert result.exit_code == 0 and "3/3" in result.stderr and "samples/s" in result.stderr


def test_a_skipped_step_is_left_out_of_the_bar(monkeypatch: pytest.MonkeyPatch):
    """Not for that step alone: the means after it are of those that are finite."""
    texts: list[str] = []

    @contextmanager
    def bar(*args: object):
        yield lambda line="", text="", **fields: texts.append(text)

    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    monkeypatch.setattr(progress, "_bar", bar)
    meter = progress.TrainingMeter(500)
    with meter.watch() as report:
        for step in range(1, 501):
            loss = math.nan if step in (1, 7, 300) else 2.0
            report(step, {"loss": loss, "gradient": math.inf if step == 8 else 1.0, "per_second": 10.0})
    assert texts[0] == "no finite step yet"
    assert set(texts[1:]) == {"loss 2.0000  gradient 1  10 samples/s"}


def test_a_run_outlives_those_who_read_its_output(here: Path):
    """A pipe that is closed after the first line, as by `2>&1 | head -1`; and no stderr at all."""
    write_config(train={"steps": 300, "batch_size": 16, "warmup": 1})
    command = [sys.executable, "-m", "scoresde", "train", "run.yaml", "--out"]
    child = subprocess.Popen([*command, "a"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert child.stdout and child.stdout.readline().startswith(b"data: moons")
    child.stdout.close()
    assert child.wait(60) == 0
    shell = " ".join([*map(shlex.quote, command), "b", "--steps", "2", "2>&-"])
    assert subprocess.run(shell, shell=True, check=False, stdout=subprocess.DEVNULL).returncode == 0
    for name, step in (("a", 300), ("b", 2)):
        assert checkpoint.load_checkpoint(f"{name}/checkpoint.safetensors")[1]["step"] == step
        assert Path(name, "model.safetensors").is_file()


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
