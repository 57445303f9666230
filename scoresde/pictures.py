"""Pictures of samples with pillow alone: a grid of images, or points in the plane with axes. PNG bytes are returned."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scoresde.errors import BadInput

LIMIT = 400  # images in one grid
LEFT, RIGHT, HEAD = 56, 20, 20  # margins of a plot; titles stand in the head
INK, FRAME, GUIDE = (60, 60, 60), (150, 150, 150), (236, 236, 236)
COLOURS = (  # one per class, distinct also for most colour-blind readers (Okabe & Ito 2008, reordered)
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (120, 120, 120),
    (150, 130, 20),
)


def finite(what: str, x: ArrayLike) -> np.ndarray:
    """Samples, an array or a tensor on the CPU, as an array of finite numbers; else BadInput names the first other.

    >>> finite("samples", [[0.0, 1.0], [2.0, float("nan")]])
    Traceback (most recent call last):
        ...
    scoresde.errors.BadInput: samples: nan at [1, 1]: a picture needs finite numbers
    """
    values = np.asarray(x)
    if not np.isfinite(values).all():
        first = np.argwhere(~np.isfinite(values))[0].tolist()
        raise BadInput(f"{what}: {values[tuple(first)]} at {first}: a picture needs finite numbers")
    return values


def picture(x: ArrayLike, labels: ArrayLike | None = None) -> bytes:
    """The picture that suits samples (n, *event): images as a grid, vectors as points, single numbers as their CDF."""
    x, labels = finite("samples", x), None if labels is None else np.asarray(labels)
    if x.ndim == 4:
        return image_grid(x, labels)
    if x.ndim == 3:
        return image_grid(x[:, None], labels)
    points, labels, square = _points(x, labels)
    return scatter(points, labels, square=square)


def arrange(count: int, labels: np.ndarray | None = None) -> list[list[int]]:
    """Which sample goes where, row by row: a row per class where there are 2 to 20 classes, else rows of about eight.

    At most `LIMIT` samples are shown.

    >>> import numpy as np
    >>> arrange(4, np.array([0, 1, 0, 1]))
    [[0, 2], [1, 3]]
    """
    shown = np.arange(count)
    if labels is not None and 2 <= len(kinds := np.unique(labels)) <= 20:
        return [shown[labels == kind][: LIMIT // len(kinds)].tolist() for kind in kinds]
    shown = shown[:LIMIT].tolist()
    columns = min(count, max(8, math.ceil(math.sqrt(len(shown)))))
    return [shown[i : i + columns] for i in range(0, len(shown), columns)]


def image_grid(x: np.ndarray, labels: np.ndarray | None = None) -> bytes:
    """Images (n, channels, height, width) side by side, small ones enlarged by a whole factor.

    uint8 is shown as it is; other numbers from their smallest to their largest value of all images together. One, three
    and four channels are grey, RGB and RGBA; of other counts the first channel is shown.
    """
    return _png(_sheet(_shades(x), arrange(len(x), labels)))


def tiled(x: np.ndarray, columns: int) -> bytes:
    """Images, uint8 (n, channels, height, width), edge to edge and pixel by pixel, so many in a row."""
    return _png(_sheet(x, [list(range(len(x)))[i : i + columns] for i in range(0, len(x), columns)], 1, 0))


def _shades(x: np.ndarray) -> np.ndarray:
    """Numbers as uint8, from their smallest to their largest value; uint8 as it is."""
    if x.dtype == np.uint8:
        return x
    low, high = float(x.min()), float(x.max())
    return np.round((x - low) * (255 / (high - low if high > low else 1))).astype(np.uint8)


def _sheet(x: np.ndarray, rows: list[list[int]], scale: int | None = None, gap: int = 4) -> np.ndarray:
    """The pixels of images, uint8 (n, channels, height, width), in rows; small ones enlarged unless told otherwise."""
    if x.shape[1] not in (1, 3, 4):
        x = x[:, :1]
    channels, height, width = x.shape[1:]
    columns = max(map(len, rows))
    scale = scale or max(1, math.ceil(56 / max(height, width)))
    sheet = np.full(
        (len(rows) * (height * scale + gap) + gap, columns * (width * scale + gap) + gap, channels), 255, np.uint8
    )
    for r, row in enumerate(rows):
        for c, index in enumerate(row):
            top, left = gap + r * (height * scale + gap), gap + c * (width * scale + gap)
            tile = x[index].transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
            sheet[top : top + height * scale, left : left + width * scale] = tile
    return sheet[:, :, 0] if channels == 1 else sheet


def film(x: np.ndarray, titles: Sequence[str], labels: np.ndarray | None = None) -> bytes:
    """The picture of states (steps, n, *event), one column per step under its title: images in rows, or points.

    Images that are not uint8 are shown from the smallest to the largest value of their step. Points have one scale for
    all steps, unless the ranges are very unlike.
    """
    if x.ndim in (4, 5):
        x = x if x.ndim == 5 else x[:, :, None]
        steps, n = x.shape[:2]
        shades = np.stack([_shades(step) for step in x]).reshape(-1, *x.shape[2:])
        sheet = _sheet(shades, [[step * n + row for step in range(steps)] for row in range(n)])
        space = np.full((HEAD, *sheet.shape[1:]), 255, np.uint8)
        return _png(_titled(np.concatenate([space, sheet]), titles, 0))
    drawn = [_points(step, labels) for step in x]
    square = drawn[0][2]
    spread = np.stack([np.ptp(points, axis=0) for points, _, _ in drawn])
    alike = (spread.max(0) < 4 * spread.min(0)).all()
    common = _ranges(np.concatenate([points for points, _, _ in drawn]), square)
    panels = [_scatter(at, kinds, 240, common if alike else _ranges(at, square)) for at, kinds, _ in drawn]
    return _png(_titled(np.concatenate(panels, axis=1), titles, (LEFT - RIGHT) // 2))


def _titled(sheet: np.ndarray, titles: Sequence[str], shift: int) -> np.ndarray:
    """Pixels with a title in the free rows on top of each of their equal columns."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(np.ascontiguousarray(sheet))
    draw = ImageDraw.Draw(image)
    font: Any = ImageFont.load_default(11)
    ink, width = INK[0] if image.mode == "L" else INK, image.width / len(titles)
    for column, title in enumerate(titles):
        draw.text(((column + 0.5) * width + shift, HEAD - 5), title, ink, font, anchor="ms")
    return np.asarray(image)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about as many as asked for: 1, 2 or 5 times a power of ten apart.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def scatter(points: np.ndarray, labels: np.ndarray | None = None, size: int = 640, square: bool = True) -> bytes:
    """Points (n, 2) in a frame with ticks; ``square`` gives both axes one scale unless the ranges are very unlike."""
    return _png(_scatter(points, labels, size, _ranges(points, square)))


