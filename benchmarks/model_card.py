"""Measure the quality figures of a class-conditional model of 28×28 grey images and write them on its card.

    python benchmarks/model_card.py --model fashion-mnist
    python benchmarks/model_card.py --model runs/checkpoint.safetensors --parts ddpm-1000    # the slow one by itself
    python benchmarks/model_card.py --model fashion-mnist --parts unipc-20 --distance-num 10000
    python benchmarks/model_card.py --model fashion-mnist --quick                            # a look; writes nothing

A part draws samples with one sampler from the EMA weights, sample i of class i mod 10, all parts from the same noise:
the class figures are taken on the first --num of them, KID and the Fréchet distance on 256, on 1024 and on
--distance-num. The real side is the first n images of the test set, n equal to that of the samples (for the pixel
deviation within a class all of it). "floor" puts real images in the place of samples: "train" the first training
images, "test" the test images that follow (the classifier has seen the former). Samples are rounded to uint8 before
anything is measured. The card is NAME.json beside the model; parts are merged into it, and those of other weights or
another classifier are dropped.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from scoresde.checkpoint import write_atomically
from scoresde.data import Dataset, Scaler, load, to_uint8
from scoresde.errors import BadInput, choose
from scoresde.metrics import (
    Features,
    agreement,
    expected_coverage,
    frechet_distance,
    kernel_distance,
    load_features,
    memorisation,
    prdc,
    within_class_std,
)
from scoresde.model import DEFAULT, Model, find_model, load_model
from scoresde.samplers import sample

SAMPLED: dict[str, dict[str, Any]] = {
    "ode-10": {"sampler": "ode", "steps": 10},
    "ode-50": {"sampler": "ode", "steps": 50},
    "unipc-20": {"sampler": "unipc", "nfe": 20},
    "ddpm-1000": {"sampler": "ddpm", "steps": 1000},
}
PARTS = ("floor", *SAMPLED)
SLOW, USUAL = 256, 1024  # samples of ddpm-1000 and of the others: all that have so many tell distances at that n
K = 5


@dataclass(frozen=True)
class Ruler:
    """The real images and the frozen features, and every figure of a set of images against them."""

    train: Tensor
    test: Tensor
    test_labels: Tensor
    net: Features
    largest: int  # the largest n of any figure

    @cached_property
    def real(self) -> Tensor:
        return self.net.features(self.test[: self.largest])

    @cached_property
    def real_std(self) -> float:
        return within_class_std(Scaler.image().encode(self.test), self.test_labels)

    def distances(self, features: Tensor) -> dict[str, Any]:
        real = self.real[: len(features)]
        kid, error = kernel_distance(real, features)
        frechet = frechet_distance(real, features, allow_small=True)
        return {"n": len(features), "kid": kid, "kid_standard_error": error, "frechet": frechet}

    def overlap(self, features: Tensor) -> dict[str, Any]:
        n = len(features)
        figures = prdc(self.real[:n], features, K)._asdict()
        return {"n": n, "k": K, **figures, "coverage_of_equal_distributions": expected_coverage(n, n, K)}

    def classes(self, images: Tensor, labels: Tensor, features: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
        predicted = self.net.classify(features)
        share, error = agreement(predicted, labels)
        by_class = {name: float((predicted[labels == c] == c).double().mean()) for c, name in enumerate(names)}
        encode = Scaler.image().encode
        near = memorisation(encode(images), encode(self.train), encode(self.test[: len(images)]))
        return {
            "agreement": share,
            "agreement_standard_error": error,
            "agreement_by_class": by_class,
            **self.overlap(features),
            "within_class_std_ratio": within_class_std(encode(images), labels) / self.real_std,
            "nearest_training_image": near._asdict(),
        }


def network(model: Model) -> nn.Module:
    assert isinstance(model.denoiser.network, nn.Module)
    return model.denoiser.network


def draw(model: Model, part: str, num: int, seed: int, batch: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """``num`` uint8 images of classes 0 … 9 in turn, their labels, and how they were drawn."""
    labels = torch.arange(num) % len(model.classes)
    device = next(network(model).parameters()).device
    images: list[Tensor] = []
    settings: dict[str, Any] = {}
    start = time.perf_counter()
    for first in range(0, num, batch):
        y = labels[first : first + batch].to(device)
        result = sample(
            model.denoiser,
            (len(y), *model.event_shape),
            **SAMPLED[part],
            seed=seed,
            first=first,
            device=device,
            cond={"y": y},
        )
        images.append(to_uint8(model.scaler.decode(result.x)).cpu())
        seconds = time.perf_counter() - start
        print(f"{part}: {first + len(y)} of {num} images, {seconds:.0f} s", file=sys.stderr, flush=True)
        settings = {
            **result.settings,
            "first": 0,
            "nfe": result.nfe,
            "network_evals": result.network_evals,
        }
    cost = {"seconds": round(time.perf_counter() - start, 1), "batch_size": batch, "threads": torch.get_num_threads()}
    return torch.cat(images), labels, {**settings, "num": num, **cost, "rounded_to_uint8": True}


def measure(model: Model, ruler: Ruler, part: str, num: int, distance_num: int, seed: int, batch: int) -> Any:
    if part == "floor":
        total = max(num, distance_num)
        rows = {"train": ruler.train[:total], "test": ruler.test[total : 2 * total]}  # no overlap with the real side
        features = {name: ruler.net.features(images) for name, images in rows.items()}
        return {
            name: {
                "overlap": ruler.overlap(f[:num]),
                "distances": [ruler.distances(f[:n]) for n in sorted({SLOW, min(USUAL, distance_num), distance_num})],
            }
            for name, f in features.items()
        }
    total = SLOW if part == "ddpm-1000" else max(num, distance_num)
    images, labels, settings = draw(model, part, total, seed, batch)
    features, n = ruler.net.features(images), min(num, total)
    sizes = sorted(size for size in {SLOW, USUAL, distance_num} if size <= total)
    return {
        "run": settings,
        "classes": ruler.classes(images[:n], labels[:n], features[:n], model.classes),
        "distances": [ruler.distances(features[:size]) for size in sizes],
    }


def merged(card: dict[str, Any], model: Model, net: Features, reference: Dataset) -> dict[str, Any]:
    """The card with this model's facts; figures survive only if they belong to these weights and these features."""
    features = {"sha256": net.sha256, "test_accuracy": net.info["test"]["accuracy"]}
    current = card.get("sha256") == model.info["sha256"] and card.get("features") == features
    return {
        **card,
        **{key: model.info[key] for key in ("data", "config", "classes") if key in model.info},
        "steps": model.info["step"],
        "parameters": sum(p.numel() for p in network(model).parameters()),
        "weights": "ema",
        "sha256": model.info["sha256"],
        "features": features,
        "reference": {"data": reference.name, "sha256": reference.sha256, "rows": "the first n, n as in each figure"},
        "figures": card.get("figures", {}) if current else {},
    }


