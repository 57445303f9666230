"""Classifier-free guidance, composition, and guidance by a weaker model, where the guided denoiser is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from exact import DETERMINISTIC, F64, SDES, start, steps_for
from modes import DATA, TIMES, VP, Exact, Y, close, draw, forms, model

import scoresde
from scoresde import SAMPLERS, BadInput, NoisyClassifier, SolverFailure
from scoresde.guidance import autoguidance, classifier_free, classifier_guidance, compose_conditions
from scoresde.guidance.strong import ENOUGH
from scoresde.guidance.terms import null_class
from scoresde.nn import MLP

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


@pytest.mark.parametrize("w", [0.0, torch.zeros(5)])
def test_a_weight_of_nothing_is_so_in_its_interval_only(w: float | torch.Tensor) -> None:
    """As any other weight: outside term 1 alone is called."""
    x, y, weak = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), {"y": Y}, DATA.denoiser(VP)
    free, auto = classifier_free(model(), w, interval=(0.3, 3.0)), autoguidance(model(), weak, w, interval=(0.3, 3.0))
    for t, inside in ((0.01, False), (0.4, True), (1.0, False)):
        plain, none = model().x0(x, t, **y), model().x0(x, t, y=torch.full((5,), 3))
        torch.testing.assert_close(free.x0(x, t, **y), none if inside else plain)
        torch.testing.assert_close(auto.x0(x, t, **y), weak.x0(x, t, **y) if inside else plain)


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
