"""The weight w of guidance: one number, or one for each sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser, layers
from scoresde.errors import BadInput
from scoresde.schedule import like

Weight = float | Tensor
KEY = "guidance_w"  # the condition by which weights of single samples reach the batch that they belong to


def check_weight(w: Any) -> Weight:
    """A finite number, or a tensor (n,) of finite numbers, one for each of the samples to be drawn."""
    if isinstance(w, Tensor) and w.ndim:
        if w.ndim > 1 or not w.is_floating_point() or not bool(torch.isfinite(w).all()):
            raise BadInput(f"w of shape {tuple(w.shape)}, {w.dtype}: finite numbers, one for each sample (n,), or one")
        return w
    try:
        value = float(w)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise BadInput(f"w = {w!r:.60}: the weight of guidance is a finite number, or a tensor with one per sample")
    return value


def per_row(ws: Sequence[Weight], inner: Sequence[AnyDenoiser]) -> dict[str, Tensor]:
    """The condition, (n, k), that carries k weights along with the samples, if one of them differs between samples."""
    tensors = [w for w in ws if isinstance(w, Tensor)]
    if not tensors:
        return {}
    if len({len(w) for w in tensors}) > 1:
        raise BadInput(f"w: {' and '.join(str(len(w)) for w in tensors)} weights, one per sample: give equally many")
    if any(layer.given for denoiser in inner for layer in layers(denoiser)):
        raise BadInput("w: a guidance inside this one has a weight for each sample: only one of them can")
    return {KEY: torch.stack([w if isinstance(w, Tensor) else torch.full_like(tensors[0], w) for w in ws], dim=1)}


def weights(ws: Sequence[Weight], given: dict[str, Tensor], cond: dict[str, Any], x: Tensor) -> list[Weight]:
    """The weights beside the states x, taken out of the conditions of the batch."""
    if not given:
        return list(ws)
    rows = cond.pop(KEY, given[KEY])
    if len(rows) != len(x):
        raise BadInput(f"w: {len(rows)} weights for {len(x)} samples: give one, or one per sample")
    return [like(w, x) for w in rows.to(device=x.device, dtype=x.dtype).unbind(1)]


def told(w: Weight) -> str:
    """A weight in words, for an error."""
    return f"w up to {float(w.abs().max()):g}" if isinstance(w, Tensor) else f"w = {w:g}"
