"""Posterior sampling: the known biases, and what every method promises. What is exact: see test_posterior_laws."""

from __future__ import annotations

import gc
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import F64, SDES, steps_for
from test_posterior_laws import PRIOR, ROUND, A, Y, error
from torch import Tensor

import scoresde
from scoresde import SAMPLERS, BadInput, Gaussian
from scoresde.data import Scaler
from scoresde.grids import make_grid
from scoresde.guidance import METHODS, LinearMap, Mask, Matrix, chain_strength, measured

# ----------------------------------------------------------------------------------------------------- the known biases


def bias(method: str, prior: Gaussian, noise_std: float, **options: Any) -> float:
    d = measured(prior.denoiser(SDES["vp"]), Y, A, method, noise_std, **options)
    return error(d, prior, noise_std, "unipc", 60)


def test_pigdm_is_exact_where_its_covariance_is_the_datas() -> None:
    assert bias("pigdm", ROUND, 0.3, variance=0.6) < 1e-3
    assert bias("pigdm", ROUND, 0.3) > 1e-2  # the wrong variance
    assert bias("pigdm", PRIOR, 0.3) > 1e-2  # correlated data


@pytest.mark.parametrize("method", ["ddnm", "diffpir", "pigdm"])
def test_without_noise_projections_are_exact_for_isotropic_data_alone(method: str) -> None:
    options = {"variance": 0.6} if method == "pigdm" else {}
    assert bias(method, ROUND, 0.0, **options) < 1e-3 < 3e-3 < bias(method, PRIOR, 0.0)


def test_the_bias_of_diffpir_grows_with_the_noise_and_that_of_ddnm_too() -> None:
    """Relative to the data's spread: the prior's own part of the precision is left out."""
    for method in ("diffpir", "ddnm"):
        errors = [bias(method, ROUND, s) for s in (0.0, 0.3, 0.8)]
        assert errors == sorted(errors) and errors[-1] > 0.05


def test_dps_contracts_with_its_strength_whatever_the_noise() -> None:
    """In one dimension, where x_T by its quantiles gives the law of the output: near the prior, then at y."""
    prior = Gaussian(torch.zeros(1, dtype=F64), torch.eye(1, dtype=F64)).denoiser(SDES["vp"])
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(64, dtype=F64)[:, None] + 0.5) / 64)
    one, y = Matrix(torch.eye(1, dtype=F64), (1,)), torch.tensor([1.0], dtype=F64)
    means, spreads = [], []
    for strength in (0.0, 0.2, 1.0, 5.0):
        d = measured(prior, y, one, "dps", 0.5, strength)
        x = scoresde.sample(d, (64, 1), "ddim", 60, x=quantiles).x
        means.append(float(x.mean()))
        spreads.append(float(x.std()))
        assert torch.equal(d.x0(x, 0.1), measured(prior, y, one, "dps", 0.0, strength).x0(x, 0.1))
    assert abs(means[0]) < 0.02 and spreads[0] > 0.9
    assert means == sorted(means) and spreads == sorted(spreads, reverse=True)
    assert means[-1] == pytest.approx(1, abs=0.05) and spreads[-1] < 0.1  # the posterior: mean 0.8, std 0.45


def test_mcg_is_dps_then_the_projection() -> None:
    """What A sees is y, without noise; beside it the step of dps. With noise A⁺ is capped at σ/(3α s), as of ddnm."""
    inner, x = PRIOR.denoiser(SDES["vp"]), torch.ones(2, 3, dtype=F64)
    for s, weight in ((0.0, math.inf), (5.0, float(SDES["vp"].rho(torch.tensor(0.1))) / 15)):
        stepped = measured(inner, Y, A, "dps", s, 0.4).x0(x, 0.1)
        wanted = stepped + A.inverse(Y - A(stepped), cap=weight)
        assert torch.allclose(measured(inner, Y, A, "mcg", s, 0.4).x0(x, 0.1), wanted, rtol=1e-6)


