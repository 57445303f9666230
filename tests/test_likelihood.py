"""Likelihoods against closed forms: the flow's density, its estimates, discrete data, the bound, paths of latents."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import F64, SDES, mixture
from torch import Tensor

import scoresde
from scoresde import BadInput, SolverFailure, discrete_log_prob, interpolate, log_prob, variational_bound
from scoresde.data import Scaler
from scoresde.likelihood import DIVERGENCES, truncation

VP = SDES["vp"]
THIN = scoresde.Gaussian(torch.full((4,), 0.2, dtype=F64), torch.diag(torch.tensor([1.0, 0.3, 1e-3, 0.0], dtype=F64)))
DATA = {"mixture": mixture(2), "mixture-16": mixture(16)}
DATA |= {name.replace("mixture", "gaussian"): scoresde.Gaussian(*each.moments()) for name, each in DATA.items()}


def prior_of(data: scoresde.Gaussian | scoresde.GaussianMixture, sde: scoresde.SDE) -> dict[str, Any]:
    """The true density at t_max: what is left is the flow's own error."""
    return {"prior": lambda z: data.log_prob(z, sde, sde.t_max)}


# ----------------------------------------------------------------------------------------------------- the exact trace


@pytest.mark.parametrize("shape", ["mixture", "mixture-16", "gaussian", "gaussian-16"])
@pytest.mark.parametrize("name", ["vp", "subvp", "ve", "cosine", "edm", "flow"])
def test_the_density_is_that_of_the_closed_form(name: str, shape: str) -> None:
    sde, data = SDES[name], DATA[shape]
    x = data.sample(4, seed=1)
    steps = 18 if "mixture" in shape else 13
    found = log_prob(data.denoiser(sde, "v"), x, steps, grid="phi", **prior_of(data, sde))
    want = data.log_prob(x, sde, sde.t_min)
    assert (found.log_prob - want).abs().max() < 1e-4 * x.shape[1]
    assert found.nfe == 4 * steps and found.products == 4 * steps * x.shape[1] and not found.standard_error.any()


@pytest.mark.parametrize("name", ["subvp", "edm"])
def test_by_default_the_density_of_thin_data_is_that_of_the_closed_form(name: str) -> None:
    sde, data = SDES[name], THIN
    x = data.sample(6, seed=1)
    x = x + float(sde.knots([sde.t_min]).sigma[0]) * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    found = log_prob(data.denoiser(sde, "v"), x, **prior_of(data, sde))
    assert (found.log_prob - data.log_prob(x, sde, sde.t_min)).abs().max() < 4e-4 and found.nfe == 200


