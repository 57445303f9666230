"""Paths between latents: along the great circle, which keeps the length that noise has (Shoemake 1985)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.errors import BadInput, choose, positive
from scoresde.schedule import like, per_sample

PATHS = ("slerp", "lerp")


def interpolate(
    a: Float[Tensor, "batch *event"], b: Float[Tensor, "batch *event"], n: int, path: str = "slerp"
) -> Float[Tensor, "n batch *event"]:
    """n latents from a to b, both included, sample by sample: at the share u, with θ the angle between a and b,

        slerp(a, b; u) = sin((1-u) θ)/sin θ a + sin(u θ)/sin θ b,

    and (1-u) a + u b for "lerp", or where the two point the same way. Opposite ones have no shortest way: refused.

    >>> import torch
    >>> interpolate(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 3)[1]
    tensor([[0.7071, 0.7071]])
    """
    choose("path", path, PATHS)
    if a.shape != b.shape or a.dtype != b.dtype or not a.is_floating_point():
        raise BadInput(f"a and b must be alike, got {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}")
    if not bool((a.isfinite() & b.isfinite()).all()):
        raise BadInput("interpolate: latents are finite numbers")
    share = torch.linspace(0, 1, positive("n", n), dtype=a.dtype, device=a.device).reshape(-1, *[1] * a.ndim)
    if path == "lerp":
        return (1 - share) * a + share * b
    one, other = per_sample(a), per_sample(b)
    if not bool((one.any(1) & other.any(1)).all()):
        raise BadInput("slerp: a latent of zeros points nowhere: use 'lerp'")
    one, other = one / one.norm(dim=1, keepdim=True), other / other.norm(dim=1, keepdim=True)
    # Half the angle by its tangent: no digits are lost near 0 and π, as they are by the cosine.
    theta = like(2 * torch.atan2((one - other).norm(dim=1), (one + other).norm(dim=1)), a)
    if bool((torch.pi - theta < 1e3 * torch.finfo(a.dtype).eps).any()):
        raise BadInput("slerp: two latents point opposite ways, so no great circle between them is the shortest")
    near = theta < torch.finfo(a.dtype).eps ** 0.5
    theta = torch.where(near, 1.0, theta)
    first = torch.where(near, 1 - share, torch.sin((1 - share) * theta) / theta.sin())
    second = torch.where(near, share, torch.sin(share * theta) / theta.sin())
    return first * a + second * b
