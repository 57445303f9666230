"""Error against the probability flow at a budget of network calls: every deterministic sampler, ours and our peers'.

    python benchmarks/accuracy.py [--problem NAME ...] [--json FILE]
    python benchmarks/accuracy.py --model runs/checkpoint.safetensors     # a model of yours, instead of all problems
    python benchmarks/accuracy.py --sampler unipc deis --all-grids        # which grid, ending and order serve best

Root of the mean square, over samples and coordinates, of a run's last state minus the flow's at the same time, from
the same start; problems and references are those of `problems.py`. Ours run on their default grids and the few settings
of ``TUNED``, with the most steps that `nfe=` affords; peers on every grid and ending they offer, with the most steps
whose counted calls stay within the budget. Printed are each sampler's best grid (by the mean of log error) and whatever
is the best of its side at some budget; --json has all. The best of a column is bold.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from problems import PROBLEMS, SEED, Problem, trained

import scoresde
from scoresde import BadInput
from scoresde.grids import FINALS, GRIDS
from scoresde.samplers import SAMPLERS

BUDGETS = (5, 6, 8, 10, 15, 20, 50, 100)
OURS = "scoresde"
AUTO = "auto"
# What serves better than a sampler's defaults at some budget of some problem here (by --all-grids and by hand).
TUNED: dict[str, list[dict[str, Any]]] = {
    "eab3": [{"space": "eps", "grid": "karras", "final": "t_min"}],
    "unipc": [
        {"space": "eps", "grid": "karras", "final": "t_min"},
        {"variant": "bh1"},
        {"variant": "bh1", "space": "eps", "grid": "t", "final": "t_min"},
    ],
}
MODEL_SAMPLES = 32
FEW_STEPS = (ArithmeticError, IndexError, ValueError, UnboundLocalError)  # how peers take fewer steps than they can


@dataclass
class Row:
    """One sampler on one grid: its error and its counted calls by budget."""

    library: str
    name: str
    grid: str
    error: dict[int, float] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, problem: Problem, budget: int, x: torch.Tensor, calls: int, end: float) -> None:
        if calls > budget:
            raise AssertionError(f"{self.library} {self.name}: {calls} calls where {budget} were allowed")
        error = problem.error(x, end)
        if math.isfinite(error):
            self.error[budget], self.calls[budget] = error, calls
        else:
            self.failed[budget] = "not finite"


def variants(name: str, all_grids: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(label, grid, what to ask of `sample`) for the defaults and what is tuned, or every grid, ending and order."""
    if name == AUTO:
        yield name, "by budget", {}
        return
    sampler = SAMPLERS[name]
    if not all_grids:
        for how in ({}, *TUNED.get(name, ())):
            label = " ".join([name, *(f"{k}={v}" for k, v in how.items() if k in sampler.options())])
            given = f"{how['grid']}, {how.get('final', sampler.final)}" if "grid" in how else "by steps"
            yield label, given if how or sampler.by_steps else f"{sampler.grid}, {sampler.final}", how
        return
    orders = [{"order": k} for k in (1, 2, 3, 4)] if "order" in sampler.options() else [{}]
    for order in orders:
        label = " ".join([name, *(f"order={k}" for k in order.values())])
        for grid in GRIDS:
            for final in FINALS:
                yield label, f"{grid}, {final}", {"grid": grid, "final": final, **order}


def ours(problem: Problem, names: list[str], all_grids: bool) -> Iterator[Row]:
    sde = problem.denoiser.sde
    for name in names:
        for label, grid, how in variants(name, all_grids):
            row = Row(OURS, label, grid)
            for budget in BUDGETS:
                given: dict[str, Any] = {"x": problem.start, "cond": problem.cond, **how}
                try:
                    out = scoresde.sample(problem.denoiser, problem.shape, name, nfe=budget, **given)
                except BadInput as error:  # fewer calls than a step takes; a grid and an ending that do not go together
                    row.failed[budget] = str(error)
                    continue
                if out.times[0] == sde.t_max:  # a grid that starts later solves another problem
                    row.add(problem, budget, out.x, out.nfe, out.times[-1])
            yield row


def theirs(problem: Problem) -> Iterator[Row]:
    from peers import peers  # needs the extra `bench`

    for peer in peers():
        if peer.stochastic:
            continue
        row = Row(peer.library, peer.name, peer.grid)
        for budget in BUDGETS:
            if n := peer.steps(budget):
                try:
                    run = peer.run(problem.denoiser, problem.start, n, problem.cond)
                except FEW_STEPS as error:
                    row.failed[budget] = f"{type(error).__name__}: {error}"
                    continue
                row.add(problem, budget, *run)
        yield row


