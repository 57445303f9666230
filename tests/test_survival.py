"""What may happen to a run: too little memory, damaged checkpoints, signals, other settings; and what is made of it."""

from __future__ import annotations

import html
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from scoresde import BadInput, OutputError, TrainingStopped, load_model
from scoresde.checkpoint import load_checkpoint
from scoresde.config import Config, parse_config
from scoresde.data import Dataset, load
from scoresde.train import preview as preview_module
from scoresde.train import run as run_module
from scoresde.train import train
from scoresde.train.keep import CHECKPOINT, MODEL
from scoresde.train.log import read_log
from scoresde.train.objective import Objective
from scoresde.train.posthoc import reconstruct
from scoresde.train.run import Run

MLP = {"name": "mlp", "width": 16, "depth": 1, "features": 8}


def configured(network: dict = MLP, **options: object) -> Config:
    options = {"steps": 12, "batch_size": 16, "warmup": 3, "ema": 0.9, "report": False, **options}
    return parse_config(
        {"data": {"name": "moons"}, "network": network, "time": "t", "prediction": "v", "train": options}
    )


def data(n: int = 64) -> Dataset:
    return load("moons", n=n)


def close(a: Run, b: Run) -> bool:
    pairs = zip(a.network.parameters(), b.network.parameters(), strict=True)
    return all((p - q).norm() <= 1e-5 * (1 + p.norm()) for p, q in pairs)


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("micro", [1, 3, 5, 8])
def test_a_batch_in_parts_is_the_batch(micro: int) -> None:
    whole, parts = Run(configured(), data()), Run(configured(micro_batch=micro), data())
    for _ in range(5):
        one, two = whole.advance(), parts.advance()
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
        assert one["gradient"] == pytest.approx(two["gradient"], rel=1e-4)
    assert close(whole, parts)


