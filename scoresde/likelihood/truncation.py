"""What the ends of a run add to log p where the truth is known: the prior instead of p at t_max, t_min instead of 0.

With z the latent of x, p_t the marginal of x_t and p̂ the model's density (`log_prob` by an exact denoiser),

    log p̂(x) - log p_0(x) = [log prior(z) - log p_{t_max}(z)] + [log p_{t_min}(x) - log p_0(x)] + the solver's error.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from scoresde.analytic import Distribution
from scoresde.likelihood.density import Likelihood
from scoresde.sde import SDE


@dataclass(frozen=True, eq=False)
class Truncation:
    """What `truncation` returns, (n,) nats each: ``prior``, ``t_min``, and the ``solver``'s error that is left."""

    prior: Tensor
    t_min: Tensor
    solver: Tensor


def truncation(data: Distribution, sde: SDE, x: Float[Tensor, "n *event"], found: Likelihood) -> Truncation:
    """The three parts of log_prob's error at x, for data whose density is known; their sum is the whole error.

    ``found`` is ``log_prob(data.denoiser(sde), x)`` in the denoiser's units and with the SDE's own prior. Where data
    have no density of their own (a singular covariance), the part of t_min is not finite.

    >>> import torch, scoresde
    >>> data, sde = scoresde.Gaussian(torch.full((2,), 0.5), torch.eye(2)), scoresde.VPSDE()
    >>> x = data.sample(3)
    >>> parts = truncation(data, sde, x, scoresde.log_prob(data.denoiser(sde), x))
    >>> bool(parts.prior.abs().max() < 0.02), bool(parts.t_min.abs().max() < 2e-4)
    (True, True)
    >>> bool(parts.solver.abs().max() < 1e-4)
    True
    """
    prior = sde.prior_log_prob(found.latent) - data.log_prob(found.latent, sde, sde.t_max)
    at_t_min = data.log_prob(x, sde, sde.t_min)
    return Truncation(prior, at_t_min - data.log_prob(x), found.log_prob - prior - at_t_min)
