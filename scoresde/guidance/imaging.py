"""The measurement operators of imaging, on the last two axes of an event: masks, down-sampling, blur, MRI, CT.

Each is a `Linear` for events (..., height, width), the axes before them carried along; the registry `OPERATORS` makes
them of words, ``parse_operator("blur:2", (1, 28, 28))``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde.errors import BadInput, choose
from scoresde.guidance.operators import Linear, Ridge, plane
from scoresde.guidance.radon import Radon
from scoresde.schedule import like


@dataclass(frozen=True, eq=False)
class Mask(Linear):
    """Only some numbers of an event are seen: y = x[seen], (batch, count); A Aᵀ = 1, so A⁺ = Aᵀ fills with zeros.

    ``seen`` is true (or 1) where x is measured; of any shape that broadcasts to the event's ``shape``.

    >>> A = Mask(torch.tensor([True, False, True]), (3,))
    >>> A(torch.tensor([[1.0, 2.0, 3.0]])), A.inverse(torch.tensor([[1.0, 3.0]]))
    (tensor([[1., 3.]]), tensor([[1., 0., 3.]]))
    """

    seen: Tensor
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        given = self.seen
        try:
            full = given.expand(self.shape)
        except RuntimeError:
            raise BadInput(f"mask of shape {tuple(given.shape)} does not fit events of shape {self.shape}") from None
        if not bool(((full == 0) | (full == 1)).all()) or not bool((full == 1).any()):
            raise BadInput("mask: give true or 1 where an event is seen, false or 0 elsewhere, and see some of it")
        object.__setattr__(self, "seen", full.bool())

    @cached_property
    @torch.inference_mode(False)  # gradients may be asked of it later
    def _where(self) -> Tensor:
        return self.seen.flatten().nonzero()[:, 0]

    def __call__(self, x: Tensor) -> Tensor:
        return self.check(x).reshape(len(x), -1)[:, self._where.to(x.device)]

    def adjoint(self, y: Tensor) -> Tensor:
        out = torch.zeros(len(y), self.seen.numel(), dtype=y.dtype, device=y.device)
        return out.index_copy(1, self._where.to(y.device), y).reshape(-1, *self.shape)

    def inverse(self, y: Tensor, ridge: Ridge = 0.0, cap: Ridge = math.inf) -> Tensor:
        return self.adjoint(y * torch.minimum(1 / (1 + like(ridge, y)), like(cap, y)))


@dataclass(frozen=True, eq=False)
class Downsample(Linear):
    """The means of k x k boxes: y (batch, ..., h/k, w/k); A Aᵀ = 1/k², so A⁺ = k² Aᵀ repeats each number.

    >>> A = Downsample(2, (2, 4))
    >>> A(torch.arange(8.0).reshape(1, 2, 4)), A.inverse(torch.tensor([[[2.5, 4.5]]]))[0, 0]
    (tensor([[[2.5000, 4.5000]]]), tensor([2.5000, 2.5000, 4.5000, 4.5000]))
    """

    k: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        height, width = plane("down", self.shape)
        if self.k < 1 or height % self.k or width % self.k:
            raise BadInput(f"down-sampling by {self.k}: a positive divisor of the image's sides, {height} x {width}")

    def __call__(self, x: Tensor) -> Tensor:
        *_, height, width = self.check(x).shape
        return x.unflatten(-1, (width // self.k, self.k)).unflatten(-3, (height // self.k, self.k)).mean((-3, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        return y.repeat_interleave(self.k, -2).repeat_interleave(self.k, -1) / self.k**2

    def inverse(self, y: Tensor, ridge: Ridge = 0.0, cap: Ridge = math.inf) -> Tensor:
        back = self.adjoint(y)
        return back * torch.minimum(1 / (1 / self.k**2 + like(ridge, back)), self.k * like(cap, back))


@dataclass(frozen=True, eq=False)
class Blur(Linear):
    """Convolution with a Gaussian of ``sigma`` pixels, periodic: y has the shape of x.

    Each frequency f (cycles per pixel) is multiplied by h = exp(-2 π² σ² |f|²). Those with h below ``cutoff`` are
    removed altogether, so that A⁺ amplifies by at most 1/cutoff.

    >>> A = Blur(1.0, (1, 8, 8))
    >>> A(torch.ones(1, 1, 8, 8)).allclose(torch.ones(1))
    True
    """

    sigma: float
    shape: tuple[int, ...]
    cutoff: float = 1e-3

    def __post_init__(self) -> None:
        plane("blur", self.shape)
        if not (math.isfinite(self.sigma) and self.sigma >= 0 and 0 <= self.cutoff < 1):
            raise BadInput(f"blur of {self.sigma:g} pixels, cutoff {self.cutoff:g}: sigma >= 0 and cutoff in [0, 1)")

    @cached_property
    @torch.inference_mode(False)  # gradients may be asked of it later
    def _gain(self) -> Tensor:
        height, width = self.shape[-2:]
        down, across = torch.fft.fftfreq(height).double(), torch.fft.rfftfreq(width).double()
        h = torch.exp(-2 * math.pi**2 * self.sigma**2 * (down[:, None] ** 2 + across**2))
        return torch.where(h >= self.cutoff, h, 0)

    def _filter(self, x: Tensor, gain: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(self.check(x)) * gain.to(x)
        return torch.fft.irfft2(spectrum, s=self.shape[-2:])

    def __call__(self, x: Tensor) -> Tensor:
        return self._filter(x, self._gain)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filter(y, self._gain)

    def inverse(self, y: Tensor, ridge: Ridge = 0.0, cap: Ridge = math.inf) -> Tensor:
        h = self._gain.to(y)
        gain = h / (h**2 + like(ridge, y)).clamp(min=torch.finfo(y.dtype).tiny)
        return self._filter(y, torch.minimum(gain, like(cap, y)))


@dataclass(frozen=True, eq=False)
class Fourier(Linear):
    """MRI of a real image: some lines of its unitary Fourier transform, y (batch, ..., lines, w, 2), the last axis
    real and imaginary part.

    One line of ``acceleration`` is measured: a band of ``center`` of all about frequency 0, the rest drawn by ``seed``.
    For real x, Aᵀ A multiplies a frequency by the mean of "is it seen" and "is its opposite seen": 0, 1/2 or 1. Noise
    of standard deviation s is in both parts of every number.

    >>> A = Fourier(4, (1, 16, 16))
    >>> A(torch.zeros(5, 1, 16, 16)).shape
    torch.Size([5, 1, 4, 16, 2])
    """

    acceleration: float
    shape: tuple[int, ...]
    center: float = 0.08
    seed: int = 0

    def __post_init__(self) -> None:
        height, _ = plane("fourier", self.shape)
        if not 1 <= self.acceleration <= height:
            raise BadInput(f"fourier acceleration {self.acceleration:g}: from 1 to the number of lines, {height}")
        if not 0 <= self.center <= 1:
            raise BadInput(f"fourier center = {self.center:g}: the share of lines always measured, from 0 to 1")

    @cached_property
    @torch.inference_mode(False)  # gradients may be asked of it later
    def lines(self) -> Tensor:
        """The measured lines, as indices of the transform's rows."""
        height = self.shape[-2]
        count = max(1, round(height / self.acceleration))
        by_frequency = torch.fft.fftfreq(height).abs().argsort(stable=True)
        middle = min(count, max(1, round(self.center * height)))
        rest = by_frequency[middle:]
        drawn = rest[torch.randperm(len(rest), generator=torch.Generator().manual_seed(self.seed))[: count - middle]]
        return torch.cat([by_frequency[:middle], drawn]).sort().values

    @cached_property
    @torch.inference_mode(False)  # gradients may be asked of it later
    def _gain(self) -> Tensor:
        """The eigenvalues of Aᵀ A, by row frequency and column frequency."""
        seen = torch.zeros(self.shape[-2], dtype=torch.float64)
        seen[self.lines] = 1
        return ((seen + seen.roll(-1).flip(0)) / 2)[:, None]

    def __call__(self, x: Tensor) -> Tensor:
        lines = torch.fft.fft2(self.check(x), norm="ortho").index_select(-2, self.lines.to(x.device))
        return torch.view_as_real(lines)

    def _spectrum(self, y: Tensor) -> Tensor:
        lines = torch.view_as_complex(y.contiguous())
        full = torch.zeros((len(y), *self.shape), dtype=lines.dtype, device=y.device)
        return full.index_copy(-2, self.lines.to(y.device), lines)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.ifft2(self._spectrum(y), norm="ortho").real

    def inverse(self, y: Tensor, ridge: Ridge = 0.0, cap: Ridge = math.inf) -> Tensor:
        back = self.adjoint(y)
        square = self._gain.to(back)  # singular values of A, squared
        at = square.clamp(min=torch.finfo(back.dtype).tiny)
        weight = torch.where(square > 0, torch.minimum(1 / (at + like(ridge, back)), like(cap, back) * at.rsqrt()), 0)
        return torch.fft.ifft2(torch.fft.fft2(back) * weight).real


