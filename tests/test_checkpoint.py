"""Checkpoints and models: exact, atomic, sealed; every damage is one line, and nothing is ever unpickled."""

from __future__ import annotations

import ast
import errno
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

import scoresde
from scoresde import BadInput, OutputError, load_model, model
from scoresde.checkpoint import FORMAT, digest, group, load_checkpoint, prefixed, save_checkpoint, write_atomically
from scoresde.config import parse_config
from scoresde.data import Dataset
from scoresde.model import export_model, find_model
from scoresde.train import train

INFO = {"step": 7, "nested": {"lr": 1e-3, "names": ["α", "b"]}, "none": None, "inf": math.inf}


def tensors_of_all_kinds() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, generator=generator)
    return {
        **{f"raw/{dtype}": (100 * x).to(dtype) for dtype in (torch.float32, torch.float64, torch.float16)},
        **{f"raw/{dtype}": (100 * x).to(dtype) for dtype in (torch.bfloat16, torch.int64, torch.uint8, torch.bool)},
        "opt/0/step": torch.tensor(3.0),
        "ema/empty": torch.zeros(0, 2),
        "ema/odd": torch.tensor([math.nan, math.inf, -0.0, 1e-42]),
        "ema/strided": x.T[::2],
        "ema/images": torch.randn(2, 3, 4, 4, generator=generator).to(memory_format=torch.channels_last),
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bitwise: NaN equals NaN and 0 is not -0."""
    return {**{k: (v.dtype, v.shape) for k, v in a.items()}} == {k: (v.dtype, v.shape) for k, v in b.items()} and all(
        v.contiguous().reshape(-1).view(torch.uint8).equal(b[k].contiguous().reshape(-1).view(torch.uint8))
        for k, v in a.items()
    )


# ---------------------------------------------------------------------------------------------------------- the format


def test_a_checkpoint_comes_back_bitwise(tmp_path: Path) -> None:
    tensors = tensors_of_all_kinds()
    save_checkpoint(tmp_path / "a.safetensors", tensors, INFO)
    loaded, info = load_checkpoint(tmp_path / "a.safetensors")
    assert same(loaded, tensors) and info == {**INFO, "format": FORMAT, "sha256": digest(tensors)}
    save_checkpoint(str(tmp_path / "b.safetensors"), loaded, info)  # what was read may be written again
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_groups_are_prefixes() -> None:
    tensors = tensors_of_all_kinds()
    parts = {name: group(tensors, name) for name in ("raw", "opt", "ema", "em")}
    assert parts["em"] == {} and list(parts["opt"]) == ["0/step"]
    joined = {key: value for name, part in parts.items() for key, value in prefixed(name, part).items()}
    assert joined.keys() == tensors.keys() and all(joined[key] is tensors[key] for key in tensors)


def test_the_digest_sees_every_bit_name_dtype_and_shape() -> None:
    tensors = {"w": torch.zeros(3, 2), "n": torch.tensor([1, 2])}
    seen = {digest(tensors), digest({"x" if k == "w" else k: v for k, v in tensors.items()})}
    for name, tensor in tensors.items():
        flat = tensor.reshape(-1).view(torch.uint8)
        for byte in range(len(flat)):
            for bit in range(8):
                flipped = flat.clone()
                flipped[byte] ^= 1 << bit
                seen.add(digest({**tensors, name: flipped.view(tensor.dtype).reshape(tensor.shape)}))
    seen.add(digest({**tensors, "w": torch.zeros(2, 3)}))
    seen.add(digest({**tensors, "w": torch.zeros(3, 2, dtype=torch.int32)}))
    assert len(seen) == 2 + 8 * (24 + 16) + 2
    assert digest(dict(reversed(tensors.items()))) == digest(tensors)


def one_line(path: Path) -> str:
    """The one line with which a damaged file is refused: it names the file."""
    with pytest.raises(BadInput) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    return text


@pytest.fixture
def small(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "small.safetensors", {"ema/w": torch.arange(6.0)}, {"step": 40, "lr": 0.001})
    return tmp_path / "small.safetensors"


def test_a_cut_file_is_refused_at_any_length(small: Path) -> None:
    whole = small.read_bytes()
    for length in range(len(whole)):
        small.write_bytes(whole[:length])
        assert "not a whole safetensors file" in one_line(small)
    small.write_bytes(whole + b"\0")
    assert "not a whole safetensors file" in one_line(small)


def test_a_flipped_bit_anywhere_is_found_or_harmless(small: Path) -> None:
    """Every byte of header and data, one bit each: refused, or the same content (white space, the name of the seal)."""
    whole, (tensors, info) = small.read_bytes(), load_checkpoint(small)
    harmless = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        small.write_bytes(damaged)
        try:
            loaded = load_checkpoint(small)
        except BadInput as error:
            assert "\n" not in str(error)
        else:
            assert same(loaded[0], tensors) and {key: loaded[1][key] for key in info} == info
            harmless += 1
    assert harmless < 12  # up to seven spaces of padding, four letters


def test_a_changed_header_is_found(small: Path) -> None:
    whole = small.read_bytes()
    for old, new in ((b"0.001", b"0.002"), (b'step\\": 40', b'step\\": 41'), (b"lr", b"rl")):
        assert whole.count(old) == 1
        small.write_bytes(whole.replace(old, new))
        assert "does not match its SHA-256" in one_line(small)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    header = {"format": FORMAT, "sha256": digest({})}
    cases = {
        "not a whole safetensors file": [b"", b"PK\x03\x04" + bytes(60), b"\x80\x04\x95" + bytes(60), b"{}" * 40],
        "not written by scoresde": [save({"w": torch.zeros(2)}), save({"w": torch.zeros(2)}, {"format": "pt"})],
        "its header is damaged": [save({}, {"scoresde": text}) for text in ("", "{", "[1, 2]", "3", "null")],
        f"format 2, this version reads {FORMAT}": [save({}, {"scoresde": json.dumps({**header, "format": 2})})],
        "format None": [save({}, {"scoresde": "{}"})],
        "does not match its SHA-256": [save({"w": torch.zeros(2)}, {"scoresde": json.dumps(header)})],
    }
    for message, contents in cases.items():
        for content in contents:
            (tmp_path / "x.safetensors").write_bytes(content)
            assert message in one_line(tmp_path / "x.safetensors")
    assert "no such file" in one_line(tmp_path / "missing.safetensors")
    assert "no such file" in one_line(tmp_path)
    (tmp_path / "early.safetensors").write_bytes(save({}, {"scoresde": json.dumps(header)}))  # before the seal
    assert load_checkpoint(tmp_path / "early.safetensors") == ({}, header)


# ------------------------------------------------------------------------------------------------------------- writing


def no_space(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class HalfWritten(io.FileIO):
    """A file on a disk that fills up half-way."""

    def write(self, content: bytes) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().write(content[: len(content) // 2])
        no_space()
        return 0


FAULTS = {
    "write": lambda patch: patch.setattr(Path, "open", lambda path, mode: HalfWritten(path, mode)),
    "fsync": lambda patch: patch.setattr(os, "fsync", no_space),
    "rename": lambda patch: patch.setattr(Path, "replace", no_space),
    "open": lambda patch: patch.setattr(Path, "open", no_space),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("old", [None, b"the old content"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    fault: str, old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    if old:
        path.write_bytes(old)
    with monkeypatch.context() as patch, pytest.raises(OutputError, match=r"cannot write .*No space left") as caught:
        FAULTS[fault](patch)
        write_atomically(path, b"the new content")
    assert "\n" not in str(caught.value) and caught.value.exit_code == 5
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({"file": old} if old else {})
    write_atomically(path, b"the new content")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"file": b"the new content"}


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", b"content")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "x", tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(OutputError, match="cannot write") as caught:
            write_atomically(path, b"content")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"] and not list(
        (tmp_path / "folder").iterdir()
    )


# -------------------------------------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training run on labelled points, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(64) % 2
    x = torch.randn(64, 2, generator=generator) + 10 * y[:, None] + 40
    config = parse_config(
        {
            "data": {"name": "two"},
            "network": {"name": "mlp", "width": 40, "depth": 1, "features": 16},
            "prediction": "v",
            "time": "t",
            "train": {"steps": 60, "batch_size": 32, "warmup": 5, "ema": 0.9},
        }
    )
    folder = tmp_path_factory.mktemp("run")
    train(config, folder, data=Dataset(x, y, ("near", "far"), name="two"))
    return folder


def drawn(loaded: model.Model, n: int = 32) -> Tensor:
    y = torch.arange(n) % 2
    out = scoresde.sample(loaded.denoiser, (n, *loaded.event_shape), "ode", 5, cond={"y": y})
    return loaded.scaler.decode(out.x)


def weights_of(loaded: model.Model) -> dict[str, Tensor]:
    assert isinstance(loaded.denoiser.network, nn.Module)
    return dict(loaded.denoiser.network.state_dict())


def test_a_run_is_loaded_by_folder_and_by_file(run: Path) -> None:
    exported, whole = load_model(run), load_model(run / "checkpoint.safetensors")
    assert torch.equal(drawn(exported), drawn(load_model(str(run / "model.safetensors"))))
    for loaded in (exported, whole):
        assert loaded.event_shape == (2,) and loaded.classes == ("near", "far")
        assert loaded.sde == scoresde.VPSDE() and loaded.denoiser.prediction == "v"
        network = loaded.denoiser.network
        assert isinstance(network, nn.Module) and not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        far = drawn(loaded).mean(1).reshape(-1, 2).mean(0)
        assert far[0] < 45 < far[1]  # in the data's own units, and by class


def test_weights_are_chosen_by_name(run: Path) -> None:
    tensors, _ = load_checkpoint(run / "checkpoint.safetensors")
    for weights in ("raw", "ema"):
        assert same(weights_of(load_model(run / "checkpoint.safetensors", weights)), group(tensors, weights))
    assert same(weights_of(load_model(run, "raw")), group(tensors, "raw"))  # a folder has both
    assert not same(group(tensors, "raw"), group(tensors, "ema"))
    with pytest.raises(BadInput, match=r"holds no 'raw' weights, only \['ema'\]"):
        load_model(run / "model.safetensors", "raw")
    for source in (run, run / "model.safetensors"):
        with pytest.raises(
            BadInput, match=r"unknown weights 'rwa': choose from ema, raw, decay:0.\d+; did you mean 'raw'"
        ):
            load_model(source, "rwa")


def test_an_exported_model_is_the_average_in_half_precision(run: Path, tmp_path: Path) -> None:
    checkpoint, path = run / "checkpoint.safetensors", tmp_path / "small.safetensors"
    export_model(checkpoint, path)
    assert path.read_bytes() == (run / "model.safetensors").read_bytes()
    (whole, info), (half, exported) = load_checkpoint(checkpoint), load_checkpoint(path)
    expected = {**prefixed("ema", group(whole, "ema")), **prefixed("data", group(whole, "data"))}
    assert half.keys() == expected.keys() and "data/mean" in half
    large = [name for name in half if whole[name].numel() > 1000]
    assert large and all(half[name].dtype == torch.float16 for name in large)
    for name in half:
        if name in large:
            bound = torch.maximum(whole[name].abs() * 2**-11, torch.tensor(2.0**-25))
            assert ((half[name].float() - whole[name]).abs() <= bound).all()
        else:
            assert torch.equal(half[name], whole[name]) and half[name].dtype == whole[name].dtype
    content = sum(t.numel() * t.element_size() for t in half.values())
    assert content < path.stat().st_size < content + 4000 and path.stat().st_size < checkpoint.stat().st_size / 3
    assert {k: v for k, v in info.items() if k != "sha256"} == {k: v for k, v in exported.items() if k != "sha256"}
    one, two = drawn(load_model(checkpoint)), drawn(load_model(path))
    assert 0 < (one - two).abs().max() < 2**-8 * one.std()
    export_model(path, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", model.shipped())
def test_shipped_models_load_by_name(name: str) -> None:
    loaded = load_model(name)
    y = {"y": torch.arange(2) % len(loaded.classes)} if loaded.classes else {}
    out = scoresde.sample(loaded.denoiser, (2, *loaded.event_shape), "ddim", 2, cond=y)
    assert torch.isfinite(loaded.scaler.decode(out.x)).all()
    assert find_model(name) == model.shipped()[name] and model.card(name)["sha256"] == loaded.info["sha256"]


def test_unknown_names_are_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="no model 'nowhere': give a path, or one of"):
        load_model("nowhere")
    with pytest.raises(BadInput, match="no model"):
        load_model(tmp_path)
    with pytest.raises(BadInput, match="no model"):
        load_model("features")  # the classifier beside the models is none
    monkeypatch.setattr(model, "shipped", lambda: {"points": tmp_path / "points.safetensors"})
    with pytest.raises(BadInput, match="one of points; did you mean 'points'"):
        load_model("point")
    with pytest.raises(BadInput, match=r"unknown model 'point'.*did you mean 'points'"):
        model.card("point")
    assert model.card("points") == {}


def test_the_global_random_state_is_left_alone(run: Path) -> None:
    before = torch.get_rng_state()
    one = load_model(run)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        assert same(weights_of(load_model(run)), weights_of(one))


def without(key: str) -> Callable[[dict], dict]:
    return lambda info: {k: v for k, v in info.items() if k != key}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda info: {**info, "event_shape": [3]}, "weights do not fit its config"),
        (lambda info: {**info, "classes": ["a", "b", "c"]}, "weights do not fit its config"),
        (lambda info: {**info, "config": {**info["config"], "network": {"name": "mlp"}}}, "weights do not fit"),
        (lambda info: {**info, "config": {**info["config"], "network": {"name": "unet"}}}, "UNet: events of shape"),
        (lambda info: {**info, "config": {**info["config"], "sde": {"name": "vpp"}}}, "did you mean 'vp'"),
        (lambda info: {**info, "config": {**info["config"], "prediction": "epsilon"}}, "did you mean 'eps'"),
        (lambda info: {**info, "config": {"data": {}}}, "data.name is missing"),
        (lambda info: {**info, "scaler": {"shift": [0.0], "scale": [0.0]}}, "scale must be finite and > 0"),
        (lambda info: {**info, "scaler": None}, "scaler"),
        *((without(key), f"no model: it has no {key}") for key in ("config", "event_shape", "classes", "scaler")),
    ],
)
def test_models_that_do_not_fit_are_refused(change: Callable, message: str, run: Path, tmp_path: Path) -> None:
    """Whole files with a right seal, but made wrongly."""
    tensors, info = load_checkpoint(run / "model.safetensors")
    save_checkpoint(tmp_path / "model.safetensors", tensors, change(info))
    with pytest.raises(BadInput, match=message) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_extra_weights_are_refused(run: Path, tmp_path: Path) -> None:
    tensors, info = load_checkpoint(run / "model.safetensors")
    for wrong in ({**tensors, "ema/more": torch.zeros(1)}, {k: v for k, v in tensors.items() if k != "ema/first.bias"}):
        save_checkpoint(tmp_path / "model.safetensors", wrong, info)
        with pytest.raises(BadInput, match="weights do not fit its config"):
            load_model(tmp_path)


# ------------------------------------------------------------------------------------------------------------ no pickle

PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def test_nothing_is_ever_unpickled() -> None:
    """No module that unpickles is imported; neither torch.load, torch.save nor allow_pickle=True is called."""
    root = Path(__file__).parents[1]
    files = [
        path for folder in ("scoresde", "benchmarks", "examples") for path in sorted((root / folder).rglob("*.py"))
    ]
    assert root / "scoresde" / "checkpoint.py" in files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            place = f"{path}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not PICKLES & {name.name.split(".")[0] for name in node.names}, place
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in PICKLES, place
                assert node.module != "torch" or not {"load", "save"} & {name.name for name in node.names}, place
            if isinstance(node, ast.Attribute) and node.attr in ("load", "save"):
                assert not (isinstance(node.value, ast.Name) and node.value.id == "torch"), place
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
                assert node.arg == "allow_pickle" and isinstance(node.value, ast.Constant), place
                assert node.value.value is False, place
