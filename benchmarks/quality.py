"""Quality of the shipped image model at a budget of network calls: ours and our peers', on the same network and noise.

    python benchmarks/quality.py [--num 1024] [--json benchmarks/quality.json]

Sample i is of class i mod 10 and from the seeded noise of index i, for all. Each run has its RMSE to the converged
probability flow, over samples and pixels in [-1, 1], and, after rounding to uint8, the KID and the Fréchet distance to
the first test images, n = --num, in the features of the frozen classifier. Rows that the JSON file already has from the
same weights, features and num are kept, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from accuracy import versions
from model_card import Ruler
from peers import peers
from problems import SEED, Problem, trained
from torch import Tensor

import scoresde
from scoresde.data import load, to_uint8
from scoresde.metrics import load_features

MODEL, BATCH = "fashion-mnist", 128
BUDGETS = (5, 6, 8, 10, 15, 20, 50)
# The converged flow at t_min; at 0 it is x̂_0 from there. With the first weights it met the 800 calls of `problems.py`
# to 6e-4.
REFERENCE: dict[str, Any] = {"sampler": "ipndm"}
REFERENCE_CALLS = 200
OURS: dict[str, dict[str, Any]] = {
    "auto": {},
    "ode": {},
    "ipndm": {},
    "unipc": {},
    "dpm++2m": {},
    "ddim": {},
}
# The peers' best at some budget, and what is most used.
PEERS = (
    ("diffusers", "iPNDM", "lambda"),
    ("diffusers", "DEIS-3", "karras"),
    ("diffusers", "UniPC-3", "karras"),
    ("diffusers", "DPM-Solver++ 2M", "karras"),
    ("diffusers", "DDIM", "trailing"),
    ("k-diffusion", "dpmpp_2m", "exponential, t_min"),
)

Drawn = tuple[Tensor, int, float]  # samples, calls, the time they end at
FLOW = ("scoresde", "flow", "")


@cache
def problem(num: int) -> Problem:
    """The model, compiled once in each process, with its start and its classes."""
    p = trained(MODEL, num)
    denoiser: Any = p.denoiser
    denoiser.network.compile(dynamic=False)
    return p


def draw(which: tuple[str, str, str], budget: int, num: int, first: int) -> Drawn:
    """One batch of a run, in a process of its own."""
    p, rows = problem(num), slice(first, first + BATCH)
    x, cond = p.start[rows], {"y": p.cond["y"][rows]}
    library, name, _ = which
    with torch.no_grad():
        if library != "scoresde":
            (peer,) = (peer for peer in peers() if (peer.library, peer.name, peer.grid) == which)
            return peer.run(p.denoiser, x, peer.steps(budget), cond)
        how: dict[str, Any] = REFERENCE if which == FLOW else {"sampler": name, **OURS[name]}
        out = scoresde.sample(p.denoiser, x.shape, nfe=budget, x=x, cond=cond, **how)
        return out.x, out.nfe, out.times[-1]


def drawn(pool: Executor, which: tuple[str, str, str], budget: int, num: int) -> Drawn:
    """All of it."""
    firsts = range(0, num, BATCH)
    parts = list(pool.map(draw, repeat(which), repeat(budget), repeat(num), firsts))
    return torch.cat([x for x, _, _ in parts]), parts[0][1], parts[0][2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=1024, help="samples (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"), metavar="FILE")
    args = parser.parse_args()
    net, model = load_features(), scoresde.load_model(MODEL)
    t_min = model.sde.t_min
    train, test = load("fashion_mnist"), load("fashion_mnist", "test")
    assert test.labels is not None
    ruler = Ruler(train.x, test.x, test.labels, net, args.num)

    def distances(x: Tensor) -> dict[str, Any]:
        return ruler.distances(net.features(to_uint8(model.scaler.decode(x))))

    facts = {"model": model.info["sha256"], "features": net.sha256, "num": args.num, "seed": SEED}
    found: dict[str, Any] = {"facts": facts, "rows": {}}
    if args.json.is_file() and (before := json.loads(args.json.read_text()))["facts"] == facts:
        found = before
    found["versions"] = versions()
    labels = [("scoresde", name, " ".join(f"{k}={v}" for k, v in how.items())) for name, how in OURS.items()]
    workers = os.cpu_count() or 1  # processes of one thread: on a CPU far faster than threads that share a batch
    with torch.no_grad(), ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        flow, _, _ = drawn(pool, FLOW, REFERENCE_CALLS, args.num)
        at_data = model.denoiser.x0(flow, t_min, **problem(args.num).cond)
        found.setdefault("flow", distances(flow))
        for which in [*labels, *PEERS]:
            label, start = " | ".join(which), time.perf_counter()
            row = found["rows"].get(label, {})
            for budget in (b for b in BUDGETS if str(b) not in row):
                x, calls, end = drawn(pool, which, budget, args.num)
                rmse = float((x - (flow if end else at_data)).square().mean().sqrt())
                row[str(budget)] = {"rmse": rmse, "calls": calls, "end": end, **distances(x)}
            found["rows"][label] = row
            args.json.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{label}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    show(found)


def show(found: dict[str, Any]) -> None:
    """RMSE to the flow, KID and Fréchet distance, one table each; the best of a column is bold."""
    flow, rows = found["flow"], found["rows"]
    print(", ".join(f"{name} {number}" for name, number in found["versions"].items()))
    print(f"\nn = {found['facts']['num']}; the converged flow itself: KID × 1000 {1000 * flow['kid']:.1f} ±", end=" ")
    print(f"{1000 * flow['kid_standard_error']:.1f}, Fréchet distance {flow['frechet']:.3f}")
    for key, title, scale, digits in (
        ("rmse", "RMSE to the flow", 1, 4),
        ("kid", "KID × 1000", 1000, 1),
        ("frechet", "Fréchet distance", 1, 3),
    ):
        print(f"\n| {title} | grid, options | " + " | ".join(f"{b} calls" for b in BUDGETS) + " |")
        print("|---" * (2 + len(BUDGETS)) + "|")
        best = {b: min(row[str(b)][key] for row in rows.values()) for b in BUDGETS}
        for label, row in rows.items():
            library, name, grid = label.split(" | ")
            cells = [(row[str(b)][key], row[str(b)][key] == best[b]) for b in BUDGETS]
            numbers = [f"**{scale * v:.{digits}f}**" if top else f"{scale * v:.{digits}f}" for v, top in cells]
            shown = f"`{name}`" if library == "scoresde" else f"{library} {name}"
            print(f"| {shown} | {grid} | " + " | ".join(numbers) + " |")


if __name__ == "__main__":
    main()
