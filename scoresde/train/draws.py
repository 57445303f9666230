"""What is random in a training run, as functions of (seed, step): a resumed run is the uninterrupted one, bitwise.

Everything is drawn for the whole batch of a step, on the CPU, and each process takes its own rows of it; so the numbers
do not depend on how many processes there are, nor on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.config import Train
from scoresde.data.augment import augmentations
from scoresde.losses.times import Times

FIRST, ORDER, STEP, DROPOUT, AUGMENT = range(5)  # streams of random numbers


def seed_of(seed: int, counter: int, stream: int) -> int:
    """One 63-bit generator seed out of three numbers (splitmix64's finaliser)."""
    z = (seed * 0x9E3779B97F4A7C15 + counter * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return (z ^ (z >> 31)) >> 1


@contextmanager
def seeded(seed: int, device: torch.device) -> Generator[None, None, None]:
    """Inside, what draws from torch's own generators (first weights, dropout) follows ``seed``; outside none moves."""
    cpu = device.type == "cpu"
    others = 0 if cpu else torch.get_device_module(device).device_count()
    with torch.random.fork_rng(range(others), device_type=device.type):
        (torch.default_generator if cpu else torch).manual_seed(seed)
        yield


def batch_rows(size: int, batch: int, seed: int, step: int) -> Tensor:
    """The data rows of one step: consecutive pieces of a fresh permutation per epoch, a function of (seed, step)."""
    rows: list[Tensor] = []
    position, wanted = step * batch, batch
    while wanted:
        epoch, offset = divmod(position, size)
        rows.append(_order(size, seed, epoch)[offset : offset + wanted])
        position, wanted = position + len(rows[-1]), wanted - len(rows[-1])
    return torch.cat(rows)


@lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed_of(seed, epoch, ORDER)))


class Draws(NamedTuple):
    """The random numbers of some rows of a step: augmentation, labels that are dropped, t, its weight, noises."""

    mirrored: Tensor | None
    warped: Tensor | None  # labels of `scoresde.data.augment`
    unlabelled: Tensor | None
    t: Tensor
    weight: Tensor
    noise: Tensor
    probe: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> Draws:
        """Each of them changed."""
        mirrored, warped, unlabelled, t, weight, noise, probe = self
        a, b, c, d = (None if each is None else change(each) for each in (mirrored, warped, unlabelled, probe))
        return Draws(a, b, c, change(t), change(weight), change(noise), d)

    def rows(self, which: slice) -> Draws:
        """Those of fewer rows."""
        return self.map(lambda each: each[which])

    def to(self, device: torch.device) -> Draws:
        """The same on another device; a copy out of pinned memory does not make the host wait."""
        return self.map(lambda each: each.to(device, non_blocking=True))


def draw(
    shape: tuple[int, ...], times: Times, train: Train, step: int, labelled: bool = False, probes: bool = False
) -> Draws:
    """The draws of a whole batch of this shape; labels are dropped where there are any, ``probes`` are for slices."""
    generator, n = torch.Generator().manual_seed(seed_of(train.seed, step, STEP)), shape[0]
    mirrored = torch.rand(n, generator=generator) < 0.5 if train.flip else None
    unlabelled = torch.rand(n, generator=generator) < train.label_dropout if labelled else None
    t, weight = times.draw(n, generator)
    noise = torch.randn(shape, generator=generator)
    probe = torch.randn(shape, generator=generator) if probes else None
    warped = None
    if train.augment:
        warped = augmentations(n, torch.Generator().manual_seed(seed_of(train.seed, step, AUGMENT)), train.augment)
    return Draws(mirrored, warped, unlabelled, t, weight, noise, probe)
