"""A residual MLP with Fourier features, for points and vectors of any event shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scoresde.errors import BadInput, choose
from scoresde.nn.check import check_counts, check_flags
from scoresde.nn.embed import Fourier, augment_linear, conditioned, label_embedding, vector_linear
from scoresde.schedule import per_sample

TIME = ("fourier", "linear", "none")


class MLP(nn.Module):
    """Fourier features of the input and of the time label, then residual layers of width ``width``.

    ``event_shape`` is flattened; ``scales`` are the bandwidths of the input's features (coarse to fine; [] for none),
    the input itself is always passed on too. ``time`` says how the label is told: as itself and by its Fourier features
    ("fourier"), as itself alone ("linear"), or not at all ("none": the output is the same at all times). The label is
    expected to be of order one (time="t" or "log_sigma/4"). With ``classes`` > 0 the label y is one of
    0 … classes-1, or ``classes`` for none; ``augment`` is the number of numbers in an augmentation label, ``vector``
    that of a condition's. With ``learned_variance`` the output has twice the event's channels.

    >>> import torch
    >>> MLP((2,), width=32, depth=2)(torch.zeros(4, 2), torch.zeros(4)).shape
    torch.Size([4, 2])
    >>> MLP((2,), width=32, depth=2, scales=[], time="none")(torch.zeros(4, 2), torch.zeros(4)).shape
    torch.Size([4, 2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        width: int = 256,
        depth: int = 4,
        features: int = 64,
        scales: Sequence[float] = (0.25, 1.0),
        classes: int = 0,
        learned_variance: bool = False,
        time: str = "fourier",
        augment: int = 0,
        vector: int = 0,
    ) -> None:
        super().__init__()
        check_counts("MLP", width=width)
        check_counts("MLP", 0, depth=depth, classes=classes, augment=augment, vector=vector)
        check_flags("MLP", learned_variance=learned_variance)
        choose("MLP time", time, TIME)
        size = math.prod(event_shape)
        self.event_shape, self.classes = tuple(event_shape), classes
        self.inputs = nn.ModuleList(Fourier(size, features, scale, seed=i) for i, scale in enumerate(scales))
        self.time = Fourier(1, features, 1.0, seed=len(scales)) if time == "fourier" else None
        self.labels = label_embedding(classes, width)
        self.first = nn.Linear(size + features * len(scales), width)
        self.time_in = nn.Linear(1 + features * (time == "fourier"), width) if time != "none" else None
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
            for _ in range(depth)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, (1 + learned_variance) * size))
        self.learned_variance = learned_variance
        self.augment, self.augment_in = augment, augment_linear(augment, width)
        self.vector_in = vector_linear(vector, width)

    def forward(
        self,
        x: Float[Tensor, "batch *event"],
        label: Float[Tensor, "batch"],
        y: Tensor | None = None,
        augment: Float[Tensor, "batch augment"] | None = None,
        vector: Float[Tensor, "batch vector"] | None = None,
    ) -> Float[Tensor, "batch *output"]:
        """The network's output at states x, time labels, class labels y (None: no class); others None: zeros."""
        out = self.last(self.hidden(x, label, y, augment, vector))
        return out.reshape(len(x), 2 * x.shape[1], *x.shape[2:]) if self.learned_variance else out.reshape(x.shape)

    def hidden(
        self,
        x: Tensor,
        label: Tensor,
        y: Tensor | None = None,
        augment: Tensor | None = None,
        vector: Tensor | None = None,
    ) -> Float[Tensor, "batch width"]:
        """What the last layer sees."""
        if x.shape[1:] != self.event_shape:
            raise BadInput(f"MLP: events of shape {tuple(x.shape[1:])} must have shape {self.event_shape}")
        flat, label = per_sample(x), label[:, None]
        h = self.first(torch.cat([flat, *(features(flat) for features in self.inputs)], dim=1))
        if self.time_in is not None:
            h = h + self.time_in(label if self.time is None else torch.cat([label, self.time(label)], dim=1))
        h = conditioned(h, self.labels, self.augment_in, y, augment, self.vector_in, vector)
        for layer in self.layers:
            h = h + layer(h)
        return h
