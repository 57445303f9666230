"""What commands share: types of parameters that teach, and the options that say which run is meant."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scoresde.errors import BadInput, choose

if TYPE_CHECKING:
    from scoresde.analytic_start import AnalyticStart
    from scoresde.grids import Times
    from scoresde.sde import SDE

F = TypeVar("F", bound=Callable[..., Any])


def _flag(param: click.Parameter | None) -> str:
    return param.opts[0].lstrip("-") if param else "value"


class Whole(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] (not generic before click 8.4)
    """An integer of at least ``least``; read from the text, so that 2.5 and -1 get the same plain answer."""

    name = "integer"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        rule = "a positive integer" if self.least == 1 else f"an integer of at least {self.least}"
        try:
            number = int(value)
        except ValueError:
            number = self.least - 1
        if number >= 2**63:
            rule += " below 2^63"
        elif number >= self.least:
            return number
        raise BadInput(f"--{_flag(param)} {value}: {_flag(param)} must be {rule}")


class Number(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] (not generic before click 8.4)
    """A finite number."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return number
        raise BadInput(f"--{_flag(param)} {value}: {_flag(param)} must be a number")


class OneOf(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] (not generic before click 8.4)
    """One of a few names; another one is answered with all of them and the nearest."""

    name = "name"

    def __init__(self, *names: str) -> None:
        self.names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return choose(f"--{_flag(param)}", value, self.names)


class Numbers(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] (not generic before click 8.4)
    """Numbers separated by commas or spaces, in the text or in a file named by @FILE."""

    name = "list"

    def __init__(self, count: int | None = None) -> None:
        self.count = count

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if not isinstance(value, str):
            return tuple(value)
        text = self._read(value, param)
        try:
            numbers = tuple(float(word) for word in text.replace(",", " ").split())
        except ValueError as error:
            raise BadInput(f"--{_flag(param)}: {str(error).partition(': ')[2]} is not a number") from None
        if self.count not in (None, len(numbers)):
            raise BadInput(f"--{_flag(param)} {value}: {self.count} numbers are needed, separated by a comma")
        return numbers

    def _read(self, value: str, param: click.Parameter | None) -> str:
        if not value.startswith("@"):
            return value
        try:
            return Path(value[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise BadInput(f"--{_flag(param)} {value}: cannot read {value[1:]!r}: {reason}") from None


class Names(click.ParamType):  # pyright: ignore[reportMissingTypeArgument] (not generic before click 8.4)
    """Words separated by commas or spaces."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else tuple(value)


class Wholes(Names):
    """Positive integers separated by commas or spaces."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        return tuple(Whole().convert(word, param, ctx) for word in super().convert(value, param, ctx))


_GRIDS = ("times", "sigmas", "logsnr")


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several decorators as one, the first on top."""

    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def run_options(command: F) -> F:
    """The options that choose the run of a sampler: its intervals and their grid. Its own: `cli/options.py`."""
    return together(
        click.option("--steps", type=Whole(), metavar="N", help="Intervals of the grid (default: the sampler's)."),
        click.option("--nfe", type=Whole(), metavar="N", help="Instead of --steps: a budget of network calls."),
        click.option(
            "--grid",
            metavar="NAME",
            help="t, lambda, phi, karras, karras:5, ... (default: the sampler's); on a DDPM chain also its own steps,"
            " ddim50 or respaced:10,15,20, without --steps.",
        ),
        click.option("--final", metavar="NAME", help="How a run ends: zero, t_min or denoise."),
        click.option("--times", type=Numbers(), metavar="LIST", help="A grid of your own, used as it is: 1,0.5,0.1,0."),
        click.option("--sigmas", type=Numbers(), metavar="LIST", help="The same as noise levels σ/α: 80,6,0.3,0."),
        click.option("--logsnr", type=Numbers(), metavar="LIST", help="The same as log α²/σ² = 2λ: -9,0,9,inf."),
        click.option(
            "--start",
            type=Number(),
            metavar="SHIFT",
            help="First call at λ(t_max) + SHIFT, up to there by the data's mean and variance: 2 to 3 for few calls.",
        ),
    )(command)


def read_run(sde: SDE, given: dict[str, Any], start: Callable[[float], AnalyticStart]) -> dict[str, Any]:
    """What `run_options` collected, as the arguments steps, nfe, grid, final and start of `scoresde.sample`."""
    lists = [name for name in ("grid", *_GRIDS) if given[name] is not None]
    if len(lists) > 1:
        raise BadInput(f"{' and '.join(f'--{name}' for name in lists)}: give one grid")
    grid = given["grid"]
    if lists and lists[0] != "grid":
        grid = _times(sde, lists[0], given[lists[0]])
        if (last := grid[-1] or grid[-2]) < sde.t_min * (1 - 1e-6):
            raise BadInput(
                f"--{lists[0]}: its t = {last:g} is below t_min = {sde.t_min:g}, where the network was not trained: end"
                " there, or with a jump to 0"
            )
    shift = given["start"]
    return {
        "steps": given["steps"],
        "nfe": given["nfe"],
        "grid": grid,
        "final": given["final"],
        "start": None if shift is None else start(shift),
    }


def _times(sde: SDE, kind: str, values: Sequence[float]) -> Times:
    from scoresde.grids import check_times, from_lambdas, from_sigmas

    if kind == "times":
        return check_times(values, sde)
    if kind == "sigmas":
        return from_sigmas(sde, values)
    for low, high in pairwise(values):  # told of the numbers as typed: λ is half of them
        if high <= low:
            raise BadInput(f"--logsnr: log α²/σ² must be strictly increasing, {high:g} follows {low:g}")
    return from_lambdas(sde, [value / 2 for value in values])


def find_device(name: str) -> str:
    """cpu or cuda; auto is cuda where there is one."""
    import torch

    if name == "cpu":
        return name
    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise BadInput("--device cuda: torch sees no CUDA device here: use --device cpu")
    return "cpu"


device_option = click.option(
    "--device", type=OneOf("auto", "cpu", "cuda"), default="auto", metavar="NAME", help="auto (default), cpu or cuda."
)
weights_option = click.option(
    "--weights",
    default="ema",
    metavar="NAME",
    help="ema (default): averaged over training; raw: the last; or another average in the file, as power:0.1.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
