"""What log p costs: ours beside the usual way, at equal error; the exact divergence beside a loop; what is not network.

    SCORESDE_DATA=... python benchmarks/likelihood.py        20 minutes on one CPU core

The usual way (of score_sde's `likelihood.py` and what follows it) hands scipy's RK45 a flat numpy state, x and log p of
the whole batch, with the drift in t; each evaluation calls the network twice, for the drift and for its divergence.
Both get the shipped image model and the same dequantised test images with their classes. Two errors are compared: that
of the solver alone, where both get the same Rademacher probe and so have one limit, ours in float64 at a tolerance of
1e-7; and that of log p itself. Ours with fixed steps are held against the mean over many probes; a run that keeps one
probe all along has that probe's error, the same for all, beside its solver's. Times are seconds of the processor,
on one thread.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np
import torch
from scipy import integrate
from torch import Tensor

import scoresde
from scoresde.data import load
from scoresde.denoiser import AnyDenoiser
from scoresde.likelihood import Divergence, dequantise
from scoresde.nn import MLP

OURS = (1e-1, 1e-2, 3e-3, 2e-3, 1e-3, 5e-4, 3e-4, 2e-4, 1e-4, 3e-5, 1e-5)
USUAL, LIMIT = (1e-2, 1e-3, 1e-4, 1e-5), 1e-7
STEPS, SEEDS = (6, 7, 8, 10, 12, 16, 25, 50), (1, 2, 3, 4)  # of rk4; of the probes that its error is averaged over
TRUTH = 32, 64  # steps and probes
DIMS = 16


class Counted(torch.nn.Module):
    """A network that counts its calls."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network, self.calls = network, 0

    def forward(self, *args: Any, **cond: Any) -> Tensor:
        self.calls += 1
        return self.network(*args, **cond)


class Row(NamedTuple):
    """One run: its tolerance or steps, network calls, seconds, and the rms error of log p in nats per dimension."""

    way: str
    setting: float
    calls: int
    seconds: float
    error: float

    def show(self) -> None:
        print(f"| {self.way} | {self.setting:g} | {self.calls} | {self.seconds:.1f} | {self.error:.1e} |", flush=True)


def head(title: str) -> None:
    print(f"\n{title}\n\n| way | setting | network calls | s | rms error, nats/dim |\n|---|---|---|---|---|")


def ratios(rows: list[Row]) -> None:
    """What ours costs beside the usual way at no larger an error."""
    print(
        "\n| usual, at | its error | our least calls for no more | fewer calls | fewer seconds |\n|---|---|---|---|---|"
    )
    for row in rows:
        better = [own for own in rows if own.way != "usual" and own.error <= row.error]
        if row.way == "usual" and better:
            best = min(better, key=lambda own: own.calls)
            fewer = f"{row.calls / best.calls:.1f} | {row.seconds / best.seconds:.1f}"
            print(f"| {row.setting:g} | {row.error:.1e} | {best.calls} | {fewer} |")


