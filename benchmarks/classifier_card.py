"""Measure a noise-aware classifier on test data, level by level, and write the figures on its card.

    python benchmarks/classifier_card.py --model fashion-mnist-classifier

At each time every test event is noised once, x_t = α x_0 + σ ε, seed 0; accuracy is the share of events whose class is
the likeliest, nll the mean of -log p(y | x_t, t) in nats. Where nothing but noise is left they are 1/classes and
log(classes).
"""

from __future__ import annotations

import argparse
import json

import torch

import scoresde
from scoresde.checkpoint import write_atomically
from scoresde.data import Scaler, load
from scoresde.model import shipped_classifiers

TIMES = (0.001, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="fashion-mnist-classifier", choices=shipped_classifiers())
    name = parser.parse_args().model
    classifier, path = scoresde.load_classifier(name), shipped_classifiers()[name].with_suffix(".json")
    info, sde = classifier.info, classifier.sde
    test = load(info["config"]["data"]["name"], "test")
    assert test.labels is not None
    x, y = Scaler.from_json(info["scaler"]).encode(test.x), test.labels
    levels: list[dict[str, float]] = []
    for t in TIMES:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            states = sde.perturb(x, torch.tensor(t), noise).split(500)
            log_p = torch.cat([classifier.logits(part, t).log_softmax(1) for part in states])
        levels.append(
            {
                "t": t,
                "lambda": round(float(sde.lam(torch.tensor(t))), 3),
                "accuracy": round(float((log_p.argmax(1) == y).double().mean()), 4),
                "nll": round(float(-log_p.gather(1, y[:, None]).double().mean()), 4),
            }
        )
        print("  ".join(f"{key} {value:7.4g}" for key, value in levels[-1].items()), flush=True)
    card = {
        "model": name,
        "data": info["data"],
        "config": info["config"],
        "classes": info["classes"],
        "steps": info["step"],
        "parameters": sum(p.numel() for p in classifier.network.parameters()),  # pyright: ignore
        "sha256": info["sha256"],
        "test": {"name": test.name, "rows": len(test), "sha256": test.sha256},
        "command": f"python benchmarks/classifier_card.py --model {name}",
        "figures": {"test": {"accuracy": levels[0]["accuracy"], "by_level": levels}},
    }
    write_atomically(path, (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())
    print(f"card: {path.name}")


if __name__ == "__main__":
    main()
