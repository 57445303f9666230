"""Where events are compared: coordinates, pixels, or the features of a network, made piece by piece and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde.errors import BadInput, choose

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Dataset
    from scoresde.model import Model

NAMES = ("auto", "pixels", "classifier", "inception")
FAR = 255  # beyond 0 to 255 by more than this a number is no pixel, however noisy


class Space:
    """The space that ``features`` names for events like those of ``real``.

    kind    "coordinates", "pixels", "classifier" or "inception"
    facts   what a report says of it: the name, of a network the SHA-256, and how many sets came from the cache
    """

    def __init__(self, real: Dataset, features: str, device: str, cache: Path | None) -> None:
        from scoresde.metrics import load_features, load_inception

        self.like, self.cache = real, cache
        self.kind = kind_of(real, features)
        self.facts: dict[str, Any] = {"features": self.kind}
        self.net = None
        if self.kind in ("classifier", "inception"):
            own = Path(features) if self.kind == "classifier" and features not in NAMES else None
            self.net = load_inception(device=device) if self.kind == "inception" else load_features(own, device)
            data = self.net.info.get("data", {}).get("name", "unknown data")
            trained_on = {"classifier": "fashion_mnist", "inception": "imagenet"}[self.kind] if own is None else data
            name = self.kind if own is None else str(own)
            self.facts = {"features": name, "sha256": self.net.sha256, "trained_on": trained_on}
            if cache is not None:
                self.facts |= {"kept": 0, "sets": 0}

    def points(self, data: Dataset, rows: Tensor) -> Tensor:
        """The events of these rows in the space, (n, d)."""
        import torch

        from scoresde.data.dataset import piece_size
        from scoresde.metrics.kept import keep, rows_digest

        net, parts = self.net, rows.split(min(4096, piece_size(data.event_shape)))
        if net is None:
            scale = 255 if self.kind == "pixels" else 1
            return torch.cat([events_of(data, part, self.like).flatten(1).double() / scale for part in parts])

        def make() -> Tensor:
            return torch.cat([net.features(events_of(data, part, self.like)) for part in parts])

        if self.cache is None:
            return make()
        about = {
            "data": {"name": data.name, "sha256": data.sha256, "rows": rows_digest(rows), "n": len(rows)},
            "network": {"features": self.facts["features"], "sha256": net.sha256},
            "rounded_to_uint8": data.dtype != torch.uint8,
        }
        features, kept = keep(self.cache, about, make)
        self.facts["kept"] += kept
        self.facts["sets"] += 1
        return features


def kind_of(real: Dataset, features: str) -> str:
    """Classifier, Inception or pixels, of images; coordinates, of all else."""
    import torch

    from scoresde.metrics.features import SHAPE

    images = real.dtype == torch.uint8
    if not features.endswith(".safetensors"):
        choose("--features", features, NAMES)
    if features == "auto":
        return "coordinates" if not images else "classifier" if real.event_shape == SHAPE else "pixels"
    if not images:
        raise BadInput(f"--features {features}: {real.name} holds no images; use auto")
    if features in ("pixels", "inception"):
        return features
    if real.event_shape != SHAPE:
        raise BadInput(f"--features {features}: it sees images of shape {SHAPE}, not {real.event_shape}; use pixels")
    return "classifier"


def events_of(data: Dataset, rows: Tensor, like: Dataset) -> Tensor:
    """The events of the rows; samples of images that are no whole numbers are rounded as they would be when saved."""
    import torch

    from scoresde.data import to_uint8

    x = data.take(rows)
    return to_uint8(x) if like.dtype == torch.uint8 and x.is_floating_point() else x


def draws_images(model: Model) -> bool:
    """Whether its data are pixels 0 to 255."""
    from scoresde.data import Scaler

    return model.scaler == Scaler.image()


def check_pixels(data: Dataset, rows: Tensor) -> None:
    """Refuse events that are to be pixels 0 to 255 and are none: `check_range`."""
    import torch

    from scoresde.data.dataset import piece_size

    if data.dtype == torch.uint8:
        return
    pieces = (data.take(part) for part in rows.split(min(4096, piece_size(data.event_shape))))
    ends = [(float(x.min()), float(x.max())) for x in pieces]
    check_range(data.name, min(end[0] for end in ends), max(end[1] for end in ends))


def check_range(name: str, low: float, high: float) -> None:
    """Refuse what is no range of pixels 0 to 255: within [0, 1] or [-1, 1], or far beyond what noise adds."""
    if high <= 1 or low < -FAR or high > 255 + FAR:
        raise BadInput(
            f"{name}: its values are in [{low:.4g}, {high:.4g}], but pixels 0 to 255 are needed"
            f" ({'scale them' if high <= 1 else f'floats may leave that range by {FAR}: scale or clip them'})"
        )
