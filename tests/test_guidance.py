"""Guidance on problems where the guided denoiser is known: classes that are the modes of a mixture, Gaussian data."""

from __future__ import annotations

import math
import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import DETERMINISTIC, F64, SDES, mixture, start, steps_for

import scoresde
from scoresde import SAMPLERS, BadInput, NoisyClassifier, SolverFailure
from scoresde.denoiser import FORMS
from scoresde.guidance import autoguidance, classifier_free, classifier_guidance, compose_conditions
from scoresde.guidance.strong import ENOUGH
from scoresde.guidance.terms import null_class
from scoresde.nn import MLP

VP = SDES["vp"]
DATA = mixture()
MODES = [scoresde.Gaussian(mean, cov) for mean, cov in zip(DATA.means, DATA.covs, strict=True)]
Y = torch.tensor([0, 2, 1, 0, 2])


class Network(torch.nn.Module):
    """The exact model of modes 0, 1, 2, and of all data under the label 3; it counts its calls and rows."""

    classes = 3

    def __init__(self, sde: scoresde.SDE = VP, prediction: str = "v") -> None:
        super().__init__()
        self.calls: list[int] = []
        self.each = [data.network(sde, prediction) for data in (*MODES, DATA)]

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(x))
        out = torch.full_like(x, torch.nan)
        for k in set(y.tolist()):
            label = t if t.stride() == (0,) else t[y == k]
            out[y == k] = self.each[k](x[y == k], label[: int((y == k).sum())])
        return out


def model(sde: scoresde.SDE = VP, prediction: str = "v") -> scoresde.Denoiser:
    return scoresde.Denoiser(Network(sde, prediction), sde, prediction)


class Exact:
    """log p(mode y | x_t), which counts its calls."""

    classes = 3

    def __init__(self, sde: scoresde.SDE = VP) -> None:
        self.sde, self.calls = sde, 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        each = torch.stack([mode.log_prob(x, self.sde, t) for mode in MODES], 1) + DATA.weights.log()
        return each.log_softmax(1).gather(1, y[:, None])[:, 0]


def draw(denoiser: Any, name: str = "ddim", steps: int | None = None, **how: Any) -> scoresde.Result:
    """Five float64 samples, of classes Y unless told otherwise."""
    n = None if "nfe" in how else steps or steps_for(name)
    how = {"cond": {"y": Y}, **how}
    if not SAMPLERS[name].build:
        how |= {"rtol": 0.2, "atol": 0.2}
    return scoresde.sample(denoiser, (5, 2), name, n, dtype=F64, **how)


def forms(denoiser: Any, x: torch.Tensor, t: Any, **cond: Any) -> list[torch.Tensor]:
    """Every form by predict and, at one time, by plan."""
    outs = [denoiser.predict(form, x, t, **cond) for form in FORMS]
    if isinstance(t, float):
        outs += [denoiser.plan(form, [0.9, t], x, **cond)(1, x) for form in FORMS]
    return outs


def close(found: list[torch.Tensor], wanted: list[torch.Tensor], tolerance: float = 1e-9) -> bool:
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(found, wanted, strict=True))


TIMES = [0.2, torch.tensor([0.05, 0.2, 0.4, 0.6, 0.9], dtype=F64)]


