"""Inpainting, editing and what they are made of: identities, closed forms on Gaussian data, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import F64, TABLES, steps_for
from torch import Tensor

import scoresde
from scoresde import SAMPLERS, BadInput, Table
from scoresde.grids import make_grid
from scoresde.guidance import INPAINTING, Noised, Renoised, Replaced, colourise, edit, grey_basis, inpaint
from scoresde.noise import START

VP, FLOW = scoresde.VPSDE(), scoresde.RectifiedFlow()
FEW: dict[str, dict[str, Any]] = {
    "replacement": {"steps": 4},
    "repaint": {"steps": 4, "sampler": "travel", "jump": 2, "repeats": 2},
    "score-sde": {"steps": 4, "sampler": "pc", "correctors": 2},
}
COV = torch.tensor([[1.0, 0.8, 0.3], [0.8, 1.2, 0.1], [0.3, 0.1, 0.5]], dtype=F64)
MEAN = torch.tensor([0.5, -0.3, 0.2], dtype=F64)
KNOWN, MASK = torch.tensor([[2.0, 0.0, 0.0]], dtype=F64), torch.tensor([False, True, True])


def gaussian(cov: Tensor = COV, sde: scoresde.SDE = VP) -> scoresde.Denoiser:
    return scoresde.Gaussian(MEAN, cov).denoiser(sde)


def bent(x: Tensor, t: Tensor) -> Tensor:
    """A network of any event shape in which all coordinates of a sample depend on each other, and on no other's."""
    flat = x.reshape(len(x), -1)
    return (flat.tanh() * 0.5 + flat.mean(1, keepdim=True).cos()).reshape(x.shape)


BENT = scoresde.Denoiser(bent, VP, "v")


# ------------------------------------------------------------------------------------------------------------- the hook


