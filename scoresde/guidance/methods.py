r"""How a measurement y = A(x_0) + n, n ~ N(0, s²), moves x̂_0: one small function per published method.

All approximate the posterior mean E[x_0 | x_t, y]. With J = ∂x̂_0/∂x_t, the score of p_t(x | y) is that of p_t(x) plus
g = ∇_x log p(y | x_t), which moves x̂_0 by (σ²/α) g, and Σ_t = (σ²/α) J is the covariance of x_0 given x_t (Efron 2011).
Where x_0 given x_t is taken as N(x̂_0, Σ), linear A gives

    E[x_0 | x_t, y] ≈ x̂_0 + (σ²/α) Jᵀ Aᵀ (A Σ Aᵀ + s²)⁻¹ (y - A x̂_0),

exact for Gaussian data and Σ = Σ_t: `exact`. The others differ in what stands for J and Σ:

| method    | moves x̂_0 by                                   | A              | backward passes | on Gaussian data     |
|-----------|------------------------------------------------|----------------|-----------------|----------------------|
| `exact`   | the formula, Σ_t from the data's covariance    | linear         | 0               | exact                |
| `pigdm`   | the formula, Σ = r² = σ² v/(σ² + α² v)         | linear         | 1               | exact for C = v      |
| `dps`     | -(σ²/α) ζ ∇_x ‖y - A(x̂_0)‖                     | differentiable | 1               | biased: s is unused  |
| `mcg`     | as `dps`, then as `ddnm`                       | linear         | 1               | biased               |
| `ddnm`    | A⁺ (y - A x̂_0), A⁺ capped at σ/(3α s)          | linear         | 0               | biased               |
| `diffpir` | Aᵀ (A Aᵀ + λ s²/σ̄²)⁻¹ (y - A x̂_0), σ̄ = σ/α     | linear         | 0               | biased: see below    |

A function gets the problem and the state as `Problem` and `At`, and returns the new x̂_0 (batch, *event).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import signature
from math import inf, isfinite, prod
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import BadInput, choose, nearest
from scoresde.guidance.operators import Linear
from scoresde.schedule import like, per_sample
from scoresde.sde import SDE

Operator = Callable[[Tensor], Tensor]
SHARE = 1 / 3  # of the state's noise that A⁺ n may have: of 1, 0.5, 0.35, 0.25 the last is best at a blur, 0.35 at CT


class Problem(NamedTuple):
    """y = A(x_0) + n: the operator, y in the shape of A(x), and the standard deviation s of n."""

    operator: Operator
    y: Tensor
    noise_std: float

    @property
    def linear(self) -> Linear:
        """The operator, known to be linear."""
        return cast(Linear, self.operator)

    def residual(self, x0: Tensor) -> Tensor:
        """y - A(x_0)."""
        return self.y - self.operator(x0)


class At(NamedTuple):
    """A state: x̂_0 (batch, *event); α, σ and the strength, one number or one per sample.

    For methods with a backward pass, ``live`` is x̂_0 as a function of x_t, and back(f, c) = (∂f/∂x_t)ᵀ c of an f that
    is computed from it.
    """

    x0: Tensor
    alpha: Tensor
    sigma: Tensor
    strength: Tensor
    live: Tensor
    back: Callable[[Tensor, Tensor], Tensor]

    def times(self, weight: Tensor, move: Tensor) -> Tensor:
        """x̂_0 plus strength times weight times a move."""
        return self.x0 + like(self.strength * weight, move) * move


def dps(problem: Problem, at: At) -> Tensor:
    """Diffusion posterior sampling (Chung et al. 2023, algorithm 1): the score less ζ ∇_x ‖y - A(x̂_0(x))‖.

    Any differentiable A; ζ = ``strength``, a number or a function of t. The likelihood's own gradient is
    -(1/2s²) ∇‖e‖², so ζ = ‖e‖/s², about sqrt(m)/s for m measurements, is Bayes' rule with J alone; the noise s is
    otherwise unused. The paper subtracts ζ' ∇‖e‖ (in its code; twice that in algorithm 1, with ζ_i = ζ'/‖e‖) from the
    state after each ancestral step t -> r. Such a step turns a change d of x̂_0 into (α_r σ²_{t|r}/σ_t²) d with
    σ²_{t|r} = σ_t² - (α_t/α_r)² σ_r², so it is ζ_t = ζ' α_t/(α_r σ²_{t|r}) here: `chain_strength`. Bias: with ζ the
    samples contract around A x = y whatever s is, the more the larger ζ; with small ζ they stay near the prior.

    >>> import scoresde
    >>> prior = scoresde.Gaussian(torch.zeros(2), torch.eye(2)).denoiser(scoresde.VPSDE())
    >>> d = scoresde.guidance.measured(prior, torch.tensor([3.0]), lambda x: x.norm(dim=1, keepdim=True), "dps", 0.1)
    >>> scoresde.sample(d, (4, 2), "ddpm", 100).x.norm(dim=1).round()
    tensor([3., 3., 3., 3.])
    """
    size = _norm(problem.residual(at.live))
    return at.times(-_squared(at) / at.alpha, at.back(size, torch.ones_like(size)))


def pigdm(problem: Problem, at: At, variance: float = 1.0) -> Tensor:
    """Pseudo-inverse guidance (Song et al. 2023, eq. 7-8): the score plus Jᵀ Aᵀ (r² A Aᵀ + s²)⁻¹ (y - A x̂_0).

    Linear A; J is of one backward pass. r² = σ² v/(σ² + α² v) is the variance of x_0 given x_t where the data have
    ``variance`` v, in the scaled space of the network; with v = 1, and α = 1, it is the paper's σ²/(1 + σ²). Exact for
    Gaussian data of covariance v, of which r² is the covariance given x_t; else biased where they differ.

    >>> import scoresde
    >>> from scoresde.guidance import Matrix, measured
    >>> prior = scoresde.Gaussian(torch.zeros(2), torch.eye(2)).denoiser(scoresde.VPSDE())
    >>> d = measured(prior, torch.tensor([3.0]), Matrix(torch.tensor([[1.0, 0.0]]), (2,)), "pigdm", noise_std=1.0)
    >>> x = scoresde.sample(d, (2000, 2), "ddim", 50).x  # the posterior: N(1.5, 0.5) and N(0, 1)
    >>> [round(float(v), 1) for v in (x[:, 0].mean(), x[:, 1].mean(), x[:, 0].var(), x[:, 1].var())]
    [1.5, 0.0, 0.5, 1.0]
    """
    if not (isfinite(variance) and variance > 0):
        raise BadInput(f"pigdm: variance = {variance}: a positive number, the data's variance in scaled units")
    noise = _squared(at)
    r2 = noise * variance / (noise + at.alpha**2 * variance)
    pull = problem.linear.inverse(problem.residual(at.x0), problem.noise_std**2 / r2) / like(r2, at.x0)
    return at.times(noise / at.alpha, at.back(at.live, pull))


def mcg(problem: Problem, at: At) -> Tensor:
    """Manifold constrained gradient (Chung et al. 2022): the step of `dps`, then the projection on y.

    Linear A; W = 1 and the step size in the normalised form of `dps`, ζ = ``strength``. The projection is made on
    x̂_0, as `ddnm` makes it, instead of on the noised state. Bias: that of `ddnm` in what A sees, that of `dps` beside.

    >>> import scoresde
    >>> from scoresde.guidance import Mask, measured
    >>> prior = scoresde.Gaussian(torch.zeros(2), torch.ones(2, 2)).denoiser(scoresde.VPSDE())
    >>> d = measured(prior, torch.tensor([2.0]), Mask(torch.tensor([1, 0]), (2,)), "mcg", strength=5.0)
    >>> scoresde.sample(d, (3, 2), "ddpm", 100).x.round()  # the unseen number follows the seen one
    tensor([[2., 2.], [2., 2.], [2., 2.]])
    """
    return _project(problem, at, dps(problem, at), torch.ones_like(at.strength))


def ddnm(problem: Problem, at: At) -> Tensor:
    """Null-space projection (Wang et al. 2023, eq. 13; with noise DDNM+, eq. 17-19): x̂_0 + w A⁺ (y - A x̂_0).

    Linear A, no backward pass; w = ``strength``. Without noise and with w = 1: A x̂_0 = y exactly, and the network fills
    in the null space. With noise A⁺ multiplies by min(1/d, σ/(3α s)) along each singular value d, so that n, so
    amplified, is a third of the noise of the state at most: DDNM+ takes it off what the step injects, which a denoiser
    cannot, and so has to leave room for it. Bias: x_0 given x_t is taken as known in the null space and unknown in what
    A sees: right without noise for isotropic data, else growing with the noise and the data's correlations.

    >>> import scoresde
    >>> from scoresde.guidance import Downsample, measured
    >>> prior = scoresde.Gaussian(torch.zeros(2, 2), torch.eye(4)).denoiser(scoresde.VPSDE())
    >>> d = measured(prior, torch.tensor([[5.0]]), Downsample(2, (2, 2)), "ddnm")
    >>> scoresde.sample(d, (3, 2, 2), "ddim", 10).x.mean((1, 2))
    tensor([5.0000, 5.0000, 5.0000])
    """
    return _project(problem, at, at.x0, at.strength)


def diffpir(problem: Problem, at: At, lam: float = 1.0) -> Tensor:
    """Plug-and-play restoration (Zhu et al. 2023): argmin_x ‖y - A x‖² + ρ ‖x - x̂_0‖², ρ = λ s²/σ̄².

    Linear A, no backward pass; σ̄ = σ/α and λ = ``lam``, in the paper 1 to 25. The minimiser is
    x̂_0 + Aᵀ (A Aᵀ + ρ)⁻¹ (y - A x̂_0); without noise it is `ddnm`. The paper's re-noising ζ is the eta of "ddim". Bias:
    Σ = σ̄²/λ instead of Σ_t, right for λ = 1 where σ̄ is below the data's own spread, too wide above.

    >>> import scoresde
    >>> from scoresde.guidance import Blur, measured
    >>> prior = scoresde.Gaussian(torch.zeros(1, 8, 8), torch.eye(64)).denoiser(scoresde.VPSDE())
    >>> d = measured(prior, torch.ones(1, 8, 8), Blur(1.0, (1, 8, 8)), "diffpir", 0.1, lam=7.0)
    >>> scoresde.sample(d, (3, 1, 8, 8), "ddim", 20, eta=1.0).x.shape
    torch.Size([3, 1, 8, 8])
    """
    if not (isfinite(lam) and lam > 0):
        raise BadInput(f"diffpir: lam = {lam}: a positive number")
    ridge = lam * problem.noise_std**2 * at.alpha**2 / _squared(at)
    return at.times(torch.ones_like(at.alpha), problem.linear.inverse(problem.residual(at.x0), ridge))


def exact(problem: Problem, at: At, covariance: Tensor) -> Tensor:
    """x̂_0 + Σ_t Aᵀ (A Σ_t Aᵀ + s²)⁻¹ (y - A x̂_0), Σ_t = (C⁻¹ + α²/σ²)⁻¹: the posterior mean of Gaussian data.

    Linear A and the data's ``covariance`` C, (D, D) over the flattened event in scaled units; no backward pass. For
    N(m, C) and its exact denoiser it is E[x_0 | x_t, y] (Bishop 2006, eq. 2.116): what the others are measured against.
    For other data C is an approximation (as in Boys et al. 2023).

    >>> import scoresde
    >>> from scoresde.guidance import Matrix, measured
    >>> C = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    >>> prior = scoresde.Gaussian(torch.zeros(2), C).denoiser(scoresde.VPSDE())
    >>> A = Matrix(torch.tensor([[1.0, 0.0]]), (2,))
    >>> d = measured(prior, torch.tensor([2.0]), A, "exact", noise_std=0.1, covariance=C)
    >>> scoresde.sample(d, (4000, 2), "ddim", 50).x.mean(0).round(decimals=1)  # 0.9 · 2/1.01 for the other
    tensor([2.0000, 1.8000])
    """
    spread, basis, seen_basis = (part.to(at.x0) for part in _decomposed(problem.linear, covariance))
    noise = _squared(at).reshape(-1, 1)
    of_x0 = spread * noise / (at.alpha.reshape(-1, 1) ** 2 * spread + noise)
    half = seen_basis * of_x0.unsqueeze(1)
    seen = half @ seen_basis.mT + problem.noise_std**2 * torch.eye(len(seen_basis)).to(half)
    moved = torch.linalg.pinv(seen, hermitian=True) @ per_sample(problem.residual(at.x0)).unsqueeze(-1)
    return at.times(torch.ones_like(at.alpha), ((half.mT @ moved).squeeze(-1) @ basis.mT).reshape(at.x0.shape))


@lru_cache(maxsize=1)
@torch.inference_mode(False)  # gradients may be asked of it later
def _decomposed(operator: Linear, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Λ, Q and A Q of the covariance Q Λ Qᵀ, float64."""
    A, dims = operator.matrix(), prod(operator.shape)
    if covariance.shape != (dims, dims):
        raise BadInput(f"exact: covariance of shape {tuple(covariance.shape)}, events need {(dims, dims)}")
    spread, basis = torch.linalg.eigh(covariance.double())
    return spread, basis, A @ basis


