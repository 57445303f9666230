"""Steering the samples: denoisers made of denoisers, so that every sampler takes them, and what acts between steps."""

from scoresde.guidance.basis import Rotated, grey_basis
from scoresde.guidance.edit import Noised, edit
from scoresde.guidance.inpaint import METHODS, colourise, inpaint
from scoresde.guidance.replace import Renoised, Replaced

__all__ = ["METHODS", "Noised", "Renoised", "Replaced", "Rotated", "colourise", "edit", "grey_basis", "inpaint"]
