"""`scoresde evaluate`: its figures are the library's, its report says what they are of, and what it refuses."""

import json
import math
import shlex
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import fails, run, works
from torch import Tensor

import scoresde
from scoresde.checkpoint import load_checkpoint, save_checkpoint
from scoresde.cli.evaluate import MOST_IMAGES, MOST_POINTS
from scoresde.data import Dataset, Streamed, load
from scoresde.data.load import SPLITS
from scoresde.errors import BadInput, OutputError
from scoresde.metrics import (
    energy_distance,
    frechet_distance,
    kernel_distance,
    load_features,
    load_inception,
    memorisation,
    prdc,
    wasserstein,
)
from scoresde.metrics.compare import Group, compare, feature_groups, frechet_name, point_groups

SHIPPED = Path(scoresde.__file__).parent / "pretrained" / "features.safetensors"
POINTS = ("W2", "sliced W2", "energy distance", "MMD²", "1-NN accuracy")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(seed: int, n: int, size: int = 28, channels: int = 1) -> Tensor:
    """Random smooth pictures, uint8."""
    coarse = torch.rand(n, channels, 7, 7, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")).to(torch.uint8)


def write(name: str, x: Tensor) -> str:
    np.savez(name, samples=x.numpy())
    return name


def report(*args: object) -> dict[str, Any]:
    return json.loads(works("evaluate", *args, "--json"))


def test_figures_of_points_are_those_of_the_library(here: Path) -> None:
    x, y = load("moons", n=60).x, load("moons", n=60, seed=1).x + 1
    write("x.npz", x)
    found = report(write("y.npz", y), "--data", "x.npz", "--draws", 5)
    assert tuple(found["figures"]) == POINTS and found["space"] == {"features": "coordinates", "dims": 2}
    assert found["figures"]["W2"]["value"] == pytest.approx(wasserstein(x, y).value)
    assert found["figures"]["energy distance"]["value"] == pytest.approx(energy_distance(x, y).value)
    assert all(row["n"] == row["m"] == 60 and row["floor"] is None for row in found["figures"].values())
    assert "fewer than 120" in found["notes"][0]


def test_the_report_says_what_was_measured(here: Path) -> None:
    write("y.npz", load("moons", n=50, seed=1).x)
    (here / "y.json").write_text(json.dumps({"settings": {"seed": 3}, "weights": "ema", "nfe": 7, "times": [1, 0]}))
    args = ["y.npz", "--data", "moons", "--option", "n=200", "--n", 40, "--draws", 3, "--seed", 4]
    found = report(*args, "--out", "report.json")
    assert {**json.loads(Path("report.json").read_text()), "seconds": 0} == {**found, "seconds": 0}
    real = load("moons", n=200)
    assert found["data"] == {
        "name": "moons", "split": "train", "options": {"n": 200}, "rows": 200, "n": 40, "sha256": real.sha256
    }  # fmt: skip
    samples = found["samples"]
    assert (samples["rows"], samples["n"], samples["sha256"]) == (50, 40, load("y.npz").sha256)
    assert samples["run"] == {"settings": {"seed": 3}, "weights": "ema", "nfe": 7}
    assert shlex.split(found["command"]) == ["scoresde", "evaluate", *map(str, args), "--out", "report.json", "--json"]
    assert (found["seed"], found["draws"], found["rounded_to_uint8"]) == (4, 3, False)
    assert found["dtype"] == {"samples": "float32", "data": "float32", "figures": "float64"}
    for row in found["figures"].values():
        assert row["low"] <= row["value"] <= row["high"] and row["by"] == "bootstrap of 3" and row["floor"] is not None
    assert {**report(*args), "seconds": 0, "command": ""} == {**found, "seconds": 0, "command": ""}
    assert report(*args[:-1], 5)["figures"] != found["figures"]
    text = works("evaluate", *args)
    assert "40 of 50 in y.npz" in text and all(name in text for name in POINTS) and "40 : 40" in text


def test_three_ranges_of_the_seeds_are_measured_where_there_are_samples_for_it(here: Path) -> None:
    """In the samples' own order: what another draw of n gives, not what another choice among these gives."""
    real, fake = load("moons", n=200).x, load("moons", n=190, seed=1).x
    fake[60:120] += 1
    data, samples = write("real.npz", real), write("fake.npz", fake)
    found = report(samples, "--data", data, "--n", 60)["figures"]
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:60].sort().values
    expected = [energy_distance(real[rows].double(), fake[60 * k : 60 * k + 60].double()).value for k in range(3)]
    assert found["energy distance"]["ranges"] == pytest.approx(expected, rel=1e-12)
    assert all(row["ranges"][1] > 2 * max(row["ranges"][::2]) for row in (found["W2"], found["energy distance"]))
    assert "3 ranges of 60" in works("evaluate", samples, "--data", data, "--n", 60)
    assert all(row["ranges"] is None for row in report(samples, "--data", data, "--n", 64)["figures"].values())


