"""Quality figures of samples: every one states its equation, its source, and what equal distributions would give.

Most compare two sets of points, real and fake, in a feature space; `load_features` gives the one in use for 28×28 grey
images, a small classifier that is frozen and known by its SHA-256.

>>> import torch
>>> real, fake = torch.randn(2, 1000, 8, generator=torch.Generator().manual_seed(0))
>>> prdc(real, fake, k=5).coverage > 0.9, kernel_distance(real, fake).value < 0.01
(True, True)
"""

from scoresde.metrics.coverage import PRDC, expected_coverage, prdc
from scoresde.metrics.features import Features, load_features
from scoresde.metrics.frechet import frechet_distance
from scoresde.metrics.kid import kernel_distance
from scoresde.metrics.labels import agreement, within_class_std
from scoresde.metrics.nearest import Memorisation, memorisation, nearest
from scoresde.metrics.sets import Estimate

__all__ = [
    "PRDC",
    "Estimate",
    "Features",
    "Memorisation",
    "agreement",
    "expected_coverage",
    "frechet_distance",
    "kernel_distance",
    "load_features",
    "memorisation",
    "nearest",
    "prdc",
    "within_class_std",
]
