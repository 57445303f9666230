"""Where to evaluate: n intervals are n + 1 strictly decreasing times, float64, from t_max to a named end.

``final`` names the end, the same word for every sampler:
    "zero"     the last interval jumps from the grid's last knot straight to the data, x = x̂_0
    "t_min"    the last interval lands on t_min
    "denoise"  as "t_min", and one more interval from t_min to the data (n + 1 intervals in all)
A grid is a name of `GRIDS`, with a number where it takes one ("karras:5"), a word of another toolkit (`ALIASES`), the
steps of a respaced DDPM chain ("ddim50", "respaced:10,15,20"), a function of your own, or the times themselves.
"""

from scoresde.grids.chains import respace, respaced_times
from scoresde.grids.levels import from_lambdas, from_sigmas, loglinear
from scoresde.grids.make import (
    ALIASES,
    FINALS,
    GRIDS,
    find_grid,
    make_grid,
    option_of,
    respacing,
)
from scoresde.grids.spacings import Spacing
from scoresde.grids.times import Numbers, Times, check_times

__all__ = [
    "ALIASES",
    "FINALS",
    "GRIDS",
    "Numbers",
    "Spacing",
    "Times",
    "check_times",
    "find_grid",
    "from_lambdas",
    "from_sigmas",
    "loglinear",
    "make_grid",
    "option_of",
    "respace",
    "respaced_times",
    "respacing",
]
