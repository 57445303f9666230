"""One entry point for every data set."""

import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from scoresde.data.arrays import read_array
from scoresde.data.dataset import Dataset
from scoresde.data.folders import read_archive, read_folder
from scoresde.data.hub import read_hub
from scoresde.data.photos import CIFAR10_FILES, cifar10, flowers64
from scoresde.data.public import PUBLIC, datasaurus, public_images
from scoresde.data.readers import read_idx_set
from scoresde.data.series import ETTH1_SPLITS, etth1, read_series
from scoresde.data.series import OPTIONS as SERIES
from scoresde.data.tables import read_table
from scoresde.data.toy import TOY, toy_set
from scoresde.errors import BadInput, choose

READERS: dict[str, Callable[..., Dataset]] = {
    ".npz": read_array,
    ".npy": read_array,
    ".csv": read_table,
    ".tsv": read_table,
    ".txt": read_table,
    ".zip": read_archive,
    ".tar": read_archive,
    ".gz": read_idx_set,
    ".idx": read_idx_set,
    "-ubyte": read_idx_set,
}
SPLITS: dict[str, tuple[Callable[..., Dataset], tuple[str, ...]]] = {  # public sets: f(split, **options), their splits
    **{name: (partial(public_images, name), tuple(images.splits)) for name, images in PUBLIC.items()},
    "cifar10": (cifar10, tuple(CIFAR10_FILES)),
    "flowers64": (flowers64, ("train",)),
    "etth1": (etth1, tuple(ETTH1_SPLITS)),
}
HUB = "hf:"


def available() -> tuple[str, ...]:
    """The names that `load` knows.

    Example:
        >>> "moons" in available()
        True
    """
    return (*SPLITS, "datasaurus", *TOY)


def load(name_or_path: str | os.PathLike[str], split: str = "train", **options: Any) -> Dataset:
    """Load a data set, in its own units, by name or from a file or folder.

    Args:
        name_or_path: a public set ("mnist", "fashion_mnist", "cifar10", "flowers64", "etth1", "datasaurus",
            "datasaurus:dino"), a built-in set in the plane (see `scoresde.data.toy`), "hf:" and the name of a set of
            the Hugging Face hub, or a path: .npz, .npy, .csv, .tsv, .txt, idx (compressed or not), or images in a
            folder, a .zip or a .tar. A name goes before a path; write "./mnist" for a folder called mnist.
        split: "train", or another one of the sets that have it: "test", "val".
        options: `n` and `seed` for built-in sets (default 10000 and 0); `columns` and `label_column` for tables;
            `window`, `stride`, `columns` and `part` for tables that are time series; `labels` (a file) for idx; `size`
            and `channels` for images; `stream` and `series` for arrays; `stream` also for images. Each reader tells
            of its own: `read_table`, `read_series`, `read_array`, `read_folder`, `read_hub`.

    Raises:
        BadInput: an unknown name, split or option, a missing file, or one that its reader refuses.

    Example:
        >>> load("moons", n=500, seed=1).x.shape
        torch.Size([500, 2])
    """
    text = os.fspath(name_or_path)
    if text in SPLITS:
        return _call(partial(SPLITS[text][0], split), text, options)
    if text.startswith(HUB):
        return _call(partial(read_hub, text.removeprefix(HUB), split), text, options)
    reader = _reader(text, series=not options.keys().isdisjoint(SERIES))
    if split != "train":
        raise BadInput(f"{text} has no split {split!r}; allowed: train")
    return _call(reader, text, options)


def _reader(text: str, series: bool) -> partial[Dataset]:
    """What reads a set that has no splits: a built-in one, or a file or folder that exists."""
    if text == "datasaurus" or text.startswith("datasaurus:"):
        return partial(datasaurus, text.partition(":")[2] or None)
    if text in TOY:
        return partial(toy_set, text)
    path = Path(text)
    if os.path.isdir(text):
        return partial(read_folder, path)
    reader = next((reader for suffix, reader in READERS.items() if path.name.lower().endswith(suffix)), None)
    if not os.path.exists(text):
        if reader or path.name != text:
            raise BadInput(f"{path}: no such file or folder")
        choose("data set", text, available())
    if reader is None:
        raise BadInput(f"{path}: cannot tell what it holds; allowed: a folder of images, {', '.join(READERS)}")
    if reader is read_table and series:
        reader = read_series
    return partial(reader, path)


def _call(reader: partial[Dataset], what: str, options: dict[str, Any]) -> Dataset:
    """Call the reader with the options, which must be among those that it still takes."""
    allowed = inspect.signature(reader).parameters
    for option in options:
        if not allowed:
            raise BadInput(f"unknown option {option!r}: {what} takes none")
        choose(f"option for {what}", option, allowed)
    return reader(**options)
