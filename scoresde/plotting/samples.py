"""Samples as a figure."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from scoresde.pictures import picture
from scoresde.plotting.figure import empty

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS = 100  # per inch


def plot_samples(x: ArrayLike, labels: ArrayLike | None = None) -> Figure:
    """Samples (n, *event) as a figure: the picture of `scoresde.pictures`, a grid of images, points, or a CDF.

    It has the picture's own pixels; in a larger figure, `scoresde.pictures.picture` is the image to show.

    >>> figure = plot_samples(np.random.default_rng(0).normal(size=(50, 2)))
    >>> figure.get_label(), figure.axes[0].images[0].get_array().shape
    ('50 samples of shape (2,).', (624, 640, 3))
    """
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(picture(x, labels))).convert("RGB"))
    classes = "" if labels is None else f" of {len(np.unique(labels))} classes"
    n, *event = np.shape(x)
    about = f"{n} samples{classes} of shape {tuple(event)}."
    figure = empty(pixels.shape[1] / PIXELS, pixels.shape[0] / PIXELS, about, PIXELS)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.imshow(pixels, interpolation="none", aspect="auto")
    ax.set_axis_off()
    return figure
