"""Networks: an MLP with Fourier features for points and vectors, a U-Net for images."""

from scoresde.nn.mlp import MLP
from scoresde.nn.unet import UNet

NETWORKS = {"mlp": MLP, "unet": UNet}

__all__ = ["MLP", "NETWORKS", "UNet"]