def test_dps_in_the_ancestral_chain_is_algorithm_1() -> None:
    """The published loop: an ancestral step, then x -= ζ' ∇_x ‖y - A(x̂_0(x))‖."""
    sde, zeta = SDES["vp"], 0.3
    prior = PRIOR.denoiser(sde)
    times = make_grid("t", sde, 12, "zero")
    z = torch.randn(13, 5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))

    def bend(x: Tensor) -> Tensor:
        return x[:, :2] ** 2 + x[:, 1:]

    d = measured(prior, Y, bend, "dps", strength=chain_strength(sde, times, zeta))
    out = scoresde.sample(d, (5, 3), "ddpm", grid=times, x=z[12], noise=lambda step, draw, x: z[step]).x
    x = z[12]
    for i, (t, s) in enumerate(pairwise(times)):
        live = x.clone().requires_grad_()
        size = (Y - bend(prior.x0(live, t))).norm(dim=1).sum()
        (gradient,) = torch.autograd.grad(size, live)
        mean, std = prior.posterior(x, s, t)
        x = mean + std * z[i] - zeta * gradient
    assert torch.allclose(out, x, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------ every method, sampler


def options_of(method: str) -> dict[str, Any]:
    return {"covariance": PRIOR.cov} if method == "exact" else {}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_takes_a_measurement(sampler: str) -> None:
    """Inside no_grad as well, with a backward pass in every call; the network is called once in each."""
    network, calls = ROUND.network(SDES["vp"]), []
    inner = scoresde.Denoiser(lambda x, t: calls.append(1) or network(x, t), SDES["vp"])
    d = measured(inner, Y, A, "pigdm", 0.1, variance=0.6)
    with torch.no_grad():
        loose = {} if SAMPLERS[sampler].build else {"rtol": 0.1, "atol": 0.1}
        steps = 40 if sampler == "sheun" else steps_for(sampler)
        run = scoresde.sample(d, (40, 3), sampler, steps, dtype=F64, **loose)
    assert not run.x.requires_grad
    assert len(calls) == run.nfe or not SAMPLERS[sampler].build
    if sampler != "langevin":
        assert float((Y - A(run.x)).mean(0).abs().max()) < 0.4


@pytest.mark.parametrize("method", METHODS)
def test_forms_agree_and_the_plan_is_the_prediction(method: str) -> None:
    sde, x = SDES["cosine"], torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    d = measured(PRIOR.denoiser(sde), Y, A, method, 0.2, 0.7, **options_of(method))
    t = 0.4
    at = torch.tensor(t, dtype=F64)
    alpha, sigma, x0 = sde.alpha(at), sde.sigma(at), d.x0(x, t)
    assert torch.allclose(d.eps(x, t), (x - alpha * x0) / sigma)
    assert torch.allclose(d.score(x, t), -(x - alpha * x0) / sigma**2)
    for form in ("x0", "eps", "flow"):
        assert torch.allclose(d.plan(form, [0.9, t], x)(1, x), d.predict(form, x, t))
    several = torch.tensor([t, 0.2, 0.7, 0.1], dtype=F64)
    each = torch.cat([d.x0(x[k : k + 1], float(several[k])) for k in range(4)])
    assert torch.allclose(d.x0(x, several), each)
    still = measured(PRIOR.denoiser(sde), Y, A, method, 0.2, 0.0, **options_of(method))
    if method != "mcg":  # which projects whatever its strength
        assert torch.allclose(still.x0(x, t), PRIOR.denoiser(sde).x0(x, t))


@pytest.mark.parametrize("method", METHODS)
def test_measurements_of_their_own_for_each_sample(method: str) -> None:
    """Each row is as if it were alone; and A has an output shape of its own, R^16 -> R^5."""
    generator = torch.Generator().manual_seed(0)
    wide = Matrix(torch.randn(5, 16, dtype=F64, generator=generator), (4, 4))
    prior = Gaussian(torch.zeros(4, 4, dtype=F64), torch.eye(16, dtype=F64))
    x, y = (torch.randn(3, *shape, dtype=F64, generator=generator) for shape in ((4, 4), (5,)))
    options = {"covariance": prior.cov} if method == "exact" else {}
    inner = prior.denoiser(SDES["vp"])
    run: dict[str, Any] = {"sampler": "ddim", "steps": 5}
    whole = scoresde.sample(measured(inner, y, wide, method, 0.1, **options), (3, 4, 4), x=x, **run).x
    for k in range(3):
        alone = scoresde.sample(measured(inner, y[k], wide, method, 0.1, **options), (1, 4, 4), x=x[k : k + 1], **run)
        assert torch.allclose(whole[k], alone.x[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("event", [(), (6,), (2, 3), (1, 2, 3), (1, 2, 1, 3)])
def test_events_of_any_rank(event: tuple[int, ...]) -> None:
    count = math.prod(event)
    prior = Gaussian(torch.zeros(event), torch.eye(count)).denoiser(SDES["vp"])
    total = LinearMap(lambda x: x.reshape(len(x), -1).sum(1), event)
    for method, operator in (("pigdm", total), ("ddnm", total), ("dps", total.forward)):
        strength = 5.0 if method == "dps" else 1.0
        d = measured(prior, torch.tensor(2.0), operator, method, strength=strength)
        x = scoresde.sample(d, (3, *event), "ddpm", 60).x
        assert x.shape == (3, *event) and torch.allclose(total(x), torch.tensor(2.0), atol=0.2)


def test_a_learned_variance_is_left_as_it_is() -> None:
    sde = SDES["vp"]
    eps = Gaussian(torch.zeros(2, 2), torch.eye(4)).network(sde)
    network = lambda x, t: torch.cat([eps(x, t), 0.3 * torch.tanh(x)], 1)  # noqa: E731
    inner = scoresde.Denoiser(network, sde, learned_variance=True)
    seen = Mask(torch.tensor([1, 0]), (2, 2))
    x = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    for method in ("pigdm", "ddnm"):
        d = measured(inner, torch.ones(2), seen, method, 0.1)
        plain, guided = inner.plan("x0", [0.5], x).learned, d.plan("x0", [0.5], x).learned
        assert plain and guided
        assert torch.allclose(guided(0, x)[1], plain(0, x)[1])
        assert torch.allclose(guided(0, x)[0], d.x0(x, 0.5), atol=1e-6)
        assert scoresde.sample(d, (3, 2, 2), "ddpm", 5).x.isfinite().all()


@pytest.mark.parametrize("scaler", [Scaler((3.0,), (4.0,)), Scaler((1.0, -2.0, 0.5), (2.0, 0.5, 3.0))])
@pytest.mark.parametrize("method", ["pigdm", "ddnm", "dps"])
def test_data_units(method: str, scaler: Scaler) -> None:
    """With the model's scaler y, A and the noise are in data units: the same as the problem scaled by hand."""
    inner, x = PRIOR.denoiser(SDES["vp"]), torch.ones(2, 3, dtype=F64)
    shift, scale = scaler.decode(torch.zeros(3, dtype=F64)), scaler.decode(torch.ones(3, dtype=F64))
    scale = scale - shift
    by_hand = Matrix(A.entries * scale, (3,)), Y - A(shift[None])[0]
    for operator, hand in ((A, by_hand[0]), (lambda x: A(x), lambda z: A(scaler.decode(z)))):
        if method != "dps" and operator is not A:
            continue
        moved = by_hand[1] if operator is A else Y
        d = measured(inner, Y, operator, method, 0.2, scaler=scaler)
        assert torch.allclose(d.x0(x, 0.3), measured(inner, moved, hand, method, 0.2).x0(x, 0.3)) or (
            method == "dps" and len(scaler.scale) == 1 and operator is A
        )  # ζ ‖y/c‖ there


# ------------------------------------------------------------------------------------------------- gradients and memory


@pytest.mark.parametrize("method", ["dps", "mcg", "pigdm", "ddnm"])
def test_calls_backward_passes_and_memory(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network call per denoiser call, a backward pass at most; nothing is kept between steps."""
    calls, passes, held = [], [], []
    network, grad = PRIOR.network(SDES["vp"]), torch.autograd.grad
    inner = scoresde.Denoiser(lambda x, t: calls.append(1) or network(x, t), SDES["vp"])
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or grad(*a, **k))

    def callback(i: int, *_: Any) -> None:
        if i in (20, 199):
            gc.collect()
            tensors = [each for each in gc.get_objects() if type(each) is Tensor]
            held.append((len(tensors), sum(each.nbytes for each in tensors)))

    d = measured(inner, Y, A, method, 0.3, **options_of(method))
    passes.clear()
    run = scoresde.sample(d, (8, 3), "ddpm", 200, dtype=F64, callback=callback)
    assert len(calls) == run.nfe == 200
    assert len(passes) == (200 if METHODS[method].backward else 0)
    assert held[0] == held[1]


def test_inference_mode_is_refused_by_name_where_it_cannot_work() -> None:
    inner = PRIOR.denoiser(SDES["vp"])
    with torch.inference_mode():
        for method, worked in METHODS.items():
            d = measured(inner, Y, A, method, 0.3, **options_of(method))
            if worked.backward:
                with pytest.raises(BadInput, match=f"{method}.*inference_mode"):
                    scoresde.sample(d, (2, 3), "ddim", 3, dtype=F64)
                with pytest.raises(BadInput, match="inference_mode"):
                    d.x0(torch.ones(2, 3, dtype=F64), 0.5)
            else:
                assert scoresde.sample(d, (2, 3), "ddim", 3, dtype=F64).x.isfinite().all()
    blind = scoresde.Denoiser(torch.no_grad()(PRIOR.network(SDES["vp"], "x0")), SDES["vp"], "x0")
    with pytest.raises(BadInput, match="no gradient with respect to"):
        scoresde.sample(measured(blind, Y, A, "dps"), (2, 3), "ddim", 3, dtype=F64)


@pytest.mark.parametrize("grad", [True, "checkpoint"])
def test_gradients_flow_through_a_guided_run(grad: bool | str) -> None:
    """Of the samples with respect to the start, second derivatives of the network included."""
    data = scoresde.GaussianMixture.example(3)
    d = measured(data.denoiser(SDES["vp"]), Y, A, "pigdm", 0.3)
    x = torch.randn(2, 3, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    run = lambda x: scoresde.sample(d, (2, 3), "ddim", 3, x=x, grad=grad).x  # noqa: E731
    (found,) = torch.autograd.grad(run(x).square().sum(), x)
    step = 1e-5 * torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, 1.0]], dtype=F64)
    with torch.no_grad():
        difference = (run(x + step).square().sum() - run(x - step).square().sum()) / 2
    assert torch.allclose((found * step).sum(), difference, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "given, said",
    [
        ({"method": "ddmn"}, "did you mean 'ddnm'"),
        ({"method": "ddnm", "lam": 2.0}, "it has none"),
        ({"method": "pigdm", "varience": 2.0}, "did you mean 'variance'"),
        ({"method": "exact"}, "needs covariance"),
        ({"operator": lambda x: x}, "linear operator.*for any callable: dps"),
        ({"y": torch.ones(3)}, "y has shape"),
        ({"y": torch.ones(2, 2, 2)}, "y has shape"),
        ({"y": torch.tensor([1.0, math.nan])}, "finite"),
        ({"y": [1.0, 2.0]}, "a tensor"),
        ({"noise_std": -0.1}, "noise_std = -0.1"),
        ({"noise_std": math.nan}, "noise_std = nan"),
        ({"noise_std": math.inf}, "noise_std = inf"),
        ({"strength": -1.0}, "strength = -1"),
        ({"strength": math.nan}, "strength = nan"),
    ],
)
def test_bad_input(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        measured(**{"denoiser": PRIOR.denoiser(SDES["vp"]), "y": Y, "operator": A, **given})


@pytest.mark.parametrize(
    "given, said",
    [
        ({"operator": lambda x: x[:, :1], "method": "dps"}, "y has shape"),
        ({"y": Y.expand(5, 2)}, "y has shape"),
        ({"strength": lambda t: -t}, "strength: a function"),
        ({"method": "pigdm", "variance": 0.0}, "variance = 0"),
        ({"method": "diffpir", "lam": math.nan}, "lam = nan"),
        ({"method": "exact", "covariance": torch.eye(2)}, "covariance of shape"),
        ({"operator": Matrix(torch.ones(2, 4), (4,))}, "events of shape"),
    ],
)
def test_bad_input_that_a_run_shows(given: dict[str, Any], said: str) -> None:
    """Shapes before the first network call."""
    calls: list[int] = []
    network = PRIOR.network(SDES["vp"])
    inner = scoresde.Denoiser(lambda x, t: calls.append(1) or network(x, t), SDES["vp"])
    d = measured(**{"denoiser": inner, "y": Y, "operator": A, **given})
    with pytest.raises(BadInput, match=said):
        scoresde.sample(d, (2, 3), "ddim", 3, dtype=F64)
    assert not calls or set(given) & {"variance", "lam", "covariance"}


@pytest.mark.parametrize("method", ["dps", "pigdm", "diffpir"])
def test_guidance_that_leaves_the_range_of_floats_is_named(method: str) -> None:
    d = measured(PRIOR.denoiser(SDES["vp"]), Y, A, method, 0.1, strength=1e30)
    named = f"under method '{method}' with strength = 1e\\+30: try a smaller one"
    with pytest.raises(scoresde.SolverFailure, match=named) as caught:
        scoresde.sample(d, (2, 3), "ddim", 60)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    assert measured(PRIOR.denoiser(SDES["vp"]), Y, A, method, strength=lambda t: t).guidance.endswith("a function of t")
