"""Networks by their literature: sizes as published, and what residual blocks, filters and checkpointing promise."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import scoresde
from scoresde import BadInput
from scoresde.nn import NETWORKS, DiT, UNet
from scoresde.nn.blocks import Attention, Block, double, from_depth, halve, to_depth
from scoresde.nn.dit import DiTBlock, positions

F64 = torch.float64
IMAGENET = {"patch": 1, "learned_variance": True, "classes": 1000}
DDPM = {"channels": 128, "heads": 1, "patch": 1, "modulation": "add"}
IDDPM = {**IMAGENET, "multipliers": [1, 2, 3, 4], "attention": [2, 3], "blocks": 3}
ADM = {**IMAGENET, "resample": "block", "head_channels": 64}
PLUS = {"resample": "block", "modulation": "add", "rescale": True, "heads": 1, "patch": 1}  # DDPM++
NCSNPP = {**PLUS, "fir": True, "embedding": "fourier", "progressive_input": "residual"}
DIT = {**IMAGENET, "patch": 2}
SMALL: dict[str, tuple[str, tuple[int, ...], dict]] = {
    "mlp": ("mlp", (2,), {"width": 8, "depth": 1, "features": 4}),
    "unet": ("unet", (1, 8, 8), {"channels": 12, "multipliers": [1], "blocks": 1, "heads": 2}),
    "ncsn++": ("unet", (1, 8), {"channels": 12, "multipliers": [1, 1], "blocks": 1, **NCSNPP}),
    "dit": ("dit", (1, 8, 8), {"width": 8, "depth": 2, "heads": 2, "patch": 4}),
}
every_network = pytest.mark.parametrize("name", SMALL)
deep = pytest.mark.parametrize("name", [name for name in SMALL if name != "mlp"])


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type[nn.Module]]]:
    """The networks as users have them, without the tests' run-time checks of annotations, which cannot be traced."""
    plain = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("jaxtyping")]
    monkeypatch.setattr(sys, "meta_path", plain)
    for part in ("nn", "schedule"):
        monkeypatch.setattr(scoresde, part, sys.modules[f"scoresde.{part}"])  # to be put back
    for name in [name for name in sys.modules if name.startswith(("scoresde.nn", "scoresde.schedule"))]:
        monkeypatch.delitem(sys.modules, name)
    torch._dynamo.reset()
    yield importlib.import_module("scoresde.nn").NETWORKS
    torch._dynamo.reset()


def small(name: str, networks: dict = NETWORKS, **more: object) -> tuple[nn.Module, Tensor, Tensor]:
    """A network with weights of no special value, three states and labels. Three channels in a norm's group: with one
    the norm would cancel what is added to it."""
    network, event, options = SMALL[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = networks[network](event, **{**options, **more})
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        return built, torch.randn(3, *event), torch.rand(3)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# --------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    "millions, network, event, options",
    [
        # Ho et al. 2020, appendix B: CIFAR-10 and 256 x 256
        (35.7, UNet, (3, 32, 32), {**DDPM, "multipliers": [1, 2, 2, 2], "attention": [1]}),
        (114, UNet, (3, 256, 256), {**DDPM, "multipliers": [1, 1, 2, 2, 4, 4], "attention": [4]}),
        # Nichol & Dhariwal 2021, section 6: ImageNet 64 x 64 at four widths
        (30, UNet, (3, 64, 64), {**IDDPM, "channels": 64}),
        (68, UNet, (3, 64, 64), {**IDDPM, "channels": 96}),
        (120, UNet, (3, 64, 64), {**IDDPM, "channels": 128}),
        (270, UNet, (3, 64, 64), {**IDDPM, "channels": 192}),
        # Dhariwal & Nichol 2021, appendix I: ImageNet 64, 128 and 256
        (
            296,
            UNet,
            (3, 64, 64),
            {**ADM, "channels": 192, "multipliers": [1, 2, 3, 4], "blocks": 3, "attention": [1, 2, 3]},
        ),
        (422, UNet, (3, 128, 128), {**ADM, "channels": 256, "multipliers": [1, 1, 2, 3, 4], "attention": [2, 3, 4]}),
        (554, UNet, (3, 256, 256), {**ADM, "channels": 256, "multipliers": [1, 1, 2, 2, 4, 4], "attention": [3, 4, 5]}),
        # Karras et al. 2022: CIFAR-10, DDPM++; there one block of a level of the way up attends, here all
        (55.7, UNet, (3, 32, 32), {**PLUS, "channels": 128, "multipliers": [2, 2, 2], "blocks": 4, "attention": [1]}),
        # Peebles & Xie 2023, table 4: patch 2 on 4 x 32 x 32
        (33, DiT, (4, 32, 32), {**DIT, "width": 384, "depth": 12, "heads": 6}),
        (130, DiT, (4, 32, 32), {**DIT, "width": 768, "depth": 12, "heads": 12}),
        (458, DiT, (4, 32, 32), {**DIT, "width": 1024, "depth": 24, "heads": 16}),
        (675, DiT, (4, 32, 32), {**DIT, "width": 1152, "depth": 28, "heads": 16}),
    ],
)
def test_published_numbers_of_parameters(millions: float, network: type, event: tuple, options: dict) -> None:
    with torch.device("meta"):
        built = network(event, **options)
    assert sum(parameter.numel() for parameter in built.parameters()) == pytest.approx(1e6 * millions, rel=0.02)


