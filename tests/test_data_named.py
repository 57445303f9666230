"""CIFAR-10, flowers64 and the Hugging Face hub: the published formats, parts that say that they are parts, faults."""

import hashlib
import io
import os
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reading import refuses, some_pixels, write

from scoresde.data import Streamed, batches, load, photos
from scoresde.errors import BadInput

needs_data = pytest.mark.skipif(not os.environ.get("SCORESDE_DATA"), reason="SCORESDE_DATA is not set")


# -------------------------------------------------------------------------------------------------------- cifar10


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray[Any, Any]:
    """A small archive of the published form, whose hash counts as the published one; its images, (60, 3, 32, 32)."""
    images = some_pixels(60, 3, 32, 32)
    path = tmp_path / photos.CIFAR10_URL.rpartition("/")[2]
    with tarfile.open(path, "w:gz") as tar:
        for k, name in enumerate([*photos.CIFAR10_FILES["train"], *photos.CIFAR10_FILES["test"]]):
            labels = np.arange(10, dtype=np.uint8)[:, None]
            records = np.concatenate([labels, images[10 * k : 10 * k + 10].reshape(10, -1)], axis=1)
            member = tarfile.TarInfo(name)
            member.size = records.nbytes
            tar.addfile(member, io.BytesIO(records.tobytes()))
    monkeypatch.setattr(photos, "CIFAR10_HASH", "md5:" + hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setenv("SCORESDE_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    path.rename(tmp_path / "cifar10" / path.name)
    return images


def test_the_binary_archive_is_read(archive: np.ndarray[Any, Any], tmp_path: Path) -> None:
    train, test = load("cifar10"), load("cifar10", "test")
    assert (train.name, test.name) == ("cifar10/train", "cifar10/test")
    assert np.array_equal(train.x.numpy(), archive[:50]) and np.array_equal(test.x.numpy(), archive[50:])
    assert train.labels is not None and train.labels.tolist() == 5 * list(range(10)) and train.classes[9] == "truck"
    path = tmp_path / "cifar10/cifar-10-binary.tar.gz"
    write(path, path.read_bytes()[:-9])
    with pytest.raises(BadInput, match="not the published file: its content has MD5"):
        load("cifar10")


def test_missing_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORESDE_DATA", str(tmp_path))
    for name, words in {
        "cifar10": ("train_8k.npz: no such file in the folder SCORESDE_DATA", "cifar-10-binary.tar.gz"),
        "flowers64": ("flowers64_650.npz: no such file",),
        "etth1": ("ETTh1.csv: no such file",),
    }.items():
        with pytest.raises(BadInput) as caught:
            load(name)
        assert all(word in str(caught.value) for word in words)
    for name in ("cifar10/train_8k.npz", "flowers64/flowers64_650.npz", "ett/ETTh1.csv"):
        (tmp_path / name).parent.mkdir()
        write(tmp_path / name, "something else")
    for name in ("cifar10", "flowers64", "etth1"):
        with pytest.raises(BadInput, match="is not the published file"):
            load(name)
    refuses("cifar10", "'val'", "train, test", split="val")
    monkeypatch.delenv("SCORESDE_DATA")
    with pytest.raises(BadInput, match="set SCORESDE_DATA to a folder with flowers64"):
        load("flowers64")

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        assert known_hash == "md5:c32a1d4ab5d03f1284b67883e8d87530" and url.endswith(fname)
        raise OSError("no route to host")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(BadInput, match="no route to host"):
        load("cifar10")


@pytest.mark.data
@needs_data
def test_parts_say_that_they_are_parts() -> None:
    train, test, flowers = load("cifar10"), load("cifar10", "test"), load("flowers64")
    if train.name != "cifar10/train":
        assert (train.name, test.name) == ("cifar10-8k/train", "cifar10-2k/test") and "a part of" in train.source
        assert (len(train), len(test)) == (8000, 2000)
    assert train.event_shape == test.event_shape == (3, 32, 32) and train.classes == test.classes == photos.CIFAR10
    assert flowers.name == "flowers64-650/train" and flowers.x.shape == (650, 3, 64, 64)


@pytest.mark.parametrize("size", [0, 1, 3072, 2 * 3073 + 1])
def test_records_are_whole(size: int) -> None:
    with pytest.raises(BadInput, match="no whole number of records"):
        photos.parse_cifar10(bytes(size), Path("some.bin"))


# ------------------------------------------------------------------------------------------------------ hugging face

PIXELS = some_pixels(6, 8, 7, 3)


class Table:
    """As much of `datasets.Dataset` as is used: columns by name, rows by number."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns, self.column_names = columns, list(columns)
        self.features = {"label": types.SimpleNamespace(names=["ant", "bee"])}
        self.features |= {name: types.SimpleNamespace() for name in columns if name != "label"}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: int | str) -> Any:
        return self.columns[key] if isinstance(key, str) else {name: each[key] for name, each in self.columns.items()}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    columns: dict[str, list[Any]] = {
        "image": [Image.fromarray(each) for each in PIXELS],
        "label": [0, 1, 1, 0, 1, 0],
        "kind": ["x", "y", "x", "x", "y", "y"],
        "vector": [[float(k), 2.0] for k in range(6)],
        "ragged": [[0.0] * (1 + k // 3) for k in range(6)],
        "words": ["a"] * 6,
    }
    found = Table(**columns)

    def load_dataset(path: str, config: str | None, split: str, revision: str | None) -> Table:
        if path != "me/insects" or split == "none":
            raise RuntimeError(f"no {path} here\nat all")
        return Table(image=[]) if split == "empty" else found

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return found


def test_a_set_of_the_hub(table: Table) -> None:
    data, streamed = load("hf:me/insects", "test"), load("hf:me/insects", "test", stream=True)
    assert np.array_equal(data.x.numpy(), np.moveaxis(PIXELS, 3, 1)) and data.classes == ("ant", "bee")
    assert data.labels is not None and data.labels.tolist() == table.columns["label"]
    assert data.name == "hf:me/insects/test" and data.source == "https://huggingface.co/datasets/me/insects"
    assert isinstance(streamed, Streamed) and streamed.sha256 == data.sha256
    for workers in (0, 2):
        for rows, x, _ in batches(streamed, lambda step: torch.tensor([step, 5 - step]), 0, 3, workers):
            assert torch.equal(x, data.x[rows])
    assert load("hf:me/insects", image="vector", label="kind").classes == ("x", "y")
    assert load("hf:me/insects", image="vector").x.tolist() == table.columns["vector"]
    assert load("hf:me/insects", size=4, channels=1).event_shape == (1, 4, 4)


def test_faults_of_the_hub(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    refuses("hf:me/other", "cannot be loaded", "no me/other here")
    refuses("hf:me/insects", "'none'", "cannot be loaded", split="none")
    refuses("hf:me/insects", "no rows", split="empty")
    refuses("hf:me/insects", "'imag'", "did you mean 'image'", image="imag")
    refuses("hf:me/insects", "'lable'", "did you mean 'label'", label="lable")
    refuses("hf:me/insects", "row 3", "one shape", image="ragged")
    refuses("hf:me/insects", "neither an image nor a list of numbers", image="words")
    refuses("hf:me/insects", "'n'", n=3)
    monkeypatch.setitem(sys.modules, "datasets", None)
    refuses("hf:me/insects", "pip install scoresde[datasets]")
