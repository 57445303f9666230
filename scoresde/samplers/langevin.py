"""Langevin steps at one noise level: alone (annealed Langevin dynamics) and as correctors of a first-order sampler.

A step is x + ε s + sqrt(2ε) z. Its size follows one of two rules:

    expected    ε = 2 (snr σ_t)², a number known beforehand: a row of a table. The chain has a stationary law of its own
    norm        ε = 2 a_t (snr ‖z‖/‖s‖)², norms averaged over the batch: Song et al. 2021, algorithms 4 and 5

The first is the second with the norms replaced by sqrt(d) and sqrt(d)/σ_t, which they are in many dimensions d where
the score is that of the noise alone, -n/σ_t with x = α x_0 + σ n (data near a set of few dimensions, as images are; of
data N(0, S) the second is sqrt(d/V) with V = α² S + σ²). By the norm rule a sample depends on the others in its batch.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose, positive
from scoresde.grids import Times
from scoresde.noise import Noise
from scoresde.samplers.multistep import ddim
from scoresde.samplers.runge_kutta import sheun
from scoresde.samplers.sde_steps import cas, ddpm, em, reverse_diffusion
from scoresde.samplers.solver import Hook, Interval, Solver, acted_on
from scoresde.samplers.table import Row, Table, with_variance
from scoresde.schedule import per_sample
from scoresde.sde import SDE

RULES = ("expected", "norm")

Predictor = Callable[..., Table]  # (sde, times, *, options) -> a table whose intervals use no output of an earlier one
PREDICTORS: dict[str, Predictor] = {
    "ddpm": ddpm,
    "em": em,
    "ddim": ddim,
    "reverse-diffusion": reverse_diffusion,
    "sheun": sheun,
    "cas": cas,
}


def langevin_row(sde: SDE, t: float, step: float, ends: bool, space: str = "x0") -> Row:
    """One Langevin step x + ε s + sqrt(2ε) z at time t with ε = ``step`` σ_t² (Song et al. 2021, algorithm 4)."""
    at = sde.knots([t])
    return _row(t, float(at.alpha[0]), float(at.sigma[0]), step, ends, space)


def _row(t: float, alpha: float, sigma: float, step: float, ends: bool, space: str = "x0") -> Row:
    a, b = (1 - step, step * alpha) if space == "x0" else (1.0, -step * sigma)  # s = (α x̂_0 - x)/σ² = -ε̂/σ
    return Row(t, t, a, (b,), (sigma * math.sqrt(2 * step),), ends=ends)


def pc(
    sde: SDE,
    times: Times,
    *,
    predictor: str | Predictor = "ddpm",
    correctors: int = 1,
    snr: float = 0.16,
    rule: str = "expected",
    eta: float | None = None,
    variance: str | None = None,
) -> Table | NormLangevin:
    """Predictor-corrector sampling (Song et al. 2021, algorithm 1): a step of the reverse SDE, then Langevin steps.

    The corrector's size follows ``rule``, see the head of this file. No corrector at t = 0. ``eta`` and ``variance``
    are handed to a predictor that has them; a builder of your own, or a `functools.partial` of one, may stand for its
    name. The predictor's calls are its own: n for those of one call a step, 2n - 1 for "sheun".

    >>> import scoresde
    >>> [pc(scoresde.VPSDE(), (1.0, 0.5, 0.1, 0.0), predictor=name).nfe for name in ("ddpm", "sheun")]
    [5, 7]
    """
    positive("correctors", correctors)
    choose("rule", rule, RULES)
    if not 0 < snr < 1:
        raise BadInput(f"snr = {snr!r} must be in (0, 1)")
    name = predictor if isinstance(predictor, str) else getattr(predictor, "__name__", repr(predictor))
    build = PREDICTORS[choose("predictor", predictor, PREDICTORS)] if isinstance(predictor, str) else predictor
    options = {k: v for k, v in {"eta": eta, "variance": variance}.items() if v is not None}
    for option in options.keys() - inspect.signature(build).parameters.keys():
        raise BadInput(f"predictor {name!r} has no option {option!r}")
    table = build(sde, times, **options)
    if not isinstance(table, Table) or table.space == "v":
        raise BadInput(f"predictor {name!r} is no table in x0 or eps space")
    rows: list[Row] = []
    calls = 0  # of the interval so far
    at = sde.knots([row.t_next for row in table.rows])
    for i, row in enumerate(table.rows):
        calls += row.calls
        if len(row.b) > calls:
            raise BadInput(f"predictor {name!r} uses outputs of earlier steps: a corrector would come between them")
        last = not row.ends or row.t_next == 0
        rows.append(replace(row, ends=row.ends and last))
        if not last:
            step = _row(row.t_next, float(at.alpha[i]), float(at.sigma[i]), 2 * snr**2, False, table.space)
            rows += [*[step] * (correctors - 1), replace(step, ends=True)]
        calls = 0 if row.ends else calls
    corrected = Table(sde, table.space, tuple(rows))
    return corrected if rule == "expected" else NormLangevin(corrected)


def langevin(
    sde: SDE, times: Times, *, repeats: int = 5, step: float = 0.1, rule: str = "expected"
) -> Table | NormLangevin:
    """Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1): ``repeats`` Langevin steps at each noise level.

    The step is ε = ``step`` σ_t² in x + ε s + sqrt(2ε) z (NCSN's α_i/2 = ε; its 2e-5 at σ = 0.01 is step = 0.1), or by
    ``rule`` = "norm" with ‖z‖/‖s‖ for σ_t: then step = 2 snr². Between levels x is only rescaled by α_s/α_t; into t = 0
    the row is x = x̂_0, the denoising that Jolicoeur-Martineau et al. 2021a add. It has a stationary law at each level
    and discretises no SDE, so accuracy grows with ``repeats``, not with the levels alone.
    """
    positive("repeats", repeats)
    choose("rule", rule, RULES)
    if not 0 < step < 1:
        raise BadInput(f"step = {step!r} must be in (0, 1)")
    at = sde.knots(times)
    if at.alpha[0] == 0:
        raise BadInput(f"langevin: no signal at t = {times[0]} of {sde}: start the grid below it")
    rows: list[Row] = []
    for i, (t, t_next) in enumerate(pairwise(times)):
        rows += [_row(t, float(at.alpha[i]), float(at.sigma[i]), step, ends=False)] * repeats
        if t_next == 0:
            rows.append(Row(t, 0.0, 0.0, (1.0,)))
        else:
            rows.append(Row(t, t_next, float(at.alpha[i + 1] / at.alpha[i]), calls=False))
    table = Table(sde, "x0", tuple(rows))
    return table if rule == "expected" else NormLangevin(table)


@dataclass(frozen=True)
class NormLangevin(Solver):
    """A table whose Langevin rows, those that stay at their time, take the size of the norm rule as it runs.

    Such a row moves x by m = ε s, with noise sqrt(2ε) z, for ε = step σ². The rule's own ε' = a step (‖z‖/‖s‖)² is
    r² ε with r = sqrt(a) step σ ‖z‖/‖m‖, and the row becomes x + r² m + r sqrt(2ε) z, with nothing read from the
    device. a_t = (α_t/α_{t - t_max/N})², with N that of a chain or 1000, is score_sde's factor under VP, 1 - β of its
    step; it is 1 where α is constant. A denoiser whose score vanishes on the whole batch has no finite step.

    >>> import torch, scoresde
    >>> data, sde = scoresde.Gaussian(torch.zeros(2), torch.eye(2)), scoresde.VPSDE()
    >>> x, calls = pc(sde, (1.0, 0.5, 0.0), rule="norm").run(
    ...     data.denoiser(sde), torch.randn(4, 2), lambda step, draw, x: torch.randn_like(x)
    ... )
    >>> x.shape, calls
    (torch.Size([4, 2]), 3)
    """

    takes_hook: ClassVar[bool] = True

    table: Table

    @property
    def times(self) -> Times:
        """The grid: the start and every interval's end."""
        return self.table.times

    @property
    def nfe(self) -> int:
        """Denoiser calls per sample."""
        return self.table.nfe

    @cached_property
    def _sizes(self) -> list[float]:
        """r ‖m‖/‖z‖ = sqrt(a) step σ of each Langevin row; 0 for the others, whatever their times."""
        rows, sde = self.table.rows, self.table.sde
        t = np.array([row.t for row in rows])
        at, before = sde.knots(t.tolist()), sde.knots(np.maximum(t - sde.t_max / sde.label_steps, 0.0).tolist())
        stays = [row.t == row.t_next and len(row.b) == len(row.c) == 1 for row in rows]
        std = np.array([row.c[0] if stay else 0.0 for row, stay in zip(rows, stays, strict=True)])  # σ sqrt(2 step)
        return (at.alpha / before.alpha * std**2 / (2 * at.sigma)).tolist()

    def iterate(
        self,
        denoiser: AnyDenoiser,
        x: Tensor,
        noise: Noise | None = None,
        *,
        x0: bool = True,
        hook: Hook | None = None,
        **cond: Any,
    ) -> Iterator[Interval]:
        """Run from the state x at the first time, stopping at the end of each interval."""
        if noise is None:
            raise BadInput("this solver draws noise: pass noise=(step, draw, x) -> tensor, or use sample with a seed")
        rows, space = self.table.rows, self.table.space
        skip, scale, net, learned = denoiser.plan(space, [row.t for row in rows if row.calls], x, **cond)
        at = self.table.sde.knots([row.t for row in rows])
        calls = interval = 0
        start, estimate = rows[0].t, x
        outputs, noises = dict[int, Tensor](), dict[int, Tensor]()
        for i, (row, size, step) in enumerate(zip(rows, self._sizes, self.table.resolved, strict=True)):
            move, spread = (row.a - 1 if size else row.a) * x, None
            if row.calls:
                if learned and row.c_max is not None:
                    out, spread = learned(calls, x)
                else:
                    out = net(calls, x)
                out = outputs[calls] = torch.add(skip[calls] * x, out, alpha=scale[calls])
                calls += 1
                estimate = out if space == "x0" else (x - float(at.sigma[i]) * out) / float(at.alpha[i])
                move.add_(out, alpha=step.b)
            older, draw, used, done, spent = step.rest or ([], False, [], [], [])
            for k, weight in older:
                move.add_(outputs[k], alpha=weight)
            if draw:
                z = noise(i, 0, x)
                noises[i] = z if spread is None else with_variance(z, spread, row)
            if size:
                r = size * _norm(noises[i]) / _norm(move)
                x = x + r.square() * move + r * row.c[0] * noises[i]
            else:
                for k, weight in used:
                    move.add_(noises[k], alpha=weight)
                x = move
            if hook:
                x = acted_on(hook, i, row.t_next, x, noise)
            outputs = {k: out for k, out in outputs.items() if k not in done and (k < calls - 1 or step.kept)}
            noises = {k: z for k, z in noises.items() if k not in spent}
            if row.ends:
                yield Interval(interval, start, row.t_next, x, estimate if x0 else x, calls)
                interval, start = interval + 1, row.t_next


def _norm(x: Tensor) -> Tensor:
    """‖x‖ averaged over the batch, a 0-d tensor."""
    return torch.linalg.vector_norm(per_sample(x), dim=1).mean()
