"""Files that can be drawn again, and states that are saved on the way."""

from __future__ import annotations

import errno
import json
import math
import re
import shlex
import shutil
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import fails, works

import scoresde
from scoresde.cli import draw, record, save
from scoresde.samplers import SAMPLERS, job, registry
from scoresde.samplers.multistep import ddim

pytestmark = pytest.mark.usefixtures("here")


def names(folder: str = "samples") -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def the(pattern: str, folder: str = "samples") -> Path:
    (path,) = Path(folder).glob(pattern)
    return path


def samples(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["samples"]


def record_of(folder: str = "samples") -> dict[str, Any]:
    return json.loads(the("*.json", folder).read_text(encoding="utf-8"))


# ----------------------------------------------------------------------------------------------------------- save-every


@pytest.mark.parametrize("every", [1, 3, 4, 100])
@pytest.mark.parametrize("batch", [5, 2])
def test_saved_states_are_those_of_the_run(every: int, batch: int, points: Path) -> None:
    works("sample", "--model", points, "--sampler", "ddpm", "--steps", 8, "--num", 5, "--out", "plain")
    args = ("--sampler", "ddpm", "--steps", 8, "--num", 5, "--save-every", every, "--batch-size", batch)
    text = works("sample", "--model", points, *args)
    assert names() == {f"moons-ddpm-8-seed0{end}" for end in ENDS} and all(name in text for name in names())
    states, model = np.load(the("*.npy")), scoresde.load_model(points)
    kept = [i for i in range(8) if (i + 1) % every == 0 or i == 7]
    assert states.dtype == np.float32 and states.shape == (len(kept), 5, 2)
    steps = list(scoresde.trajectory(model.denoiser, (5, 2), "ddpm", 8))
    want = torch.stack([model.scaler.decode(steps[i].x) for i in kept])
    np.testing.assert_allclose(states, want.numpy(), rtol=1e-5, atol=1e-5)  # batches round apart
    assert record_of()["saved_times"] == [steps[i].t_next for i in kept] and record_of()["save_every"] == every
    np.testing.assert_array_equal(states[-1], samples(the("*.npz")))
    if batch == 5:  # saving changes nothing
        np.testing.assert_array_equal(samples(the("*.npz")), samples(the("*.npz", "plain")))
    with Image.open(the("*-trajectory.png")) as picture:
        assert picture.size == (len(kept) * 240, 224)


ENDS = (".png", ".npz", ".json", "-trajectory.npy", "-trajectory.png")


def test_saved_states_of_images(images: Path) -> None:
    works("sample", "--model", images, "--sampler", "ddim", "--steps", 30, "--num", 9, "--save-every", 2)
    states = np.load(the("*.npy"))
    assert (
        states.shape == (15, 9, 1, 8, 8) and states.min() < 0 < 255 < states.max()
    )  # in the data's units, not clipped
    with Image.open(the("*-trajectory.png")) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (20 + 8 * 60 + 4, 12 * 60 + 4)  # a title, eight images, twelve steps
    last = pixels[24 : 24 + 56 : 7, 11 * 60 + 4 : 11 * 60 + 60 : 7]
    np.testing.assert_array_equal(last, samples(the("*.npz"))[0, 0])


@pytest.mark.parametrize("batch", [6, 4])
def test_saved_states_of_an_adaptive_run(batch: int, points: Path) -> None:
    args = ("--model", points, "--adaptive", "--num", 6, "--rtol", "1e-3", "--atol", "1e-3", "--batch-size", batch)
    works("sample", *args, "--save-every", 2)
    works("sample", *args, "--out", "plain")
    states, times = np.load(the("*.npy")), record_of()["saved_times"]
    np.testing.assert_array_equal(samples(the("*.npz")), samples(the("*.npz", "plain")))
    np.testing.assert_array_equal(states[-1], samples(the("*.npz")))
    each = [times] if batch == 6 else times  # each batch has steps of its own
    assert len(each) == -(-6 // batch)
    for one in each:
        assert len(one) == len(states) > 2 and one[-1] == 1e-3 and all(a >= b for a, b in pairwise(one))


def test_states_of_samplers_that_store_no_grid_of_their_own(points: Path) -> None:
    """A list of times, and an end by an extra call."""
    works("sample", "--model", points, "--sampler", "eab2", "--times", "1,0.6,0.2,0.1,0", "--num", 2, "--save-every", 3)
    assert record_of()["saved_times"] == [0.1, 0.0]
    works("sample", "--model", points, "--steps", 3, "--final", "denoise", "--save-every", 1, "--num", 2, "--out", "d")
    assert record_of("d")["saved_times"][-2:] == [1e-3, 0.0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("sampler", ["ddpm", "ode"])
def test_an_interrupt_leaves_nothing(
    sampler: str, number: signal.Signals, points: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
    for cls in (save.Trajectory, save.AdaptiveTrajectory):
        add = cls.add

        def interrupted(self: save.Trajectory, i: int, *rest: Any, add: Any = add) -> None:
            add(self, i, *rest)
            if i == 3:
                assert any(path.name.endswith(".partial") for path in Path("samples").iterdir())
                signal.raise_signal(number)

        monkeypatch.setattr(cls, "add", interrupted)
    steps = ["--steps", "9"] if sampler == "ddpm" else []
    try:
        fails(130, "sample", "--model", points, "--sampler", sampler, *steps, "--num", 3, "--save-every", 1)
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert not list(here.iterdir()) and signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_at_the_end_leaves_nothing(points: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(draw, "write_together", interrupted)
    fails(130, "sample", "--model", points, "--steps", 3, "--save-every", 1)
    assert not list(here.iterdir())


def test_a_full_disk_leaves_nothing(points: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("_write", "complete"):
        with monkeypatch.context() as patch:
            patch.setattr(save.Trajectory, name, full)
            line = fails(5, "sample", "--model", points, "--steps", 3, "--save-every", 1)
            assert "No space left on device" in line
        assert not list(here.iterdir())


# --------------------------------------------------------------------------------------------------------------- replay


RUNS = [
    "--sampler ode --steps 4",
    "--adaptive --rtol 1e-3 --atol 1e-3",
    "--sampler ddim --eta 0.3 --steps 5 --grid karras --final t_min --seed 7",
    "--sampler ddpm --nfe 6 --index 2",
    "--sampler pc --predictor ddim --snr 0.1 --steps 3 --dtype float64",
    "--sampler eab3 --sigmas 80,24,6,1.5,0.3,0",
    "--sampler dpm++2m --steps 4 --start 2",
    "--sampler ddim --steps 4 --clip-x0 -1,1 --batch-size 2",
    "--sampler ddim --steps 4 --noise device --save-every 2",
    "--sampler em --times 1,0.7,0.3,0.1,0 --weights raw",
]


@pytest.mark.parametrize("args", RUNS)
def test_replay_draws_the_same(args: str, points: Path) -> None:
    model = points / "checkpoint.safetensors"
    works("sample", "--model", model, "--num", 5, *shlex.split(args))
    before = names()
    for name in before:
        text = works("replay", f"samples/{name}", "--out", "again")
        assert f"samples are bitwise equal to {the('*.npz').name}" in text
        assert names("again") == before
    first, second = record_of(), record_of("again")
    assert second.pop("command").startswith("scoresde replay samples/") and first.pop("command")
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


@pytest.mark.parametrize("class_", [None, "bag", "none"])
def test_replay_of_classes(class_: str | None, images: Path) -> None:
    chosen = [] if class_ is None else ["--class", class_]
    works("sample", "--model", images, "--sampler", "ddpm", "--steps", 3, "--num", 4, *chosen)
    works("replay", the("*.png"), "--out", "again")
    for pattern in ("*.png", "*.npz"):
        assert the(pattern).read_bytes() == the(pattern, "again").read_bytes()


def test_replay_beside(points: Path) -> None:
    works("sample", "--model", points, "--steps", 2, "--num", 3, "--save-every", 1)
    text = works("replay", the("*-trajectory.png"))
    for _ in range(2):
        assert names() == {f"moons-ode-2-seed0{again}{end}" for end in ENDS for again in ("", "-replay")}
        assert "bitwise equal" in text
        text = works("replay", the("*0.npz"), "--out", "samples")
    assert "bitwise equal" in works("replay", the("*-replay.npz"))  # a replay is a run like any other


def test_replay_finds_a_model_that_moved(points: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(points, "moved")
    works("sample", "--model", "moved", "--steps", 2, "--num", 3)
    shutil.move("moved", "elsewhere")
    assert "no model 'moved'" in fails(2, "replay", the("*.npz"))
    assert "bitwise equal" in works("replay", the("*.npz"), "--model", "elsewhere")


def test_replay_says_what_differs(points: Path) -> None:
    works("sample", "--model", points, "--steps", 2, "--num", 3)
    npz, path = the("*.npz"), the("*.json")
    x = samples(npz)
    np.savez(npz, samples=x + np.float32(0.5))
    text = works("replay", path)
    assert "differ from moons-ode-2-seed0.npz by at most 0.5" in text and "torch" not in text
    facts = record_of_path(path)
    facts["settings"]["torch"] = "1.0"
    path.write_text(json.dumps(facts))
    assert f"(torch 1.0 then, {torch.__version__} now)" in works("replay", path)
    np.savez(npz, samples=x + np.float32(math.nan))
    assert "differ from moons-ode-2-seed0.npz by at most inf" in works("replay", path)
    np.savez(npz, samples=x[:2])
    assert "differ from moons-ode-2-seed0.npz in shape" in works("replay", path)
    npz.unlink()
    assert "nothing to compare with" in works("replay", path)


def record_of_path(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_replay_refuses_another_model(points: Path, images: Path) -> None:
    works("sample", "--model", points, "--steps", 2, "--num", 3)
    before = names()
    line = fails(2, "replay", the("*.npz"), "--model", images)
    assert "made by another model" in line and scoresde.load_model(images).info["sha256"][:12] in line
    assert names() == before


def test_replay_refuses_another_revision(points: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works("sample", "--model", points, "--sampler", "ddim", "--steps", 2, "--num", 3)
    path = the("*.json")
    facts = record_of_path(path)
    facts["settings"]["revision"] = 41
    path.write_text(json.dumps(facts))
    line = fails(2, "replay", path)
    assert "revision 41" in line and f"revision {SAMPLERS['ddim'].revision}" in line


def test_replay_refuses_another_grid(points: Path) -> None:
    works("sample", "--model", points, "--sampler", "ddim", "--steps", 2, "--num", 3)
    path = the("*.json")
    facts = record_of_path(path)
    facts["times"][1] *= 1 + 1e-6
    path.write_text(json.dumps(facts))
    assert repr(SAMPLERS["ddim"].defaults(2)[0]) in fails(2, "replay", path)


DAMAGES = [
    (lambda text: "", "not JSON"),
    (lambda text: text[:100], "not JSON"),
    (lambda text: "[1]", "should be an object"),
    (lambda text: "{}", "model"),
    (lambda text: text.replace('"num": 3', '"num": "three"'), "num"),
    (lambda text: text.replace('"num": 3', '"num": 0'), "num"),
    (lambda text: text.replace('"seed": 0', '"seed": null'), "settings.seed"),
    (lambda text: text.replace('"dtype": "float32"', '"dtype": "float16"'), "settings.dtype"),
    (lambda text: text.replace('"device": "cpu"', '"device": "tpu"'), "settings.device"),
    (lambda text: text.replace('"sampler": "ddim"', '"sampler": "dimm"'), "did you mean 'ddim'?"),
    (lambda text: text.replace('"eta": 0.0', '"eat": 0.0'), "did you mean 'eta'?"),
    (lambda text: text.replace('"eta": 0.0', '"eta": "x"'), "must be a number"),
    (lambda text: re.sub(r'"grid": ".*"', '"grid": "pih"', text), "did you mean 'phi'?"),
    (lambda text: text.replace('"noise": "cpu"', '"noise": "cup"'), "did you mean 'cpu'?"),
    (lambda text: text.replace('"class": null', '"class": "bag"'), "has no classes"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES, ids=range(len(DAMAGES)))
def test_replay_refuses_damaged_records(damage: Any, words: str, points: Path) -> None:
    works("sample", "--model", points, "--sampler", "ddim", "--steps", 2, "--num", 3)
    path = the("*.json")
    text = path.read_text(encoding="utf-8")
    path.write_text(damage(text), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != text
    before = names()
    assert words in fails(2, "replay", the("*.png"), "--out", "again")
    assert names() == before and not Path("again").exists()


def flipped(content: bytes, k: int, bits: int = 255) -> bytes:
    return content[:k] + bytes([content[k] ^ bits]) + content[k + 1 :]


def test_replay_of_what_is_no_run(points: Path) -> None:
    assert "no such file" in fails(2, "replay", "nowhere.png")
    Path("alone-trajectory.npy").write_bytes(b"")
    assert "alone.json is not beside it" in fails(2, "replay", "alone-trajectory.npy")
    Path("alone.json").write_bytes(b"\xff\xfe\xff")
    assert "not JSON" in fails(2, "replay", "alone-trajectory.npy")
    works("sample", "--model", points, "--steps", 2, "--num", 3)
    whole = the("*.npz").read_bytes()
    for damaged in (b"PK\x03\x04 cut", whole.replace(b"PK\x01\x02", b"PK\x01\x03"), flipped(whole, 61)):
        the("*.npz").write_bytes(damaged)
        assert "holds no samples" in fails(2, "replay", the("*.png"))
    np.savez(the("*.npz"), samples=np.array(["a"]))
    assert "holds no samples" in fails(2, "replay", the("*.png"))
    assert names() == {f"moons-ode-2-seed0.{end}" for end in ("png", "npz", "json")}


def test_records_are_json_for_everyone(points: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An infinite option is a word in the record, and a number again when it is drawn again."""
    seen: list[float] = []

    def build(sde: scoresde.SDE, times: tuple[float, ...], *, most: float = math.inf, flag: bool = True) -> object:
        seen.append(most)
        return ddim(sde, times)

    monkeypatch.setitem(registry.SAMPLERS, "odd", registry.Sampler("odd", build, 1, False, "n", "in tests", 3))
    works("sample", "--model", points, "--sampler", "odd", "--num", 2, "--flag", "false")
    text = the("*.json").read_text(encoding="utf-8")
    facts = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert facts["settings"]["options"] == {"most": "inf", "flag": False}
    seen.clear()
    assert "bitwise equal" in works("replay", the("*.npz"))
    assert set(seen) == {math.inf}
    assert "flag must be true or false" in fails(2, "sample", "--model", points, "--sampler", "odd", "--flag", "no")


def test_old_records_can_be_replayed(points: Path) -> None:
    """Those written before there were saved states and analytic starts."""
    works("sample", "--model", points, "--sampler", "ddim", "--steps", 2, "--num", 3)
    path = the("*.json")
    facts = record_of_path(path)
    for key in ("save_every", "saved_times"):
        del facts[key]
    del facts["settings"]["start"]
    path.write_text(json.dumps(facts))
    assert record.read_record(path).save_every is None
    assert "bitwise equal" in works("replay", path)


# -------------------------------------------------------------------------------------------------------- start, noise


def test_start_and_noise_reach_the_library(points: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works("sample", "--model", points, "--sampler", "ddim", "--steps", 4, "--num", 3, "--start", 2)
    model, facts = scoresde.load_model(points), record_of()
    want = scoresde.sample(model.denoiser, (3, 2), "ddim", 4, start=model.start(2.0))
    np.testing.assert_array_equal(samples(the("*.npz")), model.scaler.decode(want.x).numpy())
    lam = model.sde.knots([model.sde.t_max, facts["times"][0]]).lam
    assert lam[1] - lam[0] == pytest.approx(2) and facts["settings"]["start"] == 2
    source = job.SOURCES["cpu"]
    monkeypatch.setitem(job.SOURCES, "brownian", lambda seed, indices, solver: source(seed + 1, indices, solver))
    for flags in (["--seed", 3, "--noise", "brownian"], ["--seed", 4]):
        works(
            "sample", "--model", points, "--sampler", "ddpm", "--steps", 3, "--num", 2, *flags, "--out", str(flags[1])
        )
    np.testing.assert_array_equal(samples(the("*.npz", "3")), samples(the("*.npz", "4")))
    assert record_of("3")["settings"]["noise"] == "brownian"
