"""Learned variances and respaced chains, against the chains of improved DDPM written out from the betas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from exact import F64, SDES, start
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import scoresde
from scoresde import BadInput, Denoiser, clip
from scoresde.grids import respace, respaced_times
from scoresde.samplers.sde_steps import ddpm
from scoresde.transforms import Checkpointed

N = 200
CHAIN = scoresde.DDPM.named("linear", N)
BETAS = np.asarray(CHAIN.betas, dtype=np.longdouble)
BAR = np.cumprod(1 - BETAS)  # ᾱ of step i
SHAPE = (3, 2, 4)  # three samples of two channels
DRAWS = torch.randn(N, *SHAPE, dtype=F64, generator=torch.Generator().manual_seed(1))


def network(x: Tensor, index: Tensor) -> Tensor:
    """(ε̂, 2v - 1): any smooth function of the state and of the step's index 0 … N-1."""
    t = index.reshape(-1, 1, 1) / N
    return torch.cat([torch.tanh(x * (0.5 + t)), torch.sin(3 * x + t)], dim=1)


def learned(net: Callable[..., Tensor] = network, sde: scoresde.SDE = CHAIN, **fields: Any) -> Denoiser:
    return Denoiser(net, sde, "eps", time="index", learned_variance=True, **fields)


def fixed(v: float, sde: scoresde.SDE = CHAIN) -> Denoiser:
    """A network that has learned the same v everywhere."""
    return learned(lambda x, t: torch.cat([torch.tanh(x), torch.full_like(x, 2 * v - 1)], dim=1), sde)


def published_step(x: Tensor, bar: float, bar_before: float, index: int, z: Tensor, clipped: bool = False) -> Tensor:
    """One ancestral step with a learned range of variances (Nichol & Dhariwal 2021, eq. 9-11 and 15), from ᾱ alone.

    β, posterior variance β̃ = β (1 - ᾱ')/(1 - ᾱ), log var = v log β + (1-v) log β̃; x̂_0 without noise at the last.
    """
    beta = 1 - bar / bar_before
    eps, raw = network(x, torch.full((len(x),), float(index), dtype=F64)).chunk(2, dim=1)
    x0 = (x - float(np.sqrt(1 - bar)) * eps) / float(np.sqrt(bar))
    x0 = x0.clamp(-1, 1) if clipped else x0
    of_x0, of_x = np.sqrt(bar_before) * beta / (1 - bar), np.sqrt(1 - beta) * (1 - bar_before) / (1 - bar)
    mean = float(of_x0) * x0 + float(of_x) * x
    if bar_before == 1:
        return mean
    v = (raw + 1) / 2
    log_var = v * float(np.log(beta)) + (1 - v) * float(np.log(beta * (1 - bar_before) / (1 - bar)))
    return mean + (0.5 * log_var).exp() * z


def published_chain(x: Tensor, steps: Sequence[int], clipped: bool = False) -> Tensor:
    """The whole chain over the given steps, in falling order, with the betas of the steps it keeps."""
    for k, (index, before) in enumerate(pairwise([*steps, None])):
        x = published_step(x, BAR[index], np.longdouble(1) if before is None else BAR[before], index, DRAWS[k], clipped)
    return x


def run(denoiser: scoresde.denoiser.AnyDenoiser, x: Tensor, times: Sequence[float], **options: Any) -> Tensor:
    out, _ = ddpm(denoiser.sde, tuple(times), **options).run(denoiser, x, lambda i, draw, x: DRAWS[i].to(x.dtype))
    return out


def every_step() -> list[float]:
    return [i / N for i in range(N, -1, -1)]


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-12 * max(1.0, float(b.abs().max())))


# --------------------------------------------------------------------------------------------------- learned variance


@pytest.mark.parametrize("clipped", [False, True])
def test_the_chain_with_a_learned_variance_is_the_published_one(clipped: bool) -> None:
    denoiser, x = clip(learned()) if clipped else learned(), start(CHAIN, SHAPE)
    want = published_chain(x, range(N - 1, -1, -1), clipped)
    assert close(run(denoiser, x, every_step()), want)
    assert not close(run(denoiser, x, every_step(), variance="posterior"), want)


@pytest.mark.parametrize("v, variance", [(0.0, "posterior"), (1.0, "upper")])
@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_the_ends_of_the_range_are_the_fixed_variances(sde: scoresde.SDE, v: float, variance: str) -> None:
    times = scoresde.grids.make_grid("phi", sde, 12, "zero")
    x, denoiser = start(sde, SHAPE), fixed(v, sde)
    got, want = run(denoiser, x, times), run(denoiser, x, times, variance=variance)
    assert torch.equal(got, want) if v == 0 else close(got, want)


