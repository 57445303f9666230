"""The U-Net of DDPM, ADM, DDPM++ and NCSN++ as settings of one class, for images and for sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from scoresde.errors import BadInput, choose
from scoresde.nn.blocks import (
    Attention,
    Block,
    Resample,
    conv,
    double,
    from_depth,
    halve,
    norm,
    rescaled,
    to_depth,
    zero,
)
from scoresde.nn.check import check_counts, check_flags, check_grid
from scoresde.nn.condition import Concatenated, Context, CrossAttention, concatenated, context_of
from scoresde.nn.embed import Fourier, Sinusoidal, augment_linear, conditioned, label_embedding, vector_linear

RESAMPLE = ("conv", "block")
MODULATION = ("scale_shift", "add")
EMBEDDING = ("sinusoidal", "fourier")
PROGRESSIVE = ("none", "residual")
Told = tuple[Tensor, Context | None]  # the embedding, for blocks, and the context, for attention


class UNet(nn.Module):
    """U-Net on events (channels, length) or (channels, height, width), sizes divisible by patch · 2^(levels-1).

    ``multipliers`` gives the width of each level in units of ``channels``, ``blocks`` its residual blocks on the
    way down (one more on the way up), ``attention`` the levels that attend, -1 the coarsest (the middle always
    does), with ``heads`` heads, or as many as have ``head_channels`` channels.
    ``patch`` x ``patch`` pixels become channels of the first convolution, which costs patch² times less at equal width.
    With ``classes`` > 0 the label y is one of 0 … classes-1, or ``classes`` for none; with ``augment`` > 0 there is
    a label of so many numbers for the augmentation of training images (Karras et al. 2022, appendix F.2). With
    ``learned_variance`` there are twice as many output channels. ``checkpoint`` computes the blocks again in the
    backward pass rather than keep what is inside them (Chen et al. 2016).

    What the event may depend on, beside a class: a vector of ``vector`` numbers; a sequence of tokens of ``context``
    numbers each, attended to wherever there is attention; ``condition_channels`` channels of an image or series,
    stretched to the event's size: an image of less resolution, a past window. All three are 0 if left out (see
    `scoresde.nn.condition`).

    The networks of the literature, at patch 1, differ in:

    | option            | DDPM (a)   | ADM (b)     | DDPM++ (c) | NCSN++ (c) |
    |-------------------|------------|-------------|------------|------------|
    | modulation        | add        | scale_shift | add        | add        |
    | resample          | conv       | block       | block      | block      |
    | fir               | false      | false       | false      | true       |
    | rescale           | false      | false       | true       | true       |
    | embedding         | sinusoidal | sinusoidal  | sinusoidal | fourier    |
    | progressive_input | none       | none        | none       | residual   |
    | attention heads   | heads: 1   | head_channels: 64 | heads: 1 | heads: 1 |

    (a) Ho et al. 2020, appendix B. (b) Dhariwal & Nichol 2021, section 3. (c) Song et al. 2021, appendix H. Filters
    repeat the edge where NCSN++ pads with zeros, and come before the convolution. Sinusoids want labels of the size
    0 … 1000 (time "1000t", "index"), Fourier features labels of order one ("lambda", which is -log σ where α = 1).

    >>> import torch
    >>> net = UNet((1, 28, 28), channels=16, classes=10)
    >>> net(torch.zeros(2, 1, 28, 28), torch.zeros(2), torch.tensor([3, 10])).shape
    torch.Size([2, 1, 28, 28])
    >>> UNet((2, 64), channels=16)(torch.zeros(5, 2, 64), torch.zeros(5)).shape
    torch.Size([5, 2, 64])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2),
        blocks: int = 2,
        attention: Sequence[int] = (-1,),
        heads: int = 4,
        patch: int = 2,
        classes: int = 0,
        dropout: float = 0.0,
        learned_variance: bool = False,
        head_channels: int | None = None,
        modulation: str = "scale_shift",
        resample: str = "conv",
        fir: bool = False,
        rescale: bool = False,
        embedding: str = "sinusoidal",
        progressive_input: str = "none",
        augment: int = 0,
        checkpoint: bool = False,
        vector: int = 0,
        context: int = 0,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        check_counts("UNet", channels=channels, blocks=blocks, heads=heads, patch=patch, levels=len(multipliers))
        check_counts("UNet", **{f"multipliers[{i}]": m for i, m in enumerate(multipliers)})
        check_counts("UNet", 0, classes=classes, augment=augment, vector=vector, context=context)
        check_counts("UNet", 0, condition_channels=condition_channels)
        check_flags("UNet", learned_variance=learned_variance, fir=fir, rescale=rescale, checkpoint=checkpoint)
        choose("UNet modulation", modulation, MODULATION)
        choose("UNet resample", resample, RESAMPLE)
        choose("UNet embedding", embedding, EMBEDDING)
        choose("UNet progressive_input", progressive_input, PROGRESSIVE)
        widths, levels = [channels * m for m in multipliers], len(multipliers)
        self.stride = patch * 2 ** (levels - 1)
        shape = check_grid("UNet", event_shape, self.stride, f"patch {patch}, {levels} levels")
        self.event_shape, self.dims, self.patch, self.classes = shape, len(shape) - 1, patch, classes
        self.blocks, self.levels, self.fir, self.checkpoint = blocks, levels, fir, checkpoint
        if not all(-levels <= level < levels for level in attention):
            raise BadInput(f"UNet: attention = {list(attention)} names a level that is not one of the {levels}")
        attending = {level % levels for level in attention}
        if head_channels is not None:
            check_counts("UNet", head_channels=head_channels)
        per_head = f"heads = {heads}" if head_channels is None else f"head_channels = {head_channels}"
        if any(widths[level] % (head_channels or heads) for level in {*attending, levels - 1}):
            raise BadInput(f"UNet: widths {widths} must be divisible by {per_head} where they attend")
        dims, emb, pixels = self.dims, 4 * channels, shape[0] * patch**self.dims

        def block(inputs: int, outputs: int, **how: Any) -> Block:
            return Block(dims, inputs, outputs, emb, dropout, modulation, rescale, fir=fir, **how)

        def attend(width: int) -> Attention:
            return Attention(dims, width, width // head_channels if head_channels else heads, rescale)

        def stage(inputs: int, outputs: int, attends: bool) -> nn.ModuleList:
            return nn.ModuleList([block(inputs, outputs), *([attend(outputs)] if attends else [])])

        self.sinusoidal = embedding == "sinusoidal"
        features = Sinusoidal(channels) if self.sinusoidal else Fourier(1, 2 * channels, 16.0)
        self.time = nn.Sequential(
            features, nn.Linear((2 - self.sinusoidal) * channels, emb), nn.SiLU(), nn.Linear(emb, emb)
        )
        self.labels = label_embedding(classes, emb)
        self.stem = conv(dims, pixels, channels)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.pool, self.unpool, self.pyramid = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        stride = 1 if fir else 2  # of a convolution that halves: a filter halves before it
        width, skips, seen = channels, [channels], pixels
        for level, outputs in enumerate(widths):
            if level:
                self.pool.append(
                    conv(dims, width, width, stride=stride)
                    if resample == "conv"
                    else block(width, width, resample=halve)
                )
                if progressive_input == "residual":
                    self.pyramid.append(conv(dims, seen, width, stride=stride))
                    seen = width
                skips.append(width)
            for _ in range(blocks):
                self.down.append(stage(width, outputs, level in attending))
                width = outputs
                skips.append(width)
        self.middle = nn.ModuleList([*stage(width, width, True), *stage(width, width, False)])
        for level, outputs in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(stage(width + skips.pop(), outputs, level in attending))
                width = outputs
            if level:
                self.unpool.append(
                    conv(dims, width, width) if resample == "conv" else block(width, width, resample=double)
                )
        self.out = nn.Sequential(norm(width), nn.SiLU(), zero(conv(dims, width, (1 + learned_variance) * pixels)))
        self.augment, self.augment_in = augment, augment_linear(augment, emb)
        self.factor = math.sqrt(0.5) if rescale else None
        # Conditions come last, so that what a network without them begins with is the same.
        self.vector_in, self.context = vector_linear(vector, emb), context
        self.condition_in = Concatenated(dims, condition_channels, channels, patch) if condition_channels else None
        for layer in list(self.modules()) if context else []:
            if isinstance(layer, Attention):
                layer.cross = CrossAttention(layer.norm.num_channels, context, layer.heads)

    def forward(
        self,
        x: Float[Tensor, "batch channels *space"],
        label: Float[Tensor, "batch"],
        y: Tensor | None = None,
        augment: Float[Tensor, "batch augment"] | None = None,
        vector: Float[Tensor, "batch vector"] | None = None,
        context: Float[Tensor, "batch tokens context"] | None = None,
        context_mask: Bool[Tensor, "batch tokens"] | None = None,
        condition: Float[Tensor, "batch condition_channels *size"] | None = None,
    ) -> Float[Tensor, "batch outputs *space"]:
        """The network's output at states x, time labels, class labels y (None: no class); others None: zeros."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.event_shape[0] or any(n % self.stride for n in x.shape[2:]):
            names = "length" if self.dims == 1 else "h, w"
            raise BadInput(
                f"UNet: event shape {tuple(x.shape[1:])} must be ({self.event_shape[0]}, {names}),"
                f" {names.replace(',', ' and')} divisible by {self.stride}"
            )
        embedding = self.time(label if self.sinusoidal else label[:, None])
        embedding = conditioned(embedding, self.labels, self.augment_in, y, augment, self.vector_in, vector)
        told = F.silu(embedding), context_of(self.context, context, context_mask, len(x))
        h = to_depth(x, self.patch)
        seen, h = h, concatenated(self.stem(h), self.condition_in, condition, x)
        skips = [h]
        for level in range(self.levels):
            if level:
                h = self._resized(self.pool[level - 1], h, told, halve if self.fir else None)
                if self.pyramid:
                    seen = self.pyramid[level - 1](halve(seen, True) if self.fir else seen)
                    seen = h = rescaled(seen + h, self.factor)
                skips.append(h)
            for i in range(level * self.blocks, (level + 1) * self.blocks):
                h = self._run(self.down[i], told, h)
                skips.append(h)
        h = self._run(self.middle, told, h)
        for i in range(self.levels * (self.blocks + 1)):
            h = self._run(self.up[i], told, h, skips.pop())
            level, last = divmod(i + 1, self.blocks + 1)
            if not last and level < self.levels:
                h = self._resized(self.unpool[level - 1], h, told, double)
        return from_depth(self.out(h), self.patch).contiguous()

    def _run(self, stage: nn.Module, told: Told, h: Tensor, skip: Tensor | None = None) -> Tensor:
        """A block, or the layers of a stage one after another, on h beside what skips to it."""

        def run(told: Told, h: Tensor, skip: Tensor | None) -> Tensor:
            h = h if skip is None else torch.cat([h, skip], dim=1)
            for layer in [stage] if isinstance(stage, Block) else stage.children():
                h = layer(h, told[not isinstance(layer, Block)])
            return h

        if self.checkpoint and torch.is_grad_enabled():
            return recomputed(run, told, h, skip, use_reentrant=False)
        return run(told, h, skip)

    def _resized(self, layer: nn.Module, h: Tensor, told: Told, resize: Resample | None) -> Tensor:
        if isinstance(layer, Block):
            return self._run(layer, told, h)
        return layer(h if resize is None else resize(h, self.fir))
