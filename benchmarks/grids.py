"""Which grid and ending are each sampler's defaults, by its number of network calls: error against the exact flow.

    python benchmarks/grids.py --json FILE [--sampler NAME ...]    # measure; what FILE has of others stays
    python benchmarks/grids.py --read FILE                          # what was measured, and what follows from it
    python benchmarks/grids.py --check [--sampler NAME ...]         # a few candidates on two problems of images

Deterministic samplers: root mean square error of 128 samples against the probability flow at the time at which a run
itself ends, in float64, on exact mixtures in 2, 16 and 64 dimensions under VP, EDM and flow, as a default has to mean
the same under every SDE. Stochastic ones: the distance of the law that they draw from that of the data (Wasserstein-2,
exact, without Monte Carlo) on a Gaussian whose variances go from 1e-4 to 2, as an image's do, under VP, EDM, flow and
cosine. The budgets of a band (to 10 calls, to 20, to 50, more) are taken together: the score of a grid and ending is
the geometric mean, over problems and budgets, of its error over the least of all candidates.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from problems import Problem, images, trained

import scoresde
from scoresde import SAMPLERS, BadInput, Table
from scoresde.grids import make_grid
from scoresde.metrics import sliced_wasserstein
from scoresde.samplers.law import responses

BANDS = {10: (5, 8, 10), 20: (15, 20), 50: (50,), 100: (100,)}  # up to so many calls: the budgets measured
HUNDREDS = {**BANDS, 250: (250,)}  # for stochastic samplers
GRIDS = ("phi", "lambda", "karras", "t2", "logitnormal:1.5", "logitnormal:2", "logitnormal:2.5", "logitnormal:3")
ENDS = ("t_min", "zero")
CHOICES = list(product(GRIDS, ENDS))
PROBLEMS = list[tuple[str, int | str]](product(("vp", "edm", "flow"), (2, 16, 64)))
LAWS = list[tuple[str, int | str]](product(("vp", "edm", "flow", "cosine"), ("law",)))
SAMPLES = 128
CHECKED = [("phi", "t_min"), ("lambda", "t_min"), *product(("logitnormal:2", "logitnormal:2.5", "logitnormal:3"), ENDS)]
GAIN = 1.1
VARIANCES = torch.logspace(-4, 0.3, 24, dtype=torch.float64)
MEANS = VARIANCES.sqrt() * torch.linspace(-1, 1, 24, dtype=torch.float64).sin()
OWN_LAW = ("langevin",)  # no discretised SDE: what it draws is set by its repeats
OURS = [name for name, s in SAMPLERS.items() if s.build and (s.stochastic or not s.adaptive) and name not in OWN_LAW]

Choice = tuple[str, str]  # grid, final
Found = dict[str, dict[str, float]]  # "sampler grid final budget" -> problem -> error


@cache
def problem(sde: str, d: int) -> Problem:
    """The library's own test problem in d dimensions under an SDE."""
    denoiser = scoresde.GaussianMixture.example(d).denoiser(scoresde.SDES[sde]())
    return Problem(f"{sde}-{d}", denoiser, (SAMPLES, d))


@cache
def steps(name: str, final: str, budget: int) -> int:
    """The most intervals within a budget, the same on every grid; 0 if there are none."""
    sde, low, high = scoresde.VPSDE(), 0, budget + 1
    while high - low > 1:
        n = (low + high) // 2
        try:
            calls = SAMPLERS[name].build(sde, make_grid("phi", sde, n, final)).nfe or 0
        except BadInput:  # restart needs steps above its upper level
            calls = 0
        low, high = (n, high) if calls <= budget else (low, n)
    return low


def bands(name: str) -> dict[int, tuple[int, ...]]:
    """Up to so many calls: the budgets measured."""
    return HUNDREDS if SAMPLERS[name].stochastic else BANDS


def law_error(table: Table) -> float:
    """W2/sqrt(d) of the law that a table draws from the data's own, whose coordinates are independent."""
    sde = table.sde
    denoiser = scoresde.Gaussian(MEANS, VARIANCES.diag()).denoiser(sde)
    offset, gains = responses(table, denoiser, torch.ones(1, len(MEANS), dtype=torch.float64))
    at, gains = sde.knots([sde.t_max]), gains.squeeze(1)
    alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
    mean = offset + gains[0] * alpha * MEANS
    spread = (gains[0].square() * (alpha**2 * VARIANCES + sigma**2) + gains[1:].square().sum(0)).sqrt()
    return float(((mean - MEANS).square() + (spread - VARIANCES.sqrt()).square()).mean().sqrt())


