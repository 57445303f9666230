"""SDEs: transitions, posteriors, priors and drifts against Gaussian algebra, for every family and any event shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import DDPM, EDM, SDE, VESDE, VPSDE, BadInput, CosineVPSDE, RectifiedFlow, SigmoidVPSDE, SubVPSDE

F64 = torch.float64
FAMILIES = {name: build() for name, build in scoresde.SDES.items()}
FAMILIES |= {f"ddpm-{betas}": DDPM.named(betas) for betas in ("scaled-linear", "cosine", "sigmoid")}
each = pytest.mark.parametrize("sde", FAMILIES.values(), ids=FAMILIES)
EVENTS = [(), (2,), (7, 3), (1, 16, 24), (3, 8, 8, 8)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def times(sde: SDE, n: int, count: int = 40) -> list[Tensor]:
    """n increasing times per sample, at random in λ."""
    low, high = (sde.lam(torch.tensor(t, dtype=F64)) for t in (sde.t_max, sde.t_min))
    lam = low + (high - low) * torch.rand(count, n, generator=torch.Generator().manual_seed(1), dtype=F64)
    return list(sde.t_of_lam(lam.sort(1, descending=True).values).unbind(1))


def split(sde: SDE, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and variance of q(x_t | x_s)."""
    scale, std = sde.transition(torch.ones(len(s), dtype=F64), s, t)
    return scale, std**2


# -------------------------------------------------------------------------------------------- transition and posterior


@each
def test_transitions_compose(sde: SDE) -> None:
    r, s, t = times(sde, 3)
    (first, first_var), (second, second_var), (whole, whole_var) = split(sde, r, s), split(sde, s, t), split(sde, r, t)
    assert torch.allclose(first * second, whole, rtol=1e-12, atol=0)
    assert torch.allclose(second**2 * first_var + second_var, whole_var, rtol=1e-10, atol=0)


@each
def test_a_transition_carries_the_marginal_along(sde: SDE) -> None:
    s, t = times(sde, 2)
    scale, var = split(sde, s, t)
    x0 = normal(len(s))
    (mean_s, std_s), (mean_t, std_t) = sde.marginal(x0, s), sde.marginal(x0, t)
    assert torch.allclose(scale * mean_s, mean_t, rtol=1e-12)
    assert torch.allclose(scale**2 * std_s**2 + var, std_t**2, rtol=1e-12)


@each
def test_the_posterior_is_bayes_rule(sde: SDE) -> None:
    # prior x_s | x_0 times likelihood x_t | x_s, multiplied as precisions
    s, t = times(sde, 2)
    x, x0 = normal(len(s), seed=2), normal(len(s), seed=3)
    (mean_s, std_s), (scale, var) = sde.marginal(x0, s), split(sde, s, t)
    precision = std_s**-2 + scale**2 / var
    want = (mean_s / std_s**2 + scale * x / var) / precision
    mean, std = sde.posterior(x, x0, s, t)
    assert torch.allclose(mean, want, rtol=1e-9, atol=1e-10)
    assert torch.allclose(std, precision.rsqrt(), rtol=1e-9)


@each
def test_the_posterior_at_time_zero_is_the_data(sde: SDE) -> None:
    x, x0 = normal(5, 2), normal(5, 2, seed=1)
    mean, std = sde.posterior(x, x0, 0.0, sde.t_max)
    if isinstance(sde, VESDE):  # the family whose σ(0) is not 0
        assert std == pytest.approx(sde.sigma_min, rel=1e-6) and torch.allclose(mean, x0, atol=1e-4)
    else:
        assert std == 0 and torch.equal(mean, x0)


@pytest.mark.parametrize("N", [1, 2, 7, 100])
@each
def test_the_discrete_chain_has_the_marginals_of_the_sde(sde: SDE, N: int) -> None:
    chain, scale, var = sde.discretize(N), 1.0, 0.0
    assert chain.times[0] == 0 and chain.times[-1] == sde.t_max and len(chain.scale) == len(chain.std) == N
    for n in range(N):
        scale, var = chain.scale[n] * scale, chain.scale[n] ** 2 * var + chain.std[n] ** 2
        t = torch.tensor(chain.times[n + 1], dtype=F64)
        assert scale == pytest.approx(sde.alpha(t).item(), rel=1e-11)
        assert math.sqrt(var) == pytest.approx(sde.sigma(t).item(), rel=1e-11)


# --------------------------------------------------------------------------------------------------------------- prior


