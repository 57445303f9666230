"""The closed form that posterior samplers are measured against."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.analytic import Gaussian
from scoresde.errors import BadInput
from scoresde.guidance.operators import Linear


def gaussian_posterior(prior: Gaussian, operator: Linear, y: Tensor, noise_std: float) -> Gaussian:
    """N(m', C') of x_0 ~ N(m, C) given y = A x_0 + n, n ~ N(0, s²), y in the shape of one A x_0.

    m' = m + K (y - A m), C' = (1 - K A) C (1 - K A)ᵀ + s² K Kᵀ, K = C Aᵀ (A C Aᵀ + s²)⁻¹ (Bishop 2006, eq. 2.116; the
    covariance in Joseph's form, symmetric by construction). Float64.

    >>> import scoresde
    >>> from scoresde.guidance import Matrix
    >>> prior = scoresde.Gaussian(torch.zeros(2), torch.eye(2))
    >>> post = gaussian_posterior(prior, Matrix(torch.tensor([[1.0, 0.0]]), (2,)), torch.tensor([3.0]), 1.0)
    >>> post.mean, post.cov
    (tensor([1.5000, 0.0000], dtype=torch.float64), tensor([[0.5000, 0.0000], [0.0000, 1.0000]], dtype=torch.float64))
    """
    A, C, m = operator.matrix(), prior.cov.double(), prior.mean.double().flatten()
    if y.numel() != len(A):
        raise BadInput(f"y has shape {tuple(y.shape)}: one measurement of {len(A)} numbers")
    seen = A @ C @ A.mT + noise_std**2 * torch.eye(len(A), dtype=A.dtype)
    K = C @ A.mT @ torch.linalg.pinv(seen, hermitian=True)
    left = torch.eye(len(C), dtype=A.dtype) - K @ A
    cov = left @ C @ left.mT + noise_std**2 * K @ K.mT
    mean = m + K @ (y.double().flatten() - A @ m)
    return Gaussian(mean.reshape(prior.mean.shape), (cov + cov.mT) / 2)
