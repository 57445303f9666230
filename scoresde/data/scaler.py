"""The affine map between data in their own units and the numbers a network sees."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log, prod
from typing import Any

import torch
from torch import Tensor

from scoresde.errors import BadInput, choose

KINDS = ("image", "standard", "unit", "none")
_MAX_COORDINATES = 64  # vectors up to this length are scaled coordinate by coordinate
_CHUNK = 2**22  # numbers turned into float64 at a time while fitting


@dataclass(frozen=True)
class Scaler:
    """encode(x) = (x - shift) / scale, decode(z) = z * scale + shift; nothing is ever clamped.

    Args:
        shift: one number for all coordinates, or d numbers for events of shape (d,); in data units.
        scale: as many positive numbers, in data units.

    Raises:
        BadInput: shift and scale of different lengths, a number that is not finite, or a scale <= 0.

    Example:
        >>> scaler = Scaler(shift=(10.0, 0.0), scale=(2.0, 1.0))
        >>> scaler.encode(torch.tensor([[14.0, 3.0]]))
        tensor([[2., 3.]])
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.shift or len(self.shift) != len(self.scale):
            raise BadInput(
                f"scaler: shift has {len(self.shift)} numbers and scale {len(self.scale)}; give >= 1 of each"
            )
        if not all(isfinite(value) for value in self.shift):
            raise BadInput(f"scaler: shift must be finite, not {self.shift}")
        if not all(isfinite(value) and value > 0 for value in self.scale):
            raise BadInput(f"scaler: scale must be finite and > 0, not {self.scale}")

    @classmethod
    def image(cls) -> "Scaler":
        """Pixels 0..255 to [-1, 1].

        Example:
            >>> Scaler.image().encode(torch.tensor([0, 255], dtype=torch.uint8))
            tensor([-1.,  1.])
        """
        return cls((127.5,), (127.5,))

    @classmethod
    def fit(cls, x: Tensor, kind: str = "standard") -> "Scaler":
        """Fit to data x of shape (N, *event): per coordinate for events (d,) with d <= 64, else one pair for all.

        Args:
            x: the data, in their own units.
            kind: "standard" gives mean 0 and standard deviation 1 (the 1/N one), "unit" takes the smallest and largest
                value to -1 and 1, "image" takes 0 and 255 there whatever the data, "none" changes nothing.

        Raises:
            BadInput: an unknown kind, no data, a NaN or infinity, or data that are constant and have no scale.

        Example:
            >>> Scaler.fit(torch.tensor([[0.0, 5.0], [2.0, 9.0]]), kind="unit")
            Scaler(shift=(1.0, 7.0), scale=(1.0, 2.0))
        """
        if choose("scaler kind", kind, KINDS) == "none":
            return cls((0.0,), (1.0,))
        if kind == "image":
            return cls.image()
        if x.ndim == 0 or x.numel() == 0:
            raise BadInput(f"scaler: cannot be fitted to x of shape {tuple(x.shape)}, which holds no events")
        columns = x if x.ndim == 2 and x.shape[1] <= _MAX_COORDINATES else x.reshape(-1, 1)
        low, high = columns.amin(dim=0).double(), columns.amax(dim=0).double()
        if not bool(torch.isfinite(high - low).all()):  # amin and amax pass NaN on
            raise BadInput("scaler: cannot be fitted to data with NaN or infinite values")
        for index in (low == high).nonzero().flatten().tolist():
            what = f"coordinate {index} (counted from 0) is" if len(low) > 1 else "the data are"
            raise BadInput(f"scaler: {what} constant ({low[index].item():g}) and cannot be scaled; use kind 'none'")
        if kind == "unit":
            shift, scale = (low + high) / 2, (high - low) / 2
        else:
            chunks = columns.split(_CHUNK // columns.shape[1])
            shift = torch.stack([chunk.double().sum(dim=0) for chunk in chunks]).sum(dim=0) / len(columns)
            squares = torch.stack([(chunk.double() - shift).square().sum(dim=0) for chunk in chunks]).sum(dim=0)
            scale = (squares / len(columns)).sqrt()
        return cls(tuple(shift.tolist()), tuple(scale.tolist()))

    def encode(self, x: Tensor) -> Tensor:
        """Data units to network units: (x - shift) / scale.

        Args:
            x: (..., *event); integers become float32, floating types are kept.

        Raises:
            BadInput: the last axis does not have as many coordinates as the scaler.

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
            BadInput: a scaler of d coordinates and an event shape other than (d,).

        Example:
            >>> round(Scaler.image().log_det((1, 28, 28)), 3)
            -3800.923
        """
        if len(self.scale) == 1:
            return -prod(event_shape) * log(self.scale[0])
        if tuple(event_shape) != (len(self.scale),):
            raise BadInput(f"scaler of {len(self.scale)} coordinates does not fit events of shape {tuple(event_shape)}")
        return -sum(log(value) for value in self.scale)

    def to_json(self) -> dict[str, list[float]]:
        """A dict for JSON, which `from_json` reads back exactly.

        Example:
            >>> Scaler.image().to_json()
            {'shift': [127.5], 'scale': [127.5]}
        """
        return {"shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Scaler":
        """The scaler that `to_json` wrote.

        Raises:
            BadInput: anything but a dict with two lists of numbers under "shift" and "scale".

        Example:
            >>> Scaler.from_json({"shift": [0.0], "scale": [2.0]})
            Scaler(shift=(0.0,), scale=(2.0,))
        """
        if not isinstance(data, Mapping) or set(data) != {"shift", "scale"}:
            raise BadInput(f"scaler: expected a dict with the keys shift and scale, got {data!r:.200}")
        return cls(_numbers(data["shift"], "shift"), _numbers(data["scale"], "scale"))

    def _pair(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        if len(self.shift) == 1:
            return self.shift[0], self.scale[0]
        if x.ndim == 0 or x.shape[-1] != len(self.shift):
            raise BadInput(f"scaler of {len(self.shift)} coordinates does not fit values of shape {tuple(x.shape)}")
        dtype = x.dtype if x.is_floating_point() else torch.float32
        return (
            torch.tensor(self.shift, dtype=dtype, device=x.device),
            torch.tensor(self.scale, dtype=dtype, device=x.device),
        )


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