@pytest.mark.parametrize("sampler", TABLES)
def test_a_hook_acts_after_every_row(sampler: str) -> None:
    """At the row's end, jumps and stages included; one that does nothing changes nothing."""
    table = SAMPLERS[sampler].build(VP, make_grid("phi", VP, steps_for(sampler), "zero"))
    assert isinstance(table, Table)
    times: list[float] = []

    def watch(t: float, x: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        times.append(t)
        return x

    how: dict[str, Any] = {"steps": steps_for(sampler), "grid": "phi", "final": "zero"}
    seen = scoresde.sample(BENT, (2, 3), sampler, hook=watch, **how)
    assert times == [row.t_next for row in table.rows]
    assert torch.equal(seen.x, scoresde.sample(BENT, (2, 3), sampler, **how).x)


@pytest.mark.parametrize("how", [{"noise": "cpu"}, {"noise": "brownian"}, {"sampler": "ddim", "grid": "phi"}])
def test_noise_of_a_hook_belongs_to_seed_and_sample(how: dict[str, Any]) -> None:
    """The same alone, in other batches and in other runs; new at each call; none of the table's own."""
    drawn: list[Tensor] = []

    def jitter(t: float, x: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        drawn.extend((noise(), noise()))
        return x + 0.1 * drawn[-1]

    how = {"sampler": "ddpm", "steps": 3, "hook": jitter, **how}
    whole = scoresde.sample(BENT, (5, 2), **how).x
    assert len({tuple(z.flatten().tolist()) for z in drawn}) == 6
    table_draws = [scoresde.SeededNoise(0, range(5))(i, 0, whole) for i in range(3)]
    assert not any(torch.equal(z, other) for z in drawn for other in table_draws)
    assert torch.equal(scoresde.sample(BENT, (5, 2), batch_size=2, **how).x, whole)
    assert torch.equal(scoresde.sample(BENT, (2, 2), first=3, **how).x, whole[3:])
    assert not torch.equal(scoresde.sample(BENT, (5, 2), **{**how, "seed": 1}).x, whole)
    *_, last = scoresde.trajectory(BENT, (5, 2), **how)
    assert torch.equal(last.x, whole)


def test_a_hook_where_none_can_act_is_refused_before_the_first_call() -> None:
    denoiser = scoresde.Denoiser(lambda x, t: pytest.fail("called"), VP)
    for sampler in ("ode", "rk45", "dpm-adaptive", "sde-adaptive"):
        with pytest.raises(BadInput, match=f"{sampler}.*choose from.*travel"):
            scoresde.sample(denoiser, (2, 2), sampler, hook=lambda t, x, noise: x)
    for wrong in (lambda t, x, noise: x[:1], lambda t, x, noise: x.double(), lambda t, x, noise: None):
        with pytest.raises(BadInput, match="hook: returned"):
            scoresde.sample(BENT, (2, 2), "ddim", 2, hook=wrong)


def test_a_hook_under_the_norm_rule() -> None:
    hook = Renoised(torch.full((2, 3), 3.0), torch.tensor([[False, True, True]]).expand(2, 3), VP)
    out = scoresde.sample(BENT, (2, 3), "pc", 3, rule="norm", hook=hook).x
    assert (out[:, 0] == 3).all() and bool(torch.isfinite(out).all())


# ----------------------------------------------------------------------------------------------------- known and hidden


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_known_stays_at_the_noise_level_of_the_rest(sampler: str) -> None:
    """It goes the way of data that are that point alone; z itself stays under exact tables without noise."""
    y, hidden = torch.linspace(-2.0, 2.0, 4, dtype=F64).expand(2, 4), torch.arange(4).expand(2, 4) > 1
    z = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    x, steps = VP.perturb(y, 1.0, z), steps_for(sampler)
    cond = {"known": y.where(~hidden, torch.nan), "hidden": hidden}
    point = scoresde.Denoiser(lambda x, t: y[: len(x)], VP, "x0")
    how: dict[str, Any] = {"final": "t_min", **({"grid": "t"} if steps else {"rtol": 0.03, "atol": 0.03})}
    run = scoresde.trajectory(Replaced(BENT), (2, 4), sampler, steps, x=x, cond=cond, **how)
    alone = scoresde.trajectory(point, (2, 4), sampler, steps, x=x, **how)
    spec = SAMPLERS[sampler]
    if spec.build:
        built = spec.build(VP, (1.0, 0.3, 0.01))
        exact = isinstance(built, Table) and built.exact and not spec.stochastic
        for step, other in zip(run, alone, strict=True):
            torch.testing.assert_close(step.x[~hidden], other.x[~hidden], rtol=1e-9, atol=1e-9)
            if exact:
                level = VP.perturb(y, step.t_next, z)
                torch.testing.assert_close(step.x[~hidden], level[~hidden], rtol=1e-9, atol=1e-9)
    else:
        *_, last = run
        off = (last.x - VP.perturb(y, VP.t_min, z))[~hidden].abs().max()
        assert off < 0.2


def test_the_known_part_of_the_ancestral_chain_is_a_forward_path() -> None:
    """Each step draws from q(x_s | x_t, x_0 = y), also where the network has learned another variance."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([bent(x, t), torch.ones_like(x)], 1)

    denoiser = Replaced(scoresde.Denoiser(network, VP, learned_variance=True))
    x, y, z = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1), dtype=F64).unbind()
    cond = {"known": y, "hidden": torch.arange(4).expand(2, 4) > 1}
    table = SAMPLERS["ddpm"].build(VP, (0.7, 0.4))
    out, _ = table.run(denoiser, x, lambda step, draw, x: z, **cond)
    mean, std = VP.posterior(x, y, 0.4, 0.7)
    torch.testing.assert_close(out[:, :2], (mean + std * z)[:, :2])
    assert (out - mean - std * z)[:, 2:].abs().min() > 1e-3


@pytest.mark.parametrize("form", ["eps", "x0", "v", "score", "flow"])
def test_every_form_follows_from_what_is_known(form: str) -> None:
    hidden, t = torch.tensor([[True, False, False]]), torch.tensor(0.3, dtype=F64)
    y, eps = torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(2), dtype=F64).unbind()
    x = FLOW.perturb(y, 0.3, eps)
    u, w = scoresde.denoiser.mix(form, FLOW, t)
    got = Replaced(gaussian(sde=FLOW)).predict(form, x, 0.3, known=y, hidden=hidden)
    torch.testing.assert_close(got[~hidden], (u * y + w * eps)[~hidden])
    assert torch.equal(got[hidden], gaussian(sde=FLOW).predict(form, x, 0.3)[hidden])
    for cond in ({}, {"known": y}, {"known": y, "hidden": hidden[:, :2]}):
        with pytest.raises(BadInput, match="of a Replaced denoiser"):
            Replaced(gaussian(sde=FLOW)).predict(form, x, 0.3, **cond)


# ----------------------------------------------------------------------------------------------------------- inpainting


@pytest.mark.parametrize("method", INPAINTING)
@pytest.mark.parametrize("event", [(2,), (7, 3), (2, 3, 2, 2)], ids=str)
def test_nothing_leaks_and_what_is_known_comes_back(event: tuple[int, ...], method: str) -> None:
    """Hidden values change no bit, known ones are returned bit by bit, no sample depends on another."""
    generator = torch.Generator().manual_seed(3)
    known = torch.randn(3, *event, generator=generator)
    mask = torch.rand(3, *event, generator=generator) < 0.5
    mask.reshape(3, -1)[:, 0], mask.reshape(3, -1)[:, -1] = True, False
    out = inpaint(BENT, known, mask, method, **FEW[method]).x
    assert torch.equal(out[~mask], known[~mask]) and bool(torch.isfinite(out).all())
    for junk in (1e6, torch.nan):
        assert torch.equal(inpaint(BENT, known.where(~mask, junk), mask, method, **FEW[method]).x, out)
    others = torch.cat([torch.randn(1, *event), known[1:]])
    assert torch.equal(inpaint(BENT, others, mask, method, **FEW[method]).x[1:], out[1:])
    assert torch.equal(inpaint(BENT, known, mask, method, batch_size=2, **FEW[method]).x, out)
    assert torch.equal(inpaint(BENT, known[2:], mask[2:], method, first=2, **FEW[method]).x, out[2:])
    shared = inpaint(BENT, known, mask[0], method, **FEW[method]).x
    assert torch.equal(shared[:1], out[:1]) and torch.equal(shared[:, ~mask[0]], known[:, ~mask[0]])


@pytest.mark.parametrize("method", INPAINTING)
@pytest.mark.parametrize("sde", [VP, scoresde.EDM()], ids=str)
def test_the_start_is_one_state_at_one_noise_level(sde: scoresde.SDE, method: str) -> None:
    """The first state is σ z everywhere and α y beside it where y is known: z is of unit variance in both parts."""
    seen: list[Tensor] = []
    denoiser = scoresde.Denoiser(lambda x, t: seen.append(x) or 0 * x, sde, "x0")
    known = torch.full((400, 6), 7.0, dtype=F64)
    inpaint(denoiser, known, torch.arange(6) > 2, method, **{**FEW[method], "steps": 3})
    z = scoresde.SeededNoise(0, range(400))(START, 1, known)
    at = sde.knots([sde.t_max])
    alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
    torch.testing.assert_close(seen[0], torch.where(torch.arange(6) > 2, sde.prior_std() * z, alpha * 7 + sigma * z))


@pytest.mark.parametrize("method", INPAINTING)
def test_hidden_coordinates_that_know_nothing_of_the_rest_are_plain_samples(method: str) -> None:
    """Independent coordinates: the same as without any mask."""
    mask = torch.tensor([True, False, True])
    out = inpaint(gaussian(COV.diag().diag()), KNOWN.expand(5, 3), mask, method, **FEW[method])
    plain = {"sampler": INPAINTING[method].sampler, **FEW[method]}
    start = scoresde.SeededNoise(0, range(5))(START, 1, out.x)
    x = scoresde.sample(gaussian(COV.diag().diag()), (5, 3), x=start, **plain).x
    torch.testing.assert_close(out.x[:, mask], x[:, mask])


def law(method: str, **how: Any) -> tuple[Tensor, Tensor]:
    """Exact mean and covariance of what is painted: on Gaussian data it is affine in every unit noise of the run."""
    draws: list[tuple[int, int]] = []

    def listed(step: int, draw: int, x: Tensor) -> Tensor:
        draws.append((step, draw))
        return torch.zeros_like(x)

    inpaint(gaussian(), KNOWN, MASK, method, noise=listed, **how)
    row = {which: 1 + 3 * k for k, which in enumerate(draws)}  # row 0: no noise at all; then one unit noise each

    def unit(step: int, draw: int, x: Tensor) -> Tensor:
        z, begin = torch.zeros_like(x), row[step, draw]
        z[begin : begin + 3] = torch.eye(3, dtype=F64)
        return z

    x = inpaint(gaussian(), KNOWN.expand(1 + 3 * len(draws), 3), MASK, method, noise=unit, **how).x[:, MASK]
    gains = x[1:] - x[0]
    return x[0], gains.mT @ gains


def off(method: str, **how: Any) -> tuple[float, float]:
    """How far mean and covariance are from those of the conditional N(m_U + G (y - m_K), C_UU - G C_KU)."""
    mean, cov = law(method, **how)
    gain = COV[MASK][:, ~MASK] @ COV[~MASK][:, ~MASK].inverse()
    want = MEAN[MASK] + gain @ (KNOWN[0] - MEAN)[~MASK]
    return float((mean - want).norm()), float((cov - COV[MASK][:, MASK] + gain @ COV[~MASK][:, MASK]).norm())


def test_replacement_is_biased_however_many_steps() -> None:
    """It follows x_U given the noisy x_K of each time, not given y: the mean is drawn to the prior's."""
    for how in ({"sampler": "rk4", "steps": 20}, {"sampler": "ddpm", "steps": 20}, {"sampler": "ddpm", "steps": 80}):
        mean, cov = off("replacement", **how)
        assert mean > 0.4 and cov > 0.1


def test_repeats_take_the_bias_of_repaint_away() -> None:
    """That of the mean in any case; that of the covariance where the steps have noise enough, β and not β̃."""
    how: dict[str, Any] = {"sampler": "travel", "steps": 15, "jump": 2}
    for variance, repeats in (("upper", (1, 3, 9)), ("posterior", (1, 3))):
        errors = [off("repaint", repeats=r, variance=variance, **how) for r in repeats]
        means, covs = zip(off("replacement", sampler="ddpm", steps=15), *errors, strict=True)
        assert all(after < 0.8 * before for before, after in pairwise(means))
        falls = [after < 0.8 * before for before, after in pairwise(covs[1:])]
        assert all(falls) if variance == "upper" else not any(falls)


def test_correctors_take_the_bias_of_the_score_sde_way_away() -> None:
    errors = [off("score-sde", sampler="pc", steps=15, correctors=c, snr=0.3) for c in (1, 3, 9)]
    for kind in zip(*errors, strict=True):
        assert all(after < 0.8 * before for before, after in pairwise(kind))


def test_a_basis_is_the_same_problem_turned() -> None:
    """Data x = Qᵀu with the mask in u: Qᵀ times the inpainting of u."""
    basis = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=F64))[0]
    turned = scoresde.Gaussian(basis.T @ MEAN, basis.T @ COV @ basis).denoiser(VP)
    states: list[Tensor] = []
    for method in INPAINTING:
        u = inpaint(gaussian(), KNOWN.expand(4, 3), MASK, method, **FEW[method]).x
        how = {**FEW[method], "callback": lambda i, t, t_next, x, x0, nfe: states.append(x)}
        x = inpaint(turned, (KNOWN @ basis).expand(4, 3), MASK, method, basis=basis, **how).x
        torch.testing.assert_close(x @ basis.T, u)
        torch.testing.assert_close(states[-1] @ basis.T @ torch.diag(1.0 * MASK).double(), u * MASK)


