"""Guidance by a classifier of noisy states: the score of p(x_t | y) by Bayes' rule.

    ∇ log p(x_t | y) = ∇ log p(x_t) + w ∇ log p(y | x_t),   w = 1

(Song et al. 2021, eq. 14; Dhariwal & Nichol 2021, eq. 10 with any w). In the other forms, with score = -ε̂/σ:
ε̂ - σ w ∇ log p, x̂_0 + (σ²/α) w ∇ log p; that of u x_0 + v ε is moved by σ (u σ/α - v) w ∇ log p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde.classifier import check_classes
from scoresde.denoiser import FORMS, AnyDenoiser, Plan, mix
from scoresde.errors import BadInput, choose
from scoresde.guidance.terms import classes_of
from scoresde.guidance.weights import Weight, check_weight, per_row, told, weights
from scoresde.schedule import like
from scoresde.transforms import Wrapper

LogProb = Callable[[Tensor, Tensor, Any], Tensor]


@dataclass(frozen=True, eq=False)
class ClassifierGuided(Wrapper):
    """What `classifier_guidance` returns."""

    log_prob: LogProb
    w: Weight
    conditional: bool = False
    chain: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        w = check_weight(self.w)
        values = {"w": w, "given": per_row([w], [self.inner]), "guidance": f"classifier guidance with {told(w)}"}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if not callable(self.log_prob):
            raise BadInput(f"log_prob = {self.log_prob!r:.60}: a function (x, t, y) -> log p(y | x), (batch,)")
        own, classes = classes_of(self.inner), self._classes
        if own and classes and classes != own:
            raise BadInput(f"the classifier knows {classes} classes, the model {own}")

    @property
    def _classes(self) -> int | None:
        """How many classes the classifier says that it knows, by their number or names."""
        classes = getattr(self.log_prob, "classes", None)
        return classes if isinstance(classes, int) else len(classes) if isinstance(classes, tuple) else None

    def _begin(self, cond: dict[str, Any], x: Tensor) -> tuple[Weight, Any, dict[str, Any]]:
        """The weight, y, and the inner denoiser's conditions."""
        (w,) = weights([self.w], dict(self.given), cond, x)
        if "y" not in cond:
            raise BadInput("classifier guidance needs what the samples are to be: sample(..., cond={'y': ...})")
        y = cond["y"]
        return w, y, cond if self.conditional else {name: each for name, each in cond.items() if name != "y"}

    def _check(self, y: Any, wait: bool = False) -> None:
        """What can be found before the first call; in a single one y on a device is not read."""
        if torch.is_inference_mode_enabled():
            raise BadInput("classifier guidance inside torch.inference_mode(), which records no gradient: use no_grad")
        if (classes := self._classes) and isinstance(y, Tensor):
            check_classes(y, classes, "the classifier", wait)

    def _gain(self, form: str, t: Tensor) -> Tensor:
        """What ∇ log p is times in this form."""
        u, v = mix(form, self.sde, t, self.sigma_data)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return sigma * (u * sigma / alpha - v)

    def _shares(self, times: Sequence[float]) -> list[float]:
        """(σ_s/σ_t) e^{-h} for the steps from these times of ``chain`` to the next: of what Bayes' rule would give."""
        if self.chain is None:
            return [1.0] * len(times)
        chain, at = self.chain, self.sde.knots(self.chain)
        step = {t: n for n, t in enumerate(chain[:-1])}
        if missing := [t for t in times if t not in step]:
            raise BadInput(f"mean_shift: t = {missing[0]:.6g} begins no step of its chain of {len(step)}")
        shares: list[float] = []
        for n in (step[t] for t in times):
            s, t = float(at.sigma[n + 1]), float(at.sigma[n])
            shares.append(s / t * math.exp(at.lam[n] - at.lam[n + 1]))
        return shares

    def _gradient(self, x: Tensor, t: Tensor, y: Any) -> Tensor:
        """∇ log p(y | x_t) at x, one time per sample."""
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            point = x if keep and x.requires_grad else x.detach().requires_grad_()
            value = self.log_prob(point, t, y)
            found = tuple(value.shape) if isinstance(value, Tensor) else None  # pyright: ignore[reportUnnecessaryIsInstance]
            if found != (len(x),) or not value.requires_grad:
                raise BadInput(f"log_prob must return a differentiable number per sample, ({len(x)},), not {found}")
            (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=keep)
        return gradient

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        w, y, given = self._begin(cond, x)
        self._check(y)
        out = self.inner.predict(choose("form", form, FORMS), x, t, **given)
        if isinstance(w, float) and w == 0:
            return out
        time = like(t, x)
        share = like(torch.tensor(self._shares(torch.as_tensor(t).flatten().tolist())), x) if self.chain else 1.0
        gradient = self._gradient(x, time.flatten().expand(len(x)), y)
        return out + self._gain(form, time) * share * w * gradient

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        w, y, given = self._begin(cond, x)
        self._check(y, wait=True)
        inner = self.inner.plan(form, times, x, **given)
        if isinstance(w, float) and w == 0:
            return inner
        t = torch.tensor(list(times), dtype=torch.float64)
        gain = [k * share for k, share in zip(self._gain(form, t).tolist(), self._shares(times), strict=True)]
        if bad := [time for time, k in zip(times, gain, strict=True) if not math.isfinite(k)]:
            raise BadInput(f"classifier guidance: no {form} at t = {bad[0]:.6g}, where no signal is left: start below")
        rows = t.to(x.dtype).to(x.device).unsqueeze(1).expand(-1, len(x)).unbind()

        def move(i: int, x: Tensor, out: Tensor, wider: Tensor | float = 1.0) -> Tensor:
            value = torch.add(inner.skip[i] * x, out, alpha=inner.scale[i])
            return value + gain[i] * w * wider * self._gradient(x, rows[i], y)

        def learned(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            assert inner.learned
            out, v = inner.learned(i, x)
            return move(i, x, out, self._wider(v, times[i]) if self.chain and gain[i] else 1.0), v

        spread = learned if inner.learned else None
        return Plan([0.0] * len(times), [1.0] * len(times), lambda i, x: move(i, x, inner.net(i, x)), spread)

    def _wider(self, v: Tensor, t: float) -> Tensor:
        """The learned variance of the step from t over the posterior's: (σ_t/σ_s)^{2v}."""
        assert self.chain
        s = self.chain[self.chain.index(t) + 1]
        log_sigma = self.sde.log_sigma(torch.tensor([s, t], dtype=torch.float64))
        return (2 * v * float(log_sigma[1] - log_sigma[0])).exp()


def classifier_guidance(
    denoiser: AnyDenoiser,
    log_prob: LogProb,
    w: float | Tensor = 1.0,
    *,
    conditional: bool = False,
    mean_shift: Sequence[float] | None = None,
) -> ClassifierGuided:
    """Guidance by a classifier (Dhariwal & Nichol 2021, section 4): score + w ∇ log p(y | x_t).

    ``log_prob(x, t, y)`` is log p(y | x_t) for noisy states x (batch, *event) and times t (batch,), shape (batch,):
    a `NoisyClassifier`, or any function that torch can differentiate. y is the run's condition of that name; the
    denoiser itself is given it only if ``conditional``. With an exact log_prob, w = 1 gives samples of p(x | y); w = 0
    is the denoiser as it is. A tensor (n,) is one w for each sample. A call costs one of the denoiser and a forward and
    backward pass of ``log_prob``, under torch.no_grad() too; no graph outlives it.

    ``mean_shift``, the times of an ancestral chain, guides as algorithm 1 of the paper does: the step's mean is moved
    by w Σ ∇ log p(y | x_t), Σ its variance. By the score it moves by w Σ (σ_t/σ_s) e^h ∇ log p, h = λ_s - λ_t, which is
    the same up to O(h): the option multiplies by (σ_s/σ_t) e^{-h}. It is for the sampler "ddpm" on those times, whose
    variance is "posterior" or "learned".

    >>> import torch, scoresde
    >>> from scoresde.guidance import classifier_guidance
    >>> sde, data = scoresde.VPSDE(), scoresde.Gaussian(torch.zeros(1), torch.eye(1))
    >>> def log_prob(x, t, y):  # of y = x_0 + N(0, 1), as x_0 given x_t is N(α x_t, σ²)
    ...     alpha, sigma = sde.alpha(t), sde.sigma(t)
    ...     return -0.5 * (y - alpha * x[:, 0]) ** 2 / (sigma**2 + 1)
    >>> guided = classifier_guidance(data.denoiser(sde), log_prob)
    >>> out = scoresde.sample(guided, (2000, 1), "ddim", 50, cond={"y": torch.ones(2000)})
    >>> round(out.x.mean().item(), 1), round(out.x.var().item(), 1)  # the posterior N(1/2, 1/2)
    (0.5, 0.5)
    """
    return ClassifierGuided(denoiser, log_prob, w, conditional, None if mean_shift is None else tuple(mean_shift))
