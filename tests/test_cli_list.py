"""`scoresde models`, `samplers`, `table`, `bench` and `inspect`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from test_cli import CLASSES, fails, make_context, points_config, works

import scoresde.model
from scoresde import SAMPLERS, checkpoint
from scoresde.cli import options
from scoresde.config import parse_config
from scoresde.train import train

pytestmark = pytest.mark.usefixtures("here")


def test_models(points: Path, images: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scoresde.model, "shipped", lambda: {})
    assert "no model is shipped" in works("models") and json.loads(works("models", "--json")) == []
    Path("tiny.safetensors").write_bytes(images.read_bytes())
    figures = {"floor": {"coverage": 1.0}, "ode-10": {"run": {"nfe": 37}, "classes": {"agreement": 0.9312, "k": 5}}}
    Path("tiny.json").write_text(json.dumps({"figures": figures}))
    monkeypatch.setattr(scoresde.model, "shipped", lambda: {"tiny": Path("tiny.safetensors")})
    header, row = works("models").splitlines()
    assert header.startswith("NAME") and row.startswith("tiny") and row.endswith("ode-10: agreement 0.931")
    assert "squares" in row and "vp" in row
    (fact,) = json.loads(works("models", "--json"))
    assert fact["name"] == "tiny" and fact["card"]["figures"] == figures


def test_shipped_models_can_be_listed():
    text = works("models")
    for name in scoresde.model.shipped():
        assert re.search(rf"^{name} ", text, re.M)
        works("inspect", name)
        assert max(map(len, text.splitlines())) <= 140


def test_samplers():
    text = works("samplers")
    assert all(re.search(rf"^{re.escape(name)} .*{re.escape(s.use)}$", text, re.M) for name, s in SAMPLERS.items())
    facts = {fact["name"]: fact for fact in json.loads(works("samplers", "--json"))}
    assert list(facts) == list(SAMPLERS) and facts["ddim"]["exact"] and facts["ddim"]["space"] == "x0"
    assert facts["ddim"]["options"] == {"eta": 0.0} and facts["ddpm"]["stochastic"] and facts["ode"]["order"] == 4
    assert facts["ode"]["adaptive_options"]["method"] == "dopri5"


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_sampler_in_full(name: str):
    text, sampler = works("samplers", name), SAMPLERS[name]
    assert text.startswith(f"{name}\n\n  ") and sampler.use in text and ">>>" not in text
    assert all(options.spell_flag(option) in text for option in options.word_kinds(sampler))
    example = text.splitlines()[-1].split(" scoresde ")[1]
    make_context(shlex.split(example))
    assert json.loads(works("samplers", name, "--json"))["use"] == sampler.use


def test_samplers_errors():
    assert "did you mean 'ddim'?" in fails(2, "samplers", "dimm")
    assert all("did you mean 'auto'?" in fails(2, command, "autoo") for command in ("samplers", "table"))
    assert "scoresde samplers ddim" in fails(2, "samplers", "ddim", "--aliases")


def test_table():
    text = works("table", "ddim", "--steps", 4)
    rows = text.splitlines()
    assert len(rows) == 7 and rows[0].startswith("ddim --eta 0.0 in x0 space under VPSDE(")
    assert rows[1].split() == ["row", "t", "t_next", "a", "b0"] and "4 network calls, order 1, no noise" in rows[-1]
    facts = json.loads(works("table", "eab3", "--steps", 8, "--grid", "karras", "--sde", "cosine", "--json"))
    build: Any = SAMPLERS["eab3"].build
    table = build(scoresde.CosineVPSDE(), tuple(facts["times"]))
    assert [row["b"] for row in facts["rows"]] == [list(row.b) for row in table.rows]
    assert facts["defect"] < 1e-12 and facts["order"] == 3 and facts["nfe"] == 8


@pytest.mark.parametrize("name", [name for name, s in SAMPLERS.items() if s.adaptive is None])
@pytest.mark.parametrize("sde", scoresde.SDES)
def test_tables_of_all(name: str, sde: str):
    assert "defect" in works("table", name, "--steps", 3, "--sde", sde)


def test_table_of_a_model(points: Path):
    assert works("table", "pc", "--steps", 3, "--model", points) == works("table", "pc", "--steps", 3)
    assert works("table", "em", "--sigmas", "3,1,0.1,0", "--sde", "edm").count("\n") == 6


def test_table_errors():
    assert "'ode' is not a table" in fails(2, "table", "ode", "--steps", 4)
    assert "with these options" in fails(2, "table", "pc", "--rule", "norm", "--steps", 4)
    assert "did you mean 'cosine'?" in fails(2, "table", "ddim", "--sde", "cosin")
    assert "give one" in fails(2, "table", "ddim", "--sde", "vp", "--model", "x")
    assert "no option 'snr'" in fails(2, "table", "ddim", "--snr", "0.1")
    assert "missing argument 'SAMPLER'" in fails(2, "table")
    assert "did you mean --json" in fails(2, "table", "ddim", "--jsno")
    assert "name a sampler for this grid" in fails(2, "table", "auto", "--times", "1,0.5,0")


@pytest.mark.parametrize("grid, spec", [("ddim50", "ddim50"), ("respaced:10,10,10", "10,10,10"), ("respaced:7", "7")])
def test_table_of_a_respaced_chain(grid: str, spec: str):
    """Its times are those of the library's `respaced_times`, under a sampler of either default ending."""
    for sampler in ("ddpm", "dpm++2m"):
        facts = json.loads(works("table", sampler, "--sde", "ddpm", "--grid", grid, "--json"))
        times = scoresde.respaced_times(scoresde.SDES["ddpm"](), spec)
        assert facts["times"] == list(times) and facts["nfe"] == facts["steps"] == len(times) - 1
        assert facts["grid"] == grid and facts["final"] == "zero"
        assert works("table", sampler, "--sde", "ddpm", "--grid", grid, "--steps", len(times) - 1)
    for words, told in (
        (("--steps", 3), "steps, not 3: leave"),
        (("--nfe", 3), "give no nfe = 3"),
        (("--final", "t_min"), "final = 't_min': a respaced chain"),
        (("--start", 2), "an analytic start: a respaced chain"),
    ):
        assert told in fails(2, "table", "ddim", "--sde", "ddpm", "--grid", grid, *words)
    assert "VPSDE is none: use 'index'" in fails(2, "table", "ddim", "--grid", grid)
    assert "take 48 or 50" in fails(2, "table", "ddim", "--sde", "ddpm", "--grid", "ddim49")
    assert "did you mean 'respaced'" in fails(2, "table", "ddim", "--sde", "ddpm", "--grid", "respace:10")


