"""The affine map between data in their own units and the numbers a network sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log, prod
from typing import Any

import torch
from torch import Tensor

from scoresde.data.dataset import Dataset
from scoresde.data.statistics import measure
from scoresde.errors import BadInput, choose

KINDS = ("image", "standard", "unit", "none")
_MAX_COORDINATES = 64  # vectors up to this length are scaled coordinate by coordinate


@dataclass(frozen=True)
class Scaler:
    """encode(x) = (x - shift) / scale, decode(z) = z * scale + shift; nothing is ever clamped.

    Args:
        shift: one number for all coordinates, or d numbers for events of shape (d,); in data units.
        scale: as many positive numbers, in data units.
        axis: along which axis of (..., *event) the d numbers lie: -1, or -2 for the channels of series (d, length).

    Raises:
        BadInput: shift and scale of different lengths, a number that is not finite, a scale <= 0, or another axis.

    Example:
        >>> scaler = Scaler(shift=(10.0, 0.0), scale=(2.0, 1.0))
        >>> scaler.encode(torch.tensor([[14.0, 3.0]]))
        tensor([[2., 3.]])
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]
    axis: int = -1

    def __post_init__(self) -> None:
        if not self.shift or len(self.shift) != len(self.scale):
            raise BadInput(
                f"scaler: shift has {len(self.shift)} numbers and scale {len(self.scale)}; give >= 1 of each"
            )
        if not all(isfinite(value) for value in self.shift):
            raise BadInput(f"scaler: shift must be finite, not {self.shift}")
        if not all(isfinite(value) and value > 0 for value in self.scale):
            raise BadInput(f"scaler: scale must be finite and > 0, not {self.scale}")
        if type(self.axis) is not int or self.axis not in (-1, -2):
            raise BadInput(f"scaler: axis must be -1 or -2, not {self.axis!r}")

    @classmethod
    def image(cls) -> "Scaler":
        """Pixels 0..255 to [-1, 1].

        Example:
            >>> Scaler.image().encode(torch.tensor([0, 255], dtype=torch.uint8))
            tensor([-1.,  1.])
        """
        return cls((127.5,), (127.5,))

    @classmethod
    def fit(cls, x: Tensor | Dataset, kind: str = "standard") -> "Scaler":
        """Fit to data of shape (N, *event), which are read once, in pieces.

        Points (d,) with d <= 64 are scaled coordinate by coordinate, and a data set of series channel by channel; all
        else has one pair of numbers.

        Args:
            x: the data, in their own units.
            kind: "standard" gives mean 0 and standard deviation 1 (the 1/N one), "unit" takes the smallest and largest
                value to -1 and 1, "image" takes 0 and 255 there whatever the data, "none" changes nothing.

        Raises:
            BadInput: an unknown kind, no data, a NaN or infinity, or data that are constant and have no scale.

        Example:
            >>> Scaler.fit(torch.tensor([[0.0, 5.0], [2.0, 9.0]]), kind="unit")
            Scaler(shift=(1.0, 7.0), scale=(1.0, 2.0), axis=-1)
        """
        if choose("scaler kind", kind, KINDS) == "none":
            return cls((0.0,), (1.0,))
        if kind == "image":
            return cls.image()
        shape = tuple(x.shape) if isinstance(x, Tensor) else (len(x), *x.event_shape)
        if not shape or prod(shape) == 0:
            raise BadInput(f"scaler: cannot be fitted to x of shape {shape}, which holds no events")
        series = isinstance(x, Dataset) and x.series
        split = series or (len(shape) == 2 and shape[1] <= _MAX_COORDINATES)
        moments = measure(x, axis=1 if split else None)
        low, high = moments.low, moments.high
        if not bool(torch.isfinite(high - low).all()):
            raise BadInput("scaler: cannot be fitted to data with NaN or infinite values")
        for index in (low == high).nonzero().flatten().tolist():
            place = "channel" if series else "coordinate"
            what = f"{place} {index} (counted from 0) is" if len(low) > 1 else "the data are"
            raise BadInput(f"scaler: {what} constant ({low[index].item():g}) and cannot be scaled; use kind 'none'")
        if kind == "unit":
            shift, scale = (low + high) / 2, (high - low) / 2
        else:
            shift, scale = moments.mean, moments.std
        return cls(tuple(shift.tolist()), tuple(scale.tolist()), -2 if series else -1)

    def encode(self, x: Tensor) -> Tensor:
        """Data units to network units: (x - shift) / scale.

        Args:
            x: (..., *event); integers become float32, floating types are kept.

        Raises:
            BadInput: the axis of the scaler does not have as many coordinates as the scaler.

        Example:
            >>> Scaler((50.0,), (7.0,)).encode(torch.tensor([57.0, 43.0]))
            tensor([ 1., -1.])
        """
        shift, scale = self._pair(x)
        return ((x if x.is_floating_point() else x.float()) - shift) / scale

    def decode(self, z: Tensor) -> Tensor:
        """Network units to data units: z * scale + shift. Shapes, types and errors as `encode`.

        Example:
            >>> Scaler((50.0,), (7.0,)).decode(torch.tensor([1.0, -1.0]))
            tensor([57., 43.])
        """
        shift, scale = self._pair(z)
        return z * scale + shift

    def log_det(self, event_shape: tuple[int, ...]) -> float:
        """log |d encode(x) / dx| of one event, in nats: log p(x) = log p(encode(x)) + log_det.

        Raises:
            BadInput: a scaler of d coordinates and an event shape other than (d,), or (d, length) for series.

        Example:
            >>> round(Scaler.image().log_det((1, 28, 28)), 3)
            -3800.923
        """
        if len(self.scale) == 1:
            return -prod(event_shape) * log(self.scale[0])
        d, shape = len(self.scale), tuple(event_shape)
        if len(shape) != -self.axis or shape[0] != d:
            raise BadInput(f"scaler of {d} {self._places()} does not fit events of shape {shape}")
        return -sum(log(value) for value in self.scale) * (prod(shape) // d)

    def to_json(self) -> dict[str, Any]:
        """A dict for JSON, which `from_json` reads back exactly.

        Example:
            >>> Scaler.image().to_json()
            {'shift': [127.5], 'scale': [127.5]}
        """
        values = {"shift": list(self.shift), "scale": list(self.scale)}
        return values if self.axis == -1 else {**values, "axis": self.axis}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Scaler":
        """The scaler that `to_json` wrote.

        Raises:
            BadInput: anything but a dict with two lists of numbers under "shift" and "scale" and at most an "axis".

        Example:
            >>> Scaler.from_json({"shift": [0.0], "scale": [2.0]})
            Scaler(shift=(0.0,), scale=(2.0,), axis=-1)
        """
        if not isinstance(data, Mapping) or set(data) - {"axis"} != {"shift", "scale"}:
            raise BadInput(f"scaler: expected a dict with the keys shift and scale, got {data!r:.200}")
        return cls(_numbers(data["shift"], "shift"), _numbers(data["scale"], "scale"), data.get("axis", -1))

    def _pair(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        if len(self.shift) == 1:
            return self.shift[0], self.scale[0]
        if x.ndim < -self.axis or x.shape[self.axis] != len(self.shift):
            raise BadInput(
                f"scaler of {len(self.shift)} {self._places()} does not fit values of shape {tuple(x.shape)}"
            )
        dtype = x.dtype if x.is_floating_point() else torch.float32
        shift = torch.tensor(self.shift, dtype=dtype, device=x.device)
        scale = torch.tensor(self.scale, dtype=dtype, device=x.device)
        return (shift, scale) if self.axis == -1 else (shift[:, None], scale[:, None])

    def _places(self) -> str:
        return "coordinates" if self.axis == -1 else "channels"


def to_uint8(x: Tensor) -> Tensor:
    """Image data in 0..255 to uint8 for saving: rounded and clipped. The only place in the toolkit that clips data.

    Raises:
        BadInput: a NaN, which is no pixel value.

    Example:
        >>> to_uint8(torch.tensor([-3.0, 99.6, 300.0]))
        tensor([  0, 100, 255], dtype=torch.uint8)
    """
    if bool(torch.isnan(x).any()):
        raise BadInput("to_uint8: the images have NaN values and cannot be saved")
    return x.round().clamp(0, 255).to(torch.uint8)


def _numbers(value: Any, key: str) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(type(number) in (int, float) for number in value):
        raise BadInput(f"scaler: {key} must be a list of numbers, got {value!r:.200}")
    return tuple(float(number) for number in value)
