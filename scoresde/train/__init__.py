"""Training: a typed config, an exponential moving average, and a run that continues exactly where it stopped."""

from scoresde.config import Config, load_config
from scoresde.train.trainer import train

__all__ = ["Config", "load_config", "train"]
