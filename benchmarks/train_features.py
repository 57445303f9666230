"""Train the frozen feature classifier of the quality figures on Fashion-MNIST, once; a few minutes on one CPU core.

    python benchmarks/train_features.py [--epochs 15] [--seed 0] [--out scoresde/pretrained/features.safetensors]

The file that ships is frozen: a new one would make every published figure incomparable, so an existing file is not
overwritten. All 60,000 training images are used for a fixed number of epochs; the test images are read once, after the
last step, and nothing is selected by them. No label smoothing: it would take the differences within a class out of the
penultimate layer (Müller, Kornblith & Hinton 2019), and these are what coverage and the Fréchet distance should see.
"""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any, cast

import click
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from scoresde.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from scoresde.data import Scaler, load
from scoresde.errors import BadInput
from scoresde.metrics import load_features
from scoresde.nn.classifier import Classifier

HOME = Path(__file__).resolve().parent.parent / "scoresde" / "pretrained" / "features.safetensors"
SHIFT = 2  # pixels


class Training(nn.Module):
    """The classifier with a batch norm after every convolution, and `folded`, the same function without."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Classifier()
        self.norms = nn.ModuleList(nn.BatchNorm2d(cast(nn.Conv2d, conv).out_channels) for conv in self.net.convs)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.net.convs, self.norms, strict=True):
            x = F.silu(norm(conv(x)))
        return self.net.head(x.mean(dim=(2, 3)))

    def folded(self) -> dict[str, Tensor]:
        """The weights of a `Classifier` that is this model in eval mode."""
        net, pairs = copy.deepcopy(self.net), zip(self.net.convs, self.norms, strict=True)
        net.convs = nn.ModuleList(
            fuse_conv_bn_eval(cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)) for conv, norm in pairs
        )
        return dict(net.state_dict())


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `SHIFT` pixels along both axes, black where nothing was."""
    size = x.shape[2]
    windows = F.pad(x, (SHIFT,) * 4, value=-1.0).unfold(2, size, 1).unfold(3, size, 1)
    move = torch.randint(0, 2 * SHIFT + 1, (2, len(x)), generator=generator)
    return windows[torch.arange(len(x)), :, move[0], move[1]]


def fit(x: Tensor, labels: Tensor, epochs: int, seed: int, batch: int = 256) -> Training:
    torch.manual_seed(seed)
    model = Training().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    steps = epochs * (len(x) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps, pct_start=0.2)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        order = torch.randperm(len(x), generator=generator)
        for rows in order[: len(x) // batch * batch].split(batch):
            images = shifted(x[rows], generator).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(images), labels[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        loss = total / (len(x) // batch)
        print(f"epoch {epoch + 1:2d}/{epochs}  loss {loss:.4f}  {time.perf_counter() - start:.1f} s", flush=True)
    return model.eval()


@click.command(help=__doc__)
@click.option("--epochs", default=15, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default=HOME, type=click.Path(path_type=Path), help="The file to write, its card beside it.")
def main(epochs: int, seed: int, out: Path) -> None:
    if out.exists():
        raise BadInput(f"{str(out)!r} exists and is frozen: choose another --out")
    train, test = load("fashion_mnist"), load("fashion_mnist", "test")
    assert train.labels is not None and test.labels is not None
    start = time.perf_counter()
    model = fit(Scaler.image().encode(train.x), train.labels, epochs, seed)
    seconds = time.perf_counter() - start
    weights = {name: tensor.half() for name, tensor in model.folded().items()}
    info: dict[str, Any] = {
        "kind": "features",
        "data": {"name": train.name, "rows": len(train), "sha256": train.sha256},
        "classes": list(train.classes),
        "features": int(weights["head.weight"].shape[1]),
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "epochs": epochs,
        "steps": epochs * (len(train) // 256),
        "seed": seed,
        "seconds": round(seconds, 1),
    }
    save_checkpoint(out, weights, info)
    accuracy = float((load_features(out).predict(test.x) == test.labels).double().mean())  # of the file as stored
    info["test"] = {"name": test.name, "rows": len(test), "accuracy": accuracy}
    save_checkpoint(out, weights, info)
    card = {**info, "sha256": load_checkpoint(out)[1]["sha256"], "bytes": out.stat().st_size}
    card["command"] = f"python benchmarks/train_features.py --epochs {epochs} --seed {seed}"
    write_atomically(out.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())
    print(f"{out}: {info['parameters']:,} parameters, test accuracy {accuracy:.4f}, {seconds:.0f} s of training")


if __name__ == "__main__":
    main()
