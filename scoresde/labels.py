"""What a network is told of time: labels of many conventions, by name, in the network's precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scoresde.sde import SDE


def _snapped(steps: Tensor) -> Tensor:
    """Whole where only the rounding of t is in the way: a table of embeddings would round 500.99997 down."""
    whole = steps.round()
    return torch.where((steps - whole).abs() < 4 * torch.finfo(steps.dtype).eps * whole, whole, steps)


# What a network wants to be told of time t: a tensor of labels from (sde, t).
LABELS: dict[str, Callable[[SDE, Tensor], Tensor]] = {
    "t": lambda sde, t: t,
    "1000t": lambda sde, t: 1000 * t,
    "index": lambda sde, t: _snapped(t * sde.label_steps) - 1,  # DDPM: step n sits at t = (n + 1)/N
    "score_sde": lambda sde, t: t * (sde.label_steps - 1),
    "lambda": lambda sde, t: sde.lam(t),
    "log_sigma/4": lambda sde, t: -0.25 * sde.lam(t),  # EDM's c_noise = log(ρ)/4
}
TimeLabel = str | Callable[[SDE, Tensor], Tensor]


def network_dtypes(
    network: Callable[..., Tensor], x: Tensor, dtype: torch.dtype | None = None
) -> tuple[torch.dtype, torch.dtype]:
    """What a network is given for a state like x: the dtypes of its input and of its labels."""
    parameters = network.parameters() if isinstance(network, nn.Module) else ()
    own = dtype or next((p.dtype for p in parameters if p.is_floating_point()), x.dtype)
    return own, torch.promote_types(own, torch.float32)


def time_label(time: TimeLabel, sde: SDE, t: Tensor, dtype: torch.dtype) -> Tensor:
    """What a network is told of the times t: numbers in this dtype, indices as they are."""
    label = (LABELS[time] if isinstance(time, str) else time)(sde, t)
    return label.to(dtype) if label.is_floating_point() else label
