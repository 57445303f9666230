"""The samplers' own options on the command line: whatever a builder takes is `--name VALUE`, without a list here.

A command that takes them does not know which exist: that would load torch to print its help. It sets aside every option
that is not its own, with the word after it; `read_options` then asks the chosen sampler what they mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from scoresde.errors import BadInput

if TYPE_CHECKING:
    from scoresde.samplers import Sampler

# The best known, for --help. A test holds them against the builders.
COMMON = (
    ("--eta X", "ddim, dpm++2m-sde, dpm2a, ...: noise, from 0 (probability flow) to 1 (reverse SDE)"),
    ("--tau X", "eab2, eab3, eab4, sa-solver: noise, 0 (probability flow), 1 (reverse SDE) or more"),
    ("--order N", "deis, ipndm, lms, unipc, ...: how many network outputs a step uses"),
    ("--correctors N", "pc: Langevin steps after each step"),
    ("--snr X", "pc: size of a corrector step"),
    ("--method NAME", "ode: rk4, midpoint, ... with --steps, else dopri5, bosh3, ..."),
    ("--rtol X", "adaptive runs: relative tolerance"),
    ("--atol X", "adaptive runs: absolute tolerance"),
    ("--max-nfe N", "adaptive runs: give up after this many network calls"),
)


class SamplerCommand(click.Command):
    """A command that runs a sampler; it receives, as ``own``, the words of the options it does not know."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, rest = split_own(self.get_params(ctx), args)
        left = super().parse_args(ctx, rest)
        ctx.params["own"] = own
        return left

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        with formatter.section("Options of some samplers (`scoresde samplers NAME` lists all of one)"):
            formatter.write_dl([row for row in COMMON if row[0].split()[0] not in flags_of(ctx)])


def split_own(params: Sequence[click.Parameter], args: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """The options among ``args`` that are not of ``params``, each with the word after it, and the other words."""
    known = {flag: param for param in params if isinstance(param, click.Option) for flag in param.opts}
    own: dict[str, str | None] = {}
    rest: list[str] = []
    words = deque(args)
    while words:
        word = words.popleft()
        if word == "--":
            return own, [*rest, word, *words]
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and flag not in known:
            follows = words and not words[0].startswith("--")
            own[flag] = value if equals else words.popleft() if follows else None
            continue
        rest.append(word)
        if flag in known and not known[flag].is_flag and not equals and words:
            rest.append(words.popleft())
    return own, rest


def word_kinds(sampler: Sampler) -> dict[str, tuple[str, ...]]:
    """The types of a sampler's options that a word can have; a name where it has none of them."""
    from scoresde.samplers.options import option_kinds

    builders = filter(None, (sampler.build, sampler.adaptive))
    kinds = {name: kinds for build in builders for name, kinds in option_kinds(build).items()}
    return {name: tuple(kind for kind in READERS if kind in of) or ("str",) for name, of in kinds.items()}


def read_options(sampler: str, own: dict[str, str | None], flags: Sequence[str]) -> dict[str, Any]:
    """The values of a sampler's options that were given as words; ``flags`` are the command's other options.

    An option of another sampler is read as well: the library refuses it, and says what this one has.
    """
    from scoresde.samplers import SAMPLERS

    kinds = word_kinds(SAMPLERS[sampler]) if sampler in SAMPLERS else {}
    anywhere = {name: kind for s in SAMPLERS.values() for name, kind in word_kinds(s).items()} | kinds
    options: dict[str, Any] = {}
    for flag, text in own.items():
        name = flag.removeprefix("--").replace("-", "_")
        if name not in anywhere:
            close = " or ".join(get_close_matches(flag, [*flags, *map(spell_flag, kinds)], n=2))
            has = f" ({sampler!r} has {', '.join(map(spell_flag, kinds))})" if kinds else ""
            raise BadInput(f"no such option {flag}{f'; did you mean {close}?' if close else ''}{has}")
        if text is None:
            raise BadInput(f"{flag} needs a value: {flag} {_metavar(anywhere[name])}")
        options[name] = read_value(flag, text, anywhere[name])
    return options


def read_value(flag: str, text: str, kinds: Sequence[str]) -> Any:
    """The word as the first of ``kinds`` that it can be."""
    for kind in kinds:
        try:
            return READERS[kind](text)
        except ValueError:
            continue
    raise BadInput(f"{flag} {text}: {flag.lstrip('-')} must be {' or '.join(RULES[kind] for kind in kinds)}")


def flags_of(ctx: click.Context) -> list[str]:
    """The flags a command knows by itself."""
    return [flag for param in ctx.command.params for flag in param.opts]


def spell_flag(name: str) -> str:
    """s_churn as it is typed: --s-churn."""
    return f"--{name.replace('_', '-')}"


def spell(options: dict[str, Any]) -> str:
    """Options as they are typed; one that is None is left out."""
    return " ".join(_spelt(options))


def _spelt(options: dict[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if value is not None:
            yield f"{spell_flag(name)} {str(value).lower() if isinstance(value, bool) else value}"


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def usage(name: str, kinds: Sequence[str], default: Any) -> str:
    """An option, what it takes, and its default: --eta X (0.0)."""
    value = str(default).lower() if isinstance(default, bool) else default
    return f"{spell_flag(name)} {_metavar(kinds)}{'' if default is None else f' ({value})'}"


def _metavar(kinds: Sequence[str]) -> str:
    return {"bool": "true|false", "int": "N", "float": "X", "str": "NAME"}[kinds[0]]


READERS = {"bool": _truth, "int": int, "float": float, "str": str}
RULES = {"bool": "true or false", "int": "an integer", "float": "a number", "str": "a name"}
