"""Measurement operators: adjoint, pseudo-inverse and regularised inverse, of every operator there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from exact import F64

from scoresde import BadInput
from scoresde.guidance import OPERATORS, Fourier, Linear, LinearMap, Mask, Matrix, Radon, operators, parse_operator

SHAPES = {"grey": (1, 8, 8), "plain": (6, 8), "colour": (3, 8, 12)}
WORDS = [
    *OPERATORS,
    "mask:0.3:5",
    "hole:3",
    "down:1",
    "blur:0.7",
    "blur:0",
    "fourier:2:0.3:1",
    "fourier:1",
    "radon:3",
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def made(word: str, shape: tuple[int, ...]) -> Linear:
    return parse_operator("hole:2" if word == "hole" else word, shape)


CASES: dict[str, Linear] = {f"{w} {name}": made(w, shape) for w in WORDS for name, shape in SHAPES.items()}
CASES |= {
    "matrix": Matrix(noise(5, 16), (4, 4)),
    "deficient matrix": Matrix(noise(6, 3) @ noise(3, 8), (8,)),
    "map": LinearMap(lambda x: x.cumsum(1)[:, ::2], (9,), iterations=20),
    "map with adjoint": LinearMap(lambda x: 3 * x, (2, 2), lambda y: 3 * y),
}


@pytest.mark.parametrize("name", CASES)
def test_the_adjoint_and_the_inverses(name: str) -> None:
    """<A x, y> = <x, Aᵀ y>; A A⁺ A = A and A⁺ A A⁺ = A⁺, with A A⁺ and A⁺ A symmetric; (Aᵀ A + ridge) x = Aᵀ y."""
    A = CASES[name]
    x, x2 = noise(2, *A.shape), noise(2, *A.shape, seed=1)
    y, y2 = noise(*A(x).shape, seed=2), noise(*A(x).shape, seed=3)
    assert A(x).shape[0] == 2 and A.adjoint(y).shape == x.shape
    close = {"rtol": 1e-6, "atol": 1e-7}
    assert torch.allclose((A(x) * y).sum(), (x * A.adjoint(y)).sum(), rtol=1e-12, atol=1e-12)
    assert torch.allclose(A(A.inverse(A(x))), A(x), **close)
    back = A.inverse(y)
    assert torch.allclose(A.inverse(A(back)), back, **close)
    assert torch.allclose((A(back) * y2).sum(), (y * A(A.inverse(y2))).sum(), **close)
    assert torch.allclose((A.inverse(A(x)) * x2).sum(), (x * A.inverse(A(x2))).sum(), **close)
    for ridge in (0.1, torch.tensor([0.01, 3.0], dtype=F64)):
        found = A.inverse(y, ridge)
        per = torch.as_tensor(ridge).reshape(-1, *(1,) * (x.ndim - 1))
        assert torch.allclose(A.adjoint(A(found)) + per * found, A.adjoint(y), **close)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
@pytest.mark.parametrize("word", WORDS)
def test_what_inference_mode_left_does_not_stop_gradients(word: str, shape: tuple[int, ...]) -> None:
    """What an operator keeps from its first use holds for a run with gradients too."""
    A, x = made(word, shape), noise(1, *shape)
    with torch.inference_mode():
        A.inverse(A(noise(1, *shape)))
    x.requires_grad_()
    y = A(x)
    (gradient,) = torch.autograd.grad(y.square().sum() / 2, x)
    assert torch.allclose(gradient, A.adjoint(y), atol=1e-10)
    assert torch.autograd.grad(A.inverse(A(x)).sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("name", CASES)
def test_a_cap_bounds_every_gain(name: str) -> None:
    """V min(d/(d² + ridge), cap) Uᵀ y of A = U diag(d) Vᵀ, each sample with its own."""
    A, cap = CASES[name], torch.tensor([0.5, 4.0], dtype=F64)
    y = noise(*A(noise(2, *A.shape)).shape, seed=2)
    for ridge in (0.0, 0.1):
        wanted = by_gain(A, y, lambda d, ridge=ridge: torch.minimum(d / (d**2 + ridge), cap[:, None]))
        assert torch.allclose(A.inverse(y, ridge, cap), wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(A.inverse(y, 0.1, torch.inf), A.inverse(y, 0.1))


def by_gain(A: Linear, y: torch.Tensor, gain: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    u, d, v = torch.linalg.svd(A.matrix(), full_matrices=False)
    u, d, v = u[:, d > 1e-10], d[d > 1e-10], v[d > 1e-10]
    return ((y.flatten(1) @ u * gain(d)) @ v).reshape(-1, *A.shape)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(("map", "radon"))])
def test_conjugate_gradients_are_the_same_inverse(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large events; there a cap is a ridge under which no gain exceeds it."""
    A, ridge, cap = CASES[name], torch.tensor([0.01, 0.2], dtype=F64), torch.tensor([0.5, 2.0], dtype=F64)
    y = A(noise(2, *A.shape))
    dense = A.inverse(y), A.inverse(y, ridge)
    monkeypatch.setattr(operators, "DENSE", 0)
    close = {"rtol": 1e-6, "atol": 1e-7}
    assert torch.allclose(A.inverse(y), dense[0], **close) and torch.allclose(A.inverse(y, ridge), dense[1], **close)

    def gain(d: torch.Tensor) -> torch.Tensor:
        return d / (d**2 + torch.maximum(ridge, 0.25 / cap**2)[:, None])

    assert bool((gain(torch.logspace(-4, 4, 99, dtype=F64)) <= cap[:, None]).all())
    assert torch.allclose(A.inverse(y, ridge, cap), by_gain(A, y, gain), **close)


