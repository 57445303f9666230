"""A run that was stopped, killed or cut goes on as if it had not been."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_train import KINDS, UNET, configured, made, not_finite, points, same, state

from scoresde import BadInput, TrainingStopped
from scoresde.checkpoint import load_checkpoint
from scoresde.data import Dataset, load
from scoresde.train import run as run_module
from scoresde.train import train
from scoresde.train.keep import CHECKPOINT, MODEL
from scoresde.train.log import read_log
from scoresde.train.run import Run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 7])
def test_a_resumed_run_is_the_uninterrupted_one(kind: str, k: int, tmp_path: Path) -> None:
    """2k steps = k steps, save, restore into a new run, k steps: the two files are equal, byte by byte."""
    whole, first, second = made(kind), made(kind), made(kind)
    for _ in range(k):
        first.advance()
    first.save(tmp_path / "half")
    second.restore(tmp_path / "half")
    assert second.step == k and same(state(first), state(second))
    for run, steps in ((whole, 2 * k), (second, k)):
        for _ in range(steps):
            run.advance()
    assert same(state(whole), state(second)) and not same(state(first), state(whole))
    whole.save(tmp_path / "whole")
    second.save(tmp_path / "parts")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_falls(kind: str) -> None:
    """On the same times and noise before and after forty steps, the minimised loss of the trained weights."""
    lr = 2e-4 if "init" in KINDS[kind][2] else 5e-3  # what has learned already moves in smaller steps
    run = made(kind, lr=lr, steps=60, batch_size=24, label_dropout=0.0)
    x0 = run.scaler.encode(run.data.x[:24])
    t, weight = run.objective.times.draw(24, torch.Generator().manual_seed(5))
    cond = {} if run.data.labels is None else {"y": run.data.labels[:24]}

    def loss() -> float:
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(6))
        run.network.eval()
        with torch.no_grad():
            probe = torch.randn(x0.shape, generator=torch.Generator().manual_seed(7))
            return float((weight * run.objective(x0, t, noise, probe, cond)[1]).mean())

    before = loss()
    for _ in range(40):
        run.advance()
    assert math.isfinite(before) and loss() < before and run.skipped == 0


def test_losses_are_told_by_noise_level() -> None:
    run = made("points")
    for _ in range(10):
        run.advance()
    means = run.by_level.read()
    assert len(means) == 8 and all(mean is None or mean > 0 for mean in means) and any(means)
    assert run.by_level.read() == [None] * 8
    run.by_level.add(torch.tensor([0.5, 1.0]), torch.tensor([math.nan, 2.0]))
    assert run.by_level.read() == [2.0, *[None] * 7]  # from noise to data


def told(folder: Path) -> list[dict]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "per_second"} for line in lines]


def cut(kind: str) -> None:
    """What ends a run: a signal, which saves, or what does not."""
    if kind == "crash":
        raise RuntimeError
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("kind", ["stop", "crash"])
@pytest.mark.parametrize("task", ["points", "classifier"])
def test_the_log_of_a_resumed_run_is_the_uninterrupted_ones(
    kind: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure of every line but the speed, wherever it was cut, skipped steps among them."""
    if task == "points":
        not_finite(monkeypatch, lambda step: step in (2, 5, 10), "loss", [])
    network, make, options = KINDS[task]
    config = configured(network, **{**options, "steps": 14, "log_every": 5, "checkpoint_every": 4})
    train(config, tmp_path / "whole", data=make())
    whole = told(tmp_path / "whole")
    assert [line["step"] for line in whole] == [5, 10, 14] and all(len(line["by_level"]) == 8 for line in whole)
    skipped = [each["step"] for line in whole for each in line.get("skipped_steps", [])]
    assert skipped == ([3, 6, 11] if task == "points" else [])
    for last in range(1, 14):
        out = tmp_path / str(last)
        with pytest.raises((RuntimeError, KeyboardInterrupt)):
            train(config, out, data=make(), report=lambda step, _, last=last: cut(kind) if step == last else None)
        train(config, out, resume=True, data=make())
        assert told(out) == whole
        assert (out / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_skipped_steps_are_in_the_log(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gradient's norm, and the time where the loss was not finite; also of the steps that end a run."""
    not_finite(monkeypatch, lambda step: step == 1 or step >= 6, kind, [])
    with pytest.raises(TrainingStopped):
        train(configured(steps=40, log_every=4), tmp_path)
    lines = told(tmp_path)
    assert [line["step"] for line in lines] == [4, 8, 12, 16]
    assert [line.get("skipped") for line in lines] == [1, 2, 4, 4]
    bad = [each for line in lines for each in line["skipped_steps"]]
    assert [each["step"] for each in bad] == [2, *range(7, 17)]
    for each in bad:
        assert each["gradient"] == "nan" and (each["t"] is None if kind == "gradient" else 0 <= each["t"] <= 1)
    assert ["loss" in line for line in lines] == [True, True, False, False]
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # JSON has no NaN


@pytest.mark.parametrize("cut", ['{"step": 12, "skipped_steps": [{"step": 11}', '{"step": 12', "", "\0\0"])
def test_a_line_that_was_cut_is_left_out(cut: str, tmp_path: Path) -> None:
    """Also just after a brace within it."""
    config = configured(steps=12, log_every=4, checkpoint_every=6)
    train(config, tmp_path)
    whole, path = told(tmp_path), tmp_path / "log.jsonl"
    path.write_text("\n".join([*path.read_text().splitlines()[:2], cut]))
    assert [line["step"] for line in read_log(tmp_path)] == [4, 8]
    (tmp_path / "checkpoint-1.safetensors").replace(tmp_path / CHECKPOINT)  # step 6
    train(config, tmp_path, resume=True)
    assert told(tmp_path) == whole


@pytest.mark.parametrize(
    "options, match",
    [
        ({"snapshots": 5}, r"train.snapshots = 5: .* averages like 'power:0.1'"),
        ({"objective": "hybrid"}, "of the steps of a chain: choose times 'index'"),
        ({"objective": "hybrid", "times": "index"}, "needs learned_variance: true"),
        ({"learned_variance": True}, "does not train it: choose 'hybrid' or 'vlb'"),
        ({"objective": "vlb", "times": "index", "weighting": "snr"}, "has its own weights"),
        ({"objective": "sliced", "uncertainty": True}, "may be negative"),
        ({"objective": "vlb", "times": "loss_aware"}, "of the steps of a chain"),
        ({"times": "indx"}, "did you mean 'index'"),
        ({"weighting": "p3"}, "did you mean 'p2'"),
    ],
)
def test_objectives_that_contradict_themselves(options: dict, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        Run(configured(**options), points())


def test_the_seed_decides_the_run() -> None:
    runs = [made("pictures", seed=seed) for seed in (0, 0, 1)]
    first = [state(run) for run in runs]
    for run in runs:
        for _ in range(3):
            run.advance()
    one, again, other = (state(run) for run in runs)
    assert same(first[0], first[1]) and same(one, again)
    assert not same(first[0], first[2]) and not same(one, other)


KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from scoresde.config import parse_config
from scoresde.train import train

torch.set_num_threads(1)
folder = Path(sys.argv[1])
config = parse_config({
    "data": {"name": "moons", "options": {"n": 64}},
    "network": {"name": "mlp", "width": 16, "depth": 1, "features": 8},
    "time": "t",
    "train": {"steps": 60, "batch_size": 16, "checkpoint_every": 10, "report": False},
})
train(config, folder / "whole")


def killed(when, delay, saving=False):
    # A child trains, slowly; it is killed `delay` seconds after it reported step `when`, or inside a save after that.
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        def report(step, figures):
            time.sleep(0.002)
            if step == when and saving:
                os.fsync = lambda file: (os.write(writer, b"."), time.sleep(60))
            elif step == when:
                os.write(writer, b".")

        train(config, folder / "parts", resume=True, report=report)
        os._exit(1)
    assert os.read(reader, 1) == b"."
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


killed(5, 0.0)
killed(13, 0.0)
killed(19, 0.003)
killed(23, 0.01, saving=True)
partial = list((folder / "parts").glob(".*.partial"))
assert len(partial) == 1, partial  # the save that was killed; the checkpoint before it is whole
killed(37, 0.007)
assert not partial[0].exists()  # removed by the run that went on
killed(44, 0.005)
steps = []
train(config, folder / "parts", resume=True, report=lambda step, figures: steps.append(step))
assert steps[0] in (41, 51) and steps[-1] == 60, steps
for name in ("checkpoint.safetensors", "model.safetensors"):
    assert (folder / "whole" / name).read_bytes() == (folder / "parts" / name).read_bytes()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_run_killed_again_and_again_is_the_uninterrupted_one(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=True)


@pytest.mark.parametrize("place", ["optimiser", "average", "save", "report"])
def test_ctrl_c_never_leaves_half_a_step(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal within the update waits for its end; the saved run goes on exactly."""
    config, before = configured(steps=8, checkpoint_every=3), signal.getsignal(signal.SIGINT)
    train(config, tmp_path / "whole")
    calls: list[int] = []

    def interrupted(function: Callable) -> Callable:
        def call(*args: object, **more: object) -> object:
            calls.append(1)
            if len(calls) == (5 if place != "save" else 1):
                signal.raise_signal(signal.SIGINT)
            return function(*args, **more)

        return call

    report = None
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if place == "report":
            report = interrupted(lambda step, figures: None)
        else:
            owner, name = {
                "optimiser": (torch.optim.AdamW, "step"),
                "average": (run_module.EMA, "update"),
                "save": (run_module, "save_checkpoint"),
            }[place]
            patch.setattr(owner, name, interrupted(getattr(owner, name)))
        train(config, tmp_path / "parts", report=report)
    assert load_checkpoint(tmp_path / "parts" / CHECKPOINT)[1]["step"] == (3 if place == "save" else 5)
    train(config, tmp_path / "parts", resume=True)
    for name in (CHECKPOINT, MODEL):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("every", [1, 2, 3, 4, 6, 100])
def test_a_stop_is_saved_at_its_step(every: int, number: signal.Signals, tmp_path: Path) -> None:
    """Whatever step it comes at, the last included: the checkpoint is of the step that is told, and goes on exactly."""
    config = configured(steps=6, checkpoint_every=every)
    train(config, tmp_path / "whole")
    for last in range(1, 7):
        out = tmp_path / str(last)
        with pytest.raises(KeyboardInterrupt) as stop:
            train(config, out, report=lambda step, _, last=last: signal.raise_signal(number) if step == last else None)
        assert stop.value.args == (last,) and load_checkpoint(out / CHECKPOINT)[1]["step"] == last
        train(config, out, resume=True)
        for name in (CHECKPOINT, MODEL):
            assert (tmp_path / "whole" / name).read_bytes() == (out / name).read_bytes()


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    config, out = configured(steps=4), tmp_path / "run"
    train(config, out)
    content = (out / CHECKPOINT).read_bytes()
    with pytest.raises(BadInput, match=r"checkpoint.safetensors' exists: pass --resume"):
        train(config, out)
    with pytest.raises(BadInput, match="was made with another config"):
        train(configured(steps=5), out, resume=True)
    with pytest.raises(BadInput, match="was made with another data"):
        train(config, out, resume=True, data=Dataset(load("moons", n=64).x + 1, name="moons"))
    assert (out / CHECKPOINT).read_bytes() == content
    train(config, out, resume=True)  # a finished run is only exported again
    assert (out / CHECKPOINT).read_bytes() == content
    (out / CHECKPOINT).write_bytes((out / MODEL).read_bytes())
    with pytest.raises(BadInput, match="cannot be continued"):
        train(config, out, resume=True)


def test_requests_that_cannot_be_met_leave_no_folder(tmp_path: Path) -> None:
    for config, message in (
        (configured(batch_size=65), r"batch_size 65 is larger than the data \(64 rows of moons\)"),
        (configured(flip=True), r"flip: only for images, the data have events of shape \(2,\)"),
        (configured(UNET), r"UNet: events of shape \(2,\) must be \(channels, length\) or \(channels, height, width\)"),
        (configured(prediction="epsilon"), "did you mean 'eps'"),
        (configured(time="1000 t"), "did you mean '1000t'"),
        (configured(data={"name": "moon"}), "did you mean 'moons'"),
    ):
        with pytest.raises(BadInput, match=message):
            train(config, tmp_path / "run")
        assert not list(tmp_path.iterdir())