@pytest.mark.parametrize("room", [1, 3, 8])
def test_out_of_memory_halves_the_parts_and_says_so(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that takes ``room`` rows at a time: the same steps as one that takes all, in parts of at most that."""
    real, sizes = Objective.forward, []

    def forward(self: Objective, x0: Tensor, *args: object) -> object:
        if len(x0) > room:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(x0))
        return real(self, x0, *args)

    whole = Run(configured(), data())
    for _ in range(5):
        whole.advance()
    lines: list[str] = []
    monkeypatch.setattr(Objective, "forward", forward)
    tight = Run(configured(), data(), tell=lines.append)
    for _ in range(5):
        tight.advance()
    assert close(whole, tight) and max(sizes) <= room
    assert lines and lines[-1] == f"step 1: out of memory; batches of 16 now go in parts of {tight.micro}"


def test_a_device_without_room_for_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Objective, *args: object) -> object:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Objective, "forward", forward)
    with pytest.raises(torch.OutOfMemoryError):
        Run(configured(), data()).advance()


def test_three_averages_cost_three_times_the_weights() -> None:
    run = Run(configured(ema=["half_life:100", "half_life:1000", "power:0.1"]), data())
    size = sum(v.numel() * v.element_size() for v in run.network.state_dict().values())
    tensors = [v for average in run.ema.averages.values() for v in average.values()]
    held = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in tensors}
    assert sum(held.values()) == 3 * size


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("damage", ["cut", "altered", "empty", "gone"])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(damage: str, tmp_path: Path) -> None:
    config = configured(checkpoint_every=3)
    train(config, tmp_path / "whole", data=data())

    def stop(step: int, figures: object) -> None:
        if step == 8:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train(config, tmp_path / "run", data=data(), report=stop)
    path, before = tmp_path / "run" / CHECKPOINT, tmp_path / "run" / "checkpoint-1.safetensors"
    assert [load_checkpoint(each)[1]["step"] for each in (path, before)] == [6, 3]
    content = bytearray(path.read_bytes())
    if damage == "altered":
        content[-10] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(BadInput, match="pass --resume"):  # also where the newest is gone
        train(config, tmp_path / "run", data=data())
    steps: list[int] = []
    lines: list[str] = []
    train(config, tmp_path / "run", "auto", data=data(), report=lambda step, _: steps.append(step), tell=lines.append)
    assert steps[0] == 4 and ("continuing from" in "".join(lines)) == (damage != "gone")
    assert (tmp_path / "run" / MODEL).read_bytes() == (tmp_path / "whole" / MODEL).read_bytes()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("bad", [1, 2])
def test_a_save_that_fails_after_a_fallback_keeps_the_checkpoint_it_fell_back_to(
    bad: int, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many newer ones are damaged: at every moment of the saves that follow one that can be read is there."""
    config = configured(checkpoint_every=2, keep=3)
    whole = train(config, tmp_path / "whole", data=data()).read_bytes()
    train(config, tmp_path / "run", data=data())
    held = [tmp_path / "run" / name for name in (CHECKPOINT, "checkpoint-1.safetensors", "checkpoint-2.safetensors")]
    for path in held[:bad]:
        path.write_bytes(path.read_bytes()[:1000])
    (tmp_path / "run" / MODEL).unlink()
    resume = held[bad] if named else True

    def full(*given: object) -> None:
        raise OutputError("disk full")

    for _ in range(3):  # a disk that stays full
        with monkeypatch.context() as patch, pytest.raises(OutputError, match="disk full"):
            patch.setattr(run_module, "save_checkpoint", full)
            train(config, tmp_path / "run", resume, data=data())
        steps = [load_checkpoint(path)[1]["step"] for path in sorted((tmp_path / "run").glob("checkpoint*"))]
        assert steps and set(steps) == {12 - 2 * k for k in range(bad, 3)}
        resume = True
    assert train(config, tmp_path / "run", True, data=data()).read_bytes() == whole


def test_only_damaged_checkpoints(tmp_path: Path) -> None:
    train(configured(checkpoint_every=3), tmp_path, data=data())
    for path in tmp_path.glob("checkpoint*"):
        path.write_bytes(b"no")
    with pytest.raises(BadInput, match=r"none of the 2 checkpoints in .* can be read"):
        train(configured(checkpoint_every=3), tmp_path, "auto", data=data())


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_few_are_kept(keep: int, tmp_path: Path) -> None:
    train(configured(checkpoint_every=2, keep=keep), tmp_path, data=data())
    names = [CHECKPOINT, *(f"checkpoint-{back}.safetensors" for back in range(1, keep))]
    assert {path.name for path in tmp_path.glob("checkpoint*")} == set(names)
    assert [load_checkpoint(tmp_path / name)[1]["step"] for name in names] == [12, 10, 8, 6][:keep]
    train(configured(checkpoint_every=2, keep=1), tmp_path, "auto", data=data())  # and fewer, if fewer are asked for
    assert [path.name for path in tmp_path.glob("checkpoint*")] == [CHECKPOINT]


def test_a_named_checkpoint_is_continued(tmp_path: Path) -> None:
    path = train(configured(checkpoint_every=4, keep=3), tmp_path, data=data())
    content, steps = path.read_bytes(), []
    older = tmp_path / "checkpoint-2.safetensors"
    train(
        configured(checkpoint_every=4, keep=3), tmp_path, older, data=data(), report=lambda step, _: steps.append(step)
    )
    assert steps[0] == 5 and path.read_bytes() == content
    with pytest.raises(BadInput, match="no such file"):
        train(configured(), tmp_path, tmp_path / "none", data=data())


@pytest.mark.parametrize("other", [{"lr": 2e-3}, {"steps": 9}, {"seed": 1}, "damaged", {}], ids=str)
def test_a_named_checkpoint_is_not_continued_over_another_run(other: dict | str, tmp_path: Path) -> None:
    """Nothing in the folder of the other run changes; one of the same run, or an empty one, is gone on in."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    model = train(configured(), mine, data=data()).read_bytes()
    train(configured(**(other if isinstance(other, dict) else {})), theirs, data=data())
    if other == "damaged":
        (theirs / CHECKPOINT).write_bytes(b"no")
    before = {path: path.read_bytes() for path in theirs.iterdir()}
    if other:
        with pytest.raises(BadInput, match=r"theirs.*(made with another config: choose another --out|can be read)"):
            train(configured(), theirs, mine / CHECKPOINT, data=data())
        assert {path: path.read_bytes() for path in theirs.iterdir()} == before
    else:
        assert train(configured(), theirs, mine / CHECKPOINT, data=data()).read_bytes() == model
    assert train(configured(), tmp_path / "empty", mine / CHECKPOINT, data=data()).read_bytes() == model


def test_what_decides_no_weight_may_change(tmp_path: Path) -> None:
    train(configured(checkpoint_every=5), tmp_path, data=data())
    train(configured(checkpoint_every=3, log_every=2, keep=3, workers=0), tmp_path, True, data=data())
    for options in ({"lr": 2e-3}, {"ema": 0.8}, {"seed": 1}, {"batch_size": 8}):
        with pytest.raises(BadInput, match="another config"):
            train(configured(**options), tmp_path, True, data=data())


# -------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_ends_a_process_with_a_whole_checkpoint(workers: int, number: signal.Signals, tmp_path: Path) -> None:
    """Also where all processes of a group get it, as by Ctrl-C, `timeout` or a cluster, those that read data too."""
    config = {**configured().model_dump(mode="json")}
    config["train"] |= {"steps": 10**6, "checkpoint_every": 10**6, "decay": "none", "workers": workers}
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "scoresde", "train", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stderr=pipe, stdout=pipe, text=True, start_new_session=True)
    log = tmp_path / "run" / "log.jsonl"
    while not log.is_file() and child.poll() is None:
        time.sleep(0.05)
    os.killpg(child.pid, number)
    _, told = child.communicate(timeout=60)
    assert child.returncode == 130 and "--resume" in told and "Traceback" not in told
    step = load_checkpoint(tmp_path / "run" / CHECKPOINT)[1]["step"]
    assert step >= 50 and f"stopped after step {step}, saved" in told
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


def test_a_lost_worker_ends_a_run_with_a_whole_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the step before the one it was to read for, from which the run goes on; no handler of torch's is left."""
    whole = train(configured(), tmp_path / "whole", data=data()).read_bytes()
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))  # seconds, 5 otherwise

    def kill(step: int, figures: object) -> None:
        if step == 5:
            for worker in multiprocessing.active_children():
                assert worker.pid
                os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(TrainingStopped, match=r"reads data was killed.*fewer train\.workers") as caught:
        train(configured(workers=1), tmp_path / "run", data=data(), report=kill)
    assert "\n" not in str(caught.value) and not multiprocessing.active_children()
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    assert 5 <= load_checkpoint(tmp_path / "run" / CHECKPOINT)[1]["step"] <= 7  # two batches are read ahead
    assert train(configured(), tmp_path / "run", True, data=data()).read_bytes() == whole


