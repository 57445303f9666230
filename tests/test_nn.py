"""Networks: shapes, independence of the batch, conditioning, gradients, and the features against their definitions."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from scoresde import BadInput
from scoresde.checkpoint import group, load_checkpoint
from scoresde.config import load_config, parse_config
from scoresde.data.public import PUBLIC
from scoresde.model import build, shipped
from scoresde.nn import MLP, NETWORKS, UNet
from scoresde.nn.embed import Fourier, Sinusoidal

F64 = torch.float64
CLASSES = 3

NCSNPP = {"fir": True, "embedding": "fourier", "progressive_input": "residual"}
PLUS = {"resample": "block", "modulation": "add", "rescale": True, "patch": 1, "blocks": 1}  # DDPM++
# Every network with the events it must take. Three channels per norm group: no group norm may cancel a bias.
CASES: dict[str, tuple[str, tuple[int, ...], dict]] = {
    **{f"mlp {event}": ("mlp", event, {}) for event in [(), (1,), (2,), (7, 3), (1, 6, 4), (3, 2, 2, 2)]},
    "unet grey": ("unet", (1, 28, 28), {}),
    "unet wide": ("unet", (3, 8, 20), {}),
    "unet one level": ("unet", (1, 6, 6), {"multipliers": [1]}),
    "unet three levels": ("unet", (2, 8, 16), {"multipliers": [1, 2, 2], "attention": [0, 2], "blocks": 1}),
    "unet no patches": ("unet", (1, 8, 6), {"patch": 1, "attention": []}),
    "unet large patches": ("unet", (1, 16, 16), {"patch": 4, "blocks": 1}),
    "unet sequence": ("unet", (2, 24), {}),
    "unet adm": ("unet", (1, 8, 8), {"resample": "block", "patch": 1, "head_channels": 6, "blocks": 1}),
    "unet ncsn++": ("unet", (1, 8, 8), {**PLUS, **NCSNPP}),
    "unet filtered convolutions": ("unet", (1, 12), {**NCSNPP, "patch": 1, "blocks": 1, "attention": []}),
    "dit": ("dit", (3, 8, 4), {}),
    "dit sequence": ("dit", (2, 12), {"patch": 3}),
    "mlp plain": ("mlp", (2,), {"scales": [], "time": "linear"}),
}
SMALL = {
    "mlp": {"width": 16, "depth": 2, "features": 8},
    "unet": {"channels": 12},
    "dit": {"width": 16, "depth": 2, "heads": 2},
}
every_network = pytest.mark.parametrize("case", CASES)


def make(case: str, classes: int = CLASSES, perturbed: bool = True, **more: object) -> tuple[nn.Module, Tensor, Tensor]:
    """A network with weights of no special value, and a batch of five states and labels."""
    name, event, options = CASES[case]
    small = SMALL[name]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = NETWORKS[name](event, **{**small, **options, "classes": classes, **more}).eval()
    if perturbed:  # zero-initialised layers hide what is before them
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    size = 1 if name == "mlp" or options.get("embedding") == "fourier" else 1000
    label = torch.rand(5, generator=generator) * size
    return network, torch.randn(5, *event, generator=generator), label


def test_every_network_is_tried() -> None:
    assert {name for name, _, _ in CASES.values()} == set(NETWORKS)


@every_network
def test_the_output_has_the_shape_and_dtype_of_the_input(case: str) -> None:
    for classes in (0, CLASSES):
        network, x, label = make(case, classes)
        y = torch.arange(5) % (CLASSES + 1) if classes else None
        for n in (1, 5):
            out = network(x[:n], label[:n], None if y is None else y[:n])
            assert out.shape == (n, *x.shape[1:]) and out.dtype == torch.float32 and torch.isfinite(out).all()
    wide = network.double()(x.double(), label.double(), y)
    assert wide.dtype == F64 and (wide - out).abs().max() < 1e-4 * (1 + wide.abs().max())


@every_network
def test_a_row_does_not_depend_on_its_company(case: str) -> None:
    network, x, label = make(case)
    y = torch.arange(5) % (CLASSES + 1)
    whole = network(x, label, y)
    for k in range(5):
        assert (network(x[k : k + 1], label[k : k + 1], y[k : k + 1]) - whole[k : k + 1]).abs().max() < 1e-5
    shuffled = torch.tensor([3, 1, 4, 0, 2])
    assert (network(x[shuffled], label[shuffled], y[shuffled]) - whole[shuffled]).abs().max() < 1e-5


@every_network
def test_no_class_is_the_null_class(case: str) -> None:
    network, x, label = make(case)
    assert torch.equal(network(x, label), network(x, label, torch.full((5,), CLASSES)))


@every_network
def test_time_class_and_state_all_matter(case: str) -> None:
    network, x, label = make(case)
    y = torch.arange(5) % CLASSES
    base = network(x, label, y)
    others = [network(x, label, (y + 1) % CLASSES), network(x, label), network(x, label.flip(0), y)]
    others += [network(x + 0.3, label, y), network(x, label + 0.01 * label.max(), y)]
    for other in others:
        changed = (other - base).reshape(5, -1).abs().amax(1) > 1e-4 * base.std()
        assert changed.sum() >= 4  # of five: a flipped list keeps its middle


@every_network
def test_the_gradient_reaches_every_parameter(case: str) -> None:
    network, x, label = make(case)
    network.train()
    x.requires_grad_()
    network(x, label, torch.arange(5) % (CLASSES + 1)).square().sum().backward()
    for name, parameter in [("x", x), *network.named_parameters()]:
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 1e-6, name
    assert x.grad is not None and (x.grad != 0).all()


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("mlp")])
def test_a_new_network_returns_zero(case: str) -> None:
    network, x, label = make(case, perturbed=False)
    assert not network(x, label, torch.arange(5) % (CLASSES + 1)).any()


def test_dropout_acts_in_training_only() -> None:
    network, x, label = make("unet grey", dropout=0.5)
    assert torch.equal(network(x, label), network(x, label))
    network.train()
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(network(x, label), network(x, label))


def test_first_weights_follow_torchs_seed_and_buffers_do_not() -> None:
    one, same = (make("mlp (2,)", perturbed=False)[0] for _ in range(2))
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in one.state_dict().items())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        other = MLP((2,), width=16, depth=2, features=8, classes=CLASSES)
    assert not torch.equal(one.first.weight, other.first.weight)
    buffers = dict(other.named_buffers())
    assert buffers and all(torch.equal(value, buffers[name]) for name, value in one.named_buffers())


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("shape", [(1, 30, 28), (1, 28, 30), (1, 27, 28), (3, 28, 28), (2, 28, 28)], ids=str)
def test_a_unet_refuses_other_images(shape: tuple[int, ...]) -> None:
    network, _, label = make("unet grey")
    with pytest.raises(BadInput, match=r"event shape .* must be \(1, h, w\), h and w divisible by 4") as caught:
        network(torch.zeros(5, *shape), label)
    assert "\n" not in str(caught.value) and str(shape) in str(caught.value)


def test_wrong_ranks_are_refused() -> None:
    unet, _, label = make("unet grey")
    with pytest.raises(BadInput, match=r"event shape \(28, 28\) must be"):
        inspect.unwrap(UNet.forward)(unet, torch.zeros(5, 28, 28), label)  # without the tests' own shape checker
    mlp, _, label = make("mlp (7, 3)")
    for shape in [(3, 7), (21,), (7, 3, 1), ()]:
        with pytest.raises(BadInput, match=r"events of shape .* must have shape \(7, 3\)"):
            mlp(torch.zeros(5, *shape), label)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"heads": 5}, r"widths \[12, 24\] must be divisible by heads = 5"),
        ({"attention": [2]}, r"attention = \[2\] names a level that is not one of the 2"),
        ({"attention": [-3]}, "names a level"),
        ({"channels": 9, "heads": 1}, "9 features .* even number"),
    ],
)
def test_a_unet_that_cannot_work_is_not_built(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        UNet((1, 8, 8), **{"channels": 12, **options})


# ------------------------------------------------------------------------------------------------------------ features


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_sinusoids_are_their_formula(dim: int) -> None:
    """cos and sin of label · 10000^(-2i/dim), i = 0 … dim/2 - 1, over all labels of DDPM."""
    label = torch.linspace(0, 1000, 41, dtype=F64)
    out = Sinusoidal(dim)(label.float())
    for i in range(dim // 2):
        angle = label * 10000.0 ** (-2 * i / dim)
        assert out[:, i] == pytest.approx(angle.cos(), abs=2e-4)  # float32 rounds an angle of 1000 by 3e-5
        assert out[:, dim // 2 + i] == pytest.approx(angle.sin(), abs=2e-4)
    assert "frequencies" not in Sinusoidal(dim).state_dict()


def test_neighbouring_steps_are_told_apart() -> None:
    out = Sinusoidal(64)(torch.arange(1000.0))
    assert torch.cdist(out, out).fill_diagonal_(9).min() > 0.5


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0])
def test_fourier_features_are_their_formula(scale: float) -> None:
    """cos 2πBx, sin 2πBx; their mean product is the kernel e^{-2π² s² |x-y|²} of B ~ N(0, s²) (Rahimi & Recht 2007)."""
    features = Fourier(3, 20000, scale, seed=5)
    x = 0.2 / scale * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    angle = 2 * math.pi * x.double() @ features.B.double()
    out = features(x)
    assert (out - torch.cat([angle.cos(), angle.sin()], 1)).abs().max() < 1e-4
    kernel = torch.exp(-2 * math.pi**2 * scale**2 * torch.cdist(x, x).square())
    assert (out @ out.T / 10000 - kernel).abs().max() < 5 / math.sqrt(10000)


def test_fourier_features_belong_to_their_seed_and_are_stored() -> None:
    one, two = Fourier(2, 8, seed=1), Fourier(2, 8, seed=1)
    assert torch.equal(one.B, two.B) and not torch.equal(one.B, Fourier(2, 8, seed=2).B)
    assert torch.equal(Fourier(2, 8, 3.0, seed=1).B, 3 * one.B)
    assert list(one.state_dict()) == ["B"] and not list(one.parameters())


@pytest.mark.parametrize("dim", [-2, 0, 1, 7])
def test_an_odd_number_of_features_is_refused(dim: int) -> None:
    for features in (lambda: Sinusoidal(dim), lambda: Fourier(2, dim), lambda: MLP((2,), features=dim)):
        with pytest.raises(BadInput, match=f"{dim} features .* even number"):
            features()


# ------------------------------------------------------------------------------------------------------------- as used


def test_the_default_model_is_small_enough_to_ship() -> None:
    config = load_config(Path(__file__).parents[1] / "configs" / "fashion_mnist.yaml")
    _, network = build(config, (1, 28, 28), len(PUBLIC["fashion_mnist"].classes))
    sizes = [tensor.numel() for tensor in network.state_dict().values()]
    assert sum(sizes) <= 2.5e6 and sum(2 * n if n > 1000 else 4 * n for n in sizes) <= 5e6


def test_shipped_weights_fit_their_networks_key_by_key() -> None:
    for path in shipped().values():
        tensors, info = load_checkpoint(path)
        _, network = build(parse_config(info["config"]), tuple(info["event_shape"]), len(info["classes"]), "meta")
        weights = group(tensors, "ema")
        assert {key: value.shape for key, value in network.state_dict().items()} == {
            key: value.shape for key, value in weights.items()
        }


@pytest.mark.parametrize("features", [{"scales": []}, {"scales": [1.0]}, {}], ids=str)
@pytest.mark.parametrize("time", ["none", "linear", "fourier"])
def test_an_mlps_features_are_a_matter_of_its_config(features: dict, time: str) -> None:
    config = parse_config(
        {"data": {"name": "datasaurus"}, "network": {"name": "mlp", "width": 8, **features, "time": time}, "time": "t"}
    )
    denoiser, _ = build(config, (2,), 13)
    x = torch.ones(2, 2)
    a, b = (denoiser.output(x, torch.full((2,), t)) for t in (0.2, 0.8))
    assert torch.equal(a, b) == (time == "none")
