"""Sets that stay on the disk: the same events as in memory, whatever the batch, the file and the number of workers."""

import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reading import save, some_pixels, write

from scoresde.data import Dataset, Scaler, Streamed, batches, check_trainable, load, measure, read_array, statistics
from scoresde.data import dataset as dataset_module
from scoresde.errors import BadInput

NORMAL = np.random.default_rng(1).normal(3, 5, (23, 4))


def array_file(folder: Path, name: str, x: np.ndarray[Any, Any], **more: Any) -> Path:
    path = folder / name
    np.save(path, x) if path.suffix == ".npy" else np.savez(path, x=x, **more)
    return path


def image_folder(folder: Path) -> Path:
    for i, pixels in enumerate(some_pixels(7, 6, 5, 3)):
        save(folder / f"pictures/{'ab'[i % 2]}/{i}.png", pixels)
    return folder / "pictures"


MAKE: dict[str, Callable[[Path], Path]] = {
    "float64.npy": lambda folder: array_file(folder, "a.npy", NORMAL),
    "fortran.npy": lambda folder: array_file(folder, "a.npy", np.asfortranarray(NORMAL.astype(">f4"))),
    "numbers.npy": lambda folder: array_file(folder, "a.npy", NORMAL[:, 0].astype(np.int16)),
    "nhwc.npy": lambda folder: array_file(folder, "a.npy", some_pixels(9, 8, 6, 3)),
    "grey.npz": lambda folder: array_file(folder, "a.npz", some_pixels(9, 8, 6), labels=np.arange(9) % 3),
    "labels.npz": lambda folder: array_file(folder, "a.npz", NORMAL, labels=np.array(["dog", "cat"] * 11 + ["dog"])),
    "folder": image_folder,
    "zip": lambda folder: Path(shutil.make_archive(str(folder / "z"), "zip", image_folder(folder))),
    "tar": lambda folder: Path(shutil.make_archive(str(folder / "z"), "tar", image_folder(folder))),
}


@pytest.fixture(params=MAKE)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Dataset, Dataset]:
    path = MAKE[request.param](tmp_path)
    return load(path), load(path, stream=True)


def test_streamed_is_in_memory(pair: tuple[Dataset, Dataset]) -> None:
    held, streamed = pair
    assert isinstance(streamed, Streamed) and not isinstance(held, Streamed)
    for what in ("event_shape", "dtype", "classes", "num_classes", "name", "source"):
        assert getattr(held, what) == getattr(streamed, what), what
    assert len(held) == len(streamed) and (held.labels is None) == (streamed.labels is None)
    assert held.labels is None or streamed.labels is None or torch.equal(held.labels, streamed.labels)
    for size in (1, 4, len(held), 1000):
        for data in pair:
            pieces = list(data.pieces(size))
            assert [len(piece) for piece in pieces[:-1]] == [size] * (len(pieces) - 1)
            assert torch.equal(torch.cat(pieces), held.x)
    rows = torch.tensor([5, 0, 3, 3, len(held) - 1])
    for data in (*pair, pickle.loads(pickle.dumps(streamed))):
        x = data.take(rows)
        assert x.dtype == held.dtype and torch.equal(x, held.x[rows])
    x = streamed.take(rows)
    x += 1  # a copy: the file is not changed, and torch does not warn of memory that cannot be written
    assert torch.equal(streamed.take(rows), held.x[rows])