def test_colourising_keeps_the_grey() -> None:
    grey = torch.rand(2, 1, 3, 4, dtype=F64)
    for method in INPAINTING:
        out = colourise(BENT, grey, method=method, **FEW[method]).x
        torch.testing.assert_close(out.mean(1, keepdim=True), grey)
        assert out.shape == (2, 3, 3, 4) and out.std(1).min() > 1e-3
    for c in (1, 2, 3, 5):
        q = grey_basis(c, F64)
        torch.testing.assert_close(q @ q.T, torch.eye(c, dtype=F64))
        assert (q[0] == c**-0.5).all()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"mask": torch.zeros(3, dtype=torch.bool)}, "sample 0 hides nothing"),
        ({"mask": torch.tensor([[False, True, True], [True, True, True]])}, "sample 1 hides all"),
        ({"mask": torch.ones(4, dtype=torch.bool)}, r"shape \(4,\) does not fit.*\(3,\)"),
        ({"mask": torch.tensor([0.0, 0.5, 1.0])}, "nothing between"),
        ({"mask": [True]}, "a tensor"),
        ({"known": torch.tensor([[torch.nan, 0, 0]] * 2)}, "not finite"),
        ({"known": torch.zeros(0, 3)}, "at least one"),
        ({"known": torch.zeros(2, 3).long()}, "float32 or float64"),
        ({"method": "repiant"}, "did you mean 'repaint'"),
        ({"sampler": "ode"}, "choose from .*travel"),
        ({"sampler": "travl"}, "did you mean"),
        ({"jmp": 3}, "no option 'jmp'.*jump"),
        ({"x": torch.zeros(2, 3)}, "x: inpainting sets it"),
        ({"method": "replacement", "cond": {"known": 1}}, "cond: 'known'"),
        ({"basis": torch.ones(3, 3)}, "orthonormal"),
        ({"basis": torch.eye(2)}, r"\(3, 3\) is needed"),
    ],
)
def test_what_inpainting_refuses_before_the_first_call(change: dict[str, Any], words: str) -> None:
    denoiser = scoresde.Denoiser(lambda x, t: pytest.fail("called"), VP)
    with pytest.raises(BadInput, match=words) as caught:
        inpaint(denoiser, **{"known": torch.zeros(2, 3), "mask": MASK, **change})
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- editing


