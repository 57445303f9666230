"""Errors that teach: one line that names the value, what is allowed, and the nearest match.

Each class carries the exit code of the command line: 2 bad input, 3 a solver could not finish,
4 training stopped itself, 5 output could not be written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from math import inf
from operator import index
from typing import SupportsIndex


class BadInput(ValueError):
    """The caller asked for something that does not exist or cannot be combined."""

    exit_code = 2


class SolverFailure(RuntimeError):
    """A solver could not finish: step underflow, too many calls, or a network that returned NaN."""

    exit_code = 3


class TrainingStopped(RuntimeError):
    """Training stopped itself; the last good checkpoint is intact."""

    exit_code = 4


class OutputError(OSError):
    """A result could not be written; nothing half-written was left behind."""

    exit_code = 5


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The closest allowed name as a phrase to end an error with, or nothing.

    >>> nearest("dimm", ["ddim", "ode"])
    "; did you mean 'ddim'?"
    """
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return ""
    match = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def positive(name: str, value: object) -> int:
    """Return ``value`` if it is an integer of at least 1, else raise `BadInput`."""
    return integer(name, value, 1, f"{name} must be a positive integer")


def integer(name: str, value: object, least: int, rule: str, most: float = inf) -> int:
    """Return ``value`` as an int if it is a whole number, of whatever library, in this range; else raise `BadInput`.

    >>> import numpy as np
    >>> integer("first", np.int64(3), 0, "an integer from 0")
    3
    """
    try:  # a tensor or an array has the method, and refuses to be an index where it holds no whole number
        whole = None if isinstance(value, bool) or not isinstance(value, SupportsIndex) else index(value)
    except TypeError:
        whole = None
    if whole is None or not least <= whole <= most:
        raise BadInput(f"{name} = {value!r:.60}: {rule}")
    return whole


def choose(what: str, name: str, allowed: Iterable[str]) -> str:
    """Return ``name`` if it is allowed, else raise `BadInput` listing the allowed names."""
    names = list(allowed)
    if name not in names:
        raise BadInput(f"unknown {what} {name!r}: choose from {', '.join(names)}{nearest(name, names)}")
    return name