@pytest.mark.parametrize("word", WORDS)
def test_an_operator_is_linear_and_keeps_type_and_samples_apart(word: str) -> None:
    A = made(word, (1, 8, 8))
    x, z = noise(3, 1, 8, 8), noise(3, 1, 8, 8, seed=1)
    assert torch.allclose(A(2 * x - z), 2 * A(x) - A(z))
    assert torch.allclose(A(x)[1:2], A(x[1:2])) and torch.allclose(A.inverse(A(x))[2:], A.inverse(A(x[2:])), atol=1e-8)
    assert A(x.float()).dtype == torch.float32 and A.inverse(A(x.float())).dtype == torch.float32
    assert torch.allclose(A.matrix() @ x.flatten(1).mT, A(x).flatten(1).mT)


def test_down_blur_and_mri_keep_means_and_ct_keeps_the_sum() -> None:
    x = noise(2, 1, 8, 8)
    for word in ("down:2", "blur:1.5"):
        assert torch.allclose(parse_operator(word, (1, 8, 8))(x).mean((1, 2, 3)), x.mean((1, 2, 3)))
    mri = Fourier(4, (1, 8, 8))
    assert 0 in mri.lines.tolist()
    assert torch.allclose(mri(x)[:, :, 0, 0, 0], x.sum((2, 3)) / 8)
    assert torch.allclose(Radon(5, (1, 8, 8))(x).sum(-1), (x.sum((2, 3)) / 8).unsqueeze(-1).expand(2, 1, 5))


def test_a_full_measurement_is_undone() -> None:
    x = noise(2, 1, 8, 8)
    for word in ("mask:1", "down:1", "blur:0", "fourier:1"):
        A = parse_operator(word, (1, 8, 8))
        assert torch.allclose(A.inverse(A(x)), x)


def test_seeds_pick_what_is_measured() -> None:
    for word in ("mask:0.5:", "fourier:2:0.1:"):
        one, same, other = (parse_operator(f"{word}{seed}", (16, 16)).adjoint for seed in (1, 1, 2))
        y = parse_operator(f"{word}1", (16, 16))(torch.ones(1, 16, 16))
        y = torch.randn_like(y)
        assert torch.equal(one(y), same(y)) and not torch.equal(one(y), other(y))


@pytest.mark.parametrize(
    "word, said",
    [
        ("blurr:2", "did you mean 'blur'"),
        ("down:3", "divisor"),
        ("down:2.5", "whole number"),
        ("down:0", "divisor"),
        ("blur:-1", "sigma >= 0"),
        ("blur:nan", "finite"),
        ("blur:two", "are numbers: sigma in pixels"),
        ("blur:1:0.1:3", "at most 2"),
        ("mask:0", "share of pixels"),
        ("mask:1.5", "share of pixels"),
        ("hole:0", "side of the hidden"),
        ("hole:9", "from 1 to below 8"),
        ("fourier:0.5", "acceleration"),
        ("fourier:4:2", "share of lines"),
        ("radon:0", "positive integer"),
    ],
)
def test_a_bad_operator_is_refused(word: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_operator(word, (1, 8, 8))


def test_shapes_that_do_not_fit_are_refused() -> None:
    for A in (made(word, (1, 8, 8)) for word in WORDS):
        with pytest.raises(BadInput, match="events of shape"):
            A(torch.zeros(2, 1, 8, 7))
    with pytest.raises(BadInput, match="mask of shape"):
        Mask(torch.ones(3, 5), (1, 8, 8))
    with pytest.raises(BadInput, match="see some of it"):
        Mask(torch.zeros(8, 8), (1, 8, 8))
    with pytest.raises(BadInput, match="see some of it"):
        Mask(torch.full((8, 8), 0.5), (1, 8, 8))
    with pytest.raises(BadInput, match="events of shape"):
        Matrix(torch.ones(2, 3), (4,))
    with pytest.raises(BadInput, match="no images"):
        parse_operator("blur:1", (4,))
