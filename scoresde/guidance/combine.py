"""Guidance by several outputs at once: classifier-free, composed conditions, a weaker model.

All of it is one formula, for any form of the prediction, since these differ by what is the same in all terms:

    ε = ε_0 + Σ_k w_k (ε_k - ε_0).

w = 1 is term k as it is, w = 0 the base ε_0, and w > 1 goes beyond. The weight s of Ho & Salimans (2022, eq. 6),
(1 + s) ε_c - s ε_u, is s = w - 1; the guidance_scale of diffusers is w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser, Plan
from scoresde.errors import BadInput
from scoresde.guidance.terms import Term, active, null_class, shared, stacked, together
from scoresde.guidance.weights import Weight, check_weight, per_row, told, weights
from scoresde.samplers.solver import cut
from scoresde.schedule import like, per_sample
from scoresde.sde import SDE


@dataclass(frozen=True, eq=False)
class Guided(AnyDenoiser):
    """base + Σ_k w_k (term_k - base) of the terms (base, term_1, …, term_k).

    Terms of one denoiser are one call, on a batch as many times as large. A term of weight 0 is not called, and a
    single one of weight 1, or the base alone, is called as if it were not guided: to the last bit the same. Outside
    ``interval`` term 1 alone is called. ``rescale`` brings the spread of the guided x̂_0 back to that of term 1's. A
    learned variance is term 1's.
    """

    terms: tuple[Term, ...]
    w: tuple[Weight, ...]
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    name: str = "guidance"
    inner: AnyDenoiser = field(init=False)
    sde: SDE = field(init=False)

    def __post_init__(self) -> None:
        ws = tuple(check_weight(w) for w in self.w)
        denoisers = [term.denoiser for term in self.terms]
        inner = denoisers[-1]
        if any(denoiser.sde != inner.sde for denoiser in denoisers):
            raise BadInput(
                f"{self.name}: the denoisers have different SDEs, {', '.join(str(d.sde) for d in denoisers)}"
            )
        if self.interval is not None:
            low, high = self.interval
            if not 0 <= low < high:
                raise BadInput(f"interval = {self.interval}: needs 0 <= low < high, noise levels σ/α")
        if not 0 <= self.rescale <= 1:
            raise BadInput(f"rescale = {self.rescale!r} must be in [0, 1]")
        used, _ = active(self.terms, ws, self.interval is not None)
        values = {
            "w": ws,
            "inner": inner,
            "sde": inner.sde,
            "sigma_data": inner.sigma_data,
            "given": per_row(ws, denoisers),
            "rows_per_call": sum(term.denoiser.rows_per_call for term in used),
            "varies": any(term.denoiser.varies for term in used) or (self.interval is not None and len(used) > 1),
            "guidance": f"{self.name} with {', '.join(told(w) for w in ws)}",
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def rows(self, t: Tensor) -> Tensor:
        used, _ = active(self.terms, self.w, self.interval is not None)
        each = torch.stack([term.denoiser.rows(t) for term in used])
        inside = torch.ones_like(t, dtype=torch.bool) if len(used) == 1 else self._inside(t)
        return torch.where(inside, each.sum(0), each[-1])

    def _inside(self, t: Tensor) -> Tensor:
        """Whether the noise level σ/α at t is in (low, high]."""
        if self.interval is None:
            return torch.ones_like(t, dtype=torch.bool)
        rho, (low, high) = self.sde.rho(t.double()), self.interval
        return (rho > low) & (rho <= high)

    def _begin(self, cond: dict[str, Any], x: Tensor) -> tuple[list[Term], list[Weight]]:
        """The terms to call, the base first unless it is not needed, and their weights."""
        ws = weights(self.w, dict(self.given), cond, x)
        terms, ws = active(self.terms, ws, self.interval is not None)
        wanted = {key for term in self.terms for key in term.given} - cond.keys()
        for term in terms:
            if missing := wanted - term.given.keys():
                names = " and ".join(sorted(missing))
                raise BadInput(f"{self.name} needs the condition {names}: sample(..., cond={{{names!r}: ...}})")
        return terms, ws

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        terms, ws = self._begin(cond, x)
        if len(terms) == 1:
            return terms[0].denoiser.predict(form, x, t, **terms[0].cond(cond, x))
        inside = None if self.interval is None else self._inside(torch.as_tensor(t).flatten())
        if inside is None or bool(inside.all()):
            return self._predict(form, x, t, terms, ws, cond)
        if not bool(inside.any()):
            return terms[1].denoiser.predict(form, x, t, **terms[1].cond(cond, x))
        parts: list[tuple[Tensor, Tensor]] = []  # of samples that have times of their own
        for part in (inside, ~inside):
            on = part.to(x.device)
            some, times, given = x[on], cast(Tensor, t).flatten()[part], cut(cond, on, len(x))
            own: list[Weight] = [w[on] if isinstance(w, Tensor) else w for w in ws]
            if part is inside:
                out = self._predict(form, some, times, terms, own, given)
            else:
                out = terms[1].denoiser.predict(form, some, times, **terms[1].cond(given, some))
            parts.append((on.nonzero().flatten(), out))
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat([out for _, out in parts])[order]

    def _predict(
        self, form: str, x: Tensor, t: float | Tensor, terms: list[Term], ws: list[Weight], cond: dict[str, Any]
    ) -> Tensor:
        own = "x0" if self.rescale else form
        if denoiser := shared(terms):
            k = len(terms)
            several = isinstance(t, Tensor) and t.numel() > 1
            times = cast(Tensor, t).flatten().repeat(k) if several else t
            outs = list(denoiser.predict(own, torch.cat([x] * k), times, **stacked(terms, cond, x)).chunk(k))
        else:
            outs = [term.denoiser.predict(own, x, t, **term.cond(cond, x)) for term in terms]
        out = _mixed(outs, ws)
        if not self.rescale:
            return out
        skip, scale = self.from_x0(form, like(t, x))
        return skip * x + scale * _rescaled(out, outs[1], self.rescale)

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        terms, ws = self._begin(cond, x)
        if len(terms) == 1:
            return terms[0].denoiser.plan(form, times, x, **terms[0].cond(cond, x))
        t = torch.tensor(list(times), dtype=torch.float64)
        own, inside = "x0" if self.rescale else form, self._inside(t).tolist()
        values, spreads = together(terms, own, times, x, cond)
        alone = terms[1].denoiser.plan(own, times, x, **terms[1].cond(cond, x)) if not all(inside) else None

        def call(i: int, x: Tensor, spread: bool) -> tuple[Tensor, Tensor | None]:
            if alone and not inside[i]:
                out, v = alone.learned(i, x) if spread and alone.learned else (alone.net(i, x), None)
                return torch.add(alone.skip[i] * x, out, alpha=alone.scale[i]), v
            outs, v = (spreads if spread and spreads else values)(i, x)
            out = _mixed(outs, ws)
            return _rescaled(out, outs[1], self.rescale) if self.rescale else out, v

        if self.rescale:
            skip, scale = (c.tolist() for c in self.from_x0(form, t))
        else:
            skip, scale = [0.0] * len(times), [1.0] * len(times)
        learned = cast(Any, lambda i, x: call(i, x, True)) if spreads else None  # pyright: ignore
        return Plan(skip, scale, lambda i, x: call(i, x, False)[0], learned)


def _mixed(outs: Sequence[Tensor], ws: Sequence[Weight]) -> Tensor:
    """base + Σ_k w_k (term_k - base)."""
    out = torch.lerp(outs[0], outs[1], ws[0])
    for term, w in zip(outs[2:], ws[1:], strict=True):
        out = out + w * (term - outs[0])
    return out


def _rescaled(x0: Tensor, conditional: Tensor, share: float) -> Tensor:
    """x̂_0 with the standard deviation over its coordinates that the conditional has, to this share."""
    own, wanted = (per_sample(each).std(1, correction=0) for each in (x0, conditional))
    ratio = torch.where(own > 0, wanted / own, torch.ones_like(own))
    return like(share * ratio + (1 - share), x0) * x0


def classifier_free(
    denoiser: AnyDenoiser,
    w: float | Tensor,
    *,
    null: int | Mapping[str, Any] | None = None,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Guided:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6, with their 1 + w for w): a conditional model, exaggerated.

    ε = ε_u + w (ε_c - ε_u), ε_c the model's output under the run's conditions and ε_u without the class. w = 1 is the
    conditional model and w = 0 the unconditional one, both to the last bit; larger w give samples that show more of
    their class and differ less. A tensor (n,) is one w for each sample. The pair is one call on a doubled batch,
    conditions with a row per sample doubled too: two network evaluations.

    null        what ε_u is given in place of the run's conditions of these names: a label for y, by default the one
                that means no class (`null_class`), or a dict of them. Another class, a negative one, is led away from
    interval    noise levels (low, high] of σ/α outside which the conditional alone is called, at half the cost
                (Kynkäänniemi et al. 2024, who write σ for it under EDM; theirs for ImageNet is 0.28 to 2.9)
    rescale     φ in [0, 1]: the guided x̂_0 times φ std(x̂_0 of ε_c)/std(x̂_0) + 1 - φ, std over the coordinates of a
                sample (Lin et al. 2024, eq. 14-16, where it is applied to the network's own output; 0.7 there)

    Dynamic thresholding goes around it: ``scoresde.dynamic_threshold(classifier_free(denoiser, 8.0))``.

    >>> import torch, scoresde
    >>> from scoresde.guidance import classifier_free
    >>> def network(x, t, y):  # x̂_0 is 1 for class 0, -1 for class 1, and 0 for the label 2: no class
    ...     return torch.tensor([1.0, -1.0, 0.0])[y].unsqueeze(1).expand_as(x)
    >>> denoiser = scoresde.Denoiser(network, scoresde.VPSDE(), "x0")
    >>> guided = classifier_free(denoiser, 3.0, null=2)
    >>> guided.x0(torch.zeros(2, 1), 0.5, y=torch.tensor([0, 1])).flatten()
    tensor([ 3., -3.])
    >>> out = scoresde.sample(guided, (2, 1), "ddim", 5, cond={"y": torch.tensor([0, 1])})
    >>> out.nfe, out.network_evals
    (5, 10)
    """
    given = null if isinstance(null, Mapping) else {"y": null_class(denoiser) if null is None else null}
    if not given:
        raise BadInput("null = {}: name the conditions that the unconditional model is given, null={'y': label}")
    terms = (Term(denoiser, given), Term(denoiser))
    return Guided(terms, (w,), interval, rescale, "classifier-free guidance")


