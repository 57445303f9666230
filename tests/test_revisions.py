"""What a seed draws does not change unseen: every table of 7 steps, and the grid of every number of steps, stands in
`tables.json`, with its revision.

A table whose numbers are to change: raise ``revision`` on its line of the registry, tell of it in CHANGELOG.md, then

    python tests/test_revisions.py

writes the new numbers. It refuses to replace those of the same revision.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from exact import SDES, TABLES

from scoresde import SAMPLERS, Table
from scoresde.grids import make_grid

FILE = Path(__file__).with_name("tables.json")
CHANGES = Path(__file__).parents[1] / "CHANGELOG.md"
STEPS = 7


def table(name: str) -> dict[str, Any]:
    """A sampler's table on its defaults under VP, as JSON has it."""
    sampler = SAMPLERS[name]
    sde = SDES["vp"]
    grid, final = sampler.defaults(STEPS)
    made = sampler.build(sde, make_grid(grid, sde, STEPS, final))
    assert isinstance(made, Table)
    rows = [[row.t, row.t_next, row.a, list(row.b), list(row.c), row.ends, row.calls] for row in made.rows]
    options = {key: value for key, value in sampler.options().items() if value is not None}
    where: dict[str, Any] = {"grid": grid, "final": final, "space": made.space}
    if sampler.by_steps:
        where["spans"] = [list(span) for span in sampler.spans]
    return {"revision": sampler.revision, "options": options, **where, "rows": rows}


def numbers(rows: list[list[Any]]) -> list[float]:
    """All numbers of the rows, a list's after its length."""
    cells = (cell if isinstance(cell, list) else [cell] for row in rows for cell in row)
    return [float(value) for cell in cells for value in (len(cell), *cell)]


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """The same settings and, to the rounding of the weights that cancel, the same numbers."""
    left, right = numbers(a["rows"]), numbers(b["rows"])
    size = max(1.0, *map(abs, right))
    close = len(left) == len(right) and all(abs(x - y) <= 1e-12 * size for x, y in zip(left, right, strict=True))
    return close and {**a, "rows": 0} == {**b, "rows": 0}


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TABLES)
def test_a_change_of_numbers_is_a_revision(name: str, kept: dict[str, Any]) -> None:
    assert name in kept, "a new sampler: run python tests/test_revisions.py"
    assert same(table(name), kept[name]), "its numbers changed: see the top of this file"


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_revision_is_told_in_the_changelog(name: str) -> None:
    revision = SAMPLERS[name].revision
    assert revision == 1 or f"`{name}` revision {revision}" in CHANGES.read_text(encoding="utf-8")


def test_a_small_change_is_seen(kept: dict[str, Any]) -> None:
    made = table("dpm++2m")
    assert same(made, kept["dpm++2m"])
    made["rows"][3][2] *= 1 + 1e-9
    assert not same(made, kept["dpm++2m"])


def test_nothing_is_kept_of_samplers_that_are_gone(kept: dict[str, Any]) -> None:
    assert sorted(kept) == sorted(TABLES)


def write() -> None:
    """Bring the file up to date, unless numbers changed without a revision."""
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    now = {name: table(name) for name in sorted(TABLES)}
    for name, made in now.items():
        if name in before and made["revision"] == before[name]["revision"] and not same(made, before[name]):
            raise SystemExit(f"{name}: other numbers at revision {made['revision']}: raise its revision first")
    lines = [f"{json.dumps(name)}: {json.dumps(made, ensure_ascii=False)}" for name, made in now.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write()
