"""The networks of noise-aware classifiers: half of a U-Net for images and sequences, an MLP for points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from scoresde.errors import BadInput
from scoresde.nn.blocks import Attention, Block, conv, halve, norm, to_depth, zero
from scoresde.nn.check import check_counts, check_flags, check_grid
from scoresde.nn.embed import Sinusoidal
from scoresde.nn.mlp import MLP


class Encoder(nn.Module):
    """The way down of ADM's U-Net, the mean over positions, a linear layer: logits of the classes at a noise level.

    The classifier of Dhariwal & Nichol 2021, section 4, with their residual blocks that halve, adaptive group norms
    and attention at the levels of ``attention``; they pool by attention, here by the mean. Options are those of
    `UNet`. The time label is of the size 0 … 1000. A new network returns 0: all classes alike.

    >>> import torch
    >>> Encoder((1, 28, 28), 10, channels=16)(torch.zeros(2, 1, 28, 28), torch.zeros(2)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        classes: int,
        channels: int = 32,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 2,
        attention: Sequence[int] = (-1,),
        heads: int = 4,
        patch: int = 2,
        dropout: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        check_counts("Encoder", channels=channels, blocks=blocks, heads=heads, patch=patch, levels=len(multipliers))
        check_counts("Encoder", **{f"multipliers[{i}]": m for i, m in enumerate(multipliers)})
        check_counts("Encoder", 2, classes=classes)
        check_flags("Encoder", checkpoint=checkpoint)
        widths, levels = [channels * m for m in multipliers], len(multipliers)
        shape = check_grid("Encoder", event_shape, patch * 2 ** (levels - 1), f"patch {patch}, {levels} levels")
        if not all(-levels <= level < levels for level in attention):
            raise BadInput(f"Encoder: attention = {list(attention)} names a level that is not one of the {levels}")
        attending = {level % levels for level in attention}
        if any(widths[level] % heads for level in attending):
            raise BadInput(f"Encoder: widths {widths} must be divisible by heads = {heads} where they attend")
        self.event_shape, self.patch, self.classes, self.checkpoint = shape, patch, classes, checkpoint
        dims, emb = len(shape) - 1, 4 * channels

        def block(inputs: int, outputs: int, **how: Any) -> Block:
            return Block(dims, inputs, outputs, emb, dropout, **how)

        self.time = nn.Sequential(Sinusoidal(channels), nn.Linear(channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.stem = conv(dims, shape[0] * patch**dims, channels)
        self.down, width = nn.ModuleList(), channels
        for level, outputs in enumerate(widths):
            if level:
                self.down.append(block(width, width, resample=halve))
            for _ in range(blocks):
                self.down.append(block(width, outputs))
                width = outputs
                if level in attending:
                    self.down.append(Attention(dims, width, heads))
        self.norm, self.head = norm(width), zero(nn.Linear(width, classes))

    def forward(
        self, x: Float[Tensor, "batch channels *space"], label: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch classes"]:
        """The logits at states x and time labels."""
        if x.shape[1:] != self.event_shape:
            raise BadInput(f"Encoder: events of shape {tuple(x.shape[1:])} must have shape {self.event_shape}")
        embedding, h = F.silu(self.time(label)), self.stem(to_depth(x, self.patch))
        for layer in self.down:
            given = (h, embedding) if isinstance(layer, Block) else (h,)
            if self.checkpoint and torch.is_grad_enabled():
                h = recomputed(layer, *given, use_reentrant=False)
            else:
                h = layer(*given)
        return self.head(F.silu(self.norm(h)).flatten(2).mean(dim=2))


class PointEncoder(MLP):
    """An `MLP` whose last layer gives the logits of the classes; its options, and label, are those of `MLP`.

    >>> import torch
    >>> PointEncoder((2,), 5, width=32, depth=2)(torch.zeros(4, 2), torch.zeros(4)).shape
    torch.Size([4, 5])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        classes: int,
        width: int = 256,
        depth: int = 4,
        features: int = 64,
        scales: Sequence[float] = (0.25, 1.0),
    ) -> None:
        check_counts("PointEncoder", 2, classes=classes)
        super().__init__(event_shape, width, depth, features, scales)
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), zero(nn.Linear(width, classes)))
        self.classes = classes

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  (there is no condition to tell)
        self, x: Float[Tensor, "batch *event"], label: Float[Tensor, "batch"]
    ) -> Float[Tensor, "batch classes"]:
        """The logits at states x and time labels."""
        return self.last(self.hidden(x, label))
