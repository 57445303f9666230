"""Augmentation of images: mirroring, and the geometric transformations that a network is told of, so that they do not
leak into its samples."""

from math import pi

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from scoresde.errors import BadInput

NAMES = ("x-flip", "y-flip", "scaling", "cos a - 1", "sin a", "stretch 1", "stretch 2", "shift x", "shift y")
LABELS = len(NAMES)
_SCALE, _SHIFT = 0.2, 0.125  # standard deviations: of log2 of a factor, of a shift in widths and heights


def augment(x: Tensor, generator: Generator, p: float = 0.12, mirror: float | None = None) -> tuple[Tensor, Tensor]:
    """Images under random geometric transformations, and the labels (n, 9) that say which.

    A network that is given the labels in training, and zeros when it samples, learns from the transformed images and
    draws untransformed ones. Each transformation is applied with probability p: mirroring left to right and upside down
    (of an image so chosen, every second one), scaling by 2^(0.2 N), rotation by an angle uniform in [-π, π], stretching
    by 2^(0.2 N) along a direction and by the inverse across it, and shifts by 0.125 N widths and heights, N standard
    normal.

    Args:
        x: (n, C, H, W), floating point, on any device.
        generator: a CPU generator; how much is drawn depends on n alone.
        p: the probability, from 0 to 1; at 0 the images come back as they are.
        mirror: the probability of the first one, if another: at 1, as in the published runs, every second image is
            mirrored.

    Returns:
        The images, and float32 labels on their device, as `transform` takes them: zeros where an image is untouched.

    Raises:
        BadInput: no images of floating point, or a probability out of range.

    Source: T. Karras, M. Aittala, T. Aila, S. Laine 2022 (arXiv:2206.00364), appendix F.2 and table 6. The direction of
    stretching is drawn from half a turn, not from a whole one: that is the same law of images, but in a whole turn
    every label names two transformations, of which one undoes the other.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> y, labels = augment(torch.randn(5, 3, 8, 8, generator=generator), generator)
        >>> y.shape, labels.shape
        (torch.Size([5, 3, 8, 8]), torch.Size([5, 9]))
    """
    labels = augmentations(len(x), generator, p, mirror)
    return transform(x, labels), labels.to(x.device)


def augmentations(n: int, generator: Generator, p: float = 0.12, mirror: float | None = None) -> Tensor:
    """Labels (n, 9) of as many random transformations, as `augment` draws them.

    Example:
        >>> augmentations(2, torch.Generator().manual_seed(0), p=0.0)
        tensor([[0., 0., 0., 0., 0., 0., 0., 0., 0.],
                [0., 0., 0., 0., 0., 0., 0., 0., 0.]])
    """
    chances = torch.full((6,), p, dtype=torch.float64)
    chances[0] = p if mirror is None else mirror
    if not bool(((chances >= 0) & (chances <= 1)).all()):
        raise BadInput(f"p = {p!r}, mirror = {mirror!r}: probabilities are from 0 to 1")
    on = (torch.rand(n, 6, generator=generator, dtype=torch.float64) < chances).float()
    flips = torch.randint(2, (n, 2), generator=generator)
    normal = torch.randn(n, 4, generator=generator)
    turn, direction = pi * torch.rand(2, n, generator=generator) * torch.tensor([[2.0], [1.0]]) - pi * torch.tensor(
        [[1.0], [0.5]]
    )
    columns = (
        on[:, 0] * flips[:, 0],
        on[:, 1] * flips[:, 1],
        on[:, 2] * normal[:, 0],
        on[:, 3] * (turn.cos() - 1),
        on[:, 3] * turn.sin(),
        on[:, 4] * normal[:, 1] * direction.cos(),
        on[:, 4] * normal[:, 1] * direction.sin(),
        on[:, 5] * normal[:, 2],
        on[:, 5] * normal[:, 3],
    )
    return torch.stack(columns, dim=1)