@each
def test_the_prior_is_a_density_and_its_samples_follow_it(sde: SDE) -> None:
    std = sde.prior_std()
    assert std**2 == pytest.approx(
        sum(float(n(torch.tensor(sde.t_max, dtype=F64))) ** 2 for n in (sde.alpha, sde.sigma))
    )
    x = torch.linspace(-12 * std, 12 * std, 4001, dtype=F64)
    for event in ((), (1,)):
        density = sde.prior_log_prob(x.reshape(-1, *event)).exp()
        assert torch.trapezoid(density, x).item() == pytest.approx(1, abs=1e-12)
        assert torch.trapezoid(density * x**2, x).item() == pytest.approx(std**2, rel=1e-12)
    draws = sde.prior_sample(normal(20000, 2))
    assert abs(draws.std().item() / std - 1) < 4 / math.sqrt(2 * draws.numel())


def test_the_prior_covers_data_of_unit_variance() -> None:
    assert VPSDE().prior_std() == pytest.approx(1, rel=1e-14)
    assert VESDE().prior_std() == pytest.approx(math.hypot(1, 50), rel=1e-14)
    assert EDM().prior_std() == pytest.approx(math.hypot(1, 80), rel=1e-14)
    assert RectifiedFlow().prior_std(0.5) == pytest.approx(math.sqrt(0.5), rel=1e-14)


# -------------------------------------------------------------------------------------------------------------- drifts


@each
def test_the_probability_flow_transports_a_gaussian(sde: SDE) -> None:
    # The flow's velocity is linear, u(x) = A (x - α m) + α' m, and must satisfy V' = A V + V A.
    mean, cov = torch.tensor([0.7, -1.2], dtype=F64), torch.tensor([[1.5, 0.6], [0.6, 0.4]], dtype=F64)
    data = scoresde.Gaussian(mean, cov)
    for t in torch.linspace(sde.t_min, sde.t_max, 9, dtype=F64)[1:-1] + 1e-4 * sde.t_max:
        at = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=F64)
        u = sde.flow_drift(at, t, data.score(at, sde, t))
        A = (u[1:] - u[0]).T
        time = t.clone().requires_grad_()
        dalpha, dvar = (torch.autograd.grad(y, time)[0] for y in (sde.alpha(time) + 0 * time, sde.sigma(time) ** 2))
        V = sde.alpha(t) ** 2 * cov + sde.sigma(t) ** 2 * torch.eye(2, dtype=F64)
        dV = 2 * sde.alpha(t) * dalpha * cov + dvar * torch.eye(2, dtype=F64)
        assert torch.allclose(A @ V + V @ A, dV, rtol=1e-9, atol=1e-9 * dV.abs().max().item())
        centre = sde.alpha(t) * mean
        moved = sde.flow_drift(centre[None], t, data.score(centre[None], sde, t))[0]
        assert torch.allclose(moved, dalpha * mean, rtol=1e-9, atol=1e-12)


@each
def test_reverse_and_flow_drifts_differ_by_half_the_score_term(sde: SDE) -> None:
    (t,) = times(sde, 1)
    x, score = normal(len(t), 3), normal(len(t), 3, seed=1)
    gap = sde.reverse_drift(x, t, score) - sde.flow_drift(x, t, score)
    want = -0.5 * sde.diffusion(x, t) ** 2 * score
    assert torch.allclose(gap, want, rtol=1e-9, atol=1e-9 * want.abs().max().item())
    assert torch.equal(sde.drift(x, t), sde.reverse_drift(x, t, torch.zeros_like(x)))


@each
def test_the_forward_step_is_the_sde_to_first_order(sde: SDE) -> None:
    # q(x_{t+dt} | x_t) has mean x + f x dt and variance g² dt, both up to dt².
    x = torch.ones(1, dtype=F64)
    t = torch.tensor(0.4 * sde.t_max + 0.0003, dtype=F64)
    errors = []
    for dt in (1e-4 * sde.t_max, 0.5e-4 * sde.t_max):
        mean, std = sde.transition(x, t, t + dt)
        exact = (x + sde.drift(x, t) * dt, sde.diffusion(x, t) ** 2 * dt)
        errors.append([float((a - b).abs()) for a, b in zip((mean, std**2), exact, strict=True)])
    for coarse, fine in zip(*errors, strict=True):
        assert fine <= 1e-13 or 3.6 <= coarse / fine <= 4.4


# ------------------------------------------------------------------------------------------------------- events, dtype


@pytest.mark.parametrize("event", EVENTS)
@each
def test_every_coordinate_is_treated_alike(sde: SDE, event: tuple[int, ...]) -> None:
    batch, dims = 4, math.prod(event)
    t, s = times(sde, 2, batch)[::-1]
    x, x0, noise = (normal(batch, *event, seed=k) for k in range(3))

    def run(x: Tensor, x0: Tensor, noise: Tensor, s: Tensor, t: Tensor) -> list[Tensor]:
        mean, std = sde.marginal(x0, t)
        out = [sde.drift(x, t), sde.diffusion(x, t), mean, std, sde.perturb(x0, t, noise), *sde.transition(x, s, t)]
        out += [*sde.posterior(x, x0, s, t), sde.reverse_drift(x, t, noise), sde.flow_drift(x, t, noise)]
        return [part.expand(x.shape) for part in out]

    together = run(x, x0, noise, s, t)
    alone = run(*(y.reshape(-1) for y in (x, x0, noise)), s.repeat_interleave(dims), t.repeat_interleave(dims))
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a.reshape(-1), b, rtol=1e-13, atol=1e-15)  # vectorised or not, by length: digits apart
    each_log = sde.prior_log_prob(x.reshape(-1)).reshape(batch, -1).sum(1)
    assert torch.allclose(sde.prior_log_prob(x), each_log, rtol=1e-12)


