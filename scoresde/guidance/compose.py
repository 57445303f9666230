"""Several independent observations of one x_0: their posteriors' denoisers as one, for simulation-based inference."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser, Plan
from scoresde.errors import BadInput
from scoresde.samplers.job import brought
from scoresde.schedule import like, per_sample
from scoresde.sde import SDE


@dataclass(frozen=True, eq=False)
class Composed(AnyDenoiser):
    """What `compose` returns; ``rows_per_call`` is the sum over prior and posteriors."""

    prior: AnyDenoiser
    posteriors: tuple[AnyDenoiser, ...]
    precisions: tuple[Tensor, ...] | None  # of the prior, then of each posterior, (D, D)
    sde: SDE = field(init=False)
    parts: list[tuple[AnyDenoiser, KeysView[str]]] = field(init=False, repr=False)  # and what each brings along

    def __post_init__(self) -> None:
        parts = (self.prior, *self.posteriors)
        given = [brought(each) for each in parts]
        if sum(map(bool, given)) > 1:
            raise BadInput("compose: two of the denoisers have a guidance weight for each sample: only one of them can")
        values = {
            "sde": self.prior.sde,
            "sigma_data": self.prior.sigma_data,
            "rows_per_call": sum(each.rows_per_call for each in parts),
            "varies": any(each.varies for each in parts),
            "given": {name: rows for own in given for name, rows in own.items()},
            "parts": [(each, own.keys()) for each, own in zip(parts, given, strict=True)],
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def rows(self, t: Tensor) -> Tensor:
        return torch.stack([each.rows(t) for each, _ in self.parts]).sum(0)

    def _each(self, cond: dict[str, Any]) -> Iterator[tuple[AnyDenoiser, dict[str, Any]]]:
        """Prior and posteriors with their conditions: what one of them brings along is not for the others."""
        for each, own in self.parts:
            yield each, {name: value for name, value in cond.items() if name in own or name not in self.given}

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        time = like(t, x)
        skip, scale = self.from_x0(form, time)
        each = [denoiser.predict("x0", x, t, **own) for denoiser, own in self._each(cond)]
        return skip * x + scale * self._product(each, self.sde.alpha(time) / self.sde.sigma(time))

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        plans = [denoiser.plan("x0", times, x, **own) for denoiser, own in self._each(cond)]
        t = torch.tensor(list(times), dtype=torch.float64)
        skip, scale = self.from_x0(form, t)
        ratio = (self.sde.alpha(t) / self.sde.sigma(t)).to(x).unbind()
        return Plan(skip.tolist(), scale.tolist(), lambda i, x: self._product([plan(i, x) for plan in plans], ratio[i]))

    def _product(self, each: Sequence[Tensor], ratio: Tensor) -> Tensor:
        """The mean of Π_j N(x̂_0^j, Σ_j) / N(x̂_0, Σ_0)^(n-1), Σ⁻¹ = C⁻¹ + α²/σ²; ``ratio`` is α/σ."""
        prior, *posteriors = each
        less = len(posteriors) - 1
        if self.precisions is None:
            return torch.stack(posteriors).sum(0) - less * prior
        weights = [-less, *[1] * len(posteriors)]
        eye = torch.eye(per_sample(prior).shape[1]).to(prior) * ratio.reshape(-1, 1, 1) ** 2
        precisions = [P.to(prior) + eye for P in self.precisions]
        total = torch.stack([w * P for w, P in zip(weights, precisions, strict=True)]).sum(0)
        pulls = [w * (P @ per_sample(x0).unsqueeze(-1)) for w, P, x0 in zip(weights, precisions, each, strict=True)]
        return torch.linalg.solve(total, torch.stack(pulls).sum(0)).reshape(prior.shape)


def compose(
    prior: AnyDenoiser, posteriors: Sequence[AnyDenoiser], covariances: Sequence[Tensor] | None = None
) -> Composed:
    """The denoiser of x_0 given n independent observations, from those given each alone.

    p(x_0 | y_1 … y_n) ∝ p(x_0)^(1-n) Π p(x_0 | y_j). Without ``covariances`` its score is taken at every t as

        Σ_j s_t(x | y_j) - (n - 1) s_t(x)            (Geffner et al. 2023, there with a weight 1 - t/T on s_t)

    which is right at t = 0 only: for t > 0 diffusing and multiplying do not commute. The product of the n densities is
    then a sequence of targets between noise and posterior, not the diffused posterior, and samplers that follow the
    flow are biased; the paper takes annealed Langevin steps ("langevin").

    With ``covariances``, those of x_0 under the prior and under each posterior, (D, D), in this order,

        Λ = Σ_j Σ_j⁻¹ - (n - 1) Σ_0⁻¹,  x̂_0 = Λ⁻¹ (Σ_j Σ_j⁻¹ x̂_0^j - (n - 1) Σ_0⁻¹ x̂_0^prior),  Σ⁻¹ = C⁻¹ + α²/σ²,

    (Linhart et al. 2024, there called GAUSS, in terms of x̂_0): exact at every t where all are Gaussian. Conditional
    networks become one denoiser per observation as ``Denoiser(partial(network, y=y_j), sde)``.

    >>> import scoresde
    >>> sde, one = scoresde.VPSDE(), torch.eye(1)
    >>> prior = scoresde.Gaussian(torch.zeros(1), one).denoiser(sde)
    >>> given = [scoresde.Gaussian(torch.tensor([m]), one / 2).denoiser(sde) for m in (0.4, 0.6)]
    >>> x = scoresde.sample(compose(prior, given, [one, one / 2, one / 2]), (4000, 1), "ddim", 50).x
    >>> f"{x.mean():.1f} {x.var():.1f}"  # N(2/3, 1/3)
    '0.7 0.3'
    """
    if not posteriors:
        raise BadInput("compose: give at least one posterior")
    if any(each.sde is not prior.sde and each.sde != prior.sde for each in posteriors):
        raise BadInput(f"compose: a posterior has another SDE than the prior's {prior.sde}")
    if covariances is None:
        return Composed(prior, tuple(posteriors), None)
    if len(covariances) != len(posteriors) + 1:
        raise BadInput(
            f"compose: {len(covariances)} covariances for a prior and {len(posteriors)} posteriors: give one of each"
        )
    found: list[Tensor] = []
    for k, cov in enumerate(covariances):
        if cov.ndim != 2 or cov.shape != covariances[0].shape[:1] * 2 or not _positive(cov.double()):
            raise BadInput(f"compose: covariance {k} of shape {tuple(cov.shape)} must be (D, D), positive definite")
        found.append(torch.linalg.inv(cov.double()))
    total = torch.stack(found[1:]).sum(0) - (len(posteriors) - 1) * found[0]
    if not _positive(total):
        raise BadInput("compose: the posteriors' covariances must be below the prior's: together they leave none")
    return Composed(prior, tuple(posteriors), tuple(found))


def _positive(matrix: Tensor) -> bool:
    return bool((torch.linalg.eigvalsh(matrix) > 0).all()) and torch.allclose(matrix, matrix.mT)