def test_a_network_without_a_variance_has_the_posteriors() -> None:
    plain, x = Denoiser(lambda x, t: torch.tanh(x), CHAIN, "eps"), start(CHAIN, SHAPE)
    assert torch.equal(run(plain, x, every_step()), run(plain, x, every_step(), variance="posterior"))
    assert [row.c for row in ddpm(CHAIN, (1.0, 0.5, 0.0)).rows] == [
        row.c for row in ddpm(CHAIN, (1.0, 0.5, 0.0), variance="posterior").rows
    ]


def test_other_samplers_and_forms_use_the_first_half() -> None:
    plain = Denoiser(lambda x, t: network(x, t).chunk(2, dim=1)[0], CHAIN, "eps", time="index")
    x = start(CHAIN, SHAPE)
    for form in scoresde.denoiser.FORMS:
        assert torch.equal(learned().predict(form, x, 0.5), plain.predict(form, x, 0.5))
    for sampler, options in (("ddim", {}), ("ddim", {"eta": 1.0}), ("em", {}), ("ode", {})):
        how = {"x": x, "dtype": F64, "seed": 4, **options}
        one, two = (scoresde.sample(d, SHAPE, sampler, 6, **how).x for d in (learned(), plain))
        assert torch.equal(one, two)


@pytest.mark.parametrize("wrap", [lambda d: d, clip, Checkpointed], ids=["plain", "clip", "checkpointed"])
def test_the_posterior_is_the_step_that_the_sampler_takes(wrap: Callable[..., Any]) -> None:
    denoiser, x = wrap(learned()), start(CHAIN, SHAPE)
    for index in (N - 1, N // 2, 1):
        mean, std = denoiser.posterior(x, index / N, (index + 1) / N)
        step = [run(denoiser, x, ((index + 1) / N, index / N))]
        assert std.shape == SHAPE and close(mean + std * DRAWS[0], step[0])
        if denoiser is not wrap:
            want = published_step(x, BAR[index], BAR[index - 1], index, DRAWS[0], clipped=wrap is clip)
            assert close(mean + std * DRAWS[0], want)


def test_the_posterior_of_a_plain_network_is_that_of_its_sde() -> None:
    sde = scoresde.VPSDE()
    denoiser, x = Denoiser(lambda x, t: torch.tanh(x), sde, "x0"), start(sde, (3, 2))
    mean, std = denoiser.posterior(x, 0.3, 0.4)
    want = sde.posterior(x, denoiser.x0(x, 0.4), 0.3, 0.4)
    assert torch.allclose(mean, want[0], rtol=1e-13) and torch.equal(std, want[1])


def test_the_posterior_at_the_data_has_no_noise() -> None:
    for denoiser in (learned(), fixed(1.0)):
        mean, std = denoiser.posterior(start(CHAIN, SHAPE), 0.0, 1 / N)
        assert torch.isfinite(mean).all() and not std.any()


def test_a_wrong_number_of_channels_names_the_shapes() -> None:
    x, plain = torch.zeros(3, 2, 4, dtype=F64), lambda x, t: x
    with pytest.raises(BadInput, match=r"\(3, 2, 4\) for a state of shape \(3, 2, 4\).*returns \(batch, 2c, \.\.\.\)"):
        learned(plain).x0(x, 0.5)
    with pytest.raises(BadInput, match=r"\(batch, 2c, \.\.\.\)"):
        run(learned(plain), x, (1.0, 0.5, 0.0))
    with pytest.raises(BadInput, match=r"\(3,\) for a state of shape \(3,\)"):
        learned(plain).x0(torch.zeros(3, dtype=F64), 0.5)
    with pytest.raises(BadInput, match=r"\(3, 4, 4\) for a state of shape \(3, 2, 4\): .*learned_variance=True"):
        Denoiser(network, CHAIN, "eps", time="index").x0(x, 0.5)
    with pytest.raises(BadInput, match="did you mean 'learned'"):
        ddpm(CHAIN, (1.0, 0.5), variance="learnt")


def test_a_half_network_has_its_variance_in_the_states_dtype() -> None:
    denoiser = learned(dtype=torch.bfloat16)
    plan = denoiser.plan("x0", [0.5], torch.zeros(SHAPE))
    assert plan.learned
    assert [part.dtype for part in plan.learned(0, torch.ones(SHAPE))] == [torch.float32] * 2


class ScalarReads(TorchDispatchMode):
    """Counts values read back from tensors."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back_from_the_device() -> None:
    with ScalarReads() as reads:
        run(clip(learned()), start(CHAIN, SHAPE), (1.0, 0.5, 0.1, 0.0))
    assert reads.count == 0


# ---------------------------------------------------------------------------------------------------- respaced chains


@pytest.mark.parametrize(
    "length, spec, steps",
    [
        (10, "ddim5", (0, 2, 4, 6, 8)),
        (10, "ddim4", (0, 3, 6, 9)),  # strides 1, 2 give 10 and 5, stride 3 gives 4
        (10, "ddim2", (0, 5)),  # the smallest of the strides 5 … 9
        (10, "10", tuple(range(10))),
        (10, "4", (0, 3, 6, 9)),
        (10, "3", (0, 4, 9)),  # 4.5 rounds to even
        (10, [3], (0, 4, 9)),
        (10, "2,3", (0, 4, 5, 7, 9)),
        (10, "1,1,1", (0, 4, 7)),  # sections of 4, 3, 3
        (10, [4, 1, 2], (0, 1, 2, 3, 4, 7, 9)),
        (1, "ddim1", (0,)),
        (1, [1], (0,)),
    ],
)
def test_respacing_by_hand(length: int, spec: str | list[int], steps: tuple[int, ...]) -> None:
    assert respace(length, spec) == steps


def test_respacing_keeps_the_counts_asked_for() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        length, sections = int(rng.integers(20, 1500)), int(rng.integers(1, 7))
        sizes = [len(part) for part in np.array_split(np.arange(length), sections)]  # the first ones longer
        counts = [int(rng.integers(2, size + 1)) for size in sizes]
        steps, edges = respace(length, ",".join(map(str, counts))), np.cumsum([0, *sizes])
        assert all(a < b for a, b in pairwise(steps))
        for first, last, count in zip(edges[:-1], edges[1:] - 1, counts, strict=True):
            inside = [i for i in steps if first <= i <= last]
            assert len(inside) == count and (inside[0], inside[-1]) == (first, last)
            assert max(np.diff(inside)) - min(np.diff(inside)) <= 1
        assert respace(length, counts) == steps


def test_strided_respacing() -> None:
    for count in (1000, 500, 250, 100, 50, 25, 10):
        assert respace(1000, f"ddim{count}") == tuple(range(0, 1000, 1000 // count))


@pytest.mark.parametrize(
    "spec, message",
    [
        ("ddim300", "no stride takes 300 of 1000 steps; take 334 or 250"),
        ("ddim2000", "no stride takes 2000 of 1000 steps; take 1000 or 500"),
        ("10,600", "section 2 has 500 steps, not 600"),
        ([1] * 1001, "1001 sections of a chain of 1000"),
        ([], "0 sections"),
        ("ddim", 'give a number of steps, "ddim50"'),
        ("10,ten", '"10,15,20"'),
        ("10,0", "numbers for equal sections"),
        ([10, -1], "numbers for equal sections"),
    ],
)
def test_what_respacing_refuses(spec: str | list[int], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        respace(1000, spec)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("spec", ["ddim50", "10,15,20", [30]])
def test_respaced_times_are_a_grid_for_every_sde(sde: scoresde.SDE, spec: str | list[int]) -> None:
    times, steps = respaced_times(sde, spec), respace(1000, spec)
    assert all(a > b for a, b in pairwise(times)) and times[-1] == 0
    assert np.allclose(times[:-2], [(i + 1) / 1000 * sde.t_max for i in steps[:0:-1]], rtol=1e-12)
    assert sde.t_min <= times[-2] <= max(sde.t_min, sde.t_max / 1000)
    out = scoresde.sample(Denoiser(lambda x, t: torch.tanh(x), sde, "x0"), (2, 3), "ddim", grid=times)
    assert out.nfe == len(steps) and torch.isfinite(out.x).all()


@pytest.mark.parametrize("spec", ["ddim50", "ddim20", "10,15,20", [7, 2], "200"])
@pytest.mark.parametrize("variance", ["learned", "posterior"])
def test_a_respaced_chain_is_the_chain_of_the_respaced_betas(spec: str | list[int], variance: str) -> None:
    x, steps = start(CHAIN, SHAPE), respace(N, spec)
    net = network if variance == "learned" else lambda x, t: network(x, t).index_fill(1, torch.tensor([2, 3]), -1.0)
    got = run(learned(net), x, respaced_times(CHAIN, spec), variance=variance)
    if variance == "learned":
        assert close(got, published_chain(x, steps[::-1]))
    else:
        betas = 1 - BAR[list(steps)] / np.concatenate([[1.0], BAR[list(steps)][:-1]])
        chain = scoresde.DDPM(tuple(betas.astype(float).tolist()))  # told of its own steps, by the old chain's labels
        relabelled = Denoiser(
            lambda x, k: network(x, torch.tensor(steps)[k.round().long()].to(F64)).chunk(2, 1)[0], chain, "eps", "index"
        )
        own = [(k + 1) / chain.N for k in reversed(range(-1, chain.N))]
        assert (run(relabelled, x, own) - got).abs().max() < 1e-11 * max(1.0, float(got.abs().max()))
