"""The states of a run, and a moving picture of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scoresde.denoiser import AnyDenoiser
from scoresde.errors import BadInput, choose
from scoresde.noise import START, SeededNoise
from scoresde.pictures import film, finite, image_grid

FRAME_MS, LAST_MS = 80, 1500  # how long a frame and the last one are shown


def record(
    denoiser: AnyDenoiser, shape: Sequence[int], sampler: str, steps: int | None = None, *, seed: int = 0, **how: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The states of a run of `scoresde.sample`, the prior draw first: times (steps + 1,), states (steps + 1, *shape).

    >>> import torch, scoresde
    >>> denoiser = scoresde.Gaussian(torch.zeros(2), torch.eye(2)).denoiser(scoresde.VPSDE())
    >>> times, states = record(denoiser, (5, 2), "ddim", 3)
    >>> (
    ...     float(times[0]),
    ...     states.shape,
    ...     bool((states[-1] == scoresde.sample(denoiser, (5, 2), "ddim", 3).x.numpy()).all()),
    ... )
    (1.0, (4, 5, 2), True)
    """
    from scoresde.samplers import trajectory

    times: list[float] = []
    states: list[np.ndarray] = []
    for interval in trajectory(denoiser, shape, sampler, steps, seed=seed, x0=False, **how):
        if not states:
            noise = SeededNoise(seed, range(shape[0]))(START, 0, interval.x.cpu())
            times.append(interval.t)
            states.append((noise * denoiser.sde.prior_std(interval.t)).numpy())
        times.append(interval.t_next)
        states.append(interval.x.cpu().numpy())
    return np.array(times), np.stack(states)


def animate(
    states: ArrayLike, times: Sequence[float] | np.ndarray, labels: ArrayLike | None = None, form: str = "gif"
) -> bytes:
    """States (steps, n, *event) as an animated GIF or, with ``form`` "mp4", a video, a frame each under its time.

    Every frame is a picture of `scoresde.pictures.film`: points have one scale for all frames unless the ranges are
    very unlike; images, shown as a grid, have a scale for each frame if they are not uint8. Videos need PyAV.

    >>> rng = np.random.default_rng(0)
    >>> animate(rng.normal(size=(3, 20, 2)), [1.0, 0.5, 0.0])[:6]
    b'GIF89a'
    """
    choose("form of a moving picture", form, FILMS)
    states, labels = finite("states", states), None if labels is None else np.asarray(labels)
    if len(states) != len(times) or not len(states):
        raise BadInput(f"animate: {len(states)} states and {len(times)} times: give as many, and at least one")
    titles = [f"t = {t:.3f}" for t in times]
    if states.ndim in (4, 5):
        frames = [_image_frame(step, title, labels) for step, title in zip(states, titles, strict=True)]
    else:
        frames = np.split(_pixels(film(states, titles, labels)), len(titles), axis=1)
    return FILMS[form](frames)


def _gif(frames: Sequence[np.ndarray]) -> bytes:
    from PIL import Image

    images = [Image.fromarray(frame).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    buffer = io.BytesIO()
    durations = [FRAME_MS] * (len(images) - 1) + [LAST_MS]
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return buffer.getvalue()


def _mp4(frames: Sequence[np.ndarray]) -> bytes:
    """H.264 as every player takes it: even sides, every second colour, the last frame repeated."""
    av = video_library()
    height, width = frames[0].shape[:2]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=Fraction(1000, FRAME_MS), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for frame in [*frames, *[frames[-1]] * (LAST_MS // FRAME_MS)]:
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def video_library() -> Any:
    """PyAV, of the extra ``video``."""
    try:
        import av
    except ImportError as error:
        raise BadInput("a video needs PyAV: pip install 'scoresde[video]' (a .gif needs nothing more)") from error
    return av


FILMS: dict[str, Callable[[Sequence[np.ndarray]], bytes]] = {"gif": _gif, "mp4": _mp4}


def _pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _image_frame(x: np.ndarray, title: str, labels: np.ndarray | None) -> np.ndarray:
    """One grid of images under its title: to `film` it is one large image."""
    sheet = _pixels(image_grid(x if x.ndim == 4 else x[:, None], labels))
    return _pixels(film(sheet.transpose(2, 0, 1)[None, None], [title]))
