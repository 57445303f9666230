"""The run-time checker of annotations in the tests: beartype with jaxtyping's shapes, ints welcome where floats are.

`checked` does what jaxtyping's own decorator does, whose binding of every call's arguments took most of the time of the
tests: functions and methods are made ready at their first call, and those made inside a call are left alone. In each
test it looks at a function's first calls alone.
"""

from collections.abc import Callable
from functools import wraps
from inspect import isclass
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
CONTEXT = jaxtyping.jaxtyped("context")  # in which the names of axes keep their sizes
CALLS = 50
now = 0  # the number of the test


def new_test() -> None:
    """Look at first calls again."""
    global now
    now += 1


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
    ready: Callable[..., Any] | None = None
    test, left = now, CALLS

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal ready, test, left
        if test != now:
            test, left = now, CALLS
        if not left or jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        left -= 1
        ready = ready or _ready(fn)
        with CONTEXT:
            return ready(*args, **kwargs)

    return call


def _ready(fn: FunctionType) -> Callable[..., Any]:
    """A copy of the function with its annotations evaluated, checked by beartype."""
    copy = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = fn.__kwdefaults__, fn.__qualname__, fn.__module__
    copy.__annotations__ = {name: _evaluated(hint, fn.__globals__) for name, hint in fn.__annotations__.items()}
    return CHECK(copy)


def _evaluated(hint: Any, names: dict[str, Any]) -> Any:
    """An annotation's value; what is imported for type checkers alone may be anything."""
    try:
        return eval(hint, names) if isinstance(hint, str) else hint
    except NameError:
        return Any
