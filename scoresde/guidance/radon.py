"""CT: projections of an image along parallel rays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.guidance.operators import Linear, Ridge, plane
from scoresde.schedule import like


@dataclass(frozen=True, eq=False)
class Radon(Linear):
    """CT: parallel projections at ``angles`` angles spread evenly over half a turn, y (batch, ..., angles, bins).

    A pixel at (u, v) from the centre adds to the two bins next to u cos θ + v sin θ, by linear interpolation (Radon
    1917; Kak & Slaney 1988, section 3.2); a projection is divided by the larger side, so that it is about a mean along
    the ray. There are as many bins, one pixel wide, as the diagonal needs.

    >>> A = Radon(6, (1, 8, 8))
    >>> A(torch.ones(2, 1, 8, 8)).shape, A(torch.ones(1, 1, 8, 8)).sum((-3, -1))[0, :3]
    (torch.Size([2, 1, 6, 13]), tensor([8.0000, 8.0000, 8.0000]))
    """

    angles: int
    shape: tuple[int, ...]
    iterations: int = 200

    def __post_init__(self) -> None:
        plane("radon", self.shape)
        if self.angles < 1:
            raise BadInput(f"radon angles = {self.angles}: a positive integer")

    @property
    def bins(self) -> int:
        """The number of detector bins."""
        height, width = self.shape[-2:]
        return 2 * math.ceil(math.hypot(height - 1, width - 1) / 2 + 0.5) + 1

    @cached_property
    @torch.inference_mode(False)  # gradients may be asked of it later
    def _entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and columns, (entries,), of the matrix's weights, float64."""
        height, width = self.shape[-2:]
        v, u = torch.meshgrid(
            torch.arange(height).double() - (height - 1) / 2,
            torch.arange(width).double() - (width - 1) / 2,
            indexing="ij",
        )
        theta = (torch.arange(self.angles).double() * (math.pi / self.angles))[:, None]
        at = u.flatten() * theta.cos() + v.flatten() * theta.sin() + (self.bins - 1) / 2
        low = at.floor()
        row = low.long() + self.bins * torch.arange(self.angles)[:, None]
        pixel = torch.arange(height * width).expand_as(row)
        weights = torch.cat([low + 1 - at, at - low]) / max(height, width)
        return torch.cat([row, row + 1]).flatten(), torch.cat([pixel, pixel]).flatten(), weights.flatten()

    def _carry(self, x: Tensor, source: Tensor, target: Tensor, size: int) -> Tensor:
        """The sparse product along the last axis."""
        source, target, weights = source.to(x.device), target.to(x.device), self._entries[2].to(x)
        moved = x.index_select(-1, source) * weights
        return torch.zeros(*x.shape[:-1], size, dtype=x.dtype, device=x.device).index_add(-1, target, moved)

    def inverse(self, y: Tensor, ridge: Ridge = 0.0, cap: Ridge = math.inf) -> Tensor:
        if len(self.shape) == 2:
            return super().inverse(y, ridge, cap)
        each = [like(value, y).expand((*y.shape[:-2], 1, 1)).flatten() for value in (ridge, cap)]
        return self._image.inverse(y.flatten(0, -3), *each).reshape(-1, *self.shape)

    @cached_property
    def _image(self) -> Radon:
        """The operator of one image of the event."""
        return Radon(self.angles, self.shape[-2:], self.iterations)

    def __call__(self, x: Tensor) -> Tensor:
        rows, columns, _ = self._entries
        out = self._carry(self.check(x).flatten(-2), columns, rows, self.angles * self.bins)
        return out.unflatten(-1, (self.angles, self.bins))

    def adjoint(self, y: Tensor) -> Tensor:
        rows, columns, _ = self._entries
        height, width = self.shape[-2:]
        return self._carry(y.flatten(-2), rows, columns, height * width).unflatten(-1, (height, width))
