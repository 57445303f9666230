"""Which grid and ending are each sampler's defaults, by its number of network calls: error against the exact flow.

    python benchmarks/grids.py --json FILE [--sampler NAME ...]    # measure; what FILE has of others stays
    python benchmarks/grids.py --read FILE                          # what was measured, and what follows from it

Root mean square error of 128 samples against the probability flow at the time at which a run itself ends, in float64,
on exact mixtures in 2, 16 and 64 dimensions under VP, EDM and flow, as a default has to mean the same under every SDE.
For each sampler the budgets of a band (to 10 calls, to 20, to 50, more) are taken together: the score of a grid and
ending is the geometric mean, over problems and budgets, of its error over the least of all candidates.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import torch
from problems import Problem

import scoresde
from scoresde import SAMPLERS, BadInput, Table
from scoresde.grids import make_grid

BANDS = {10: (5, 8, 10), 20: (15, 20), 50: (50,), 100: (100,)}  # up to so many calls: the budgets measured
BUDGETS = [budget for band in BANDS.values() for budget in band]
GRIDS = ("phi", "lambda", "karras", "t2", "logitnormal:1.5", "logitnormal:2", "logitnormal:2.5", "logitnormal:3")
CHOICES = list(product(GRIDS, ("t_min", "zero")))
PROBLEMS = list(product(("vp", "edm", "flow"), (2, 16, 64)))
SAMPLES = 128
GAIN = 1.1
OURS = [name for name, s in SAMPLERS.items() if s.build and not s.stochastic and not s.adaptive]

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
        calls = SAMPLERS[name].build(sde, make_grid("phi", sde, n, final)).nfe or 0
        low, high = (n, high) if calls <= budget else (low, n)
    return low


def measure(name: str) -> Iterator[tuple[str, str, float]]:
    """(key, problem, error) of a sampler on every grid, with every ending and budget."""
    for (grid, final), budget, sde_name in product(CHOICES, BUDGETS, dict(PROBLEMS)):
        sde = scoresde.SDES[sde_name]()
        if not (n := steps(name, final, budget)):
            continue
        try:
            table = SAMPLERS[name].build(sde, make_grid(grid, sde, n, final))
        except (BadInput, ArithmeticError):  # times too close together
            continue
        assert isinstance(table, Table)
        for p in (problem(sde_name, d) for other, d in PROBLEMS if other == sde_name):
            yield f"{name} {grid} {final} {budget}", p.name, p.error(table.run(p.denoiser, p.start)[0], table.times[-1])


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
    """For every sampler and band: its first default, the best, and what both score."""
    bands = [f"to {band} calls" if band < BUDGETS[-1] else "more" for band in BANDS]
    print("| sampler | first default | " + " | ".join(bands) + " |\n" + "|---" * (2 + len(bands)) + "|")
    for name in OURS:
        first = SAMPLERS[name].grid, SAMPLERS[name].final
        cells: list[str] = []
        for budgets in BANDS.values():
            if not (order := scores(found, name, budgets)):
                cells.append("")
                continue
            best, least = next(iter(order.items()))
            own = order.get(first, math.inf)
            cells.append(f"{own:.2f}" if own <= GAIN * least else f"{own:.2f}, **{', '.join(best)} {least:.2f}**")
        print(f"| `{name}` | {', '.join(first)} | " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sampler", nargs="+", choices=OURS, default=OURS, help="which (default: all)")
    files = parser.add_mutually_exclusive_group(required=True)
    files.add_argument("--json", type=Path, metavar="FILE")
    files.add_argument("--read", type=Path, metavar="FILE")
    args = parser.parse_args()
    path: Path = args.json or args.read
    found: Found = json.loads(path.read_text()) if path.is_file() else {}
    for name in args.sampler if args.json else ():
        with torch.no_grad():
            for key, where, error in measure(name):
                found.setdefault(key, {})[where] = error
        path.write_text(json.dumps(found, indent=1) + "\n")
    show(found)


if __name__ == "__main__":
    main()
