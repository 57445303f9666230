"""Denoisers: every form from every network output, plans, wrappers, and what is refused."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import DDPM, SDE, BadInput, Denoiser, GaussianMixture, clip, dynamic_threshold, from_callable
from scoresde.denoiser import FORMS, mix
from scoresde.labels import LABELS

F64 = torch.float64
FAMILIES = {name: build() for name, build in scoresde.SDES.items()}
FAMILIES |= {f"ddpm-{betas}": DDPM.named(betas) for betas in ("scaled-linear", "cosine", "sigmoid")}
each = pytest.mark.parametrize("sde", FAMILIES.values(), ids=FAMILIES)
every_prediction = pytest.mark.parametrize("prediction", FORMS)
DATA = GaussianMixture.example(2)


def span(sde: SDE, n: int = 7) -> Tensor:
    """Times even in φ with both ends, that float32 knows exactly, or as knots of a chain, which it rounds to."""
    low, high = (sde.phi(torch.tensor(t, dtype=F64)).item() for t in (sde.t_min, sde.t_max))
    t = sde.t_of_phi(torch.linspace(low, high, n, dtype=F64)).clamp(sde.t_min, sde.t_max)
    return (t * sde.N).round() / sde.N if isinstance(sde, DDPM) else t.float().double()


def states(sde: SDE, t: Tensor) -> Tensor:
    """One draw of x_t per time."""
    noise = torch.randn(len(t), 2, generator=torch.Generator().manual_seed(2), dtype=F64)
    return sde.perturb(DATA.sample(len(t), seed=1), t, noise)


# ---------------------------------------------------------------------------------------------------------- the forms


@every_prediction
@each
def test_every_network_gives_every_form(sde: SDE, prediction: str) -> None:
    t = span(sde)
    x = states(sde, t)
    for form in FORMS:
        want = DATA.predict(form, x, sde, t)
        got = DATA.denoiser(sde, prediction).predict(form, x, t)
        assert ((got - want).abs() <= 1e-8 * (1 + want.abs())).all(), form


@every_prediction
@each
def test_float32_loses_only_what_the_pair_must(sde: SDE, prediction: str) -> None:
    t = span(sde).float()
    x = states(sde, span(sde)).float()
    denoiser = DATA.denoiser(sde, prediction)
    output = denoiser.output(x, t)
    for form in FORMS:
        want, got = DATA.predict(form, x.double(), sde, span(sde)), denoiser.predict(form, x, t)
        assert got.dtype == torch.float32
        skip, scale = (c.unsqueeze(1) for c in denoiser.pair(form, t))
        # The two terms of the pair are each known to a few units in the last place; only v is free of cancellation.
        terms = (skip * x).abs() + (scale * output).abs()
        allowed = 1e-4 * (1 + want.abs()) + (0 if prediction == form else 2e-6 * terms)
        assert ((got - want).abs() <= allowed).all(), form


@each
def test_a_v_network_is_accurate_everywhere_in_float32(sde: SDE) -> None:
    t = span(sde).float()
    x = states(sde, span(sde)).float()
    scale = 1 + x.abs().double().amax(1, keepdim=True)  # VE and EDM states reach hundreds
    for form in ("x0", "eps", "v"):
        want = DATA.predict(form, x.double(), sde, span(sde))
        assert ((DATA.denoiser(sde, "v").predict(form, x, t) - want).abs() <= 1e-4 * scale).all(), form


@each
def test_forms_are_the_definitions(sde: SDE) -> None:
    t = span(sde)
    x, col = states(sde, t), t.unsqueeze(1)
    alpha, sigma = sde.alpha(col), sde.sigma(col)
    denoiser = DATA.denoiser(sde, "v")
    x0, eps = denoiser.x0(x, t), denoiser.eps(x, t)

    def close(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=1e-8, atol=1e-8)

    assert close(alpha * x0 + sigma * eps, x)
    assert close(denoiser.v(x, t), alpha * eps - sigma * x0)
    assert close(denoiser.score(x, t), -eps / sigma)
    assert close(denoiser.score(x, t), DATA.score(x, sde, t))
    assert close(denoiser.flow(x, t), sde.flow_drift(x, t, denoiser.score(x, t)))  # dx/dt of the probability flow
    rates = torch.autograd.functional.jvp(lambda s: (sde.alpha(s) + 0 * s, sde.sigma(s)), col, torch.ones_like(col))[1]
    assert close(denoiser.flow(x, t), rates[0] * x0 + rates[1] * eps)


@each
def test_mixes_are_the_definitions(sde: SDE) -> None:
    # u x_0 + w ε for the network's targets; edm is (x_0 - c_skip y)/c_out of y = x/α = x_0 + ρ ε (Karras 2022, table 1)
    t, sd = span(sde), 0.7
    rho = sde.rho(t)
    c_skip, c_out = sd**2 / (rho**2 + sd**2), rho * sd / (rho**2 + sd**2).sqrt()
    u, w = mix("edm", sde, t, sd)
    assert torch.allclose(u, (1 - c_skip) / c_out, rtol=1e-9) and torch.allclose(w, -c_skip * rho / c_out, rtol=1e-12)
    denoiser = Denoiser(lambda x, t: x, sde, "edm", sigma_data=sd)
    c_in = 1 / (sde.alpha(t) * (rho**2 + sd**2).sqrt())  # of x = α y
    assert torch.allclose(denoiser.c_in(t), c_in, rtol=1e-12)
    x = states(sde, t)
    y = x / sde.alpha(t).unsqueeze(1)
    want = c_skip[:, None] * y + c_out[:, None] * c_in[:, None] * x
    assert torch.allclose(denoiser.x0(x, t), want, rtol=1e-8, atol=1e-9)
    x0, noise = DATA.sample(len(t)), states(sde, t)
    for form in FORMS:
        weights = [m.unsqueeze(1) for m in mix(form, sde, t, sd)]
        target = Denoiser(lambda x, t: x, sde, form, sigma_data=sd).target(x0, noise, t)
        assert torch.equal(target, weights[0] * x0 + weights[1] * noise)


def test_edm_preconditioning_keeps_unit_variance() -> None:
    # Input and target of an edm network have unit variance at every t when the data have std sigma_data.
    sd = 0.5
    for sde in FAMILIES.values():
        t = span(sde)
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        c_in = Denoiser(lambda x, t: x, sde, "edm", sigma_data=sd).c_in(t)
        assert torch.allclose(c_in**2 * (alpha**2 * sd**2 + sigma**2), torch.ones_like(t), rtol=1e-10)
        u, w = mix("edm", sde, t, sd)
        assert torch.allclose(u**2 * sd**2 + w**2, torch.ones_like(t), rtol=1e-10)


# --------------------------------------------------------------------------------------------------------------- plans


@every_prediction
@each
def test_a_plan_equals_predict(sde: SDE, prediction: str) -> None:
    t = span(sde, 4)
    x = states(sde, t)
    denoiser = DATA.denoiser(sde, prediction)
    for form in FORMS:
        plan = denoiser.plan(form, t.tolist(), x)
        assert all(isinstance(number, float) for number in (*plan.skip, *plan.scale))
        for i, time in enumerate(t.tolist()):
            want = denoiser.predict(form, x, time)
            terms = (1 + abs(plan.skip[i])) * (1 + x.abs().max().item())  # what cancels where σ is small
            assert torch.allclose(plan(i, x), want, rtol=1e-10, atol=1e-13 * terms), (form, time)


@pytest.mark.parametrize("time", LABELS)
@each
def test_a_network_is_told_time_by_its_label(sde: SDE, time: str) -> None:
    t = span(sde)[:-1]
    x = states(sde, t)
    seen: list[Tensor] = []

    def spy(x: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return x

    steps = sde.label_steps
    want = {
        "t": t,
        "1000t": 1000 * t,
        "index": t * steps - 1,
        "score_sde": t * (steps - 1),
        "lambda": (sde.alpha(t) / sde.sigma(t)).log(),
        "log_sigma/4": (sde.sigma(t) / sde.alpha(t)).log() / 4,
    }[time]
    denoiser = Denoiser(spy, sde, "x0", time)
    denoiser.x0(x, t)
    denoiser.x0(x, t[2])
    denoiser.plan("x0", t.tolist(), x)(2, x)
    assert torch.allclose(seen[0], want, rtol=1e-9, atol=1e-9)
    for label in seen[1:]:
        assert label.shape == (len(x),) and torch.allclose(label, want[2].expand(len(x)), rtol=1e-9, atol=1e-9)
    # the exact network reads any of them back
    exact = Denoiser(DATA.network(sde, "v", time=time), sde, "v", time)
    assert torch.allclose(exact.x0(x, t), DATA.x0(x, sde, t), rtol=1e-7, atol=1e-8)


def test_the_time_label_may_be_a_callable() -> None:
    sde = scoresde.VPSDE()
    denoiser = from_callable(lambda x, label: label[:, None] * x, sde, "x0", lambda sde, t: sde.sigma(t))
    x = torch.ones(3, 2, dtype=F64)
    assert torch.allclose(denoiser.x0(x, 0.4), sde.sigma(torch.tensor(0.4, dtype=F64)) * x)


def test_the_index_of_a_chain_counts_from_zero() -> None:
    seen: list[Tensor] = []

    def spy(x: Tensor, label: Tensor) -> Tensor:
        seen.append(label)
        return x

    sde = DDPM.named("linear", 40)
    Denoiser(spy, sde, "eps", "index").plan("eps", [1.0, 0.5, 1 / 40], torch.zeros(2, 1))
    t = torch.arange(1, 41, dtype=torch.float32) / 40
    Denoiser(spy, sde, "eps", "index").eps(torch.zeros(40, 1), t)
    assert torch.allclose(seen[0], torch.arange(40.0), atol=1e-5)


# ------------------------------------------------------------------------------------------------- conditioning, dtype


def test_conditioning_passes_through_untouched() -> None:
    cond = {"y": torch.tensor([3, 1]), "scale": 2.5, "nothing": None}
    seen: list[dict] = []

    def net(x: Tensor, label: Tensor, **given) -> Tensor:
        seen.append(given)
        return x

    denoiser, x = Denoiser(net, scoresde.VPSDE(), "v"), torch.ones(2, 3)
    denoiser.x0(x, 0.5, **cond)
    denoiser.plan("x0", [0.5], x, **cond)(0, x)
    clip(denoiser).eps(x, 0.5, **cond)
    dynamic_threshold(denoiser).plan("v", [0.5], x, **cond)(0, x)
    assert len(seen) == 4
    for given in seen:
        assert given.keys() == cond.keys() and all(given[key] is cond[key] for key in cond)


@every_prediction
def test_a_half_network_keeps_the_state_and_the_coefficients_wide(prediction: str) -> None:
    sde, seen = scoresde.VPSDE(), []

    def half(x: Tensor, label: Tensor) -> Tensor:
        seen.append(x.dtype)
        return torch.tanh(x)

    x = torch.linspace(-1, 1, 6).reshape(3, 2)
    narrow, wide = (Denoiser(half, sde, prediction, dtype=dtype) for dtype in (torch.bfloat16, None))
    outputs = [narrow.x0(x, 0.3), narrow.plan("x0", [0.3], x)(0, x)]
    assert seen == [torch.bfloat16] * 2
    scale = narrow.pair("x0", torch.tensor(0.3))[1].abs()
    for got in outputs:
        assert got.dtype == torch.float32
        assert ((got - wide.x0(x, 0.3)).abs() <= 2**-7 * scale).all()  # one bf16 rounding of input and output
    plans = [d.plan("x0", [0.9, 0.3], x) for d in (narrow, wide)]
    assert plans[0].skip == plans[1].skip and plans[0].scale == plans[1].scale


@pytest.mark.parametrize("event", [(), (2,), (7, 3), (1, 16, 24), (3, 8, 8, 8)])
@every_prediction
def test_any_event_shape_has_equal_coordinates(prediction: str, event: tuple[int, ...]) -> None:
    sde, batch = scoresde.CosineVPSDE(), 3
    x = torch.randn(batch, *event, generator=torch.Generator().manual_seed(0), dtype=F64)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    spread = torch.tanh

    def net(x: Tensor, label: Tensor) -> Tensor:
        return spread(x) + label.reshape(-1, *(1,) * (x.ndim - 1))

    denoiser = Denoiser(net, sde, prediction)
    for wrap in (denoiser, clip(denoiser)):
        flat = wrap.eps(x.reshape(-1), t.repeat_interleave(math.prod(event)))
        assert torch.equal(wrap.eps(x, t).reshape(-1), flat)
    assert dynamic_threshold(denoiser).x0(x, t).shape == x.shape


# ------------------------------------------------------------------------------------------------------------ wrappers


@each
def test_clipping_acts_on_x0_and_the_other_forms_follow(sde: SDE) -> None:
    t = span(sde)
    x, col = states(sde, t), t.unsqueeze(1)
    inner, low, high = DATA.denoiser(sde, "v"), -0.3, 0.4
    clipped = clip(inner, low, high)
    x0 = clipped.x0(x, t)
    assert torch.equal(x0, inner.x0(x, t).clamp(low, high)) and x0.ne(inner.x0(x, t)).any()
    alpha, sigma = sde.alpha(col), sde.sigma(col)
    eps = (x - alpha * x0) / sigma
    want = {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "score": -eps / sigma}
    for form, value in want.items():
        # 1/σ amplifies rounding of x0 near the data, in the wrapper as in the reference
        slack = 1e-14 * (1 + x.abs()) / sigma.clamp(max=1) ** 2
        assert ((clipped.predict(form, x, t) - value).abs() <= 1e-9 * value.abs() + 10 * slack).all()
    assert clipped.sde is sde
    plan = clipped.plan("eps", t.tolist(), x)
    for i, time in enumerate(t.tolist()):
        assert torch.allclose(plan(i, x), clipped.eps(x, time), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_index_is_whole_at_every_step_of_a_chain(dtype: torch.dtype) -> None:
    """A table of embeddings is told `label.long()`; between the steps a label stays what it is."""
    for N in (10, 999, 1000, 4000):
        chain = scoresde.DDPM.named("cosine", N)
        steps = torch.arange(1, N + 1)
        assert torch.equal(LABELS["index"](chain, steps.to(dtype) / N).long(), steps - 1)
    between = LABELS["index"](scoresde.VPSDE(), torch.tensor([0.5004, 0.50000001], dtype=torch.float64))
    assert torch.allclose(between, torch.tensor([499.4, 499.00001], dtype=torch.float64), rtol=1e-12)


def test_wide_clipping_changes_nothing() -> None:
    inner, x = DATA.denoiser(scoresde.VPSDE(), "edm", sigma_data=1.3), DATA.sample(5)
    for form in FORMS:
        assert torch.allclose(clip(inner, -99.0, 99.0).predict(form, x, 0.5), inner.predict(form, x, 0.5), rtol=1e-12)


def test_dynamic_threshold_is_per_sample() -> None:
    x = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(0), dtype=F64) * torch.arange(1, 8).reshape(
        7, 1, 1
    )
    denoiser = dynamic_threshold(Denoiser(lambda x, t: x, scoresde.VPSDE(), "x0"), quantile=0.75)
    together = denoiser.x0(x, 0.3)
    for k in range(7):
        assert torch.equal(denoiser.x0(x[k : k + 1], 0.3)[0], together[k])
        order = x[k].abs().flatten().sort().values  # the 0.75 quantile of 12 numbers lies between the 9th and 10th
        s = max(1.0, (order[8] + 0.25 * (order[9] - order[8])).item())
        assert torch.allclose(together[k], x[k].clamp(-s, s) / s, rtol=1e-12)
    assert (together.abs() <= 1 + 1e-12).all()


def test_small_x0_passes_dynamic_threshold_unchanged() -> None:
    x = torch.linspace(-0.9, 0.9, 12, dtype=F64).reshape(2, 6)
    assert torch.equal(dynamic_threshold(Denoiser(lambda x, t: x, scoresde.VPSDE(), "x0")).x0(x, 0.3), x)


# -------------------------------------------------------------------------------------------------------------- errors


def identity(x: Tensor, label: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: Denoiser(identity, scoresde.VPSDE(), "epsilon"), "unknown prediction 'epsilon'.*did you mean 'eps'"),
        (lambda: Denoiser(identity, scoresde.VPSDE(), "eps", "step"), "unknown time label 'step'"),
        (lambda: Denoiser(identity, scoresde.VPSDE()).predict("noise", torch.zeros(1, 2), 0.5), "unknown form 'noise'"),
        (lambda: Denoiser(identity, scoresde.VPSDE()).plan("X0", [0.5], torch.zeros(1, 2)), "did you mean 'x0'"),
        (lambda: clip(Denoiser(identity, scoresde.VPSDE()), 1.0, -1.0), "must be below"),
        (lambda: dynamic_threshold(Denoiser(identity, scoresde.VPSDE()), 1.5), "must be in"),
        (
            lambda: Denoiser(identity, scoresde.VPSDE()).x0(torch.zeros(4, 2), torch.zeros(3)),
            "3 times for a batch of 4",
        ),
        (lambda: Denoiser(identity, scoresde.EDM(), "x0").plan("eps", [0.0], torch.zeros(1, 2)), "no eps at t = 0"),
    ],
)
def test_bad_input_says_what_is_allowed(build, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build()


def test_a_network_of_the_wrong_shape_is_not_broadcast() -> None:
    x = torch.zeros(4, 6, 2)
    for shape in ((4, 1, 2), (4, 12, 2), (1, 6, 2)):
        denoiser = Denoiser(lambda x, t, shape=shape: torch.zeros(shape), scoresde.VPSDE())
        for call in (lambda d=denoiser: d.x0(x, 0.5), lambda d=denoiser: d.plan("x0", [0.5], x)(0, x)):
            with pytest.raises(BadInput, match=r"returned shape .* for a state of shape \(4, 6, 2\)"):
                call()


def test_a_denoiser_is_not_a_network() -> None:
    denoiser = Denoiser(identity, scoresde.VPSDE())
    for wrong in (denoiser, clip(denoiser), scoresde.VPSDE(), None):
        jaxtyping.config.update("jaxtyping_disable", True)  # whose own TypeError would come first
        try:
            with pytest.raises(TypeError, match="network must be a callable"):
                Denoiser(wrong, scoresde.VPSDE())
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("sampler", ["ddim", "ode"])
@pytest.mark.parametrize("net", [torch.float32, torch.bfloat16])
def test_a_module_is_given_its_own_dtype_whatever_the_state(net: torch.dtype, sampler: str) -> None:
    """A state wider than the network stays wide: only the network's input and output are converted."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            assert x.dtype == net and label.dtype == torch.float32
            return self.linear(x)

    denoiser = scoresde.Denoiser(Network().to(net).requires_grad_(False), scoresde.VPSDE())
    out = scoresde.sample(denoiser, (3, 2), sampler, 4, dtype=F64)
    assert out.x.dtype == F64 and torch.isfinite(out.x).all()
    assert denoiser.eps(out.x, 0.5).dtype == F64