@pytest.mark.parametrize("name", ["vp", "edm"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_a_slope_like_one_over_phi_gets_a_first_step_of_its_scale(name: str, tolerance: float) -> None:
    """Of thin data, in proportion to φ; data that fill the space get dopri5's own. The tolerance is met.

    Calls are one for the slope, or two for dopri5's own rule, and six for each step: none is made twice.
    """
    sde, flat = (
        SDES[name],
        scoresde.Gaussian(torch.zeros(4, dtype=F64), torch.diag(torch.tensor([1.0, 0, 0, 0])).double()),
    )
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    first = {}
    for kind, data, x in (
        ("flat", flat, flat.sample(6, seed=1) + float(sde.knots([sde.t_min]).sigma[0]) * z),
        ("full", mixture(), mixture().sample(6, seed=1)),
    ):
        seen: list[tuple[float, float]] = []

        def told(i: int, t: float, t_next: float, *_: Any, seen: Any = seen) -> None:
            seen.append((t, t_next))

        found = log_prob(data.denoiser(sde, "v"), x, rtol=tolerance, callback=told, **prior_of(data, sde))
        assert (found.log_prob - data.log_prob(x, sde, sde.t_min)).abs().max() < 20 * tolerance
        assert found.nfe % 6 == {"flat": 1, "full": 2}[kind]
        low, high = sde.phi(torch.tensor(seen[0], dtype=F64)).tolist()
        first[kind] = (high - low) / low
    assert first["flat"] == pytest.approx(2.5 * (100 * tolerance) ** 0.2, rel=1e-6) != first["full"]


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_the_two_ends_are_all_that_differs_from_the_truth(name: str) -> None:
    """The prior at the latent and t_min: with their parts taken away only the solver's error is left."""
    sde, data = SDES[name], mixture()
    x, denoiser = data.sample(5), mixture().denoiser(sde)
    own, true = log_prob(denoiser, x, 10), log_prob(denoiser, x, 10, **prior_of(data, sde))
    parts = truncation(data, sde, x, own)
    assert torch.allclose(parts.prior + parts.t_min + parts.solver, own.log_prob - data.log_prob(x), atol=1e-10)
    assert torch.allclose(own.log_prob - true.log_prob, parts.prior, atol=1e-10)
    assert torch.allclose(parts.solver, true.log_prob - data.log_prob(x, sde, sde.t_min), atol=1e-10)
    assert torch.equal(own.latent, true.latent)
    coded = scoresde.encode(denoiser, x, "ode", 10, grid="lambda").x
    assert torch.allclose(own.latent, coded, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("method", "order"), [("rk4", 4), ("midpoint", 2)])
def test_the_order_of_the_method_is_that_of_the_density(method: str, order: int) -> None:
    x, denoiser, prior = mixture().sample(4), mixture().denoiser(VP), prior_of(mixture(), VP)
    want = mixture().log_prob(x, VP, VP.t_min)
    errors = [(log_prob(denoiser, x, n, method=method, grid="phi", **prior).log_prob - want).norm() for n in (10, 20)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.5)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8"])
def test_the_error_of_log_p_is_absolute_however_large_its_integral(method: str) -> None:
    """256 standard deviations from 1 to 0.001: the integral is hundreds of nats, the error a tolerance a dimension."""
    std = torch.logspace(-3, 0, 256, dtype=F64)
    data = scoresde.Gaussian(torch.zeros_like(std), std.square().diag())
    x, denoiser = data.sample(3, seed=0), data.denoiser(VP, "v")
    want = data.log_prob(x, VP, VP.t_min)
    for rtol in (1e-2, 1e-3, 1e-4):
        found = log_prob(denoiser, x, rtol=rtol, method=method, **prior_of(data, VP))
        assert (found.log_prob - want).abs().max() / len(std) < 3 * rtol


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_an_adaptive_run_keeps_its_tolerance(method: str) -> None:
    x, denoiser, prior = mixture().sample(6), mixture().denoiser(VP), prior_of(mixture(), VP)
    want = mixture().log_prob(x, VP, VP.t_min)
    errors: list[float] = []
    for rtol in (1e-3, 1e-4):
        found = log_prob(denoiser, x, rtol=rtol, method=method, **prior)
        errors.append(float((found.log_prob - want).abs().max()))
        assert errors[-1] < 20 * rtol * 2 and found.settings["options"]["atol"] == rtol
        assert found.nfe > 0 and found.times == (VP.t_min, VP.t_max)
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_the_density_integrates_to_one(name: str) -> None:
    sde, data = SDES[name], mixture(1)
    x = torch.linspace(-6, 6, 601, dtype=F64).unsqueeze(1)
    mass = torch.trapezoid(log_prob(data.denoiser(sde, "v"), x, 30).log_prob.exp(), x[:, 0])
    assert float(mass) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [(), (2,), (3, 4, 4)])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_events_of_any_shape_agree(shape: tuple[int, ...], divergence: str) -> None:
    """Independent unit-free coordinates, folded in any way: the same numbers as flat."""
    d = math.prod(shape)
    flat = scoresde.Gaussian(torch.zeros(d, dtype=F64), torch.diag(torch.linspace(0.1, 2, d, dtype=F64)))
    data = scoresde.Gaussian(flat.mean.reshape(shape), flat.cov)
    how: dict[str, Any] = {"divergence": divergence, "probes": 1 if divergence == "exact" else 3}
    x = flat.sample(4)
    whole = log_prob(data.denoiser(VP), x.reshape(4, *shape), 2, **how)
    one = log_prob(flat.denoiser(VP), x, 2, **how)
    assert torch.allclose(whole.log_prob, one.log_prob, rtol=1e-9) and whole.latent.shape == (4, *shape)
    assert torch.allclose(whole.log_prob, log_prob(data.denoiser(VP), x.reshape(4, *shape), 2, chunk=1, **how).log_prob)


def test_other_units_change_the_density_by_the_jacobian_alone() -> None:
    data, x = mixture(), mixture().sample(5)
    base = log_prob(data.denoiser(VP), x, 4)
    for scaler in (Scaler((0.0,), (127.5,)), Scaler((3.0, -1.0), (2.0, 0.25))):
        found = log_prob(data.denoiser(VP), scaler.decode(x), 4, scaler=scaler)
        assert torch.allclose(found.log_prob, base.log_prob + scaler.log_det((2,)), rtol=1e-12)
        assert torch.allclose(found.latent, base.latent)
    wide = Scaler((0.0,), (10.0,))
    lifted = log_prob(data.denoiser(VP), wide.decode(x), 4, scaler=wide).log_prob
    assert torch.allclose(lifted, base.log_prob - 2 * math.log(10.0), rtol=1e-12)


# --------------------------------------------------------------------------------------------- gradients, conditioning


def test_gradients_by_x_and_by_parameters() -> None:
    data, x = mixture(), mixture().sample(3).requires_grad_()
    found = log_prob(data.denoiser(VP), x, 24, grid="phi", grad=True, **prior_of(data, VP))
    (slope,) = torch.autograd.grad(found.log_prob.sum(), x)
    assert torch.allclose(slope, data.score(x.detach(), VP, VP.t_min), rtol=1e-3, atol=1e-3)  # the flow's own error

    factor = torch.tensor(1.0, dtype=F64, requires_grad=True)

    def value(z: Tensor, by: Tensor | float, grad: bool | str = False) -> Tensor:
        network = data.network(VP, "v")
        tilted = scoresde.Denoiser(lambda x, t: by * network(x, t) + 0.05 * by * x.sin(), VP, "v")
        return log_prob(tilted, z, 6, grad=grad).log_prob

    h, base = 1e-5, x.detach()
    by_x, by_factor = torch.autograd.grad(value(x, factor, grad=True).sum(), (x, factor))
    again = torch.autograd.grad(value(x, factor, grad="checkpoint").sum(), (x, factor))
    assert torch.equal(again[0], by_x) and torch.equal(again[1], by_factor)
    for i in range(2):
        step = h * torch.eye(2, dtype=F64)[i]
        numeric = (value(base + step, 1.0) - value(base - step, 1.0)) / (2 * h)
        assert torch.allclose(by_x[:, i], numeric, rtol=1e-4, atol=1e-6)
    numeric = (value(base, 1 + h) - value(base, 1 - h)).sum() / (2 * h)
    assert float(by_factor) == pytest.approx(float(numeric), rel=1e-4)
    assert not log_prob(data.denoiser(VP), x, 3).log_prob.requires_grad  # by default no graph


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_a_checkpointed_gradient_keeps_no_more_than_states(divergence: str) -> None:
    """What stays for the way back: of every call the state, where otherwise the network's activations stay too."""
    wide, data = 200, mixture()
    weight = torch.randn(wide, 2, generator=torch.Generator().manual_seed(0), dtype=F64)

    def kept(grad: bool | str, steps: int) -> tuple[int, Tensor]:
        network = data.network(VP, "v")
        tilted = scoresde.Denoiser(lambda x, t: network(x, t) + 0.01 * (x @ weight.T).tanh() @ weight, VP, "v")
        x, seen = data.sample(3).requires_grad_(), set[int]()

        def pack(saved: Tensor) -> Tensor:
            seen.add(saved.data_ptr()) if saved.shape[-2:] == (3, wide) else None
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            found = log_prob(tilted, x, steps, divergence=divergence, grad=grad)
        return len(seen), torch.autograd.grad(found.log_prob.sum(), x)[0]

    (all_of_it, slope), (states, again) = kept(True, 3), kept("checkpoint", 3)
    assert all_of_it >= 12 and states == 0
    assert torch.allclose(slope, again, rtol=1e-12)


def test_it_works_where_torch_records_nothing() -> None:
    data, x = mixture(), mixture().sample(3)
    want = log_prob(data.denoiser(VP), x, 5).log_prob
    with torch.no_grad():
        assert torch.equal(log_prob(data.denoiser(VP), x, 5).log_prob, want)
    with torch.inference_mode():
        assert torch.equal(log_prob(data.denoiser(VP), x.clone(), 5, cond={"y": x.clone()}).log_prob, want)
        with pytest.raises(BadInput, match="inference_mode"):
            log_prob(data.denoiser(VP), x, 5, grad=True)


def test_conditioning_passes_through_in_batches() -> None:
    """A class moves the Gaussian: each sample has the density of its own."""
    places = torch.tensor([[0.0, 0.0], [1.0, -0.5]], dtype=F64)
    unit = torch.eye(2, dtype=F64)

    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:  # v of N(place, I) under VP: -σ place
        return -VP.sigma(t)[:, None] * places[y]

    y = torch.tensor([0, 1, 1, 0, 1])
    x = mixture().sample(5)
    denoiser = scoresde.Denoiser(lambda x, t, y: network(x, t, y) + 0 * x, VP, "v")
    found = log_prob(denoiser, x, 15, batch_size=2, cond={"y": y}).log_prob
    each = torch.stack([scoresde.Gaussian(place, unit).log_prob(x, VP, VP.t_min) for place in places], 1)
    assert torch.allclose(found, each[torch.arange(5), y], atol=0.05)  # the prior is not quite N(α place, I)
    assert (each[:, 0] - each[:, 1]).abs().median() > 0.2


# ------------------------------------------------------------------------------------------------------- interpolation


@pytest.mark.parametrize("shape", [(5,), (3, 2, 2)])
def test_a_great_circle(shape: tuple[int, ...]) -> None:
    a, b = torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    size = tuple(range(1, a.ndim))
    unit = a.norm(dim=size, keepdim=True) if len(size) == 1 else a.flatten(1).norm(dim=1).reshape(-1, *[1] * len(shape))
    a = a / unit
    b = b / b.flatten(1).norm(dim=1).reshape(-1, *[1] * len(shape))
    path = interpolate(a, b, 9)
    assert path.shape == (9, *a.shape) and torch.allclose(path[0], a) and torch.allclose(path[-1], b)
    flat = path.flatten(2)
    assert torch.allclose(flat.norm(dim=2), torch.ones(9, 4, dtype=F64))
    steps = (flat[1:] * flat[:-1]).sum(2).acos()
    assert torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-7)  # at constant speed
    assert torch.allclose(interpolate(b, a, 9).flip(0), path)
    assert torch.allclose(interpolate(a, 3 * a, 3)[1], 2 * a) and torch.allclose(
        interpolate(a, b, 3, "lerp")[1], (a + b) / 2
    )
    with pytest.raises(BadInput, match="opposite"):
        interpolate(a, -a, 3)


