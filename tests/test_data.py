"""Data sets: every reader on good and on malformed files, built-in sets, and (marked data) the public sets."""

import errno
import gzip
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reading import refuses, save, some_pixels, write

from scoresde.data import TOY, Dataset, available, datasaurus, load, public_images, read_idx
from scoresde.data.public import PUBLIC
from scoresde.errors import BadInput

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    header = bytes([0, 0, IDX_CODES[array.dtype.str[1:]], array.ndim])
    return header + np.array(array.shape, ">u4").tobytes() + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def pixels() -> np.ndarray[Any, Any]:
    return some_pixels(6, 9, 7, 3)


# ---------------------------------------------------------------------------------------------------------- Dataset


def test_dataset_describes_itself() -> None:
    x, labels = torch.zeros(3, 1, 4, 5, dtype=torch.uint8), torch.tensor([0, 2, 1])
    data = Dataset(x, labels, ("a", "b", "c"), name="n", source="s")
    assert (len(data), data.event_shape, data.num_classes) == (3, (1, 4, 5), 3)
    assert data.sha256 == hashlib.sha256(x.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    assert Dataset(x, labels, ("a", "b", "c"), sha256=data.sha256).sha256 == data.sha256
    assert Dataset(x.permute(0, 1, 3, 2)).sha256 == Dataset(torch.zeros(3, 1, 5, 4, dtype=torch.uint8)).sha256
    with pytest.raises(BadInput, match="SHA-256"):
        Dataset(x, sha256=data.sha256)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 7, 3), (4, 1, 16, 24), (4, 3, 8, 8, 8)])
def test_events_of_any_rank(shape: tuple[int, ...]) -> None:
    data = Dataset(torch.zeros(shape))
    assert data.event_shape == shape[1:] and data.num_classes == 0


@pytest.mark.parametrize(
    ("x", "labels", "classes", "word"),
    [
        (torch.tensor([[0.0], [float("nan")]]), None, (), "row 1 "),
        (torch.tensor([0.0, 1.0, -float("inf")]), None, (), "row 2 "),
        (torch.zeros(0, 2), None, (), "no events"),
        (torch.zeros(2, 0), None, (), "no events"),
        (torch.tensor(1.0), None, (), "no events"),
        (torch.zeros(2, 2, dtype=torch.float64), None, (), "float64"),
        (torch.zeros(2, 2, dtype=torch.uint8), None, (), "(N, C, H, W)"),
        (torch.zeros(2, 2), torch.tensor([0, 1, 0]), ("a", "b"), "shape (2,)"),
        (torch.zeros(2, 2), torch.tensor([0.0, 1.0]), ("a", "b"), "int64"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), ("a", "b"), "label 2"),
        (torch.zeros(2, 2), torch.tensor([-1, 0]), ("a", "b"), "row 0 "),
        (torch.zeros(2, 2), None, ("a",), "no labels"),
    ],
)
def test_dataset_refuses(x: torch.Tensor, labels: torch.Tensor | None, classes: tuple[str, ...], word: str) -> None:
    with pytest.raises(BadInput, match="'bad'") as caught:
        Dataset(x, labels, classes, name="bad")
    assert word in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- idx


