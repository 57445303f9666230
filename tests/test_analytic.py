"""Exact distributions: densities, scores and denoisers against calculus, quadrature and each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import DDPM, EDM, SDE, BadInput, Empirical, Gaussian, GaussianMixture
from scoresde.analytic import Distribution

F64 = torch.float64
FAMILIES = {name: build() for name, build in scoresde.SDES.items()}
FAMILIES |= {f"ddpm-{betas}": DDPM.named(betas) for betas in ("scaled-linear", "cosine", "sigmoid")}
each = pytest.mark.parametrize("sde", FAMILIES.values(), ids=FAMILIES)

GAUSSIAN = Gaussian(torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([[1.3, 0.4], [0.4, 0.3]], dtype=F64))
POINTS = torch.tensor([[0.0, 1.0], [1.5, -0.5], [-1.0, -1.0], [0.4, 0.2]], dtype=F64)
DATA = {
    "gaussian": GAUSSIAN,
    "mixture-2": GaussianMixture.example(2),
    "mixture-16": GaussianMixture.example(16),
    "points": Empirical(POINTS),
}
any_data = pytest.mark.parametrize("data", DATA.values(), ids=DATA)


def states(data: Distribution, sde: SDE, t: float, n: int = 6) -> Tensor:
    """Draws of x_t."""
    x0 = data.sample(n, seed=1)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
    return sde.perturb(x0, t, noise)


def span(sde: SDE) -> list[float]:
    """Times at both ends and between, even in φ."""
    low, high = (sde.phi(torch.tensor(t, dtype=F64)).item() for t in (sde.t_min, sde.t_max))
    inner = sde.t_of_phi(torch.linspace(low, high, 6, dtype=F64)[1:-1])
    return [sde.t_min, *inner.tolist(), sde.t_max]


# ---------------------------------------------------------------------------------------------------------- identities


@any_data
@each
def test_the_score_is_the_gradient_of_the_log_density(sde: SDE, data: Distribution) -> None:
    for t in span(sde):
        x = states(data, sde, t).requires_grad_()
        (want,) = torch.autograd.grad(data.log_prob(x, sde, t).sum(), x)
        score = data.score(x, sde, t).detach()
        assert torch.allclose(score, want, rtol=1e-9, atol=1e-10 * want.abs().max().item())


@any_data
@each
def test_tweedie(sde: SDE, data: Distribution) -> None:
    for t in span(sde)[:-1]:
        x, time = states(data, sde, t), torch.tensor(t, dtype=F64)
        alpha, sigma = sde.alpha(time), sde.sigma(time)
        want = (x + sigma**2 * data.score(x, sde, t)) / alpha
        assert torch.allclose(data.x0(x, sde, t), want, rtol=1e-8, atol=1e-12 / alpha.item())
        assert torch.allclose(data.predict("eps", x, sde, t), -sigma * data.score(x, sde, t), rtol=1e-12, atol=1e-14)


@any_data
@each
def test_one_time_per_sample_equals_one_by_one(sde: SDE, data: Distribution) -> None:
    t = torch.tensor(span(sde), dtype=F64)
    x = torch.cat([states(data, sde, s, 1) for s in t.tolist()])
    for batched in (data.x0, data.score, data.log_prob):
        alone = torch.cat([batched(x[k : k + 1], sde, s) for k, s in enumerate(t)])
        assert torch.allclose(batched(x, sde, t), alone, rtol=1e-11, atol=1e-13)


@any_data
@each
def test_float32_keeps_its_digits(sde: SDE, data: Distribution) -> None:
    for t in torch.tensor(span(sde)):  # float32 times: both see the same one
        x = states(data, sde, float(t)).float()
        exact = data.x0(x.double(), sde, t.double())
        single = data.x0(x, sde, t)
        assert single.dtype == torch.float32
        # In x0 the state's own rounding counts 1/α times, but never more than the posterior's spread allows.
        assert ((single.double() - exact).abs() <= 2e-5 * (1 + exact.abs())).all()


# ----------------------------------------------------------------------------------------------------------- densities


@pytest.mark.parametrize("data", [GaussianMixture.example(1), Empirical(torch.tensor([[0.0], [1.0], [-2.0]]))])
@each
def test_densities_of_one_dimension_integrate_to_one(sde: SDE, data: Distribution) -> None:
    for t in [*span(sde)[2:], None]:
        if t is None and isinstance(data, Empirical):
            continue
        alpha, sigma = (
            (1.0, 0.0) if t is None else (float(n(torch.tensor(t, dtype=F64))) for n in (sde.alpha, sde.sigma))
        )
        reach = 8 * alpha + 9 * sigma
        x = torch.linspace(-reach, reach, 40001, dtype=F64)
        log_p = data.log_prob(x[:, None]) if t is None else data.log_prob(x[:, None], sde, t)
        assert torch.trapezoid(log_p.exp(), x).item() == pytest.approx(1, abs=1e-9)


@each
def test_the_marginal_of_a_gaussian_is_a_gaussian(sde: SDE) -> None:
    for t in span(sde):
        x, time = states(GAUSSIAN, sde, t), torch.tensor(t, dtype=F64)
        alpha, sigma = sde.alpha(time), sde.sigma(time)
        cov = alpha**2 * GAUSSIAN.cov + sigma**2 * torch.eye(2, dtype=F64)
        want = torch.distributions.MultivariateNormal(alpha * GAUSSIAN.mean, cov)
        assert torch.allclose(GAUSSIAN.log_prob(x, sde, t), want.log_prob(x), rtol=1e-9)
        gain = alpha * torch.linalg.solve(cov, GAUSSIAN.cov).T  # Cov(x_0, x_t) Cov(x_t)⁻¹
        assert torch.allclose(GAUSSIAN.x0(x, sde, t), GAUSSIAN.mean + (x - alpha * GAUSSIAN.mean) @ gain.T, rtol=1e-8)


def test_the_density_of_the_data() -> None:
    data = GaussianMixture.example(2)
    x = data.sample(50)
    each_mode = torch.stack(
        [torch.distributions.MultivariateNormal(m, c).log_prob(x) for m, c in zip(data.means, data.covs, strict=True)],
        1,
    )
    assert torch.allclose(data.log_prob(x), (each_mode + data.weights.log()).logsumexp(1), rtol=1e-11)
    near = EDM(t_min=1e-6)
    assert torch.allclose(data.log_prob(x, near, 1e-6), data.log_prob(x), rtol=1e-6)
    x.requires_grad_()
    (want,) = torch.autograd.grad(data.log_prob(x).sum(), x)
    assert torch.allclose(data.score(x.detach()), want, rtol=1e-9)


# ----------------------------------------------------------------------------------------------------------- denoisers


@each
def test_x0_of_a_mixture_against_quadrature(sde: SDE) -> None:
    data = GaussianMixture.example(1)
    grid = torch.linspace(-10, 10, 20001, dtype=F64)
    prior = data.log_prob(grid[:, None])
    for t in span(sde):
        alpha, sigma = (float(n(torch.tensor(t, dtype=F64))) for n in (sde.alpha, sde.sigma))
        if sigma / alpha < 5e-3:  # narrower than the grid resolves
            continue
        x = states(data, sde, t)
        weight = (prior - 0.5 * ((x - alpha * grid) / sigma) ** 2).softmax(1)
        assert torch.allclose(data.x0(x, sde, t)[:, 0], weight @ grid, rtol=1e-8, atol=1e-9)


@each
def test_x0_of_points_is_their_weighted_mean(sde: SDE) -> None:
    data = Empirical(POINTS)
    for t in span(sde):
        alpha, sigma = (float(n(torch.tensor(t, dtype=F64))) for n in (sde.alpha, sde.sigma))
        for row in states(data, sde, t):
            logs = [-((row - alpha * p) ** 2).sum().item() / (2 * sigma**2) for p in POINTS]
            weights = [math.exp(v - max(logs)) for v in logs]
            want = sum(w * p for w, p in zip(weights, POINTS, strict=True)) / sum(weights)
            assert torch.allclose(data.x0(row[None], sde, t)[0], want, rtol=1e-7, atol=1e-9)


@each
def test_a_data_set_is_a_mixture_of_points(sde: SDE) -> None:
    n = len(POINTS)
    mixture, data = GaussianMixture(torch.ones(n), POINTS, torch.zeros(n, 2, 2)), Empirical(POINTS)
    for t in span(sde):
        x = states(data, sde, t)
        assert torch.allclose(mixture.log_prob(x, sde, t), data.log_prob(x, sde, t), rtol=1e-9)
        for form in ("x0", "eps", "v", "score"):
            want = mixture.predict(form, x, sde, t)
            scale = want.abs().max().item()
            assert torch.allclose(data.predict(form, x, sde, t), want, rtol=1e-8, atol=1e-9 * scale)


@each
def test_one_point_is_always_the_answer(sde: SDE) -> None:
    data, x = Empirical(POINTS[:1]), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    for t in span(sde):
        assert torch.allclose(data.x0(x, sde, t), POINTS[:1].float().expand(5, 2), atol=1e-6)


@each
def test_a_gaussian_is_a_mixture_of_one(sde: SDE) -> None:
    one = GaussianMixture(torch.tensor([3.0]), GAUSSIAN.mean[None], GAUSSIAN.cov[None])
    for t in span(sde):
        x = states(GAUSSIAN, sde, t)
        assert torch.equal(one.x0(x, sde, t), GAUSSIAN.x0(x, sde, t))
        assert torch.equal(one.log_prob(x, sde, t), GAUSSIAN.log_prob(x, sde, t))
    assert all(torch.equal(a, b) for a, b in zip(one.moments(), GAUSSIAN.moments(), strict=True))


@pytest.mark.parametrize("block", [1, 9, 40, 10**6])
def test_blocks_do_not_change_the_answer(block: int) -> None:
    data = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    whole, parts, sde = Empirical(data), Empirical(data, block=block), scoresde.VPSDE()
    for t in (0.2, torch.linspace(0.01, 1, 5, dtype=F64)):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
        assert torch.equal(parts.x0(x, sde, t), whole.x0(x, sde, t))
        assert torch.equal(parts.log_prob(x, sde, t), whole.log_prob(x, sde, t))


# -------------------------------------------------------------------------------------------------------------- limits


@each
def test_limits_of_the_gaussians(sde: SDE) -> None:
    for data in (GAUSSIAN, GaussianMixture.example(2)):
        x0 = data.sample(5)
        if sde.sigma(torch.tensor(0.0)) == 0:
            assert torch.allclose(data.x0(x0, sde, 0.0), x0, rtol=1e-12)  # no noise: the state is the data
            assert torch.allclose(data.predict("v", x0, sde, 0.0), -data.score(x0) * 0, atol=1e-300)
        x, end = states(data, sde, sde.t_max), torch.tensor(sde.t_max, dtype=F64)
        far = (data.x0(x, sde, sde.t_max) - data.moments()[0]).abs().max()
        # Little signal: E[x_0 | x_t] moves off the mean by about Cov/ρ times a few standard normals.
        assert far <= 8 / sde.rho(end)


def test_no_signal_at_all() -> None:
    sde = DDPM.named(zero_terminal_snr=True)
    for data in DATA.values():
        x = states(data, sde, 1.0)
        mean = POINTS.mean(0) if isinstance(data, Empirical) else data.moments()[0]
        assert torch.allclose(data.x0(x, sde, 1.0), mean.expand(x.shape), atol=1e-12)
        assert torch.allclose(data.predict("v", x, sde, 1.0), -mean.expand(x.shape), atol=1e-12)
        assert torch.allclose(data.score(x, sde, 1.0), -x, rtol=1e-12)


# ------------------------------------------------------------------------------------------------- samples and moments


@pytest.mark.parametrize("d", [1, 2, 16])
def test_the_example_is_as_documented(d: int) -> None:
    data = GaussianMixture.example(d)
    mean, cov = data.moments()
    assert data.event_shape == (d,) and torch.allclose(mean, torch.full((d,), 0.3, dtype=F64))
    assert cov.diagonal().mean().item() == pytest.approx(1)
    assert torch.einsum("k,kdd->", data.weights, data.covs).item() == pytest.approx(0.2 * d)
    for cov in data.covs:
        std = torch.linalg.eigvalsh(cov).sqrt()
        assert (std[-1] / std[0]).item() == pytest.approx(3 if d > 1 else 1)
    again, other = GaussianMixture.example(d), GaussianMixture.example(d, seed=1)
    assert torch.equal(again.means, data.means) and not torch.equal(other.means, data.means)


@pytest.mark.parametrize("data", [GAUSSIAN, *(GaussianMixture.example(d) for d in (1, 2, 16))])
def test_samples_have_the_moments(data: Gaussian | GaussianMixture) -> None:
    n = 40000
    x, (mean, cov) = data.sample(n, seed=3), data.moments()
    d = len(mean)
    assert x.shape == (n, d) and x.dtype == F64
    assert ((x.mean(0) - mean).abs() <= 5 * (cov.diagonal() / n).sqrt()).all()
    products = torch.einsum("ni,nj->nij", x - mean, x - mean)
    assert ((products.mean(0) - cov).abs() <= 5 * products.std(0) / math.sqrt(n)).all()
    assert x.mean(0).ne(0).all()


def test_samples_follow_the_density() -> None:
    # the mean of -log p is the entropy, also by quadrature
    data = GaussianMixture.example(1)
    grid = torch.linspace(-10, 10, 20001, dtype=F64)
    log_p = data.log_prob(grid[:, None])
    entropy = -torch.trapezoid(log_p.exp() * log_p, grid)
    surprise = -data.log_prob(data.sample(20000, seed=5))
    assert (surprise.mean() - entropy).abs() <= 4 * surprise.std() / math.sqrt(len(surprise))


@any_data
def test_samples_depend_on_the_seed_alone(data: Distribution) -> None:
    state = torch.get_rng_state()
    a, b, c = data.sample(20, seed=1), data.sample(20, seed=1), data.sample(20, seed=2)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)
    assert data.sample(3, dtype=torch.float32).dtype == torch.float32


def test_points_are_drawn_from_the_data() -> None:
    x = Empirical(POINTS).sample(4000, seed=0)
    which = (x[:, None] == POINTS).all(2)
    assert (which.sum(1) == 1).all()
    counts = which.sum(0).double()
    assert ((counts - 1000).abs() <= 4 * math.sqrt(4000 * 0.25 * 0.75)).all()


# -------------------------------------------------------------------------------------------------------------- events


@pytest.mark.parametrize("event", [(), (2,), (7, 3), (1, 4, 5)])
def test_any_event_shape(event: tuple[int, ...]) -> None:
    d, sde = math.prod(event), scoresde.VPSDE()
    flat = Gaussian(torch.linspace(-1, 1, d), torch.diag(torch.linspace(0.5, 2, d)))
    shaped = Gaussian(flat.mean.reshape(event), flat.cov)
    x = flat.sample(6)
    assert shaped.event_shape == event and torch.equal(shaped.sample(6), x.reshape(6, *event))
    assert torch.equal(shaped.x0(x.reshape(6, *event), sde, 0.3), flat.x0(x, sde, 0.3).reshape(6, *event))
    assert torch.equal(shaped.log_prob(x.reshape(6, *event)), flat.log_prob(x))
    points = Empirical(x.reshape(6, *event))
    assert points.event_shape == event
    t = torch.linspace(0.1, 1, 6, dtype=F64)
    assert torch.equal(points.x0(points.data, sde, t).reshape(6, d), Empirical(x).x0(x, sde, t))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, on loading forward mode
def test_gradients_and_forward_mode_pass_through() -> None:
    sde = scoresde.VPSDE()
    for data in DATA.values():
        x = states(data, sde, 0.4, 2)
        denoise = lambda x, data=data: data.x0(x, sde, 0.4)  # noqa: E731
        assert torch.autograd.gradcheck(denoise, x.clone().requires_grad_())
        along = torch.ones_like(x)
        tangent = torch.func.jvp(denoise, (x,), (along,))[1]
        step = 1e-6
        slope = (denoise(x + step * along) - denoise(x - step * along)) / (2 * step)
        assert torch.allclose(tangent, slope, rtol=1e-5, atol=1e-7)


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Gaussian(torch.zeros(2), torch.eye(3)), "need shape"),
        (lambda: Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
        (lambda: Gaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, -1.0]))), "negative eigenvalue -1"),
        (lambda: Gaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, float("nan")]))), "covariance"),
        (lambda: GaussianMixture(torch.ones(3), torch.zeros(2, 1), torch.ones(2, 1, 1)), "2 positive numbers"),
        (lambda: GaussianMixture(torch.tensor([1.0, -1.0]), torch.zeros(2, 1), torch.ones(2, 1, 1)), "positive"),
        (lambda: Empirical(torch.zeros(0, 2)), "data must be"),
        (lambda: Empirical(torch.zeros(3, 2, dtype=torch.long)), "floating point"),
        (lambda: Empirical(POINTS).log_prob(POINTS), "no density of their own"),
        (lambda: GAUSSIAN.log_prob(torch.zeros(4, 3)), "one sample here has shape"),
        (lambda: GAUSSIAN.log_prob(torch.zeros(4, 2), t=0.5), "both sde and t"),
        (lambda: GAUSSIAN.network(EDM(), "epsilon"), "did you mean 'eps'"),
        (lambda: GAUSSIAN.network(EDM(), "eps", time="step"), "unknown time label"),
        (lambda: GAUSSIAN.predict("nois", torch.zeros(1, 2), EDM(), 1.0), "unknown prediction"),
    ],
)
def test_bad_input_says_what_is_needed(build, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build()