@pytest.mark.parametrize("network, options", [(UNet, {"channels": 8, **more}) for more in ({}, PLUS, NCSNPP)])
def test_sequences_and_images_have_the_same_parameters(network: type, options: dict) -> None:
    """The same names, a kernel of one axis in place of two."""
    one, two = (network(event, **options).state_dict() for event in ((2, 16), (2, 16, 16)))
    assert list(one) == list(two)
    patch = options.get("patch", 2)
    for name, value in one.items():
        if value.ndim == 3:
            assert two[name].ndim == 4 and two[name].shape[2] == two[name].shape[3] == value.shape[2]
            ends = name in ("stem.weight", "out.2.weight", "pyramid.0.weight")
            assert two[name].numel() == value.numel() * value.shape[2] * (patch if ends else 1), name


# ----------------------------------------------------------------------------------------------------------- resampling


@pytest.mark.parametrize("event", [(2, 8), (2, 8, 6), (1, 2, 2)], ids=str)
def test_resampling_keeps_constants_and_means(event: tuple[int, ...]) -> None:
    for fir in (False, True):
        for resize, factor in ((halve, 0.5), (double, 2)):
            out = resize(torch.full((3, *event), 0.7, dtype=F64), fir)
            assert out.shape == (3, event[0], *(int(n * factor) for n in event[1:]))
            assert (out - 0.7).abs().max() < 1e-15
            x = normal(3, *event)
            axes = tuple(range(2, x.ndim))
            if not (fir and resize is halve):  # the filter counts an edge's pixels once more, and less of those inside
                assert (resize(x, fir).mean(axes) - x.mean(axes)).abs().max() < 1e-14


def test_filtered_resampling_is_its_formula() -> None:
    """[1, 3, 3, 1] on every axis, over the edge-padded signal; up it is linear interpolation."""
    x, kernel = normal(2, 1, 10, 6), torch.tensor([1.0, 3, 3, 1], dtype=F64) / 8
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    down = F.conv2d(padded, torch.outer(kernel, kernel)[None, None], stride=2)
    assert (halve(x, True) - down).abs().max() < 1e-15
    up = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert (double(x, True) - up).abs().max() < 1e-15
    row = x[:, :, 0]
    assert (double(row, True) - F.interpolate(row, scale_factor=2, mode="linear")).abs().max() < 1e-15


def test_the_filter_removes_what_the_coarse_grid_cannot_hold() -> None:
    """A sign that flips at every pixel becomes 0 away from the edges; a strided choice of pixels would make it 1."""
    x = torch.ones(1, 1, 16, dtype=F64)
    x[..., 1::2] = -1
    assert halve(x, True)[..., 1:-1].abs().max() < 1e-15