def _squared(at: At) -> Tensor:
    return at.sigma**2


def _norm(residual: Tensor) -> Tensor:
    """‖e‖ of each sample; its gradient at 0 is 0."""
    return torch.linalg.vector_norm(per_sample(residual), dim=1)


def _project(problem: Problem, at: At, x0: Tensor, strength: Tensor) -> Tensor:
    cap = SHARE * at.sigma / (at.alpha * problem.noise_std) if problem.noise_std else inf
    return x0 + like(strength, x0) * problem.linear.inverse(problem.residual(x0), cap=cap)


@dataclass(frozen=True)
class Method:
    """A method: its function, whether A must be linear, and whether a call differentiates the network."""

    function: Callable[..., Tensor]
    linear: bool = True
    backward: bool = False

    def options(self) -> dict[str, Any]:
        """What it takes beside problem and state, with defaults; `Parameter.empty` where there is none."""
        return {name: p.default for name, p in list(signature(self.function).parameters.items())[2:]}


METHODS: dict[str, Method] = {
    "dps": Method(dps, linear=False, backward=True),
    "pigdm": Method(pigdm, backward=True),
    "mcg": Method(mcg, backward=True),
    "ddnm": Method(ddnm),
    "diffpir": Method(diffpir),
    "exact": Method(exact),
}


