"""A transformer on patches of images or sequences, each block scaled, shifted and gated by time and class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from scoresde.errors import BadInput
from scoresde.nn.blocks import zero
from scoresde.nn.check import check_counts, check_flags, check_grid
from scoresde.nn.condition import Concatenated, Context, CrossAttention, concatenated, context_of
from scoresde.nn.embed import Sinusoidal, augment_linear, conditioned, label_embedding, vector_linear


def positions(grid: Sequence[int], width: int) -> Float[Tensor, "tokens width"]:
    """Sinusoids of each token's place, an equal share of the channels for every axis of the grid.

    >>> positions((4, 6), 16).shape
    torch.Size([24, 16])
    """
    embed = Sinusoidal(width // len(grid))
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in grid), indexing="ij")
    return torch.cat([embed(axis.flatten()) for axis in axes], dim=1)


class DiTBlock(nn.Module):
    """x + gate · attention(LN(x) (1 + scale) + shift), then the same with an MLP: adaLN-Zero, at first the identity.

    Shifts, scales and gates are a zero-initialised linear layer of the embedding (Peebles & Xie 2023, section 3.2).
    Between the two, ``cross``, if the network sets it, adds cross-attention to a context (PixArt-α: Chen et al. 2024,
    section 2.3), also zero at first.

    >>> x = torch.randn(2, 5, 8)
    >>> torch.equal(DiTBlock(8, heads=2)(x, torch.randn(2, 8)), x)
    True
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.heads = heads
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU("tanh"), nn.Linear(hidden, width))
        self.modulation = nn.Linear(width, 6 * width)
        self.dropout = nn.Dropout(dropout)
        self.cross: nn.Module | None = None
        self.reset()

    def reset(self) -> None:
        """Draw the weights: Glorot's uniform ones, no biases, and zeros for the modulation."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                _glorot(layer)
        zero(self.modulation)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        embedding: Float[Tensor, "batch width"],
        context: Context | None = None,
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedding)[:, None].chunk(6, dim=2)
        h = self.qkv(torch.addcmul(shift1, self.norm1(x), 1 + scale1))
        h = F.scaled_dot_product_attention(
            *rearrange(h, "b l (three n c) -> three b n l c", three=3, n=self.heads).unbind(0)
        )
        x = torch.addcmul(x, gate1, self.dropout(self.out(rearrange(h, "b n l c -> b l (n c)"))))
        if self.cross is not None and context is not None:
            x = x + self.cross(x, context)
        return torch.addcmul(x, gate2, self.dropout(self.mlp(torch.addcmul(shift2, self.norm2(x), 1 + scale2))))


class DiT(nn.Module):
    """Diffusion transformer on events (channels, length) or (channels, height, width) (Peebles & Xie 2023).

    The event is cut into pieces of ``patch`` pixels on every axis, one token each, whose places are told by fixed
    sinusoids. Published sizes (width, depth, heads): S 384, 12, 6; B 768, 12, 12; L 1024, 24, 16; XL 1152, 28, 16.
    Labels are those of `UNet`: time of the size 0 … 1000, class y, ``augment`` numbers; so are the other conditions,
    ``learned_variance`` and ``checkpoint``. Dropout, which the paper does without, is on the output of every
    self-attention and MLP.

    >>> import torch
    >>> DiT((1, 28, 28), width=32, depth=2, heads=2, patch=4)(torch.zeros(2, 1, 28, 28), torch.zeros(2)).shape
    torch.Size([2, 1, 28, 28])
    """

    places: Tensor

    def __init__(
        self,
        event_shape: Sequence[int],
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 2,
        mlp_ratio: float = 4.0,
        classes: int = 0,
        dropout: float = 0.0,
        learned_variance: bool = False,
        augment: int = 0,
        checkpoint: bool = False,
        vector: int = 0,
        context: int = 0,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        check_counts("DiT", width=width, heads=heads, patch=patch)
        check_counts("DiT", 0, depth=depth, classes=classes, augment=augment, vector=vector, context=context)
        check_counts("DiT", 0, condition_channels=condition_channels)
        check_flags("DiT", learned_variance=learned_variance, checkpoint=checkpoint)
        self.event_shape = check_grid("DiT", event_shape, patch, f"patch {patch}")
        self.grid, self.patch, self.classes = [n // patch for n in self.event_shape[1:]], patch, classes
        self.checkpoint = checkpoint
        if width % heads or width % (2 * len(self.grid)):
            raise BadInput(f"DiT: width = {width} must be divisible by heads = {heads} and by {2 * len(self.grid)}")
        if not (isinstance(mlp_ratio, int | float) and width * mlp_ratio >= 1):
            raise BadInput(f"DiT: mlp_ratio = {mlp_ratio!r} must be a positive number")
        pixels = self.event_shape[0] * patch ** len(self.grid)
        self.stem = _glorot(nn.Linear(pixels, width))
        self.time = nn.Sequential(Sinusoidal(256), nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = label_embedding(classes, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm, self.modulation = _norm(width), zero(nn.Linear(width, 2 * width))
        self.out = zero(nn.Linear(width, (1 + learned_variance) * pixels))
        self.augment, self.augment_in = augment, augment_linear(augment, width)
        self.register_buffer("places", positions(self.grid, width), persistent=False)
        for layer in (*self.time, *([self.labels] if self.labels else [])):
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=0.02)
        self.vector_in, self.context = vector_linear(vector, width), context
        dims = len(self.grid)
        self.condition_in = Concatenated(dims, condition_channels, width, patch, 1) if condition_channels else None
        for block in self.blocks if context else []:
            block.cross = CrossAttention(width, context, heads)

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
        if x.shape[1:] != self.event_shape:
            raise BadInput(f"DiT: events of shape {tuple(x.shape[1:])} must have shape {self.event_shape}")
        embedding = conditioned(self.time(label), self.labels, self.augment_in, y, augment, self.vector_in, vector)
        embedding, tokens = F.silu(embedding), context_of(self.context, context, context_mask, len(x))
        h = concatenated(self.stem(self._tokens(x)), self.condition_in, condition, x, tokens=True) + self.places
        for block in self.blocks:
            if self.checkpoint and torch.is_grad_enabled():
                h = recomputed(block, h, embedding, tokens, use_reentrant=False)
            else:
                h = block(h, embedding, tokens)
        shift, scale = self.modulation(embedding)[:, None].chunk(2, dim=2)
        return self._events(self.out(torch.addcmul(shift, self.norm(h), 1 + scale)))

    def _tokens(self, x: Tensor) -> Tensor:
        p = self.patch
        if len(self.grid) == 1:
            return rearrange(x, "b c (l p) -> b l (c p)", p=p)
        return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)

    def _events(self, tokens: Tensor) -> Tensor:
        p = self.patch
        if len(self.grid) == 1:
            return rearrange(tokens, "b l (c p) -> b c (l p)", p=p)
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=self.grid[0], p=p, q=p)


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


def _glorot(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
