"""Posterior sampling of a linear-Gaussian model against its closed form: every method, mean and standard deviation.

    python examples/posterior_methods.py

x ~ N(0, C) in four dimensions, y = A x + n, two numbers measured. Printed is the largest distance of the mean and of
the standard deviation from those of p(x | y): for "exact" the sampler's own error, for all else the method's bias. The
starts have mean 0 and covariance 1 exactly, so that a run of an affine flow has no Monte Carlo error. Below, three
observations of one x: the sum of their scores, and the product of their Gaussians.
"""

from __future__ import annotations

from typing import Any

import torch

import scoresde
from scoresde.guidance import METHODS, Composed, Matrix, Measured, chain_strength, compose, gaussian_posterior, measured

N, SAMPLER, STEPS = 200, "unipc", 60
SDE = scoresde.VPSDE()
ROUND, LONG = torch.eye(4), torch.eye(4) * 0.3 + 0.7
A = Matrix(torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, -1.0]]) / 2**0.5, (4,))
Y = torch.tensor([1.2, -0.8])


def starts() -> torch.Tensor:
    """Noise of mean 0 and covariance 1, exactly."""
    z = torch.randn(N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = z - z.mean(0)
    return z @ torch.linalg.inv(torch.linalg.cholesky(z.mT @ z / (N - 1))).mT


def errors(denoiser: Measured | Composed, truth: scoresde.Gaussian) -> str:
    """Of mean and standard deviation."""
    x = scoresde.sample(denoiser, (N, 4), SAMPLER, STEPS, x=starts()).x
    mean, std = (x.mean(0) - truth.mean).abs().max(), (x.std(0) - truth.cov.diagonal().sqrt()).abs().max()
    return f"{float(mean):8.3f} {float(std):8.3f}"


def main() -> None:
    covariances = {"round": ROUND, "correlated": LONG}
    problems = [(name, scoresde.Gaussian(torch.zeros(4), C), s) for name, C in covariances.items() for s in (0.1, 0.5)]
    print("error of mean, std" + "".join(f"{f'{name}, s = {s}':>20}" for name, _, s in problems))
    grid, final = scoresde.SAMPLERS["ddpm"].defaults(STEPS)
    chain = chain_strength(SDE, scoresde.make_grid(grid, SDE, STEPS, final), 0.1)
    for method in METHODS:
        strength = chain if method in ("dps", "mcg") else 1.0
        row = []
        for _, prior, s in problems:
            options: dict[str, Any] = {"covariance": prior.cov} if method == "exact" else {}
            d = measured(prior.denoiser(SDE), Y, A, method, s, strength, **options)
            row.append(errors(d, gaussian_posterior(prior, A, Y, s)))
        print(f"{method:18}" + "   ".join(row))

    prior, seen = scoresde.Gaussian(torch.zeros(4), LONG), torch.tensor([[1.0, -0.6], [1.4, -1.0], [0.9, -0.2]])
    given = [gaussian_posterior(prior, A, y, 0.5) for y in seen]
    truth = gaussian_posterior(prior, Matrix(A.entries.repeat(3, 1), (4,)), seen.flatten(), 0.5)
    print("\nthree observations, correlated, s = 0.5")
    for name, known in (("sum of scores", None), ("with covariances", [prior.cov, *(each.cov for each in given)])):
        d = compose(prior.denoiser(SDE), [each.denoiser(SDE) for each in given], known)
        print(f"{name:18}" + errors(d, truth))


if __name__ == "__main__":
    main()
