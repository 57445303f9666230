"""Small colour photographs by name: CIFAR-10, whole or the part that lies in SCORESDE_DATA, and flowers64."""

import tarfile
from pathlib import Path

import numpy as np
import torch

from scoresde.data.arrays import read_array
from scoresde.data.dataset import Dataset
from scoresde.data.public import data_folder, find_file, verify
from scoresde.data.readers import read_bytes
from scoresde.errors import BadInput, choose

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_HASH = "md5:c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_FILES = {
    "train": tuple(f"cifar-10-batches-bin/data_batch_{k}.bin" for k in range(1, 6)),
    "test": ("cifar-10-batches-bin/test_batch.bin",),
}
# The parts: what each is called, its file in SCORESDE_DATA and the SHA-256 of that.
CIFAR10_PARTS = {
    "train": ("cifar10-8k", "train_8k.npz", "4bea2e606631819079ca9723cf0bee1f0c65e2cf2023d596ffe28035c94cb11c"),
    "test": ("cifar10-2k", "test_2k.npz", "02733782810de1215a942d079da0328e7369a5ba550414936c024d26b57e80c5"),
}
FLOWERS64_SHA256 = "6c5745218073d577a1ba588f004511a389f44affbdb0181474d108d6432f6e02"
_RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the red, green and blue pixels


def cifar10(split: str = "train") -> Dataset:
    """CIFAR-10, uint8 (N, 3, 32, 32) in ten classes: 50,000 images for training and 10,000 for testing.

    Without SCORESDE_DATA the authors' archive is downloaded once. In a folder SCORESDE_DATA it is looked for as
    cifar10/cifar-10-binary.tar.gz; where it is not there, a part of 8,000 (train_8k.npz) and 2,000 images (test_2k.npz)
    is taken and called cifar10-8k/train and cifar10-2k/test: figures on it do not compare with published ones.

    Raises:
        BadInput: an unknown split, a missing file, a failed download, or content other than the published one.

    Source: A. Krizhevsky 2009, "Learning multiple layers of features from tiny images".

    Example:
        >>> cifar10("test").event_shape  # doctest: +SKIP
        (3, 32, 32)
    """
    files, folder = CIFAR10_FILES[choose("split of cifar10", split, CIFAR10_FILES)], data_folder()
    archive = "cifar10/cifar-10-binary.tar.gz"
    part, name, sha256 = CIFAR10_PARTS[split]
    if folder and not (folder / archive).is_file():
        path = folder / "cifar10" / name
        if not path.is_file():
            raise BadInput(
                f"{path}: no such file in the folder SCORESDE_DATA, nor {archive}; unset that variable to download it"
            )
        return _part(path, sha256, f"{part}/{split}", f"a part of CIFAR-10, {CIFAR10_URL}")
    path = find_file(archive, CIFAR10_URL, CIFAR10_HASH)
    try:
        with tarfile.open(path, "r:gz") as opened:
            raw = b"".join(member.read() for file in files if (member := opened.extractfile(file)))
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise BadInput(f"{path}: damaged archive ({error})") from error
    x, labels = parse_cifar10(raw, path)
    return Dataset(x, labels, CIFAR10, f"cifar10/{split}", CIFAR10_URL)


def parse_cifar10(raw: bytes, path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of CIFAR-10's binary files: records of a label and 3072 bytes, red, green and blue planes.

    >>> x, labels = parse_cifar10(bytes([7, *[255] * 1024, *[0] * 2048]), Path("one.bin"))
    >>> x.shape, x[0, :, 0, 0].tolist(), labels.tolist()
    (torch.Size([1, 3, 32, 32]), [255, 0, 0], [7])
    """
    if not raw or len(raw) % _RECORD:
        raise BadInput(f"{path}: {len(raw)} bytes are no whole number of records of {_RECORD} bytes")
    records = np.frombuffer(raw, np.uint8).reshape(-1, _RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).copy()
    return torch.from_numpy(images), torch.from_numpy(records[:, 0].astype(np.int64))


def flowers64(split: str = "train") -> Dataset:
    """650 photographs of flowers, uint8 (N, 3, 64, 64) in five classes, from the folder SCORESDE_DATA.

    They are 130 of each class of TensorFlow's flower_photos, cropped and resized: for trying code on, not for models.

    Raises:
        BadInput: a split other than train, or a missing or other file.

    Example:
        >>> flowers64().classes  # doctest: +SKIP
        ('daisy', 'dandelion', 'roses', 'sunflowers', 'tulips')
    """
    choose("split of flowers64", split, ("train",))
    folder = data_folder()
    if not folder:
        raise BadInput("flowers64 has no address: set SCORESDE_DATA to a folder with flowers64/flowers64_650.npz")
    path = folder / "flowers64" / "flowers64_650.npz"
    if not path.is_file():
        raise BadInput(f"{path}: no such file in the folder SCORESDE_DATA")
    return _part(path, FLOWERS64_SHA256, "flowers64-650/train", "a part of TensorFlow's flower_photos (CC BY 2.0)")


def _part(path: Path, sha256: str, name: str, source: str) -> Dataset:
    verify(read_bytes(path), f"sha256:{sha256}", path)
    data = read_array(path)
    return Dataset(data.x, data.labels, data.classes, name, source)