def test_what_killed_saves_left_is_removed(tmp_path: Path) -> None:
    """Of processes that are no more, or had our own number; not of one that lives, nor what is not ours."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "snapshots").mkdir()
    stays = [f".checkpoint.safetensors.{os.getppid()}.partial", ".mine.partial", "notes.partial"]
    goes = [f".checkpoint.safetensors.{pid}.partial" for pid in (gone.pid, os.getpid())]
    for name in (*stays, *goes, f"snapshots/.0.safetensors.{gone.pid}.partial"):
        (tmp_path / name).write_bytes(b"half")
    train(configured(), tmp_path, data=data())
    assert {path.name for path in tmp_path.rglob("*.partial")} == set(stays)


def test_a_second_signal_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(run: Run) -> dict[str, float]:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(Run, "advance", stuck)
    with pytest.raises(KeyboardInterrupt):
        train(configured(), tmp_path, data=data())
    assert not (tmp_path / CHECKPOINT).exists()


# ------------------------------------------------------------------------------------------- beginnings and averages


def test_a_run_may_start_from_a_model(tmp_path: Path) -> None:
    """Its weights are the model's; at a rate of zero they stay so, and the model is equal."""
    first = train(configured(), tmp_path / "first", data=data())
    run = Run(configured(init=str(first)), data())
    saved = load_checkpoint(first)[0]
    assert all(torch.equal(v, saved[f"ema/{k}"].float()) for k, v in run.network.state_dict().items())
    assert all(torch.equal(v, run.network.state_dict()[k]) for k, v in run.ema.weights.items())
    with pytest.raises(BadInput, match=r"is of another network: first.weight is \(16, 18\) there, \(24, 18\) here"):
        Run(configured({**MLP, "width": 24}, init=str(first)), data())
    with pytest.raises(BadInput, match="no model 'nothing'"):
        Run(configured(init="nothing"), data())