def measured(problem: Problem, rows: Iterable[Row]) -> list[Row]:
    done: list[Row] = []
    with torch.no_grad():
        for row in rows:
            done.append(row)
            print(f"{problem.name}: {row.library} {row.name} ({row.grid})", file=sys.stderr, flush=True)
    return [row for row in done if row.error]


def best(rows: Iterable[Row], budget: int) -> Row | None:
    return min((row for row in rows if budget in row.error), key=lambda row: row.error[budget], default=None)


def overall(row: Row) -> float:
    """Mean log error over the budgets, those it cannot meet counted as an error of 1."""
    return sum(math.log(row.error.get(budget, 1.0)) for budget in BUDGETS) / len(BUDGETS)


def notable(rows: list[Row]) -> list[Row]:
    """Each sampler's best grid, and the best of each side at each budget; ours first, then by overall error."""
    groups: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.library, row.name].append(row)
    sides = [[row for row in rows if (row.library == OURS) == side] for side in (True, False)]
    kept = [min(group, key=overall) for group in groups.values()]
    kept += [row for side in sides for budget in BUDGETS if (row := best(side, budget)) and row not in kept]
    return sorted({id(row): row for row in kept}.values(), key=lambda row: (row.library != OURS, overall(row)))


def _cell(row: Row, budget: int) -> str:
    return f"{row.error[budget]:.2e}" if budget in row.error else "–"


def show(problem: Problem, rows: list[Row]) -> None:
    print(f"\n### {problem.name}\n\nn = {problem.shape[0]}, seed {SEED}, {str(problem.dtype).removeprefix('torch.')}\n")
    print("| sampler | grid, end | " + " | ".join(f"{budget} calls" for budget in BUDGETS) + " |")
    print("|---" * (2 + len(BUDGETS)) + "|")
    top = {budget: {_cell(row, budget)} if (row := best(rows, budget)) else set[str]() for budget in BUDGETS}
    for row in notable(rows):
        cells = [f"**{cell}**" if cell in top[b] else cell for b in BUDGETS if (cell := _cell(row, b))]
        name = f"`{row.name}`" if row.library == OURS else f"{row.library} {row.name}"
        print(f"| {name} | {row.grid} | " + " | ".join(cells) + " |", flush=True)


def summary(tables: dict[str, list[Row]]) -> None:
    """The best of ours and of our peers at each budget, side by side."""
    print("\n### The best of each side\n\nError of our best / error of the peers' best: below 1 we are ahead.\n")
    print("| problem | calls | ours | error | peers | error | ratio |\n|---|---|---|---|---|---|---|")
    for name, rows in tables.items():
        for budget in BUDGETS:
            mine = best((row for row in rows if row.library == OURS), budget)
            other = best((row for row in rows if row.library != OURS), budget)
            if mine and other:
                a, b = mine.error[budget], other.error[budget]
                sides = f"`{mine.name}` ({mine.grid}) | {a:.2e} | {other.library} {other.name} ({other.grid}) | {b:.2e}"
                print(f"| {name} | {budget} | {sides} | {f'**{a / b:.2f}**' if a < b else f'{a / b:.2f}'} |")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("scoresde", "torch", "numpy", "diffusers", "k-diffusion"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    own = [AUTO, *(name for name, sampler in SAMPLERS.items() if sampler.build and not sampler.stochastic)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="which (default: all)")
    parser.add_argument("--model", help="a shipped model or a checkpoint instead of the problems")
    parser.add_argument("--samples", type=int, default=MODEL_SAMPLES, help="of --model (default: %(default)s)")
    parser.add_argument("--sampler", nargs="+", choices=own, default=own, help="which of ours (default: all)")
    parser.add_argument("--all-grids", action="store_true", help="ours on every grid, ending and order")
    parser.add_argument("--no-peers", action="store_true", help="ours alone, without the extra 'bench'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row there")
    args = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)  # diffusers' own, of options it will drop
    chosen = [trained(args.model, args.samples)] if args.model else [PROBLEMS[name]() for name in args.problem]
    print(", ".join(f"{name} {number}" for name, number in versions().items()))
    tables: dict[str, list[Row]] = {}
    for problem in chosen:
        rows = measured(problem, ours(problem, args.sampler, args.all_grids))
        rows += [] if args.no_peers else measured(problem, theirs(problem))
        tables[problem.name] = rows
        show(problem, rows)
        if args.json:  # after each problem, so that a long run that is stopped loses only the last
            facts = {p.name: {"shape": p.shape, "seed": SEED, "dtype": str(p.dtype)} for p in chosen}
            found = {name: [vars(row) for row in rows] for name, rows in tables.items()}
            whole = {"versions": versions(), "problems": facts, "rows": found}
            args.json.write_text(json.dumps(whole, indent=1) + "\n")
    if not args.no_peers:
        summary(tables)


if __name__ == "__main__":
    main()
