"""Networks: an MLP for points and vectors, a U-Net and a transformer for images and sequences.

Each is built as ``Network(event_shape, **options)`` and called as ``network(x, label, y=None, augment=None, **more)``:
states, time labels, class labels, labels of how training images were augmented, and the conditions that its options
make room for: vector, and but for an MLP context, context_mask, condition. Networks of classifiers are built as
``Network(event_shape, classes, **options)`` and called as ``network(x, label)``.
"""

from scoresde.nn.dit import DiT
from scoresde.nn.encoder import Encoder, PointEncoder
from scoresde.nn.mlp import MLP
from scoresde.nn.unet import UNet

NETWORKS = {"mlp": MLP, "unet": UNet, "dit": DiT}
CLASSIFIERS = {"encoder": Encoder, "mlp": PointEncoder}

__all__ = ["CLASSIFIERS", "MLP", "NETWORKS", "DiT", "Encoder", "PointEncoder", "UNet"]
