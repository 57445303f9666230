"""Likelihoods: the density of the probability flow (`density`, its divergence in `trace`), the probability of discrete
data (`discrete`), the variational bound (`bound`), what the ends of a run add (`truncation`); and paths between latents
(`interpolate`)."""

from scoresde.likelihood.bound import Bound, variational_bound
from scoresde.likelihood.density import Likelihood, log_prob
from scoresde.likelihood.discrete import bits_per_dim, dequantise, discrete_log_prob
from scoresde.likelihood.interpolate import interpolate
from scoresde.likelihood.trace import DIVERGENCES, Divergence
from scoresde.likelihood.truncation import Truncation, truncation

__all__ = [
    "DIVERGENCES",
    "Bound",
    "Divergence",
    "Likelihood",
    "Truncation",
    "bits_per_dim",
    "dequantise",
    "discrete_log_prob",
    "interpolate",
    "log_prob",
    "truncation",
    "variational_bound",
]
