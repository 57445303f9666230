"""What `sample` and `encode` refuse before the first call, in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from exact import (
    F64,
    STOCHASTIC,
    mixture,
)
from test_sample import VP, draw

import scoresde
from scoresde import SAMPLERS, BadInput
from scoresde.grids import from_sigmas
from scoresde.samplers.checks import check_denoiser


@pytest.mark.parametrize(
    "how, message",
    [
        ({"sampler": "dimm"}, "unknown sampler 'dimm'.*did you mean 'ddim'"),
        ({"sampler": "ddim", "rtol": 1e-5}, "has no option 'rtol'"),
        ({"sampler": "ddim", "etta": 0.5}, "did you mean 'eta'"),
        ({"sampler": "em", "eta": 0.5}, "it has none"),
        ({"sampler": "ode", "steps": 10, "rtol": 1e-5}, "belongs to an adaptive run"),
        ({"sampler": "ode", "method": "rk4"}, "unknown adaptive ode method"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"steps": -1}, "steps must be a positive integer"),
        ({"steps": 5, "nfe": 5}, "give one"),
        ({"nfe": 0}, "nfe must be a positive integer"),
        ({"sampler": "langevin", "nfe": 3}, "below the 6 calls"),
        ({"sampler": "ddim", "grid": "karas"}, "did you mean 'karras'"),
        ({"sampler": "ddim", "final": "zer0"}, "did you mean 'zero'"),
        ({"grid": [1.0, 0.5, 0.5]}, "strictly decreasing"),
        ({"grid": [1.5, 0.5]}, "within"),
        ({"grid": [1.0]}, "at least two"),
        ({"grid": [1.0, 0.5], "steps": 3}, "verbatim"),
        ({"noise": "gpu"}, "unknown noise"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"shape": (0, 2)}, "at least 1"),
        ({"x": torch.zeros(3, 2)}, "x has shape"),
        ({"grid": [0.2, 0.1, 0.0]}, "starts at t = 0.2, where 66% of the variance is of the data: give the state"),
        ({"device": "gpu"}, "device = 'gpu'"),
        ({"device": "meta"}, "device = 'meta'"),
        ({"noise": lambda step, draw, x: torch.randn(3, 2)}, r"noise gave torch.float32 of shape \(3, 2\)"),
        ({"noise": lambda step, draw, x: torch.randn(x.shape, dtype=F64)}, "noise gave torch.float64"),
        ({"noise": lambda step, draw, x: None}, "noise gave None"),
        ({"sampler": "edm", "s_noise": 1.5}, "s_noise = 1.5 does nothing without noise"),
        ({"sampler": "edm", "s_churn": 9.0, "s_min": 1e5}, "no knot is within s_min"),
        ({"sampler": "eab2", "tau": lambda t: "x"}, "tau = 'x' at t = 1"),
        ({"sampler": "pc", "rule": "norm", "noise": "brownian"}, "laid along a table of rows"),
    ],
)
def test_bad_requests_are_refused_before_the_first_call(how: dict, message: str) -> None:
    calls: list[int] = []
    denoiser = scoresde.Denoiser(lambda x, t: calls.append(1) or x, VP)
    with pytest.raises(BadInput, match=message) as caught:
        scoresde.sample(denoiser, **{"shape": (2, 2), **how})
    assert not calls and "\n" not in str(caught.value)


WRONG_TYPES = """
import json, numpy, scoresde, torch
calls = []
denoiser = scoresde.Denoiser(lambda x, t: calls.append(1) or x, scoresde.VPSDE(), "x0")
cases = [
    (dict(start=2.0), "start = 2.0: an AnalyticStart"),
    (dict(start=0), "start = 0: an AnalyticStart"),
    (dict(eta="1"), "eta = '1': eta must be a number"),
    (dict(eta=True), "eta = True: eta must be a number"),
    (dict(eta=None), "eta = None: eta must be a number"),
    (dict(sampler=3), "sampler = 3: give a name of scoresde.SAMPLERS, 'auto', or a Sampler"),
    (dict(sampler=None), "sampler = None: give a name"),
    (dict(sampler="autoo", steps=None), "did you mean 'auto'?"),
    (dict(sampler="auto", steps=None, grid=[1.0, 0.5]), "'auto' chooses for a budget of calls: give nfe"),
    (dict(sampler="eab2", tau="x"), "tau = 'x': tau must be a number or a function"),
    (dict(sampler="pc", predictor=3), "predictor = 3: predictor must be a name or a function"),
    (dict(sampler="pc", correctors=1.5), "correctors = 1.5: correctors must be an integer"),
    (dict(sampler="dpm2m", lower_order_final=1), "lower_order_final = 1: lower_order_final must be True or False"),
    (dict(sampler="rk45", steps=None, rtol="1"), "rtol = '1': rtol must be a number"),
    (dict(steps="5"), "steps = '5'"),
    (dict(steps=None, nfe=5.0), "nfe = 5.0"),
    (dict(grid=lambda *how: None), "its times None: give numbers"),
    (dict(grid=3), "grid = 3: a name, falling times in a list, or a function"),
    (dict(final=3), "unknown final 3: choose from zero"),
    (dict(noise=3), "noise = 3: give one of cpu"),
    (dict(cond=3), "cond = 3"),
    (dict(callback=3), "callback = 3: a function of (i,"),
    (dict(batch_size="2"), "batch_size = '2'"),
    (dict(seed="1"), "seed = '1'"),
    (dict(seed=True), "seed = True: a seed is an integer from 0 to 2^64 - 1"),
    (dict(seed=torch.tensor(2.5)), "seed = tensor(2.5000): a seed"),
    (dict(first=torch.tensor(1.5)), "first = tensor(1.5000)"),
    (dict(shape=torch.tensor([2.0, 2.0])), "size = tensor(2.): the number of samples"),
    (dict(shape=(2, True)), "size = True: the number of samples"),
    (dict(shape=()), "shape = (): the number of samples"),
    (dict(seed=2**64), "seed = 18446744073709551616: a seed"),
    (dict(first="1"), "first = '1'"),
    (dict(x=[1.0]), "x = [1.0]: a state is a tensor"),
    (dict(dtype="float32"), "dtype = float32"),
]
for how, words in cases:
    try:
        scoresde.sample(denoiser, **{"shape": (2, 2), "sampler": "ddim", "steps": 5, **how})
    except scoresde.BadInput as error:
        assert words in str(error) and "\\n" not in str(error), (how, error)
    else:
        raise AssertionError(how)
