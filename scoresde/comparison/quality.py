"""How far samples are from data: one figure with its interval, the one that suits what the samples are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scoresde.data import Scaler, to_uint8
from scoresde.errors import BadInput
from scoresde.metrics import Interval, energy_distance, kernel_distance, load_features
from scoresde.metrics.compare import Group, compare
from scoresde.metrics.features import SHAPE
from scoresde.model import Model

LEAST = 20  # samples and events
MOST = 1000  # events that samples are held against
DRAWS = 100  # resamplings of an interval


class Ruler:
    """The distance of samples to ``real`` events, in their units; both without bias, 0 for equal distributions.

    Of images (uint8) the kernel distance (KID, Bińkowski et al. 2018, section 4): in the features of the frozen
    classifier where they are 28×28 and grey, else of their pixels in [0, 1]. Of all else the energy distance
    (Székely & Rizzo 2013). At most `MOST` events are used, drawn by ``seed``; of as many others as there are samples,
    where the data have them, ``floor`` is the same figure: what a perfect sampler would get.

    >>> import torch
    >>> from scoresde import load_model
    >>> ruler = Ruler(torch.randn(300, 2), 50, load_model("datasaurus"))
    >>> ruler.name, ruler.n
    ('energy distance', 250)
    """

    def __init__(self, real: Tensor, num: int, model: Model, seed: int = 0) -> None:
        if tuple(real.shape[1:]) != model.event_shape:
            raise BadInput(f"the data have events of shape {tuple(real.shape[1:])}, the model of {model.event_shape}")
        if model.scaler == Scaler.image() and real.dtype != torch.uint8:
            raise BadInput(f"the data are {real.dtype} numbers, the model draws images: give uint8, 0 to 255")
        self.images, self.decode, self.seed = real.dtype == torch.uint8, model.scaler.decode, seed
        self.name = "KID" if self.images else "energy distance"
        for what, count in (("samples", num), ("events of the data", len(real))):
            if count < LEAST:
                raise BadInput(f"{count} {what} are too few for the {self.name}: at least {LEAST} are needed")
        net = load_features() if self.images and model.event_shape == SHAPE else None
        self.space = "classifier" if net else "pixels" if self.images else "coordinates"
        self.sha256 = net.sha256 if net else None
        self._embed: Callable[[Tensor], Tensor] = net.features if net else self._flat
        self.groups = [
            Group(("KID",), lambda a, b: list(kernel_distance(a, b)), error=True)
            if self.images
            else Group(("energy distance",), lambda a, b: [energy_distance(a, b).value])
        ]
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
        other = order[:num] if len(real) >= num + max(LEAST, num) else order[:0]
        rows = order[len(other) : len(other) + MOST]
        self.n, self.real = len(rows), self._embed(real[rows])
        self.floor = self._figure(self._embed(real[other])) if len(other) else None

    def __call__(self, x: Tensor) -> Interval:
        """The figure of samples x in the denoiser's (scaled) space; images are rounded as they are when saved."""
        x = self.decode(x.cpu())
        return self._figure(self._embed(to_uint8(x) if self.images else x))

    def _figure(self, points: Tensor) -> Interval:
        (row,) = compare(self.groups, self.real, points, draws=DRAWS, seed=self.seed)
        return Interval(row.value, row.low, row.high)

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(1).double() / (255 if self.images else 1)
