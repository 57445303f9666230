"""Where a run computes, through Hugging Face accelerate: the device, the other processes, mixed precision, trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from scoresde.errors import BadInput
from scoresde.train.shards import shard

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb"}  # name: what pip calls it


class Engine:
    """One process of a run. Started by ``accelerate launch`` or ``torchrun`` there are several, each with its rank.

    ``precision`` "auto" is float32 on a CPU and bf16 elsewhere; weights, averages and losses are float32 in any case.
    Where there are several and ``sharded`` is asked for, each holds a part of the network, not all of it.
    """

    def __init__(
        self, device: str | torch.device, precision: str = "auto", trackers: Sequence[str] = (), sharded: bool = False
    ) -> None:
        from accelerate import Accelerator, DistributedType
        from accelerate.state import AcceleratorState
        from accelerate.utils import ProjectConfiguration

        device = torch.device(device)
        if device.index is not None:
            torch.get_device_module(device).set_device(device)
        if precision == "auto":
            precision = "float32" if device.type == "cpu" else "bf16"
        for name in trackers:
            _needs(name)
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]  (a process may make several runs)
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if precision == "bf16" else "no",
            log_with=list(trackers) or None,
            project_config=ProjectConfiguration(logging_dir="."),  # where it is, `start_trackers` says
        )
        if self.accelerator.distributed_type not in (
            DistributedType.NO,
            DistributedType.MULTI_CPU,
            DistributedType.MULTI_GPU,
        ):
            raise BadInput(
                f"{self.accelerator.distributed_type}: runs on one device or, by DDP, on several; for FSDP launch as"
                " for DDP, with train.shard: true"
            )
        self.device = self.accelerator.device
        self.precision, self.sharded = precision, sharded and self.world > 1

    @property
    def rank(self) -> int:
        return self.accelerator.process_index

    @property
    def world(self) -> int:
        """The number of processes."""
        return self.accelerator.num_processes

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.accelerator.is_main_process

    def share(self, batch: int) -> slice:
        """This process's rows of a batch; every process has as many."""
        if batch % self.world:
            raise BadInput(f"batch_size {batch} must be a multiple of the number of processes, {self.world}")
        each = batch // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def wrap(self, module: nn.Module, network: nn.Module) -> nn.Module:
        """The module as its gradients are shared by all processes: itself, if there is one only, or if the ``network``
        in it is laid out in shards, which share their own."""
        if self.sharded:
            shard(network, self.device, self.world)
            return module
        return self.accelerator.prepare_model(module) if self.world > 1 else module

    def autocast(self) -> AbstractContextManager[Any]:
        """Layers inside compute in the run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def shared(self, module: nn.Module, network: Any, now: bool) -> AbstractContextManager[Any]:
        """Gradients of a backward pass inside are shared if ``now``, else kept for the next pass to add to."""
        if self.sharded:
            network.set_requires_gradient_sync(now)
        return nullcontext() if now or self.world == 1 or self.sharded else self.accelerator.no_sync(module)

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients of what lies beside a network in shards become their mean over the processes."""
        for parameter in parameters if self.sharded else ():
            parameter.grad = self.accelerator.reduce(parameter.grad, "mean")  # pyright: ignore[reportAttributeAccessIssue]

    def gather(self, x: Tensor) -> Tensor:
        """The rows of all processes, in the order of their ranks."""
        if self.world == 1:
            return x
        rows = self.accelerator.gather(x)
        assert isinstance(rows, Tensor)
        return rows

    def any(self, flag: bool) -> bool:
        """Whether it holds in any process; all get the same answer."""
        if self.world == 1:
            return flag
        return bool(self.gather(torch.tensor([float(flag)], device=self.device)).any())

    def wait(self) -> None:
        """Until all processes are here."""
        self.accelerator.wait_for_everyone()

    def start_trackers(self, folder: str, settings: Mapping[str, Any]) -> None:
        """Begin what ``trackers`` named, in this folder."""
        if self.accelerator.log_with:
            self.accelerator.project_configuration.set_directories(folder)
            self.accelerator.project_configuration.logging_dir = folder
            self.accelerator.init_trackers("scoresde", config=_flat(settings))

    def track(self, figures: Mapping[str, Any], step: int) -> None:
        """Hand figures to the trackers."""
        if self.accelerator.log_with:
            self.accelerator.log(dict(figures), step=step)

    def track_image(self, name: str, png: bytes, step: int) -> None:
        """Hand a picture to the trackers."""
        if self.accelerator.log_with:
            with Image.open(BytesIO(png)) as image:
                pixels = np.asarray(image.convert("RGB"))[None]
            for tracker in self.accelerator.trackers:
                layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({name: pixels}, step=step, **layout)

    def end(self) -> None:
        """Close the trackers."""
        if self.accelerator.log_with:
            self.accelerator.end_training()


def _needs(tracker: str) -> None:
    """Refuse a tracker that is not installed, naming the line that installs it."""
    from importlib.util import find_spec

    from scoresde.errors import choose

    package = TRACKERS[choose("tracker", tracker, TRACKERS)]
    if find_spec(package) is None:
        raise BadInput(f"tracker {tracker!r} is not installed: python -m pip install {package}")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as "section.key": value, where trackers want plain values."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
