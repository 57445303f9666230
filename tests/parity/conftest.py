"""Tests beside other libraries: pytest -m parity, with what benchmarks/adapters.py needs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def peers() -> ModuleType:
    """The adapters of the benchmarks. Only tests that run import the libraries, or say what to install."""
    sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
    adapters = importlib.import_module("adapters")
    adapters.k_diffusion()
    adapters.scheduler_class("DDIM")
    return adapters
