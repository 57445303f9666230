"""The files of a run: their names and contents."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.model import Model
    from scoresde.samplers import Result

DEFAULT_MODEL = "fashion-mnist"
PASSING = ("command", "seconds", "batch_size")  # what may differ between two runs that draw the same samples


def plain(value: Any) -> Any:
    """A value as JSON gives it back: lists for tuples, and words for the numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """A value as JSON for people and programs."""
    return json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False)


def name_files(
    model: str,
    class_: str | None,
    settings: Mapping[str, Any],
    origin: str | None = None,
    guidance: str | None = None,
) -> str:
    """ode-10-seed0, and in front the model, behind the class, guidance and first index, where not the default.

    ``origin`` says where the states came from that were not drawn by the seed.
    """
    path = Path(model).resolve()
    own = ("model.safetensors", "checkpoint.safetensors")  # of a run, which is known by its folder
    stem = path.parent.name if path.name in own else path.name.removesuffix(".safetensors")
    parts = [
        *([stem] if model != DEFAULT_MODEL else []),
        settings["sampler"],
        *([] if settings["sampler"].endswith("adaptive") else [str(settings.get("steps", "adaptive"))]),
        origin or f"seed{settings['seed']}",
        *([class_] if class_ is not None else []),
        *([guidance] if guidance else []),
        *([f"index{settings['first']}"] if settings["first"] else []),
    ]
    return "-".join(re.sub(r"[^\w.+]+", "-", part).strip("-") for part in parts)


def free_name(out: Path, name: str, record: dict[str, Any]) -> str:
    """The name, or name-2, name-3, … where another run's files have it already; the same run takes its own again.

    A picture has a name too: name-2.png may be the second of a run that is called name.
    """

    def same(path: Path) -> bool:
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if not isinstance(other, dict):
            return False
        return {**other, **dict.fromkeys(PASSING)} == {**record, **dict.fromkeys(PASSING)}

    names = (name if k == 1 else f"{name}-{k}" for k in count(1))
    ends = (".json", ".png", ".npz")
    return next(n for n in names if same(out / f"{n}.json") or not any((out / f"{n}{end}").exists() for end in ends))


def render(model: Model, result: Result, labels: Tensor | None, by_class: bool) -> dict[str, bytes]:
    """The content of the picture and of the arrays, by the ending of their names."""
    import numpy as np

    from scoresde.data import to_uint8
    from scoresde.pictures import picture

    x = model.scaler.decode(result.x.cpu())
    if model.info["config"]["data"]["scaler"] == "image":
        x = to_uint8(x)
    arrays = {"samples": x.numpy()} if labels is None else {"samples": x.numpy(), "labels": labels.numpy()}
    if len(set(result.nfe_each.tolist())) > 1:
        arrays |= {"nfe": result.nfe_each, "accepted": result.accepted, "rejected": result.rejected}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return {".png": picture(arrays["samples"], arrays.get("labels") if by_class else None), ".npz": buffer.getvalue()}
