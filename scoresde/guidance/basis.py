"""The same data in another orthonormal basis of their channels, where noise looks the same and a mask can say more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.denoiser import Plan
from scoresde.errors import BadInput, positive
from scoresde.transforms import Wrapper


def rotate(basis: Float[Tensor, "c c"], x: Float[Tensor, "batch c *rest"]) -> Float[Tensor, "batch c *rest"]:
    """u = Q x along the first dimension of the event, with the axes of the new basis as the rows of Q."""
    return torch.einsum("ij,bj...->bi...", basis, x)


@dataclass(frozen=True, eq=False)
class Rotated(Wrapper):
    """A denoiser of u = Q x, Q orthogonal: Q times that of x. Noise is isotropic, so u has the same SDE.

    A learned variance, which belongs to the coordinates of x, is left: that of the posterior takes its place.

    >>> import torch, scoresde
    >>> inner = scoresde.Denoiser(lambda x, t: 0 * x + torch.tensor([3.0, 0.0]), scoresde.VPSDE(), "x0")
    >>> Rotated(inner, torch.tensor([[0.0, 1.0], [1.0, 0.0]])).x0(torch.ones(1, 2), 0.5)
    tensor([[0., 3.]])
    """

    basis: Float[Tensor, "c c"]

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        return rotate(self.basis, self.inner.predict(form, rotate(self.basis.T, x), t, **cond))

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        inner = self.inner.plan(form, times, rotate(self.basis.T, x), **cond)
        return inner._replace(net=lambda i, x: rotate(self.basis, inner.net(i, rotate(self.basis.T, x))), learned=None)


def grey_basis(channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An orthonormal basis of the channels whose first axis is grey, (1, …, 1)/√c: the first of c coordinates is √c
    times the mean of the channels (Song et al. 2021, appendix I.3, for three; Helmert's for any number).

    >>> grey_basis(3) @ torch.tensor([2.0, 2.0, 2.0])
    tensor([3.4641, 0.0000, 0.0000])
    """
    c = positive("channels", channels)
    rows = [torch.full((c,), c**-0.5, dtype=torch.float64)]
    for k in range(1, c):
        row = torch.zeros(c, dtype=torch.float64)
        row[:k], row[k] = 1.0, -k
        rows.append(row / (k * (k + 1)) ** 0.5)
    return torch.stack(rows).to(dtype)


def check_basis(basis: Tensor, x: Tensor) -> Tensor:
    """The matrix like x, if it is orthogonal and fits its first event dimension."""
    c = x.shape[1] if x.ndim > 1 else 0
    if not isinstance(basis, Tensor) or basis.shape != (c, c):  # pyright: ignore[reportUnnecessaryIsInstance]
        given = tuple(basis.shape) if isinstance(basis, Tensor) else type(basis).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"basis: {given}, a matrix ({c}, {c}) is needed for data of shape {tuple(x.shape)}")
    exact = basis.double()
    if not torch.allclose(exact @ exact.T, torch.eye(c, dtype=torch.float64, device=basis.device), atol=1e-5):
        raise BadInput("basis: its rows must be orthonormal")
    return basis.to(x)
