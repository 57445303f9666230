"""Conditions that a network learns to use: sequences by cross-attention, images and series as further channels.

All begin without effect, as layers of zeros, and all but what a layer makes of zeros is nothing: a condition that is
left out, None, is one of zeros.
"""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from scoresde.errors import BadInput
from scoresde.nn.blocks import conv, to_depth, zero
from scoresde.nn.embed import check_given

Context = tuple[Tensor, Tensor | None]  # tokens and their mask


class CrossAttention(nn.Module):
    """out softmax(q kᵀ/√d) v with queries of h, keys and values of a context (Rombach et al. 2022, section 3.3).

    Nothing has a bias, and a token of zeros is always there to attend to: tokens of zeros, no tokens, and a mask that
    hides all of them give 0. The mask is True where there is a token. ``out`` is zero at first.

    >>> import torch
    >>> layer = CrossAttention(8, 6, heads=2)
    >>> layer(torch.ones(2, 5, 8), (torch.ones(2, 3, 6), torch.tensor([[True, True, False], [False] * 3]))).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(width, width, bias=False), nn.Linear(context, 2 * width, bias=False)
        self.out = zero(nn.Linear(width, width, bias=False))

    def forward(
        self, h: Float[Tensor, "batch queries width"], context: Context
    ) -> Float[Tensor, "batch queries width"]:
        tokens, mask = context
        q = rearrange(self.q(h), "b l (n c) -> b n l c", n=self.heads)
        kv = F.pad(self.kv(tokens.to(h.dtype)), (0, 0, 0, 1))
        k, v = rearrange(kv, "b m (two n c) -> two b n m c", two=2, n=self.heads).unbind(0)
        seen = None if mask is None else F.pad(mask, (0, 1), value=True)[:, None, None]
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(rearrange(h, "b n l c -> b l (n c)"))


def context_of(
    width: int,
    context: Float[Tensor, "batch tokens width"] | None,
    mask: Bool[Tensor, "batch tokens"] | None,
    batch: int,
) -> Context | None:
    """Tokens and mask, if they are what a network with this option ``context`` takes."""
    if context is None:
        if mask is not None:
            raise BadInput("context_mask was given without context")
        return None
    if not width:
        raise BadInput("context was given to a network built without: set its option context, the width of a token")
    check_given("context", context, (batch, None, width))
    if mask is not None:
        check_given("context_mask", mask, (batch, context.shape[1]))
    return context, mask


class Concatenated(nn.Module):
    """What further channels add to a network's first layer, W c of a layer [V W] on [x, c]: concatenation with x.

    c, (batch, ``channels``, *any size), is stretched to the size of x where it has another (SR3: Saharia et al. 2021,
    section 2), linearly. W is zero at first.

    >>> import torch
    >>> Concatenated(2, 3, 16, patch=2)(torch.zeros(5, 3, 4, 4), torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 16, 4, 4])
    """

    def __init__(self, dims: int, channels: int, width: int, patch: int, kernel: int = 3) -> None:
        super().__init__()
        self.channels, self.patch = channels, patch
        self.conv = conv(dims, channels * patch**dims, width, kernel)
        self.conv.bias = None
        nn.init.zeros_(self.conv.weight)

    def forward(self, condition: Tensor, x: Tensor) -> Tensor:
        check_given("condition", condition, (len(x), self.channels, *(None,) * (x.ndim - 2)))
        condition = condition.to(x.dtype)
        if condition.shape[2:] != x.shape[2:]:
            mode = "linear" if x.ndim == 3 else "bilinear"
            condition = F.interpolate(condition, size=x.shape[2:], mode=mode)
        return self.conv(to_depth(condition, self.patch))


def concatenated(
    h: Tensor, layer: Concatenated | None, condition: Tensor | None, x: Tensor, tokens: bool = False
) -> Tensor:
    """h, of a network's first layer at x, plus what further channels add to it; with ``tokens`` h is a row of them."""
    if condition is None:
        return h
    if layer is None:
        raise BadInput("condition was given to a network built without: set its option condition_channels")
    more = layer(condition, x)
    return h + (more.flatten(2).transpose(1, 2) if tokens else more)
