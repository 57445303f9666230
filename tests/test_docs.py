"""What the documents show and say: their Python runs, their tables are those of the code, the tests they name exist.

Every Python block of docs/ and every example runs in a process of its own. ``python tests/test_docs.py`` writes the
parts that come from the code anew: the list of samplers, when to use each, and the printed tables.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from scoresde import SAMPLERS, BadInput
from scoresde.cli import main
from scoresde.cli.options import read_options
from scoresde.cli.samplers import facts
from scoresde.grids import ALIASES, FINALS, GRIDS, option_of
from scoresde.samplers import Sampler
from scoresde.samplers.proofs import EQUATIONS, proofs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
INDEX, FAMILIES = DOCS / "samplers.md", sorted((DOCS / "samplers").glob("*.md"))
PAGES = {page.relative_to(DOCS).as_posix(): page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.md"))}
BLOCKS = [
    pytest.param(block, id=f"{name}-{i}")
    for name, text in PAGES.items()
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.S | re.M))
]
SHORTENED = {
    "compare_samplers.py": ("--images", "1"),
    "datasaurus_story.py": ("--steps", "5"),
    "guided_tshirts.py": ("--num", "3", "--steps", "8", "--out", "tshirts.png"),
    "impute_series.py": ("--windows", "3", "--draws", "4", "--steps", "20", "--out", "series.png"),
    "letters.py": ("--steps", "60", "--num", "10"),
    "linear_gaussian.py": ("--n", "300", "--out", "posterior.png"),
    "ood_likelihood.py": ("--num", "1", "--steps", "3", "--out", "ood.png"),
    "same_marginals.py": ("--n", "500", "--steps", "90", "--out", "marginals.png"),
    "super_resolution.py": ("--num", "2", "--steps", "4"),
}
NEEDS_DATA = (pytest.mark.data, pytest.mark.skipif(not os.environ.get("SCORESDE_DATA"), reason="no SCORESDE_DATA"))
OF_DATA = ("datasaurus_story.py", "impute_series.py", "ood_likelihood.py", "super_resolution.py")
EXAMPLES = [
    pytest.param(path, id=path.name, marks=NEEDS_DATA if path.name in OF_DATA else ())
    for path in sorted((ROOT / "examples").glob("*.py"))
]
LIST = re.compile(r"^\| name \| page \|.*\n(\|.*\n)+", re.M)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.S | re.M)
COMMAND = re.compile(r"^(?:accelerate launch .*-m )?scoresde(?: .*)?$", re.M)
STANDS_FOR = {"NAME": "ddim", "N": "5"}  # in what a page says of a command
PRINTED = re.compile(r"^    \$ scoresde (table .*)\n(?:    .*\n)+", re.M)
BENCH = re.compile(r"(<!-- scoresde bench -->)(.*?)(<!-- end -->)", re.S)
CELL = r"((?:\\\||[^|\n])*?)"  # \| is no end of a cell
DESCRIBED = re.compile(rf"^\| `([^`]+)` \| {CELL} \| {CELL} \|$", re.M)


# -------------------------------------------------------------------------------------------- what comes from the code


def family_of(name: str) -> str:
    """The page with the sampler in the first column of a table of three."""
    (page,) = [page.stem for page in FAMILIES if name in {row[0] for row in DESCRIBED.findall(page.read_text("utf-8"))}]
    return page


def listed(sampler: Sampler) -> tuple[str, ...]:
    """A sampler's row in the list of all."""
    about = facts(sampler)
    order, whole = sampler.order, about["order_with_start"] or sampler.order
    weak = " (weak)" if sampler.stochastic else ""
    family = family_of(sampler.name)
    return (
        f"`{sampler.name}`",
        f"[{family}](samplers/{family}.md)",
        f"{order}{weak}" if order else "–",
        f"{whole}{weak}" if whole else "–",
        {True: "yes", False: "no", None: "–"}[about["exact"]],
        f"`{sampler.nfe}`" if sampler.build else sampler.nfe,
        "yes" if sampler.stochastic else "no",
        "yes" if sampler.encode else "no",
        str(sampler.steps or "–") if sampler.build else "–",
        grids(sampler),
    )


