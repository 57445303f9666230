"""`encode`, and the runs that choose their own steps, for every sampler that can."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from exact import (
    F64,
    SDES,
    documented_nfe,
    few,
    mixture,
    start,
)
from test_sample import VP

import scoresde
from scoresde import SAMPLERS, SDE, BadInput, SolverFailure, Table
from scoresde.grids import make_grid
from scoresde.grids.spacings import karras
from scoresde.samplers import Sampler
from scoresde.samplers.multistep import exponential_multistep


def round_trip(sampler: str | Sampler, n: int, sde: SDE = VP, grid: str | None = None) -> float:
    """RMS error of data carried up in n steps and down in the same n, in units of the data's standard deviation."""
    data, denoiser = mixture(16).sample(16, seed=1), mixture(16).denoiser(sde)
    up = scoresde.encode(denoiser, data, sampler, n, grid=grid)
    down = {"grid": up.settings["grid"], "final": "t_min"}
    back = scoresde.sample(denoiser, data.shape, sampler, n, x=up.x, dtype=F64, **down).x
    return float((back - data).square().mean().sqrt() / data.std())


@pytest.mark.parametrize("name", [n for n, s in SAMPLERS.items() if s.encode and s.build])
def test_encoding_and_decoding_return_the_data(name: str) -> None:
    """To less than 1 % of the data's standard deviation at 100 steps, with an error that falls at the run's order."""
    table = SAMPLERS[name].build(VP, make_grid("lambda", VP, 100, "t_min"))
    order = table.order_with_start if isinstance(table, Table) else SAMPLERS[name].order
    coarse, fine = round_trip(name, 100), round_trip(name, 200)
    assert order and coarse < 0.01 and math.log2(coarse / fine) > order - 0.2


@pytest.mark.parametrize("sde", few(SDES, "vp", "ve", "flow"))
def test_ddim_is_undone_to_third_order(sde: str) -> None:
    """`ddim` and its inverse err by O(h) from the flow, and together by O(h³); the usual inversion leaves O(h)."""
    usual = replace(SAMPLERS["ddim"], encode=partial(exponential_multistep, order=1, space="eps"))
    for sampler, order in (("ddim", 3), (usual, 1)):
        coarse, fine = (round_trip(sampler, n, SDES[sde], "logitnormal:2.5") for n in (100, 200))
        assert abs(math.log2(coarse / fine) - order) < 0.25


@pytest.mark.parametrize("name", [n for n, s in SAMPLERS.items() if s.encode and s.adaptive])
def test_adaptive_encoding_and_decoding_return_the_data(name: str) -> None:
    data, denoiser = mixture(4).sample(6, seed=1), mixture(4).denoiser(VP)
    errors, calls = [], []
    for tol in (1e-2, 1e-5):
        how = {"rtol": tol, "atol": tol}
        latent = scoresde.encode(denoiser, data, name, **how)
        back = scoresde.sample(denoiser, (6, 4), name, x=latent.x, final="t_min", dtype=F64, **how)
        errors.append(float((back.x - data).abs().max()))
        calls.append(latent.nfe)
        assert (
            latent.settings["adaptive"] and latent.times == (VP.t_min, VP.t_max) and (latent.t_each == VP.t_max).all()
        )
    assert errors[1] < 1e-2 * errors[0] + 1e-4 and calls[1] > calls[0]


@pytest.mark.parametrize("name", ["ddim", "unipc", "ode", "rk45"])
def test_encoding_is_the_same_in_batches(name: str) -> None:
    data, labels = mixture().sample(7, seed=1), torch.arange(7)
    inner = mixture().network(VP, "eps")

    def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return inner(x + 0.01 * y[:, None], t)

    how = {"steps": 5 if SAMPLERS[name].build else None, "cond": {"y": labels}}
    denoiser = scoresde.Denoiser(network, VP, "eps")
    whole = scoresde.encode(denoiser, data, name, **how)
    parts = scoresde.encode(denoiser, data, name, batch_size=3, **how)
    assert (whole.x - parts.x).abs().max() < 1e-12 and whole.nfe_each.tolist() == parts.nfe_each.tolist()


@pytest.mark.parametrize("n", [1, 5, 10, 30, 60, 150])
def test_auto_runs_under_every_sde(n: int) -> None:
    """From pure noise too, and on a chain at its whole indices."""
    sdes = [*SDES.values(), scoresde.DDPM.named("cosine", 200, zero_terminal_snr=True)]
    for sde in sdes:
        out = scoresde.sample(mixture().denoiser(sde, "v"), (2, 2), "auto", nfe=n, dtype=F64)
        assert out.nfe <= n and torch.isfinite(out.x).all()
        if sde.by_index and out.settings["sampler"] != "rk4":
            index = torch.tensor(out.times, dtype=F64) * sde.label_steps
            assert (index - index.round()).abs().max() < 1e-9


