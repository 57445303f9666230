"""The run-time checker of annotations in the tests: beartype with jaxtyping's shapes, ints welcome where floats are.

`checked` does what jaxtyping's own decorator does, whose binding of every call's arguments took most of the time of the
tests: functions and methods are made ready at their first call, and those made inside a call are left alone.
"""

from collections.abc import Callable
from functools import wraps
from inspect import isclass
from types import FunctionType
from typing import Any, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
CONTEXT = jaxtyping.jaxtyped("context")  # in which the names of axes keep their sizes


def checked(fn: Any = None, *, typechecker: object = None) -> Any:
    """A function, or the constructor of a dataclass, whose calls are checked."""
    if fn is None:
        return checked
    if isclass(fn):
        if "__dataclass_fields__" in vars(fn) and "__init__" in vars(fn):
            fn.__init__ = checked(fn.__init__)
        return fn
    if not isinstance(fn, FunctionType) or "<locals>" in fn.__qualname__ or hasattr(fn, "__wrapped__"):
        return fn
    ready: list[Callable[..., Any]] = []

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        if not ready:
            ready.append(_ready(fn))
        with CONTEXT:
            return ready[0](*args, **kwargs)

    return call


def _ready(fn: FunctionType) -> Callable[..., Any]:
    """A copy of the function with its annotations evaluated, checked by beartype."""
    copy = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = fn.__kwdefaults__, fn.__qualname__, fn.__module__
    copy.__annotations__ = get_type_hints(fn, include_extras=True)
    return CHECK(copy)