def test_what_is_fitted_and_measured_is_the_same_bitwise(
    pair: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, streamed = pair
    monkeypatch.setattr(dataset_module, "PIECE", 10)  # several pieces
    for kind in ("standard", "unit", "image", "none"):
        assert Scaler.fit(held, kind) == Scaler.fit(streamed, kind) == Scaler.fit(held.x, kind)
    scaler = Scaler.fit(held)
    assert statistics(held, scaler) == statistics(streamed, scaler)
    x = held.x.double()
    expected = (x.min(), x.max(), x.mean(), x.std(correction=0))
    assert statistics(streamed) == pytest.approx([float(value) for value in expected], rel=1e-12)
    if x.ndim > 1:
        columns = x.movedim(1, -1).reshape(-1, x.shape[1])
        torch.testing.assert_close(measure(streamed, axis=1).mean, columns.mean(dim=0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(measure(streamed, axis=1).std, columns.std(dim=0, correction=0), rtol=1e-12, atol=0)
    check_trainable(streamed)


def test_an_array_has_one_sha256_and_images_have_that_of_their_files(tmp_path: Path) -> None:
    path = MAKE["labels.npz"](tmp_path)
    assert load(path).sha256 == load(path, stream=True).sha256
    folder = image_folder(tmp_path)
    first = load(folder, stream=True).sha256
    assert first == load(folder, stream=True).sha256 != load(folder, stream=True, size=4).sha256
    os.utime(folder / "a/0.png", (0, 0))
    assert load(folder, stream=True).sha256 == first
    shutil.copytree(folder, tmp_path / "copy/pictures")
    assert load(tmp_path / "copy/pictures", stream=True).sha256 == first
    (folder / "a/0.png").rename(folder / "a/8.png")
    assert load(folder, stream=True).sha256 != first


def test_large_sets_are_streamed_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array, pictures = MAKE["float64.npy"](tmp_path), image_folder(tmp_path)
    monkeypatch.setattr(dataset_module, "LARGE", 100)
    for path in (array, pictures):
        assert isinstance(load(path), Streamed) and not isinstance(load(path, stream=False), Streamed)
        with pytest.raises(BadInput, match=r"take\(rows\) or pieces\(\), not x"):
            _ = load(path).x
    assert "23 x (4,)" in repr(load(array))
    np.savez_compressed(tmp_path / "c.npz", x=NORMAL)
    assert not isinstance(load(tmp_path / "c.npz"), Streamed)
    with pytest.raises(BadInput, match=r"c\.npz: x is compressed and cannot be streamed"):
        load(tmp_path / "c.npz", stream=True)
    with pytest.raises(BadInput, match="stream must be true or false, not 'yes'"):
        load(array, stream="yes")


def test_faults_are_named_when_they_are_read(tmp_path: Path) -> None:
    x = NORMAL.copy()
    x[17, 2] = np.nan
    data = load(array_file(tmp_path, "a.npy", x), stream=True)
    assert len(data.take(torch.arange(17))) == 17
    for read in (
        lambda: data.take(torch.tensor([3, 17])),
        lambda: list(data.pieces(5)),
        lambda: data.sha256,
        lambda: Scaler.fit(data),
    ):
        with pytest.raises(BadInput, match=r"data set 'a': row 17 .*NaN"):
            read()
    path = array_file(tmp_path, "b.npz", NORMAL, labels=np.arange(23), classes=np.array(["one", "two"]))
    with pytest.raises(BadInput, match=r"row 2 .* has label 2"):
        load(path, stream=True)
    cut = write(tmp_path / "cut.npy", (tmp_path / "a.npy").read_bytes()[:-8])
    with pytest.raises(BadInput, match=r"cut\.npy: .*truncated"):
        load(cut, stream=True).take(torch.tensor([0]))
    with pytest.raises(BadInput, match=r"no\.npy"):
        read_array(tmp_path / "no.npy", stream=True)
    np.save(tmp_path / "empty.npy", np.zeros((0, 3)))
    with pytest.raises(BadInput, match="no events"):
        load(tmp_path / "empty.npy", stream=True)
    with pytest.raises(BadInput, match="size"):
        next(load(tmp_path / "a.npy", stream=True).pieces(0))


@pytest.mark.parametrize("value", [0, 7])
def test_constant_data_are_refused_for_training(value: int) -> None:
    with pytest.raises(BadInput, match=f"'flat' is constant: all its 9 events are {value} everywhere"):
        check_trainable(Dataset(torch.full((9, 1, 3, 3), value, dtype=torch.uint8), name="flat"))
    check_trainable(Dataset(torch.tensor([[0.0], [0.0], [1e-30]])))


# --------------------------------------------------------------------------------------------------------- batches


def rows_of(step: int) -> torch.Tensor:
    return torch.randperm(7, generator=torch.Generator().manual_seed(step))[:3]


def test_batches_are_the_same_whatever_the_workers(tmp_path: Path) -> None:
    for path in (image_folder(tmp_path), MAKE["zip"](tmp_path)):
        held, streamed = load(path), load(path, stream=True)
        before = torch.get_rng_state()
        for data in (held, streamed):
            for workers in (0, 2):
                read = list(batches(data, rows_of, 4, 9, workers=workers, pin=True))
                assert len(read) == 5
                for step, (rows, x, labels) in enumerate(read, 4):
                    assert torch.equal(rows, rows_of(step)) and torch.equal(x, held.x[rows])
                    assert labels is not None and held.labels is not None and torch.equal(labels, held.labels[rows])
        assert torch.equal(before, torch.get_rng_state())
    assert list(batches(held, rows_of, 3, 3)) == []
    assert next(batches(load("moons", n=20), rows_of, 0, 1))[2] is None
    with pytest.raises(BadInput, match="workers must be a whole number >= 0, not -1"):
        batches(held, rows_of, 0, 1, workers=-1)


def test_no_process_outlives_the_iterator(tmp_path: Path) -> None:
    data = load(image_folder(tmp_path), stream=True)
    reading = batches(data, rows_of, 0, 1000, workers=2)
    next(reading)
    assert len(multiprocessing.active_children()) == 2
    reading.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_by_any_worker(tmp_path: Path, workers: int) -> None:
    folder = image_folder(tmp_path)
    data = load(folder, stream=True)
    write(folder / "b/5.png", (folder / "b/5.png").read_bytes()[:60])
    with pytest.raises(BadInput) as caught:
        list(batches(data, lambda step: torch.tensor([step]), 0, 7, workers=workers))
    assert str(folder / "b/5.png") in str(caught.value) and "\n" not in str(caught.value)
    assert not multiprocessing.active_children()
