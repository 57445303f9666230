"""A small convolutional classifier, whose penultimate layer is the feature space of the quality figures."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Classifier(nn.Module):
    """Six convolutions with SiLU on grey images in [-1, 1], the mean over positions, one linear layer.

    There is no normalisation layer and no dropout: an image's output depends on that image alone, in ``train`` mode as
    in ``eval`` mode. (The batch norm of its training is folded into the convolutions: benchmarks/train_features.py.)

    >>> import torch
    >>> net = Classifier()
    >>> net(torch.zeros(2, 1, 28, 28)).shape, net.embed(torch.zeros(2, 1, 28, 28)).shape
    (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(self, classes: int = 10, widths: tuple[int, int, int] = (32, 64, 96), features: int = 64) -> None:
        super().__init__()
        a, b, c = widths
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(1, a, 3, padding=1),  # 28 x 28
                nn.Conv2d(a, b, 3, stride=2, padding=1),  # 14 x 14
                nn.Conv2d(b, b, 3, padding=1),
                nn.Conv2d(b, c, 3, stride=2, padding=1),  # 7 x 7
                nn.Conv2d(c, c, 3, padding=1),
                nn.Conv2d(c, features, 1),
            ]
        )
        self.head = nn.Linear(features, classes)

    def embed(self, x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch features"]:
        """The features: the mean over positions of the last convolution's output."""
        for conv in self.convs:
            x = F.silu(conv(x))
        return x.mean(dim=(2, 3))

    def forward(self, x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch classes"]:
        """The logits, a linear function of the features."""
        return self.head(self.embed(x))