def find_method(name: str, operator: Operator, options: Mapping[str, Any]) -> tuple[Method, Callable[..., Tensor]]:
    """The method of a name, and its function with the options filled in; `BadInput` for what it cannot do."""
    method = METHODS[choose("method", name, METHODS)]
    known = method.options()
    for option in options:
        if option not in known:
            has = f"choose from {', '.join(known)}" if known else "it has none"
            raise BadInput(f"unknown option {option!r} of method {name!r}: {has}{nearest(option, known)}")
    if missing := [key for key, value in known.items() if value is signature(exact).empty and key not in options]:
        raise BadInput(f"method {name!r} needs {', '.join(missing)}")
    if method.linear and not isinstance(operator, Linear):
        any_ = ", ".join(key for key, each in METHODS.items() if not each.linear)
        raise BadInput(f"method {name!r} needs a linear operator (`Linear`, `LinearMap`); for any callable: {any_}")
    return method, partial(method.function, **options)


def chain_strength(sde: SDE, times: Sequence[float], zeta: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The strength of `dps` and `mcg` that makes "ddpm" on the grid ``times`` the published algorithm with ζ' = zeta.

    ζ_t = ζ' α_t/(α_r σ²_{t|r}) for the step t -> r, σ²_{t|r} = σ_t² - (α_t/α_r)² σ_r²: each step moves the state by at
    most ζ' ‖∇_x‖e‖‖ however many there are. Between the times of the grid it is interpolated, linearly in its log.

    >>> import scoresde
    >>> strength = chain_strength(scoresde.VPSDE(), [1.0, 0.5, 0.0], 0.3)
    >>> strength(torch.tensor([0.5]))  # the last step, to α = 1 and σ = 0: ζ' α/σ²
    tensor([0.0916])
    """
    at = sde.knots(times)
    kept = (at.alpha[:-1] / at.alpha[1:]) ** 2 * at.sigma[1:] ** 2
    with np.errstate(divide="ignore"):
        logs = np.log(zeta * at.alpha[:-1] / (at.alpha[1:] * (at.sigma[:-1] ** 2 - kept)))
    rising, values = np.ascontiguousarray(at.t[:-1][::-1]), np.ascontiguousarray(logs[::-1])

    def strength(t: Tensor) -> Tensor:
        return torch.as_tensor(np.exp(np.interp(t.double().cpu().numpy(), rising, values))).to(t)

    return strength