def grids(sampler: Sampler) -> str:
    """Grid and ending by the number of steps: `lambda`, `zero` to 10; `phi`, `t_min`."""
    if not sampler.build:
        return f"`{sampler.final}`"
    return "; ".join(f"`{grid}`, `{final}`{f' to {n}' if n else ''}" for n, grid, final in sampler.spans)


def the_list() -> str:
    """All samplers."""
    head = ("name", "page", "order", "with its start", "exact", "NFE(n)", "noise", "encodes", "steps", "grid, final")
    rows = [head, ("---",) * len(head), *map(listed, SAMPLERS.values())]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows).replace("| --- ", "|---").replace("---|", "---|")


def printed(command: str) -> str:
    """A command of scoresde and what it prints, indented."""
    done = CliRunner().invoke(main, command.split())
    assert done.exit_code == 0, done.output
    return "".join(f"    {line}".rstrip() + "\n" for line in [f"$ scoresde {command}", *done.output.splitlines()])


def renewed(text: str) -> str:
    """A page with the parts that come from the code written anew."""
    text = LIST.sub(lambda match: the_list(), text)
    text = DESCRIBED.sub(lambda row: use_of(row) if row[1] in SAMPLERS else row[0], text)
    text = BENCH.sub(lambda match: f"{match[1]}\n\n{printed('bench')}\n{match[3]}", text)
    return PRINTED.sub(lambda match: printed(match[1]), text)


def use_of(row: re.Match[str]) -> str:
    """A sampler's row on the page of its family."""
    return f"| `{row[1]}` | {row[2]} | {SAMPLERS[row[1]].use} |"


