"""The outputs that guidance combines: a denoiser under several conditions in one call, or several denoisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser, Denoiser, layers
from scoresde.errors import BadInput
from scoresde.guidance.weights import Weight

Values = Callable[[int, Tensor], tuple[list[Tensor], Tensor | None]]  # (call, x) -> outputs of all terms, variance


class Term(NamedTuple):
    """A denoiser, and the conditions it is given in place of the run's own of these names."""

    denoiser: AnyDenoiser
    given: Mapping[str, Any] = MappingProxyType({})

    def cond(self, cond: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
        """Its conditions for a batch like x."""
        return {**cond, **{key: _rows(key, value, cond.get(key), x) for key, value in self.given.items()}}


def active(terms: Sequence[Term], ws: Sequence[Weight], within: bool = False) -> tuple[list[Term], list[Weight]]:
    """The terms that count, the base first, and the weights of the others; one term alone if that is the result.

    A term of weight 0 counts where the weights hold ``within`` an interval: outside it is the one.
    """
    kept = [(term, w) for term, w in zip(terms[1:], ws, strict=True) if isinstance(w, Tensor) or w != 0 or within]
    alone = len(kept) == 1 and not isinstance(kept[0][1], Tensor) and kept[0][1] == 1
    return [*([] if alone else terms[:1]), *(term for term, _ in kept)], [w for _, w in kept]


def shared(terms: Sequence[Term]) -> AnyDenoiser | None:
    """The denoiser, if it is the same in all terms."""
    return terms[0].denoiser if all(term.denoiser is terms[0].denoiser for term in terms) else None


def together(
    terms: Sequence[Term], form: str, times: Sequence[float], x: Tensor, cond: dict[str, Any]
) -> tuple[Values, Values | None]:
    """The forms of all terms at ``times``: without, and with the variance that term 1 has learned."""
    k = len(terms)
    if denoiser := shared(terms):
        plan = denoiser.plan(form, times, torch.cat([x] * k), **stacked(terms, cond, x))

        def spread(i: int, x: Tensor) -> tuple[list[Tensor], Tensor | None]:
            assert plan.learned
            x = torch.cat([x] * k)
            out, v = plan.learned(i, x)
            return list(torch.add(plan.skip[i] * x, out, alpha=plan.scale[i]).chunk(k)), v.chunk(k)[1]

        return lambda i, x: (list(plan(i, torch.cat([x] * k)).chunk(k)), None), spread if plan.learned else None
    plans = [term.denoiser.plan(form, times, x, **term.cond(cond, x)) for term in terms]
    first = plans[1]

    def spreads(i: int, x: Tensor) -> tuple[list[Tensor], Tensor | None]:
        assert first.learned
        out, v = first.learned(i, x)
        own = torch.add(first.skip[i] * x, out, alpha=first.scale[i])
        return [plans[0](i, x), own, *(plan(i, x) for plan in plans[2:])], v

    return lambda i, x: ([plan(i, x) for plan in plans], None), spreads if first.learned else None


def stacked(terms: Sequence[Term], cond: Mapping[str, Any], x: Tensor) -> dict[str, Any]:
    """The conditions of all terms for one batch: those with a row for each sample repeated, others untouched."""
    own = {key for term in terms for key in term.given}
    each = [{**cond, **term.given} for term in terms]
    stacked: dict[str, Any] = {}
    for key in {**cond, **dict.fromkeys(sorted(own))}:
        value = cond.get(key)
        if key in own:
            stacked[key] = torch.cat([_rows(key, given[key], value, x) for given in each])
        else:
            rows = isinstance(value, Tensor) and value.ndim and len(value) == len(x)
            stacked[key] = torch.cat([cast(Tensor, value)] * len(terms)) if rows else value
    return stacked


def _rows(name: str, value: Any, beside: Any, x: Tensor) -> Tensor:
    """A condition with a row for each sample of x, like the run's own where there is one."""
    dtype = beside.dtype if isinstance(beside, Tensor) else None
    try:
        rows = torch.as_tensor(value, dtype=dtype, device=x.device)
        event = beside.shape[1:] if isinstance(beside, Tensor) and beside.ndim else rows.shape[1:]
        return rows.expand(len(x), *event)
    except (TypeError, ValueError, RuntimeError):
        shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f" = {value!r:.60}"
        raise BadInput(
            f"condition {name}{shape}: in a guided batch of {len(x)} samples a number, or a tensor with a row for each"
        ) from None


def classes_of(denoiser: AnyDenoiser) -> int | None:
    """How many classes the network of a denoiser, wrapped or not, says that it knows."""
    network = next((layer.network for layer in layers(denoiser) if isinstance(layer, Denoiser)), None)
    classes = getattr(network, "classes", None)
    return classes if isinstance(classes, int) else None


def null_class(denoiser: AnyDenoiser) -> int:
    """The label that means no class: of the networks of `scoresde.nn`, their number of classes.

    >>> import scoresde
    >>> null_class(scoresde.load_model("fashion-mnist").denoiser)
    10
    """
    classes = classes_of(denoiser)
    if classes is None:
        raise BadInput("guidance: the network does not say which label means no class: give null={'y': label}")
    if classes < 1:
        raise BadInput("guidance: the network has no classes: train one with labels, or guide it by a classifier")
    return classes