@pytest.mark.parametrize("code", IDX_CODES)
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_idx_round_trip(tmp_path: Path, code: str, compress: bool, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(-100, 100, shape).astype(code)
    content = idx_bytes(array)
    read = read_idx(str(write(tmp_path / "some", gzip.compress(content) if compress else content)))
    assert read.numpy().dtype == array.dtype and np.array_equal(read.numpy(), array)


def test_idx_with_labels(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    images = write(tmp_path / "train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(pixels[..., 0])))
    labels = write(tmp_path / "train-labels-idx1-ubyte", idx_bytes(np.array([0, 3, 1, 1, 0, 2], "u1")))
    plain, labelled = load(images), load(images, labels=labels)
    assert plain.event_shape == (1, 9, 7) and plain.x.dtype == torch.uint8 and plain.labels is None
    assert labelled.labels is not None and labelled.labels.tolist() == [0, 3, 1, 1, 0, 2]
    assert labelled.classes == ("0", "1", "2", "3")
    assert np.array_equal(labelled.x[:, 0].numpy(), pixels[..., 0])


def test_malformed_idx(tmp_path: Path) -> None:
    good = idx_bytes(np.arange(24, dtype="u1").reshape(2, 3, 4))
    refuses(write(tmp_path / "a-ubyte", b""), "not an idx file", "nothing")
    refuses(write(tmp_path / "b-ubyte", b"\x89PNG\r\n"), "not an idx file", "89 50 4e 47")
    refuses(write(tmp_path / "c-ubyte", b"\0\0\x07" + good[3:]), "not an idx file")
    refuses(write(tmp_path / "d-ubyte", b"\0\0\x08\xff" + good[4:]), "not an idx file")
    refuses(write(tmp_path / "e-ubyte", good[:9]), "truncated", "9 bytes")
    refuses(write(tmp_path / "f-ubyte", good[:-1]), "truncated", "24 bytes", "23")
    refuses(write(tmp_path / "g-ubyte", good + b"\0"), "left over")
    refuses(write(tmp_path / "h-ubyte", good[:4] + b"\0" * 4 + b"\xff" * 8), "no values")
    refuses(write(tmp_path / "i-ubyte", good[:4] + b"\xff" * 12), "truncated")
    packed = gzip.compress(bytes(np.random.default_rng(0).integers(0, 256, 500, dtype="u1")))
    for cut in range(3, len(packed), 7):
        refuses(write(tmp_path / "j.gz", packed[:cut]), "truncated gzip")
    refuses(write(tmp_path / "k.gz", packed[:40] + bytes([packed[40] ^ 255]) + packed[41:]), "damaged")


# ------------------------------------------------------------------------------------------------------- npy and npz


@pytest.mark.parametrize("key", ["images", "x", "data", "arr_0"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_become_nchw(tmp_path: Path, pixels: np.ndarray[Any, Any], key: str, channels: int) -> None:
    images = np.repeat(pixels[..., :1], channels, axis=3)
    arrays: dict[str, Any] = {key: images}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    arrays = {key: np.moveaxis(images, 3, 1)}
    np.savez(tmp_path / "b.npz", **arrays)
    assert load(tmp_path / "a.npz").event_shape == (channels, 9, 7)
    assert load(tmp_path / "a.npz").sha256 == load(tmp_path / "b.npz").sha256


def test_labels_and_classes_of_npz(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float64).reshape(3, 2)
    np.savez(
        tmp_path / "a.npz", x=x, labels=np.array([0, 2, 1], "u1"), classes=np.array([b"\xc3\xa9t\xc3\xa9", b"b", b"c"])
    )
    data = load(tmp_path / "a.npz")
    assert data.classes == ("été", "b", "c") and data.labels is not None and data.labels.tolist() == [0, 2, 1]
    assert data.x.dtype == torch.float32 and data.x.tolist() == x.tolist()
    np.savez(tmp_path / "b.npz", x=x, labels=np.array(["dog", "cat", "dog"]))
    data = load(tmp_path / "b.npz")
    assert data.classes == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "i8", "u2", "?", "u1"])
def test_numbers_become_float32(tmp_path: Path, dtype: str) -> None:
    array = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    data = load(tmp_path / "a.npy")
    assert data.x.dtype == torch.float32 and data.x.tolist() == [[0, 1], [1, 0], [1, 1]]


def test_malformed_arrays(tmp_path: Path) -> None:
    def npz(**arrays: Any) -> Path:
        np.savez(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    x = np.ones((4, 2))
    whole = npz(x=x, labels=np.arange(4)).read_bytes()
    for cut in (0, 1, 10, 100, len(whole) - 1):
        refuses(write(tmp_path / "cut.npz", whole[:cut]), "truncated")
    np.save(tmp_path / "a.npy", x)
    refuses(write(tmp_path / "cut.npy", (tmp_path / "a.npy").read_bytes()[:-1]), "truncated")
    refuses(write(tmp_path / "junk.npy", b"hello"), "not a plain npy")
    header = (tmp_path / "a.npy").read_bytes()
    refuses(write(tmp_path / "header.npy", header.replace(b"}", b" ")), "not a plain npy")
    np.save(tmp_path / "object.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    refuses(tmp_path / "object.npy", "allow_pickle=False")
    refuses(npz(values=x, more=x), "has no array called", "values, more")
    refuses(npz(x=np.array(["a", "b"])), "not numbers")
    refuses(npz(x=x + 1j), "not numbers")
    refuses(npz(x=x, labels=np.array([0.0, 1.0, 1.0, 0.0])), "whole numbers")
    refuses(npz(x=x, labels=np.array([0, 1, -1, 0])), "whole numbers")
    refuses(npz(x=x, labels=np.array([0, 1, 2**40, 0])), "whole numbers")
    refuses(npz(x=x, labels=np.zeros((4, 1), int)), "shape (N,)")
    refuses(npz(x=x, labels=np.arange(4), classes=np.array([b"\xff"])), "UTF-8")
    for bad, word in [
        ({"x": np.array([[0.0], [np.nan]])}, "row 1 "),
        ({"x": np.array([[1e300]])}, "row 0 "),
        ({"x": x, "labels": np.arange(3)}, "shape (4,)"),
        ({"x": x, "labels": np.arange(4), "classes": np.array(["a", "b"])}, "label 2"),
        ({"x": np.ones((0, 2))}, "no events"),
    ]:
        with pytest.raises(BadInput, match="data set 'a'") as caught:
            load(npz(**bad))
        assert word in str(caught.value)


# ----------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t"), ("a.txt", "\t")])
@pytest.mark.parametrize("label", ["dataset", "label", "Class"])
def test_table_with_labels(tmp_path: Path, name: str, separator: str, label: str) -> None:
    lines = [["x", label, "y"], ["1.5", "b", "-2e3"], ["3", "a", "4"], [" 5", "b", "6 "]]
    path = write(tmp_path / name, "\ufeff" + "\r\n".join(separator.join(cells) for cells in lines) + "\r\n\r\n")
    data = load(path)
    assert data.x.dtype == torch.float32 and data.x.tolist() == [[1.5, -2000.0], [3.0, 4.0], [5.0, 6.0]]
    assert data.classes == ("a", "b") and data.labels is not None and data.labels.tolist() == [1, 0, 1]
    assert load(path, columns="y,x").x[0].tolist() == [-2000.0, 1.5]
    assert load(path, columns=["y"]).event_shape == (1,)


def test_table_without_header_and_numbered_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "1,2,10\n3,4,9\n5,6,10")
    assert load(path).event_shape == (3,)
    data = load(path, label_column="2")
    assert data.event_shape == (2,) and data.classes == ("9", "10")
    assert data.labels is not None and data.labels.tolist() == [1, 0, 1]
    assert load(path, columns=[2, 0]).x[0].tolist() == [10.0, 1.0]


def test_numbers_in_a_column_called_label_can_be_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,label\n1,2\n3,4\n")
    assert load(path).classes == ("2", "4")
    assert load(path, columns=["x", "label"]).x.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("cell", ["", "nan", "inf", "-Infinity", "1e39", "1.2.3", "1_000", "cat", '"1,5"'])
def test_malformed_cells_are_named(tmp_path: Path, cell: str) -> None:
    refuses(write(tmp_path / "a.csv", f"x,y\n1,2\n3,{cell}\n"), "line 3", "'y'", repr(cell.strip('"')))


def test_malformed_tables(tmp_path: Path) -> None:
    def table(text: str | bytes) -> Path:
        return write(tmp_path / "a.csv", text)

    refuses(table("x,y\n1,2\n3\n"), "line 3 has 1 cells", "has 2")
    refuses(table("x,y\n1,2\n3,4,5\n"), "line 3 has 3 cells")
    refuses(table(""), "no rows")
    refuses(table("x,y\n"), "no rows")
    refuses(table("1,x\n2,y\n"), "line 1, column '1': 'x'")
    refuses(table("x,x\n1,2\n"), "same name")
    refuses(table("x,dataset,label\n1,a,b\n"), "dataset or label", "label_column")
    refuses(table("x,label\n1,\n"), "line 2, column 'label'", "empty")
    refuses(table("label\na\nb\n"), "columns of numbers")
    refuses(table("HUFL,HULL\n1,2\n"), "'HUFLX'", "did you mean 'HUFL'", columns=["HUFLX"])
    refuses(table("kind,y\n1,2\n"), "'kin'", "did you mean 'kind'", label_column="kin")
    refuses(table("x,y\n1,2\n"), "label column 'x'", columns=["x"], label_column="x")
    refuses(table(b"x,y\n\xff,2\n"), "UTF-8")
    refuses(table('x,y\n"1,2\n'), "not a csv or tsv file")
    for columns in ([], 5):
        with pytest.raises(BadInput, match="columns must be a list of names"):
            load(table("x,y\n1,2\n"), columns=columns)


# ---------------------------------------------------------------------------------------------------------- folders


def test_folder_of_classes(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    for i, name in enumerate(["dog/b.png", "dog/deep/a.PNG", "cat/c.png", "cat/.hidden.png"]):
        save(tmp_path / name, pixels[i])
    write(tmp_path / "notes.txt", "not an image")
    data = load(tmp_path)
    assert data.x.dtype == torch.uint8 and data.event_shape == (3, 9, 7)
    assert data.classes == ("cat", "dog") and data.labels is not None and data.labels.tolist() == [0, 1, 1]
    assert np.array_equal(data.x.numpy(), np.moveaxis(pixels[[2, 0, 1]], 3, 1))
    assert load(tmp_path, channels=1).event_shape == (1, 9, 7)


def test_folders_that_are_links_are_followed_but_not_in_circles(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data / "a", elsewhere):
        folder.mkdir(parents=True)
        save(folder / "0.png", pixels[0])
    (data / "b").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "back").symlink_to(data, target_is_directory=True)
    found = load(data)
    assert found.classes == ("a", "b") and len(found) == 2


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("RGBA", 4), ("P", 3), ("LA", 3)])
def test_colours_of_a_folder(tmp_path: Path, pixels: np.ndarray[Any, Any], mode: str, channels: int) -> None:
    save(tmp_path / "a.png", pixels[0], mode)
    save(tmp_path / "b.png", pixels[1], mode)
    data = load(tmp_path)
    assert data.event_shape == (channels, 9, 7) and data.labels is None
    for asked in (1, 3, 4):
        assert load(tmp_path, channels=asked).event_shape == (asked, 9, 7)


def test_jpg_is_read(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    save(tmp_path / "a.jpg", pixels[0])
    assert load(tmp_path).event_shape == (3, 9, 7)


def test_malformed_folders(tmp_path: Path, pixels: np.ndarray[Any, Any]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    refuses(empty, "no images")
    for i in range(3):
        save(tmp_path / f"sizes/{i}.png", pixels[i, : 9 - i // 2])
    refuses(tmp_path / "sizes", "2.png", "7x8", "7x9", "0.png")
    save(tmp_path / "colours/a.png", pixels[0])
    save(tmp_path / "colours/b.png", pixels[1], "L")
    refuses(tmp_path / "colours", "b.png", "1 channel ", "3 channels")
    assert len(load(tmp_path / "colours", channels=3)) == 2
    save(tmp_path / "mixed/a.png", pixels[0])
    save(tmp_path / "mixed/cat/b.png", pixels[1])
    refuses(tmp_path / "mixed", "a.png", "beside sub-folders")
    save(tmp_path / "cut/a.png", pixels[0])
    write(tmp_path / "cut/b.png", (tmp_path / "cut/a.png").read_bytes()[:60])
    refuses(tmp_path / "cut", "b.png", "cannot be read as an image")
    save(tmp_path / "deep/a.png", pixels[0, :, :, 0].astype(np.uint16))
    refuses(tmp_path / "deep", "a.png", "8 bits")
    with pytest.raises(BadInput, match="channels must be 1, 3 or 4, not 2"):
        load(tmp_path / "colours", channels=2)


@pytest.mark.parametrize("closed", ["cats", "cats/dog", "cats/dog/c", "cats/.trash"])
def test_folders_that_cannot_be_read_are_refused_by_name(
    tmp_path: Path, pixels: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """Wherever they lie, but for hidden ones: left out, they would leave a part of the data for the whole."""
    for i, name in enumerate(["cat/a", "dog/b", "dog/c/d", ".trash/e"]):
        save(tmp_path / f"cats/{name}.png", pixels[i])
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if Path(path) == tmp_path / closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    if ".trash" in closed:
        assert len(load(tmp_path / "cats")) == 3
    else:
        refuses(tmp_path / "cats", str(tmp_path / closed), "cannot be read (Permission denied)")


# --------------------------------------------------------------------------------------------------------- toy sets


@pytest.mark.parametrize("name", TOY)
def test_toy_sets_depend_on_the_seed_alone(name: str) -> None:
    before = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
    first, again, other = load(name, n=500, seed=3), load(name, n=500, seed=3), load(name, n=500, seed=4)
    after = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
    assert first.x.shape == (500, 2) and first.x.dtype == torch.float32
    assert first.sha256 == again.sha256 != other.sha256
    assert first.x.abs().max() < 6 and (first.x.std(dim=0) > 0.5).all()
    assert torch.equal(TOY[name](500, torch.Generator().manual_seed(3)), first.x)


@pytest.mark.parametrize("name", TOY)
@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3"])
def test_toy_sets_refuse_a_bad_n(name: str, n: Any) -> None:
    with pytest.raises(BadInput, match="n must be a whole number >= 1"):
        load(name, n=n)


@pytest.mark.parametrize("seed", [-1, 1.0, None, 2**63])
def test_toy_sets_refuse_a_bad_seed(seed: Any) -> None:
    with pytest.raises(BadInput, match="seed"):
        load("moons", seed=seed)


def toy(name: str) -> torch.Tensor:
    return load(name, n=20_000).x


def test_shapes_of_toy_sets() -> None:
    x = toy("checkerboard")
    assert (torch.remainder((x / 2).floor().sum(dim=1), 2) == 0).all() and x.abs().max() <= 4
    squares = (x / 2).floor().unique(dim=0, return_counts=True)
    assert len(squares[0]) == 8 and (squares[1] / 2500 - 1).abs().max() < 0.1
    radius = toy("rings").norm(dim=1)
    assert ((radius - radius.round()).abs() < 0.4).float().mean() > 0.995
    counts = radius.round().clamp(1, 4).unique(return_counts=True)[1]
    assert (counts / 5000 - 1).abs().max() < 0.05
    angle = torch.arange(8) * torch.pi / 4
    distances = torch.cdist(toy("gaussians"), 3 * torch.stack((angle.cos(), angle.sin()), dim=1))
    assert (distances.amin(dim=1) < 1).float().mean() > 0.99
    assert (distances.argmin(dim=1).bincount() / 2500 - 1).abs().max() < 0.1
    for name in ("spirals", "moons", "gaussians", "rings", "checkerboard", "pinwheel"):
        assert toy(name).mean(dim=0).abs().max() < 0.1, name  # all of them are symmetric about the origin


# ------------------------------------------------------------------------------------------------------------- load


def test_unknown_names_teach(tmp_path: Path) -> None:
    refuses("moon", "did you mean 'moons'", *available())
    refuses("fashon_mnist", "did you mean 'fashion_mnist'", split="test")
    refuses("nothing/like/this", "no such file or folder")
    refuses("missing.npz", "no such file or folder")
    refuses("", "unknown data set")
    refuses(write(tmp_path / "a.parquet", b""), ".npz")
    refuses("moons", "no split 'test'", split="test")
    refuses("moons", "'sead'", "did you mean 'seed'", sead=1)
    refuses("mnist", "'n'", n=3)
    refuses("mnist", "'tset'", "did you mean 'test'", split="tset")
    refuses(write(tmp_path / "a.csv", "1,2\n"), "'column'", "did you mean 'columns'", column="x")


def test_values_are_not_scaled(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(50, 7, (20, 2)).astype(np.float32)
    np.save(tmp_path / "a.npy", x)
    assert np.array_equal(load(tmp_path / "a.npy").x.numpy(), x)


def test_files_of_public_sets_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORESDE_DATA", str(tmp_path))
    for name in ("mnist", "fashion_mnist"):
        (tmp_path / name).mkdir()
        with pytest.raises(BadInput, match=r"train-images-idx3-ubyte\.gz: no such file in the folder SCORESDE_DATA"):
            load(name)
        write(tmp_path / name / "train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(np.zeros((2, 28, 28), "u1"))))
        with pytest.raises(BadInput, match="not the published file"):
            load(name)
    write(tmp_path / "datasaurus.tsv", "dataset\tx\ty\ndino\t1\t2\n")
    with pytest.raises(BadInput, match="not the published file"):
        load("datasaurus:dino")


@pytest.mark.parametrize("name", ["mnist", "datasaurus"])
def test_a_failed_download_says_what_else_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append(url)
        assert known_hash.startswith("sha256:") and len(known_hash) == 7 + 64 and url.endswith((fname, "Long.tsv"))
        raise OSError("no route to host\nsecond line")

    monkeypatch.delenv("SCORESDE_DATA", raising=False)
    monkeypatch.setattr("pooch.retrieve", retrieve)
    refusal: Callable[[], Dataset] = (lambda: public_images(name)) if name in PUBLIC else datasaurus
    with pytest.raises(BadInput, match=r"^https://.*no route to host\).*SCORESDE_DATA[^\n]*$"):
        refusal()
    assert len(asked) == 1


# ------------------------------------------------------------------------------------------------------ public sets

needs_data = pytest.mark.skipif(not os.environ.get("SCORESDE_DATA"), reason="SCORESDE_DATA is not set")


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_public_images(name: str, split: str, count: int) -> None:
    data = load(name, split)
    assert data.x.shape == (count, 1, 28, 28) and data.x.dtype == torch.uint8
    assert data.num_classes == 10 and data.labels is not None and len(data.labels.bincount()) == 10
    if name == "fashion_mnist":
        assert (data.labels.bincount() == count // 10).all() and data.classes[9] == "ankle boot"
    assert data.name == f"{name}/{split}" and str(os.environ["SCORESDE_DATA"]) not in data.source


@pytest.mark.data
@needs_data
def test_datasaurus() -> None:
    data = load("datasaurus")
    assert data.x.shape == (1846, 2) and data.num_classes == 13 and data.labels is not None
    assert (data.labels.bincount() == 142).all()
    for i, name in enumerate(data.classes):
        one = load(f"datasaurus:{name}")
        assert torch.equal(one.x, data.x[data.labels == i]) and one.labels is None
        torch.testing.assert_close(one.x.mean(dim=0), torch.tensor([54.27, 47.83]), rtol=0, atol=0.02)
        torch.testing.assert_close(one.x.std(dim=0), torch.tensor([16.77, 26.93]), rtol=0, atol=0.02)
    with pytest.raises(BadInput, match=r"'dion'.*did you mean 'dino'"):
        load("datasaurus:dion")


@pytest.mark.data
@needs_data
def test_other_real_files() -> None:
    folder = Path(os.environ["SCORESDE_DATA"])
    data = load(folder / "cifar10/test_2k.npz")
    assert data.x.shape == (2000, 3, 32, 32) and data.classes[0] == "airplane" and data.labels is not None
    raw = data.x.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    assert hashlib.sha256(raw).hexdigest() == "a44cec3693a84e7f8b698fd7e14f88f400751683d10706d2c7ec3729406863c7"
    assert load(folder / "flowers64/flowers64_650.npz").event_shape == (3, 64, 64)
    refuses(folder / "ett/ETTh1.csv", "line 2, column 'date'")
    assert load(folder / "ett/ETTh1.csv", columns=["HUFL", "OT"]).x.shape == (17_420, 2)
