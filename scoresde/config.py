"""The typed configuration of a training run, read from YAML; an unknown key names the nearest known one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from scoresde.errors import BadInput, nearest


class _Loader(yaml.SafeLoader):
    """YAML in which no mapping has a key twice, which PyYAML lets pass, and 1e-2 is a number."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.seen: set[int] = set()  # what is merged into others is flattened more than once

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        keys = [(key.tag, key.value, key) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for i, (tag, name, key) in enumerate(keys if id(node) not in self.seen else []):
            if (tag, name) in (each[:2] for each in keys[:i]):
                raise BadInput(f"key {name!r} is given twice, again in line {key.start_mark.line + 1}")
        self.seen.add(id(node))
        super().flatten_mapping(node)


# YAML 1.1 asks for a dot and a sign in such numbers, so that 1e-2 and 1.5e3 were words.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Strict):
    """What to train on: a name or path for `scoresde.data.load`, its options, and how it is scaled."""

    name: str
    split: str = "train"
    scaler: Literal["image", "standard", "unit", "none"] = "standard"
    options: dict[str, Any] = {}


# What may differ between the parts of one run: it changes neither the weights nor what the log says of them.
RUNTIME = {
    "micro_batch",
    "workers",
    "compile",
    "shard",
    "checkpoint_every",
    "keep",
    "log_every",
    "sample_every",
    "trackers",
    "report",
}


class Train(_Strict):
    """How to train: everything that decides the weights, beside the data and the network; then what does not.

    ``init`` is a model to start from, by path or shipped name. ``ema`` is one average or several, each a decay or
    "half_life:STEPS" or "power:WIDTH"; ``snapshots`` keeps them every so many steps, to make others of afterwards.
    ``guidance`` is the w of the objective "distillation", whose teacher is ``init`` under classifier-free guidance.
    ``shard`` spreads weights, averages and the optimiser's state over the processes.
    ``augment`` is the probability of each of the geometric transformations that the network is told of.
    """

    steps: int = Field(10_000, ge=1)
    batch_size: int = Field(128, ge=1)
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False)
    warmup: int = Field(200, ge=0)
    decay: Literal["none", "cosine"] = "cosine"
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    clip: float = Field(1.0, gt=0)
    ema: float | str | list[float | str] = 0.999
    snapshots: int = Field(0, ge=0)
    init: str | None = None
    objective: Literal["denoising", "hybrid", "vlb", "sliced", "distillation"] = "denoising"
    guidance: float = Field(1.0, ge=0, allow_inf_nan=False)
    weighting: str = "simple"
    times: dict[str, Any] = {"name": "uniform"}
    uncertainty: bool = False
    label_dropout: float = Field(0.1, ge=0, le=1)
    flip: bool = False
    augment: float = Field(0.0, ge=0, le=1)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    seed: int = Field(0, ge=0)
    micro_batch: int | None = Field(None, ge=1)
    workers: int = Field(0, ge=0)
    compile: bool = False
    shard: bool = False
    checkpoint_every: int = Field(500, ge=1)
    keep: int = Field(2, ge=1)
    log_every: int = Field(50, ge=1)
    sample_every: int = Field(0, ge=0)
    report: bool = True
    trackers: list[str] = []

    @field_validator("ema", mode="after")
    @classmethod
    def _decay_below_one(cls, value: Any) -> Any:
        """Numbers are decays; names are read when the averages are made."""
        for each in value if isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType]
            if isinstance(each, float) and not 0 <= each < 1:
                raise ValueError("a decay must be at least 0 and below 1")
        return value

    @model_validator(mode="before")
    @classmethod
    def _times_by_name(cls, values: Any) -> Any:
        """``times: lognormal`` is short for its mapping; ``index_times`` is how first configs said {name: index}."""
        if not isinstance(values, Mapping):
            return values
        found: dict[str, Any] = dict(values)  # pyright: ignore[reportUnknownArgumentType]
        if found.get("index_times") is not None and "times" not in found:
            found["times"] = "index" if found.pop("index_times") else "uniform"
        if isinstance(found.get("times"), str):
            found["times"] = {"name": found["times"]}
        return found


class Config(_Strict):
    """One run: data, SDE, network, what it predicts, and how it is trained.

    ``task`` "denoiser" is a model that draws; "classifier" one of p(y | x_t, t) that guides it, whose network is one of
    `scoresde.nn.CLASSIFIERS` and whose loss is the cross-entropy.
    """

    task: Literal["denoiser", "classifier"] = "denoiser"
    data: Data
    sde: dict[str, Any] = {"name": "vp"}
    network: dict[str, Any]
    prediction: str = "eps"
    learned_variance: bool = False
    time: str = "1000t"
    train: Train = Field(default_factory=lambda: Train.model_validate({}))


def parse_config(values: Any, source: str = "config") -> Config:
    """Validate a nested mapping as a `Config`; the first fault is a one-line BadInput."""
    if not isinstance(values, Mapping):
        raise BadInput(f"{source}: a mapping of {', '.join(Config.model_fields)} is needed")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        place = [str(part) for part in fault["loc"]]
        where = ".".join(place)
        if fault["type"] == "extra_forbidden":
            sections: dict[str, type[BaseModel]] = {"data": Data, "train": Train}
            model = sections[place[0]] if len(place) > 1 else Config
            known, key = list(model.model_fields), place.pop()
            raise BadInput(
                f"{source}: unknown key {where!r}: choose from {', '.join(known)}{nearest(key, known)}"
            ) from None
        if fault["type"] == "missing":
            raise BadInput(f"{source}: {where} is missing") from None
        close = nearest(fault["input"], re.findall("'(.*?)'", fault["msg"])) if fault["type"] == "literal_error" else ""
        raise BadInput(f"{source}: {where} = {fault['input']!r}: {fault['msg'].lower()}{close}") from None
    for where, value in _leaves({"sde": config.sde, "network": config.network, "train.times": config.train.times}):
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{source}: {where} = {value}: input should be a finite number")
    return config


def _leaves(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in mappings and lists, with its place as in "network.scales[1]"."""
    if isinstance(value, Mapping):
        for key, each in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _leaves(each, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for i, each in enumerate(value):  # pyright: ignore[reportUnknownVariableType]
            yield from _leaves(each, f"{where}[{i}]")
    else:
        yield where, value


def load_config(path: str | Path) -> Config:
    """Read and validate a YAML config file."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"config {str(path)!r}: no such file")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except BadInput as error:
        raise BadInput(f"config {str(path)!r}: {error}") from None
    except OSError as error:
        raise BadInput(f"config {str(path)!r}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # a date that does not exist is a ValueError
        raise BadInput(f"config {str(path)!r}: not YAML ({str(error).splitlines()[0]})") from None
    try:
        return parse_config(values, str(path))
    except RecursionError:
        raise BadInput(f"config {str(path)!r}: an alias in it holds itself") from None
