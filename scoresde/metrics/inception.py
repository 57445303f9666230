"""The features of Inception-v3 that published FIDs are taken in, through torch-fidelity (the extra `inception`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checkpoint import digest
from scoresde.errors import BadInput

LAYER = "2048"  # the last average pooling


@dataclass(frozen=True, eq=False)
class Inception:
    """What `load_inception` returns: ``network`` of torch-fidelity, ``sha256`` of its weights, ``info`` on it.

    Its 2048 features are those of the FID (Heusel et al. 2017); the Fréchet distance in them is the FID of this n.
    """

    network: nn.Module = field(repr=False)
    sha256: str
    info: dict[str, Any] = field(repr=False)

    def features(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """The features of each image, uint8 (n, 1 or 3, height, width) -> (n, 2048) float32 on the CPU.

        The network resizes to 299 x 299 itself, as TensorFlow 1 does; a grey image is given three times over.

        Raises BadInput for another shape or type.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images) or images.dtype != torch.uint8:
            raise BadInput(
                "inception: images must be uint8 of shape (n, 1 or 3, height, width), n >= 1, not"
                f" {images.dtype} {tuple(images.shape)}"
            )
        device = next(self.network.parameters()).device
        with torch.no_grad():
            parts = [self.network(part.expand(-1, 3, -1, -1).to(device))[0].cpu() for part in images.split(batch_size)]
        return torch.cat(parts)


def load_inception(path: str | Path | None = None, device: torch.device | str = "cpu") -> Inception:
    """Inception-v3 with the weights of 2015-12-05 that the FID is defined by, which torch-fidelity downloads once.

    Args:
        path: those weights in a file that is there already (weights-inception-2015-12-05-6726825d.pth).
        device: where the network computes.

    Raises:
        BadInput: torch-fidelity is not installed; the weights cannot be read or downloaded.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
            FeatureExtractorInceptionV3,
        )
    except ImportError as error:
        raise BadInput("features 'inception' need torch-fidelity: pip install 'scoresde[inception]'") from error
    if path is not None and not Path(path).is_file():
        raise BadInput(f"inception: no such file {str(path)!r}")
    try:
        network = FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], None if path is None else str(path))
    except (OSError, RuntimeError, ValueError) as error:  # a URLError is an OSError
        raise BadInput(f"inception: its weights cannot be loaded ({str(error).splitlines()[0]})") from error
    network.eval().requires_grad_(False)
    sha256 = digest(dict(network.state_dict()))
    return Inception(network.to(device), sha256, {"data": {"name": "imagenet"}, "library": "torch-fidelity"})