@pytest.mark.parametrize("event, patch", [((3, 12), 3), ((3, 8, 4), 2), ((1, 6, 6), 1)], ids=str)
def test_depth_and_back(event: tuple[int, ...], patch: int) -> None:
    x = normal(2, *event)
    deep = to_depth(x, patch)
    assert deep.shape == (2, event[0] * patch ** (len(event) - 1), *(n // patch for n in event[1:]))
    assert torch.equal(from_depth(deep, patch), x)


# --------------------------------------------------------------------------------------------------------------- blocks


def unit_branch(block: Block) -> Block:
    """Weights that give the branch of a block the variance of its modulated norm's SiLU, made 1."""
    for layer, square in ((block.conv1, 0.3558), (block.conv2, 0.3558)):  # E[SiLU(z)²], z ~ N(0, 1)
        nn.init.normal_(layer.weight, std=(layer.weight[0].numel() * square) ** -0.5)
    nn.init.zeros_(block.modulation.weight)
    nn.init.zeros_(block.modulation.bias)
    return block


def test_rescaled_sums_keep_the_variance() -> None:
    """Of unit-variance input, through eight blocks; without it each block adds its branch's variance, 1."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for rescale, expected in ((True, 1.0), (False, 9.0)):
            h = torch.randn(4, 32, 64)
            for _ in range(8):
                h = unit_branch(Block(1, 32, 32, 4, rescale=rescale))(h, torch.zeros(4, 4))
            assert float(h.var()) == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("dims", [1, 2])
def test_new_blocks_are_their_shortcut(dims: int) -> None:
    x, embedding = normal(2, 8, *(6,) * dims).float(), normal(2, 4).float()
    for rescale, factor in ((False, 1.0), (True, math.sqrt(0.5))):
        for modulation in ("add", "scale_shift"):
            same = Block(dims, 8, 8, 4, modulation=modulation, rescale=rescale)(x, embedding)
            assert (same - factor * x).abs().max() < 1e-6
            for resize in (halve, double):
                block = Block(dims, 8, 8, 4, 0.0, modulation, rescale, resize, True)
                assert (block(x, embedding) - factor * resize(x, True)).abs().max() < 1e-6
        assert (Attention(dims, 8, 2, rescale)(x) - factor * x).abs().max() < 1e-6


def test_modulations_are_their_formulas() -> None:
    """norm(h) (1 + scale) + shift against norm(h + shift): a scale of -1 or a shift alone tell them apart."""
    x, embedding = normal(2, 8, 6).float(), torch.ones(2, 1)
    for modulation in ("scale_shift", "add"):
        block = Block(1, 8, 8, 1, modulation=modulation)
        nn.init.zeros_(block.modulation.bias)
        nn.init.dirac_(block.conv2.weight)
        given = torch.linspace(-1, 1, len(block.modulation.weight))
        block.modulation.weight.data.copy_(given[:, None])
        h = block.conv1(F.silu(block.norm1(x)))
        scale, shift = given[:8, None], given[-8:, None]
        h = block.norm2(h + shift) if modulation == "add" else block.norm2(h) * (1 + scale) + shift
        assert (block(x, embedding) - (x + F.silu(h))).abs().max() < 1e-5


def test_a_new_dit_block_is_the_identity_and_its_gates_open_it() -> None:
    block, x, embedding = DiTBlock(16, 4), normal(3, 5, 16).float(), normal(3, 16).float()
    assert torch.equal(block(x, embedding), x)
    for gate in (2, 5):  # of the attention, of the MLP
        block.modulation.bias.data.zero_()
        block.modulation.bias.data[16 * gate : 16 * (gate + 1)] = 1
        assert ((block(x, embedding) - x).abs().amax(dim=2) > 1e-3).all()
        other = x.clone()
        other[:, 0, 0] += 1  # of the first token: the attention mixes tokens, the MLP does not
        rest = (block(other, embedding) - block(x, embedding))[:, 1:]
        assert bool(rest.abs().max() > 1e-4) == (gate == 2)


def test_tokens_are_told_their_places_alone() -> None:
    """Every place of a grid has its own code; products of codes depend on the difference of two places alone."""
    for grid in ((12,), (3, 4)):
        code = positions(grid, 16).double()
        assert code.shape == (12, 16) and torch.cdist(code, code).fill_diagonal_(9).min() > 0.1
        place = torch.cartesian_prod(*(torch.arange(n) for n in grid)).reshape(12, -1)
        difference = place[:, None] - place
        for value in difference.reshape(144, -1).unique(dim=0):
            products = (code @ code.T)[(difference == value).all(dim=2)]
            assert products.max() - products.min() < 1e-5


# --------------------------------------------------------------------------------------------------------- conditioning


@every_network
def test_a_label_concerns_its_row_alone(name: str) -> None:
    network, x, label = small(name, classes=4, augment=3)
    y, augment = torch.tensor([0, 1, 2]), normal(3, 3).float()
    base = network(x, label, y, augment)
    for other in (
        network(x, label, torch.tensor([0, 3, 2]), augment),
        network(x, label, y=y, augment=augment + torch.tensor([[0.0], [1.0], [0.0]])),
    ):
        change = (other - base).flatten(1).abs().amax(1)
        assert change[1] > 1e-3 and max(change[0], change[2]) < 1e-6


@every_network
def test_no_augmentation_is_zeros(name: str) -> None:
    network, x, label = small(name, augment=3)
    assert torch.equal(network(x, label), network(x, label, augment=torch.zeros(3, 3)))
    assert network.augment == 3 and network.augment_in.bias is None
    plain, _, _ = small(name)
    assert plain.augment == 0 and not any("augment" in key for key in plain.state_dict())
    with pytest.raises(BadInput, match="augment was given to a network built without") as caught:
        plain(x, label, augment=torch.zeros(3, 3))
    assert "\n" not in str(caught.value)


@every_network
def test_learned_variances_double_the_channels(name: str) -> None:
    network, x, label = small(name, learned_variance=True)
    assert network(x, label).shape == (3, 2 * x.shape[1], *x.shape[2:])


def test_an_mlp_may_know_time_as_a_number_or_not_at_all() -> None:
    """Without the time label the output is that of any time; without features the first layer sees the state alone."""
    network, x, label = small("mlp", time="none", scales=[])
    assert torch.equal(network(x, label), network(x, label + 7.0))
    assert not any("time" in key for key in network.state_dict()) and network.first.in_features == 2
    network, x, label = small("mlp", time="linear")
    assert network.time_in.in_features == 1 and not torch.equal(network(x, label), network(x, label + 1))
    with torch.no_grad():  # linear in t where the label enters
        h = [network.time_in(torch.full((1, 1), t)) for t in (0.0, 1.0, 2.0)]
    assert torch.allclose(h[2] - h[1], h[1] - h[0], atol=1e-6)


# -------------------------------------------------------------------------------------------------------- checkpointing


def gradients(network: nn.Module, x: Tensor, label: Tensor) -> dict[str, Tensor]:
    network.train().zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network(x, label).square().sum().backward()
    return {key: p.grad.clone() for key, p in network.named_parameters() if p.grad is not None}


@deep
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_checkpointing_leaves_the_gradients(name: str, dropout: float) -> None:
    network, x, label = small(name, dropout=dropout)
    kept = gradients(network, x, label)
    network.checkpoint = True
    again = gradients(network, x, label)
    assert all((again[key] - kept[key]).abs().max() <= 1e-6 * (1 + kept[key].abs().max()) for key in kept)
    if dropout:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(6)
            network.zero_grad()
            network(x, label).square().sum().backward()
        assert any(not torch.equal(p.grad, kept[key]) for key, p in network.named_parameters())


def saved_bytes(run: Callable[[], Tensor], parameters: set[int]) -> int:
    """What the graph of a run keeps for the backward pass beside the weights, each storage once."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    assert out.requires_grad
    return sum(seen.values())


@pytest.mark.parametrize(
    "network, options",
    [
        (UNet, {"channels": 16, "patch": 1, "dropout": 0.1}),
        (UNet, {"channels": 16, "multipliers": [1, 2], "blocks": 1, **NCSNPP}),
        (DiT, {"width": 32, "depth": 6, "heads": 2, "patch": 2}),
    ],
    ids=["unet", "ncsn++", "dit"],
)
def test_checkpointing_halves_the_memory_of_activations(network: type, options: dict) -> None:
    built = network((1, 16, 16), **options)
    weights = {parameter.untyped_storage().data_ptr() for parameter in built.parameters()}
    x, label = normal(8, 1, 16, 16).float(), torch.rand(8)
    kept = saved_bytes(lambda: built(x, label), weights)
    built.checkpoint = True
    assert 0 < saved_bytes(lambda: built(x, label), weights) < 0.5 * kept


# ----------------------------------------------------------------------------------------------------- as torch sees it


@pytest.mark.parametrize(
    "name, options",
    [
        ("mlp", {}),
        ("unet", {**NCSNPP, "multipliers": [1, 1], "attention": []}),
        ("dit", {"depth": 1, "checkpoint": True}),
    ],
    ids=["mlp", "unet", "dit"],
)
def test_networks_compile_as_one_graph(name: str, options: dict, unchecked: dict) -> None:
    """Classes and every other condition that they take among what they are given."""
    takes = {"vector": 5} if name == "mlp" else {"vector": 5, "context": 6, "condition_channels": 2}
    network, x, label = small(name, unchecked, classes=4, **takes, **options)
    cond = {"y": torch.tensor([0, 3, 4]), "vector": torch.ones(3, 5)}
    if name != "mlp":
        mask = torch.tensor([[True] * 4, [True, False] * 2, [False] * 4])
        cond |= {
            "context": torch.ones(3, 4, 6),
            "context_mask": mask,
            "condition": torch.ones(3, 2, *[4] * (x.ndim - 2)),
        }
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.set_grad_enabled("checkpoint" in options):
        assert (compiled(x, label, **cond) - network(x, label, **cond)).abs().max() < 1e-5


@every_network
def test_autocast_stays_near_single_precision(name: str) -> None:
    """bfloat16 has 8 bits: a few roundings of 2^-9 in a row, forward and backward."""
    network, x, label = small(name, classes=4, augment=2)
    given = {"y": torch.tensor([0, 3, 4]), "augment": torch.ones(3, 2)}
    base = network(x, label, **given)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x, label, **given)
        out.float().square().sum().backward()
    assert (out - base).abs().max() < 0.05 * base.abs().max()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_channels_last_is_kept_and_changes_nothing() -> None:
    formats: list[bool] = []
    for options in ({"patch": 1}, {**NCSNPP, "multipliers": [1, 2]}):
        network = UNet((3, 8, 8), channels=16, blocks=1, **options)
        nn.init.normal_(network.out[2].weight)
        x, label = normal(2, 3, 8, 8).float(), torch.rand(2)
        base = network(x, label)
        network = network.to(memory_format=torch.channels_last)
        for block in (module for module in network.modules() if isinstance(module, Block)):
            block.register_forward_hook(
                lambda module, given, out: formats.append(out.is_contiguous(memory_format=torch.channels_last))
            )
        out = network(x.contiguous(memory_format=torch.channels_last), label)
        assert (out - base).abs().max() < 1e-5 * base.abs().max() and formats and all(formats)
    dit, x, label = small("dit")
    assert torch.equal(dit(x, label), dit(x.contiguous(memory_format=torch.channels_last), label))


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("unet", {"resample": "blok"}, "unknown UNet resample 'blok': choose from conv, block; did you mean 'block'"),
        ("unet", {"modulation": "film"}, "unknown UNet modulation 'film': choose from scale_shift, add"),
        ("unet", {"embedding": "fourrier"}, "did you mean 'fourier'"),
        ("unet", {"progressive_input": "skip"}, "unknown UNet progressive_input 'skip': choose from none, residual"),
        ("unet", {"head_channels": 5}, r"widths \[12\] must be divisible by head_channels = 5"),
        ("unet", {"head_channels": 0}, "UNet: head_channels = 0 must be an integer of at least 1"),
        ("unet", {"multipliers": [1, 0]}, r"UNet: multipliers\[1\] = 0 must be an integer of at least 1"),
        ("unet", {"multipliers": []}, "UNet: levels = 0 must be"),
        ("unet", {"augment": -1}, "UNet: augment = -1 must be an integer of at least 0"),
        ("unet", {"checkpoint": "yes"}, "UNet: checkpoint = 'yes' must be true or false"),
        ("unet", {"fir": 1}, "UNet: fir = 1 must be true or false"),
        ("unet", {"patch": 3}, r"UNet: event shape \(1, 8, 8\): \(8, 8\) must be divisible by 3 \(patch 3, 1 levels\)"),
        ("dit", {"patch": 3}, r"DiT: event shape \(1, 8, 8\): \(8, 8\) must be divisible by 3 \(patch 3\)"),
        ("dit", {"heads": 3}, "DiT: width = 8 must be divisible by heads = 3 and by 4"),
        ("dit", {"width": 6, "heads": 3}, "DiT: width = 6 must be divisible by heads = 3 and by 4"),
        ("dit", {"mlp_ratio": 0}, "DiT: mlp_ratio = 0 must be a positive number"),
        ("dit", {"depth": -1}, "DiT: depth = -1 must be an integer of at least 0"),
        ("mlp", {"time": "sinusoidal"}, "unknown MLP time 'sinusoidal': choose from fourier, linear, none"),
        ("mlp", {"width": 2.5}, "MLP: width = 2.5 must be an integer of at least 1"),
    ],
)
def test_options_that_cannot_work(name: str, options: dict, message: str, unchecked: dict) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        small(name, unchecked, **options)
    assert "\n" not in str(caught.value)


