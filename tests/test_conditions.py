"""Learned conditioning: what a run is given reaches the network untouched, each row alone; left out it is zeros."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import scoresde
from scoresde import VPSDE, BadInput, Denoiser
from scoresde.losses import denoising_loss
from scoresde.nn import NETWORKS
from scoresde.nn.condition import CrossAttention

SMALL = {  # three channels in a norm's group: with one the norm would cancel what is added to it
    "mlp": ("mlp", (2,), {"width": 8, "depth": 1, "features": 4}),
    "unet": ("unet", (1, 8, 8), {"channels": 12, "multipliers": [1, 1], "blocks": 1, "heads": 2}),
    "unet of series": ("unet", (2, 8), {"channels": 12, "multipliers": [1], "blocks": 1, "heads": 2}),
    "dit": ("dit", (1, 8, 8), {"width": 8, "depth": 2, "heads": 2, "patch": 4}),
    "dit of series": ("dit", (2, 8), {"width": 8, "depth": 2, "heads": 2, "patch": 4}),
}
TAKES = {"vector": 5, "context": 6, "condition_channels": 3}
WAYS = ("vector", "context", "masked", "condition", "low resolution")
EACH = [(name, way) for name in SMALL for way in WAYS if name != "mlp" or way == "vector"]
every_way = pytest.mark.parametrize("name, way", EACH)


def made(
    name: str, networks: dict = NETWORKS, trained: bool = True, **more: object
) -> tuple[nn.Module, Tensor, Tensor]:
    """A network that takes every condition it can, with weights of no special value; four states and labels."""
    network, event, options = SMALL[name]
    takes = {"vector": 5} if network == "mlp" else TAKES
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = NETWORKS[network](event, **{**options, **takes, **more})
        with torch.no_grad():
            for parameter in built.parameters() if trained else ():
                parameter.add_(0.2 * torch.randn(parameter.shape))
        return built, torch.randn(4, *event), torch.rand(4)


def given(name: str, way: str, n: int = 4, seed: int = 1) -> dict[str, Tensor]:
    """A condition of this kind for n samples."""
    space, generator = SMALL[name][1][1:], torch.Generator().manual_seed(seed)
    if way == "vector":
        return {"vector": torch.randn(n, 5, generator=generator)}
    if way in ("context", "masked"):
        tokens = torch.randn(n, 7, 6, generator=generator)
        mask = torch.arange(7) < 1 + torch.arange(n)[:, None] % 7
        return {"context": tokens, **({"context_mask": mask} if way == "masked" else {})}
    size = space if way == "condition" else tuple(side // 2 for side in space)
    return {"condition": torch.randn(n, 3, *size, generator=generator)}


# ----------------------------------------------------------------------------------------------------- what is learned


@every_way
def test_a_condition_concerns_its_row_alone_and_left_out_is_zeros(name: str, way: str) -> None:
    network, x, label = made(name)
    cond, bare = given(name, way), network(x, label)
    with torch.no_grad():
        base, other = network(x, label, **cond), {key: value.clone() for key, value in cond.items()}
        first = next(iter(cond))
        other[first][1] *= -2
        change = (network(x, label, **other) - base).flatten(1).abs().amax(1)
        assert change[1] > 1e-4 and change[[0, 2, 3]].max() < 1e-6
        assert (base - bare).flatten(1).abs().amax(1).min() > 1e-4
        zeros = {key: value if key == "context_mask" else 0 * value for key, value in cond.items()}
        assert (network(x, label, **zeros) - bare).abs().max() < 1e-6
        assert torch.equal(network(x, label, **dict.fromkeys(cond)), bare)


@pytest.mark.parametrize("name", SMALL)
def test_a_new_network_is_the_one_without_conditions(name: str) -> None:
    """The same first weights from the same seed, the same output: conditions begin as layers of zeros."""
    network, event, options = SMALL[name]
    conditioned, x, label = made(name, trained=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = NETWORKS[network](event, **options)
    weights = conditioned.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in plain.state_dict().items())
    with torch.no_grad():  # an output of its own, as new networks return 0
        for built in (plain, conditioned):
            for layer in built.modules():
                if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and layer.bias is not None:
                    layer.weight.add_(0.05)
    ways = [way for other, way in EACH if other == name]
    for way in ways:
        assert torch.equal(conditioned(x, label, **given(name, way)), plain(x, label))


@every_way
def test_every_layer_of_a_condition_learns(name: str, way: str) -> None:
    """Its own weights get gradients of the loss that `Denoiser` passes it to."""
    network, x, _ = made(name)
    losses = denoising_loss(Denoiser(network, VPSDE(), "v"), x, torch.full((4,), 0.5), 0 * x, **given(name, way))
    losses.sum().backward()
    part = {"vector": "vector_in", "context": "cross", "masked": "cross"}.get(way, "condition_in")
    own = [p for key, p in network.named_parameters() if part in key]
    assert own and all(p.grad is not None and p.grad.abs().max() > 0 for p in own)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "mlp"])
def test_a_mask_hides_tokens(name: str) -> None:
    """What stands behind it does not matter, how many there are does not, and no token at all is no context."""
    network, x, label = made(name)
    cond = given(name, "masked")
    changed = torch.where(cond["context_mask"][..., None], cond["context"], 99.0)
    longer = {
        "context": nn.functional.pad(changed, (0, 0, 0, 4), value=7.0),
        "context_mask": nn.functional.pad(cond["context_mask"], (0, 4)),
    }
    with torch.no_grad():
        base = network(x, label, **cond)
        for same in ({**cond, "context": changed}, longer):
            assert (network(x, label, **same) - base).abs().max() < 1e-5
        row = network(x[:1], label[:1], context=cond["context"][:1, :1])
        assert (row - base[:1]).abs().max() < 1e-5
        hidden = {**cond, "context_mask": torch.zeros_like(cond["context_mask"])}
        none = {"context": cond["context"][:, :0]}
        for empty in (hidden, none):
            assert (network(x, label, **empty) - network(x, label)).abs().max() < 1e-6


def test_attention_to_equal_tokens_is_their_value() -> None:
    """Queries do not matter where all keys are equal but that of zeros, whose share is 1/(1 + n e^{q k/√d})."""
    layer = CrossAttention(4, 3, heads=1)
    nn.init.eye_(layer.out.weight)
    h, token = torch.randn(2, 5, 4), torch.randn(2, 1, 3)
    k, v = layer.kv(token).chunk(2, dim=2)
    weight = torch.exp((layer.q(h) * k).sum(2, keepdim=True) / 2)
    assert (layer(h, (token.expand(2, 6, 3), None)) - v * 6 * weight / (1 + 6 * weight)).abs().max() < 1e-5


def test_a_condition_of_another_size_is_stretched_and_of_the_same_is_untouched() -> None:
    network, x, label = made("unet")
    small = torch.randn(4, 3, 4, 4)
    stretched = nn.functional.interpolate(small, size=(8, 8), mode="bilinear")
    assert torch.equal(network(x, label, condition=small), network(x, label, condition=stretched))
    seen: list[Tensor] = []
    network.condition_in.conv.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    network(x, label, condition=stretched)
    assert torch.equal(scoresde.nn.blocks.from_depth(seen[0], 2), stretched)


# ------------------------------------------------------------------------------------------------------- on the way in


@every_way
def test_conditions_reach_the_network_untouched_in_any_batch_size(name: str, way: str, batch_size: int = 3) -> None:
    """From `sample`, by way of a denoiser, in order; the samples do not depend on how they are cut."""
    network, _, _ = made(name)
    cond, seen = given(name, way, 8), []
    network.register_forward_pre_hook(lambda module, args, told: seen.append(told), with_kwargs=True)
    denoiser, shape = Denoiser(network.eval(), VPSDE(), "v"), (8, *SMALL[name][1])
    cut = scoresde.sample(denoiser, shape, "ddim", 1, cond=cond, batch_size=batch_size).x
    calls = len(seen) // -(-8 // batch_size)
    for key, value in cond.items():
        assert torch.equal(torch.cat([told[key] for told in seen[::calls]]), value)
    whole = scoresde.sample(denoiser, shape, "ddim", 1, cond=cond).x
    assert (cut - whole).abs().max() < 1e-4
    x = torch.randn(8, *SMALL[name][1])
    assert torch.equal(denoiser.output(x, torch.tensor(0.5), **cond), network(x, torch.full((8,), 0.5), **cond))


# ------------------------------------------------------------------------------------------------------- checkpointing


@pytest.mark.parametrize("name", [name for name in SMALL if name != "mlp"])
def test_checkpointing_leaves_the_gradients_of_conditions(name: str) -> None:
    """Of the weights and of the condition itself, an encoder's output say."""
    network, x, label = made(name)
    cond = {key: value for way in ("vector", "masked", "condition") for key, value in given(name, way).items()}
    wanted = [value.requires_grad_() for value in cond.values() if value.is_floating_point()]
    found = []
    for checkpoint in (False, True):
        network.checkpoint = checkpoint
        loss = network(x, label, **cond).square().sum()
        found.append(torch.autograd.grad(loss, [*wanted, *network.parameters()], allow_unused=True))
    pairs = [pair for pair in zip(*found, strict=True) if pair[0] is not None]
    assert len(pairs) > 3 and all((a - b).abs().max() <= 1e-5 * (1 + a.abs().max()) for a, b in pairs)


# ----------------------------------------------------------------------------------------------------------- bad input


@every_way
def test_a_network_without_says_which_option_it_lacks(name: str, way: str) -> None:
    network, event, options = SMALL[name]
    plain = NETWORKS[network](event, **options)
    option = {"vector": "vector", "context": "context", "masked": "context"}.get(way, "condition_channels")
    with pytest.raises(BadInput, match=rf"given to a network built without: set its option {option}"):
        plain(torch.zeros(4, *event), torch.zeros(4), **given(name, way))


@pytest.mark.parametrize("option", TAKES)
def test_options_are_counts(option: str) -> None:
    for network in ("unet", "dit"):
        with pytest.raises(BadInput, match=f"{option} = -1 must be an integer of at least 0"):
            NETWORKS[network]((1, 8, 8), **{option: -1})
