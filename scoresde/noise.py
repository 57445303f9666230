"""Noise as a function of (seed, sample, step, draw), and of nothing else.

Sample k of seed s is the same whatever the batch size, the other samples, the number of processes and the device:
each draw comes from a counter-based generator (Philox, Salmon et al. 2011) keyed by seed and sample index, on the
CPU in float32, and is then moved. No global random state is read or changed. NumPy may change its normal draws in a
later version (it has not since 1.17), so results record the version they were drawn with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import BadInput, integer

START = -1  # the step number of the draw that makes x at t_max


def check_seed(seed: object) -> int:
    """Refuse what is no seed."""
    return integer("seed", seed, 0, "a seed is an integer from 0 to 2^64 - 1", 2**64 - 1)


@runtime_checkable
class Noise(Protocol):
    """Standard normal noise for one step: any callable (step, draw, x) -> tensor like x. Tests inject their own."""

    def __call__(self, step: int, draw: int, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class SeededNoise:
    """Reproducible noise for the samples ``indices`` of ``seed``: row k of a draw belongs to sample indices[k].

    >>> import torch
    >>> batch, alone = SeededNoise(0, range(8)), SeededNoise(0, [5])
    >>> torch.equal(batch(3, 0, torch.zeros(8, 2))[5:6], alone(3, 0, torch.zeros(1, 2)))
    True
    """

    seed: int
    indices: Sequence[int]

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def __call__(self, step: int, draw: int, x: Tensor) -> Tensor:
        if len(self.indices) != x.shape[0]:
            raise BadInput(f"noise for {len(self.indices)} samples was asked for a batch of {x.shape[0]}")
        out = np.empty(x.shape, dtype=np.float32)
        counter = np.array([0, draw, step + 1, 0], dtype=np.uint64)
        for index, row in zip(self.indices, out.reshape(len(out), -1), strict=True):
            key = np.array([self.seed, index], dtype=np.uint64)
            np.random.Generator(np.random.Philox(key=key, counter=counter)).standard_normal(out=row, dtype=np.float32)
        noise = torch.from_numpy(out)
        if x.device.type == "cpu":
            return noise.to(x.dtype)
        # The network of this step is already queued on the device, so this draw and copy run beside it.
        return noise.pin_memory().to(x.device, non_blocking=True).to(x.dtype)


@dataclass(frozen=True)
class DeviceNoise:
    """Fast noise drawn on the device: opt-in, since it depends on the device, the batch and the order of draws.

    Another ``first``, the index of a run's first sample, is another run: a later part of many is no repetition.
    """

    seed: int
    device: torch.device
    first: int = 0
    generator: torch.Generator = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        (key,) = np.random.SeedSequence([self.seed, self.first]).generate_state(1, np.uint64).tolist()
        object.__setattr__(self, "generator", torch.Generator(self.device).manual_seed(key % 2**63))

    def __call__(self, step: int, draw: int, x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=self.generator, device=x.device, dtype=x.dtype)