def test_each_average_can_be_loaded(tmp_path: Path) -> None:
    model = train(configured(ema=[0.5, "power:0.1"]), tmp_path, data=data())
    tensors = load_checkpoint(tmp_path / CHECKPOINT)[0]
    for weights, group in (("ema", "ema"), ("decay:0.5", "ema"), ("power:0.1", "power:0.1"), ("raw", "raw")):
        network = load_model(tmp_path / CHECKPOINT, weights).denoiser.network
        assert isinstance(network, torch.nn.Module)
        assert all(torch.equal(v, tensors[f"{group}/{k}"]) for k, v in network.state_dict().items())
    with pytest.raises(BadInput, match=r"did you mean 'power:0.1'"):
        load_model(tmp_path / CHECKPOINT, "power:0.2")
    with pytest.raises(BadInput, match="holds no 'raw' weights"):
        load_model(model, "raw")


def test_a_width_that_was_trained_is_made_again(tmp_path: Path) -> None:
    """From the snapshots, exactly; one between two that were trained lies near its own average."""
    options = {"steps": 60, "snapshots": 5, "lr": 1e-2}
    train(configured(ema=["power:0.05", "power:0.1"], **options), tmp_path / "two", data=data())
    train(configured(ema="power:0.075", **options), tmp_path / "own", data=data())
    tensors = load_checkpoint(tmp_path / "two" / CHECKPOINT)[0]
    wanted = {0.05: tensors, 0.1: tensors, 0.075: load_checkpoint(tmp_path / "own" / CHECKPOINT)[0]}
    for width, group in ((0.05, "ema"), (0.1, "power:0.1"), (0.075, "ema")):
        path = reconstruct(tmp_path / "two", width, tmp_path / f"{width}.safetensors")
        found, info = load_checkpoint(path)
        assert info["step"] == 60 and load_model(path).info["averages"] == [f"power:{width}"]
        keys = [k for k in found if k.startswith("ema/")]
        near, exact, other = (
            torch.cat([source[k.replace("ema/", f"{name}/", 1)].flatten() for k in keys])
            for source, name in ((found, "ema"), (wanted[width], group), (tensors, "power:0.1"))
        )
        gap = torch.cat([tensors[k].flatten() for k in keys]) - other  # of the two that were trained
        assert (near - exact).norm() < (1e-6 * exact.norm() if width != 0.075 else 0.05 * gap.norm())
    with pytest.raises(BadInput, match="has no snapshots"):
        reconstruct(tmp_path, 0.1, tmp_path / "x")
    with pytest.raises(BadInput, match="relative width"):
        reconstruct(tmp_path / "two", 0.4, tmp_path / "x")
    for step, near in ((2, 5), (59, 60), (100_000, 60), (18, 20)):
        with pytest.raises(BadInput, match=f"step = {step}: .*12 snapshots, of steps 5 to 60, .* nearest is {near}$"):
            reconstruct(tmp_path / "two", 0.1, tmp_path / "x", step=step)
    assert not (tmp_path / "x").exists()
    assert load_checkpoint(reconstruct(tmp_path / "two", 0.1, tmp_path / "x", step=20))[1]["step"] == 20


# ------------------------------------------------------------------------------------------------------------ live view


