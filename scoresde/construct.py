"""A value by its name in a registry and its options, as configs spell them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from scoresde.errors import BadInput, choose, nearest

T = TypeVar("T")


def construct(what: str, registry: Mapping[str, Callable[..., T]], spec: Mapping[str, Any], *args: Any) -> T:
    """Build ``registry[spec["name"]](*args, **rest of spec)``; unknown names and options teach the known ones."""
    options = dict(spec)
    name = str(options.pop("name", ""))
    build = registry[choose(what, name, registry)]
    taken = inspect.signature(build).parameters
    known = list(taken)[len(args) :]
    for key in options:
        if key not in known:
            raise BadInput(
                f"unknown option {key!r} of {what} {name!r}: choose from {', '.join(known)}{nearest(key, known)}"
            )
    try:
        return build(*args, **options)
    except BadInput:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # a value that makes no sense to it
        unlike = [key for key, value in options.items() if _unlike(value, taken[key].default)]
        given = [f"{key} = {options[key]!r}" for key in unlike] if isinstance(error, TypeError) else []
        raise BadInput(f"{': '.join([f'{what} {name!r}', *given])}: {str(error).splitlines()[0]}") from None


def _unlike(value: Any, default: Any) -> bool:
    """Whether a value is a number and its default is none, or the other way round."""
    plain = default is not None and default is not inspect.Parameter.empty
    return plain and isinstance(value, int | float) != isinstance(default, int | float)
