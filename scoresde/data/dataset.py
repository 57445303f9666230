"""A data set in memory: values in the data's own units, and labels where it has them."""

import hashlib
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from scoresde.errors import BadInput


@dataclass(frozen=True, eq=False)
class Dataset:
    """N events in their own units, checked when built; nothing is scaled here (see `Scaler`).

    Args:
        x: (N, *event). Images are uint8 (N, C, H, W), 0 to 255; everything else is float32.
        labels: int64 (N,), each in 0..num_classes-1, or None.
        classes: the name of each label; empty without labels.
        name: what the set is called, for messages and model cards.
        source: where it came from (an address, a path, a recipe).
        sha256: SHA-256, in hex, of the bytes of x (C order) followed by those of the labels.
            Computed when left empty; when given, data that differ from it are refused.

    Raises:
        BadInput: a wrong dtype or shape, no events, a NaN or infinity (the row is named), a label out of range,
            or data that do not match `sha256`.

    Example:
        >>> data = Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]), ("a", "b"), name="tiny")
        >>> len(data), data.event_shape, data.num_classes
        (3, (2,), 2)
    """

    x: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    name: str = ""
    source: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        _check_x(self.x, self.name)
        _check_labels(self.labels, self.classes, len(self.x), self.name)
        actual = _sha256(self.x, self.labels)
        if self.sha256 and self.sha256 != actual:
            raise BadInput(f"data set {self.name!r}: its SHA-256 is {actual}, but {self.sha256} was expected")
        object.__setattr__(self, "sha256", actual)

    def __len__(self) -> int:
        """The number of events, N."""
        return len(self.x)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one event, e.g. (1, 28, 28) for grey images or (2,) for points in the plane."""
        return tuple(self.x.shape[1:])

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 without labels."""
        return len(self.classes)


def _check_x(x: Tensor, name: str) -> None:
    shape = tuple(x.shape)
    if x.dtype not in (torch.uint8, torch.float32):
        raise BadInput(f"data set {name!r}: x has dtype {x.dtype}; uint8 images or float32 values are allowed")
    if x.dtype == torch.uint8 and x.ndim != 4:
        raise BadInput(f"data set {name!r}: uint8 images must have shape (N, C, H, W), not {shape}")
    if x.ndim == 0 or prod(shape) == 0:
        raise BadInput(f"data set {name!r}: x of shape {shape} holds no events; at least one is needed")
    if x.is_floating_point():
        good = torch.isfinite(x).reshape(len(x), -1).all(dim=1)
        if not good.all():
            row = int((~good).nonzero()[0])
            raise BadInput(f"data set {name!r}: row {row} (counted from 0) has a NaN or infinite value")


def _check_labels(labels: Tensor | None, classes: tuple[str, ...], count: int, name: str) -> None:
    if labels is None:
        if classes:
            raise BadInput(f"data set {name!r}: {len(classes)} classes but no labels")
        return
    if labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        raise BadInput(
            f"data set {name!r}: labels must be int64 of shape ({count},), not {labels.dtype} {tuple(labels.shape)}"
        )
    bad = (labels < 0) | (labels >= len(classes))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise BadInput(
            f"data set {name!r}: row {row} (counted from 0) has label {int(labels[row])}; "
            f"with {len(classes)} classes 0..{len(classes) - 1} are allowed"
        )


def _sha256(x: Tensor, labels: Tensor | None) -> str:
    digest = hashlib.sha256(x.detach().cpu().contiguous().numpy().data)
    if labels is not None:
        digest.update(labels.cpu().contiguous().numpy().data)
    return digest.hexdigest()
