"""Grids by name: `make_grid`, the one entry, and what its names mean."""

from __future__ import annotations

import inspect
import re
from functools import partial

import numpy as np

from scoresde.errors import BadInput, choose, nearest, positive
from scoresde.grids.chains import respaced_times
from scoresde.grids.indices import leading_index, linspace_index, trailing_index, whole_indices
from scoresde.grids.spacings import (
    Spacing,
    beta,
    karras,
    logit_normal,
    polyexponential,
    quadratic_t,
    shifted_flow,
    to_data,
    uniform_lambda,
    uniform_phi,
    uniform_t,
)
from scoresde.grids.times import Numbers, Times, as_floats, check_times, show
from scoresde.sde import SDE

FINALS = ("zero", "t_min", "denoise")

GRIDS: dict[str, Spacing] = {
    "t": uniform_t,
    "t2": quadratic_t,
    "lambda": uniform_lambda,
    "phi": uniform_phi,
    "karras": karras,
    "polyexponential": polyexponential,
    "shift": shifted_flow,
    "logitnormal": logit_normal,
    "beta": beta,
    "index": trailing_index,
    "linspace": linspace_index,
    "leading": leading_index,
}
# The words of other toolkits. Those marked agree to within one index, where theirs rounds down or counts from N - 1.
ALIASES = {
    "time_uniform": "t",  # DPM-Solver
    "time_quadratic": "t2",
    "quad": "t2",  # DDIM's paper; its code begins at 0.8 N
    "logsnr": "lambda",
    "exponential": "lambda",  # k-diffusion and those that build on it
    "kl_optimal": "phi",  # ComfyUI, A1111
    "trailing": "index",  # diffusers
    "simple": "index",  # ComfyUI, A1111 (*)
    "sgm_uniform": "index",  # (*)
    "normal": "linspace",  # (*)
    "ddim_uniform": "leading:1",
}


