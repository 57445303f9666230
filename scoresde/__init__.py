"""scoresde: a score-based SDE/ODE sampling toolkit on PyTorch.

The public names stand in ``__init__.pyi`` and load on first use, so that ``scoresde --help`` need not wait for torch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
