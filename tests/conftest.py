"""Every test, and what it starts, runs on one thread; shapes in the annotations of core and networks are checked."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook

CORE = ("schedule", "sde", "families", "ddpm", "denoiser", "analytic", "noise", "grids", "losses", "samplers")
CHECKED = (*CORE, "likelihood", "nn")
install_import_hook([f"scoresde.{name}" for name in CHECKED], "checker.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
