"""The scaler: exact inverses, the log-determinant against autograd, and what it refuses."""

import json

import pytest
import torch
from torch.autograd.functional import jacobian

from scoresde.data import Scaler, to_uint8
from scoresde.errors import BadInput

SHAPES = [(), (2,), (64,), (65,), (7, 3), (1, 8, 6)]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["standard", "unit", "none"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decode_inverts_encode(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = (3 + 5 * draw(50, *shape)).to(dtype)
    scaler = Scaler.fit(x, kind)
    z = scaler.encode(x)
    assert z.dtype == dtype and z.shape == x.shape
    torch.testing.assert_close(scaler.decode(z), x, rtol=1e-6, atol=1e-5 if dtype == torch.float32 else 1e-12)
    torch.testing.assert_close(scaler.encode(scaler.decode(z)), z, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("kind", ["standard", "unit", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_log_det_is_that_of_the_jacobian(kind: str, shape: tuple[int, ...]) -> None:
    x = 3 + 5 * draw(50, *shape)
    scaler = Scaler.fit(x, kind)
    size = x[0].numel()
    matrix = jacobian(lambda flat: scaler.encode(flat.reshape(shape)).reshape(-1), x[0].reshape(-1))
    assert scaler.log_det(shape) == pytest.approx(torch.linalg.slogdet(matrix.reshape(size, size))[1].item(), abs=1e-9)


@pytest.mark.parametrize("kind", ["standard", "unit"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shift_and_scale_of_the_data_do_not_reach_the_network(kind: str, shape: tuple[int, ...]) -> None:
    x = draw(200, *shape)
    moved = 7 * x + 50
    plain, other = Scaler.fit(x, kind), Scaler.fit(moved, kind)
    torch.testing.assert_close(other.encode(moved), plain.encode(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(other.decode(x), 7 * plain.decode(x) + 50, rtol=1e-9, atol=1e-9)
    single = Scaler.fit(moved.float(), kind).encode(moved.float())
    torch.testing.assert_close(single, plain.encode(x).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_fitted_moments_and_limits(shape: tuple[int, ...]) -> None:
    x = 3 + 5 * draw(300, *shape) * (1 + torch.arange(shape[-1] if shape else 1, dtype=torch.float64)).squeeze()
    per_coordinate = len(shape) == 1 and shape[0] <= 64
    z = Scaler.fit(x, "standard").encode(x).reshape(300 if per_coordinate else -1, shape[0] if per_coordinate else 1)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros_like(z[0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.std(dim=0, correction=0), torch.ones_like(z[0]), rtol=0, atol=1e-9)
    z = Scaler.fit(x, "unit").encode(x).reshape(z.shape)
    torch.testing.assert_close(z.amin(dim=0), -torch.ones_like(z[0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.amax(dim=0), torch.ones_like(z[0]), rtol=0, atol=1e-9)


def test_fit_sums_over_more_than_one_chunk() -> None:
    x = 1000 + draw(150_000, 64).float()
    scaler = Scaler.fit(x)
    assert scaler.shift == pytest.approx(x.double().mean(dim=0).tolist(), rel=1e-12)
    assert scaler.scale == pytest.approx(x.double().std(dim=0, correction=0).tolist(), rel=1e-12)


def test_pixels_survive_the_round_trip_and_only_saving_clips() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    scaler = Scaler.image()
    z = scaler.encode(pixels)
    assert z.dtype == torch.float32 and z.min() == -1 and z.max() == 1
    assert torch.equal(to_uint8(scaler.decode(z)), pixels)
    assert torch.equal(to_uint8(pixels), pixels)
    assert scaler.decode(torch.tensor([-3.0, 3.0])).tolist() == [-255.0, 510.0]
    assert to_uint8(torch.tensor([-255.0, 510.0, float("inf"), -0.4])).tolist() == [0, 255, 255, 0]
    with pytest.raises(BadInput, match="NaN"):
        to_uint8(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize("scaler", [Scaler.image(), Scaler((0.1, -2.0, 1e-3), (1 / 3, 7.0, 1e9))])
def test_json_is_exact(scaler: Scaler) -> None:
    assert Scaler.from_json(json.loads(json.dumps(scaler.to_json()))) == scaler


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"shift": [0.0]},
        {"shift": [0.0], "scale": [1.0], "extra": 1},
        {"shift": 0.0, "scale": 1.0},
        {"shift": ["0"], "scale": [1.0]},
        {"shift": [True], "scale": [1.0]},
        {"shift": [], "scale": []},
        {"shift": [0.0, 0.0], "scale": [1.0]},
        {"shift": [float("nan")], "scale": [1.0]},
        {"shift": [0.0], "scale": [0.0]},
        {"shift": [0.0], "scale": [-1.0]},
        {"shift": [0.0], "scale": [float("inf")]},
    ],
)
def test_bad_json_is_refused(data: object) -> None:
    with pytest.raises(BadInput, match=r"^scaler: "):
        Scaler.from_json(data)  # type: ignore[arg-type]


def test_what_cannot_be_scaled_is_refused_and_named() -> None:
    x = draw(20, 3)
    with pytest.raises(BadInput, match="'standard'"):
        Scaler.fit(x, "standart")
    with pytest.raises(BadInput, match=r"coordinate 1 .* constant \(0\.1\)"):
        Scaler.fit(torch.stack((x[:, 0], torch.full((20,), 0.1)), dim=1))
    with pytest.raises(BadInput, match="the data are constant"):
        Scaler.fit(torch.full((4, 1, 2, 2), 0.1), "unit")
    assert Scaler.fit(torch.full((4, 2), 0.1), "none") == Scaler((0.0,), (1.0,))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(BadInput, match="NaN or infinite"):
            Scaler.fit(torch.tensor([[1.0], [bad]]))
    with pytest.raises(BadInput, match="no events"):
        Scaler.fit(torch.zeros(0, 2))


def test_a_scaler_of_three_coordinates_wants_three() -> None:
    scaler = Scaler((0.0,) * 3, (1.0,) * 3)
    for call in (scaler.encode, scaler.decode):
        with pytest.raises(BadInput, match="3 coordinates"):
            call(torch.zeros(5, 2))
    with pytest.raises(BadInput, match="3 coordinates"):
        scaler.log_det((3, 3))