@pytest.mark.parametrize("name", [n for n, s in SAMPLERS.items() if s.encode and not s.adaptive])
def test_encoding_keeps_to_the_steps_of_a_chain(name: str) -> None:
    """Whose network knows whole indices alone, as in sampling."""
    sde = scoresde.DDPM.named("linear", 200)
    latent = scoresde.encode(mixture().denoiser(sde), mixture().sample(2), name, 20)
    index = torch.tensor(latent.times, dtype=F64) * sde.label_steps
    assert (index - index.round()).abs().max() < 1e-9 and str(latent.settings["grid"]).endswith("@index")


def test_auto_takes_calls_not_steps() -> None:
    with pytest.raises(BadInput, match="give nfe = 10, not steps"):
        scoresde.sample(mixture().denoiser(VP), (2, 2), "auto", 10)
    with pytest.raises(BadInput, match="name a sampler here"):
        scoresde.encode(mixture().denoiser(VP), torch.zeros(2, 2), "auto")


def test_a_function_may_stand_for_a_grid() -> None:
    how = {"shape": (2, 2), "sampler": "dpm++2m"}
    denoiser = mixture().denoiser(VP)
    named = scoresde.sample(denoiser, steps=7, grid="karras:5", **how)
    given = scoresde.sample(denoiser, steps=7, grid=partial(karras, rho=5.0), **how)
    assert torch.equal(named.x, given.x) and given.settings["grid"] == "function"
    assert scoresde.sample(denoiser, nfe=7, grid=partial(karras, rho=5.0), **how).times == named.times


@pytest.mark.parametrize(
    "how, match",
    [
        ({"dtype": torch.float16}, "states are float32 or float64"),
        ({"dtype": torch.int64}, "states are float32 or float64"),
        ({"x": torch.full((2, 2), math.nan)}, "not finite"),
        ({"x": torch.zeros(2, 2, dtype=torch.int64)}, "states are float32 or float64"),
        ({"shape": (2, -2)}, "integers of at least 1"),
        ({"grad": "chekpoint"}, "did you mean 'checkpoint'"),
    ],
)
def test_states_that_are_refused(how: dict, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        scoresde.sample(mixture().denoiser(VP), **{"shape": (2, 2), "sampler": "ddim", "steps": 3, **how})


def test_gradients_where_torch_records_none_are_refused() -> None:
    denoiser, x = mixture().denoiser(VP), torch.zeros(2, 2)
    with torch.inference_mode(), pytest.raises(BadInput, match="inference_mode"):
        scoresde.sample(denoiser, (2, 2), "ddim", 3, x=x, grad=True)
    with pytest.raises(BadInput, match="did you mean 'checkpoint'"):
        scoresde.encode(denoiser, x, "ddim", 3, grad="chekpoint")


@pytest.mark.parametrize("name", ["ddim", "dpm++2m", "heun"])
def test_the_memory_of_a_checkpointed_run_is_its_states(name: str) -> None:
    """What autograd keeps for the way back: a state or two for each call, not the network's activations.

    With those of the one call that is being computed again, 200 steps take less than twice what 20 do.
    """
    weight = torch.eye(2, 1024, dtype=F64).requires_grad_()

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.tanh(x @ weight) @ weight.T)

    def kept(grad: bool | str, n: int) -> int:
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        x = start(VP, (32, 2)).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = scoresde.sample(scoresde.Denoiser(network, VP, "v"), (32, 2), name, n, x=x, grad=grad)
        assert out.x.requires_grad
        return sum(held.values())

    state, activations = 32 * 2 * 8, 32 * 1024 * 8
    short, long = kept("checkpoint", 20), kept("checkpoint", 200)
    calls = documented_nfe(name, 200) - documented_nfe(name, 20)
    assert long - short < 3 * calls * state and kept(True, 40) > 20 * activations
    if documented_nfe(name, 200) == 200:
        assert activations + long < 2 * (activations + short)


def test_a_network_is_compiled_once() -> None:
    """By dynamo, for all steps of a run and for the next runs: time, state and their types never change its graph."""
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(1)
        return graph.forward

    network = torch.compile(lambda x, t: torch.tanh(x * (1 + t[:, None])), backend=backend, fullgraph=True)
    for name in ("ddim", "ddpm", "unipc", "rk4", "ode"):
        out = scoresde.sample(scoresde.Denoiser(network, VP, "v"), (4, 3), name, 50)
        assert torch.isfinite(out.x).all()
    assert len(graphs) == 1


def test_a_checkpointed_encoding_has_the_same_gradient() -> None:
    data, grads = mixture().sample(2), []
    for grad in (True, "checkpoint"):
        x = data.clone().requires_grad_()
        grads.append(
            torch.autograd.grad(scoresde.encode(mixture().denoiser(VP), x, "ddim", 5, grad=grad).x.sum(), x)[0]
        )
    assert torch.equal(*grads)