def test_figures_grow_with_a_shift_and_tell_a_lost_mode(here: Path) -> None:
    x = load("gaussians", n=80, seed=1).x
    data = ["--data", "gaussians", "--draws", 2]
    found = [report(write("y.npz", x + shift), *data)["figures"] for shift in (0.0, 0.5, 2.0)]
    for name in POINTS:
        values = [figures[name]["value"] for figures in found]
        assert values == sorted(values) and len(set(values)) == 3
    assert found[0]["modes covered"]["value"] == 1
    half = report(write("y.npz", x[x[:, 0] > 1.5]), *data)["figures"]["modes covered"]  # three of eight are there
    assert (half["value"], half["n"]) == (3 / 8, 8)
    noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))  # most lies between the modes
    figures = report(write("y.npz", noise), *data)["figures"]
    near, covered = figures["high-quality samples"], figures["modes covered"]
    assert covered["value"] < 0.5 and covered["floor"] == 1 and near["value"] < 0.1 and near["floor"] > 0.95


def test_images_are_compared_in_the_frozen_features_without_a_frechet_distance_of_few(here: Path) -> None:
    x, y, net = pictures(0, 40), pictures(1, 40), load_features()
    base = [write("y.npz", y), "--data", write("x.npz", x), "--draws", 2]
    found = report(*base)
    real, fake = net.features(x), net.features(y)
    assert found["space"] == {
        "features": "classifier", "sha256": net.sha256, "trained_on": "fashion_mnist", "dims": 64
    }  # fmt: skip
    assert list(found["figures"]) == ["KID", "precision", "recall", "density", "coverage"]
    assert any("FD-40 refused" in note and "--allow-small" in note for note in found["notes"])
    kid, error = kernel_distance(real, fake)
    row = found["figures"]["KID"]
    assert (row["value"], row["low"], row["high"]) == pytest.approx((kid, kid - 1.96 * error, kid + 1.96 * error))
    assert found["figures"]["recall"]["value"] == prdc(real, fake).recall
    assert found["memorisation"] is None and "--train" in found["notes"][-1]  # a file has no training set of its own
    small = report(*base, "--allow-small")["figures"]
    assert small["FD-40"]["value"] == pytest.approx(frechet_distance(real, fake, allow_small=True), rel=1e-6)
    assert report("x.npz", "--data", "x.npz", "--allow-small", "--draws", 2)["figures"]["FD-40"]["value"] < 1e-6
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    again = report(write("z.npz", y[order]), *base[1:], "--allow-small")["figures"]
    for name, row in again.items():
        assert row["value"] == pytest.approx(small[name]["value"], abs=1e-6, rel=1e-6)


def test_samples_are_rounded_as_they_would_be_saved_and_other_images_compared_by_pixels(here: Path) -> None:
    x, y = pictures(0, 30, 16, 3), pictures(1, 30, 16, 3)
    write("x.npz", x)
    found = report(write("y.npz", y), "--data", "x.npz", "--draws", 2)
    assert found["space"] == {"features": "pixels", "dims": 768} and not found["rounded_to_uint8"]
    assert "768 pixels" in found["notes"][0]
    rough = report(write("rough.npz", y.float() + 0.3), "--data", "x.npz", "--draws", 2)
    assert rough["rounded_to_uint8"] and rough["figures"] == found["figures"]
    assert "rounded to uint8" in works("evaluate", "rough.npz", "--data", "x.npz", "--draws", 2)
    grey = write("grey.npz", pictures(2, 30))
    assert report(grey, "--data", grey, "--features", "pixels", "--draws", 2)["space"]["dims"] == 784