def _mask(shape: tuple[int, ...], share: float = 0.5, seed: float = 0) -> Mask:
    """A share of the pixels, drawn by a seed."""
    height, width = plane("mask", shape)
    if not 0 < share <= 1:
        raise BadInput(f"mask:{share:g}: the share of pixels that are seen, above 0 and at most 1")
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(_whole("mask seed", seed)))
    seen = torch.zeros(height * width, dtype=torch.bool)
    seen[order[: max(1, round(share * height * width))]] = True
    return Mask(seen.reshape(height, width), shape)


def _hole(shape: tuple[int, ...], side: float = 12) -> Mask:
    """All but a square of this side in the middle."""
    height, width = plane("hole", shape)
    side = _whole("hole", side)
    if not 0 < side < max(height, width):
        raise BadInput(f"hole:{side}: the side of the hidden square, from 1 to below {max(height, width)}")
    seen = torch.ones(height, width, dtype=torch.bool)
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    seen[top : top + side, left : left + side] = False
    return Mask(seen, shape)


def _whole(name: str, value: float) -> int:
    if value != int(value):
        raise BadInput(f"{name} = {value:g}: a whole number is needed")
    return int(value)


# name: what makes it of an event's shape and the numbers after the name, and what those are.
OPERATORS: dict[str, tuple[Callable[..., Linear], str]] = {
    "mask": (_mask, "share of the pixels seen (0.5), seed (0)"),
    "hole": (_hole, "side of a hidden square in the middle (12)"),
    "down": (lambda shape, k=2: Downsample(_whole("down", k), shape), "factor (2)"),
    "blur": (lambda shape, sigma=2.0, cutoff=1e-3: Blur(sigma, shape, cutoff), "sigma in pixels (2), cutoff (0.001)"),
    "fourier": (
        lambda shape, acceleration=4.0, center=0.08, seed=0: Fourier(
            acceleration, shape, center, _whole("fourier seed", seed)
        ),
        "acceleration (4), share of central lines (0.08), seed (0)",
    ),
    "radon": (lambda shape, angles=16: Radon(_whole("radon", angles), shape), "angles (16)"),
}


def parse_operator(text: str, shape: tuple[int, ...]) -> Linear:
    """The operator of a word for events of a shape: its name in `OPERATORS`, then its numbers, all after colons.

    >>> parse_operator("down:4", (1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 1, 7, 7])
    """
    name, *words = text.split(":")
    build, numbers = OPERATORS[choose("operator", name, OPERATORS)]
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise BadInput(f"operator {text!r}: the words after {name!r} are numbers: {numbers}") from None
    if len(values) > numbers.count("(") or not all(map(math.isfinite, values)):
        raise BadInput(f"operator {text!r}: {name!r} takes at most {numbers.count('(')} finite numbers: {numbers}")
    return build(tuple(shape), *values)
