"""How a network is told of numbers: sinusoids for time labels, Gaussian Fourier features for coordinates."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scoresde.errors import BadInput


def _half(dim: int) -> int:
    if dim < 2 or dim % 2:
        raise BadInput(f"{dim} features of a label: a cosine and a sine of each frequency need an even number")
    return dim // 2


class Sinusoidal(nn.Module):
    """Sinusoids of a scalar label at ``dim``/2 geometric frequencies 1 … 1/10000 (Vaswani et al. 2017, section 3.5).

    Meant for labels of the size of DDPM's step index, 0 to 1000.

    >>> import torch
    >>> Sinusoidal(8)(torch.zeros(3)).shape
    torch.Size([3, 8])
    """

    frequencies: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = _half(dim)
        self.register_buffer("frequencies", torch.exp(-math.log(10000) * torch.arange(half) / half), persistent=False)

    def forward(self, label: Float[Tensor, "batch"]) -> Float[Tensor, "batch dim"]:
        angle = label[:, None] * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class Fourier(nn.Module):
    """Random Fourier features cos(2π B x), sin(2π B x), rows of B drawn from N(0, scale²) (Tancik et al. 2020, eq. 5).

    B is fixed at construction from ``seed`` and stored with the weights.

    >>> import torch
    >>> Fourier(2, 16)(torch.zeros(5, 2)).shape
    torch.Size([5, 16])
    """

    B: Tensor

    def __init__(self, inputs: int, dim: int, scale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        B = torch.randn(inputs, _half(dim), generator=torch.Generator().manual_seed(seed), device="cpu")
        self.register_buffer("B", (scale * B).to(torch.get_default_device()))

    def forward(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch dim"]:
        with torch.autocast(x.device.type, enabled=False):  # half precision would lose the angle
            angle = 2 * math.pi * (x @ self.B)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


def label_embedding(classes: int, width: int) -> nn.Embedding | None:
    """An embedding of the classes 0 … classes-1 and of ``classes``, which means none; None without classes."""
    return nn.Embedding(classes + 1, width) if classes else None


def augment_linear(augment: int, width: int) -> nn.Linear | None:
    """The layer for ``augment`` numbers that tell how a training image was augmented; all 0: not at all.

    Without a bias (Karras et al. 2022, appendix F.2), so that zeros add nothing.
    """
    return nn.Linear(augment, width, bias=False) if augment else None


def vector_linear(vector: int, width: int) -> nn.Linear | None:
    """The layer for a vector of ``vector`` numbers that the event depends on; zeros add nothing, nor does a new one."""
    if not vector:
        return None
    layer = nn.Linear(vector, width, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def conditioned(
    h: Float[Tensor, "batch width"],
    labels: nn.Embedding | None,
    augmentation: nn.Linear | None,
    y: Tensor | None,
    augment: Tensor | None,
    vectors: nn.Linear | None = None,
    vector: Tensor | None = None,
) -> Float[Tensor, "batch width"]:
    """h plus what the classes y (None: no class), augmentation labels and vectors (None: zeros) add to it.

    >>> import torch
    >>> conditioned(torch.zeros(2, 4), label_embedding(10, 4), None, torch.tensor([3, 10]), None).shape
    torch.Size([2, 4])
    """
    if labels is not None:
        none = labels.num_embeddings - 1
        h = h + labels(torch.full((len(h),), none, device=h.device) if y is None else y)
    if augment is not None:
        if augmentation is None:
            raise BadInput("augment was given to a network built without augmentation labels: set its option augment")
        h = h + augmentation(augment.to(h.dtype))
    if vector is not None:
        if vectors is None:
            raise BadInput("vector was given to a network built without: set its option vector")
        check_given("vector", vector, (len(h), vectors.in_features))
        h = h + vectors(vector.to(h.dtype))
    return h


def check_given(name: str, given: Tensor, shape: tuple[int | None, ...]) -> None:
    """Refuse a condition of another shape; None stands for any size.

    >>> check_given("vector", torch.zeros(4, 3), (4, 8))
    Traceback (most recent call last):
    scoresde.errors.BadInput: vector of shape (4, 3) must have shape (4, 8)
    """
    sizes = tuple(given.shape)
    if len(sizes) != len(shape) or any(b is not None and a != b for a, b in zip(sizes, shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise BadInput(f"{name} of shape {sizes} must have shape ({wanted})")