class ThreeChannels(torch.nn.Module):
    """As much of torch-fidelity's network as is used: uint8 RGB images to a tuple of one set of features."""

    def __init__(self, name: str, features_list: list[str], path: str | None = None) -> None:
        super().__init__()
        if path is None:
            raise OSError("<urlopen error no network>")
        assert features_list == ["2048"] and Path(path).is_file()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 6 * 3).reshape(6, 3))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        assert x.dtype == torch.uint8 and x.shape[1] == 3
        return ((x.float().mean((2, 3)) + x[:, :, 3, 4].float()) @ self.weight.T,)


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(FeatureExtractorInceptionV3=ThreeChannels)
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)


@pytest.mark.usefixtures("fidelity")
def test_features_of_inception(here: Path) -> None:
    """Through a stand-in of torch-fidelity: any size, grey or not, in batches; figures in its space."""
    weights = here / "weights.pth"
    weights.touch()
    net = load_inception(weights)
    assert len(net.sha256) == 64 and not any(p.requires_grad for p in net.network.parameters())
    for channels in (1, 3):
        x = pictures(0, 30, 16, channels)
        whole = net.features(x)
        assert whole.shape == (30, 6) and torch.allclose(net.features(x, 7), whole)
        assert torch.equal(whole, net.features(x.expand(-1, 3, -1, -1)))
    for bad in (torch.zeros(3, 1, 8, 8), torch.zeros(3, 2, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8).byte()):
        with pytest.raises(BadInput, match="uint8 of shape"):
            net.features(bad)
    with pytest.raises(BadInput, match="no such file"):
        load_inception(here / "other.pth")
    images = write("images.npz", x)
    assert "weights cannot be loaded (<urlopen error no network>)" in fails(
        2, "evaluate", images, "--data", images, "--features", "inception"
    )


