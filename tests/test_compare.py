"""`scoresde compare`: one noise for all, distances that are what they say, faults before work, whole files."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import fails, works
from torch import Tensor

import scoresde
from scoresde import BadInput, SolverFailure, load_model
from scoresde.comparison import Comparison, Draw, Ruler, compare, flow, plan, quality, run, views
from scoresde.comparison.facts import facts, head, lines, notes
from scoresde.comparison.page import render
from scoresde.data import load
from scoresde.metrics import energy_distance
from scoresde.model import Model

SAMPLERS, BUDGETS = ("ddim", "ode", "ddpm"), (5, 12)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("datasaurus")


@pytest.fixture(scope="module")
def real() -> Tensor:
    return load("moons", n=200).x * 20 + 50


@pytest.fixture(scope="module", autouse=True)
def few_calls() -> Iterator[None]:
    """A flow of few calls, but in tests of the flow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "CALLS", 24)
        patch.setattr(quality, "DRAWS", 10)
        yield


@pytest.fixture
def converged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "CALLS", 100)


@pytest.fixture(scope="module")
def found(model: Model, real: Tensor) -> Comparison:
    return compare(model, SAMPLERS, BUDGETS, num=24, labels=torch.arange(24) % 13, real=real)


@pytest.fixture(scope="module")
def text(found: Comparison) -> str:
    return render(found, facts(found, "scoresde compare", {})).decode()


# ------------------------------------------------------------------------------------------------------- what is drawn


def test_every_run_is_that_of_sample_from_one_noise(found: Comparison) -> None:
    assert [(r.planned.budget, r.planned.sampler) for r in found.runs] == [(b, s) for b in BUDGETS for s in SAMPLERS]
    cond = {"y": torch.arange(24) % 13}
    for each in found.runs:
        out = scoresde.sample(
            found.draw.model.denoiser, (24, 2), each.planned.sampler, nfe=each.planned.budget, cond=cond
        )
        assert torch.equal(out.x, each.x) and out.nfe == each.calls == each.planned.calls <= each.planned.budget
        assert each.seconds > 0
    ways = [views.way(each.planned, "", 24) for each in found.runs]
    assert all(torch.equal(way.x[0], ways[0].x[0]) for way in ways)


def test_the_way_of_a_run_ends_in_its_samples_and_repeats_its_estimates(found: Comparison) -> None:
    for each in found.runs:
        way = views.way(each.planned, "", 5)
        torch.testing.assert_close(way.x[-1], each.x[:5], rtol=1e-4, atol=1e-4)  # as a batch of another size
        assert len(way.x) == len(way.x0) == len(way.times) == len(way.calls)
        assert way.calls[0] == 0 and way.calls[-1] == each.calls and way.times == sorted(way.times, reverse=True)
        if each.planned.sampler == "ddim":  # one call a step: x̂_0 of the state it stands beside
            model, y = found.draw.model, torch.arange(5) % 13
            for x, x0, t in zip(way.x[:-1], way.x0, way.times, strict=False):
                torch.testing.assert_close(model.denoiser.x0(x, t, y=y), x0, rtol=1e-3, atol=1e-3)


def test_batches_change_neither_samples_nor_what_is_told(model: Model) -> None:
    told: list[int] = []
    y = torch.arange(7)
    parts = compare(model, ["ode", "ddim"], [8], num=7, labels=y, batch_size=3, done=told.append)
    whole = compare(model, ["ode", "ddim"], [8], num=7, labels=y)
    for a, b in zip(parts.runs, whole.runs, strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=1e-4, atol=1e-4)
        assert a.distance == pytest.approx(b.distance, rel=1e-3, abs=1e-4)
    draw = Draw(model, 7, labels=y, batch_size=3)
    assert sum(told) == run.total_calls(draw, plan(draw, ["ode", "ddim"], [8]))


# --------------------------------------------------------------------------------------------------------- the figures


@pytest.mark.usefixtures("converged")
def test_distances_to_the_flow_vanish_with_more_calls_but_for_those_that_draw_noise(model: Model) -> None:
    found = compare(model, ["ipndm", "ddim", "ddpm"], [8, 40], num=8, seed=3)
    few, many = ({r.planned.sampler: r.distance for r in found.runs if r.planned.budget == b} for b in found.budgets)
    assert many["ddim"] < few["ddim"] / 3 and many["ipndm"] < 0.01
    assert min(few["ddpm"], many["ddpm"]) > 0.3
    assert found.flow.error < 0.01
    best, _ = found.best(40)
    assert best is not None and best.planned.sampler != "ddpm" and best.distance == min(many.values())


@pytest.mark.usefixtures("converged")
def test_the_flow_is_that_of_any_converged_sampler_at_both_ends(model: Model) -> None:
    converged = flow.converged_flow(Draw(model, 8, seed=1))
    other = scoresde.sample(model.denoiser, (8, 2), "eab4", 120, seed=1, final="t_min")
    assert converged.distance(other.x, other.times[-1]) < 1e-3
    end = model.denoiser.x0(other.x, other.times[-1])
    assert converged.distance(end, 0.0) < 1e-3
    assert converged.distance(end + 0.5, 0.0) == pytest.approx(0.5, abs=1e-3)


