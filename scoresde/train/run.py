"""The state of a training run, and one step of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checkpoint import group, load_checkpoint, prefixed, save_checkpoint
from scoresde.classifier import NoisyClassifier
from scoresde.config import RUNTIME, Config, parse_config
from scoresde.data import Dataset, Scaler, batches
from scoresde.data.augment import mirrored, transform
from scoresde.data.loader import Batch
from scoresde.denoiser import Denoiser
from scoresde.errors import BadInput, TrainingStopped
from scoresde.model import build, build_classifier, load_weights
from scoresde.schedule import like, per_sample
from scoresde.train.checks import check_data
from scoresde.train.draws import DROPOUT, FIRST, Draws, batch_rows, draw, seed_of, seeded
from scoresde.train.ema import EMA
from scoresde.train.engine import Engine
from scoresde.train.log import Untold
from scoresde.train.objective import ByLevel, ClassifierObjective, Objective
from scoresde.train.shards import gathered, laid, whole

IN_A_ROW = 10  # steps that are not finite, after which a run stops itself
Tell = Callable[[str], None]


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up to ``lr``, then constant or half a cosine down to zero at the last step."""
    train = config.train
    if step < train.warmup:
        return train.lr * (step + 1) / train.warmup
    if train.decay == "none":
        return train.lr
    done = (step - train.warmup) / max(1, train.steps - train.warmup)
    return 0.5 * train.lr * (1 + math.cos(math.pi * done))


