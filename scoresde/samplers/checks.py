"""What a request to `sample` is refused for before its sampler is known: states, gradients, starts, bare networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoresde.analytic_start import Start
from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose, integer
from scoresde.noise import Noise
from scoresde.samplers.registry import SAMPLERS, Sampler
from scoresde.samplers.solver import Hook, Solver
from scoresde.sde import SDE

SHARE = 0.1  # of data in the variance of a state (of unit variance) that may pass for noise


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


def check_shape(shape: Any) -> tuple[int, ...]:
    """The sizes of a run as ints; refuse what is no shape."""
    sizes = tuple(shape) if hasattr(shape, "__iter__") else (shape,)
    rule = "the number of samples and the event's sizes, integers of at least 1"
    if not sizes:
        raise BadInput(f"shape = {shape!r:.60}: {rule}")
    return tuple(integer(f"shape = {shape!r:.60}: size", size, 1, rule) for size in sizes)


def check_state(x: Tensor | None, dtype: torch.dtype | None = None) -> None:
    """Refuse a state that is no finite tensor of float32 or float64."""
    if x is not None and not isinstance(x, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"x = {x!r:.60}: a state is a tensor")
    for name, given in {"dtype": dtype, "x.dtype": None if x is None else x.dtype}.items():
        if given not in (None, torch.float32, torch.float64):
            raise BadInput(f"{name} = {given}: states are float32 or float64 (a half network takes Denoiser(dtype=))")
    if x is not None and not bool(torch.isfinite(x).all()):
        raise BadInput("x: the state to start from has values that are not finite")


def check_device(device: torch.device | str) -> torch.device:
    """Refuse a device that torch does not know, or that is not there."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise BadInput(f"device = {str(device)!r}: {str(error).splitlines()[0][:90]}") from None
    found = torch.device(device)
    if found.type == "meta":
        raise BadInput("device = 'meta': it holds no numbers, choose another")
    return found


def check_first(sde: SDE, t: float) -> None:
    """Refuse to start from noise at a time at which much of a state is data."""
    at = sde.knots([t])
    alpha, sigma = float(at.alpha[0]), float(at.sigma[0])
    share = alpha**2 / (alpha**2 + sigma**2)
    if t < sde.t_max and share > SHARE:
        raise BadInput(
            f"grid: it starts at t = {t:g}, where {share:.0%} of the variance is of the data: give the state there by"
            f" x, or start nearer to t_max = {sde.t_max:g}"
        )


def checked(noise: Noise) -> Noise:
    """A noise of one's own, refused where it gives no tensor like the state."""

    def draw(step: int, draw: int, x: Tensor) -> Tensor:
        z: Any = noise(step, draw, x)
        if not isinstance(z, Tensor) or (z.shape, z.dtype, z.device) != (x.shape, x.dtype, x.device):
            found = f"{z.dtype} of shape {tuple(z.shape)} on {z.device}" if isinstance(z, Tensor) else f"{z!r:.40}"
            raise BadInput(f"noise gave {found} at step {step}: give one like x, {x.dtype} of shape {tuple(x.shape)}")
        return z

    return draw


def check_grad(grad: bool | str) -> None:
    """Refuse what is neither a truth value nor "checkpoint", and gradients where torch records none."""
    if not isinstance(grad, bool):
        choose("grad", str(grad), ("checkpoint",))
    if grad and torch.is_inference_mode_enabled():
        raise BadInput(f"grad = {grad!r} inside torch.inference_mode(), which records no gradient: leave it first")


def check_hook(hook: Hook | None, sampler: Sampler, solver: Solver) -> None:
    """Refuse what is no hook, and one between the steps of a solver that is no table."""
    if hook is None:
        return
    if not callable(hook):
        raise BadInput(f"hook = {hook!r:.60}: a function of (t, x, noise) that returns the state")
    if not solver.takes_hook:
        able = [name for name, other in SAMPLERS.items() if other.build and not other.adaptive]
        raise BadInput(f"hook: {sampler.name!r} lets nothing act between its steps: choose from {', '.join(able)}")


def check_index(first: Any) -> int:
    """Refuse what is no index of a sample."""
    return integer("first", first, 0, "the index of a sample is an integer from 0")


def check_denoiser(denoiser: Any) -> None:
    """Refuse a bare network with a hint."""
    if not isinstance(denoiser, AnyDenoiser):
        raise TypeError(
            f"a denoiser is needed, got {type(denoiser).__name__}:"
            " wrap the network, scoresde.Denoiser(network, sde, prediction)"
        )