# ---------------------------------------------------------------------------------------------------------- classifiers


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
    from test_stochastic import MEAN, VARIANCE

    y, noise = torch.tensor([1.0, -1.0, 1.4], dtype=F64), 0.5
    post = 1 / (1 / VARIANCE + 1 / noise)
    mean = post * (MEAN / VARIANCE + y / noise)

    def log_prob(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        alpha, sigma = VP.alpha(t)[:, None], VP.sigma(t)[:, None]
        spread = alpha**2 * VARIANCE + sigma**2
        estimate = MEAN + alpha * VARIANCE / spread * (x - alpha * MEAN)
        return (-0.5 * (y - estimate) ** 2 / (noise + sigma**2 * VARIANCE / spread)).sum(1)

    prior = scoresde.Gaussian(MEAN, VARIANCE.diag()).denoiser(VP)
    guided = classifier_guidance(prior, log_prob)

    def errors(steps: int) -> float:
        solver = scoresde.samplers.plan_run(VP, SAMPLERS[sampler], steps)[0]
        assert isinstance(solver, scoresde.Table)
        drawing = {step: 2 + k for k, step in enumerate(i for i, row in enumerate(solver.rows) if any(row.c))}

        def unit(step: int, draw: int, x: torch.Tensor) -> torch.Tensor:
            z = torch.zeros_like(x)
            z[drawing[step]] = 1.0
            return z

        x = torch.zeros(2 + len(drawing), 3, dtype=F64)
        x[1] = 1.0
        with torch.no_grad():
            out, _ = solver.run(guided, x, unit, y=y.expand(len(x), 3))
        at = VP.knots([VP.t_max, solver.times[-1]])
        (alpha, end), (sigma, left) = at.alpha.tolist(), at.sigma.tolist()
        gains = out[1:] - out[0]
        found = out[0] + gains[0] * alpha * mean
        variance = gains[0] ** 2 * (alpha**2 * post + sigma**2) + gains[1:].square().sum(0)
        return float(torch.cat([found - end * mean, variance - end**2 * post - left**2]).abs().max())

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


# ------------------------------------------------------------------------------------------------------ classifier-free


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
@pytest.mark.parametrize("t", TIMES, ids=["one", "each"])
def test_a_guided_pair_is_its_formula_in_one_call(prediction: str, t: Any) -> None:
    """ε_u + w (ε_c - ε_u) in every form, of two calls of the plain model; itself one call of twice the rows."""
    x, plain, null = start(VP, (5, 2)), model(prediction=prediction), torch.full((5,), 3)
    conditional, base = forms(plain, x, t, y=Y), forms(plain, x, t, y=null)
    for w in (0.5, 2.0, 8.0, -1.0):
        guided = classifier_free(denoiser := model(prediction=prediction), w)
        found = forms(guided, x, t, y=Y)
        assert close(found, [u + w * (c - u) for c, u in zip(conditional, base, strict=True)], 1e-8)
        assert denoiser.network.calls == [10] * len(found)  # pyright: ignore
    negative = classifier_free(plain, 2.0, null=1).eps(x, t, y=Y)
    no = plain.eps(x, t, y=torch.full((5,), 1))
    assert close([negative], [no + 2 * (plain.eps(x, t, y=Y) - no)], 1e-8)


@pytest.mark.parametrize(
    "kind, name",
    [
        *(("classifier-free", name) for name in SAMPLERS),
        *((kind, name) for kind in ("autoguidance", "composition") for name in ("ddim", "ddpm", "ode", "rk45")),
    ],
)
def test_weights_of_one_and_nothing_are_the_plain_models_to_the_last_bit(name: str, kind: str) -> None:
    """And cost no more than these."""
    null, weak = {"cond": {"y": torch.full((5,), 3)}}, DATA.denoiser(VP)
    for w, wanted in (
        (1.0, draw(model(), name)),
        (0.0, draw(weak if kind == "autoguidance" else model(), name, **null)),
    ):
        if kind == "classifier-free":
            out = draw(classifier_free(model(), w, interval=None if w == 0 else (0.1, 1.0), rescale=0.7), name)
        elif kind == "autoguidance":
            out = draw(autoguidance(model(), weak, w), name)
        else:
            y = int(Y[0])
            wanted = draw(model(), name, cond={"y": torch.full((5,), y if w else 3)})
            out = draw(compose_conditions(model(), [y, 1], [w, 0.0]), name, cond={})
        assert torch.equal(out.x, wanted.x)
        assert out.network_evals == out.nfe == wanted.nfe


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_pair_costs_two_rows_in_every_call_of_every_sampler(name: str) -> None:
    guided = classifier_free(denoiser := model(), 2.0)
    out = draw(guided, name)
    rows = denoiser.network.calls  # pyright: ignore[reportFunctionMemberAccess]
    assert guided.rows_per_call == 2 and out.network_evals == 2 * out.nfe and torch.isfinite(out.x).all()
    if SAMPLERS[name].build:
        assert rows == [10] * out.nfe


@pytest.mark.parametrize("name", SAMPLERS)
def test_outside_the_interval_the_conditional_alone_is_called(name: str) -> None:
    """Of one sample the rows are as many as the network saw; all calls outside: its own run, to the last bit."""
    one: dict[str, Any] = {"cond": {"y": Y[:1]}, "dtype": F64, "steps": steps_for(name), "sampler": name}
    one |= {} if SAMPLERS[name].build else {"rtol": 0.2, "atol": 0.2}
    guided = classifier_free(denoiser := model(), 2.0, interval=(0.5, 3.0))
    out = scoresde.sample(guided, (1, 2), **one)
    rows = sum(denoiser.network.calls)  # pyright: ignore
    assert out.network_evals == rows and out.nfe < rows < 2 * out.nfe
    away = scoresde.sample(classifier_free(model(), 2.0, interval=(1e6, 1e7)), (1, 2), **one)
    torch.testing.assert_close(away.x, scoresde.sample(model(), (1, 2), **one).x, rtol=1e-9, atol=1e-9)
    assert away.network_evals == away.nfe


@pytest.mark.parametrize("name", ["rk45", "ddim"])
def test_an_interval_counts_the_sample_with_the_most(name: str) -> None:
    guided = classifier_free(model(), 2.0, interval=(0.5, 3.0))
    alone = [
        scoresde.sample(guided, (1, 2), name, steps_for(name), first=k, dtype=F64, cond={"y": Y[k : k + 1]})
        for k in range(5)
    ]
    every = scoresde.sample(guided, (5, 2), name, steps_for(name), dtype=F64, cond={"y": Y}, batch_size=3)
    assert every.network_evals == max(out.network_evals for out in alone)
    torch.testing.assert_close(every.x, torch.cat([out.x for out in alone]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ddim", "rk45", "ddpm", "ode"])
def test_every_sample_may_have_a_weight_of_its_own(name: str) -> None:
    w = torch.tensor([1.0, 0.0, 3.0, 2.0, -0.5])
    for build in (classifier_free, lambda d, w: classifier_guidance(DATA.denoiser(VP), Exact(), w)):
        out = draw(build(model(), w), name, batch_size=2)
        for k in range(5):
            if name == "ode":  # one step size for a batch
                continue
            alone = draw(build(model(), float(w[k])), name)
            torch.testing.assert_close(out.x[k], alone.x[k], rtol=1e-4, atol=1e-5)
        assert torch.isfinite(out.x).all()


def test_conditions_compose_in_one_call() -> None:
    x, t, plain = start(VP, (5, 2)), 0.4, model()
    each = [plain.eps(x, t, y=torch.full((5,), k)) for k in range(4)]
    found = compose_conditions(denoiser := model(), [0, 2], [1.5, -0.5]).eps(x, t)
    assert close([found], [each[3] + 1.5 * (each[0] - each[3]) - 0.5 * (each[2] - each[3])])
    assert denoiser.network.calls == [15]  # pyright: ignore
    out = draw(compose_conditions(model(), [0, 2], [1.5, torch.linspace(-1, 1, 5)]), "ddim", cond={}, batch_size=2)
    assert out.network_evals == 3 * out.nfe


def test_conditions_with_a_row_for_each_sample_are_doubled_and_others_are_not() -> None:
    seen: list[dict[str, Any]] = []

    def network(x: torch.Tensor, t: torch.Tensor, **cond: Any) -> torch.Tensor:
        seen.append(cond)
        return 0 * x

    guided = classifier_free(scoresde.Denoiser(network, VP), 2.0, null={"text": torch.zeros(1, 4)})
    text, mask = torch.randn(5, 4), torch.arange(5)
    draw(guided, cond={"text": text, "mask": mask, "scale": 2.0, "table": torch.ones(3)}, steps=1)
    (cond,) = seen
    assert torch.equal(cond["text"], torch.cat([torch.zeros(5, 4), text])) and torch.equal(
        cond["mask"], torch.cat([mask, mask])
    )
    assert cond["scale"] == 2.0 and cond["table"].shape == (3,)


def test_a_rescaled_estimate_has_the_conditionals_spread() -> None:
    x, t, w = start(VP, (7, 2)), 0.6, 6.0
    y = torch.arange(7) % 3
    own, full = model().x0(x, t, y=y), classifier_free(model(), w).x0(x, t, y=y)
    for phi in (1.0, 0.4, 0.0):
        found = classifier_free(model(), w, rescale=phi)
        ratio = own.std(1, keepdim=True) / full.std(1, keepdim=True)
        wanted = full * (phi * ratio + 1 - phi)
        assert close([found.x0(x, t, y=y), found.plan("x0", [t], x, y=y)(0, x)], [wanted] * 2)
        eps = (x - VP.alpha(torch.tensor(t, dtype=F64)) * wanted) / VP.sigma(torch.tensor(t, dtype=F64))
        assert close([found.eps(x, t, y=y), found.plan("eps", [t], x, y=y)(0, x)], [eps] * 2)


def test_dynamic_thresholding_goes_around_guidance() -> None:
    bounded = scoresde.dynamic_threshold(classifier_free(model(), 16.0, interval=(0.0, 2.0)), 0.9)
    out = scoresde.sample(bounded, (7, 2), "ddpm", 12, cond={"y": torch.arange(7) % 3})
    assert float(out.x.abs().max()) <= 1 and 12 < out.network_evals < 24


def test_a_weaker_model_guides() -> None:
    x, t, weak = start(VP, (5, 2)), 0.3, DATA.denoiser(VP)
    plain, guided = forms(model(), x, t, y=Y), autoguidance(model(), weak, 2.0)
    assert close(
        forms(guided, x, t, y=Y), [u + 2 * (c - u) for c, u in zip(plain, forms(weak, x, t), strict=True)], 1e-8
    )
    assert guided.rows_per_call == 2
    mixed = autoguidance(model(prediction="x0"), model(prediction="eps"), 2.0)
    assert close(forms(mixed, x, t, y=Y), plain, 1e-7)  # the same model in two forms


def test_a_learned_variance_is_the_conditionals() -> None:
    def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        v = y.to(x)[:, None].expand_as(x)
        return torch.cat([0.1 * v * x, v], 1)

    plain = scoresde.Denoiser(network, VP, learned_variance=True)
    for guided in (classifier_free(plain, 2.0, null=3), autoguidance(plain, model(), 2.0)):
        for i, interval in enumerate([None, (1e6, 1e7)]):
            object.__setattr__(guided, "interval", interval)
            plan = guided.plan("eps", [0.5], start(VP, (5, 2)), y=Y)
            assert plan.learned
            out, v = plan.learned(0, start(VP, (5, 2)))
            assert torch.equal(v, 0.5 * (Y.double()[:, None].expand(5, 2) + 1)), i
            assert close([out], [plan.net(0, start(VP, (5, 2)))])


# ----------------------------------------------------------------------------------------------------- strong guidance


@pytest.fixture(scope="module", params=[8.0, pytest.param(16.0, marks=pytest.mark.exhaustive)])
def strong(request: pytest.FixtureRequest) -> Any:
    """Far guided runs: their end by a fine run, and the error of ddim in 20 steps."""
    guided = classifier_free(model(), request.param)
    fine = draw(guided, "rk4", 100).x  # as a run of ddim in 2000 steps within 1e-3
    return guided, fine, float((draw(guided, "ddim", 20).x - fine).square().mean().sqrt())


@pytest.mark.parametrize("name", SAMPLERS)
def test_strong_guidance_in_20_steps(strong: Any, name: str) -> None:
    """Every sampler stays finite, and those of the flow within twice ddim's error."""
    guided, fine, ddim = strong
    out = draw(guided, name, 20 if SAMPLERS[name].build else None)
    assert torch.isfinite(out.x).all()
    if name in DETERMINISTIC:
        assert float((out.x - fine).square().mean().sqrt()) < 2 * ddim


@pytest.mark.parametrize("name", [name for name in ENOUGH if name in DETERMINISTIC])
def test_the_calls_that_are_enough_under_strong_guidance(strong: Any, name: str) -> None:
    """No more than twice as far from the flow as ddim in as many calls."""
    guided, fine, _ = strong
    if guided.w == (8.0,):
        errors = [(draw(guided, n, nfe=ENOUGH[name]).x - fine).square().mean() for n in (name, "ddim")]
        assert float((errors[0] / errors[1]).sqrt()) < 2


@pytest.mark.parametrize("name", ["ddim", "ddpm", "ode", "rk45"])
def test_samples_beyond_the_range_of_floats_are_laid_to_the_weight(name: str) -> None:
    def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * x * (y[:, None] + 1)

    guided = classifier_free(scoresde.Denoiser(network, VP, "v"), 1e30, null=2)
    with pytest.raises(SolverFailure, match=r"w = 1e\+30"):
        scoresde.sample(guided, (5, 2), name, 5 if SAMPLERS[name].build and name != "ode" else None, cond={"y": Y})


# ----------------------------------------------------------------------------------------------------------- bad input


def unlabelled(x: torch.Tensor, t: torch.Tensor, **cond: Any) -> torch.Tensor:
    raise AssertionError("the network was called")


FREE = scoresde.Denoiser(unlabelled, VP)


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: classifier_free(model(), math.nan), "w = nan"),
        (lambda: classifier_free(model(), math.inf), "w = inf"),
        (lambda: classifier_free(model(), "2x"), "w = '2x'"),  # pyright: ignore
        (lambda: classifier_free(model(), torch.tensor([1.0, math.nan])), "finite"),
        (lambda: classifier_free(model(), torch.ones(2, 2)), "one for each"),
        (lambda: classifier_free(model(), 2.0, interval=(3.0, 1.0)), "interval"),
        (lambda: classifier_free(model(), 2.0, rescale=1.5), "rescale"),
        (lambda: classifier_free(model(), 2.0, null={}), "null"),
        (lambda: classifier_free(FREE, 2.0), "which label means no class"),
        (lambda: classifier_free(scoresde.Denoiser(MLP((2,), width=8), VP), 2.0), "no classes"),
        (lambda: compose_conditions(model(), [1, 2], [1.0]), "weights"),
        (lambda: compose_conditions(model(), [1, {"text": 2}], [1.0, 2.0]), "same conditions"),
        (lambda: autoguidance(model(), DATA.denoiser(SDES["edm"]), 2.0), "different SDEs"),
        (lambda: autoguidance(classifier_free(model(), torch.ones(5)), model(), torch.ones(5)), "only one"),
        (lambda: classifier_guidance(model(), Exact(), math.nan), "w = nan"),
        (lambda: classifier_guidance(model(), 3.0), "log_prob"),  # pyright: ignore
        (
            lambda: classifier_guidance(model(), NoisyClassifier(unlabelled, VP, ("a", "b"))),
            "2 classes, the model 3",
        ),
        (lambda: NoisyClassifier(unlabelled, VP, time="steps"), "time label"),
    ],
)
def test_impossible_guidance_is_refused(build: Any, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        build()


@pytest.mark.parametrize(
    "guided, cond, match",
    [
        (lambda: classifier_free(FREE, 2.0, null=3), {}, "needs the condition y"),
        (lambda: classifier_free(FREE, 1.0, null=3), {}, "needs the condition y"),
        (lambda: classifier_free(FREE, 2.0, null=3), {"y": torch.ones(4, dtype=torch.int64)}, "condition y"),
        (lambda: classifier_free(FREE, torch.ones(4), null=3), {"y": Y}, "4 weights for 5"),
        (lambda: classifier_free(FREE, 2.0, null={"y": None}), {"y": Y}, "condition y"),
        (lambda: classifier_guidance(FREE, Exact()), {}, "cond={'y'"),
        (lambda: classifier_guidance(FREE, Exact()), {"y": Y + 1}, "y = 3: it knows the classes 0 to 2"),
        (lambda: classifier_guidance(FREE, Exact(), torch.ones(3)), {"y": Y}, "3 weights for 5"),
    ],
)
@pytest.mark.parametrize("name", ["ddim", "rk45", "ode"])
def test_what_does_not_fit_is_refused_before_the_first_call(guided: Any, cond: Any, match: str, name: str) -> None:
    with pytest.raises(BadInput, match=match):
        draw(guided(), name, cond=cond)


def test_a_classifier_without_gradients_is_refused() -> None:
    guided = classifier_guidance(FREE, Exact())
    with torch.inference_mode(), pytest.raises(BadInput, match="inference_mode"):
        draw(guided)
    for log_prob in (lambda x, t, y: x.detach().sum(1), lambda x, t, y: x, lambda x, t, y: 1.0):
        with pytest.raises(BadInput, match=r"differentiable number per sample, \(5,\)"):
            draw(classifier_guidance(DATA.denoiser(VP), log_prob))
    wrong = NoisyClassifier(lambda x, label: x, VP, tuple("abc"))
    with pytest.raises(BadInput, match=r"shape \(5, 2\)"):
        draw(classifier_guidance(DATA.denoiser(VP), wrong))


def test_the_label_of_no_class_is_found_under_wrappers() -> None:
    assert null_class(scoresde.clip(model())) == 3
    x = start(VP, (5, 2))
    wrapped = classifier_free(scoresde.clip(model(), -9, 9), 2.0)
    assert close([wrapped.x0(x, 0.5, y=Y)], [classifier_free(model(), 2.0).x0(x, 0.5, y=Y)])
