"""Parts of the U-Net, the same for events (channels, length) and (channels, height, width)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Resample = Callable[[Tensor, bool], Tensor]


def conv(dims: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv1d | nn.Conv2d:
    """A convolution over ``dims`` axes (1 or 2) that keeps, or with ``stride`` divides, their length."""
    return (nn.Conv1d if dims == 1 else nn.Conv2d)(inputs, outputs, kernel, stride, kernel // 2)


def norm(channels: int) -> nn.GroupNorm:
    """Group norm of 32 groups, or of as many as divide both."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def zero(layer: nn.Conv1d | nn.Conv2d | nn.Linear) -> nn.Conv1d | nn.Conv2d | nn.Linear:
    """The layer, returning 0 until it is trained."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def to_depth(x: Tensor, patch: int) -> Tensor:
    """Squares of ``patch`` x ``patch`` pixels (or pieces of ``patch``) become channels.

    >>> to_depth(torch.zeros(5, 3, 8, 6), 2).shape
    torch.Size([5, 12, 4, 3])
    """
    return F.pixel_unshuffle(x, patch) if x.ndim == 4 else rearrange(x, "b c (l p) -> b (c p) l", p=patch)


def from_depth(x: Tensor, patch: int) -> Tensor:
    """The inverse of `to_depth`."""
    return F.pixel_shuffle(x, patch) if x.ndim == 4 else rearrange(x, "b (c p) l -> b c (l p)", p=patch)


def smooth(x: Tensor) -> Tensor:
    """The filter [1, 2, 1]/4 on every axis, edges repeated."""
    for dim in range(2, x.ndim):
        n = x.shape[dim]
        before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, n - 1)], dim)
        after = torch.cat([x.narrow(dim, 1, n - 1), x.narrow(dim, n - 1, 1)], dim)
        x = (before + 2 * x + after) / 4
    return x


def halve(x: Tensor, fir: bool = False) -> Tensor:
    """Half as many pixels on every axis: means of pairs, or with ``fir`` the filter [1, 3, 3, 1]/8, edges repeated.

    The filter is that of NCSN++ (Song et al. 2021, appendix H, after Zhang 2019): pairs of smoothed pixels.

    >>> halve(torch.arange(8.0).reshape(1, 1, 8), fir=True)
    tensor([[[0.6250, 2.5000, 4.5000, 6.3750]]])
    """
    x = smooth(x) if fir else x
    return F.avg_pool1d(x, 2) if x.ndim == 3 else F.avg_pool2d(x, 2)


def double(x: Tensor, fir: bool = False) -> Tensor:
    """Twice as many pixels on every axis: each repeated, or with ``fir`` the filter [1, 3, 3, 1]/4, edges repeated.

    >>> double(torch.tensor([[[0.0, 4.0]]]), fir=True)
    tensor([[[0., 1., 3., 4.]]])
    """
    x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    return smooth(x) if fir else x


class Block(nn.Module):
    """norm → SiLU → conv, then norm modulated by the embedding → SiLU → dropout → zero-initialised conv; plus x.

    ``modulation`` "scale_shift" is norm(h) (1 + scale) + shift, the adaptive group norm of Dhariwal & Nichol 2021,
    eq. 3; "add" is norm(h + shift) (Ho et al. 2020). ``resample`` is `halve` or `double`, applied to x and to the
    branch before its first convolution (BigGAN: Brock et al. 2019). With ``rescale`` the sum is divided by √2.

    >>> Block(2, 8, 16, 32, resample=halve)(torch.zeros(1, 8, 6, 6), torch.zeros(1, 32)).shape
    torch.Size([1, 16, 3, 3])
    """

    def __init__(
        self,
        dims: int,
        inputs: int,
        outputs: int,
        embedding: int,
        dropout: float = 0.0,
        modulation: str = "scale_shift",
        rescale: bool = False,
        resample: Resample | None = None,
        fir: bool = False,
    ) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), conv(dims, inputs, outputs)
        self.scaled = modulation == "scale_shift"
        self.modulation = nn.Linear(embedding, (1 + self.scaled) * outputs)
        self.norm2, self.conv2 = norm(outputs), zero(conv(dims, outputs, outputs))
        self.dropout = nn.Dropout(dropout)
        self.skip = conv(dims, inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.factor = math.sqrt(0.5) if rescale else None
        self.dims, self.resample, self.fir = dims, resample, fir

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = F.silu(self.norm1(x))
        if self.resample is not None:
            h, x = self.resample(h, self.fir), self.resample(x, self.fir)
        h = self.conv1(h)
        given = self.modulation(embedding)[(..., *(None,) * self.dims)]
        if self.scaled:
            scale, shift = given.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + given)
        return rescaled(self.skip(x) + self.conv2(self.dropout(F.silu(h))), self.factor)


class Attention(nn.Module):
    """Self-attention over all pixels with a residual connection, divided by √2 with ``rescale``; then ``cross``.

    ``cross``, if a network sets it, is a `scoresde.nn.condition.CrossAttention` to what ``context`` holds.

    >>> Attention(2, 8, heads=2)(torch.zeros(1, 8, 6, 6)).shape
    torch.Size([1, 8, 6, 6])
    """

    def __init__(self, dims: int, channels: int, heads: int, rescale: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = norm(channels), conv(dims, channels, 3 * channels, 1)
        self.out = zero(conv(dims, channels, channels, 1))
        self.factor = math.sqrt(0.5) if rescale else None
        self.cross: nn.Module | None = None

    def forward(self, x: Tensor, context: tuple[Tensor, Tensor | None] | None = None) -> Tensor:
        qkv = rearrange(self.qkv(self.norm(x)).flatten(2), "b (three n c) l -> three b n l c", three=3, n=self.heads)
        h = F.scaled_dot_product_attention(*qkv.unbind(0))
        x = rescaled(x + self.out(rearrange(h, "b n l c -> b (n c) l").reshape(x.shape)), self.factor)
        if self.cross is None or context is None:
            return x
        h = self.cross(self.norm(x).flatten(2).transpose(1, 2), context)
        return x + h.transpose(1, 2).reshape(x.shape)


def rescaled(x: Tensor, factor: float | None) -> Tensor:
    """x times the factor, if there is one."""
    return x if factor is None else factor * x
