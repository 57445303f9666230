"""Built-in data sets in the plane: f(n, generator) gives n points, (n, 2) float32, spread over about [-4, 4].

The shapes are the usual ones (Grathwohl et al. 2019, FFJORD, and scikit-learn's generators), written out below. All
randomness comes from the given generator; torch's global state is neither read nor changed.
"""

from collections.abc import Callable
from math import pi

import torch
from torch import Generator, Tensor

from scoresde.data.dataset import Dataset
from scoresde.errors import BadInput, choose


def swiss_roll(n: int, generator: Generator) -> Tensor:
    """A spiral band: (r cos r, r sin r) / 4 with r uniform in [3π/2, 9π/2], plus noise of std 0.1.

    Example:
        >>> swiss_roll(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """
    radius = 1.5 * pi * (1 + 2 * _uniform(n, generator))
    return _polar(radius, radius) / 4 + 0.1 * _normal(n, generator)


def moons(n: int, generator: Generator) -> Tensor:
    """Two interleaved half circles of radius 2, around (-1, -0.5) and (1, 0.5), plus noise of std 0.2.

    Example:
        >>> moons(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """
    angle = pi * _uniform(n, generator)
    arc = 2 * _polar(torch.ones(n), angle) - torch.tensor([1.0, 0.5])
    return arc * _signs(n, generator) + 0.2 * _normal(n, generator)


def checkerboard(n: int, generator: Generator) -> Tensor:
    """Uniform on the eight squares of side 2 of one colour in [-4, 4]²: floor(x/2) + floor(y/2) is even.

    Example:
        >>> checkerboard(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """
    x = 4 * _uniform(n, generator) - 2
    y = torch.remainder(x.floor(), 2) + _uniform(n, generator) - 2 * torch.randint(2, (n,), generator=generator)
    return 2 * torch.stack((x, y), dim=1)


def rings(n: int, generator: Generator) -> Tensor:
    """Four circles of radius 1, 2, 3 and 4, equally likely, plus noise of std 0.1.

    Example:
        >>> rings(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """
    angle = 2 * pi * _uniform(n, generator)
    radius = 1 + torch.randint(4, (n,), generator=generator)
    return _polar(radius, angle) + 0.1 * _normal(n, generator)


def spirals(n: int, generator: Generator) -> Tensor:
    """Two arms ±(r cos r, r sin r) / 2.4, r = 3π sqrt(u) with u uniform in [0, 1], plus noise of std 0.1.

    Example:
        >>> spirals(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """
    radius = 3 * pi * _uniform(n, generator).sqrt()
    return _polar(radius, radius) * _signs(n, generator) / 2.4 + 0.1 * _normal(n, generator)


def gaussians(n: int, generator: Generator) -> Tensor:
    """Eight Gaussians of std 0.3, equally likely, with means evenly spaced on the circle of radius 3.

    Example:
        >>> gaussians(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """
    _check(n)
    angle = pi / 4 * torch.randint(8, (n,), generator=generator)
    return _polar(torch.full((n,), 3.0), angle) + 0.3 * _normal(n, generator)


def pinwheel(n: int, generator: Generator) -> Tensor:
    """Five blades: N((1, 0), diag(0.3², 0.1²)) turned by 2πk/5 + exp(x)/4, times 2 (Johnson et al. 2016).

    Example:
        >>> pinwheel(5, torch.Generator().manual_seed(0)).shape
        torch.Size([5, 2])
    """
    x, y = (_normal(n, generator) * torch.tensor([0.3, 0.1]) + torch.tensor([1.0, 0.0])).unbind(dim=1)
    turn = 2 * pi / 5 * torch.randint(5, (n,), generator=generator) + 0.25 * x.exp()
    return 2 * torch.stack((x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()), dim=1)


TOY: dict[str, Callable[[int, Generator], Tensor]] = {
    "swiss_roll": swiss_roll,
    "moons": moons,
    "checkerboard": checkerboard,
    "rings": rings,
    "spirals": spirals,
    "gaussians": gaussians,
    "pinwheel": pinwheel,
}


def toy_set(name: str, n: int = 10_000, seed: int = 0) -> Dataset:
    """The named set as a `Dataset` of n points, the same for the same n and seed.

    Raises:
        BadInput: an unknown name, n < 1, or a seed that is not a whole number in 0..2**63-1.

    Example:
        >>> len(toy_set("moons", n=100, seed=1))
        100
    """
    choose("toy set", name, TOY)
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise BadInput(f"seed must be a whole number in 0..2**63-1, not {seed!r}")
    x = TOY[name](n, torch.Generator().manual_seed(seed))
    return Dataset(x, name=name, source=f"scoresde.data.toy.{name}, n={n}, seed={seed}")


def _check(n: int) -> None:
    if type(n) is not int or n < 1:
        raise BadInput(f"n must be a whole number >= 1, not {n!r}")


def _uniform(n: int, generator: Generator) -> Tensor:
    _check(n)
    return torch.rand(n, generator=generator)


def _normal(n: int, generator: Generator) -> Tensor:
    _check(n)
    return torch.randn(n, 2, generator=generator)


def _signs(n: int, generator: Generator) -> Tensor:
    return 2 * torch.randint(2, (n, 1), generator=generator) - 1


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1)
