"""Guidance by a classifier, on problems where the guided denoiser is known."""

from __future__ import annotations

import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import F64, GAUSSIAN, SDES, law_error, start
from modes import DATA, MODES, TIMES, VP, Exact, Y, close, draw, forms, model

import scoresde
from scoresde import SAMPLERS, BadInput, NoisyClassifier
from scoresde.denoiser import FORMS
from scoresde.guidance import classifier_free, classifier_guidance


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("t", TIMES, ids=["one", "each"])
def test_an_exact_classifier_makes_the_conditional_model_of_the_marginal(name: str, t: Any) -> None:
    """score + ∇ log p(y | x_t) is the score of p(x_t | y): an identity, in every form."""
    sde = SDES[name]
    t = t * sde.t_max
    x = torch.randn(5, 2, dtype=F64, generator=torch.Generator().manual_seed(0)) * sde.prior_std(
        float(torch.as_tensor(t).max())
    )
    guided = classifier_guidance(DATA.denoiser(sde), Exact(sde))
    for k in range(3):
        wanted = MODES[k].denoiser(sde)
        for form in FORMS:
            found = guided.predict(form, x, t, y=torch.full((5,), k))
            torch.testing.assert_close(found, wanted.predict(form, x, t), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_guided_by_an_exact_classifier_draws_the_class(name: str) -> None:
    """Step by step as by the class's own model, so in law too; one call of the classifier for each of the model's."""
    classifier = Exact()
    guided = draw(classifier_guidance(DATA.denoiser(VP), classifier), name)
    wanted = draw(model(), name)
    torch.testing.assert_close(guided.x, wanted.x, rtol=1e-5, atol=1e-6)
    assert classifier.calls >= guided.nfe == wanted.nfe == guided.network_evals
    if SAMPLERS[name].build:
        assert classifier.calls == guided.nfe
    assert not guided.x.requires_grad


@pytest.mark.parametrize("sampler, n", [("ddim", 40), ("dpm++2m", 40), ("ddpm", 160), ("em", 160), ("dpm++2m-sde", 40)])
def test_gaussian_posteriors_are_met(sampler: str, n: int) -> None:
    """Prior N(m, V), y = x_0 + N(0, 0.5): the law of the samples tends to the posterior's mean and variance."""
    y, noise, mean, spread = torch.tensor([1.0, -1.0, 1.4], dtype=F64), 0.5, GAUSSIAN.mean, GAUSSIAN.cov.diag()
    post = 1 / (1 / spread + 1 / noise)
    posterior = scoresde.Gaussian(post * (mean / spread + y / noise), post.diag())

    def log_prob(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
        noised = alpha**2 * spread + sigma**2
        estimate = mean + alpha * spread / noised * (x - alpha * mean)
        return (-0.5 * (y - estimate) ** 2 / (noise + sigma**2 * spread / noised)).sum(1)

    guided = classifier_guidance(GAUSSIAN.denoiser(VP), lambda x, t, y: log_prob(x, t, y.expand(len(x), 3)))

    def errors(steps: int) -> float:
        solver, _ = scoresde.samplers.plan_run(VP, SAMPLERS[sampler], steps)
        return law_error(solver, VP, posterior, guided, y=y)

    few, many = errors(n // 4), errors(n)
    assert many < 0.45 * few and many < 0.03


def test_the_classifiers_weight_and_the_models_own_condition() -> None:
    x, t = start(VP, (5, 2)), 0.3
    plain, exact = DATA.denoiser(VP), Exact()
    gradient = classifier_guidance(plain, exact).score(x, t, y=Y) - plain.score(x, t)
    strong = classifier_guidance(plain, exact, 3.0)
    assert close(forms(strong, x, t, y=Y)[3:4], [plain.score(x, t) + 3 * gradient])
    w = torch.tensor([0.0, 1.0, 2.0, -1.0, 4.0])
    assert close([classifier_guidance(plain, exact, w).score(x, t, y=Y)], [plain.score(x, t) + w[:, None] * gradient])
    both = classifier_guidance(model(), exact, 2.0, conditional=True)
    assert close([both.score(x, t, y=Y)], [model().score(x, t, y=Y) + 2 * gradient])
    calls = exact.calls
    assert torch.equal(draw(classifier_guidance(plain, exact, 0.0), "ddpm").x, draw(plain, "ddpm").x)
    assert exact.calls == calls


def test_no_graph_is_kept_from_step_to_step() -> None:
    """Of the states that a classifier was given in 200 steps no more than two are alive at any time."""
    seen: list[weakref.ref[torch.Tensor]] = []
    most, exact = 0, Exact()

    def log_prob(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal most
        seen.append(weakref.ref(x))
        most = max(most, sum(ref() is not None for ref in seen))
        return exact(x, t, y)

    draw(classifier_guidance(DATA.denoiser(VP), log_prob), "ddim", 200)
    assert len(seen) == 200 and most <= 2


@pytest.mark.parametrize("grad", [True, "checkpoint"])
def test_gradients_flow_through_a_guided_run(grad: Any) -> None:
    guided = classifier_guidance(DATA.denoiser(VP), Exact(), 2.0)

    def end(x: torch.Tensor, grad: Any = False) -> torch.Tensor:
        return draw(guided, "ddim", 3, x=x, grad=grad).x.sum()

    x = start(VP, (5, 2)).requires_grad_()
    (found,) = torch.autograd.grad(end(x, grad), x)
    step = torch.zeros_like(found)
    step[1, 0] = 1e-5
    slope = (end(x.detach() + step) - end(x.detach() - step)) / 2e-5
    assert float(found[1, 0]) == pytest.approx(float(slope), rel=1e-5)


def chain(n: int) -> tuple[float, ...]:
    return scoresde.make_grid("phi", VP, n, "zero")


@pytest.mark.parametrize("learned", [False, True])
def test_the_mean_shift_is_the_published_algorithm(learned: bool) -> None:
    """Dhariwal & Nichol 2021, algorithm 1, written as there; with the variance that the model has learned too."""
    times, exact, w = chain(12), Exact(), 2.5
    net = DATA.network(VP, "x0")
    plain = scoresde.Denoiser(
        lambda x, t: torch.cat([net(x, t), 0.4 * torch.ones_like(x)], 1) if learned else net(x, t),
        VP,
        "x0",
        learned_variance=learned,
    )
    seed = scoresde.SeededNoise(3, range(5))
    x = first = start(VP, (5, 2))
    for i, (t, s) in enumerate(pairwise(times)):
        mean, std = plain.posterior(x, s, t)
        point = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(exact(point, torch.full((5,), t, dtype=F64), Y).sum(), point)
        x = mean + w * std**2 * gradient + (std * seed(i, 0, x) if s else 0)
    guided = classifier_guidance(plain, exact, w, mean_shift=times)
    found = scoresde.sample(guided, (5, 2), "ddpm", grid=times, x=first, seed=3, cond={"y": Y})
    torch.testing.assert_close(found.x, x, rtol=1e-8, atol=1e-8)
    with pytest.raises(BadInput, match="begins no step"):
        draw(guided, "ddpm", 7)


def test_the_mean_shift_differs_from_bayes_rule_by_the_order_of_the_step() -> None:
    """The same noise with steps of half the size: half the difference."""
    gaps = []
    for n in (50, 100, 200):
        times, plain = chain(n), MODES[0].denoiser(VP)
        how: dict[str, Any] = {"grid": times, "noise": "brownian", "dtype": F64, "cond": {"y": Y}}
        shifted, exact = (
            scoresde.sample(classifier_guidance(plain, log_y, mean_shift=m), (5, 2), "ddpm", **how).x
            for m in (times, None)
        )
        gaps.append(float((shifted - exact).abs().mean()))
    assert 1.6 < gaps[0] / gaps[1] < 2.4 and 1.6 < gaps[1] / gaps[2] < 2.4


def log_y(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """A smooth pull toward the class's number."""
    return -0.25 * (x - y[:, None]).square().sum(1)


def test_logits_become_log_probabilities_at_the_networks_own_time() -> None:
    told: list[torch.Tensor] = []

    def network(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        told.append(label)
        return torch.stack([mode.log_prob(x.double(), VP, label / 1000) for mode in MODES], 1) + DATA.weights.log()

    classifier = NoisyClassifier(network, VP, tuple("abc"), (2,), "1000t")
    x, t = start(VP, (5, 2)), torch.linspace(0.1, 0.9, 5, dtype=F64)
    torch.testing.assert_close(classifier(x, t, Y), Exact()(x, t, Y))
    assert torch.equal(told[0], 1000 * t)
    guided = draw(classifier_guidance(DATA.denoiser(VP), classifier), "dpm++2m")
    torch.testing.assert_close(guided.x, draw(model(), "dpm++2m").x, rtol=1e-5, atol=1e-6)


def test_a_guided_models_likelihood_and_latents_are_the_classs() -> None:
    guided, own, x = classifier_guidance(DATA.denoiser(VP), Exact()), MODES[2].denoiser(VP), MODES[2].sample(5)
    y, how = torch.full((5,), 2), {"steps": 8, "divergence": "exact"}
    found = scoresde.log_prob(guided, x, cond={"y": y}, **how)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(found.log_prob, scoresde.log_prob(own, x, **how).log_prob)  # pyright: ignore[reportArgumentType]
    for d in (guided, classifier_free(model(), torch.ones(5)), classifier_free(model(), 3.0, interval=(50, 60))):
        latent = scoresde.encode(d, x, "heun", 6, batch_size=3, cond={"y": y})
        torch.testing.assert_close(latent.x, scoresde.encode(own, x, "heun", 6).x)
    assert latent.network_evals < 2 * latent.nfe