def compose_conditions(
    denoiser: AnyDenoiser,
    conditions: Sequence[int | Mapping[str, Any]],
    w: Sequence[float | Tensor],
    *,
    null: int | Mapping[str, Any] | None = None,
) -> Guided:
    """Several conditions at once (Liu et al. 2022, eq. 11): ε = ε_u + Σ_k w_k (ε_k - ε_u), in one call of k + 1 rows.

    A negative w_k leads away from condition k: their "not". Each condition is a label for y, or a dict of what the
    network is given, the same for all samples. ``null`` is as in `classifier_free`.

    >>> import torch, scoresde
    >>> from scoresde.guidance import compose_conditions
    >>> def network(x, t, y):
    ...     return torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])[y]
    >>> denoiser = scoresde.Denoiser(network, scoresde.VPSDE(), "x0")
    >>> compose_conditions(denoiser, [0, 1], [1.0, 2.0], null=2).x0(torch.zeros(1, 2), 0.5)
    tensor([[1., 2.]])
    """
    if not conditions or len(conditions) != len(w):
        raise BadInput(f"compose_conditions: {len(conditions)} conditions and {len(w)} weights: give one for each")
    base = null if isinstance(null, Mapping) else {"y": null_class(denoiser) if null is None else null}
    given = [each if isinstance(each, Mapping) else {"y": each} for each in conditions]
    if len({frozenset(each) for each in (base, *given)}) > 1:
        raise BadInput("compose_conditions: name the same conditions in each, and in null")
    return Guided((Term(denoiser, base), *(Term(denoiser, each) for each in given)), tuple(w), name="composition")


def autoguidance(
    denoiser: AnyDenoiser,
    weak: AnyDenoiser,
    w: float | Tensor,
    *,
    interval: tuple[float, float] | None = None,
) -> Guided:
    """Guidance by a weaker model (Karras et al. 2024, section 4): D = D_weak + w (D - D_weak).

    Both are given the run's conditions. ``weak`` is a smaller or less trained model of the same data and SDE, with
    faults of the same kind: what sets the two apart is exaggerated, and no class is needed. Two calls, one of each.
    ``interval`` is as in `classifier_free`.

    >>> import torch, scoresde
    >>> from scoresde.guidance import autoguidance
    >>> sde = scoresde.VPSDE()
    >>> good, weak = (scoresde.Denoiser(lambda x, t, k=k: 0 * x + k, sde, "x0") for k in (1.0, 0.8))
    >>> autoguidance(good, weak, 2.0).x0(torch.zeros(1, 1), 0.5)
    tensor([[1.2000]])
    """
    return Guided((Term(weak), Term(denoiser)), (w,), interval, name="autoguidance")
