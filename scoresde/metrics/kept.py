"""Features that are kept: each file holds those of one set of events, and says what they are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde.checkpoint import load_checkpoint, save_checkpoint
from scoresde.errors import BadInput

KIND = "kept features"


def keep(folder: Path | None, about: dict[str, Any], make: Callable[[], Tensor]) -> tuple[Tensor, bool]:
    """The features that ``make`` returns, and whether they were read: from the folder where it has them, else made and
    written there.

    ``about`` is all that they depend on: the SHA-256 of data and network, the rows. A file is named by its SHA-256 and
    says it again inside; one that is damaged, or says otherwise, is made anew. Without a folder nothing is kept.

    >>> import torch
    >>> keep(None, {"data": "moons"}, lambda: torch.ones(2, 1))[1]
    False
    """
    if folder is None:
        return make(), False
    about = json.loads(json.dumps({"kind": KIND, **about}))
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = folder / f"features-{name[:32]}.safetensors"
    if path.is_file():
        try:
            tensors, info = load_checkpoint(path)
            if info.get("about") == about:
                return tensors["features"], True
        except (BadInput, KeyError):
            pass
    features = make()
    save_checkpoint(path, {"features": features}, {"about": about})
    return features, False


def rows_digest(rows: Tensor) -> str:
    """SHA-256 of row numbers, (n,) int64.

    >>> import torch
    >>> rows_digest(torch.arange(3)) != rows_digest(torch.arange(4))
    True
    """
    return hashlib.sha256(rows.contiguous().numpy().tobytes()).hexdigest()