def commands(text: str) -> list[str]:
    """The commands of scoresde in the shell blocks of a page and between its back quotes."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    quoted = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    return [line for part in [*SHELL.findall(text), *quoted] for line in COMMAND.findall(part)]


def parse(line: str) -> click.Command:
    """The command of a line, whose options and their values it takes; nothing is run."""
    words = [STANDS_FOR.get(word, word) for word in shlex.split(line[line.index("scoresde") :], comments=True)[1:]]
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(click.Context(command), words)
        assert found is not None
        command = found
    try:
        context = command.make_context(command.name, words)
    except click.exceptions.Exit:  # --help
        return command
    if own := context.params.get("own"):
        read_options(context.params["sampler"], own, {})
    return command


def same(shown: str, made: str) -> bool:
    """Two lines of the same words, and of the same numbers up to what machines round differently."""
    if len(ours := shown.split()) != len(theirs := made.split()):
        return False
    return all(a == b or close(a, b) for a, b in zip(ours, theirs, strict=True))


def close(one: str, other: str) -> bool:
    """The same number, or the same to the last of three digits as the errors are printed."""
    try:
        rel = 0.011 if all(re.fullmatch(r"\d\.\d\de-\d\d", word) for word in (one, other)) else 1e-6
        return float(one) == pytest.approx(float(other), rel=rel, abs=1e-10)
    except ValueError:
        return False


# --------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("block", BLOCKS)
def test_code_in_the_documents_runs(block: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", block], check=True)


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if commands(text)])
def test_the_commands_that_a_page_names_exist(name: str) -> None:
    assert all(parse(line).callback for line in commands(PAGES[name]))


@pytest.mark.parametrize("words", ["tarin a", "train a --out b --rezume", "data inspekt", "table ddim --steps x"])
def test_a_command_that_does_not_exist_would_be_seen(words: str) -> None:
    with pytest.raises((click.UsageError, BadInput)):
        parse(commands(f"```bash\nscoresde {words}\n```")[0])


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_run(example: Path, tmp_path: Path) -> None:
    """In a shortened form where they take long; what they say they write is there."""
    command = [sys.executable, example, *SHORTENED.get(example.name, ())]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip()
    for folder in re.findall(r"^pictures: (.*)", done.stdout, re.M):
        pictures = sorted((tmp_path / folder).iterdir())
        assert len(pictures) == 6 and all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    named = re.findall(r"^picture: (.*)", done.stdout, re.M)
    assert len(named) == command.count("--out")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in named)


@pytest.mark.parametrize("name", ["samplers.md", *(f"samplers/{page.name}" for page in FAMILIES)])
def test_tables_and_lists_are_those_of_the_code(name: str) -> None:
    """If not, and the code is right: python tests/test_docs.py."""
    shown, made = PAGES[name].splitlines(), renewed(PAGES[name]).splitlines()
    assert len(shown) == len(made)
    assert [pair for pair in zip(shown, made, strict=True) if not same(*pair)] == []


def test_a_changed_number_would_be_seen() -> None:
    page = printed("table ddim --steps 3 --grid phi")
    last = page.split()[-2]
    assert same(page, page.replace("0.86384521", "0.86384522").replace(last, "2.2e-16"))
    for changed in (("0.86384521", "0.86394521"), ("order 1", "order 2"), (last, "2.2e-6")):
        assert not same(page, page.replace(*changed))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_proofs_of_a_sampler_exist_and_speak_of_it(name: str) -> None:
    """Of its equation at least one: a test in a file that names the sampler, its builder or the class it makes."""
    sampler, tests = SAMPLERS[name], proofs(SAMPLERS[name])
    made = {getattr(build, "__name__", "") for build in (sampler.build, sampler.adaptive) if build} - {""}
    assert EQUATIONS[name] and EQUATIONS.keys() == SAMPLERS.keys() and len(tests) > len(EQUATIONS[name])
    for file, test in (each.split("::") for each in tests):
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", text, re.M), test
        if f"{file}::{test}" in EQUATIONS[name]:
            assert any(re.search(rf"(?<![\w+-]){re.escape(word)}(?![\w+-])", text) for word in {name, *made}), test


def test_every_sampler_is_described_on_one_page() -> None:
    rows = [name for page in FAMILIES for name, *_ in DESCRIBED.findall(page.read_text("utf-8"))]
    assert sorted(name for name in rows if name in SAMPLERS) == sorted(SAMPLERS)
    assert LIST.search(PAGES["samplers.md"])
    assert all(f"samplers/{page.name}" in PAGES["samplers.md"] for page in FAMILIES)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_option_is_explained_on_its_samplers_page(name: str) -> None:
    sampler, page = SAMPLERS[name], PAGES[f"samplers/{family_of(name)}.md"]
    options = {**sampler.options(), **sampler.options(True)} if sampler.adaptive else sampler.options()
    if sampler.build and sampler.adaptive:  # the options of its adaptive runs
        page += PAGES["samplers/adaptive.md"]
    assert [option for option in options if f"`{option}`" not in page] == []


def test_every_grid_alias_and_ending_is_described() -> None:
    page = PAGES["samplers/grids.md"]
    rows = {row[0]: row[1:] for row in re.findall(r"^\| `([^`]+)` \| (.*?) \|(?: (.*?) ?\|)?", page, re.M)}
    assert rows.keys() == {*GRIDS, *ALIASES, *FINALS, "final"}
    for alias, grid in ALIASES.items():
        assert rows[alias][0] == f"`{grid}`"
    for grid, spacing in GRIDS.items():
        option = option_of(spacing) if grid != "t" else ("power", 1)
        assert rows[grid][1].strip() == (f"{option[0]}, {option[1]:g}" if option else "")


@pytest.mark.parametrize("name", PAGES)
def test_the_tests_and_pages_that_a_page_names_exist(name: str) -> None:
    text = PAGES[name]
    for file, test in re.findall(r"(test_\w+\.py)::(\w+)", text):
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.M), (file, test)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        page = (DOCS / name).parent / target if target else DOCS / name
        assert page.exists(), target
        headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


if __name__ == "__main__":
    for page in (INDEX, *FAMILIES):
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
