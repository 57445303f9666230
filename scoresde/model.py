"""A trained model as one value: its denoiser, how its data are scaled, its classes; by shipped name or by path."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from importlib import resources
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.analytic_start import AnalyticStart
from scoresde.checkpoint import group, halved, load_checkpoint, prefixed, save_checkpoint
from scoresde.classifier import NoisyClassifier
from scoresde.config import Config, parse_config
from scoresde.construct import construct
from scoresde.data.scaler import Scaler
from scoresde.denoiser import Denoiser
from scoresde.errors import BadInput, choose, nearest
from scoresde.nn import CLASSIFIERS, NETWORKS
from scoresde.schedule import like
from scoresde.sde import SDE
from scoresde.sdes import SDES

DEFAULT = "fashion-mnist"
AT_ONCE = 2**18  # numbers in the states of one batch
CLASSIFIER = "-classifier"  # how the names of shipped classifiers end


@dataclass(frozen=True, eq=False)
class Model:
    """What `load_model` returns. ``denoiser`` works in scaled space; ``scaler.decode`` gives the data's own units."""

    name: str
    denoiser: Denoiser
    scaler: Scaler
    event_shape: tuple[int, ...]
    classes: tuple[str, ...]
    info: dict[str, Any] = field(repr=False)
    moments: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    @property
    def batch_size(self) -> int:
        """Samples at a time, unless told otherwise."""
        return max(1, AT_ONCE // prod(self.event_shape))

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def start(self, shift: float, y: Tensor | None = None) -> AnalyticStart:
        """An analytic start by the mean and variance of the training data, its first call at λ = λ(t_max) + shift.

        With labels ``y`` each sample starts from those of its class.
        """
        if self.moments is None:
            raise BadInput(f"model {self.name!r} was saved without the mean and variance that an analytic start needs")
        mean, variance = self.moments
        if y is None:
            return AnalyticStart(mean[-1], float(variance[-1]), shift)
        y = y.cpu()
        return AnalyticStart(mean[y], like(variance[y], mean[y]).expand_as(mean[y]), shift)


def build(
    config: Config, event_shape: tuple[int, ...], classes: int, device: torch.device | str = "cpu"
) -> tuple[Denoiser, nn.Module]:
    """The denoiser and network of a config for data of this shape, freshly initialised; on "meta" without weights."""
    sde = construct("sde", SDES, config.sde)
    spec = {"classes": classes, **config.network} if classes else dict(config.network)
    if config.learned_variance:
        spec["learned_variance"] = True
    device = torch.device(device)
    with torch.device("meta" if device.type == "meta" else "cpu"):  # the same first weights on every device
        network = construct("network", NETWORKS, spec, event_shape)
    if 0 < getattr(network, "classes", 0) < classes:
        raise BadInput(f"network.classes = {spec['classes']}: the data have {classes} classes")
    network = _placed(network, device)
    denoiser = Denoiser(network, sde, config.prediction, config.time, learned_variance=config.learned_variance)
    denoiser.plan("x0", (sde.t_max, sde.t_min), torch.empty(1, *event_shape))  # refused now, not when sampling
    return denoiser, network


def build_classifier(
    config: Config, event_shape: tuple[int, ...], classes: tuple[str, ...], device: torch.device | str = "cpu"
) -> tuple[NoisyClassifier, nn.Module]:
    """The classifier and network of a config of task "classifier" for data of this shape, freshly initialised."""
    if len(classes) < 2:
        raise BadInput(f"task 'classifier': the data have {len(classes)} classes: at least two are needed")
    sde, device = construct("sde", SDES, config.sde), torch.device(device)
    with torch.device("meta" if device.type == "meta" else "cpu"):
        network = construct("network", CLASSIFIERS, config.network, event_shape, len(classes))
    network = _placed(network, device)
    return NoisyClassifier(network, sde, classes, event_shape, config.time, unit_variance=True), network


def _placed(network: nn.Module, device: torch.device) -> nn.Module:
    network = network.to(device)
    if device.type == "cpu":  # where group norms of half precision are up to eight times slower with channels last
        return network
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def shipped() -> dict[str, Path]:
    """The models inside the package that draw, by name."""
    return {name: path for name, path in _pretrained().items() if not name.endswith(CLASSIFIER)}


def shipped_classifiers() -> dict[str, Path]:
    """The classifiers inside the package, by name: that of the model "fashion-mnist" is "fashion-mnist-classifier"."""
    return {name: path for name, path in _pretrained().items() if name.endswith(CLASSIFIER)}


def _pretrained() -> dict[str, Path]:
    folder = Path(str(resources.files("scoresde"))) / "pretrained"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors")) if path.stem != "features"}


def card(name: str) -> dict[str, Any]:
    """The card of a shipped model: data, config, steps, time and measured figures."""
    models = shipped() | shipped_classifiers()
    path = models[choose("model", name, models)].with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def find_model(name: str | Path, weights: str = "ema") -> Path:
    """The file of a model: a shipped name, a checkpoint file, or a training run's folder.

    In a folder the exported model is preferred, or the checkpoint, where ``weights`` are not the averaged ones.
    """
    models, others = shipped(), shipped_classifiers()
    if str(name) in models or str(name) in others:
        return (models | others)[str(name)]
    path = Path(name)
    model, whole = path / "model.safetensors", path / "checkpoint.safetensors"
    for file in (path, model, whole) if weights == "ema" else (path, whole, model):
        if file.is_file():
            return file
    raise BadInput(f"no model {str(name)!r}: give a path, or one of {', '.join(models)}{nearest(str(name), models)}")


def export_model(checkpoint: str | Path, path: str | Path) -> None:
    """Write what sampling needs of a training checkpoint: the averaged weights, `halved`."""
    tensors, info = load_checkpoint(find_model(checkpoint))
    kept = {**prefixed("ema", halved(group(tensors, "ema"))), **prefixed("data", group(tensors, "data"))}
    save_checkpoint(path, kept, {k: v for k, v in info.items() if k not in ("format", "sha256")})


def load_weights(name: str | Path, network: nn.Module, weights: str = "ema") -> dict[str, Tensor]:
    """The weights of a model, to start training a network of the same make from."""
    tensors, _ = load_checkpoint(find_model(name, weights))
    found = {key: value.float() for key, value in group(tensors, weights).items()}
    own = {key: value.shape for key, value in network.state_dict().items()}
    for key in (*own, *found):
        if own.get(key) != (found[key].shape if key in found else None):
            shape = tuple(found[key].shape) if key in found else "missing"
            raise BadInput(
                f"train.init = {str(name)!r} is of another network: {key} is {shape} there,"
                f" {tuple(own[key]) if key in own else 'missing'} here"
            )
    return found


def load_model(name: str | Path = DEFAULT, weights: str = "ema", device: torch.device | str = "cpu") -> Model:
    """Load a shipped model by name or a checkpoint by path.

    ``weights`` is "ema", the average that the run names first, "raw", or another average that the file holds.

    >>> import scoresde
    >>> scoresde.load_model("datasaurus").event_shape
    (2,)
    """
    chosen, data, config, info = _read(name, weights, "denoiser")
    event_shape, classes = tuple(info["event_shape"]), tuple(info["classes"])
    with torch.random.fork_rng(devices=[]):  # the first weights are drawn, to be replaced below
        denoiser, network = build(config, event_shape, len(classes), device)
    _fill(network, chosen, name)
    moments = (data["mean"], data["variance"]) if {"mean", "variance"} <= data.keys() else None
    return Model(str(name), denoiser, Scaler.from_json(info["scaler"]), event_shape, classes, info, moments)


def load_classifier(
    name: str | Path = DEFAULT + CLASSIFIER,
    weights: str = "ema",
    device: torch.device | str = "cpu",
    model: Model | None = None,
) -> NoisyClassifier:
    """Load a shipped classifier by name or a checkpoint of task "classifier" by path, as `load_model` does.

    With ``model`` it is one that can guide it: of the same event shape, SDE and scaling, and the same classes, if the
    model has any.

    >>> load_classifier().classes[:2]
    ('T-shirt/top', 'trouser')
    """
    chosen, _, config, info = _read(name, weights, "classifier")
    event_shape, classes = tuple(info["event_shape"]), tuple(info["classes"])
    with torch.random.fork_rng(devices=[]):
        classifier, network = build_classifier(config, event_shape, classes, device)
    _fill(network, chosen, name)
    if model is not None:
        for what, own, theirs in (
            ("event shape", event_shape, model.event_shape),
            ("classes", classes, model.classes or classes),
            ("SDE", classifier.sde, model.sde),
            ("scaling", Scaler.from_json(info["scaler"]), model.scaler),
        ):
            if own != theirs:
                raise BadInput(
                    f"classifier {str(name)!r}: its {what} {own} differs from model {model.name!r}: {theirs}"
                )
    return replace(classifier, name=str(name), info=info)


def _read(name: str | Path, weights: str, task: str) -> tuple[dict[str, Tensor], dict[str, Tensor], Config, Any]:
    """Of a model file of this task: the weights asked for, what it knows of its data, its config, its header."""
    tensors, info = load_checkpoint(find_model(name, weights))
    averages = info.get("averages", [])
    weights = choose("weights", weights, ("ema", "raw", *averages))
    weights = "ema" if averages[:1] == [weights] else weights
    if missing := {"config", "event_shape", "classes", "scaler"} - info.keys():
        raise BadInput(f"{str(name)!r} is a scoresde file but no model: it has no {', '.join(sorted(missing))}")
    chosen: dict[str, Tensor] = group(tensors, weights)
    if not chosen:
        held = sorted({k.split("/")[0] for k in tensors} - {"data"})
        raise BadInput(f"model {str(name)!r} holds no {weights!r} weights, only {held}")
    config = parse_config(info["config"], f"model {str(name)!r}")
    if config.task != task:
        how = "load_classifier" if config.task == "classifier" else "load_model"
        raise BadInput(f"{str(name)!r} is a {config.task}, not a {task}: it is loaded by scoresde.{how}")
    return chosen, group(tensors, "data"), config, info


def _fill(network: nn.Module, weights: dict[str, Tensor], name: str | Path) -> None:
    """The weights of a file, for use alone."""
    try:
        network.load_state_dict({key: value.float() for key, value in weights.items()})
    except RuntimeError as error:
        raise BadInput(
            f"model {str(name)!r}: weights do not fit its config ({str(error).splitlines()[-1].strip()})"
        ) from None
    network.eval().requires_grad_(False)
