"""Edits and encodings done again: by what went in, whatever its name, and what is said of every file."""

from __future__ import annotations

import io
import json
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import fails, works
from test_cli_replay import flipped, record_of_path, the

import scoresde
from scoresde.cli import again

pytestmark = pytest.mark.usefixtures("here")


def picture(name: str, seed: int = 0, mask: bool = False) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    if mask:
        pixels[:] = np.where(np.arange(8) < 3 + seed, 0, 255)
    Image.fromarray(pixels).save(name)
    return name


def edited(images: Path) -> Path:
    """The record of an edit of boot.png in three files."""
    picture("boot.png")
    works("edit", "boot.png", "--model", images, "--sampler", "ddpm", "--steps", 2, "--num", 2, "--out", "was")
    return the("*.json", "was")


def encoded(points: Path) -> Path:
    works("sample", "--model", points, "--steps", 2, "--num", 3)
    works("encode", the("*.npz"), "--model", points, "--sampler", "ddim", "--steps", 2, "--out", "was")
    return the("*.json", "was")


def never(monkeypatch: pytest.MonkeyPatch, *commands: str) -> None:
    """Let a test fail if one of these commands runs."""
    for name in commands:
        monkeypatch.setattr(f"scoresde.cli.{name}.command.callback", lambda *_, **__: pytest.fail("it ran"))


TYPED = [
    "edit boot.png",
    "edit ./boot.png",
    "edit sub/../boot.png",
    "edit sub//boot.png",
    "edit x=y.png",
    "edit ./--x=y.png",
    "edit --seed 3 -- --x=y.png",
    "inpaint ./x=y.png --mask ./m=n.png --method replacement",
    "inpaint x=y.png --mask=./m=n.png --method replacement",
    "interpolate ./a=.png =b.png --num 2 --sampler heun",
    "restore ./boot=.png --operator mask:0.5",
]


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("where", ["moved", "there"])
def test_a_replay_finds_what_went_in_however_it_was_typed(
    typed: str, where: str, images: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the record, where the working folder holds other files of these names; or where it was."""
    Path("sub").mkdir()
    command, *words = shlex.split(typed)
    files = [Path(word.removeprefix("--mask=")) for word in words if word.endswith(".png")]
    for k, file in enumerate(files):
        picture(str(file), k, mask="m=n" in file.name)
    how = ("--model", images, "--steps", 2, "--out", "was")
    works(command, *how, *words)
    if where == "moved":
        Path("new/sub").mkdir(parents=True)
        for file in files:
            shutil.move(file, "was" / Path(file.name))
        monkeypatch.chdir("new")
        for k, file in enumerate(files):
            picture(str(file), 2 + k, mask="m=n" in file.name)
    text = works("replay", the("*.json", str(here / "was")), "--out", "again")
    assert text.splitlines()[-1].startswith("files are bitwise equal to those of ")
    assert "bitwise equal" in works("replay", the("*.json", "again"), "--out", "once-more")


def test_a_replay_of_an_encoding_finds_its_file(points: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works("sample", "--model", points, "--steps", 2, "--num", 3)
    the("*.npz").rename("a=b.npz")
    works("encode", "./a=b.npz", "--model", points, "--sampler", "ddim", "--steps", 2, "--out", "was")
    shutil.move("a=b.npz", "was")
    Path("new").mkdir()
    monkeypatch.chdir("new")
    np.savez("a=b.npz", samples=np.zeros((3, 2), np.float32))
    assert "bitwise equal" in works("replay", the("*.json", "../was"), "--out", "again")


@pytest.mark.parametrize("other", ["other.png", "./other.png"])
def test_a_replay_refuses_another_input(other: str, images: Path) -> None:
    path = edited(images)
    picture("other.png", 1)
    facts = record_of_path(path)
    path.write_text(json.dumps({**facts, "command": facts["command"].replace("boot.png", other)}))
    assert "'image' is not what it was" in fails(2, "replay", path, "--out", "again")
    assert not Path("again").exists()


def other_bytes(path: Path) -> None:
    with Image.open(path) as image:
        image.convert("RGB").save(path, compress_level=0)


def one_pixel(path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[0, 0] ^= 8
    Image.fromarray(pixels).save(path)


CHANGES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["files are bitwise equal to those of {}"]),
    ({"*.png": other_bytes}, ["files hold the same numbers as those of {}, in other bytes"]),
    (
        {"*-1.png": other_bytes},
        [
            "2 of 3 files are bitwise equal to those of {}",
            "1 of 3 files hold the same numbers as those of {}, in other bytes",
        ],
    ),
    (
        {"*-1.png": other_bytes, "*-2.png": one_pixel},
        [
            "1 of 3 files are bitwise equal to those of {}",
            "1 of 3 files hold the same numbers as those of {}, in other bytes",
            "1 of 3 files differ from those of {} by at most 8",
        ],
    ),
    ({"*.png": one_pixel}, ["files differ from those of {} by at most 8"]),
]


@pytest.mark.parametrize(("changes", "said"), CHANGES, ids=range(len(CHANGES)))
def test_a_replay_speaks_of_every_file(changes: dict[str, Any], said: list[str], images: Path) -> None:
    path = edited(images)
    for pattern, change in changes.items():
        for file in Path("was").glob(pattern):
            change(file)
    assert works("replay", path, "--out", "again").splitlines()[4:] == [line.format(path.name) for line in said]


NAN = math.nan
ARRAYS: list[tuple[Any, str]] = [
    (lambda x: x, "files hold the same numbers as those of {}, in other bytes"),
    (lambda x: x.astype(np.float64), "files hold the same numbers as those of {}, in other bytes"),
    (lambda x: x + np.float32(NAN), "files differ from those of {} by at most inf"),
    (lambda x: np.where(x == x.max(), np.float32(NAN), x), "files differ from those of {} by at most inf"),
    (lambda x: x[:1], "files differ from those of {} by at most inf"),
    (lambda x: x[:0], "files differ from those of {} by at most inf"),
    (lambda x: np.round(x) + (x - np.round(x)) + 256, "files differ from those of {} by at most 256"),
    (lambda x: x.astype(str), "nothing to compare with: {} is damaged"),
]


@pytest.mark.parametrize(("change", "said"), ARRAYS, ids=range(len(ARRAYS)))
def test_a_replay_of_an_encoding_compares_numbers(change: Any, said: str, points: Path) -> None:
    path = encoded(points)
    npz = path.with_suffix(".npz")
    with np.load(npz) as file:
        latent = file["latent"]
    np.savez(npz, latent=change(latent))
    name = npz.name if "damaged" in said else path.name
    assert works("replay", path, "--out", "again").splitlines()[2:] == [said.format(name)]


@pytest.mark.parametrize("kinds", [("f4", "f8"), ("f8", "f8"), ("i8", "f4"), ("u1", "u1"), ("?", "u1")])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4)])
def test_the_gap_of_two_arrays(kinds: tuple[str, str], shape: tuple[int, ...]) -> None:
    """That of the definition, number by number."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pair: list[np.ndarray] = []
        for kind in kinds:
            values: Any = [0, 1, 2, 200, *([NAN, math.inf, -math.inf] if kind[0] == "f" else [])]
            pair.append(rng.choice(np.array(values, kind), shape))
        want = 0.0
        for a, b in zip(*(x.ravel().tolist() for x in pair), strict=True):
            same = a == b or (math.isnan(a) and math.isnan(b))
            want = max(want, 0.0 if same else abs(float(a) - b) if math.isfinite(a) and math.isfinite(b) else math.inf)
        assert again.gap(*pair) == again.gap(*pair[::-1]) == want


@pytest.mark.parametrize("end", [".png", ".npz"])
def test_a_damaged_file_is_told_or_compared(end: str) -> None:
    """Any byte of it changed, or cut anywhere."""
    buffer = io.BytesIO()
    if end == ".png":
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "PNG")
    else:
        np.savez_compressed(buffer, latent=np.arange(6, dtype=np.float32), labels=np.arange(3))
    content = buffer.getvalue()
    assert again.farthest(end, content, content) == 0
    damaged = [content[:n] for n in range(len(content))]
    damaged += [flipped(content, k, bits) for k in range(len(content)) for bits in (1, 128)]
    found = [again.farthest(end, each, content) for each in damaged]
    assert found.count(None) > len(found) / 2 and all(off is None or off >= 0 for off in found)


