"""What ``sampler="auto"`` should be: error of every candidate against the best, on ten exact mixtures.

    python benchmarks/choose.py [--json FILE]

Mean over 256 samples of the rms error to the converged flow, float64, ends at t_min. A candidate's score at a budget is
the largest ratio, over the problems, of its error to the best candidate without an analytic start on that problem;
the geometric mean of the ratios is printed beside it. Numbers after a sampler are its order, after "+" the analytic
start's shift.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import torch

import scoresde
from scoresde.analytic_start import AnalyticStart

BUDGETS = (4, 5, 6, 8, 10, 12, 15, 20, 30, 50, 100)
PROBLEMS = [(sde, d) for sde in ("vp", "edm", "flow", "cosine") for d in (2, 16, 64)][:10]
LOGIT = tuple(f"logitnormal:{scale:g}" for scale in (2, 2.5, 3))
CANDIDATES: list[tuple[str, dict[str, Any], str]] = [
    *(("ipndm", {"order": k}, grid) for k, grid in product((2, 3, 4), (*LOGIT, "karras", "t2"))),
    *(("unipc", {"order": k}, grid) for k, grid in product((2, 3), ("lambda", *LOGIT[:2]))),
    *(("deis", {"order": k}, grid) for k, grid in product((3, 4), ("t2", *LOGIT[:2]))),
    *(("lms", {"order": k}, LOGIT[1]) for k in (3, 4)),
    *(("phi-ab", {"order": k}, grid) for k, grid in product((3, 4), ("phi", LOGIT[1]))),
    *(("dpm++2m", {}, grid) for grid in ("lambda", *LOGIT[1:])),
    *((name, {}, "lambda") for name in ("eab3", "eab4")),
    *((name, {}, grid) for name, grid in product(("rk4", "midpoint", "dpm3s", "ddim"), ("phi",))),
]


def errors(sde_name: str, d: int) -> dict[str, dict[int, float]]:
    """The mean rms error of each candidate at each budget it can keep."""
    data = scoresde.GaussianMixture.example(d)
    sde = scoresde.SDES[sde_name]()
    denoiser, train = data.denoiser(sde), data.sample(4000, seed=3)
    x = torch.randn(256, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * sde.prior_std()
    run: dict[str, Any] = {"denoiser": denoiser, "shape": (256, d), "x": x, "final": "t_min"}
    flow = scoresde.sample(**run, sampler="rk4", steps=150).x
    found: dict[str, dict[int, float]] = {}
    for (name, options, grid), shift in product(CANDIDATES, (0, 1, 2)):
        start = AnalyticStart.from_data(train, shift) if shift else None
        label = f"{name} {options.get('order', '')} {grid}" + (f" +{shift}" if shift else "")
        for nfe in BUDGETS:
            try:
                out = scoresde.sample(**run, sampler=name, nfe=nfe, grid=grid, start=start, **options).x
            except scoresde.BadInput:
                continue  # fewer calls than one step takes
            found.setdefault(label, {})[nfe] = float((out - flow).square().mean(1).sqrt().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tables = []
    for problem in PROBLEMS:
        tables.append(errors(*problem))
        print(f"{problem} measured", flush=True)
    if args.json:
        args.json.write_text(json.dumps({f"{s}-{d}": t for (s, d), t in zip(PROBLEMS, tables, strict=True)}, indent=1))
    print("\n| calls | best worst ratio | its mean | second | its worst, mean |\n|---|---|---|---|---|")
    for nfe in BUDGETS:
        best = [
            min(e[nfe] for label, e in t.items() if nfe in e and not label.split()[-1].startswith("+")) for t in tables
        ]
        scores: list[tuple[float, float, str]] = []
        for label in tables[0]:
            if all(nfe in t.get(label, {}) for t in tables):
                ratios = [t[label][nfe] / b for t, b in zip(tables, best, strict=True)]
                scores.append((max(ratios), math.exp(sum(map(math.log, ratios)) / len(ratios)), label))
        (w1, m1, first), (w2, m2, second) = sorted(scores)[:2]
        print(f"| {nfe} | {first}: {w1:.2f} | {m1:.2f} | {second} | {w2:.2f}, {m2:.2f} |", flush=True)


if __name__ == "__main__":
    main()
