"""Data sets, in their own units, and the scaling between them and a network.

`load` reads every kind: named public sets, built-in sets in the plane, and files. `Scaler` maps their values to those a
network sees and back.

Example:
    >>> data = load("moons", n=100)
    >>> scaler = Scaler.fit(data.x)
    >>> scaler.encode(data.x).shape
    torch.Size([100, 2])
"""

from scoresde.data.dataset import Dataset
from scoresde.data.folders import read_folder
from scoresde.data.load import available, load
from scoresde.data.public import datasaurus, public_images
from scoresde.data.readers import read_array, read_idx
from scoresde.data.scaler import Scaler, to_uint8
from scoresde.data.tables import read_table
from scoresde.data.toy import TOY

__all__ = [
    "TOY",
    "Dataset",
    "Scaler",
    "available",
    "datasaurus",
    "load",
    "public_images",
    "read_array",
    "read_folder",
    "read_idx",
    "read_table",
    "to_uint8",
]