LACKS: list[tuple[Any, str]] = [
    *(
        (lambda facts, key=key: facts.pop(key), f"{key}: Field required")
        for key in ("settings", "sha256", "model", "command")
    ),
    *((lambda facts, value=value: facts.update(settings=value), "settings: Input") for value in (None, [], "x", 3)),
    (lambda facts: facts["settings"].update(device=3), "settings.device"),
    (lambda facts: facts["settings"].update(device="tpu"), "settings.device"),
    (lambda facts: facts.update(weights=None), "weights"),
    (lambda facts: facts.update(command=["scoresde", "edit"]), "command"),
]


@pytest.mark.parametrize("kind", ["edit", "encode"])
@pytest.mark.parametrize(("damage", "said"), LACKS, ids=range(len(LACKS)))
def test_a_damaged_record_is_refused_before_the_run(
    kind: str, damage: Any, said: str, images: Path, points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edited(images) if kind == "edit" else encoded(points)
    facts = record_of_path(path)
    damage(facts)
    path.write_text(json.dumps(facts))
    never(monkeypatch, kind)
    line = fails(2, "replay", path, "--out", "again")
    assert f"is no whole record of a run: {said}" in line and not Path("again").exists()


@pytest.mark.parametrize("image", [None, {}, {"file": "boot.png"}, {"file": 3, "sha256": "x"}, "boot.png", []])
def test_a_record_without_its_inputs_is_refused_before_the_run(
    image: object, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edited(images)
    path.write_text(json.dumps({**record_of_path(path), "image": image}))
    never(monkeypatch, "edit")
    line = fails(2, "replay", path, "--out", "again")
    assert "is no whole record of a run" in line and "image" in line and not Path("again").exists()


@pytest.mark.parametrize("kind", ["edit", "encode"])
def test_a_replay_refuses_another_model_before_the_run(
    kind: str, images: Path, points: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = (edited(images), points) if kind == "edit" else (encoded(points), images)
    never(monkeypatch, kind)
    line = fails(2, "replay", path, "--model", other, "--out", "again")
    now, then = scoresde.load_model(other).info["sha256"][:12], record_of_path(path)["sha256"][:12]
    assert f"{str(path)!r} was made by another model: {str(other)!r} has SHA-256 {now}…, the record {then}…" in line
    assert line.endswith("give the right one by --model") and not Path("again").exists()


def test_a_replay_of_an_edit_says_what_setting_is_another(images: Path) -> None:
    path = edited(images)
    facts = record_of_path(path)
    facts["settings"]["seed"] = 5
    path.write_text(json.dumps(facts))
    assert "'settings.seed' is not what it was: 5 then, 0 now" in fails(2, "replay", path, "--out", "again")
