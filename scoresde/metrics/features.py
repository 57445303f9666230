"""The frozen ruler: features and classes of 28×28 grey images by one small classifier that never changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde.checkpoint import load_checkpoint
from scoresde.errors import BadInput
from scoresde.nn.classifier import Classifier

SHAPE = (1, 28, 28)


@dataclass(frozen=True, eq=False)
class Features:
    """What `load_features` returns: ``network`` in eval mode and float32, ``sha256`` of its weights, ``info`` on it.

    Images are uint8 in 0..255, or floating-point numbers in [-1, 1]; both of shape (n, 1, 28, 28). Figures should be
    taken on uint8 images (`scoresde.data.to_uint8`), so that samples are judged as they are saved.
    """

    network: Classifier = field(repr=False)
    sha256: str
    info: dict[str, Any] = field(repr=False)

    def features(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """The 64 features of each image, (n, 64) float32 on the CPU. The batch size changes no more than rounding.

        Raises:
            BadInput: another shape, or values that are NaN or outside [-1, 1].

        >>> import torch
        >>> load_features().features(torch.zeros(3, 1, 28, 28, dtype=torch.uint8)).shape
        torch.Size([3, 64])
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != SHAPE or not len(images):
            raise BadInput(f"features: images must have shape (n, 1, 28, 28), n >= 1, not {tuple(images.shape)}")
        if not images.is_floating_point() and images.dtype != torch.uint8:
            raise BadInput(f"features: images must be uint8, or floating-point in [-1, 1], not {images.dtype}")
        if images.is_floating_point() and not bool((images.abs() <= 1 + 1e-6).all()):  # NaN is not <= either
            low, high = float(images.min()), float(images.max())
            raise BadInput(f"features: floating-point images must be in [-1, 1], these are in [{low:.4g}, {high:.4g}]")
        device = next(self.network.parameters()).device
        parts: list[Tensor] = []
        with torch.inference_mode():
            for part in images.split(batch_size):
                part = part.to(device).float()
                parts.append(self.network.embed(part / 127.5 - 1 if images.dtype == torch.uint8 else part).cpu())
        return torch.cat(parts).clone()

    def predict(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """The class of each image, (n,) int64.

        >>> import torch
        >>> load_features().predict(torch.zeros(3, 1, 28, 28)).shape
        torch.Size([3])
        """
        return self.classify(self.features(images, batch_size))

    def classify(self, features: Tensor) -> Tensor:
        """The class of each row of features, (n, 64) -> (n,) int64: the last layer alone."""
        with torch.no_grad():
            return self.network.head(features.to(self.network.head.weight)).argmax(dim=1).cpu()


def load_features(path: str | Path | None = None, device: torch.device | str = "cpu") -> Features:
    """The shipped feature classifier, or that of another file; its content is checked against its SHA-256.

    Trained on the Fashion-MNIST training set by benchmarks/train_features.py, and frozen: figures are comparable only
    between equal ``sha256``.

    Raises:
        BadInput: no such file, a damaged one, or one that does not hold a feature classifier.

    >>> load_features().network.training
    False
    """
    path = Path(str(resources.files("scoresde"))) / "pretrained" / "features.safetensors" if path is None else path
    tensors, info = load_checkpoint(path)
    if info.get("kind") != "features":
        raise BadInput(f"{str(path)!r} holds no feature classifier (kind {info.get('kind')!r})")
    network = Classifier(len(info["classes"]), features=info["features"])
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    network.eval().requires_grad_(False)
    return Features(network.to(device), info["sha256"], info)