@pytest.mark.parametrize("sde", [VP, scoresde.EDM(), FLOW], ids=str)
def test_the_ends_of_strength(sde: scoresde.SDE) -> None:
    """0 is the data, without a call; 1 is a draw from the model by the same seed."""
    denoiser, x = gaussian(sde=sde), KNOWN.expand(3, 3)
    nothing = edit(denoiser, x, 0)
    assert torch.equal(nothing.x, x) and nothing.nfe == 0
    for sampler, steps in (("ddim", 4), ("ddpm", 4), ("ode", None)):
        drawn = scoresde.sample(denoiser, (3, 3), sampler, steps, dtype=F64, seed=5)
        assert torch.equal(edit(denoiser, x, 1, sampler, steps, seed=5).x, drawn.x)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_edit_starts_from_one_state_at_one_level(sampler: str) -> None:
    """The first call of every sampler is at t_0, on α y + σ z."""
    calls: list[tuple[Tensor, Tensor]] = []
    denoiser = scoresde.Denoiser(lambda x, t: calls.append((x.clone(), t)) or 0 * x, FLOW, "x0")
    y = torch.linspace(-1.0, 1.0, 6, dtype=F64).reshape(2, 3)
    edit(denoiser, y, 0.4, sampler, steps_for(sampler))
    (x, t), z = calls[0], scoresde.SeededNoise(0, range(2))(START, 1, y)
    t_0 = float(t[0])
    assert float(FLOW.phi(t[0])) == pytest.approx(0.4 * torch.pi / 2, rel=2e-3)
    torch.testing.assert_close(x, (1 - t_0) * y + t_0 * z)