def test_inception_without_its_library_names_the_extra(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    images = write("images.npz", pictures(0, 30, 16, 3))
    command = ("evaluate", images, "--data", images, "--features", "inception")
    assert "pip install 'scoresde[inception]'" in fails(2, *command)


def test_features_are_kept_with_what_they_are_of(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = write("x.npz", pictures(0, 60)), write("y.npz", pictures(1, 40))
    cache = here / "cache"
    cache.mkdir()
    base = [y, "--data", x, "--draws", 2, "--n", 30]
    plain, first = report(*base), report(*base, "--cache", cache)
    assert first["figures"] == plain["figures"] and first["space"]["kept"] == 0
    files = sorted(cache.iterdir())
    assert len(files) == first["space"]["sets"] == 3
    about = [load_checkpoint(path)[1]["about"] for path in files]
    assert {each["network"]["sha256"] for each in about} == {load_features().sha256}
    assert {each["data"]["sha256"] for each in about} == {load(x).sha256, load(y).sha256}
    assert all(each["data"]["n"] == 30 and not each["rounded_to_uint8"] for each in about)
    with monkeypatch.context() as patch:  # nothing is computed again
        patch.setattr("scoresde.metrics.features.Features.features", lambda *_: pytest.fail("computed"))
        again = report(*base, "--cache", cache)
    assert again["figures"] == plain["figures"] and again["space"]["kept"] == 3
    assert "3 of 3 sets from the cache" in works("evaluate", *base, "--cache", cache)
    files[0].write_bytes(files[0].read_bytes()[:-9])  # damaged: made again
    mended = report(*base, "--cache", cache)
    assert mended["figures"] == plain["figures"] and mended["space"]["kept"] == 2
    assert report(*base, "--cache", cache)["space"]["kept"] == 3
    write("y.npz", pictures(2, 40))  # the file's name is none of its content
    assert report(*base, "--cache", cache)["space"]["kept"] == 2
    assert report(*base, "--seed", 1, "--cache", cache)["space"]["kept"] == 0


def test_a_classifier_of_a_file(here: Path) -> None:
    """Trained elsewhere: its features, its SHA-256, and what it was trained on."""
    tensors, info = load_checkpoint(SHIPPED)
    own = {**info, "data": {"name": "bags"}}
    save_checkpoint(here / "own.safetensors", {key: 0.5 * tensor for key, tensor in tensors.items()}, own)
    x, y = write("x.npz", pictures(0, 40)), write("y.npz", pictures(1, 40))
    found = report(y, "--data", x, "--features", "own.safetensors", "--draws", 2)
    net = load_features("own.safetensors")
    assert found["space"] == {
        "features": "own.safetensors", "sha256": net.sha256, "trained_on": "bags", "dims": 64
    }  # fmt: skip
    value = kernel_distance(net.features(load(x).x), net.features(load(y).x)).value
    assert found["figures"]["KID"]["value"] == pytest.approx(value)
    assert net.sha256 != load_features().sha256


def test_samples_larger_than_memory_are_read_in_pieces(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = write("x.npz", pictures(0, 40)), pictures(1, 40).float() + 0.2
    np.save("y.npy", y.numpy())
    plain = report("y.npy", "--data", x, "--draws", 2)
    monkeypatch.setattr("scoresde.data.dataset.LARGE", 1000)
    monkeypatch.setattr("scoresde.data.dataset.PIECE", 28 * 28 * 16)
    taken: list[int] = []
    take = Streamed.take
    monkeypatch.setattr(Streamed, "take", lambda self, rows: taken.append(len(rows)) or take(self, rows))
    streamed = report("y.npy", "--data", x, "--draws", 2)
    assert max(taken) == 16 and streamed["rounded_to_uint8"]
    for name, row in streamed["figures"].items():
        assert row["value"] == pytest.approx(plain["figures"][name]["value"], abs=1e-6, rel=1e-6)


def test_what_the_command_refuses(here: Path) -> None:
    points, images = write("points.npz", load("moons", n=30).x), write("images.npz", pictures(0, 30))
    other, wide = write("small.npz", pictures(0, 30, 16)), write("wide.npz", torch.zeros(30, 3))
    write("few.npz", torch.zeros(5, 2))
    write("unit.npz", pictures(0, 30) / 255)
    write("wild.npz", pictures(0, 30).float() * 16 - 2000)
    write("nan.npz", torch.full((30, 2), torch.nan))
    Path("empty").mkdir()
    Path("taken.json").mkdir()
    Path("torn.npz").write_bytes(Path(points).read_bytes()[:60])
    for args, words in [
        ([points], "--data"),
        (["none.npz", "--data", points], "no such file"),
        (["nan.npz", "--data", points], "row 0 (counted from 0) has a NaN"),
        (["empty", "--data", points], "empty"),
        (["torn.npz", "--data", points], "torn.npz"),
        ([images, "--data", images, "--cache", "nowhere"], "no such folder"),
        ([images, "--data", images, "--cache", ""], "--cache '': no such folder"),
        ([images, "--data", images, "--out", "taken.json"], "--out taken.json: a folder has that name"),
        ([images, "--data", images, "--features", "no.safetensors"], "no such file"),
        ([points, "--data", "monos"], "did you mean 'moons'"),
        ([points, "--data", wide], "(2,), wide of (3,)"),
        ([points, "--data", points, "--split", "test"], "no split 'test'"),
        (["few.npz", "--data", points], "5 events are too few"),
        ([points, "--data", points, "--n", 31], "30 samples"),
        ([points, "--data", points, "--n", 3], "at least 20"),
        ([images, "--data", images, "--features", "clasifier"], "did you mean 'classifier'"),
        ([points, "--data", points, "--features", "classifier"], "holds no images"),
        ([other, "--data", other, "--features", "classifier"], "use pixels"),
        ([images, "--data", "unit.npz"], "in one unit"),
        (["unit.npz", "--data", images], "in [0.003922, 0.9961], but pixels 0 to 255 are needed"),
        ([points, "--data", points, "--train", points], f"--train {points}: points holds no images"),
        ([images, "--data", images, "--train", images], "it is DATA itself"),
        ([images, "--data", images, "--train", other], "events of (1, 16, 16), images torch.uint8 of (1, 28, 28)"),
        ([images, "--data", images, "--train", "unit.npz"], "it holds torch.float32"),
        ([images, "--data", images, "--train", "mnits"], "did you mean 'mnist'"),
        (["wild.npz", "--data", images], "its values are in [-1984, "),
        ([points, "--data", points, "--out", "a.txt"], "must end in .json"),
        ([points, "--data", points, "--out", "no/a.json"], "no folder"),
    ]:
        assert words in fails(2, "evaluate", *args), args


@pytest.mark.parametrize("where", [("--out", "a.json"), ("--cache", ".")])
def test_what_cannot_be_written_is_told_before_any_figure(
    where: tuple[str, str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **how: object) -> None:
        raise PermissionError(13, "Permission denied")

    points = write("points.npz", load("moons", n=30).x)
    monkeypatch.setattr("scoresde.cli.evaluate.measure", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert "cannot write into '.': Permission denied" in fails(5, "evaluate", points, "--data", points, *where)
    assert [path.name for path in here.iterdir()] == [points]


def test_figures_are_told_where_the_report_cannot_be_written(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OutputError("cannot write 'a.json': No space left on device")

    points = write("points.npz", load("moons", n=30).x)
    monkeypatch.setattr("scoresde.checkpoint.write_atomically", refuse)
    done = run("evaluate", points, "--data", points, "--draws", 2, "--out", "a.json")
    assert done.exit_code == 5 and "energy distance" in done.stdout and "a.json" not in done.stdout


def test_the_size_that_is_taken_by_default_is_told() -> None:
    told = " ".join(works("evaluate", "--help").split())
    assert f"the smaller side's, at most {MOST_IMAGES} images or {MOST_POINTS} points" in told


def test_groups_of_figures_share_one_computation() -> None:
    calls: list[int] = []

    def both(a: Tensor, b: Tensor) -> list[float]:
        calls.append(len(a))
        return [1.0, float(len(b))]

    x, told = torch.zeros(20, 1), list[int]()
    rows = compare([Group(("one", "two"), both)], x, x, x[:10], draws=4, done=told.append)
    assert [row[:2] + row[4:] for row in rows] == [
        ("one", 1, "bootstrap of 4", 1, 20, 20), ("two", 20, "bootstrap of 4", 10, 20, 20)
    ]  # fmt: skip
    assert len(calls) == 6 and sum(told) == 4
    assert [frechet_name(n) for n in (1000, 2048, 50_000)] == ["FD-1k", "FD-2048", "FD-50k"]


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0])
def test_intervals_stay_in_the_range_of_their_figure(shift: float) -> None:
    """Half-samples reach beyond 0 and 1 where a figure is near them; distances of no bias may be below 0."""
    x, y = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    ends = {"precision": 1, "recall": 1, "coverage": 1, "1-NN accuracy": 1, "density": math.inf}
    ends |= dict.fromkeys(("W2", "sliced W2", "FD-40"), math.inf)
    rows = compare([*point_groups(x, y + shift), *feature_groups(40)], x, y + shift, draws=20)
    bounded = [row for row in rows if row.name in ends]
    assert len(bounded) == len(ends)
    assert all(0 <= row.low <= row.value <= row.high <= ends[row.name] for row in bounded)
    if not shift:
        assert any(row.low < 0 for row in rows) and any(row.high == 1 for row in rows)


def test_copies_of_a_named_training_set_are_found(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the distances of the library; where no set is named or known, one note says why there are none."""
    x, train, y = pictures(0, 40), pictures(1, 60), pictures(2, 30)
    y[:12] = train[:12]
    base = [write("y.npz", y), "--data", write("x.npz", x), "--draws", 2]
    found = report(*base, "--n", 30, "--train", write("train.npz", train))
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:30].sort().values
    want = memorisation(y, train, x[rows])._asdict()
    assert want["smallest"] == 0 and want["closer"] == pytest.approx(0.4, abs=0.1)
    assert found["memorisation"] == {**want, "n": 30, "train": 60, "data": "train", "sha256": load("train.npz").sha256}
    assert not any("copies" in note for note in found["notes"])
    assert "nearest" in works("evaluate", *base, "--train", "train.npz")
    (note,) = [note for note in report(*base)["notes"] if "copies" in note]
    assert note == "copies were not looked for: no training set of x is known; name it by --train"
    sets = {"train": Dataset(train, name="set/train"), "test": Dataset(x, name="set/test")}
    monkeypatch.setitem(SPLITS, "set", (lambda split: sets[split], ("train", "test")))
    named = [base[0], "--data", "set", "--draws", 2, "--n", 30]
    assert report(*named, "--split", "test")["memorisation"] == {
        **found["memorisation"], "data": "set/train", "sha256": sets["train"].sha256
    }  # fmt: skip
    text = works("evaluate", *named)
    assert "note: copies were not looked for: DATA is the training set; give held-out images" in text
    assert "--train set: it is DATA itself" in fails(2, "evaluate", *named, "--train", "set")
