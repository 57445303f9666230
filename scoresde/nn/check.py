"""Checks of the options of networks: a fault is one line that names the network, the option and its value."""

from __future__ import annotations

from collections.abc import Sequence

from scoresde.errors import BadInput


def check_counts(network: str, least: int = 1, **options: object) -> None:
    """Each an integer of at least ``least``.

    >>> check_counts("UNet", channels=64, blocks=0)
    Traceback (most recent call last):
    scoresde.errors.BadInput: UNet: blocks = 0 must be an integer of at least 1
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(f"{network}: {name} = {value!r} must be an integer of at least {least}")


def check_flags(network: str, **options: object) -> None:
    """Each true or false."""
    for name, value in options.items():
        if not isinstance(value, bool):
            raise BadInput(f"{network}: {name} = {value!r} must be true or false")


def check_grid(network: str, event_shape: Sequence[int], divisor: int, why: str) -> tuple[int, ...]:
    """The event's shape, which must be (channels, length) or (channels, height, width), all but channels divisible.

    >>> check_grid("UNet", (3, 32, 32), 4, "patch 1, 3 levels")
    (3, 32, 32)
    """
    shape = tuple(event_shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise BadInput(f"{network}: events of shape {shape} must be (channels, length) or (channels, height, width)")
    if any(size % divisor for size in shape[1:]):
        raise BadInput(f"{network}: event shape {shape}: {shape[1:]} must be divisible by {divisor} ({why})")
    return shape