def test_a_path_of_latents_is_one_of_data() -> None:
    data = mixture()
    latent = log_prob(data.denoiser(VP), data.sample(4), 12).latent
    path = interpolate(latent[:2], latent[2:], 5).flatten(0, 1)
    drawn = scoresde.sample(data.denoiser(VP), (10, 2), "ode", 12, x=path, final="t_min", grid="lambda").x
    assert torch.allclose(torch.cat([drawn[:2], drawn[-2:]]), data.sample(4), atol=1e-2)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_what_is_refused() -> None:
    data, x = mixture(), mixture().sample(2)
    denoiser = data.denoiser(VP)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"divergence": "hutchinsons"}, "did you mean 'hutchinson'"),
        ({"divergence": "hutchinson", "probe": "rademacer"}, "did you mean 'rademacher'"),
        ({"probes": 0}, "probes = 0"),
        ({"steps": 5, "rtol": 1e-3}, "give no steps"),
        ({"rtol": 2.0}, r"rtol = 2.0 must be in \(0, 1\)"),
        ({"method": "rk5"}, "did you mean 'rk4'"),
        ({"method": "scipy-rk45"}, "unknown method"),
        ({"grid": [0.5, 0.1]}, "give the prior there"),
        ({"grid": "lamda"}, "did you mean 'lambda'"),
        ({"first": -1}, "first = -1"),
        ({"seed": -1, "divergence": "hutchinson"}, "seed = -1"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"prior": lambda z: z, "steps": 1}, "one number for each"),
    ]
    for how, match in cases:
        with pytest.raises(BadInput, match=match):
            log_prob(denoiser, x, **how)
    for bad in (x.half(), x[:0], x * torch.nan):
        with pytest.raises(BadInput, match=r"float16|no samples|not finite"):
            log_prob(denoiser, bad, 3)
    for bad in (torch.tensor([[0.5, 1.0]]), torch.tensor([[256, 1]]), torch.tensor([[-1, 1]])):
        with pytest.raises(BadInput, match="whole numbers 0 to 255"):
            discrete_log_prob(denoiser, bad, 3)
    for how, match in [
        ({}, "number of steps N"),
        ({"N": 3, "continuous": True}, "no steps"),
        ({"N": 0}, "N = 0"),
        ({"N": 3, "strata": 9}, "strata = 9 does nothing"),
        ({"variance": "upper", "continuous": True}, "'upper' does nothing"),
    ]:
        with pytest.raises(BadInput, match=match):
            variational_bound(denoiser, x, **how)
    for bad, how, match in [
        (x * torch.nan, {}, "not finite"),
        (x, {"first": -1}, "first = -1"),
        (torch.tensor([[-1.0, 0.005]], dtype=x.dtype), {"levels": 256}, "x is between the 256 values"),
    ]:
        with pytest.raises(BadInput, match=match):
            variational_bound(denoiser, bad, 3, **how)
    with pytest.raises(BadInput, match="first = -1"):
        discrete_log_prob(denoiser, torch.zeros(1, 2), 3, first=-1)
    with pytest.raises(BadInput, match=r"\[-1, 1\]"):
        variational_bound(denoiser, 9 * x, 3, levels=256)
    for how, match in [({"path": "slurp"}, "did you mean 'slerp'"), ({"n": 0}, "n = 0")]:
        with pytest.raises(BadInput, match=match):
            interpolate(x, x, **{"n": 2, **how})
    for latent, match in ((0 * x, "points nowhere"), (x * torch.nan, "finite")):
        with pytest.raises(BadInput, match=match):
            interpolate(x, latent, 2)


