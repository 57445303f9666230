"""Several processes make the run that one makes: a global batch, each rank its rows, weights equal everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scoresde import BadInput
from scoresde.config import parse_config
from scoresde.data import load
from scoresde.train.engine import Engine
from scoresde.train.run import Run

SCRIPT = """
import os
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from scoresde.config import parse_config
from scoresde.data import load
from scoresde.train.run import Run

config = parse_config({config})
whole = lambda values: {{k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in values.items()}}
runs, seen = [], []
for again in range(2):
    run = Run(config, load("moons", n=64), "cpu")
    run.objective.register_forward_pre_hook(lambda module, args: seen.append((args[0], args[1], args[2])))
    for _ in range(20):
        run.advance()
    runs.append(run)
rank, world = runs[0].engine.rank, runs[0].engine.world
assert world == 2
state = lambda run: {{
    **{{"raw/" + k: v for k, v in whole(run.network.state_dict()).items()}},
    **{{"ema/" + k: v for k, v in whole(run.ema.weights).items()}},
    **{{"objective/" + k: v for k, v in run.objective.state().items()}},
}}
held = sum(getattr(p, "to_local", lambda: p)().numel() for p in runs[0].network.state_dict().values())
held += sum(getattr(v, "to_local", lambda: v)().numel() for v in runs[0].ema.weights.values())
runs[0].save(Path(sys.argv[1] + "-saved"))
runs[0].engine.wait()
first, again, seen = state(runs[0]), state(runs[1]), seen[: len(seen) // 2]
runs[1].restore(Path(sys.argv[1] + "-saved"))
assert all(map(torch.equal, state(runs[1]).values(), first.values()))
kept = whole({{f"{{i}}/{{k}}": v for i, e in runs[1].optimiser.state_dict()["state"].items() for k, v in e.items()}})
found = {{"held": held, "kept": kept, "first": first, "again": again, "seen": seen, "levels": run.by_level.total}}
torch.save(found, sys.argv[1] + str(rank))
torch.distributed.destroy_process_group()
os._exit(0)  # gloo's threads, if they outlive the interpreter's end, abort the process
"""
CONFIG: dict[str, Any] = {
    "data": {"name": "moons"},
    "network": {"name": "mlp", "width": 16, "depth": 1, "features": 8},
    "time": "t",
    "prediction": "v",
    "train": {
        "steps": 20,
        "batch_size": 16,
        "micro_batch": 4,
        "warmup": 3,
        "ema": 0.9,
        "lr": 1e-3,
        "uncertainty": True,
    },
}


def configured(**train: Any) -> dict[str, Any]:
    return {**CONFIG, "train": {**CONFIG["train"], **train}}


@pytest.fixture(scope="module", params=[False, True], ids=["whole", "in shards"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two processes had after the run, made twice: by DDP, and by FSDP."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "script.py").write_text(SCRIPT.format(config=configured(shard=request.param)))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    launch += ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", str(folder / "script.py"), str(folder / "rank")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = [torch.load(folder / f"rank{rank}", weights_only=True) for rank in range(2)]
    return [{**each, "shard": request.param, "saved": str(folder / "rank-saved")} for each in found]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_ranks_are_given_different_rows_times_and_noise(ranks: list[dict]) -> None:
    for (x0, t, noise), (other_x0, other_t, other_noise) in zip(ranks[0]["seen"], ranks[1]["seen"], strict=True):
        assert len(x0) == len(other_x0) == 4
        assert not any((each == other_x0).all(1).any() for each in x0)
        assert not any((each == other_noise).all(1).any() for each in noise)
        assert not torch.isin(t, other_t).any()


def test_ranks_hold_the_same_weights_and_repeat_them(ranks: list[dict]) -> None:
    assert equal(ranks[0]["first"], ranks[1]["first"]) and torch.equal(ranks[0]["levels"], ranks[1]["levels"])
    assert equal(ranks[0]["first"], ranks[0]["again"])


def test_two_processes_follow_one(ranks: list[dict]) -> None:
    """2 x 8 rows, in parts of 4, are 1 x 16: weights, average and learned uncertainty to 1e-5."""
    config = parse_config(CONFIG)
    run = Run(
        config.model_copy(update={"train": config.train.model_copy(update={"micro_batch": None})}), load("moons", n=64)
    )
    for _ in range(20):
        run.advance()
    own = {f"raw/{k}": v for k, v in run.network.state_dict().items()}
    own |= {f"ema/{k}": v for k, v in run.ema.weights.items()}
    own |= {f"objective/{k}": v for k, v in run.objective.state().items()}
    theirs = ranks[0]["first"]
    assert own.keys() == theirs.keys()
    for key, value in own.items():
        assert (value - theirs[key]).norm() <= 1e-5 * value.norm(), key


def test_shards_are_parts(ranks: list[dict]) -> None:
    """Each of two processes holds half of the weights and averages, but for what does not divide."""
    parameters = sum(value.numel() for key, value in ranks[0]["first"].items() if key.startswith("raw/"))
    average = sum(value.numel() for key, value in ranks[0]["first"].items() if key.startswith("ema/"))
    share = ranks[0]["held"] / (parameters + average)
    assert share == 1 if not ranks[0]["shard"] else share < 0.55


def test_a_checkpoint_is_whole_and_goes_on_anywhere(ranks: list[dict]) -> None:
    """What two processes saved, in shards or not, one continues: weights, average, optimiser, what is learned beside.
    The two took it back themselves before."""
    run, found = Run(parse_config(CONFIG), load("moons", n=64)), ranks[0]["first"]
    run.restore(Path(ranks[0]["saved"]))
    own = {f"raw/{k}": v for k, v in run.network.state_dict().items()}
    own |= {f"ema/{k}": v for k, v in run.ema.weights.items()}
    own |= {f"objective/{k}": v for k, v in run.objective.state().items()}
    assert run.step == 20 and equal(own, found)
    state = run.optimiser.state_dict()["state"]
    kept = {f"{i}/{key}": value for i, entry in state.items() for key, value in entry.items()}
    assert equal(kept, ranks[0]["kept"]) and any(float(v.abs().max()) > 0 for k, v in kept.items() if "exp" in k)
    run.advance()
    assert run.step == 21 and run.skipped == 0


SHARDED = """
import os
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
from scoresde.nn import UNet
from scoresde.train.shards import shard, whole

rank = Accelerator(cpu=True).process_index
networks = []
for _ in range(2):
    torch.manual_seed(0)
    network = UNet((2, 8, 8), channels=8, multipliers=(1, 2), blocks=1, heads=1, classes=3)
    networks.append(network.to(memory_format=torch.channels_last))
shard(networks[0], torch.device("cpu"), 2)
x, t, y = torch.randn(4, 2, 8, 8), torch.rand(4), torch.tensor([0, 1, 2, 3])
part = slice(2 * rank, 2 * rank + 2)
networks[0](x[part], t[part], y=y[part]).square().mean().backward()
networks[1](x, t, y=y).square().mean().backward()
for (name, ours), theirs in zip(networks[0].named_parameters(), networks[1].parameters(), strict=True):
    assert torch.allclose(whole(ours.grad), theirs.grad, rtol=1e-4, atol=1e-7), name
torch.distributed.barrier()
torch.distributed.destroy_process_group()
os._exit(0)  # gloo's threads, if they outlive the interpreter's end, abort the process
"""


def test_a_network_of_convolutions_in_shards_has_the_same_gradients(tmp_path: Path) -> None:
    """Also from the memory format that GPUs get."""
    (tmp_path / "script.py").write_text(SHARDED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d"]
    launch += ["--rdzv_endpoint=localhost:0", str(tmp_path / "script.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_batch_must_be_shared_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "world", property(lambda self: 3))
    with pytest.raises(BadInput, match="batch_size 16 must be a multiple of the number of processes, 3"):
        Run(parse_config(CONFIG), load("moons", n=64))


def test_one_process_has_the_whole_batch() -> None:
    engine = Engine("cpu")
    x = torch.arange(3)
    assert engine.share(7) == slice(0, 7) and engine.main and engine.gather(x) is x and engine.any(True)


@pytest.mark.parametrize("name, match", [("tensorbord", "did you mean 'tensorboard'"), ("wandb", "pip install wandb")])
def test_trackers_that_cannot_be_had(name: str, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(BadInput, match=match):
        Engine("cpu", trackers=[name])


@pytest.mark.parametrize("shard", [False, True], ids=["whole", "in shards"])
def test_launched_by_the_command_line(shard: bool, tmp_path: Path) -> None:
    """Only one process tells and writes; a run of two, by torchrun or accelerate, is continued by two."""
    pictures = {"ema": [0.9, "power:0.1"], "snapshots": 10, "sample_every": 10} if shard else {}
    config = configured(checkpoint_every=5, report=False, shard=shard, **pictures)
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d"]
    launch += ["--rdzv_endpoint=localhost:0"]
    if not shard:
        launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu"]
        launch += ["--num_processes=2", "--main_process_port=0", "--tee=3", "--log_dir=logs"]
    launch += ["-m", "scoresde", "train", "c.yaml", "--out", "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}  # no settings of accelerate
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("model: run") == 1
    names = {path.name for path in (tmp_path / "run").iterdir()}
    always = {"checkpoint.safetensors", "checkpoint-1.safetensors", "model.safetensors", "log.jsonl"}
    assert names == always | ({"samples", "snapshots"} if shard else set[str]())
    if not shard:
        assert {path.parent.name for path in (tmp_path / "logs").rglob("stdout.log")} == {"0", "1"}
        return
    assert [len(list((tmp_path / "run" / name).iterdir())) for name in ("samples", "snapshots")] == [2, 2]
    model, checkpoint = (tmp_path / "run" / name for name in ("model.safetensors", "checkpoint.safetensors"))
    before = model.read_bytes()
    checkpoint.with_stem("checkpoint-1").replace(checkpoint)  # step 15
    model.unlink()
    done = subprocess.run(
        [*launch, "--resume"], env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert model.read_bytes() == before