def test_the_distance_to_data_is_that_of_the_library(found: Comparison, model: Model, real: Tensor) -> None:
    ruler = found.ruler
    assert ruler is not None and ruler.name == "energy distance" and ruler.n == 200 - 24
    for each in found.runs:
        expected = energy_distance(ruler.real, model.scaler.decode(each.x)).value
        assert each.quality is not None and each.quality.value == pytest.approx(expected)
        assert each.quality.low <= each.quality.value <= each.quality.high
    for budget in BUDGETS:
        best = found.best(budget)[1]
        values = [r.quality.value for r in found.runs if r.quality and r.planned.budget == budget]
        assert best is not None and best.quality is not None and best.quality.value == min(values)
    assert ruler.floor is not None and abs(ruler.floor.value) < min(r.quality.value for r in found.runs if r.quality)
    assert Ruler(real[:30], 24, model).floor is None  # no events to spare


def test_images_are_measured_as_they_are_saved() -> None:
    images = load_model("fashion-mnist")
    x = torch.randint(0, 256, (60, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    ruler = Ruler(x, 20, images)
    assert (ruler.name, ruler.space, ruler.n) == ("KID", "classifier", 40) and ruler.sha256
    scaled = images.scaler.encode(x[:20])
    assert ruler(scaled) == ruler(scaled + 0.3 / 127.5)  # the same after rounding
    with pytest.raises(BadInput, match=r"torch.float32 numbers, the model draws images: give uint8"):
        Ruler(x.float(), 20, images)


def test_what_is_noted_and_marked(found: Comparison) -> None:
    assert any("stochastic" in note for note in notes(found))
    for budget in BUDGETS:
        rows = [line for line in lines(found) if line.cells[0] == str(budget)]
        assert len(rows) == len(SAMPLERS)
        for column in range(6):
            assert sum(line.best[column] for line in rows) == (column > 3)
        assert all(["*" in cell for cell in line.cells] == list(line.best) for line in rows)
        assert ["stochastic" in line.cells[4] for line in rows] == [line.cells[1] == "ddpm" for line in rows]
    plain = compare(found.draw.model, ["ddim"], [5], num=2)
    assert not any("stochastic" in note or "KID" in note for note in notes(plain))
    assert len(head(plain)) == len(lines(plain)[0].cells) == 5


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_page_holds_every_run_and_fetches_nothing(found: Comparison, text: str) -> None:
    walks = json.loads(re.findall(r'<script type="application/json" id="walks">(.*?)</script>', text)[0])
    assert [r["label"] for r in walks["runs"]] == [
        *(f"{r.planned.sampler}, {r.calls} calls" for r in found.runs), "converged flow, 24 calls"
    ]  # fmt: skip
    assert all(len(r["x"]) == len(r["x0"]) == len(r["times"]) == len(r["calls"]) for r in walks["runs"])
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text) and "@import" not in text and "url(http" not in text
    for line in lines(found):
        assert all(f"{cell}</" in text for cell in line.cells)


def test_a_page_has_room_for_any_number_of_steps_and_any_text(
    found: Comparison, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "ROOM", 9000)
    evil = "</script><img src=x onerror=alert(1)>"
    small = render(found, facts(found, evil, {"data": {"name": evil}, evil: 1})).decode()
    assert "<img src=x" not in small and small.count("</script>") == 2  # what a page is given is text
    assert len(small) < len(text)
    walks = json.loads(re.findall(r'id="walks">(.*?)</script>', small)[0])["runs"]
    assert all(2 <= len(r["times"]) <= 7 and r["calls"][0] == 0 for r in walks)
    assert [r["calls"][-1] for r in walks[:-1]] == [r.calls for r in found.runs]  # first and last steps stay


@pytest.mark.parametrize("event", [(1,), (3,), (2, 5), (3, 80, 70)])
def test_events_of_any_shape_can_be_shown(event: tuple[int, ...]) -> None:
    scaler = scoresde.data.Scaler((0.0,), (1.0,))
    model = Model("any", None, scaler, event, (), {"config": {"data": {"scaler": "none"}}})
    x = torch.randn(3, *event)
    view = views.Images(model) if len(event) > 1 else views.Points(model, x)
    cell, frames = view.cell(x, "<alt>"), view.frames([x, 2 * x])
    assert "&lt;alt&gt;" in cell and len(frames) == 2 and frames[0]
    assert len(event) == 1 or all(len(frame) < 40_000 for frame in frames)


# --------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def data(here: Path, real: Tensor) -> str:
    np.savez("real.npz", samples=real.numpy())
    return "real.npz"


def test_the_command_writes_the_same_numbers_in_three_ways(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoresde.comparison.page.charts", lambda found: [])
    args = ["--model", "datasaurus", "--samplers", "ddim,ddpm", "--nfe", "4,8", "--num", "20", "--data", data]
    printed = works("compare", *args, "--nfe", "4", "--class", "dino", "--out", "a", "--data", "none")
    assert "energy" not in printed and "a/comparison.html" in printed
    report = json.loads(works("compare", *args, "--out", "b", "--json"))
    assert report == json.loads(Path("b/comparison.json").read_text(encoding="utf-8"))
    assert shlex.split(report["command"]) == ["scoresde", "compare", *args, "--out", "b", "--json"]
    assert [(r["nfe"], r["sampler"]) for r in report["runs"]] == [(b, s) for b in (4, 8) for s in ("ddim", "ddpm")]
    with Path("b/comparison.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row, each in zip(rows, report["runs"], strict=True):
        assert (row["sampler"], int(row["calls"])) == (each["sampler"], each["calls"])
        assert float(row["to_flow"]) == each["to_flow"] and float(row["to_data_low"]) == each["to_data"]["low"]
    assert sorted(p.name for p in Path("b").iterdir()) == [f"comparison.{e}" for e in ("csv", "html", "json")]


def test_what_the_command_refuses(data: str, images: Path) -> None:
    Path("full").mkdir()
    Path("full/a.txt").touch()
    Path("file").touch()
    points = ["--model", "datasaurus", "--data", data, "--samplers", "ddim", "--nfe", "4"]
    for code, args, words in [
        (2, ["--samplers", "dimm"], "did you mean 'ddim'"),
        (2, ["--samplers", ""], "at least one"),
        (2, ["--samplers", "ddim,ode,ddim"], "ddim is there twice"),
        (2, ["--samplers", "rk45"], "chooses its own steps"),
        (2, ["--samplers", "ddim,ode", "--nfe", "8,2"], "nfe = 2 is below the 4 calls of one step of 'ode'"),
        (2, ["--nfe", "5,ten"], "--nfe ten"),
        (2, ["--num", "5"], "5 samples are too few"),
        (2, ["--data", "monos"], "did you mean 'moons'"),
        (2, ["--class", "cat"], "--class"),
        (2, ["--class", "dino"], "does not have the model's classes"),
        (2, ["--data", "none", "--split", "test"], "--split test: --data none reads no data"),
        (2, ["--data", "none", "--option", "foo=1"], "--option foo=1: --data none reads no data"),
        (2, ["--out", "full"], "holds files already"),
        (5, ["--out", "file"], "cannot write into 'file'"),
        (5, ["--out", "file/in"], "cannot write into"),
        (2, ["--model", str(images)], "events of shape (2,), the model of (1, 8, 8)"),
    ]:
        assert words in fails(code, "compare", *points, *args), args
    assert "--data none" in fails(
        2, "compare", "--model", images, "--samplers", "ddim"
    )  # its own data are no longer there
    assert sorted(p.name for p in Path().iterdir()) == ["file", "full", "real.npz"]


def test_data_of_images_are_pixels_and_floats_are_rounded(
    images: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set in [0, 1] or [-1, 1] is refused; floats in 0 to 255 give the figures of the pixels they round to."""
    monkeypatch.setattr("scoresde.comparison.page.charts", lambda found: [])
    x = torch.randint(0, 256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    sets = {"whole": x, "rough": x + 0.25 * (x < 255), "unit": x / 255, "signed": x / 127.5 - 1}
    for name, values in sets.items():
        np.savez(f"{name}.npz", samples=values.numpy())
    args = ["compare", "--model", images, "--samplers", "ddim", "--nfe", "2", "--num", "20", "--json"]
    for name, low in (("unit", 0), ("signed", -1)):
        line = fails(2, *args, "--data", f"{name}.npz", "--out", name)
        assert f"{name}: its values are in [{low}, 1], but pixels 0 to 255 are needed" in line
        assert not Path(name).exists()
    whole, rough = (json.loads(works(*args, "--data", f"{n}.npz", "--out", n)) for n in ("whole", "rough"))
    assert rough["to_data"] == whole["to_data"] and rough["to_data"]["name"] == "KID"
    assert rough["runs"][0]["to_data"] == whole["runs"][0]["to_data"]
    assert (whole["data"]["rounded_to_uint8"], rough["data"]["rounded_to_uint8"]) == (False, True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SolverFailure])
def test_a_comparison_that_is_cut_short_leaves_nothing(
    error: type[BaseException], data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object, **how: object) -> None:
        raise error("stop")

    monkeypatch.setattr("scoresde.comparison.run.converged_flow", stop)
    args = ["--model", "datasaurus", "--samplers", "ddim", "--nfe", "4", "--num", "20", "--data", data, "--out", "new"]
    assert "stop" in fails(3, "compare", *args) if error is SolverFailure else fails(130, "compare", *args)
    assert not Path("new").exists()


def test_labels_must_be_those_of_the_samples(model: Model) -> None:
    with pytest.raises(BadInput, match="labels"):
        Draw(model, 3, labels=torch.zeros(2, dtype=torch.int64))
