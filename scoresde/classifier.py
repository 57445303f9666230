"""A classifier that knows the noise: p(y | x_t, t), whose gradient in x_t guides a denoiser to a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scoresde.denoiser import TIMES, TimeLabel
from scoresde.errors import BadInput, choose
from scoresde.schedule import like
from scoresde.sde import SDE


@dataclass(frozen=True, eq=False)
class ClassifierModel:
    """What `load_classifier` returns: a network of logits as p(y | x_t, t) under an SDE, called as its `log_prob`
    (Song et al. 2021, eq. 14; Dhariwal & Nichol 2021, section 4).

    ``network(x_t / √(α² + σ²), label)`` returns the logits (batch, classes); ``time`` says what its label is, as for a
    `Denoiser`. States are in scaled space, those of the denoiser that is guided.

    >>> import torch, scoresde
    >>> net = lambda x, label: x @ torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> classifier = ClassifierModel(net, scoresde.VPSDE(), ("right", "left"), (2,))
    >>> classifier.log_prob(torch.tensor([[2.0, 0.0]]), 0.1, 0).exp()
    tensor([0.9820])
    """

    network: Callable[[Tensor, Tensor], Tensor]
    sde: SDE
    classes: tuple[str, ...]
    event_shape: tuple[int, ...]
    time: TimeLabel = "1000t"
    name: str = "classifier"
    info: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.time, str):
            choose("time label", self.time, TIMES)
        if len(self.classes) < 2:
            raise BadInput(f"{self.name}: {len(self.classes)} classes: a classifier tells at least two apart")

    def logits(self, x: Float[Tensor, "batch *event"], t: float | Tensor) -> Float[Tensor, "batch classes"]:
        """log p(y | x_t, t) up to a constant for every class y, t a scalar or one time per sample."""
        if tuple(x.shape[1:]) != self.event_shape:
            raise BadInput(
                f"{self.name}: events of shape {tuple(x.shape[1:])}, the classifier is of shape {self.event_shape}"
            )
        t = like(t, x)
        parameters = self.network.parameters() if isinstance(self.network, nn.Module) else ()
        own = next((p.dtype for p in parameters if p.is_floating_point()), x.dtype)
        label = TIMES[self.time](self.sde, t) if isinstance(self.time, str) else self.time(self.sde, t)
        label = label.to(torch.promote_types(own, torch.float32)) if label.is_floating_point() else label
        given = x / torch.hypot(self.sde.alpha(t), self.sde.sigma(t))
        return self.network(given.to(own), label.reshape(-1).expand(len(x))).to(x.dtype)

    def log_prob(self, x: Float[Tensor, "batch *event"], t: float | Tensor, y: int | Tensor) -> Float[Tensor, "batch"]:
        """log p(y | x_t, t) of a class for each sample, or one for all; differentiable in x.

        Raises BadInput for classes that are none of the classifier's, or events of another shape.
        """
        y = torch.as_tensor(y, device=x.device)
        if y.is_floating_point() or y.shape not in ((), (len(x),)):
            raise BadInput(f"{self.name}: y must be a class or one for each of {len(x)} samples, not {tuple(y.shape)}")
        if y.numel() and not 0 <= int(y.min()) <= int(y.max()) < len(self.classes):
            raise BadInput(f"{self.name}: y = {int(y.max())}: it knows the classes 0 to {len(self.classes) - 1}")
        return self.logits(x, t).log_softmax(dim=1).gather(1, y.expand(len(x))[:, None])[:, 0]

    def __call__(self, x: Tensor, t: float | Tensor, y: int | Tensor) -> Tensor:
        return self.log_prob(x, t, y)
