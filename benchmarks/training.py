"""What a training step costs: ours beside diffusers' own, with a U-Net of the same size, batch and precision.

    python benchmarks/training.py                         one row for each precision, on the CPU
    python benchmarks/training.py --device cuda --batch 256 --compile

Both nets see 14 x 14 images of 4 channels (what a patch of 2 makes of 28 x 28), widths 48 and 96, two blocks a level,
attention in the middle. Theirs is stepped as diffusers' own example does: add_noise, UNet2DModel, mse_loss, backward,
clip_grad_norm_, AdamW, its learning rate, EMAModel. Ours is `Run.advance`: rows of a data set, scaling, times, noise,
the loss, backward, clipping, AdamW, the average, the losses by level. Steps are taken in turn; the ratio is the median
of those of neighbouring steps, which a noisy machine disturbs least, theirs over ours: above 1 ours is faster. "batch"
is the share of our step that is spent on making the batch (rows, scaling, times, noise).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table

from scoresde.config import parse_config
from scoresde.data import Dataset
from scoresde.train.run import Run

SHAPE, WIDTHS = (4, 14, 14), (48, 96)


def ours(data: Dataset, batch: int, precision: str, compiled: bool, device: str) -> Run:
    """A run of ours, ready to step."""
    network = {"name": "unet", "channels": WIDTHS[0], "multipliers": [1, 2], "blocks": 2, "attention": [], "patch": 1}
    train = {"batch_size": batch, "precision": precision, "compile": compiled, "lr": 1e-4, "warmup": 0}
    values = {"data": {"name": data.name, "scaler": "image"}, "network": network, "train": train, "prediction": "eps"}
    return Run(parse_config({**values, "sde": {"name": "ddpm"}, "time": "index"}), data, device)


def theirs(data: Dataset, batch: int, precision: str, compiled: bool, device: str) -> tuple[Callable[[], None], int]:
    """diffusers' step, and the number of its parameters."""
    from diffusers import DDPMScheduler, UNet2DModel  # pyright: ignore[reportMissingImports]
    from diffusers.training_utils import EMAModel  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    model: Any = UNet2DModel(
        sample_size=SHAPE[1],
        in_channels=SHAPE[0],
        out_channels=SHAPE[0],
        layers_per_block=2,
        block_out_channels=WIDTHS,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=16,
        attention_head_dim=24,
        resnet_time_scale_shift="scale_shift",
    ).to(device)
    if compiled:
        model.compile()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 10_000)
    average, scheduler = EMAModel(model.parameters(), decay=0.999), DDPMScheduler(num_train_timesteps=1000)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(data.x), batch_size=batch, shuffle=True, drop_last=True
    )
    batches = iter(loader)

    def step() -> None:
        nonlocal batches
        try:
            (x,) = next(batches)
        except StopIteration:
            batches = iter(loader)
            (x,) = next(batches)
        x = x.to(device).float() / 127.5 - 1
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (len(x),), device=device)
        noisy = scheduler.add_noise(x, noise, t)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            out = model(noisy, t).sample
        loss = F.mse_loss(out.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        average.step(model.parameters())
        loss.item()  # as its example logs it

    return step, sum(p.numel() for p in model.parameters())


def clocked(step: Callable[[], Any], device: str) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step()
    if device != "cpu":
        torch.get_device_module(device).synchronize()
    return time.perf_counter() - start


@click.command(help=__doc__)
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1))
@click.option("--steps", default=30, show_default=True, type=click.IntRange(3))
@click.option("--device", default="cpu", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Ours compiled (train.compile); theirs as the example.")
def main(batch: int, steps: int, device: str, compiled: bool) -> None:
    x = torch.randint(256, (4096, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = Dataset(x, name="noise")
    table = Table("precision", "ours ms", "theirs ms", "theirs/ours", "batch", "parameters")
    for precision in ("float32", "bf16"):
        run = ours(data, batch, precision, compiled, device)
        step, parameters = theirs(data, batch, precision, False, device)
        for _ in range(3):
            run.advance()
            step()
        pairs = [(clocked(run.advance, device), clocked(step, device)) for _ in range(steps)]
        batches = [clocked(run.batch, device) for _ in range(10)]
        a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(two / one for one, two in pairs)
        mine = sum(p.numel() for p in run.network.parameters())
        share = statistics.median(batches) / a
        table.add_row(
            precision, f"{1000 * a:.1f}", f"{1000 * b:.1f}", f"{ratio:.2f}", f"{share:.1%}", f"{mine:,} {parameters:,}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