def option_of(spacing: Spacing) -> tuple[str, float] | None:
    """The option that a grid's name may carry after a colon, with its default: ("rho", 7.0) for karras."""
    options = [p for p in inspect.signature(spacing).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return (options[0].name, options[0].default) if options else None


def find_grid(name: str) -> Spacing:
    """The spacing of a name or alias, with the number it may carry: "karras", "karras:5", "exponential".

    With "@index" its times are moved to the nearest whole indices of a chain: "lambda@index".

    >>> import scoresde
    >>> make_grid(find_grid("karras:5"), scoresde.EDM(), 10) == make_grid("karras:5", scoresde.EDM(), 10)
    True
    """
    name, whole, index = name.partition("@")
    if whole:
        if index != "index":
            raise BadInput(f"grid {name}@{index}: after @ comes index, as in 'lambda@index'")
        return partial(whole_indices, find_grid(name))
    word, colon, number = name.partition(":")
    known, _, fixed = ALIASES.get(word.lower(), word).partition(":")
    if known not in GRIDS:
        hint = nearest(word, [*GRIDS, *ALIASES, "respaced"])
        chain = "on a DDPM chain also respaced:10,15,20 or ddim50"
        raise BadInput(f"unknown grid {word!r}: choose from {', '.join(GRIDS)}; {chain}{hint}")
    spacing, option = GRIDS[known], option_of(GRIDS[known])
    if not colon and not fixed:
        return spacing
    if option is None:
        able = ", ".join(other for other in GRIDS if option_of(GRIDS[other]))
        raise BadInput(f"grid {name!r}: {known!r} takes no number; these do: {able}")
    kind = type(option[1])
    try:
        return partial(spacing, **{option[0]: kind(number if colon else fixed)})
    except ValueError:
        what = "an integer" if kind is int else "a number"
        raise BadInput(
            f"grid {name!r}: after the colon comes its {option[0]}, {what}, as in '{known}:{option[1]:g}'"
        ) from None


def respacing(grid: object) -> str | None:
    """What a grid's name says of the steps of a chain: "10,15,20" in "respaced:10,15,20"; "ddim50" is itself.

    >>> respacing("ddim50"), respacing("respaced:10,15,20"), respacing("ddim_uniform")
    ('ddim50', '10,15,20', None)
    """
    if not isinstance(grid, str):
        return None
    word, colon, spec = grid.partition(":")
    if word == "respaced":
        return spec if colon else ""
    return grid if re.fullmatch(r"ddim\d+", grid) else None


def _respaced(grid: str, spec: str, sde: SDE, n: int | None, final: str, start: float | None) -> Times:
    """The times of `scoresde.respaced_times`, which leave nothing else to choose."""
    if not sde.by_index:
        raise BadInput(f"grid {grid!r} keeps steps of a DDPM chain, {type(sde).__name__} is none: use 'index'")
    times = respaced_times(sde, spec)
    if n not in (None, len(times) - 1):
        raise BadInput(f"grid {grid!r} has {len(times) - 1} steps, not {n}: leave their number to it")
    if final != "zero" or start is not None:
        given = "an analytic start" if start is not None else f"final = {final!r}"
        raise BadInput(f"grid {grid!r} and {given}: a respaced chain has its own first step and ends at the data, zero")
    return times


def make_grid(
    grid: str | Spacing | Numbers, sde: SDE, n: int | None, final: str = "t_min", start: float | None = None
) -> Times:
    """The n intervals of a named grid, or a given list, array or tensor of times, checked and used verbatim.

    A name may carry a number, "karras:5"; a function of your own, (sde, first, n, to_zero) -> n + 1 times, may stand
    for it. ``start`` is a first time below t_max. On a DDPM chain "respaced:10,15,20" and "ddim50" are the steps of
    `scoresde.respace`, whose number is theirs.

    >>> import scoresde
    >>> make_grid("t", scoresde.VPSDE(), 4, "zero")
    (1.0, 0.75, 0.5, 0.25, 0.0)
    >>> make_grid("t", scoresde.VPSDE(), 2, "zero", start=0.5)
    (0.5, 0.25, 0.0)
    """
    choose("final", final, FINALS)
    if not isinstance(grid, str) and not callable(grid):
        if start is not None:
            raise BadInput(f"start = {start}: a list of times is used verbatim, from its own first time")
        return check_times(grid, sde)
    if isinstance(grid, str) and (spec := respacing(grid)) is not None:
        return _respaced(grid, spec, sde, n, final, start)
    spacing = find_grid(grid) if isinstance(grid, str) else _own(grid)
    if n is None:
        raise BadInput(f"grid {_name(grid)} needs a number of steps")
    positive("steps", n)
    first = sde.t_max if start is None else start
    if not sde.t_min < first <= sde.t_max:
        raise BadInput(f"start = {first!r}: a grid starts above t_min = {sde.t_min} and at most at t_max = {sde.t_max}")
    with np.errstate(all="ignore"):
        times = _above_t_min(spacing, sde, first, n) if final == "zero" else spacing(sde, first, n, False)
    if len(times) != n + 1 or (times[-1] == 0) != (final == "zero"):
        end = "0" if final == "zero" else "t_min"
        raise BadInput(f"grid {_name(grid)}: {n} steps are {n + 1} times that end at {end}, it made {show(times)}")
    return check_times([*times, 0.0] if final == "denoise" else times, sde)


def _above_t_min(spacing: Spacing, sde: SDE, first: float, n: int) -> np.ndarray:
    """A grid to 0 whose network calls are all at t_min or above: so fine a grid goes to t_min and jumps from there."""
    times = spacing(sde, first, n, True)
    if len(times) == n + 1 > 2 and times[-2] < sde.t_min * (1 + 1e-9):
        if times[-2] < sde.t_min * (1 - 1e-9):
            times = to_data(lambda m: spacing(sde, first, m, False), n, True)
        times[-2] = sde.t_min
    return times


def _own(grid: Spacing) -> Spacing:
    """A function of the caller's, which may return any list of numbers."""
    return lambda *how: np.array(as_floats(f"grid {_name(grid)}: its times", grid(*how)))


def _name(grid: str | Spacing) -> str:
    return repr(grid if isinstance(grid, str) else getattr(grid, "__name__", grid))
