"""Augmentation: exact mirroring, labels of zeros for what is untouched, and a geometry that is the one stated."""

from math import pi
from typing import Any

import pytest
import torch
from scipy import stats

from scoresde.data import augment, mirrored, transform
from scoresde.data.augment import LABELS, NAMES
from scoresde.errors import BadInput


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def label(**values: float) -> torch.Tensor:
    return torch.tensor([[values.get(name, 0.0) for name in NAMES]])


def blob(x: float, y: float, size: int = 64, width: float = 3.0, wide: int | None = None) -> torch.Tensor:
    """A Gaussian at (x, y) pixels from the middle."""
    down = torch.arange(size) - (size - 1) / 2
    across = torch.arange(wide or size) - ((wide or size) - 1) / 2
    return torch.exp(-((across - x) ** 2 + (down[:, None] - y) ** 2) / (2 * width**2))[None, None]


def moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean position and covariance of the mass of an image."""
    mass = image[0, 0].double() / image.double().sum()
    down, across = (torch.arange(n) - (n - 1) / 2 for n in mass.shape)
    at = torch.stack(torch.meshgrid(across, down, indexing="xy")).double()
    mean = (mass * at).sum(dim=(1, 2))
    off = at - mean[:, None, None]
    return mean, torch.einsum("hw,ahw,bhw->ab", mass, off, off)


def test_mirroring_the_chosen_twice_is_identity() -> None:
    x, chosen = draw(6, 3, 4, 5), torch.arange(6) % 2 == 0
    y = mirrored(x, chosen)
    assert torch.equal(y[chosen], x[chosen].flip(-1)) and torch.equal(y[~chosen], x[~chosen])
    assert torch.equal(mirrored(y, chosen), x)


def test_p_zero_is_the_input_bitwise() -> None:
    x = draw(50, 3, 8, 6)
    x[3, 1, 2, 2] = -0.0
    y, labels = augment(x, generator(), p=0)
    assert torch.equal(y.view(torch.int32), x.view(torch.int32))
    assert labels.shape == (50, LABELS) and not labels.any()


@pytest.mark.parametrize("p", [0.05, 0.3])
def test_untouched_images_are_those_with_labels_of_zeros(p: float) -> None:
    x = draw(300, 2, 8, 8)
    y, labels = augment(x, generator(), p)
    untouched = (y == x).flatten(1).all(dim=1)
    assert torch.equal(untouched, ~labels.any(dim=1)) and 0 < int(untouched.sum()) < 300
    assert torch.equal(transform(x, labels), y)  # the labels say all
    again, same = augment(x, generator(), p)
    assert torch.equal(again, y) and torch.equal(same, labels)
    for row in (0, 17, 299):  # nothing depends on the company
        torch.testing.assert_close(transform(x[row : row + 1], labels[row : row + 1]), y[row : row + 1])


@pytest.mark.parametrize(("name", "dim"), [("x-flip", -1), ("y-flip", -2)])
def test_mirroring_is_exact_and_an_involution(name: str, dim: int) -> None:
    x = draw(1, 3, 7, 10)
    assert torch.equal(transform(x, label(**{name: 1})), x.flip(dim))
    assert torch.equal(transform(x.flip(dim), label(**{name: 1})), x)
    both = label(**{"x-flip": 1, "y-flip": 1})
    assert torch.equal(transform(x, both), x.flip(-1, -2))


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_and_whole_shifts(quarters: int) -> None:
    x = draw(1, 3, 16, 16)
    angle = torch.tensor(quarters * pi / 2)
    turned = transform(x, label(**{"cos a - 1": float(angle.cos()) - 1, "sin a": float(angle.sin())}))
    torch.testing.assert_close(turned, torch.rot90(x, quarters, (2, 3)), rtol=0, atol=2e-5)
    shifted = transform(x, label(**{"shift x": quarters / 2}))  # of a sixteenth of 16 pixels each
    torch.testing.assert_close(shifted[..., quarters:], x[..., :-quarters], rtol=0, atol=2e-5)
    torch.testing.assert_close(shifted[..., :quarters], x[..., :quarters].flip(-1), rtol=0, atol=2e-5)  # a mirror


@pytest.mark.parametrize("wide", [64, 96])
def test_a_blob_goes_where_the_formula_says(wide: int) -> None:
    """Its mean is moved by G and its covariance C becomes L C Lᵀ, up to what interpolation widens it by."""
    image = blob(6.0, -4.0, wide=wide)
    mean, spread = moments(image)
    cases: list[tuple[torch.Tensor, torch.Tensor, list[float]]] = []
    eye = torch.eye(2, dtype=torch.float64)
    cases.append((label(scaling=1.5), eye * 2**0.3, [0, 0]))
    cases.append((label(**{"shift x": 0.7, "shift y": -0.9}), eye, [0.7 * wide / 8, -0.9 * 64 / 8]))
    a = torch.tensor(0.8, dtype=torch.float64)
    back = torch.stack((torch.stack((a.cos(), a.sin())), torch.stack((-a.sin(), a.cos()))))
    cases.append((label(**{"cos a - 1": float(a.cos()) - 1, "sin a": float(a.sin())}), back, [0, 0]))
    for w, b in ((1.2, 0.5), (-1.2, 0.5), (2.0, -1.1)):
        turn = torch.tensor(b, dtype=torch.float64)
        unit = torch.stack((turn.cos(), turn.sin()))
        along = torch.outer(unit, unit)
        stretch = 2 ** (0.2 * w) * along + 2 ** (-0.2 * w) * (eye - along)
        cases.append(
            (label(**{"stretch 1": w * float(turn.cos()), "stretch 2": w * float(turn.sin())}), stretch, [0, 0])
        )
    for labels, linear, shift in cases:
        moved, wider = moments(transform(image, labels))
        torch.testing.assert_close(moved, linear @ mean + torch.tensor(shift).double(), rtol=0, atol=0.05)
        torch.testing.assert_close(wider, linear @ spread @ linear.T, rtol=0, atol=0.6)


def test_labels_have_the_stated_laws() -> None:
    n = 4000
    labels = augment(torch.zeros(n, 1, 2, 2), generator(), p=1.0)[1].double()
    for column in (0, 1):
        assert abs(float(labels[:, column].mean()) - 0.5) < 0.04 and set(labels[:, column].tolist()) == {0, 1}
    for column in (2, 7, 8):
        assert stats.kstest(labels[:, column].numpy(), "norm").pvalue > 1e-3
    turn = torch.atan2(labels[:, 4], labels[:, 3] + 1)
    assert stats.kstest((turn / pi).numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    size = labels[:, 5:7].norm(dim=1) * labels[:, 5].sign()
    assert stats.kstest(size.numpy(), "norm").pvalue > 1e-3
    direction = torch.atan(labels[:, 6] / labels[:, 5])
    assert stats.kstest((direction / pi).numpy(), stats.uniform(-0.5, 1).cdf).pvalue > 1e-3
    on = augment(torch.zeros(n, 1, 2, 2), generator(1), p=0.12)[1] != 0
    for column, share in zip(range(LABELS), (0.06, 0.06, *[0.12] * 7), strict=True):
        assert abs(float(on[:, column].float().mean()) - share) < 0.02
    mirrored = augment(torch.zeros(n, 1, 2, 2), generator(1), p=0, mirror=1.0)[1]
    assert abs(float(mirrored[:, 0].mean()) - 0.5) < 0.04 and not mirrored[:, 1:].any()


def test_a_constant_image_stays_constant() -> None:
    x = torch.full((64, 3, 9, 12), 0.3)
    torch.testing.assert_close(augment(x, generator(), p=1.0)[0], x, rtol=1e-5, atol=0)


@pytest.mark.parametrize("x", [torch.zeros(4, 2), torch.zeros(4, 3, 96), torch.zeros(4, 3, 8, 8, dtype=torch.uint8)])
def test_only_images_of_floats(x: torch.Tensor) -> None:
    calls: list[Any] = [
        lambda x, _: mirrored(x, torch.ones(4, dtype=torch.bool)),
        augment,
        lambda x, _: transform(x, torch.zeros(4, LABELS)),
    ]
    for call in calls:
        with pytest.raises(BadInput, match="only images are augmented"):
            call(x, generator())


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_probabilities_and_labels_are_checked(p: float) -> None:
    x = torch.zeros(4, 3, 8, 8)
    for how in ({"p": p}, {"mirror": p}):
        with pytest.raises(BadInput, match="from 0 to 1"):
            augment(x, generator(), **how)
    with pytest.raises(BadInput, match=r"labels must have shape \(4, 9\), not \(4, 8\)"):
        transform(x, torch.zeros(4, 8))