def test_table_with_an_analytic_start():
    facts = json.loads(works("table", "ddim", "--steps", 3, "--start", 2, "--json"))
    lam = scoresde.VPSDE().knots([1.0, facts["times"][0]]).lam
    assert lam[1] - lam[0] == pytest.approx(2) and len(facts["times"]) == 4


def test_bench_measures_what_it_says():
    """More calls, less error; others are refused."""
    facts = json.loads(works("bench", "ddim", "pndm", "--json"))
    assert facts["calls"] == [5, 10, 20, 50] and [row["dimensions"] for row in facts["rows"]] == [2, 2, 16, 16]
    for row in facts["rows"]:
        errors = [error for error in row["errors"] if error is not None]
        assert errors == sorted(errors, reverse=True) and errors[-1] < 0.05
    assert "'ddpm' draws noise" in fails(2, "bench", "ddpm") and "'rk45'" in fails(2, "bench", "rk45")
    assert "did you mean 'unipc'" in fails(2, "bench", "unipcc")


def test_inspect(points: Path, images: Path):
    text = works("inspect", points / "checkpoint.safetensors")
    assert re.search(r"^step +3 of 3$", text, re.M)
    assert re.search(r"^sde +vp, t_min = 0.001 \(λ = 4.558\), t_max = 1 \(λ = -5.025\)$", text, re.M)
    assert re.search(r"^time +continuous, t in \[0.001, 1\], labels 0.001 to 1 \(t\)$", text, re.M)
    assert all(re.search(rf"^{group} .*sha256", text, re.M) for group in ("ema", "raw", "opt"))
    facts = json.loads(works("inspect", images, "--json"))
    assert facts["classes"] == list(CLASSES) and facts["event_shape"] == [1, 8, 8] and facts["prediction"] == "v"
    raw = checkpoint.group(checkpoint.load_checkpoint(images)[0], "raw")
    assert facts["weights"]["raw"]["sha256"] == checkpoint.digest(raw)


def test_inspect_says_which_index(tmp_path: Path):
    config = {**points_config(steps=1, times="index"), "time": "index", "sde": {"name": "ddpm", "N": 500}}
    train(parse_config(config), "chain")
    assert re.search(r"^time +discrete, N=500, labels 0..499$", works("inspect", "chain"), re.M)
    assert "no model 'nowhere'" in fails(2, "inspect", "nowhere")


@pytest.mark.parametrize(
    "ema, first", [(0.5, "decay:0.5"), ("power:0.1", "power:0.1"), (["half_life:2", 0.5], "half_life:2")]
)
def test_inspect_says_which_average(ema: object, first: str, tmp_path: Path):
    train(parse_config(points_config(ema=ema)), "run")
    assert re.search(rf"^ema \(average, {first}\) ", works("inspect", "run"), re.M)
    assert json.loads(works("inspect", "run", "--json"))["averages"][0] == first
