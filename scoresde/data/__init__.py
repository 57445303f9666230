"""Data sets, in their own units, and the scaling between them and a network.

`load` reads every kind: named public sets, built-in sets in the plane, files, images, series, and sets of the Hugging
Face hub; large ones are left on the disk. `Scaler` maps their values to those a network sees and back, `batches` reads
them for a training run, `augment` and `mirrored` change images on the way.

Example:
    >>> data = load("moons", n=100)
    >>> scaler = Scaler.fit(data)
    >>> [scaler.encode(piece).shape for piece in data.pieces(60)]
    [torch.Size([60, 2]), torch.Size([40, 2])]
"""

from scoresde.data.arrays import read_array
from scoresde.data.augment import augment, mirrored, transform
from scoresde.data.dataset import Dataset, Events, Streamed
from scoresde.data.folders import read_archive, read_folder
from scoresde.data.hub import read_hub
from scoresde.data.load import available, load
from scoresde.data.loader import batches
from scoresde.data.photos import cifar10, flowers64
from scoresde.data.public import datasaurus, public_images
from scoresde.data.readers import read_idx
from scoresde.data.scaler import Scaler, to_uint8
from scoresde.data.series import etth1, read_series
from scoresde.data.statistics import Statistics, check_trainable, measure, statistics
from scoresde.data.tables import read_table
from scoresde.data.toy import TOY

__all__ = [
    "TOY",
    "Dataset",
    "Events",
    "Scaler",
    "Statistics",
    "Streamed",
    "augment",
    "available",
    "batches",
    "check_trainable",
    "cifar10",
    "datasaurus",
    "etth1",
    "flowers64",
    "load",
    "measure",
    "mirrored",
    "public_images",
    "read_archive",
    "read_array",
    "read_folder",
    "read_hub",
    "read_idx",
    "read_series",
    "read_table",
    "statistics",
    "to_uint8",
    "transform",
]
