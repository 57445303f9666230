"""Every test runs on one thread, with the shapes in the annotations of the core and the networks checked as it runs."""

from jaxtyping import install_import_hook

CHECKED = ("schedule", "sde", "ddpm", "denoiser", "analytic", "noise", "grids", "losses", "samplers", "nn")
install_import_hook([f"scoresde.{name}" for name in CHECKED], "checker.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
