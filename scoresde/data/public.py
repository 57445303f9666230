"""Named public sets, read from the folder in SCORESDE_DATA or else downloaded once; their SHA-256 is always checked."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from scoresde.data.dataset import Dataset
from scoresde.data.layout import as_events
from scoresde.data.readers import parse_idx, read_bytes
from scoresde.data.tables import read_table
from scoresde.errors import BadInput, choose


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its name, the SHA-256 of the file itself, and that of its decompressed content."""

    name: str
    sha256: str
    content_sha256: str


@dataclass(frozen=True)
class PublicImages:
    """A public set of images: its address, licence, classes, and (images, labels) of each split."""

    url: str
    licence: str
    classes: tuple[str, ...]
    splits: dict[str, tuple[RemoteFile, RemoteFile]]


PUBLIC: dict[str, PublicImages] = {
    "mnist": PublicImages(
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        licence="CC BY-SA 3.0",
        classes=tuple("0123456789"),
        splits={
            "train": (
                RemoteFile(
                    "train-images-idx3-ubyte.gz",
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                RemoteFile(
                    "train-labels-idx1-ubyte.gz",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
            ),
            "test": (
                RemoteFile(
                    "t10k-images-idx3-ubyte.gz",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                RemoteFile(
                    "t10k-labels-idx1-ubyte.gz",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
        },
    ),
    "fashion_mnist": PublicImages(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        licence="MIT",
        classes=(
            "T-shirt/top",
            "trouser",
            "pullover",
            "dress",
            "coat",
            "sandal",
            "shirt",
            "sneaker",
            "bag",
            "ankle boot",
        ),
        splits={
            "train": (
                RemoteFile(
                    "train-images-idx3-ubyte.gz",
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                ),
                RemoteFile(
                    "train-labels-idx1-ubyte.gz",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                ),
            ),
            "test": (
                RemoteFile(
                    "t10k-images-idx3-ubyte.gz",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                ),
                RemoteFile(
                    "t10k-labels-idx1-ubyte.gz",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            ),
        },
    ),
}

_DATASAURUS_SHA256 = "c8c4792c3ed15238ba07dad6ab778adc79d72e3e1324ead4d8c1ae52849780f8"
_DATASAURUS_URL = (
    "https://raw.githubusercontent.com/jumpingrivers/datasauRus/0496ac15208e9ee4a58ea81a5de46912f095aa15"
    "/inst/extdata/DatasaurusDozen-Long.tsv"
)


def public_images(name: str, split: str = "train") -> Dataset:
    """A named public set of images, uint8 (N, 1, 28, 28), with labels.

    Raises:
        BadInput: an unknown name or split, a file that is missing from SCORESDE_DATA or cannot be downloaded, or
            content other than the published one.

    Source: Y. LeCun, C. Cortes, C. Burges, MNIST; H. Xiao, K. Rasul, R. Vollgraf 2017 (arXiv:1708.07747).

    Example:
        >>> len(public_images("mnist", "test"))  # doctest: +SKIP
        10000
    """
    images = PUBLIC[choose("public set", name, PUBLIC)]
    files = images.splits[choose(f"split of {name}", split, images.splits)]
    x, labels = (_read_remote(name, images.url, file) for file in files)
    source = f"{images.url} ({images.licence})"
    return Dataset(as_events(x.numpy(), Path(name)), labels.long(), images.classes, f"{name}/{split}", source)


def datasaurus(which: str | None = None) -> Dataset:
    """The Datasaurus Dozen: 13 sets of 142 points, (N, 2) float32, with equal means and deviations.

    Args:
        which: the name of one set, e.g. "dino" (N = 142, no labels), or None for all of them (N = 1846, labelled).

    Raises:
        BadInput: as `public_images`, or an unknown set.

    Source: J. Matejka and G. Fitzmaurice 2017, "Same Stats, Different Graphs" (CHI); datasauRus, MIT licence.

    Example:
        >>> datasaurus("dino").x.shape  # doctest: +SKIP
        torch.Size([142, 2])
    """
    path = find_file("datasaurus.tsv", _DATASAURUS_URL, f"sha256:{_DATASAURUS_SHA256}")
    table = read_table(path)
    source = f"{_DATASAURUS_URL} (MIT)"
    if which is None:
        return Dataset(table.x, table.labels, table.classes, "datasaurus", source)
    rows = table.labels == table.classes.index(choose("datasaurus set", which, table.classes))
    return Dataset(table.x[rows], name=f"datasaurus:{which}", source=source)


def _read_remote(folder: str, url: str, file: RemoteFile) -> Tensor:
    path = _locate(f"{folder}/{file.name}", url + file.name, f"sha256:{file.sha256}")
    raw = read_bytes(path)
    verify(raw, f"sha256:{file.content_sha256}", path)
    return parse_idx(raw, path)


def find_file(relative: str, url: str, known_hash: str) -> Path:
    """The path of a published file, whose bytes are checked: in the folder SCORESDE_DATA, or else downloaded once.

    Args:
        relative: where it lies in that folder, or in the cache.
        url: where it comes from.
        known_hash: "sha256:" or "md5:" and the hash that its publisher gives.

    Raises:
        BadInput: a file that is missing from SCORESDE_DATA, cannot be downloaded, or is another one.
    """
    path = _locate(relative, url, known_hash)
    verify(read_bytes(path, unpack=False), known_hash, path)
    return path


def data_folder() -> Path | None:
    """The folder that the variable SCORESDE_DATA names, where it is set."""
    folder = os.environ.get("SCORESDE_DATA")
    return Path(folder) if folder else None


def verify(content: bytes, known_hash: str, path: Path) -> None:
    """Refuse content that is not the published one."""
    kind, _, expected = known_hash.partition(":")
    actual = hashlib.new(kind, content).hexdigest()
    if actual != expected:
        name = {"sha256": "SHA-256", "md5": "MD5"}[kind]
        raise BadInput(f"{path}: is not the published file: its content has {name} {actual}, expected {expected}")


def _locate(relative: str, url: str, known_hash: str) -> Path:
    folder = data_folder()
    if folder:
        path = folder / relative
        if not path.is_file():
            raise BadInput(f"{path}: no such file in the folder SCORESDE_DATA; unset that variable to download it")
        return path
    import pooch

    cache = Path(pooch.os_cache("scoresde"), relative)
    try:
        return Path(pooch.retrieve(url, known_hash=known_hash, fname=cache.name, path=cache.parent))
    except (OSError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise BadInput(f"{url}: download failed ({reason}); set SCORESDE_DATA to a folder with {relative}") from error
