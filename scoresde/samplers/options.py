"""The options of a builder, read off its signature: their names, defaults and types, and the errors about them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any

from scoresde.errors import BadInput, nearest

RULES = {"bool": "True or False", "int": "an integer", "float": "a number", "str": "a name", "function": "a function"}


def options_of(build: Callable[..., Any]) -> dict[str, Any]:
    """The options of a builder and their defaults, but for those that a partial has set."""
    given = build.keywords if isinstance(build, partial) else {}
    parameters = inspect.signature(build).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given}


def option_kinds(build: Callable[..., Any]) -> dict[str, tuple[str, ...]]:
    """The types that each option may have, keys of `RULES`: those its annotation names.

    An alias in an annotation stands for the type of the default and for a function.

    >>> from scoresde.samplers.multistep import ddim, eab2
    >>> option_kinds(ddim), option_kinds(eab2)["tau"]
    ({'eta': ('float',)}, ('float', 'function'))
    """
    kinds: dict[str, tuple[str, ...]] = {}
    for p in inspect.signature(build).parameters.values():
        if p.kind is p.KEYWORD_ONLY:
            named = set(re.findall(r"\w+", inspect.formatannotation(p.annotation))) - {"None"}
            if named - RULES.keys():
                named |= {"function"} if named & RULES.keys() else {"function", type(p.default).__name__}
            kinds[p.name] = tuple(kind for kind in RULES if kind in named)
    return kinds


def no_option(what: str, name: str, known: Iterable[str]) -> BadInput:
    """The error for an option that there is not."""
    names = list(known)
    allowed = f"choose from {', '.join(names)}" if names else "it has none"
    return BadInput(f"{what} has no option {name!r}: {allowed}{nearest(name, names)}")


def check_kinds(build: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse an option of a builder whose value is not of its type; None stands for an option that is not given."""
    kinds, defaults = option_kinds(build), options_of(build)
    for name, value in options.items():
        if name in kinds and not (value is None and defaults.get(name) is None) and not _is_one(value, kinds[name]):
            raise BadInput(f"{name} = {value!r:.60}: {name} must be {' or '.join(RULES[kind] for kind in kinds[name])}")


def _is_one(value: Any, kinds: Iterable[str]) -> bool:
    truth = isinstance(value, bool)
    tests = {
        "bool": truth,
        "int": isinstance(value, Integral) and not truth,
        "float": isinstance(value, Real) and not truth,
        "str": isinstance(value, str),
        "function": callable(value),
    }
    return any(tests[kind] for kind in kinds)
