"""What a config asks of the data: refused before any work."""

from __future__ import annotations

from scoresde.config import Config, Train
from scoresde.data import Dataset, check_trainable
from scoresde.data.augment import LABELS
from scoresde.errors import BadInput


def check_data(config: Config, data: Dataset) -> None:
    """Refuse data that the config does not fit, naming the key."""
    train = config.train
    if train.batch_size > len(data):
        raise BadInput(f"batch_size {train.batch_size} is larger than the data ({len(data)} rows of {data.name})")
    check_trainable(data)
    averages = train.ema if isinstance(train.ema, list) else [train.ema]
    if train.snapshots and not any(str(each).startswith("power:") for each in averages):
        raise BadInput(
            f"train.snapshots = {train.snapshots}: only of averages like 'power:0.1' others can be made afterwards:"
            " add one to train.ema"
        )
    for what, wanted in (("flip", train.flip), ("augment", train.augment > 0)):
        if wanted and len(data.event_shape) != 3:
            raise BadInput(f"train.{what}: only for images, the data have events of shape {data.event_shape}")
    if train.augment and config.network.get("augment", 0) != LABELS:
        raise BadInput(f"train.augment: the network must be told of it: network.augment = {LABELS}")
    if train.objective == "distillation" and data.labels is None:
        raise BadInput(f"train.objective = 'distillation' needs labels: {data.name} has none")
    if config.task == "denoiser":
        _check_labels(config, data)


def _check_labels(config: Config, data: Dataset) -> None:
    """Keys of labels need labels. A rate of dropping them may be left at its default, and a network that begins with
    another's weights has its classes."""
    train, classes = config.train, config.network.get("classes")
    if classes and data.labels is None and not train.init:
        raise BadInput(f"network.classes = {classes}: {data.name} has no labels: leave it out")
    if train.label_dropout not in (0, Train.model_fields["label_dropout"].default):
        what = f"train.label_dropout = {train.label_dropout}"
        if data.labels is None:
            raise BadInput(f"{what}: {data.name} has no labels to drop: leave it out")
        if classes == 0:
            raise BadInput(f"{what}: a network with classes: 0 is told no labels: leave it out")