def show(figures: dict[str, Any]) -> None:
    """The figures as two tables: of the classes and their overlap with the test set, and the distances by n."""
    classes = Table("", "n", "NFE", "seconds", "agrees", "precision", "recall", "density", "coverage", "std", "nearest")
    distances = Table("", "n", "KID × 1000", "± s.e.", "Fréchet")
    for part, figure in figures.items():
        for name, f in figure.items() if part == "floor" else [(part, figure)]:
            label = f"floor: {name}" if part == "floor" else part
            run, c = f.get("run", {}), f.get("classes") or f["overlap"]
            near = c.get("nearest_training_image", {})
            cells = [c.get("agreement"), *(c[key] for key in ("precision", "recall", "density", "coverage"))]
            cells += [c.get("within_class_std_ratio"), near.get("median")]
            cost = [str(run.get(key, "")) for key in ("nfe", "seconds")]
            classes.add_row(label, str(c["n"]), *cost, *("" if cell is None else f"{cell:.3f}" for cell in cells))
            for d in f["distances"]:
                kid = [f"{1000 * d[key]:.2f}" for key in ("kid", "kid_standard_error")]
                distances.add_row(label, str(d["n"]), *kid, f"{d['frechet']:.3f}")
    Console(width=120).print(classes, distances)


@click.command(help=__doc__)
@click.option("--model", "name", default=DEFAULT, show_default=True, help="A shipped name or the path of a checkpoint.")
@click.option("--num", default=1000, show_default=True, type=click.IntRange(100, 4096), help="n of the class figures.")
@click.option(
    "--distance-num", default=USUAL, show_default=True, type=click.IntRange(SLOW, 10000), help="n of KID, FD."
)
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Which figures, separated by commas.")
@click.option("--seed", default=0, show_default=True)
@click.option("--batch-size", default=128, show_default=True, type=click.IntRange(min=1))
@click.option("--device", default="cpu", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Compile the network: a minute once, then twice as fast.")
@click.option("--quick", is_flag=True, help="ode-10 and the floor with 256 images, printed only.")
def main(
    name: str,
    num: int,
    distance_num: int,
    parts: str,
    seed: int,
    batch_size: int,
    device: str,
    compiled: bool,
    quick: bool,
) -> None:
    if distance_num > 5000 and "floor" in parts and not quick:
        raise BadInput(
            f"--distance-num {distance_num}: the floor needs twice as many test images: leave it out of --parts"
        )
    chosen = [choose("part", part, PARTS) for part in (("floor", "ode-10") if quick else parts.split(","))]
    num, distance_num = (SLOW, SLOW) if quick else (num, distance_num)
    model, net = load_model(name, "ema", device), load_features(device=device)
    if compiled:
        network(model).compile(dynamic=False)
    source = str(model.info["data"]["name"]).partition("/")[0]
    if source != str(net.info["data"]["name"]).partition("/")[0] or not model.classes:
        raise BadInput(f"model {name!r} of {source!r}: the features are of {net.info['data']['name']!r}, with classes")
    train, test = load(source), load(source, "test")
    assert test.labels is not None
    ruler = Ruler(train.x, test.x, test.labels, net, max(num, distance_num))
    path = find_model(name).with_suffix(".json")
    command = f"python benchmarks/model_card.py --model {name} --num {num} --distance-num {distance_num} --seed {seed}"
    command += " --compile" if compiled else ""
    figures: dict[str, Any] = {}
    for part in chosen:
        figure = measure(model, ruler, part, num, distance_num, seed, batch_size)
        figures[part] = {**figure, "command": f"{command} --parts {part}"} if part != "floor" else figure
        if not quick:  # after each part, so that a long run that is stopped loses only the last
            card = merged(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}, model, net, test)
            card["figures"] = {**card["figures"], part: figures[part]}
            write_atomically(path, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())
            figures = card["figures"]
    show(figures)
    print("nothing written (--quick)" if quick else f"card: {path}")


if __name__ == "__main__":
    main()
