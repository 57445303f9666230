"""What a model file says about itself, for `models` and `inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODEL_KEYS = {"config", "event_shape", "classes", "scaler"}


def describe(name: str | Path) -> dict[str, Any]:
    """The facts of a shipped model or checkpoint; the file is read whole and checked."""
    from scoresde.checkpoint import digest, group, load_checkpoint
    from scoresde.config import parse_config
    from scoresde.construct import construct
    from scoresde.errors import BadInput
    from scoresde.model import find_model
    from scoresde.sdes import SDES
    from scoresde.train.ema import find_rate

    path = find_model(name)
    tensors, info = load_checkpoint(path)
    if missing := MODEL_KEYS - info.keys():
        raise BadInput(f"{str(name)!r} is a scoresde file but no model: it has no {', '.join(sorted(missing))}")
    config = parse_config(info["config"], f"model {str(name)!r}")
    sde = construct("sde", SDES, config.sde)
    ends = sde.knots([sde.t_min, sde.t_max])
    averages = config.train.ema if isinstance(config.train.ema, list) else [config.train.ema]
    groups = {key.split("/")[0]: group(tensors, key.split("/")[0]) for key in sorted(tensors)}
    moments = group(tensors, "data")
    return {
        "name": str(name),
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": info["sha256"],
        "step": info.get("step"),
        "sde": {
            "name": config.sde["name"],
            "t_min": sde.t_min,
            "t_max": sde.t_max,
            "lambda_t_min": float(ends.lam[0]),
            "lambda_t_max": float(ends.lam[1]),
            "prior_std": sde.prior_std(),
            "prior_kl": sde.prior_kl(moments["mean"][-1], moments["variance"][-1]) if moments else None,
        },
        "time": time_convention(config, sde),
        "task": config.task,
        "prediction": config.prediction if config.task == "denoiser" else "logits",
        "event_shape": list(info["event_shape"]),
        "classes": list(info["classes"]),
        "scaler": info["scaler"],
        "data": info.get("data"),
        "averages": info.get("averages") or [find_rate(spec)[0] for spec in averages],
        "weights": {
            key: {"parameters": sum(t.numel() for t in value.values()), "sha256": digest(value)}
            for key, value in groups.items()
        },
        "config": info["config"],
    }


def time_convention(config: Any, sde: Any) -> str:
    """What the network is told of time, in words."""
    import torch

    from scoresde.errors import choose
    from scoresde.labels import LABELS

    label = LABELS[choose("time label", config.time, LABELS)]
    times = config.train.times
    chain = times["name"] == "index" or (times["name"] == "loss_aware" and sde.by_index)
    N = sde.N or int(times.get("N", sde.label_steps))
    first, last = (1 / N, 1.0) if chain else (sde.t_min, sde.t_max)
    labels = label(sde, torch.tensor([first, last], dtype=torch.float64)).tolist()
    kind = f"discrete, N={N}" if chain else f"continuous, t in [{sde.t_min:g}, {sde.t_max:g}]"
    dots = ".." if chain else " to "
    return f"{kind}, labels {labels[0]:g}{dots}{labels[1]:g}" + ("" if chain else f" ({config.time})")
