"""Averages made after the run: of any width, from the snapshots of its power-function averages (Karras et al. 2024)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from scoresde.checkpoint import group, halved, load_checkpoint, prefixed, save_checkpoint
from scoresde.errors import BadInput
from scoresde.train.ema import mixture
from scoresde.train.keep import CHECKPOINT, make
from scoresde.train.run import Run
from scoresde.train.shards import gathered

FOLDER = "snapshots"


def save_snapshot(run: Run, out: Path) -> None:
    """Keep the run's averages at this step, the large tensors in half precision; one process writes."""
    if not (run.engine.main or run.engine.sharded):
        return
    tensors: dict[str, Tensor] = {}
    for name, mean in run.ema.averages.items():
        tensors |= prefixed(name, halved(gathered(mean, run.engine.main)))
    if run.engine.main:
        make(out / FOLDER)
        facts = {"step": run.step, "averages": list(run.ema.averages)}
        save_checkpoint(out / FOLDER / f"{run.step:09d}.safetensors", tensors, facts)


def reconstruct(run: str | Path, sigma_rel: float, out: str | Path, step: int | None = None) -> Path:
    """Write a model whose average has the relative width ``sigma_rel`` at ``step`` (by default at the last snapshot).

    It is the sum of snapshots whose profile over the run is nearest to the one asked for, in L² (Karras et al. 2024,
    appendix C.2). ``run`` is the folder of a run with ``snapshots`` and at least one average "power:WIDTH".
    """
    folder = Path(run)
    paths = sorted((folder / FOLDER).glob("*.safetensors"))
    if not paths:
        raise BadInput(f"{str(folder)!r} has no snapshots: train with train.snapshots and an average like 'power:0.1'")
    held: list[tuple[Path, str, float, int]] = []
    for path in paths:
        _, info = load_checkpoint(path)
        names = [name for name in info["averages"] if name.startswith("power:")]
        held += [(path, name, float(name.removeprefix("power:")), info["step"]) for name in names]
    steps = sorted({at for *_, at in held})
    if not steps:
        raise BadInput(f"{str(folder)!r} has snapshots, but of no average like 'power:0.1'")
    step = steps[-1] if step is None else step
    if step not in steps:
        near = min(steps, key=lambda at: abs(at - step))
        raise BadInput(
            f"step = {step}: {str(folder)!r} has {len(steps)} snapshots, of steps {steps[0]} to {steps[-1]},"
            f" and none of that one: the nearest is {near}"
        )
    held = [each for each in held if each[3] <= step]
    weights = mixture([(width, at) for _, _, width, at in held], sigma_rel, step)
    total: dict[str, Tensor] = {}
    for (path, name, _, _), weight in zip(held, weights, strict=True):
        for key, value in group(load_checkpoint(path)[0], name).items():
            if value.is_floating_point():
                total[key] = total.get(key, torch.zeros(value.shape, dtype=torch.float64)) + weight * value.double()
            else:
                total[key] = value
    tensors, info = load_checkpoint(folder / CHECKPOINT)
    kept = {**prefixed("ema", {k: v.float() if v.is_floating_point() else v for k, v in total.items()})}
    kept |= prefixed("data", group(tensors, "data"))
    name = f"power:{sigma_rel:g}"
    info = {k: v for k, v in info.items() if k not in ("format", "sha256", "untold")}
    save_checkpoint(out, kept, {**info, "step": step, "averages": [name]})
    return Path(out)
