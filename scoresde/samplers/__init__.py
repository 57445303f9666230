"""Samplers: tables of checked numbers and the one loop that runs them; the probability flow through torchdiffeq."""

from scoresde.samplers.plan import plan_run
from scoresde.samplers.registry import SAMPLERS, Sampler
from scoresde.samplers.run import Result, encode, sample, trajectory
from scoresde.samplers.table import Row, Table

__all__ = ["SAMPLERS", "Result", "Row", "Sampler", "Table", "encode", "plan_run", "sample", "trajectory"]