for how, words in ((dict(order="2"), "order = '2': order must be an integer"), (dict(sampler=3), "sampler = 3")):
    try:
        scoresde.encode(denoiser, torch.zeros(2, 2), **{"sampler": "ipndm", "steps": 5, **how})
    except scoresde.BadInput as error:
        assert words in str(error), (how, error)
    else:
        raise AssertionError(how)
assert not calls
few = scoresde.sample(denoiser, 3, "ddim", numpy.int64(4))  # a number of scalar samples, an integer of numpy
assert few.x.shape == (3,) and few.nfe == len(calls) == 4 and type(few.settings["steps"]) is int
of_numpy = dict(steps=numpy.int32(4), seed=numpy.uint64(5), first=numpy.int64(6), eta=numpy.float32(0.5))
own = scoresde.sample(denoiser, (3, 2), "ddim", steps=4, seed=5, first=6, eta=0.5)
like = scoresde.sample(denoiser, numpy.array([3, 2]), "ddim", **of_numpy)
assert torch.equal(own.x, like.x) and json.dumps(dict(like.settings)) == json.dumps(dict(own.settings))
"""


def test_values_of_the_wrong_type_are_refused_in_one_line() -> None:
    """As a user meets them: without the tests' checker of annotations, which would come first."""
    subprocess.run([sys.executable, "-c", WRONG_TYPES], check=True)


def test_a_sampler_may_stand_for_its_name() -> None:
    how = {"steps": 6, "seed": 7, "dtype": F64}
    named, given = (scoresde.sample(mixture().denoiser(VP), (12, 2), s, **how) for s in ("eab2", SAMPLERS["eab2"]))
    assert torch.equal(named.x, given.x) and given.settings == named.settings


@pytest.mark.parametrize("name", ["batch_size", "callback", "check"])
def test_a_trajectory_says_what_only_sample_takes(name: str) -> None:
    with pytest.raises(BadInput, match=f"^{name}: a trajectory is one batch"):
        scoresde.trajectory(mixture().denoiser(VP), (2, 2), "ddim", 3, **{name: 1})


def test_encoding_starts_above_zero() -> None:
    with pytest.raises(BadInput, match="leave out its last time, 0"):
        scoresde.encode(mixture().denoiser(VP), torch.ones(1, 2), "ddim", grid=[1.0, 0.5, 0.0])


def test_bad_grids_and_denoisers() -> None:
    with pytest.raises(TypeError, match="wrap the network"):
        check_denoiser(torch.nn.Identity())
    with pytest.raises(BadInput, match="noisier than t_max"):
        from_sigmas(VP, [1e9, 1.0])
    with pytest.raises(BadInput, match="cannot encode: choose from"):
        scoresde.encode(mixture().denoiser(VP), torch.zeros(1, 2), "ddpm")
    zero = scoresde.DDPM.named("linear", zero_terminal_snr=True)
    with pytest.raises(BadInput, match="needs some signal"):
        scoresde.sample(scoresde.Denoiser(lambda x, t: x, zero, "v"), (2, 2), "ddim", 5, grid="lambda")
    with pytest.raises(BadInput, match="'v' or 'x0'"):
        scoresde.sample(scoresde.Denoiser(lambda x, t: x, zero, "eps"), (2, 2), "ddim", 5, grid="t")
    with pytest.raises(BadInput, match="returned shape"):
        scoresde.sample(scoresde.Denoiser(lambda x, t: x[:, :1], VP), (2, 2), "ddim", 5)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_device_noise_is_opt_in_and_recorded(name: str) -> None:
    out = draw(name, noise="device")
    assert out.settings["noise"] == "device" and not torch.equal(out.x, draw(name).x)
    assert torch.equal(draw(name, noise="device").x, out.x)
    assert not torch.isin(draw(name, noise="device", first=5).x, out.x).any()  # a later part, no repetition