def test_a_network_without_a_derivative_is_refused() -> None:
    """Its flow would still run, with the divergence of the linear part alone: silently wrong."""
    network = mixture().network(VP, "eps")
    for cut_off in (torch.no_grad()(network), lambda x, t: network(x, t).detach()):
        denoiser = scoresde.Denoiser(cut_off, VP)
        for wrapped in (denoiser, scoresde.clip(denoiser)):
            with pytest.raises(BadInput, match="no derivative"):
                log_prob(wrapped, mixture().sample(2), 3)


def test_a_network_that_returns_nan_is_told_of() -> None:
    denoiser = scoresde.Denoiser(lambda x, t: x * torch.where(t[:, None] > 0.5, torch.nan, 0.1), VP)
    with pytest.raises(SolverFailure, match="NaN"):
        log_prob(denoiser, mixture().sample(2), 3)


def test_settings_say_what_was_done() -> None:
    found = log_prob(mixture().denoiser(VP), mixture().sample(2), 3, divergence="hutchinson", probes=2, seed=9, first=1)
    for key, value in {
        "divergence": "hutchinson",
        "probes": 2,
        "seed": 9,
        "first": 1,
        "steps": 3,
        "grid": "lambda",
    }.items():
        assert found.settings[key] == value
    assert json.loads(json.dumps(dict(found.settings))) and dataclasses.is_dataclass(found)
