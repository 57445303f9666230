"""Samplers: tables of checked numbers and the one loop that runs them; the probability flow through torchdiffeq."""

from scoresde.samplers.registry import SAMPLERS, Sampler
from scoresde.samplers.run import Result, encode, plan_run, sample
from scoresde.samplers.table import Row, Table

__all__ = ["SAMPLERS", "Result", "Row", "Sampler", "Table", "encode", "plan_run", "sample"]
