"""The analytic start: exact on Gaussian data, nothing at shift 0, and refused where it does not exist."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from exact import F64, SDES, mixture, start

import scoresde
from scoresde import SDE, BadInput, make_grid
from scoresde.analytic_start import AnalyticStart
from scoresde.samplers.multistep import eab3
from scoresde.samplers.ode import ode

MEAN = torch.tensor([0.7, -0.4, 1.5], dtype=F64)
SPREAD = torch.tensor([1.3, 0.25, 0.04], dtype=F64)

CONTINUOUS = {name: sde for name, sde in SDES.items() if name != "ddpm"}  # its flow has a kink at every knot

every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def gaussian_flow(sde: SDE, x: torch.Tensor, t: float, covariance: torch.Tensor) -> torch.Tensor:
    """The probability flow of N(MEAN, covariance) from t_max to t, by rk4 in φ."""
    denoiser = scoresde.Gaussian(MEAN, covariance).denoiser(sde)
    angles = sde.phi(torch.tensor([sde.t_max, t], dtype=F64)).tolist()
    inner = sde.t_of_phi(torch.linspace(*angles, 61, dtype=F64)[1:-1]).tolist()
    return ode(sde, (sde.t_max, *inner, t)).run(denoiser, x)[0]


@pytest.mark.parametrize("shift", [0.5, 3.0])
@pytest.mark.parametrize("variance", [0.3, SPREAD], ids=["isotropic", "diagonal"])
@pytest.mark.parametrize("sde", CONTINUOUS.values(), ids=CONTINUOUS)
def test_exact_on_gaussian_data(sde: SDE, variance: float | torch.Tensor, shift: float) -> None:
    begin, x = AnalyticStart(MEAN, variance, shift), start(sde, (4, 3))
    t = begin.time(sde)
    lam = sde.lam(torch.tensor([sde.t_max, t], dtype=F64))
    assert float(lam[1] - lam[0]) == pytest.approx(shift, rel=1e-9)
    covariance = torch.as_tensor(variance, dtype=F64).expand(3).diag()
    flow = gaussian_flow(sde, x, t, covariance)
    assert (begin.state(sde, x) - flow).abs().max() < 1e-8 * float(flow.abs().max())


@every_sde
def test_carries_the_marginal_of_the_data_into_that_of_a_later_time(sde: SDE) -> None:
    """A state of the law N(α μ, α² s² + σ²) at t_max has that law at t_0: the map is affine, so mean and std tell."""
    begin = AnalyticStart(MEAN, SPREAD, 2.0)
    at = sde.knots([sde.t_max, begin.time(sde)])
    mean = [alpha * MEAN for alpha in at.alpha]
    std = [(a**2 * SPREAD + s**2).sqrt() for a, s in zip(at.alpha, at.sigma, strict=True)]
    for z in (-1.0, 0.0, 2.0):
        moved = begin.state(sde, (mean[0] + z * std[0]).unsqueeze(0))
        assert moved[0] == pytest.approx(mean[1] + z * std[1], rel=1e-12, abs=1e-12)


@every_sde
def test_without_a_shift_it_is_the_identity(sde: SDE) -> None:
    for dtype in (torch.float32, F64):
        x = start(sde, (4, 3)).to(dtype)
        for begin in (AnalyticStart(MEAN, 0.3, 0.0), AnalyticStart(0.2, SPREAD, 0.0)):
            assert begin.time(sde) == sde.t_max and torch.equal(begin.state(sde, x), x)


def test_one_step_of_two_is_one_step() -> None:
    """The maps compose: a start by 2 is a start by 1, then by 1 from there."""
    full = scoresde.VPSDE()
    first = AnalyticStart(MEAN, 0.3, 1.0)
    rest = scoresde.VPSDE(t_max=first.time(full))
    x = start(full, (4, 3))
    twice, once = first.state(rest, first.state(full, x)), AnalyticStart(MEAN, 0.3, 2.0).state(full, x)
    assert first.time(rest) == pytest.approx(AnalyticStart(MEAN, 0.3, 2.0).time(full), rel=1e-12)
    assert (twice - once).abs().max() < 1e-12


@pytest.mark.parametrize("event", [(), (2,), (3, 4, 4)])
def test_shapes_dtypes_and_numbers(event: tuple[int, ...]) -> None:
    """Any event shape; a number, a tensor of that number, and one per sample are the same start; x's dtype is kept."""
    sde = SDES["vp"]
    x = start(sde, (5, *event))
    one = AnalyticStart(0.3, 0.5).state(sde, x)
    for shape in (event, (5, *event)):
        assert torch.equal(AnalyticStart(torch.full(shape, 0.3, dtype=F64), 0.5).state(sde, x), one)
        assert torch.equal(AnalyticStart(0.3, torch.full(shape, 0.5, dtype=F64)).state(sde, x), one)
    single = AnalyticStart(0.3, 0.5).state(sde, x.float())
    assert single.dtype == torch.float32 and (single - one).abs().max() < 1e-5