def test_pictures_do_not_disturb_the_run(tmp_path: Path) -> None:
    plain = train(configured(), tmp_path / "plain", data=data())
    seen = train(configured(sample_every=4, report=True), tmp_path / "seen", data=data())
    one, two = (load_checkpoint(each)[0] for each in (plain, seen))
    assert all(torch.equal(one[key], two[key]) for key in one)
    drawn = sorted(path.name for path in (tmp_path / "seen" / "samples").iterdir())
    assert drawn == [f"step-{step:07d}.png" for step in (4, 8, 12)]
    page = (tmp_path / "seen" / "report.html").read_text()
    for wanted in ("Loss by noise level", "data:image/png;base64,", 'role="img"', "moons", "light dark"):
        assert wanted in page
    assert not re.search(r"(src|href)=.http", page)  # nothing to fetch


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory\nmore"),
        MemoryError(),
        RuntimeError("[enforce fail] can't allocate memory"),
        3e38,
    ],
    ids=str,
)
def test_a_picture_that_cannot_be_drawn_is_told(
    error: Exception | float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the run goes on, with its own weights."""
    plain = train(configured(), tmp_path / "plain", data=data()).read_bytes()

    def fail(denoiser: object, shape: tuple[int, ...], *args: object, **how: object) -> SimpleNamespace:
        if isinstance(error, Exception):
            raise error
        return SimpleNamespace(x=torch.full(shape, error))

    monkeypatch.setattr(preview_module, "sample", fail)
    lines: list[str] = []
    out = train(configured(sample_every=6, report=True), tmp_path / "run", data=data(), tell=lines.append)
    assert [line.split(" (")[0] for line in lines] == [f"step {k}: no samples could be drawn" for k in (6, 12, 12)]
    assert not any("\n" in line or line.endswith("()") for line in lines)
    assert torch.equal(*(load_checkpoint(path)[0]["ema/first.weight"] for path in (out, tmp_path / "plain" / MODEL)))
    assert plain and (tmp_path / "run" / "report.html").is_file() and not (tmp_path / "run" / "samples").exists()


def test_a_fault_of_the_drawing_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **how: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(preview_module, "sample", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(configured(sample_every=6), tmp_path, data=data())


def test_the_report_tells_every_setting(tmp_path: Path) -> None:
    """Of every section the keys with their values: data options, scaler, task and the rest."""
    config = configured(report=True, steps=2)
    where = {"name": "moons", "split": "train", "scaler": "unit", "options": {"n": 64, "noise": 0.07}}
    config = config.model_copy(update={"data": config.data.model_copy(update=where)})
    train(config, tmp_path, data=data())
    page = html.unescape((tmp_path / "report.html").read_text())
    rows = dict(re.findall(r"<tr><td>(.*?)</td><td><code>(.*?)</code></td></tr>", page))
    for key, value in config.model_dump(mode="json").items():
        for name, each in value.items() if isinstance(value, dict) else [("", value)]:
            assert (f"{name}: " if name else "") + json.dumps(each) in rows[key]


def test_trackers_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scoresde.train.engine import Engine

    told: list[tuple[int, dict]] = []
    monkeypatch.setattr(Engine, "track", lambda self, figures, step: told.append((step, figures)))
    train(configured(log_every=4), tmp_path, data=data())
    assert [step for step, _ in told] == [4, 8, 12]
    assert all({"loss", "gradient", "per_second", "lr"} <= figures.keys() for _, figures in told)
    for (_, figures), line in zip(told, read_log(tmp_path), strict=True):
        levels = {f"by_level/{i}": mean for i, mean in enumerate(line["by_level"]) if mean is not None}
        assert levels and levels == {name: v for name, v in figures.items() if name.startswith("by_level")}
        assert all(isinstance(v, int | float) for v in figures.values())


def test_tensorboard_shows_the_log(tmp_path: Path) -> None:
    """Every figure of every line, at its step, and the pictures."""
    from tensorboard.backend.event_processing import event_accumulator as events

    train(configured(log_every=4, sample_every=6, trackers=["tensorboard"]), tmp_path, data=data())
    shown = events.EventAccumulator(str(tmp_path / "scoresde")).Reload()
    assert [each.step for each in shown.Images("samples")] == [6, 12]
    for name in ("loss", "gradient", "per_second", "lr"):
        wanted = [(line["step"], pytest.approx(line[name])) for line in read_log(tmp_path)]
        assert [(each.step, each.value) for each in shown.Scalars(name)] == wanted
    for part in range(8):
        told = [(line["step"], line["by_level"][part]) for line in read_log(tmp_path)]
        wanted = [(step, pytest.approx(mean)) for step, mean in told if mean is not None]
        assert [(each.step, each.value) for each in shown.Scalars(f"by_level/{part}")] == wanted
