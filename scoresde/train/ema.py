"""Exponential moving average of a network's weights, with warm-up."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """θ̄ ← d θ̄ + (1 - d) θ with d = min(decay, (1 + k)/(10 + k)) at step k, so that a young average is not noise.

    Parameters are averaged, buffers are copied.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2)
    >>> ema = EMA(net, decay=0.999)
    >>> ema.update(net, step=0)
    >>> torch.equal(ema.weights["weight"], net.weight)
    True
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the network's weights after step ``step`` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = dict(network.named_parameters())
        for name, tensor in network.state_dict().items():
            if name in parameters:
                self.weights[name].lerp_(tensor, 1 - decay)
            else:
                self.weights[name].copy_(tensor)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Replace the average by saved weights."""
        for name, tensor in weights.items():
            self.weights[name].copy_(tensor)
