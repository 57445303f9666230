"""Arrays that a command reads back from a file: samples to encode, latents to start from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scoresde.cli.again import DAMAGED
from scoresde.cli.space import check_range, draws_images
from scoresde.errors import BadInput, nearest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scoresde.model import Model


class Rows(NamedTuple):
    """The events of a file (n, *event) in float32, their classes where it has them, and the SHA-256 of the file."""

    x: Tensor
    labels: Tensor | None
    sha256: str


def read_rows(path: Path, name: str, model: Model) -> Rows:
    """The array ``name`` of an .npz file, and its `labels` where the model has classes; whatever does not fit is told.

    A model without classes has no use for labels, so they are left.
    """
    import io

    import numpy as np
    import torch

    if not path.is_file():
        raise BadInput(f"{str(path)!r}: no such file")
    content = path.read_bytes()
    try:
        with np.load(io.BytesIO(content)) as file:
            arrays = {key: np.asarray(file[key]) for key in file.files if key in (name, "labels")}
            held = list(file.files)
    except (*DAMAGED, AttributeError):
        raise BadInput(f"{str(path)!r} is no whole .npz file of numbers") from None
    if name not in arrays:
        raise BadInput(f"{str(path)!r} has no array {name!r}: it has {', '.join(held) or 'none'}{nearest(name, held)}")
    values = arrays[name]
    _check(path, name, values, model)
    labels = _labels(path, arrays.get("labels"), len(values), model)
    x = torch.from_numpy(np.array(values, dtype=np.float32))
    if not bool(torch.isfinite(x).all()):
        raise BadInput(f"{str(path)!r}: {name!r} has values that are not finite")
    if name == "samples" and draws_images(model) and values.dtype != np.uint8:
        check_range(repr(str(path)), float(x.min()), float(x.max()))
    return Rows(x, labels, hashlib.sha256(content).hexdigest())


def _check(path: Path, name: str, values: np.ndarray, model: Model) -> None:
    """Refuse what are no events of the model."""
    if values.dtype.kind not in "fiu":
        raise BadInput(f"{str(path)!r}: {name!r} holds {values.dtype}, not real numbers")
    if values.shape[1:] != model.event_shape or not len(values):
        events = ", ".join(map(str, model.event_shape))
        raise BadInput(
            f"{str(path)!r}: {name!r} has shape {values.shape}, model {model.name!r} needs (n, {events}):"
            " give its own model by --model"
        )


def _labels(path: Path, values: np.ndarray | None, n: int, model: Model) -> Tensor | None:
    """The class of each event, for a model that has classes."""
    import torch

    if values is None or not model.classes:
        return None
    last = len(model.classes) - 1
    if values.shape != (n,) or values.dtype.kind not in "iu" or values.min() < 0 or values.max() > last:
        raise BadInput(f"{str(path)!r}: 'labels' must be {n} integers, the classes 0 to {last} of {model.name!r}")
    return torch.from_numpy(values.astype("int64"))
