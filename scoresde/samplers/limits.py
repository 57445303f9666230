"""What adaptive solvers share: the options that bound a run, and how a run says that it cannot go on."""

from __future__ import annotations

from scoresde.errors import BadInput, SolverFailure, choose, positive

LIMITS = ("raise", "return")


class Stuck(SolverFailure):
    """An adaptive run ended by its number of calls or the size of its step: what ``on_limit`` is about."""


def check_limits(rtol: float, atol: float, max_nfe: int, on_limit: str) -> None:
    """Refuse what no adaptive solver can use."""
    for name, value in {"rtol": rtol, "atol": atol}.items():
        if not 0 < value < 1:
            raise BadInput(f"{name} = {value!r} must be in (0, 1)")
    positive("max_nfe", max_nfe)
    choose("on_limit", on_limit, LIMITS)


def stuck(why: str, t: float, dt: float, rtol: float) -> Stuck:
    """How an adaptive solver says that it cannot go on with the step dt from t, and what would help."""
    return Stuck(
        f"{why} (t={t:.4g}, dt={dt:.3g}, rtol = {rtol:g}): loosen the tolerances rtol and atol, or, where they can be"
        " chosen, use float64 or a larger max_nfe"
    )
