"""Figures of points: closed forms of Gaussians, invariances, what equal distributions give; bootstrap intervals."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from scoresde import GaussianMixture
from scoresde.errors import BadInput
from scoresde.metrics import (
    Measured,
    bootstrap,
    energy_distance,
    gaussian_mmd,
    high_quality_share,
    kernel_distance,
    median_distance,
    mode_coverage,
    sliced_wasserstein,
    two_sample_accuracy,
    wasserstein,
)

FIGURES: dict[str, Callable[[Tensor, Tensor], Measured]] = {
    "wasserstein": wasserstein,
    "sliced": sliced_wasserstein,
    "energy": energy_distance,
    "mmd": gaussian_mmd,
    "accuracy": two_sample_accuracy,
}
UNBIASED = ("energy", "mmd")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    figures = torch.tensor(values, dtype=torch.float64)
    return float(figures.mean()), float(figures.std()) / math.sqrt(len(values))


# --------------------------------------------------------------------------------------------------- what they share


@pytest.mark.parametrize("name", FIGURES)
def test_figures_grow_with_the_distance_of_the_sets(name: str) -> None:
    x, y = normal(0, 200, 3), normal(1, 200, 3)
    values = [FIGURES[name](x, y + shift).value for shift in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values) and len(set(values)) == 4
    assert FIGURES[name](x, y)[1:] == (200, 200)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_depend_on_neither_order_nor_side_nor_place(name: str) -> None:
    x, y = normal(0, 90, 3), 1.3 * normal(1, 90, 3) + 0.3
    x[7], y[5] = x[3], x[3]  # ties
    expected = FIGURES[name](x, y).value
    order = torch.randperm(90, generator=torch.Generator().manual_seed(2))
    for a, b in [(x[order], y[order.flip(0)]), (y, x), (x + 5, y + 5)]:
        assert FIGURES[name](a, b).value == pytest.approx(expected, abs=1e-6)
    assert FIGURES[name](x.float(), y.float()).value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_refuse_nan_and_other_shapes(name: str) -> None:
    x = normal(0, 10, 2)
    for pair, words in [((x, x / 0), "row 0"), ((x, x[:, :1]), "2 features and fake 1"), ((x, x[:1]), "n = 1")]:
        with pytest.raises(BadInput, match=words):
            FIGURES[name](*pair)
    if name in ("wasserstein", "accuracy"):
        with pytest.raises(BadInput, match="10 real and 9 fake"):
            FIGURES[name](x, x[:9])


# -------------------------------------------------------------------------------------------------------- Wasserstein


def transport(x: Tensor, y: Tensor, order: int) -> float:
    """The linear programme of optimal transport, written out."""
    n, m = len(x), len(y)
    cost = torch.cdist(x, y).pow(order)
    rows = torch.cat([torch.eye(n).repeat_interleave(m, 1), torch.eye(m).repeat(1, n)])
    masses = torch.cat([torch.full((n,), 1 / n), torch.full((m,), 1 / m)]).double()
    return float(linprog(cost.flatten().numpy(), A_eq=rows.numpy(), b_eq=masses.numpy()).fun) ** (1 / order)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_wasserstein_distances_are_those_of_optimal_transport(order: int) -> None:
    x, y = normal(0, 8, 2), normal(1, 8, 2) + 0.5
    assert wasserstein(x, y, order).value == pytest.approx(transport(x, y, order), rel=1e-6)
    x, y = normal(2, 9, 1), normal(3, 6, 1)  # on a line one direction is all, and the sizes may differ
    assert sliced_wasserstein(x, y, order, directions=3).value == pytest.approx(transport(x, y, order), rel=1e-6)


@pytest.mark.parametrize("d", [1, 2, 8])
def test_a_shift_is_measured_whole_by_assignment_and_by_its_projections_on_lines(d: int) -> None:
    """mean (θ·m)² = |m|² / d, whose standard deviation over θ is below √2 |m|² / d."""
    x, shift = normal(0, 100, d), normal(1, d)
    size = float(shift.norm())
    assert wasserstein(x, x + shift).value == pytest.approx(size, rel=1e-9)
    sliced = sliced_wasserstein(x, (x + shift).flip(0), directions=4000)
    assert sliced.value**2 == pytest.approx(size**2 / d, rel=4 * math.sqrt(2 / 4000) if d > 1 else 1e-9)
    assert sliced == sliced_wasserstein(x, (x + shift).flip(0), directions=4000)
    assert d == 1 or sliced != sliced_wasserstein(x, (x + shift).flip(0), directions=4000, seed=1)


# ----------------------------------------------------------------------------------------------------- energy and MMD


@pytest.mark.parametrize("shift", [0.0, 0.4, 2.0])
def test_the_energy_distance_of_two_gaussians_is_the_closed_form_in_the_mean(shift: float) -> None:
    """E|N(m, 2)| = (2/√π) exp(-m²/4) + m erf(m/2), so D² = 2 E|N(m, 2)| - 4/√π; 30 points show any bias."""
    exact = 2 * (2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2))
    exact -= 4 / math.sqrt(math.pi)
    mean, error = mean_and_error(
        [energy_distance(normal(2 * i, 30, 1), shift + normal(2 * i + 1, 20, 1)).value for i in range(300)]
    )
    assert abs(mean - exact) < 3.5 * error and error < 0.05


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_mmd_of_two_gaussians_is_the_closed_form_in_the_mean(shift: float) -> None:
    """x - y ~ N(m, 2I): E k = (h²/(h²+2))^(d/2) exp(-|m|² / 2(h²+2))."""
    d, h = 3, 1.5
    same = (h**2 / (h**2 + 2)) ** (d / 2)
    exact = 2 * same * (1 - math.exp(-d * shift**2 / (2 * (h**2 + 2))))
    runs = [gaussian_mmd(normal(2 * i, 30, d), shift + normal(2 * i + 1, 20, d), h).value for i in range(300)]
    mean, error = mean_and_error(runs)
    assert abs(mean - exact) < 3.5 * error and error < 0.01
    assert shift or min(runs) < 0  # unbiased: it goes below 0


def test_the_bandwidth_is_the_median_of_all_pairs() -> None:
    x, y = normal(0, 6, 2), normal(1, 5, 2)
    pooled = torch.cat([x, y]).tolist()
    pairs = sorted(math.dist(a, b) for i, a in enumerate(pooled) for b in pooled[:i])
    assert median_distance(x, y) == pytest.approx(pairs[(len(pairs) - 1) // 2])
    assert gaussian_mmd(x, y) == gaussian_mmd(x, y, median_distance(x, y))
    assert gaussian_mmd(9 * x, 9 * y).value == pytest.approx(gaussian_mmd(x, y).value)
    with pytest.raises(BadInput, match="bandwidth = 0"):
        gaussian_mmd(0 * x, 0 * y)


# ------------------------------------------------------------------------------------------- classifier test and modes


def test_the_two_sample_accuracy_is_a_half_for_equal_distributions_and_one_for_distant_ones() -> None:
    mean, error = mean_and_error(
        [two_sample_accuracy(normal(2 * i, 60, 2), normal(2 * i + 1, 60, 2)).value for i in range(100)]
    )
    # A neighbour is one of 119 others, 59 of them of one's own set.
    assert abs(mean - 59 / 119) < 3.5 * error and error < 0.01
    x = normal(0, 60, 2)
    assert two_sample_accuracy(x, x + 1000).value == 1
    assert two_sample_accuracy(x, x).value == pytest.approx(0)  # each has its copy in the other set
    assert two_sample_accuracy(0 * x, 0 * x).value == pytest.approx(59 / 119)  # nothing but ties


def test_mode_coverage_counts_the_components_that_are_drawn() -> None:
    mixture = GaussianMixture.example(2)
    x = mixture.sample(3000)
    assert mode_coverage(x, mixture) == (1, 3, 3000)
    likeliest = torch.stack([GaussianMixture(torch.ones(1), m[None], c[None]).log_prob(x) for m, c in
                             zip(mixture.means, mixture.covs, strict=True)], dim=1)  # fmt: skip
    which = (likeliest + mixture.weights.log()).argmax(dim=1)
    for k in range(3):
        others = x[which != k]
        few = int(0.1 * float(mixture.weights[k]) * len(others))
        assert mode_coverage(others, mixture).value == pytest.approx(2 / 3)
        assert mode_coverage(torch.cat([others, x[which == k][: few // 2]]), mixture).value == pytest.approx(2 / 3)
        assert mode_coverage(torch.cat([others, x[which == k][: 2 * few]]), mixture).value == 1
    with pytest.raises(BadInput, match="shape"):
        mode_coverage(x[:, :1], mixture)
    with pytest.raises(BadInput, match="NaN"):
        mode_coverage(x / 0, mixture)
    flat = GaussianMixture(torch.ones(1), torch.zeros(1, 2), torch.zeros(1, 2, 2))
    with pytest.raises(BadInput, match="component 0 is singular"):
        mode_coverage(x, flat)


@pytest.mark.parametrize("d", [1, 2, 8])
def test_samples_far_from_all_modes_count_for_none(d: int) -> None:
    """Near is what holds 98.9 % of a Gaussian whatever its dimension and covariance: 3 standard deviations if d = 2."""
    a = normal(3, d, d)
    means = torch.stack([torch.zeros(d), torch.full((d,), 40.0)]).double()
    mixture = GaussianMixture(
        torch.tensor([1.0, 3.0]).double(), means, (a @ a.T + torch.eye(d).double()).expand(2, d, d)
    )
    x, inside = mixture.sample(20_000), -math.expm1(-4.5)
    assert high_quality_share(x, mixture) == (
        pytest.approx(inside, abs=5 * math.sqrt(inside * (1 - inside) / 20_000)),
        2,
        20_000,
    )
    far = 20 + 0.01 * normal(4, 1000, d)
    assert (mode_coverage(far, mixture).value, high_quality_share(far, mixture).value) == (0, 0)
    some = torch.cat([x[:600], far[:400]])
    assert mode_coverage(some, mixture).value == 1
    assert high_quality_share(some, mixture).value == pytest.approx(0.6 * high_quality_share(x[:600], mixture).value)
    with pytest.raises(BadInput, match="high_quality_share: samples have a NaN"):
        high_quality_share(x / 0, mixture)


# ---------------------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("name", ["sliced", "energy", "mmd", "accuracy"])
def test_intervals_of_two_halves_of_one_set_hold_what_equal_distributions_give(name: str) -> None:
    """0, or the mean of the figure at this n: in at least 17 of 20 pairs of halves, where 19 are to be expected."""
    pairs = [normal(i, 120, 2).split(60) for i in range(20)]
    figure = FIGURES[name]
    floor = 0.0 if name in UNBIASED else mean_and_error([figure(x, y).value for x, y in pairs])[0]
    found = [bootstrap(lambda a, b: [figure(a, b).value], x, y, 40, seed=i)[0] for i, (x, y) in enumerate(pairs)]
    assert sum(low <= floor <= high for _, low, high in found) >= 17
    assert all(low <= value <= high for value, low, high in found)


def test_intervals_of_a_mean_have_its_standard_error() -> None:
    x, y = normal(0, 400, 1), 2 * normal(1, 100, 1)
    shift, same = bootstrap(lambda a, b: [float(b.mean() - a.mean()), 1.0], x, y, 1000)
    error = math.sqrt(float(x.var()) / 400 + float(y.var()) / 100)
    assert (shift.high - shift.low) / (2 * 1.96) == pytest.approx(error, rel=0.1)
    assert same == (1, 1, 1)


def test_intervals_follow_the_seed_and_do_not_hold_a_distance_that_is_far() -> None:
    x, y, told = normal(0, 80, 2), normal(1, 90, 2) + 1, list[int]()

    def both(a: Tensor, b: Tensor) -> list[float]:
        return [energy_distance(a, b).value, kernel_distance(a, b).value]

    first = bootstrap(both, x, y, 30, seed=1, done=told.append)
    assert first == bootstrap(both, x, y, 30, seed=1) != bootstrap(both, x, y, 30, seed=2)
    assert first[0].low > 0 and sum(told) == 30
    narrow = bootstrap(both, x, y, 30, seed=1, level=0.5)
    assert first[0].low < narrow[0].low < narrow[0].high < first[0].high
    for given, words in [({"draws": 0}, "draws"), ({"level": 1.0}, "level"), ({"x": x[:3]}, "too few")]:
        with pytest.raises(BadInput, match=words):
            bootstrap(**{"statistic": both, "x": x, "y": y, **given})  # pyright: ignore[reportArgumentType]
