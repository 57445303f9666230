"""Inpainting: some coordinates are known, the rest is drawn to fit them. Three methods, any mask, any event shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose
from scoresde.guidance.basis import Rotated, check_basis, grey_basis, rotate
from scoresde.guidance.replace import Renoised, Replaced
from scoresde.noise import START, SeededNoise
from scoresde.samplers import Result, sample
from scoresde.samplers.checks import check_denoiser, check_state
from scoresde.samplers.job import prepare
from scoresde.samplers.run import ALL_AT_ONCE


class Method(NamedTuple):
    """The sampler and number of steps that a method takes by default, and whether it acts between the steps."""

    sampler: str
    steps: int
    between: bool


INPAINTING = {
    "replacement": Method("ddpm", 100, False),
    "repaint": Method("travel", 50, True),
    "score-sde": Method("pc", 100, True),
}


def inpaint(
    denoiser: AnyDenoiser,
    known: Float[Tensor, "batch *event"],
    mask: Tensor,
    method: str = "repaint",
    sampler: str | None = None,
    steps: int | None = None,
    *,
    basis: Tensor | None = None,
    seed: int = 0,
    first: int = 0,
    cond: Mapping[str, Any] | None = None,
    **how: Any,
) -> Result:
    """Draw what a mask hides so that it fits what is known; the known coordinates come back exactly as given.

    known     (batch, *event) of any event shape, in the denoiser's scaled space. What it holds where the mask hides is
              never read. For several fillings of one image repeat it: known.expand(8, -1, -1, -1)
    mask      True or 1 where to paint, False or 0 where known is known; of the event's shape or one that broadcasts to
              it, (1, h, w) for all channels, or (batch, *event) for a mask per sample
    method    "replacement"  x̂_0 is what is known, where it is known: `Replaced`. Any sampler, adaptive ones too; by
                             default `ddpm` in 100 steps. The fastest, and the most biased
              "repaint"      what is known is drawn anew at each noise level, and levels are walked again and again:
                             `Renoised` with `travel` (Lugmayr et al. 2022). ``jump``, ``repeats``: by default 10 and 9,
                             410 calls in its 50 steps
              "score-sde"    the same, with Langevin steps at each level: `Renoised` with `pc` (Song et al. 2021,
                             appendix I.2). ``correctors``, ``snr``: by default 1 and 0.16, 199 calls in its 100 steps
    sampler   instead of the method's own: for replacement any, for the others any that is a table
    basis     an orthogonal matrix Q (c, c): the mask then speaks of u = Q x, along the event's first dimension, and
              ``known`` of the components of x that the mask leaves in u. Those come back up to rounding
    how       what else `sample` takes: nfe, grid, final, batch_size, callback, the sampler's options; seed, first and
              cond as there

    The start is one state at one noise level, α known + σ z and, where the mask hides, sqrt(α² + σ²) z. No method draws
    from the conditional law exactly: see docs/editing.md for the bias of each on a Gaussian; that of repaint and
    score-sde falls as ``repeats`` or ``correctors`` grow, that of replacement stays with any number of steps.

    Raises BadInput before the first call: a mask of another shape or one that hides nothing or all of a sample, known
    values that are not finite, a method, sampler or option that does not exist.

    >>> import torch, scoresde
    >>> data = scoresde.Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
    >>> known, mask = torch.tensor([[2.0, 0.0]]).expand(500, 2), torch.tensor([False, True])
    >>> out = inpaint(data.denoiser(scoresde.VPSDE()), known, mask)
    >>> bool((out.x[:, 0] == 2).all()), bool((out.x[:, 1].mean() - 0.9 * 2).abs() < 0.15)
    (True, True)
    """
    check_denoiser(denoiser)
    chosen = INPAINTING[choose("method", method, INPAINTING)]
    for name in ("x", "start", "shape", "hook"):
        if name in how:
            raise BadInput(f"{name}: inpainting sets it: leave it, or use sample with a hook or a Replaced denoiser")
    if not isinstance(known, Tensor) or not known.ndim or not len(known):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput("known: a tensor (batch, *event) with at least one sample")
    known = known.to(device=how.pop("device", None), dtype=how.pop("dtype", None))
    check_state(None, known.dtype)
    hidden = read_mask(mask, known)
    if basis is None:
        known = known.where(~hidden, 0.0)
        check_state(known)
    else:
        check_state(known)
        basis = check_basis(basis, known)
        known = rotate(basis, known).where(~hidden, 0.0)
        denoiser = Rotated(denoiser, basis)
        if how.get("callback"):
            how["callback"] = partial(_rotated_back, basis, how["callback"])
    given = dict(cond or {})
    if chosen.between:
        how["hook"] = Renoised(known, hidden, denoiser.sde)
    else:
        denoiser, given = Replaced(denoiser), _with_known(given, known, hidden)
    if sampler is None:
        sampler = chosen.sampler
        steps = chosen.steps if steps is None and how.get("nfe") is None and how.get("grid") is None else steps
    how |= {"seed": seed, "first": first, "cond": given}
    plan = {name: value for name, value in how.items() if name not in ALL_AT_ONCE}
    job = prepare(denoiser, known.shape, sampler, steps, dtype=known.dtype, device=known.device, **plan)
    t, noise = job.solver.times[0], how.get("noise", "cpu")
    source = SeededNoise(seed, range(first, first + len(known))) if isinstance(noise, str) else noise
    z = source(START, 1, torch.empty_like(known))  # not 0: data drawn by the same seed would be found again
    sde = denoiser.sde
    x = torch.where(hidden, sde.prior_std(t) * z, sde.perturb(known, t, z))
    result = sample(denoiser, known.shape, sampler, steps, x=x, **how)
    out = torch.where(hidden, result.x, known)
    settings = {name: value for name, value in result.settings.items() if name not in ("hook", "x")}
    return replace(
        result,
        x=out if basis is None else rotate(basis.T, out),
        settings={**settings, "inpaint": {"method": method, "basis": None if basis is None else basis.tolist()}},
    )


def colourise(denoiser: AnyDenoiser, grey: Float[Tensor, "batch 1 *rest"], channels: int = 3, **how: Any) -> Result:
    """Draw the colours of grey images (batch, 1, *rest), each the mean of its ``channels``, in scaled space.

    It is `inpaint` in the basis of the channels whose first axis is grey, `grey_basis`, with the other axes hidden
    (Song et al. 2021, appendix I.3); ``how`` is what inpaint takes: method, sampler, steps, seed, cond, ….
    The mean of the result's channels is ``grey`` up to rounding.

    >>> import torch, scoresde
    >>> d = scoresde.Gaussian(torch.zeros(3, 4, 4), torch.eye(48)).denoiser(scoresde.VPSDE())
    >>> grey = torch.rand(2, 1, 4, 4)
    >>> out = colourise(d, grey, method="replacement", steps=5)
    >>> out.x.shape, torch.allclose(out.x.mean(1, keepdim=True), grey, atol=1e-6)
    (torch.Size([2, 3, 4, 4]), True)
    """
    if not isinstance(grey, Tensor) or grey.ndim < 2 or grey.shape[1] != 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        given = tuple(grey.shape) if isinstance(grey, Tensor) else type(grey).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"grey: {given}, images of one channel are needed, (batch, 1, height, width)")
    for name in ("basis", "mask"):
        if name in how:
            raise BadInput(f"{name}: colourising sets it: leave it, or use inpaint")
    basis = grey_basis(channels, grey.dtype)
    colour = (torch.arange(channels) > 0).reshape(-1, *[1] * (grey.ndim - 2))
    return inpaint(denoiser, grey.expand(-1, channels, *grey.shape[2:]), colour, basis=basis, **how)


def read_mask(mask: Tensor, known: Float[Tensor, "batch *event"]) -> Tensor:
    """The mask for each sample, True where to paint, if it has a shape and values that make sense."""
    event, full = known.shape[1:], known.shape
    if not isinstance(mask, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"mask = {mask!r:.60}: a tensor, True where to paint")
    if mask.is_complex() or not bool(((mask == 0) | (mask == 1)).all()):
        raise BadInput("mask: True or 1 where to paint, False or 0 where the data are known, nothing between")
    try:
        hidden = mask.bool().to(known.device).expand(event if mask.ndim <= len(event) else full).expand(full)
    except RuntimeError:
        shapes = f"{tuple(event)}, one that broadcasts to it, or {tuple(full)}"
        raise BadInput(f"mask: shape {tuple(mask.shape)} does not fit the data: give {shapes}") from None
    flat = hidden.flatten(1) if event else hidden[:, None]
    for wrong, what in (
        (~flat.any(1), "nothing: there is nothing to paint"),
        (flat.all(1), "all: use sample"),
    ):
        if bool(wrong.any()):
            raise BadInput(f"mask: that of sample {int(wrong.nonzero()[0])} hides {what}")
    return hidden


def _with_known(cond: dict[str, Any], known: Tensor, hidden: Tensor) -> dict[str, Any]:
    for name in ("known", "hidden"):
        if name in cond:
            raise BadInput(f"cond: {name!r} is what replacement is told by: choose another method")
    return {**cond, "known": known, "hidden": hidden}


def _rotated_back(basis: Tensor, callback: Any, i: int, t: float, t_next: float, x: Tensor, x0: Tensor, n: int) -> None:
    callback(i, t, t_next, rotate(basis.T, x), rotate(basis.T, x0), n)
