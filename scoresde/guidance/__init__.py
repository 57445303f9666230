"""Steering the samples: denoisers made of denoisers, so that every sampler takes them, and what acts between steps."""

from scoresde.guidance.classifier import NoisyClassifier, classifier_guidance
from scoresde.guidance.combine import autoguidance, classifier_free, compose_conditions

__all__ = ["NoisyClassifier", "autoguidance", "classifier_free", "classifier_guidance", "compose_conditions"]
