"""What a request to `sample` is refused for before its sampler is known: states, gradients, starts, bare networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoresde.analytic_start import Start
from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose


def is_list(grid: Any) -> bool:
    """Whether a grid is given as times, neither by name nor as a function."""
    if grid is None or isinstance(grid, str) or callable(grid):
        return False
    if not hasattr(grid, "__iter__"):
        raise BadInput(f"grid = {grid!r:.60}: a name, falling times in a list, or a function")
    return True


def check_start(start: Any) -> None:
    """Refuse what is no start: neither the first time nor the first state goes by this name."""
    if start is not None and not isinstance(start, Start):
        raise BadInput(
            f"start = {start!r:.60}: an AnalyticStart; a list of times is grid=[...], a state to start from is x="
        )


def check_state(x: Tensor | None, dtype: torch.dtype | None = None) -> None:
    """Refuse a state that is no finite tensor of float32 or float64."""
    if x is not None and not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"x = {x!r:.60}: a state is a tensor")
    for name, given in {"dtype": dtype, "x.dtype": None if x is None else x.dtype}.items():
        if given not in (None, torch.float32, torch.float64):
            raise BadInput(f"{name} = {given}: states are float32 or float64 (a half network takes Denoiser(dtype=))")
    if x is not None and not bool(torch.isfinite(x).all()):
        raise BadInput("x: the state to start from has values that are not finite")


def check_grad(grad: bool | str) -> None:
    """Refuse what is neither a truth value nor "checkpoint", and gradients where torch records none."""
    if not isinstance(grad, bool):
        choose("grad", str(grad), ("checkpoint",))
    if grad and torch.is_inference_mode_enabled():
        raise BadInput(f"grad = {grad!r} inside torch.inference_mode(), which records no gradient: leave it first")


def check_denoiser(denoiser: Any) -> None:
    """Refuse a bare network with a hint."""
    if not isinstance(denoiser, AnyDenoiser):
        raise TypeError(
            f"sample needs a denoiser, got {type(denoiser).__name__}:"
            " wrap the network, scoresde.Denoiser(network, sde, prediction)"
        )
