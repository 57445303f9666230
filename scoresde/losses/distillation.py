"""Guidance distillation: a network learns to give alone what a teacher gives with classifier-free guidance."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.denoiser import Denoiser
from scoresde.losses.weightings import weight
from scoresde.schedule import like, per_sample


def guidance_distillation_loss(
    denoiser: Denoiser,
    teacher: Denoiser,
    x0: Float[Tensor, "batch *event"],
    t: Float[Tensor, "batch"],
    noise: Float[Tensor, "batch *event"],
    w: float,
    null: int,
    weighting: str = "simple",
    **cond: Any,
) -> Float[Tensor, "batch"]:
    """weight(t) times the mean squared difference from the ``teacher`` guided by w, F_u + w (F_c - F_u), at x_t.

    F are outputs of the networks, of one form, in which guidance is what it is in ε; F_u is given the label ``null`` in
    place of ``y``. The minimiser at w is `classifier_free(teacher, w)` at half its evaluations, and where ``y`` is
    null, the teacher (Meng et al. 2023, section 3.1, for one w, their 1 + w). The teacher gets no gradient, and the
    target no noise: the least loss is zero.

    >>> import torch, scoresde
    >>> mean = torch.tensor([1.0, -1.0, 0.0])
    >>> teacher = scoresde.Denoiser(lambda x, t, y: mean[y].unsqueeze(1).expand_as(x), scoresde.VPSDE(), "x0")
    >>> x0, t, y = torch.zeros(2, 4), torch.full((2,), 0.5), torch.tensor([0, 2])
    >>> guidance_distillation_loss(teacher, teacher, x0, t, torch.ones(2, 4), 3.0, null=2, y=y)  # 3 for 1, 0 for 0
    tensor([4., 0.])
    """
    x = denoiser.sde.perturb(x0, t, noise)
    with torch.no_grad():
        without = teacher.output(x, t, **{**cond, "y": torch.full_like(cond["y"], null)})
        target = without + w * (teacher.output(x, t, **cond) - without)
    error = (denoiser.output(x, t, **cond) - target).square()
    return weight(weighting, denoiser, like(t, x)).reshape(-1) * per_sample(error).mean(1)
