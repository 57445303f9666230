"""Linear measurement operators: A, its adjoint Aᵀ, and its regularised inverse Aᵀ (A Aᵀ + ridge)⁻¹.

The last is all that the methods of `scoresde.guidance.methods` need beside A and Aᵀ: with ridge 0 it is the
pseudo-inverse A⁺, and Aᵀ (r² A Aᵀ + s²)⁻¹ = inverse(·, s²/r²)/r². Along a singular vector of value d it multiplies by
d/(d² + ridge), which a ``cap`` bounds: noise in y is amplified no more than that. As Aᵀ (A Aᵀ + ridge)⁻¹ =
(Aᵀ A + ridge)⁻¹ Aᵀ, it is a product wherever Aᵀ A is known in some basis; else it is by the singular values of small
events and by conjugate gradients (Hestenes & Stiefel 1952) of large ones. An operator of your own derives from `Linear`
and writes ``__call__`` and ``adjoint``, or is a `LinearMap`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import inf, prod

import torch
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.schedule import like, per_sample

Ridge = float | Tensor  # one number, or one per sample
DENSE = 1024  # numbers of the largest event whose operator is made a matrix


class Linear:
    """A linear operator from events of shape ``shape`` to measurements of a shape of their own, both batched.

    A(x) is for x (batch, *shape); ``adjoint`` takes it back: <A x, y> = <x, Aᵀ y>. Unless a subclass knows better
    ``inverse`` is by singular values, beyond 1024 numbers an event by conjugate gradients, at most ``iterations``.
    """

    shape: tuple[int, ...]
    iterations: int = 200

    def __call__(self, x: Tensor) -> Tensor:
        """A x of x (batch, *shape)."""
        raise NotImplementedError

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y, (batch, *shape)."""
        raise NotImplementedError

    def inverse(self, y: Tensor, ridge: Ridge = 0.0, cap: Ridge = inf) -> Tensor:
        """Aᵀ (A Aᵀ + ridge)⁻¹ y, (batch, *shape), with no gain above ``cap``; with ridge 0 the pseudo-inverse A⁺ y.

        Conjugate gradients know no gains: there the ridge is at least 1/(2 cap)², which bounds them smoothly.
        """
        if prod(self.shape) <= DENSE:
            return self._dense(y).inverse(per_sample(y), ridge, cap)
        b = self.adjoint(y)
        add = torch.maximum(like(ridge, b), 0.25 / like(cap, b) ** 2)
        return conjugate_gradients(lambda v: self.adjoint(self(v)) + add * v, b, self.iterations)

    def check(self, x: Tensor) -> Tensor:
        """Return x if its events have this operator's shape, else raise `BadInput`."""
        if tuple(x.shape[1:]) != self.shape:
            raise BadInput(
                f"operator {type(self).__name__} is for events of shape {self.shape}, got x of shape {tuple(x.shape)}"
            )
        return x

    def matrix(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Tensor:
        """A as a matrix (measurements, events), both flattened: for small events."""
        eye = torch.eye(prod(self.shape), dtype=dtype, device=device).reshape(-1, *self.shape)
        return per_sample(self(eye)).mT

    def _dense(self, y: Tensor) -> Matrix:
        """A as a `Matrix` where y is, made once."""
        made: dict[object, Matrix] = self.__dict__.setdefault("_matrices", {})
        if (at := (y.dtype, y.device)) not in made:
            with torch.inference_mode(False), torch.no_grad():
                made[at] = Matrix(self.matrix(*at), self.shape)
        return made[at]


def conjugate_gradients(apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int) -> Tensor:
    """v with M v = b of a symmetric M >= 0, each sample for itself (Hestenes & Stiefel 1952).

    ``apply`` is v -> M v. From v = 0, so that v stays in the range of M: the shortest solution where M is singular.

    >>> conjugate_gradients(lambda v: 2 * v, torch.ones(1, 3), 10)
    tensor([[0.5000, 0.5000, 0.5000]])
    """

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return like(per_sample(u * v).sum(1), u)

    v, r, p = torch.zeros_like(b), b, b
    rr = dot(r, r)
    enough = rr * (10 * torch.finfo(b.dtype).eps) ** 2
    for _ in range(iterations):
        open_ = rr > enough
        if not bool(open_.any()):
            break
        q = apply(p)
        step = torch.where(open_, rr / dot(p, q).clamp(min=torch.finfo(b.dtype).tiny), 0)
        v, r = v + step * p, r - step * q
        new = dot(r, r)
        p, rr = r + torch.where(open_, new / rr, 0) * p, torch.where(open_, new, rr)
    return v


def plane(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of events that are images, else `BadInput`."""
    if len(shape) < 2:
        raise BadInput(f"operator {name}: events of shape {shape} are no images (..., height, width)")
    return shape[-2], shape[-1]


@dataclass(frozen=True, eq=False)
class Matrix(Linear):
    """A given matrix (m, D) on events of D numbers, of any shape: y has shape (batch, m).

    ``inverse`` is by the singular values; those below 1e-6 of the largest (1e-12 of a float64 y) count as zero.

    >>> A = Matrix(torch.tensor([[1.0, 1.0]]), (2,))
    >>> A(torch.tensor([[1.0, 2.0]])), A.inverse(torch.tensor([[3.0]]))
    (tensor([[3.]]), tensor([[1.5000, 1.5000]]))
    """

    entries: Tensor
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.entries.ndim != 2 or self.entries.shape[1] != prod(self.shape):
            raise BadInput(
                f"Matrix of shape {tuple(self.entries.shape)}: events of shape {self.shape} need"
                f" (m, {prod(self.shape)})"
            )

    @cached_property
    @torch.inference_mode(False)  # gradients may be asked of it later
    def _svd(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.linalg.svd(self.entries.double(), full_matrices=False)

    def __call__(self, x: Tensor) -> Tensor:
        return per_sample(self.check(x)) @ self.entries.to(x).mT

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.entries.to(y)).reshape(-1, *self.shape)

    def inverse(self, y: Tensor, ridge: Ridge = 0.0, cap: Ridge = inf) -> Tensor:
        left, s, right = (part.to(y) for part in self._svd)
        gain = torch.minimum(s / (s**2 + like(ridge, y)), like(cap, y))
        gain = torch.where(s > (1e-12 if y.dtype == torch.float64 else 1e-6) * s[0], gain, 0)
        return ((y @ left) * gain @ right).reshape(-1, *self.shape)


@dataclass(frozen=True, eq=False)
class LinearMap(Linear):
    """Any linear callable x (batch, *shape) -> y (batch, ...), with its adjoint, or with that found by autograd.

    >>> sums = LinearMap(lambda x: x.sum(-1), (4, 3))
    >>> sums.adjoint(torch.ones(2, 4)).shape, sums.inverse(torch.ones(1, 4))[0, 0]
    (torch.Size([2, 4, 3]), tensor([0.3333, 0.3333, 0.3333]))
    """

    forward: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    transposed: Callable[[Tensor], Tensor] | None = None
    iterations: int = 200

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(self.check(x))

    def adjoint(self, y: Tensor) -> Tensor:
        if self.transposed:
            return self.transposed(y)
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.zeros(len(y), *self.shape, dtype=y.dtype, device=y.device, requires_grad=True)
            (out,) = torch.autograd.grad(self.forward(x), x, y.clone(), create_graph=y.requires_grad)
        return out