def usual(denoiser: AnyDenoiser, x: Tensor, probe: Tensor, y: Tensor, tolerance: float) -> Tensor:
    """log p in the denoiser's units by RK45 on a flat numpy state in t."""
    sde, shape, n = denoiser.sde, x.shape, len(x)

    def drift(x: Tensor, t: float) -> Tensor:
        at = torch.tensor(t)
        return sde.f(at) * x - 0.5 * sde.g2(at) * denoiser.predict("score", x, t, y=y)

    def slope(t: float, state: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(state[:-n]).reshape(shape).float()
        with torch.no_grad():
            speed = drift(x, t)
        with torch.enable_grad():
            x = x.requires_grad_()
            (row,) = torch.autograd.grad((drift(x, t) * probe).sum(), x)
        return np.concatenate([speed.numpy().ravel(), (row * probe).flatten(1).sum(1).numpy()])

    start = np.concatenate([x.numpy().ravel(), np.zeros(n)])
    ends = (sde.t_min, sde.t_max)
    state = integrate.solve_ivp(slope, ends, start, "RK45", rtol=tolerance, atol=tolerance).y[:, -1]
    latent, change = torch.from_numpy(state[:-n]).reshape(shape), torch.from_numpy(state[-n:])
    return sde.prior_log_prob(latent) + change


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    start = time.process_time()
    found = run()
    return found, time.process_time() - start


def images(num: int) -> None:
    """The table of the image model, and what ours costs beside the usual way at each of its errors."""
    model, data = scoresde.load_model(), load("fashion_mnist", "test")
    assert data.labels is not None
    counted = Counted(model.denoiser.network)
    denoiser = scoresde.Denoiser(counted, model.sde, model.denoiser.prediction, model.denoiser.time)
    x, y = model.scaler.encode(dequantise(data.x[:num], range(num))), data.labels[:num]
    drawn = Divergence("hutchinson").draw(range(num), x)
    assert drawn is not None
    probe = drawn[0][0]

    def ours(model: AnyDenoiser = denoiser, x: Tensor = x, **how: Any) -> scoresde.Likelihood:
        return scoresde.log_prob(model, x, divergence="hutchinson", cond={"y": y}, **how)

    def rms(error: Tensor) -> float:
        return float(error.square().mean().sqrt()) / x[0].numel()

    def run(way: str, setting: float, log_prob: Callable[[], Tensor], true: Tensor) -> Row:
        counted.calls = 0
        found, seconds = timed(log_prob)
        return Row(way, setting, counted.calls, seconds, rms(found - true))

    network: Any = copy.deepcopy(model.denoiser.network)
    double = scoresde.Denoiser(network.double(), model.sde, model.denoiser.prediction, model.denoiser.time)
    limit = ours(double, x.double(), rtol=LIMIT).log_prob
    alone = [run("tolerance", tol, lambda tol=tol: ours(rtol=tol).log_prob, limit) for tol in OURS]
    them = [run("usual", tol, lambda tol=tol: usual(denoiser, x, probe, y, tol), limit) for tol in USUAL]
    head(f"Of the solver alone, {num} images")
    for row in [*alone, *them]:
        row.show()
    ratios([*alone, *them])

    steps, probes = TRUTH
    true = ours(steps=steps, probes=probes, chunk=8)
    one = (
        float(ours(rtol=1e-2, probes=probes, chunk=8).standard_error.square().mean().sqrt())
        * probes**0.5
        / x[0].numel()
    )
    print(f"\none probe all along: rms error {one:.1e}; the truth's own standard error {rms(true.standard_error):.0e}")
    whole = [row._replace(error=math.hypot(row.error, one)) for row in [*alone, *them]]
    for n in STEPS:
        many = [run("steps", n, lambda n=n, s=s: ours(steps=n, seed=s).log_prob, true.log_prob) for s in SEEDS]
        error = math.sqrt(sum(row.error**2 for row in many) / len(SEEDS))
        whole.append(many[0]._replace(seconds=float(np.median([row.seconds for row in many])), error=error))
    head(f"Of log p itself, {num} images")
    for row in whole:
        row.show()
    ratios(whole)
    overhead(denoiser, x, y, probe)


def overhead(denoiser: AnyDenoiser, x: Tensor, y: Tensor, probe: Tensor) -> None:
    """Seconds of a run over those of its network calls and products alone, in turn, several times."""
    t = torch.linspace(denoiser.sde.t_min, denoiser.sde.t_max, 40).tolist()

    def alone() -> Tensor:
        for each in t:
            z = x.clone().requires_grad_()
            torch.autograd.grad(denoiser.predict("v", z, each, y=y), z, probe)
        return x

    def whole() -> Tensor:
        return scoresde.log_prob(denoiser, x, 10, divergence="hutchinson", cond={"y": y}).log_prob

    ratios = [timed(whole)[1] / timed(alone)[1] for _ in range(3)]
    print(f"\na run of 40 calls over 40 calls and products alone: {np.median(ratios):.3f}", flush=True)


def exact(name: str, f: Callable[[Tensor], Tensor], num: int) -> None:
    """A row: the exact divergence of f at ``num`` points, all coordinates at once, over one after the other."""
    x = torch.randn(num, DIMS, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def at_once() -> Tensor:
        v = f(x)
        return Divergence()(lambda e: torch.autograd.grad(v, x, e, is_grads_batched=True)[0], None, x).squeeze(1)

    def loop(again: bool) -> Tensor:
        v, total = f(x), torch.zeros(num)
        for i in range(DIMS):
            v = f(x) if again and i else v
            total = total + torch.autograd.grad(v[:, i].sum(), x, retain_graph=not again)[0][:, i]
        return total

    runs = [[timed(run) for run in (at_once, lambda: loop(False), lambda: loop(True))] for _ in range(41)]
    assert all(torch.allclose(each[0], row[0][0], rtol=1e-3, atol=1e-3) for row in runs for each in row)
    costs = np.array([[each[1] for each in row] for row in runs])
    ratios = np.median(costs[:, 1:] / costs[:, :1], axis=0)
    print(f"| {name} | {num} | {1e3 * np.median(costs[:, 0]):.2f} | {ratios[0]:.1f} | {ratios[1]:.1f} |", flush=True)


def exact_table() -> None:
    layers = [torch.nn.Linear(a, b) for a, b in ((DIMS, 128), (128, 128), (128, DIMS))]
    mlp = torch.nn.Sequential(layers[0], torch.nn.SiLU(), layers[1], torch.nn.SiLU(), layers[2]).requires_grad_(False)
    own = scoresde.Denoiser(MLP((DIMS,)).requires_grad_(False), scoresde.VPSDE(), "eps", "t")
    mixture = scoresde.GaussianMixture.example(DIMS).denoiser(scoresde.VPSDE(), "v")
    print(
        "| network | points | at once, ms | a loop of products | a loop of calls and products |\n|---|---|---|---|---|"
    )
    for num in (1, 8, 64):
        exact("three layers of width 128", mlp, num)
        exact("nn.MLP", lambda x: own.predict("v", x, 0.5), num)
        exact("mixture", lambda x: mixture.predict("v", x, 0.5), num)
    print()


@click.command(help=__doc__)
@click.option("--num", default=8, show_default=True, type=click.IntRange(1), help="Images.")
@click.option("--part", type=click.Choice(["all", "images", "exact"]), default="all", show_default=True)
def main(num: int, part: str) -> None:
    torch.set_num_threads(1)
    if part != "images":
        exact_table()
    if part != "exact":
        images(num)


if __name__ == "__main__":
    main()