def measure(name: str, found: Found) -> Iterator[tuple[str, str, float]]:
    """(key, problem, error) of a sampler on every grid, with every ending and budget, but for what is there."""
    problems = LAWS if SAMPLERS[name].stochastic else PROBLEMS
    budgets = [budget for band in bands(name).values() for budget in band]
    for (grid, final), budget, sde_name in product(CHOICES, budgets, dict(problems)):
        key = f"{name} {grid} {final} {budget}"
        missing = [p for p in problems if p[0] == sde_name and f"{p[0]}-{p[1]}" not in found.get(key, {})]
        if not missing:
            continue
        sde = scoresde.SDES[sde_name]()
        if not (n := steps(name, final, budget)):
            continue
        try:
            table = SAMPLERS[name].build(sde, make_grid(grid, sde, n, final))
        except (BadInput, ArithmeticError):  # times too close together
            continue
        assert isinstance(table, Table)
        if SAMPLERS[name].stochastic:
            yield key, f"{sde_name}-law", law_error(table)
            continue
        for p in (problem(*each) for each in missing):
            yield key, p.name, p.error(table.run(p.denoiser, p.start)[0], table.times[-1])


def scores(found: Found, name: str, budgets: tuple[int, ...]) -> dict[Choice, float]:
    """The geometric mean of error over least error for every grid and ending that ran everywhere, the least first."""
    ratios: dict[Choice, list[float]] = defaultdict(list)
    for budget in budgets:
        rows = {choice: found.get(" ".join((name, *choice, str(budget))), {}) for choice in CHOICES}
        for p in {p for row in rows.values() for p in row}:
            least = min(row[p] for row in rows.values() if p in row)
            for choice, row in rows.items():
                ratios[choice].append(math.log(row[p] / least) if p in row else math.inf)
    means = {choice: math.exp(sum(each) / len(each)) for choice, each in ratios.items()}
    return dict(sorted(((c, m) for c, m in means.items() if math.isfinite(m)), key=lambda item: item[1]))


def show(found: Found) -> None:
    """For every sampler and band the scores of its default, of equal steps in φ and in λ to t_min, and the least."""
    for stochastic, columns in ((False, BANDS), (True, HUNDREDS)):
        names = [name for name in OURS if SAMPLERS[name].stochastic == stochastic]
        names = [name for name in names if any(key.startswith(f"{name} ") for key in found)]
        if not names:
            continue
        heads = [f"to {band} calls" if len(columns[band]) > 1 else f"{band} calls" for band in columns]
        print("\n| sampler | " + " | ".join(f"{head}: default; φ, λ; least" for head in heads) + " |")
        print("|---" * (1 + len(heads)) + "|")
        for name in names:
            cells: list[str] = []
            for limit, budgets in columns.items():
                band = scores(found, name, budgets)
                default = SAMPLERS[name].defaults(steps(name, SAMPLERS[name].final, limit))
                least = min(band, key=lambda choice: band[choice])
                own, phi, lam = (
                    band.get(choice, math.inf) for choice in (default, ("phi", "t_min"), ("lambda", "t_min"))
                )
                better = "" if own <= GAIN * band[least] else f" ({', '.join(least)})"
                cells.append(f"**{own:.2f}**; {phi:.2f}, {lam:.2f}; {band[least]:.2f}{better}")
            print(f"| `{name}` | " + " | ".join(cells) + " |")


def check(names: list[str]) -> None:
    """Candidates on data like images, with an exact denoiser, and on the shipped image model. Of stochastic samplers on
    the first alone: sliced Wasserstein-2 distance of 512 draws to as many of the flow, and that of two such sets."""
    print("| sampler | problem | calls | " + " | ".join(", ".join(choice) for choice in CHECKED) + " | default |")
    print("|---" * (4 + len(CHECKED)) + "|")
    noisy = [name for name in names if SAMPLERS[name].stochastic]
    flow = [name for name in names if name not in noisy]
    for p, name, calls in product((images(4), trained("fashion-mnist", 10)), flow, (10, 20, 50)):
        _row(name, p, calls, lambda out, p=p: p.error(out.x, out.times[-1]))
    if not noisy:
        return
    p = images(512)
    real, other = (scoresde.sample(p.denoiser, p.shape, "unipc", 100, seed=seed).x.flatten(1) for seed in (1, 2))
    for name, calls in product(noisy, (10, 20, 50)):
        _row(name, p, calls, lambda out: sliced_wasserstein(real, out.x.flatten(1)).value)
    print(f"two sets of the flow: {sliced_wasserstein(real, other).value:.4f}")


def _row(name: str, p: Problem, calls: int, judge: Callable[[scoresde.Result], float]) -> None:
    cells: list[str] = []
    for grid, final in [*CHECKED, (None, None)]:
        how: dict[str, Any] = {"grid": grid, "final": final, "x": p.start, "cond": p.cond}
        cells.append(f"{judge(scoresde.sample(p.denoiser, p.shape, name, nfe=calls, **how)):.4f}")
    print(f"| `{name}` | {p.name} | {calls} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", nargs="+", choices=OURS, default=OURS, help="which (default: all)")
    files = parser.add_mutually_exclusive_group(required=True)
    files.add_argument("--json", type=Path, metavar="FILE")
    files.add_argument("--read", type=Path, metavar="FILE")
    files.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        with torch.no_grad():
            check(args.sampler)
        return
    path: Path = args.json or args.read
    found: Found = json.loads(path.read_text()) if path.is_file() else {}
    for name in args.sampler if args.json else ():
        with torch.no_grad():
            for key, where, error in measure(name, found):
                found.setdefault(key, {})[where] = error
        path.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


if __name__ == "__main__":
    main()
