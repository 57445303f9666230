"""The command line. A command's module, and with it torch, is imported only when that command is used."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

import click

from scoresde import __version__

COMMANDS = {
    "sample": "Draw samples: a picture, the numbers, and how to draw them again.",
    "edit": "An image with noise up to a strength, and back by the model: image-to-image, variations.",
    "inpaint": "What a mask hides in an image, drawn so that it fits the rest.",
    "interpolate": "The way from one image to another through the noise that they come from.",
    "encode": "From samples to the noise that they come from.",
    "likelihood": "How probable a model holds given data to be, in nats and bits per dimension.",
    "restore": "Restore a picture from a measurement: blur, missing pixels, few pixels, MRI, CT.",
    "evaluate": "How far samples are from data: distances with intervals, and copies of training images.",
    "compare": "Samplers side by side from the same noise: figures, curves, samples, on one page.",
    "replay": "Do again what is in a file, and compare.",
    "train": "Train a model by a config file; continue one that was stopped.",
    "average": "Another average of a run's weights, made afterwards.",
    "data": "What a data set holds, before anything is trained on it; the sets known by name.",
    "models": "The models that come with scoresde.",
    "samplers": "Every sampler: order, network calls, defaults, options, when to use it.",
    "table": "The rows of a sampler: all numbers of a run, before it is run.",
    "bench": "Error against network calls of the most used samplers, on exact data.",
    "plot": "Figures: schedules, marginals, scores, samples, a moving trajectory.",
    "schedule": "The noise schedule of an SDE: alpha, sigma, log-SNR, drift and diffusion.",
    "inspect": "What a checkpoint or model holds.",
}
# Threads of libgomp wait for each other by spinning, which on a machine with other work takes most of the time. With a
# bound the README's first job took 19 s instead of 43 on two busy cores (a run each), and 4.9 instead of 4.7 on idle
# ones. It is read when torch is loaded, so it stands here.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
OUTPUT_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class Commands(click.Group):
    """The group of all commands, and the one place where an error becomes a line on stderr and an exit code.

    0 done, 1 a bug of ours (with its traceback), 2 bad input, 3 a solver could not finish, 4 training stopped itself,
    5 output could not be written, 130 interrupted.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return import_module(f"scoresde.cli.{cmd_name}").command if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from scoresde.errors import choose

            choose("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # pyright: ignore[reportIncompatibleMethodOverride]
        args = list(sys.argv[1:] if args is None else args)
        extra = {**extra, "obj": args, "standalone_mode": False}
        try:
            with _sigterm_interrupts():
                code = super().main(args, prog_name or "scoresde", **extra)
        except (click.Abort, KeyboardInterrupt):
            message, code = "interrupted", 130
        except Exception as error:
            message, code = explain(error, args[0] if args else "")
        else:
            sys.exit(code if isinstance(code, int) else 0)
        click.echo(f"scoresde: error: {' '.join(message.split())}", err=True)
        sys.exit(code)


@contextmanager
def _sigterm_interrupts() -> Generator[None]:
    """Inside, SIGTERM is what Ctrl-C is: nothing half-written stays behind."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def explain(error: Exception, command: str = "") -> tuple[str, int]:
    """The line and the exit code of an error of a command; one that is a bug of ours is raised again."""
    if isinstance(error, click.NoSuchOption):
        from difflib import get_close_matches

        known = [flag for p in error.ctx.command.params for flag in p.opts] if error.ctx else []
        close = " or ".join(get_close_matches(error.option_name, known, n=2))
        return f"no such option {error.option_name}{f'; did you mean {close}?' if close else ''}{_see_help(error)}", 2
    if isinstance(error, click.ClickException):
        message = error.format_message().rstrip(".")
        return f"{message[:1].lower()}{message[1:]}{_see_help(error)}", error.exit_code
    if hasattr(error, "exit_code"):  # of scoresde.errors
        return str(error), getattr(error, "exit_code")  # noqa: B009 (a type checker knows no such attribute)
    if isinstance(error, OSError) and error.errno in OUTPUT_ERRNOS:
        return f"cannot write: {error.strerror}", 5
    if isinstance(error, PermissionError) and error.filename:
        return f"cannot open {str(error.filename)!r}: {error.strerror}", 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error):
        if command == "train":  # which has taken batches in parts down to a row, on one device
            options = "network.checkpoint: true (unet, dit), a smaller network or a smaller train.batch_size"
            return f"out of memory: in the config, use {options}", 2
        return "out of memory: use a smaller --batch-size, --num or --steps", 2
    raise error


def _see_help(error: click.ClickException) -> str:
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return f" (see {ctx.command_path} --help)" if ctx else ""


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="scoresde")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Score-based SDE/ODE sampling: draw from a diffusion model, train one, look at the numbers.

    \b
    Examples:
      scoresde sample --sampler ode --steps 10           pictures by the default model, in ./samples
      scoresde sample --class sneaker --num 16 --seed 7  one class only, other noise
      scoresde sample --sampler dpm++2m --nfe 20         another sampler, at most 20 network calls
      scoresde replay samples/ode-10-seed0.png           draw a picture again, and compare
      scoresde train swiss_roll --out runs/swiss         train a small model on points in the plane
      scoresde sample --model runs/swiss --num 2000      and draw from it

    COMMAND --help shows the options of each, with examples.
    """  # noqa: D301 (click wants the \b)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
