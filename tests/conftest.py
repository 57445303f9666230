"""Every test runs with the shapes of the annotations checked, on one thread, without touching global random state."""

from jaxtyping import install_import_hook

install_import_hook("scoresde", "checker.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
