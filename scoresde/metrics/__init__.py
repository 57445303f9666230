"""Quality figures of samples: every one states its equation, its source, and what equal distributions would give.

Most compare two sets of points, real and fake, as they are or in a feature space; `load_features` gives the one in use
for 28×28 grey images, a small classifier that is frozen and known by its SHA-256, `load_inception` that of the FID.

>>> import torch
>>> real, fake = torch.randn(2, 1000, 8, generator=torch.Generator().manual_seed(0))
>>> prdc(real, fake, k=5).coverage > 0.9, kernel_distance(real, fake).value < 0.01
(True, True)
"""

from scoresde.metrics.bootstrap import Interval, bootstrap
from scoresde.metrics.coverage import PRDC, expected_coverage, prdc
from scoresde.metrics.energy import energy_distance, gaussian_mmd, median_distance
from scoresde.metrics.features import Features, load_features
from scoresde.metrics.frechet import frechet_distance
from scoresde.metrics.inception import Inception, load_inception
from scoresde.metrics.kept import keep
from scoresde.metrics.kid import kernel_distance
from scoresde.metrics.labels import agreement, within_class_std
from scoresde.metrics.modes import high_quality_share, mode_coverage
from scoresde.metrics.nearest import Memorisation, memorisation, nearest
from scoresde.metrics.sets import Estimate, Measured
from scoresde.metrics.two_sample import two_sample_accuracy
from scoresde.metrics.wasserstein import sliced_wasserstein, wasserstein

__all__ = [
    "PRDC",
    "Estimate",
    "Features",
    "Inception",
    "Interval",
    "Measured",
    "Memorisation",
    "agreement",
    "bootstrap",
    "energy_distance",
    "expected_coverage",
    "frechet_distance",
    "gaussian_mmd",
    "high_quality_share",
    "keep",
    "kernel_distance",
    "load_features",
    "load_inception",
    "median_distance",
    "memorisation",
    "mode_coverage",
    "nearest",
    "prdc",
    "sliced_wasserstein",
    "two_sample_accuracy",
    "wasserstein",
    "within_class_std",
]
