"""Steering the samples: denoisers made of denoisers, so that every sampler takes them, and what acts between steps."""

from scoresde.guidance.basis import Rotated, grey_basis
from scoresde.guidance.classifier import classifier_guidance
from scoresde.guidance.combine import autoguidance, classifier_free, compose_conditions
from scoresde.guidance.compose import Composed, compose
from scoresde.guidance.edit import Noised, edit
from scoresde.guidance.gaussian import gaussian_posterior
from scoresde.guidance.imaging import OPERATORS, Blur, Downsample, Fourier, Mask, parse_operator
from scoresde.guidance.inpaint import INPAINTING, colourise, inpaint
from scoresde.guidance.inverse import Measured, measured
from scoresde.guidance.methods import METHODS, chain_strength
from scoresde.guidance.operators import Linear, LinearMap, Matrix
from scoresde.guidance.radon import Radon
from scoresde.guidance.replace import Renoised, Replaced

__all__ = [
    "INPAINTING",
    "METHODS",
    "OPERATORS",
    "Blur",
    "Composed",
    "Downsample",
    "Fourier",
    "Linear",
    "LinearMap",
    "Mask",
    "Matrix",
    "Measured",
    "Noised",
    "Radon",
    "Renoised",
    "Replaced",
    "Rotated",
    "autoguidance",
    "chain_strength",
    "classifier_free",
    "classifier_guidance",
    "colourise",
    "compose",
    "compose_conditions",
    "edit",
    "gaussian_posterior",
    "grey_basis",
    "inpaint",
    "measured",
    "parse_operator",
]
