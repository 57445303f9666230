"""How many calls samplers need under strong guidance, by measurement."""

from __future__ import annotations

STRONG = 4.0  # |w| from which this matters
# Calls from which a sampler is at most twice as far from its own limit as ddim in as many calls is from ddim's, in the
# samples themselves, or, where noise is drawn, in their law (sliced Wasserstein distance, to the sampling error).
# Measured at w = 8, the modes of `GaussianMixture.example` as classes, at 10, 15, 20, 30 calls and more. With fewer
# most of these do not only lose: their errors grow from step to step.
ENOUGH = {
    "ddim": 1,
    "edm": 79,
    "dpm2s": 30,
    "dpm3s": 30,
    "dpm++3s": 15,
    "ode": 20,
    "rk4": 20,
    "eab2": 15,
    "eab3": 20,
    "eab4": 20,
    "plms": 15,
    "pndm": 29,
    "sheun": 39,
    "sa-solver": 60,
    "dpm++2m-sde": 20,
    "dpm++3m-sde": 30,
    "dpm2a": 39,
    "restart": 60,
    "pc": 100,
    "langevin": 250,
    "travel": 400,
}


def enough_calls(sampler: str) -> int:
    """The least calls of a sampler for |w| of 4 and more.

    >>> enough_calls("ddim"), enough_calls("unipc"), enough_calls("edm")
    (1, 10, 79)
    """
    return ENOUGH.get(sampler, 10)
