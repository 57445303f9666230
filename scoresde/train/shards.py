"""Weights in shards over the processes of a run (FSDP): the layout of a network, and tensors into it and out of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def shard(network: nn.Module, device: torch.device, world: int) -> None:
    """Lay every parameter of a network out over all processes, in place; its blocks are gathered one at a time.

    What a `ModuleList` of the network holds is a block. Gradients and what an optimiser keeps of each parameter lie as
    it does (PyTorch's fully_shard; Zhao et al. 2023).
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]  (parts of rows need it)
    mesh = init_device_mesh(device.type, (world,))
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList)]
    for block in (each for blocks in lists for each in blocks):
        if not isinstance(block, nn.ModuleList):
            fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def whole(value: Tensor) -> Tensor:
    """The tensor that shards are of; itself where it is whole. All processes must ask."""
    gather = getattr(value, "full_tensor", None)
    return gather() if gather else value


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors, one after the other, on the host where they were in shards; of a process that does not ``keep``
    them none. All processes must ask."""
    found: dict[str, Tensor] = {}
    for key, value in tensors.items():
        full = whole(value)
        if keep:
            found[key] = full if full is value else full.cpu()
    return found


def laid(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, laid out as another of its shape is."""
    mesh = getattr(like, "device_mesh", None)
    if mesh is None or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, mesh, getattr(like, "placements", None))
