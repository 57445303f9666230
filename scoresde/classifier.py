"""A classifier that knows the noise: p(y | x_t, t), whose gradient in x_t guides a denoiser to a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.errors import BadInput, choose
from scoresde.labels import LABELS, TimeLabel, network_dtypes, time_label
from scoresde.schedule import like
from scoresde.sde import SDE


@dataclass(frozen=True, eq=False)
class NoisyClassifier:
    """A network of logits as log p(y | x_t, t) under an SDE, which is what a call with (x, t, y) gives
    (Song et al. 2021, eq. 14; Dhariwal & Nichol 2021, section 4).

    ``network(x, label)`` returns the logits (batch, classes); ``time`` says what its label is, as for a `Denoiser`.
    With ``unit_variance`` it is given x/√(α² + σ²), else x itself; states are in scaled space, those of the denoiser
    that is guided. ``classes`` are their names; by default the numbers below ``network.classes``, where it says that.

    >>> import torch, scoresde
    >>> net = lambda x, label: x @ torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    >>> classifier = NoisyClassifier(net, scoresde.VPSDE(), ("right", "left"), (2,))
    >>> classifier.log_prob(torch.tensor([[2.0, 0.0]]), 0.1, 0).exp()
    tensor([0.9820])
    """

    network: Callable[[Tensor, Tensor], Tensor]
    sde: SDE
    classes: tuple[str, ...] = ()
    event_shape: tuple[int, ...] | None = None
    time: TimeLabel = "t"
    unit_variance: bool = False
    name: str = "classifier"
    info: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.time, str):
            choose("time label", self.time, LABELS)
        own = getattr(self.network, "classes", None)
        if not self.classes and isinstance(own, int):
            object.__setattr__(self, "classes", tuple(map(str, range(own))))
        if len(self.classes) == 1:
            raise BadInput(f"{self.name}: one class: a classifier tells at least two apart")

    def logits(self, x: Float[Tensor, "batch *event"], t: float | Tensor) -> Float[Tensor, "batch classes"]:
        """log p(y | x_t, t) up to a constant for every class y, t a scalar or one time per sample."""
        if self.event_shape not in (None, tuple(x.shape[1:])):
            raise BadInput(
                f"{self.name}: events of shape {tuple(x.shape[1:])}, the classifier is of shape {self.event_shape}"
            )
        t = like(t, x)
        own, wide = network_dtypes(self.network, x)
        label = time_label(self.time, self.sde, t, wide).reshape(-1).expand(len(x))
        given = x / torch.hypot(self.sde.alpha(t), self.sde.sigma(t)) if self.unit_variance else x
        out, k = self.network(given.to(own), label), len(self.classes)
        if out.ndim != 2 or len(out) != len(x) or (k and out.shape[1] != k):
            raise BadInput(
                f"{self.name}: the network returned shape {tuple(out.shape)}, not the logits ({len(x)}, {k or 'k'})"
            )
        return out.to(x.dtype)

    def log_prob(self, x: Float[Tensor, "batch *event"], t: float | Tensor, y: int | Tensor) -> Float[Tensor, "batch"]:
        """log p(y | x_t, t) of a class for each sample, or one for all; differentiable in x.

        Raises BadInput for events of another shape, or for classes that are none of the classifier's. It does not wait
        for a device to read these: `classifier_guidance` does that once, before the run.
        """
        logits, y = self.logits(x, t), torch.as_tensor(y)
        if y.is_floating_point() or y.shape not in ((), (len(x),)):
            raise BadInput(f"{self.name}: y must be a class or one for each of {len(x)} samples, not {tuple(y.shape)}")
        check_classes(y, logits.shape[1], self.name)
        rows = y.to(x.device, torch.int64).expand(len(x))
        return logits.log_softmax(dim=1).gather(1, rows[:, None])[:, 0]

    def __call__(self, x: Tensor, t: float | Tensor, y: int | Tensor) -> Tensor:
        return self.log_prob(x, t, y)


def check_classes(y: Tensor, classes: int, name: str, wait: bool = False) -> None:
    """Refuse labels that are none of 0 to classes - 1; those on a device only if it may be waited for.

    >>> check_classes(torch.tensor([0, 3]), 3, "classifier")
    Traceback (most recent call last):
    scoresde.errors.BadInput: classifier: y = 3: it knows the classes 0 to 2
    """
    if (wait or y.device.type == "cpu") and y.numel():
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= classes:
            raise BadInput(f"{name}: y = {low if low < 0 else high}: it knows the classes 0 to {classes - 1}")
