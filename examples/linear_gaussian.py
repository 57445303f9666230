"""The posterior of a linear inverse problem with Gaussian data, sampled by diffusion, against its closed form.

    python examples/linear_gaussian.py --out posterior.png

Data are smooth curves of 16 points, N(0, C); given is y = A x + noise, a few averages over neighbours. The
posterior is N(m, S) (the Kalman update). The denoiser of x_t that knows y is exact too: with the mean and covariance of
x_0 given x_t alone, x̂_0 and K_t = C σ² (α² C + σ²)⁻¹,

    E[x_0 | x_t, y] = x̂_0 + K_t Aᵀ (A K_t Aᵀ + s²)⁻¹ (y - A x̂_0),

which turns any sampler into one of the posterior. The table has the errors of mean and covariance of the samples, with
those of as many exact draws below; the picture the curves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import scoresde
from scoresde.guidance import Matrix, gaussian_posterior, measured

D, S = 16, 0.1  # points of a curve, the noise of y
SDE = scoresde.VPSDE()
INK, FAINT, BLUE, ORANGE = "#606060", "#d0d0d0", "#0072b2", "#d55e00"


def problem() -> tuple[scoresde.Gaussian, Tensor, Tensor, Tensor]:
    """Prior, operator A, the truth and y."""
    place = torch.linspace(0, 1, D, dtype=torch.float64)
    cov = (-0.5 * ((place[:, None] - place) / 0.15).square()).exp() + 1e-6 * torch.eye(D, dtype=torch.float64)
    prior = scoresde.Gaussian(torch.zeros(D, dtype=torch.float64), cov)
    A = torch.zeros(4, D, dtype=torch.float64)
    for row, first in enumerate((0, 3, 7, 12)):
        A[row, first : first + 3] = 1 / 3
    x = prior.sample(1, seed=3)[0]
    noise = torch.randn(4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return prior, A, x, A @ x + S * noise


def main() -> None:
    options = argparse.ArgumentParser(description="The posterior of a linear inverse problem.")
    options.add_argument("--out", type=Path, help="a PNG to draw")
    options.add_argument("--n", type=int, default=4000, help="samples")
    given = options.parse_args()
    prior, A, truth, y = problem()
    operator = Matrix(A, (D,))
    exact = gaussian_posterior(prior, operator, y, S)
    denoiser = measured(prior.denoiser(SDE), y, operator, "exact", S, covariance=prior.cov)

    def errors(x: Tensor) -> str:
        mean, cov = (x.mean(0) - exact.mean).square().mean().sqrt(), (x.T.cov() - exact.cov).square().mean().sqrt()
        return f"{float(mean):9.4f}{float(cov):12.4f}"

    print(f"{'sampler':10}{'calls':>6}{'mean':>9}{'covariance':>12}   rms errors, n = {given.n}")
    drawn: dict[str, Tensor] = {}
    for name, calls in (("ode", 20), ("ode", 80), ("dpm++2m", 20), ("em", 200), ("ddpm", 200)):
        out = scoresde.sample(denoiser, (given.n, D), name, nfe=calls, dtype=torch.float64)
        drawn[name] = out.x
        print(f"{name:10}{out.nfe:6}{errors(out.x)}", flush=True)
    print(f"{'exact':10}{'':6}{errors(exact.sample(given.n))}\n{'prior':10}{'':6}{errors(prior.sample(given.n))}")
    if given.out:
        figure = Figure(figsize=(8, 3.2), dpi=120, layout="constrained")
        band, place = 2 * exact.cov.diagonal().sqrt(), torch.arange(D)
        for ax, (title, curves, colour) in zip(
            figure.subplots(1, 2, sharey=True),
            (("prior", prior.sample(20), INK), ("posterior, by 80 calls of the ODE", drawn["ode"][:20], BLUE)),
            strict=True,
        ):
            if colour == BLUE:
                ax.fill_between(place, exact.mean - band, exact.mean + band, color=FAINT, label="exact, 2 std")
            ax.plot(place, curves.T, color=colour, linewidth=0.6, alpha=0.6)
            ax.plot(place, truth, color=ORANGE, linewidth=1.5, label="truth")
            for row, value in zip(A, y, strict=True):
                seen = row.nonzero().flatten()
                ax.plot(seen, value.expand(len(seen)), color="black", linewidth=2.5)
            ax.set_title(title, color=INK, fontsize=10)
            ax.tick_params(colors=INK, labelsize=7, color=FAINT)
            for side in ax.spines.values():
                side.set_color(FAINT)
            ax.legend(frameon=False, fontsize=7, labelcolor=INK)
        figure.savefig(given.out)
        print(f"picture: {given.out}")


if __name__ == "__main__":
    main()
