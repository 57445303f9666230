"""Training objectives: what is compared with what (`denoising`, `vlb`, `sliced`, `distillation`), how much each
time weighs (`weightings`), and at which times a network is trained (`times`)."""

from scoresde.losses.denoising import denoising_loss
from scoresde.losses.distillation import guidance_distillation_loss
from scoresde.losses.sliced import sliced_score_matching_loss
from scoresde.losses.times import TIMES, LossAware, Times, make_times, sample_times
from scoresde.losses.vlb import chain_times, hybrid_loss, prior_bound, vlb_loss
from scoresde.losses.weightings import WEIGHTINGS, weight

__all__ = [
    "TIMES",
    "WEIGHTINGS",
    "LossAware",
    "Times",
    "chain_times",
    "denoising_loss",
    "guidance_distillation_loss",
    "hybrid_loss",
    "make_times",
    "prior_bound",
    "sample_times",
    "sliced_score_matching_loss",
    "vlb_loss",
    "weight",
]