def test_the_law_of_an_edit_on_gaussian_data() -> None:
    """Through the flow of N(m, C): with κ² = C/(α² C + σ²) along each axis, m + κ α (y - m) + κ σ z."""
    y = torch.tensor([[2.0, -1.0, 0.5]], dtype=F64).expand(4, 3)
    spread, basis = torch.linalg.eigh(COV)
    z = scoresde.SeededNoise(0, range(4))(START, 1, y)
    for strength in (0.2, 0.6, 0.9):
        result = edit(gaussian(), y, strength, rtol=1e-6, atol=1e-6)
        at = VP.knots([result.times[0]])
        alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
        kappa = basis @ torch.diag((spread / (alpha**2 * spread + sigma**2)).sqrt()) @ basis.T
        want = MEAN + (alpha * (y - MEAN) + sigma * z) @ kappa
        torch.testing.assert_close(result.x, want, rtol=5e-3, atol=5e-3)


def test_edits_by_batches_indices_and_on_chains() -> None:
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(6))
    whole = edit(BENT, x, 0.5, "ddpm", 4)
    assert torch.equal(edit(BENT, x, 0.5, "ddpm", 4, batch_size=2).x, whole.x)
    assert torch.equal(edit(BENT, x[3:], 0.5, "ddpm", 4, first=3).x, whole.x[3:])
    assert edit(BENT, x, None, "ddpm", 4, t_0=whole.times[0]).times == whole.times
    chain = scoresde.DDPM.named("linear", 50)
    for strength in (1e-6, 0.3, 0.97):
        times = edit(scoresde.Denoiser(bent, chain), x, strength, "ddim", 1).times
        assert times[0] * 50 == pytest.approx(round(times[0] * 50)) and times[0] > chain.t_min
    start = Noised(x, 0.5)
    assert torch.equal(scoresde.sample(BENT, x.shape, "ddpm", 4, start=start).x, edit(BENT, x, t_0=0.5, **FOUR).x)