def transform(x: Tensor, labels: Tensor) -> Tensor:
    """Images (n, C, H, W) under the transformations that `labels` (n, 9) name.

    With f₁, f₂, s, c, d, u, v, h, k for the columns (`NAMES`), and z = (x, y) in units of pixels from the middle, y
    downward, an image I becomes I(G⁻¹ z), where

        G = T(h W/8, k H/8) · R(b) diag(2^(0.2 w), 2^(-0.2 w)) R(-b) · R(-a) · 2^(0.2 s) · diag((-1)^f₁, (-1)^f₂),

    R is the rotation (cos, -sin; sin, cos), a = atan2(d, c + 1), and (u, v) = w (cos b, sin b), |b| <= π/2: the sign
    of w is that of u, so that the labels determine G. Mirroring is exact; the rest is one bilinear interpolation,
    images going on past their edges as in a mirror. An image whose labels are zeros is returned bitwise.

    Example:
        >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> upside_down = torch.tensor([[0.0, 1, 0, 0, 0, 0, 0, 0, 0]])
        >>> transform(x, upside_down).tolist()
        [[[[3.0, 4.0], [1.0, 2.0]]]]
    """
    _check_images(x)
    if tuple(labels.shape) != (len(x), LABELS):
        raise BadInput(f"labels must have shape ({len(x)}, {LABELS}), not {tuple(labels.shape)}")
    values = labels.detach().cpu().double()
    x = mirrored(mirrored(x, values[:, 0] != 0, -1), values[:, 1] != 0, -2)
    rows = (values[:, 2:] != 0).any(dim=1).nonzero().flatten()
    if not len(rows):
        return x
    height, width = x.shape[-2:]
    back = _inverse(values[rows], height, width).to(x.device, x.dtype)
    rows = rows.to(x.device)
    grid = F.affine_grid(back, [len(rows), *x.shape[1:]], align_corners=False)
    return x.index_copy(0, rows, F.grid_sample(x[rows], grid, "bilinear", "reflection", align_corners=False))


def _inverse(labels: Tensor, height: int, width: int) -> Tensor:
    """G⁻¹ less the mirroring, (n, 2, 3), in the coordinates of `affine_grid`, where edges are at -1 and 1."""
    s, c, d, u, v, h, k = labels[:, 2:].unbind(dim=1)
    a, w = torch.atan2(d, c + 1), torch.where(u < 0, -1.0, 1.0) * torch.hypot(u, v)
    b = torch.atan(v / torch.where(u == 0, 1.0, u)) + torch.where(u == 0, pi / 2 * v.sign(), 0.0)
    stretch = torch.diag_embed(torch.exp2(_SCALE * torch.stack((-w, w), dim=1)))
    linear = _rotation(a) @ _rotation(b) @ stretch @ _rotation(-b) * torch.exp2(-_SCALE * s)[:, None, None]
    half = torch.tensor([width / 2, height / 2], dtype=labels.dtype)
    linear = linear * half / half[:, None]
    shift = 2 * _SHIFT * torch.stack((h, k), dim=1)
    return torch.cat((linear, -linear @ shift[:, :, None]), dim=2)


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, -sin, sin, cos), dim=1).reshape(-1, 2, 2)


def mirrored(x: Tensor, chosen: Tensor, dim: int = -1) -> Tensor:
    """Images (n, C, H, W) with the chosen ones, bool (n,), mirrored along an axis.

    Example:
        >>> mirrored(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([True])).tolist()
        [[[[2.0, 1.0]]]]
    """
    _check_images(x)
    return torch.where(chosen.to(x.device).reshape(-1, 1, 1, 1), x.flip(dim), x)


def _check_images(x: Tensor) -> None:
    if x.ndim != 4 or not x.is_floating_point():
        raise BadInput(f"only images are augmented, floats of shape (n, C, H, W): not {x.dtype} {tuple(x.shape)}")