def curves(x: np.ndarray, columns: int = 4) -> bytes:
    """Time series (n, channels, length), one panel each with a line per channel, all on one scale."""
    from PIL import Image, ImageDraw, ImageFont

    n, channels, length = x.shape
    fine, width, height = 2, 260, 130
    rows, columns = math.ceil(n / columns), min(n, columns)
    ((low, high),) = _ranges(x.reshape(-1, 1), False)
    image = Image.new("RGB", (fine * columns * width, fine * rows * height), "white")
    draw = ImageDraw.Draw(image)
    font: Any = ImageFont.load_default(10 * fine)
    for k in range(n):
        left, top = fine * ((k % columns) * width + 40), fine * ((k // columns) * height + 8)
        right, bottom = left + fine * (width - 50), top + fine * (height - 16)
        for value in ticks(low, high, 3):
            level = bottom - (value - low) / (high - low) * (bottom - top)
            draw.line([(left, level), (right, level)], GUIDE, fine)
            draw.text((left - 4 * fine, level), f"{value:g}", INK, font, anchor="rm")
        across = left + (np.arange(length) + 0.5) / length * (right - left)
        for channel in range(channels):
            down = bottom - (x[k, channel] - low) / (high - low) * (bottom - top)
            line = list(zip(across.tolist(), down.tolist(), strict=True))
            draw.line(line if length > 1 else line * 2, COLOURS[channel % len(COLOURS)], fine)
        draw.rectangle((left, top, right, bottom), outline=FRAME, width=1)
    return _png(np.asarray(image.reduce(fine)))


def _points(x: np.ndarray, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """Vectors as points, by their first two coordinates, numbers as those of their CDF; whether to scale axes alike."""
    flat = x.reshape(len(x), -1)
    if flat.shape[1] > 1:
        return flat[:, :2], labels, True
    order = np.argsort(flat[:, 0], kind="stable")
    share = (np.arange(len(x)) + 0.5) / len(x)
    return np.stack([flat[order, 0], share], 1), None if labels is None else labels[order], False


Ranges = Sequence[tuple[float, float]]


def _scatter(points: np.ndarray, labels: np.ndarray | None, size: int, ranges: Ranges) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    fine = 3  # drawn this much larger, then reduced: smooth edges
    left, right, top, bottom = (fine * m for m in (LEFT, RIGHT, HEAD, 40))
    side = fine * size - left - right
    (x0, x1), (y0, y1) = ranges
    image = Image.new("RGB", (fine * size, top + side + bottom), "white")
    draw = ImageDraw.Draw(image, "RGBA")
    font: Any = ImageFont.load_default(13 * fine)

    def across(value: float) -> float:
        return left + side * (value - x0) / (x1 - x0)

    def down(value: float) -> float:
        return top + side * (y1 - value) / (y1 - y0)

    for value in ticks(x0, x1):
        draw.line([(across(value), top), (across(value), top + side)], GUIDE, fine)
        draw.text((across(value), top + side + 8 * fine), f"{value:g}", INK, font, anchor="mt")
    for value in ticks(y0, y1):
        draw.line([(left, down(value)), (left + side, down(value))], GUIDE, fine)
        draw.text((left - 8 * fine, down(value)), f"{value:g}", INK, font, anchor="rm")
    radius = fine * min(4.0, max(1.0, 4.5 - math.log10(len(points))))
    alpha = int(min(200, max(70, 300 - 55 * math.log10(len(points)))))
    kinds = np.zeros(len(points), int) if labels is None else labels
    for (a, b), kind in zip(points.tolist(), kinds.tolist(), strict=True):
        u, v = across(a), down(b)
        draw.ellipse((u - radius, v - radius, u + radius, v + radius), (*COLOURS[kind % len(COLOURS)], alpha))
    draw.rectangle((left, top, left + side, top + side), outline=FRAME, width=fine)
    return np.asarray(image.reduce(fine))


def _ranges(points: np.ndarray, square: bool) -> Ranges:
    """The range of each axis with a margin of 5 %, in one scale where the two are comparable."""
    low, high = points.min(0).astype(float), points.max(0).astype(float)
    width = np.where(high > low, high - low, np.maximum(1e-6, np.abs(high)))
    if square and width.max() < 4 * width.min():
        width[:] = width.max()
    middle, half = (low + high) / 2, 0.55 * width
    return [(float(m - h), float(m + h)) for m, h in zip(middle, half, strict=True)]


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
