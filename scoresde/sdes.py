"""Every SDE by the name that configs and the command line use."""

from scoresde.ddpm import DDPM
from scoresde.sde import EDM, VESDE, VPSDE, CosineVPSDE, RectifiedFlow, SubVPSDE

SDES = {
    "vp": VPSDE,
    "subvp": SubVPSDE,
    "cosine": CosineVPSDE,
    "ve": VESDE,
    "edm": EDM,
    "flow": RectifiedFlow,
    "ddpm": DDPM.named,
}
