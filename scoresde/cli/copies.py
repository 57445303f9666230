"""Whether samples are copies: their nearest images in a training set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoresde.cli.space import events_of
from scoresde.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Dataset

MOST_NEAREST = 1000


def training_set(real: Dataset, data: str, split: str, options: dict[str, Any], named: str | None) -> Dataset | str:
    """The images that samples may be copies of: those named, or the data's own of another split; or why none are."""
    import torch

    from scoresde.data import Streamed, load
    from scoresde.data.load import SPLITS

    large, why = "too large to be held in memory", ""
    if real.dtype != torch.uint8:
        why = f"{real.name} holds no images"
    elif named is None and data not in SPLITS:
        why = f"no training set of {real.name} is known; name it by --train"
    elif named is None and split == "train":
        why = "DATA is the training set; give held-out images, by --split test or as DATA beside --train"
    if why and named is None:
        return why
    train = load(named or data, "train", **options)
    if named is None:
        return f"{train.name} is {large}" if isinstance(train, Streamed) else train
    if not why and (train.dtype, train.event_shape) != (real.dtype, real.event_shape):
        why = f"it holds {train.dtype} events of {train.event_shape}, {real.name} {real.dtype} of {real.event_shape}"
    if not why and isinstance(train, Streamed):
        why = large
    if not why and train.sha256 == real.sha256:
        why = "it is DATA itself; distances of samples are held against those of other real images"
    if why:
        raise BadInput(f"--train {named}: {why}")
    return train


def copies(fake: Dataset, real: Dataset, train: Dataset, rows: tuple[Tensor, Tensor, Tensor | None]) -> dict[str, Any]:
    """Distances to the nearest training images, held against those of the data."""
    from scoresde.metrics import memorisation

    ours, held_out = (part[:MOST_NEAREST] for part in (rows[1], rows[0]))
    figures = memorisation(events_of(fake, ours, real), train.x, events_of(real, held_out, real))
    return {**figures._asdict(), "n": len(ours), "train": len(train), "data": train.name, "sha256": train.sha256}