class Run:
    """Network, averages, optimiser, step. `train` drives it; tests drive it step by step.

    ``tell`` is called with a line about what a user should know: a step that was skipped, a batch taken in parts.
    """

    def __init__(
        self, config: Config, data: Dataset, device: str | torch.device = "cpu", tell: Tell = lambda line: None
    ) -> None:
        train = config.train
        check_data(config, data)
        self.config, self.data, self.tell = config, data, tell
        self.scaler = Scaler.fit(data, config.data.scaler)
        self.engine = Engine(device, train.precision, train.trackers, train.shard)
        self.device, self.share = self.engine.device, self.engine.share(train.batch_size)
        with seeded(seed_of(train.seed, 0, FIRST), torch.device("cpu")):
            self.model, self.network, self.objective = _of_task(config, data, self.device)
        if self.engine.sharded and train.objective == "sliced":
            raise BadInput("train.shard: the sliced loss takes second derivatives, for which shards are not kept")
        self.untold, self.by_level, self.accuracy = Untold(), ByLevel(self.model.sde), ByLevel(self.model.sde)
        if train.init:
            self.network.load_state_dict(load_weights(train.init, self.network))
        if train.compile:
            self.network.compile()
        self.wrapped = self.engine.wrap(self.objective, self.network)
        self.ema = EMA(self.network, train.ema)
        self.optimiser = torch.optim.AdamW(
            [*self.network.parameters(), *self.objective.own()],
            lr=train.lr,
            weight_decay=train.weight_decay,
            betas=(0.9, 0.99),
            foreach=False if self.engine.sharded and self.objective.own() else None,  # one kernel takes one layout
        )
        self.step, self.skipped = 0, 0
        self.feed: Iterator[Batch] | None = None
        self.micro = min(train.micro_batch or train.batch_size, self.share.stop - self.share.start)

    # ------------------------------------------------------------------------------------------------------- one step

    def advance(self) -> dict[str, float]:
        """One optimiser step; returns the loss and the gradient's norm. A step that is not finite changes nothing."""
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = learning_rate(self.config, self.step)
        self.network.train()
        x0, cond, draws = self.batch()
        while True:
            try:
                told = self.descend(x0, cond, draws)
                break
            except RuntimeError as error:
                if not out_of_memory(error) or self.micro == 1 or self.engine.world > 1:
                    raise
                self.micro = (self.micro + 1) // 2
            self.tell(f"step {self.step + 1}: out of memory; batches of {len(x0)} now go in parts of {self.micro}")
        norm = whole(nn.utils.clip_grad_norm_(self.network.parameters(), self.config.train.clip))
        rows = self.engine.gather(torch.stack([draws.t, draws.weight, *told], 1))
        t, weight, losses, total, *right = rows.unbind(1)
        loss, total = float((weight * losses).mean()), float(total.mean())
        if math.isfinite(total) and math.isfinite(float(norm)):
            self.optimiser.step()
            self.objective.times.update(t, losses)
            self.ema.update(self.network, self.step)
            self.skipped = 0
        else:
            self.skipped += 1
        self.by_level.add(t, losses)
        for each in right:
            self.accuracy.add(t, each)
        self.step += 1
        if self.skipped:
            self.report_skipped(t[~torch.isfinite(losses)], float(norm))
        figures = {"loss": loss, "gradient": float(norm)}
        return {**figures, "accuracy": float(right[0].mean())} if right else figures

    def batch(self) -> tuple[Tensor, dict[str, Tensor], Draws]:
        """This process's rows of the step's batch on the device: scaled events, what the network is told, draws."""
        train, data = self.config.train, self.data
        if self.feed is None:
            self.feed = batches(data, self.rows, self.step, sys.maxsize, train.workers, pin=self.device.type != "cpu")
        _, x, labels = next(self.feed)
        classes = getattr(self.network, "classes", 0) if labels is not None else 0
        shape, drops = (train.batch_size, *data.event_shape), bool(classes) and self.config.task == "denoiser"
        whole = draw(shape, self.objective.times, train, self.step, drops, self.objective.probes)
        draws = whole.rows(self.share).to(self.device)
        x0 = self.scaler.encode(x.to(self.device, non_blocking=True))
        if draws.mirrored is not None:
            x0 = mirrored(x0, draws.mirrored)
        cond: dict[str, Tensor] = {}
        if draws.warped is not None:
            x0, cond["augment"] = transform(x0, draws.warped), draws.warped
        if classes:
            assert labels is not None
            cond["y"] = labels.to(self.device, non_blocking=True)
        if draws.unlabelled is not None:
            cond["y"] = torch.where(draws.unlabelled, classes, cond["y"])
        return x0, cond, draws

    def rows(self, step: int) -> Tensor:
        """The data rows that this process takes at a step."""
        train = self.config.train
        return batch_rows(len(self.data), train.batch_size, train.seed, step)[self.share]

    def close(self) -> None:
        """End the processes that read ahead, and the trackers."""
        self.feed = None
        self.engine.end()

    def descend(self, x0: Tensor, cond: Mapping[str, Tensor], draws: Draws) -> list[Tensor]:
        """The gradient of the mean loss of this process's rows, in parts that fit; the losses, the same as minimised,
        and what else the objective tells of each row."""
        self.optimiser.zero_grad(set_to_none=True)
        figures: list[Tensor] = []
        starts = range(0, len(x0), self.micro)
        with seeded(
            seed_of(self.config.train.seed, self.step * self.engine.world + self.engine.rank, DROPOUT), self.device
        ):
            for start in starts:
                part = slice(start, start + self.micro)
                of, given = draws.rows(part), {key: value[part] for key, value in cond.items()}
                with self.engine.shared(self.wrapped, self.network, start == starts[-1]):
                    with self.engine.autocast():
                        loss, total, *more = self.wrapped(x0[part], of.t, of.noise, of.probe, given)
                    total = of.weight * total
                    (total.sum() / len(x0)).backward()
                figures.append(torch.stack([loss, total, *more]).detach())
        self.engine.average(self.objective.own())
        return list(torch.cat(figures, dim=1))

    def report_skipped(self, t: Tensor, norm: float) -> None:
        """Tell of a step that was not finite; ten in a row stop the run."""
        self.untold.skip(self.step, float(t[0]) if len(t) else None, norm)
        where = f"at t = {float(t[0]):.4g}, " if len(t) else ""
        what = f"({where}gradient norm {norm:.3g})"
        if self.skipped >= IN_A_ROW:
            raise TrainingStopped(f"step {self.step}: ten steps in a row not finite {what}")
        self.tell(f"step {self.step} skipped: its loss or gradient is not finite {what}")

    @property
    def denoiser(self) -> Denoiser:
        """What a run of task "denoiser" trains."""
        assert isinstance(self.model, Denoiser)
        return self.model

    # ----------------------------------------------------------------------------------------------------- what is kept

    def save(self, path: Path) -> None:
        """Write weights, averages, optimiser and all that `restore` needs, atomically and whole; one process does, and
        where they lie in shards all must be asked."""
        if not (self.engine.main or self.engine.sharded):
            return
        optimiser = self.optimiser.state_dict()["state"]
        state = {f"{i}/{key}": value for i, entry in optimiser.items() for key, value in entry.items()}
        groups = {
            **self.ema.groups(),
            "raw": dict(self.network.state_dict()),
            "opt": state,
            "objective": self.objective.state(),
            "data": self.moments,
        }
        tensors = {key: value for name, each in groups.items() for key, value in prefixed(name, each).items()}
        tensors = gathered(tensors, self.engine.main)
        if self.engine.main:
            untold = {key: state for key, each in self.told_later().items() if (state := each.state())}
            facts = {"step": self.step, "skipped": self.skipped, **({"untold": untold} if untold else {})}
            save_checkpoint(path, tensors, {**facts, **self.describe()})

    def told_later(self) -> dict[str, Untold | ByLevel]:
        """What the next line of the log is made of."""
        return {"figures": self.untold, "by_level": self.by_level, "accuracy": self.accuracy}

    @cached_property
    def moments(self) -> dict[str, Tensor]:
        """What an analytic start needs of the scaled data: the mean (classes + 1, event) and mean variance
        (classes + 1) of each class and, last, of all."""
        classes, n = len(self.data.classes), len(self.data)
        labels = self.data.labels if self.data.labels is not None and classes else torch.zeros(n, dtype=torch.long)
        total = torch.zeros((max(1, classes), *self.data.event_shape), dtype=torch.float64)
        squares = torch.zeros_like(total)
        for rows in torch.arange(n).split(4096):
            x = self.scaler.encode(self.data.take(rows)).double()
            total.index_add_(0, labels[rows], x)
            squares.index_add_(0, labels[rows], x.square())
        number = torch.bincount(labels, minlength=max(1, classes)).double()
        if classes:
            total, squares = torch.cat([total, total.sum(0)[None]]), torch.cat([squares, squares.sum(0)[None]])
            number = torch.cat([number, number.sum()[None]])
        number = like(number.clamp(min=1), total)
        mean = total / number
        return {"mean": mean.float(), "variance": per_sample(squares / number - mean.square()).mean(1).float()}

    def describe(self) -> dict[str, Any]:
        """What a model file must say beside its tensors."""
        return {
            "config": self.config.model_dump(mode="json"),
            "scaler": self.scaler.to_json(),
            "event_shape": list(self.data.event_shape),
            "classes": list(self.data.classes),
            "data": {"name": self.data.name, "rows": len(self.data), "sha256": self.data.sha256},
            "averages": list(self.ema.averages),
            **({"teacher": of} if (of := getattr(self.objective, "taught_by", "")) else {}),
        }

    def check(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A checkpoint, if it is of this run: the same data and the same config, in all that decides the weights."""
        tensors, info = load_checkpoint(path)
        if "step" not in info or not group(tensors, "raw"):
            raise BadInput(f"checkpoint {str(path)!r} cannot be continued: it holds no run, only {sorted(info)}")
        then = parse_config(info.get("config"), str(path))
        for what, same in (
            ("config", _decisive(then) == _decisive(self.config)),
            ("data", info.get("data") == self.describe()["data"]),
            ("teacher", info.get("teacher") == self.describe().get("teacher")),
        ):
            if not same:
                raise BadInput(
                    f"checkpoint {str(path)!r} was made with another {what}: choose another --out or remove it"
                )
        return tensors, info

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of this run."""
        tensors, info = self.check(path)
        now = self.network.state_dict()
        self.network.load_state_dict({key: laid(value, now[key]) for key, value in group(tensors, "raw").items()})
        self.ema.load({name: group(tensors, name) for name in self.ema.groups()})
        self.objective.load(group(tensors, "objective"))
        state: dict[int, dict[str, Tensor]] = {}
        parameters = self.optimiser.param_groups[0]["params"]
        for key, value in group(tensors, "opt").items():
            index, name = key.split("/")
            state.setdefault(int(index), {})[name] = laid(value, parameters[int(index)])
        self.optimiser.load_state_dict({"state": state, "param_groups": self.optimiser.state_dict()["param_groups"]})
        for key, each in self.told_later().items():
            each.load(info.get("untold", {}).get(key, {}))
        self.step, self.skipped, self.feed = int(info["step"]), int(info.get("skipped", 0)), None


def _of_task(
    config: Config, data: Dataset, device: torch.device
) -> tuple[Denoiser | NoisyClassifier, nn.Module, Objective | ClassifierObjective]:
    """What a config trains, its network, and what is minimised."""
    if config.task == "classifier":
        classifier, network = build_classifier(config, data.event_shape, tuple(data.classes), device)
        return classifier, network, ClassifierObjective(config, classifier).to(device)
    denoiser, network = build(config, data.event_shape, data.num_classes, device)
    return denoiser, network, Objective(config, denoiser).to(device)


def _decisive(config: Config) -> dict[str, Any]:
    """The config without what may differ between the parts of one run."""
    values = config.model_dump(mode="json")
    return {**values, "train": {key: value for key, value in values["train"].items() if key not in RUNTIME}}


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, or the host, had no room for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