M = torch.ones(3, 6, dtype=torch.bool)


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_conditions_of_another_shape(name: str, unchecked: dict) -> None:
    network, x, label = small(name, unchecked, vector=5, context=6, condition_channels=2)
    for cond, message in (
        ({"vector": torch.zeros(3, 6)}, "vector of shape (3, 6) must have shape (3, 5)"),
        ({"vector": torch.zeros(2, 5)}, "vector of shape (2, 5) must have shape (3, 5)"),
        ({"context": torch.zeros(3, 7, 5)}, "context of shape (3, 7, 5) must have shape (3, any, 6)"),
        (
            {"context": torch.zeros(3, 7, 6), "context_mask": M},
            "context_mask of shape (3, 6) must have shape (3, 7)",
        ),
        ({"context_mask": M}, "context_mask was given without context"),
        ({"condition": torch.zeros(3, 1, 8, 8)}, "condition of shape (3, 1, 8, 8) must have shape (3, 2, any, any)"),
    ):
        with pytest.raises(BadInput) as caught:
            network(x, label, **cond)
        assert str(caught.value) == message


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_shapes_that_cannot_work(name: str) -> None:
    for event in ((), (2,), (1, 4, 4, 4), (0, 8, 8)):
        with pytest.raises(BadInput, match=rf"events of shape {event}".replace("(", r"\(").replace(")", r"\)")):
            NETWORKS[name](event)
    with pytest.raises(BadInput, match=r"event shape \(1, 8, 7\): \(8, 7\) must be divisible by"):
        NETWORKS[name]((1, 8, 7))
    network, _, label = small(name)
    with pytest.raises(BadInput, match=r"shape \(1, 8, 9\).* must"):
        network(torch.zeros(3, 1, 8, 9), label)