@pytest.mark.parametrize("name", [n for n, s in SAMPLERS.items() if not s.build])
def test_nfe_caps_the_calls_of_an_adaptive_sampler(name: str) -> None:
    with pytest.raises(SolverFailure, match="7 network calls reached"):
        scoresde.sample(mixture().denoiser(VP), (2, 2), name, nfe=7)


def test_encoding_takes_options_and_times() -> None:
    denoiser, data = mixture().denoiser(VP), mixture().sample(3)
    times = make_grid("lambda", VP, 6, "t_min")
    given = scoresde.encode(denoiser, data, "ode", grid=times, method="midpoint")
    assert given.times == times[::-1] and given.nfe == 12 and given.settings["grid"] == "given"
    named = scoresde.encode(denoiser, data, "ode", 6, grid="lambda", method="midpoint")
    assert torch.equal(given.x, named.x)
    for how, match in (
        ({"sampler": "rk45", "steps": 5}, "chooses its own steps"),
        ({"sampler": "ddim", "eta": 1.0}, "encoding by 'ddim' has no option 'eta'"),
        ({"sampler": "ode", "methud": "rk4", "steps": 5}, "no option 'methud'.*did you mean 'method'"),
        ({"sampler": "ode", "steps": 0}, "positive integer"),
        ({"sampler": "ode", "steps": 5, "grid": times}, "verbatim"),
        ({"sampler": "ode", "batch_size": 0}, "positive integer"),
    ):
        with pytest.raises(BadInput, match=match):
            scoresde.encode(denoiser, data, **how)


@pytest.mark.parametrize("name", [n for n, s in SAMPLERS.items() if s.encode and s.build])
def test_encoding_by_default_loses_less_than_a_hundredth(name: str) -> None:
    """In 100 steps on the sampler's own grid; a twentieth where the sampler is of first order."""
    data, denoiser = mixture(16).sample(16, seed=1), mixture(16).denoiser(VP)
    latent = scoresde.encode(denoiser, data, name, 100).x
    how = {"x": latent, "grid": SAMPLERS[name].encode_grid, "final": "t_min", "dtype": F64}
    error = (scoresde.sample(denoiser, (16, 16), name, 100, **how).x - data).square().mean().sqrt()
    assert error < (0.05 if SAMPLERS[name].order == 1 else 0.01) * data.std()


def test_encoded_gaussian_data_have_the_priors_variance() -> None:
    gaussian = scoresde.Gaussian(torch.zeros(2, dtype=F64), torch.diag(torch.tensor([1.5, 0.2], dtype=F64)))
    latent = scoresde.encode(gaussian.denoiser(VP), gaussian.sample(20000), "ode", 20).x
    assert latent.var(0) == pytest.approx([1.0, 1.0], rel=0.04)


def test_the_adaptive_ode_meets_its_tolerance_inside_its_interval() -> None:
    seen: list[float] = []
    inner = mixture().network(VP, "x0")
    denoiser = scoresde.Denoiser(lambda x, t: seen.append(float(t[0])) or inner(x, t), VP, "x0")
    x = start(VP, (8, 2))
    fine = scoresde.sample(denoiser, (8, 2), "ode", 300, x=x, dtype=F64, final="t_min").x
    for tol in (1e-3, 1e-5, 1e-7):
        seen.clear()
        out = scoresde.sample(denoiser, (8, 2), "ode", x=x, dtype=F64, rtol=tol, atol=tol)
        assert (out.x - fine).abs().max() < 100 * tol and out.nfe == len(seen) < 200
        assert VP.t_min <= min(seen) and max(seen) <= VP.t_max
    ends = []
    scoresde.sample(denoiser, (8, 2), "ode", x=x, dtype=F64, callback=lambda *step: ends.append(step[1:3]))
    assert ends[0][0] == VP.t_max and ends[-1][1] == VP.t_min and all(a[1] == b[0] for a, b in pairwise(ends))


def test_one_stiff_sample_leaves_the_others_within_tolerance() -> None:
    x = start(VP, (16, 2))
    x[0] = 40.0
    denoiser = mixture().denoiser(VP)
    how = {"dtype": F64, "rtol": 1e-6, "atol": 1e-6}
    together = scoresde.sample(denoiser, (16, 2), "ode", x=x, **how).x
    apart = torch.cat([scoresde.sample(denoiser, (1, 2), "ode", x=x[i : i + 1], **how).x for i in range(16)])
    assert ((together - apart).abs() / (1 + apart.abs())).max() < 1e-5


def test_the_ode_says_why_it_cannot_finish() -> None:
    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.where(t[:, None] < 0.1, math.nan, x)

    denoiser = scoresde.Denoiser(broken, VP, "x0")
    with pytest.raises(SolverFailure, match=r"NaN or infinity at t = 0\.0\d+"):
        scoresde.sample(denoiser, (2, 2), "ode")
    with pytest.raises(SolverFailure, match=r"at t = .*loosen the tolerances rtol.*float64.*max_nfe"):
        scoresde.sample(mixture().denoiser(VP), (2, 2), "ode", rtol=1e-9, atol=1e-9, max_nfe=60)
