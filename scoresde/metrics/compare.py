"""All the figures that suit two sets, each with its interval and what two sets of real events give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import NamedTuple

from torch import Tensor

from scoresde.metrics.bootstrap import bootstrap
from scoresde.metrics.coverage import PRDC, prdc
from scoresde.metrics.energy import energy_distance, gaussian_mmd, median_distance
from scoresde.metrics.frechet import frechet_distance
from scoresde.metrics.kid import kernel_distance
from scoresde.metrics.two_sample import two_sample_accuracy
from scoresde.metrics.wasserstein import sliced_wasserstein, wasserstein

SHARE, POSITIVE = (0.0, 1.0), (0.0, inf)  # ends of figures
Z = 1.96  # of a normal distribution, 95 % lie within so many standard deviations


class Row(NamedTuple):
    """A figure: its interval of 95 % and how that was found, its value for two real sets of this n, or None."""

    name: str
    value: float
    low: float
    high: float
    by: str
    floor: float | None
    n: int
    m: int


class Group(NamedTuple):
    """Figures that come from one computation; ``error`` marks a pair of a figure and its own standard error.

    ``ends`` are the least and largest values that each figure can have, where any are given.
    """

    names: tuple[str, ...]
    statistic: Callable[[Tensor, Tensor], Sequence[float]]
    error: bool = False
    ends: tuple[tuple[float, float], ...] = ()


def compare(
    groups: Iterable[Group],
    real: Tensor,
    fake: Tensor,
    other: Tensor | None = None,
    draws: int = 100,
    seed: int = 0,
    done: Callable[[int], None] = lambda count: None,
) -> list[Row]:
    """Every figure of the groups for real (n, d) and fake (m, d) points, and for real against ``other`` real ones.

    Intervals are those of `bootstrap`, clipped to what the figure can be: it is in them, and so is its mean; a figure
    with a standard error of its own has value ± 1.96 of them.

    >>> import torch
    >>> x, y, z = torch.randn(3, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> rows = compare(point_groups(x, y + 1), x, y + 1, z, draws=20)
    >>> [row.name for row in rows], all(row.floor < row.value for row in rows)
    (['W2', 'sliced W2', 'energy distance', 'MMD²', '1-NN accuracy'], True)
    """
    rows: list[Row] = []
    for names, statistic, error, ends in groups:
        floor = list[float | None](statistic(real, other)) if other is not None else [None] * len(names)
        if error:
            value, deviation = statistic(real, fake)
            found, by = [(value, value - Z * deviation, value + Z * deviation)], "jackknife"
            done(draws)
        else:
            found, by = bootstrap(statistic, real, fake, draws, seed, done=done), f"bootstrap of {draws}"
        ranges = ends or ((-inf, inf),) * len(names)
        for name, (value, low, high), real_to_real, (least, most) in zip(
            names, found, floor[: len(names)], ranges, strict=True
        ):
            low, high = (min(max(end, least), most) for end in (low, high))
            rows.append(Row(name, value, low, high, by, real_to_real, len(real), len(fake)))
    return rows


def figures_of(groups: Iterable[Group], real: Tensor, parts: Sequence[Tensor]) -> dict[str, list[float]]:
    """Every figure of the groups for each of several sets of fakes against the same real events; {} where none are.

    >>> import torch
    >>> x, y, z = torch.randn(3, 100, 2, generator=torch.Generator().manual_seed(0))
    >>> figures_of(point_groups(x, y), x, [y, y])["W2"] == 2 * [wasserstein(x, y).value]
    True
    """
    if not parts:
        return {}
    found: dict[str, list[float]] = {}
    for names, statistic, _, _ in groups:
        each = [statistic(real, part) for part in parts]
        found |= {name: [float(values[k]) for values in each] for k, name in enumerate(names)}
    return found


def point_groups(real: Tensor, fake: Tensor) -> list[Group]:
    """The figures of points; the bandwidth of the MMD is set once, by these two sets.

    >>> import torch
    >>> len(point_groups(torch.zeros(2, 1), torch.ones(2, 1)))
    5
    """
    width = median_distance(real, fake) or 1.0
    return [
        Group(("W2",), lambda a, b: [wasserstein(a, b).value], ends=(POSITIVE,)),
        Group(("sliced W2",), lambda a, b: [sliced_wasserstein(a, b).value], ends=(POSITIVE,)),
        Group(("energy distance",), lambda a, b: [energy_distance(a, b).value]),
        Group(("MMD²",), lambda a, b: [gaussian_mmd(a, b, width).value]),
        Group(("1-NN accuracy",), lambda a, b: [two_sample_accuracy(a, b).value], ends=(SHARE,)),
    ]


def feature_groups(n: int, frechet: bool = True, k: int = 5) -> list[Group]:
    """The figures of images in a feature space; the name of the Fréchet distance tells its n.

    >>> [group.names[0] for group in feature_groups(5000)]
    ['KID', 'FD-5k', 'precision']
    """
    kid = Group(("KID",), lambda a, b: list(kernel_distance(a, b)), error=True)
    distance = Group((frechet_name(n),), lambda a, b: [frechet_distance(a, b, allow_small=True)], ends=(POSITIVE,))
    overlap = Group(PRDC._fields, lambda a, b: list(prdc(a, b, k)), ends=(SHARE, SHARE, POSITIVE, SHARE))
    return [kid, distance, overlap] if frechet else [kid, overlap]


def frechet_name(n: int) -> str:
    """FD-5k, FD-2048: a Fréchet distance is not one figure but one for each n.

    >>> frechet_name(10_000), frechet_name(2048)
    ('FD-10k', 'FD-2048')
    """
    return f"FD-{n}" if n % 1000 else f"FD-{n // 1000}k"