def test_data_of_the_same_seed_are_not_found_again_by_their_noise() -> None:
    """Neither an edit nor an inpainting begins with the noise that a sample of that seed began with."""
    drawn = scoresde.sample(gaussian(), (3, 3), "rk4", 20, dtype=F64, seed=2).x
    painted = inpaint(gaussian(), drawn, MASK, "replacement", "rk4", 20, seed=2).x
    edited = edit(gaussian(), drawn, 0.99, "rk4", 20, seed=2).x
    assert (painted - drawn)[:, MASK].abs().min() > 1e-3 and (edited - drawn).abs().min() > 1e-3


FOUR: dict[str, Any] = {"sampler": "ddpm", "steps": 4}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"strength": -0.1}, "strength = -0.1"),
        ({"strength": 1.01}, "from 0.*to 1"),
        ({"strength": float("nan")}, "strength = nan"),
        ({"strength": True}, "strength = True"),
        ({"strength": None}, "give one"),
        ({"t_0": 0.5}, "give one"),
        ({"strength": None, "t_0": 0.0}, "t_0 = 0.0"),
        ({"strength": None, "t_0": 1.5}, "t_0 = 1.5"),
        ({"x": torch.full((2, 3), torch.inf)}, "not finite"),
        ({"x": torch.zeros(0, 3)}, "at least one"),
        ({"grid": [1.0, 0.0], "steps": None}, "verbatim"),
        ({"start": 3}, "start: an edit"),
        ({"strength": 0, "sampler": "dimm"}, "did you mean"),
        ({"strength": 0, "etta": 1.0}, "no option 'etta'"),
    ],
)
def test_what_editing_refuses_before_the_first_call(change: dict[str, Any], words: str) -> None:
    denoiser = scoresde.Denoiser(lambda x, t: pytest.fail("called"), VP)
    with pytest.raises(BadInput, match=words) as caught:
        edit(denoiser, **{"x": torch.zeros(2, 3), "strength": 0.5, **FOUR, **change})
    assert "\n" not in str(caught.value)