def test_each_sample_may_have_its_own_mean() -> None:
    """The mean of its class: as the starts of the samples alone, in any batch."""
    sde, labels = SDES["vp"], torch.tensor([0, 1, 1, 0, 1])
    means, x = torch.stack([MEAN, -MEAN]), start(SDES["vp"], (5, 3))
    together = AnalyticStart(means[labels], 0.3, 2.0)
    out = together.state(sde, x)
    for i, label in enumerate(labels.tolist()):
        alone = AnalyticStart(means[label], 0.3, 2.0).state(sde, x[i : i + 1])
        assert (out[i : i + 1] - alone).abs().max() < 1e-14
    for rows in (slice(0, 2), slice(2, 5)):
        assert torch.equal(together.rows(rows, x.ndim).state(sde, x[rows]), out[rows])
    same = AnalyticStart(MEAN, SPREAD, 2.0)
    assert torch.equal(same.rows(slice(2, 5), x.ndim).state(sde, x[2:]), same.state(sde, x)[2:])


def test_gradients_flow_to_the_state() -> None:
    sde = SDES["vp"]
    x = start(sde, (2, 3)).requires_grad_()
    AnalyticStart(MEAN, 0.3, 2.0).state(sde, x).sum().backward()
    assert x.grad is not None and bool((x.grad > 0).all())


def test_measured_on_data() -> None:
    x = MEAN + SPREAD.sqrt() * torch.randn(5000, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    for data in (x, x.float(), x.float() + 0.0):
        whole, each = AnalyticStart.from_data(data), AnalyticStart.from_data(data, 3.0, per_coordinate=True)
        assert torch.as_tensor(whole.mean) == pytest.approx(x.mean(0), rel=1e-5)
        assert float(whole.variance) == pytest.approx(float((x - x.mean(0)).square().mean()), rel=1e-5)
        assert torch.as_tensor(each.variance) == pytest.approx((x - x.mean(0)).square().mean(0), rel=1e-5)
        assert (whole.shift, each.shift) == (2.0, 3.0)
    far = AnalyticStart.from_data((x + 1e6).float().double())  # a mean far from 0 costs no digit of the variance
    assert float(far.variance) == pytest.approx(float(AnalyticStart.from_data(x).variance), rel=1e-2)


@every_sde
def test_smaller_error_of_as_many_calls(sde: SDE) -> None:
    """On a mixture, which is no Gaussian: with 8 calls of a third-order solver a start by 2 saves a fifth at least."""
    data = mixture(2)
    mean, covariance = data.moments()
    denoiser, x = data.denoiser(sde), start(sde, (256, 2))
    flow = ode(sde, make_grid("phi", sde, 40)).run(denoiser, x)[0]
    errors = []
    for shift in (0.0, 2.0):
        begin = AnalyticStart(mean, float(covariance.diagonal().mean()), shift)
        times = make_grid("lambda", sde, 8, "t_min", begin.time(sde))
        out, calls = eab3(sde, times).run(denoiser, begin.state(sde, x))
        assert calls == 8
        errors.append(float((out - flow).square().mean().sqrt()))
    assert errors[1] < 0.8 * errors[0]


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: AnalyticStart(0.0, 1.0, -0.1), r"shift = -0\.1"),
        (lambda: AnalyticStart(0.0, 1.0, math.inf), "shift = inf"),
        (lambda: AnalyticStart(0.0, 1.0, math.nan), "shift = nan"),
        (lambda: AnalyticStart(0.0, 0.0), "variance = 0: an analytic start needs data of a positive variance"),
        (lambda: AnalyticStart(0.0, -1.0), "variance = -1"),
        (lambda: AnalyticStart(0.0, math.nan), "variance = nan"),
        (lambda: AnalyticStart(0.0, torch.tensor([1.0, -0.5])), r"variance from -0\.5"),
        (lambda: AnalyticStart(0.0, torch.zeros(3)), "variance from 0"),
        (lambda: AnalyticStart(math.nan), "finite mean"),
        (lambda: AnalyticStart.from_data(torch.ones(4, 2)), "variance = 0"),
        (lambda: AnalyticStart.from_data(torch.ones(1, 2)), "1 of data: .* at least 2 samples"),
        (lambda: AnalyticStart(shift=15.0).time(SDES["vp"]), r"shift = 15: from t_max to t_min .* λ rises by 9\.58"),
        (
            lambda: AnalyticStart().time(scoresde.DDPM.named("linear", zero_terminal_snr=True)),
            "λ is -∞ at t_max of DDPM",
        ),
        (lambda: AnalyticStart(MEAN).state(SDES["vp"], torch.zeros(5, 2)), r"mean .* shape \(3,\): give .*, \(2,\)"),
        (
            lambda: AnalyticStart(MEAN).state(SDES["vp"], torch.zeros(4)),
            r"mean .* \(3,\): give .*, \(\), or of all states",
        ),
        (lambda: AnalyticStart(0.0, torch.ones(4, 2)).state(SDES["vp"], torch.zeros(5, 2)), r"variance .* \(5, 2\)"),
    ],
)
def test_bad_starts_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        inspect.unwrap(make)()
    assert "\n" not in str(caught.value)
