"""Figures that need the class of each image: agreement with what was asked for, and the spread within a class."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.errors import BadInput
from scoresde.metrics.sets import Estimate


def agreement(predicted: Tensor, asked: Tensor) -> Estimate:
    """The share p of samples whose predicted class is the one asked for; standard error √(p (1-p) / n).

    A classifier trained on real data judges conditional samples (the GAN-test of Shmelkov et al. 2018). Its accuracy on
    real test images is what these reach. A model that draws class means only would pass: look at coverage too.

    >>> import torch
    >>> agreement(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])).value
    0.75
    """
    if predicted.shape != asked.shape or predicted.ndim != 1 or not len(asked):
        raise BadInput(f"agreement: {tuple(predicted.shape)} predicted and {tuple(asked.shape)} asked classes differ")
    share = float((predicted.cpu() == asked.cpu()).double().mean())
    return Estimate(share, (share * (1 - share) / len(asked)) ** 0.5)


def within_class_std(images: Tensor, labels: Tensor) -> float:
    """The standard deviation of a pixel within its class: √ of the unbiased variance, averaged over pixels and classes.

        s² = mean over classes c and pixels p of Var(x_p | class c)

    In the units of the images. Class means drawn for every sample give 0, real images what to compare with.

    Raises BadInput for labels that do not fit, or a class of a single image.

    >>> import torch
    >>> within_class_std(torch.tensor([[0.0], [2.0], [5.0], [7.0]]), torch.tensor([0, 0, 1, 1]))
    1.4142
    """
    if labels.shape != images.shape[:1]:
        raise BadInput(f"within_class_std: {len(images)} images and labels of shape {tuple(labels.shape)}")
    variances: list[Tensor] = []
    for c in labels.unique().tolist():
        members = images[labels == c].double()
        if len(members) < 2:
            raise BadInput(f"within_class_std: class {c} has a single image; at least 2 are needed")
        variances.append(members.var(dim=0).mean())
    return float(torch.stack(variances).mean().sqrt())