@each
def test_a_scalar_time_equals_one_per_sample_and_keeps_the_dtype(sde: SDE) -> None:
    x = normal(3, 2).float()
    for t in (0.3 * sde.t_max, torch.tensor(0.3 * sde.t_max, dtype=F64)):
        scalar, full = sde.perturb(x, t, x), sde.perturb(x, torch.full((3,), float(t)), x)
        assert scalar.dtype == torch.float32 and torch.equal(scalar, full)
        assert sde.drift(x, t).dtype == sde.diffusion(x, t).dtype == torch.float32


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: VPSDE(beta_min=0.0), "beta_min <= beta_max"),
        (lambda: VPSDE(beta_min=3.0, beta_max=2.0), "beta_min <= beta_max"),
        (lambda: SubVPSDE(beta_min=-1.0), "beta_min <= beta_max"),
        (lambda: CosineVPSDE(t_max=1.0), "t_max < 1"),
        (lambda: CosineVPSDE(s=0.0), "s > 0"),
        (lambda: SigmoidVPSDE(t_max=1.0), "t_max < 1"),
        (lambda: SigmoidVPSDE(start=3.0, end=3.0), "start < end"),
        (lambda: SigmoidVPSDE(tau=0.0), "tau > 0"),
        (lambda: SigmoidVPSDE(tau=0.05), r"\(end - start\)/tau <= 80"),
        (lambda: RectifiedFlow(t_max=1.0), "t_max < 1"),
        (lambda: VESDE(sigma_min=2.0, sigma_max=1.0), "sigma_min < sigma_max"),
        (lambda: EDM(t_min=1.0, t_max=0.5), "t_min < t_max"),
        (lambda: VPSDE(t_min=-0.1), "0 <= t_min"),
        (lambda: VPSDE().discretize(0), "positive integer"),
        (lambda: VPSDE().marginal(torch.zeros(4, 2), torch.zeros(3)), "3 times for a batch of 4"),
    ],
)
def test_bad_input_says_what_is_needed(build, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        build()
    assert isinstance(caught.value, ValueError) and "\n" not in str(caught.value)


def test_sdes_are_values() -> None:
    assert VPSDE() == VPSDE() and hash(VPSDE()) == hash(VPSDE()) and VPSDE() != VPSDE(beta_max=10.0)
    assert VPSDE() != SubVPSDE()
    assert "beta_max=20.0" in repr(VPSDE()) and len(repr(DDPM.named())) < 80
    assert np.isfinite(VPSDE().knots([0.5]).lam).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@each
def test_diffusion_at_the_data_is_its_limit(sde: SDE, dtype: torch.dtype) -> None:
    x = torch.ones(2, 3, dtype=dtype)
    near = sde.g2(torch.tensor([0.0, 1e-9], dtype=dtype))
    assert torch.isfinite(near).all() and abs(near[0] - near[1]) < 1e-6 * (1 + near[1])
    assert torch.isfinite(sde.drift(x, 0.0)).all() and torch.isfinite(sde.diffusion(x, 0.0)).all()


@pytest.mark.parametrize("t", [-0.1, 1e6, math.nan])
@each
def test_a_time_outside_the_sde_is_refused(sde: SDE, t: float) -> None:
    x = torch.ones(2, 3)
    for method in (sde.drift, sde.diffusion, sde.marginal):
        with pytest.raises(BadInput, match=r"lie in \[0, "):
            method(x, t)
    with pytest.raises(BadInput, match=r"lie in \[0, "):
        sde.transition(x, 0.0, t)


def test_a_chain_refuses_bad_ends() -> None:
    with pytest.raises(BadInput, match=r"t_min = 3\.0 must be"):
        scoresde.DDPM((0.1, 0.2), t_min=3.0)


@each
def test_the_priors_distance_is_that_of_two_gaussians(sde: SDE) -> None:
    mean, variance = torch.tensor([0.4, -1.0, 3.0], dtype=F64), 0.8
    at = sde.knots([sde.t_max])
    alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
    law = torch.distributions.Normal(alpha * mean, math.sqrt(alpha**2 * variance + sigma**2))
    prior = torch.distributions.Normal(torch.zeros_like(mean), sde.prior_std())
    want = float(torch.distributions.kl_divergence(law, prior).mean())
    assert sde.prior_kl(mean, variance) == pytest.approx(want, rel=1e-9, abs=1e-15)
