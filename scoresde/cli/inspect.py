"""``scoresde inspect``: what a checkpoint or model holds."""

from __future__ import annotations

import json
from typing import Any

import click

from scoresde.cli.params import json_option
from scoresde.cli.text import align, size_of

PRIOR_KL = 1e-2  # nats per coordinate, from where a warning


@click.command("inspect", short_help="What a checkpoint or model holds.")
@click.argument("model", metavar="NAME|PATH")
@json_option
def command(model: str, as_json: bool) -> None:
    """What a checkpoint or shipped model holds: step, SDE, time convention, prediction, scaling, classes, weights.

    The file is read whole and its SHA-256 is checked.

    \b
    Examples:
      scoresde inspect fashion-mnist
      scoresde inspect runs/swiss
      scoresde inspect runs/swiss/checkpoint.safetensors --json
    """  # noqa: D301 (click wants the \b)
    from scoresde.cli.describe import describe

    facts = describe(model)
    click.echo(json.dumps(facts, indent=1, ensure_ascii=False) if as_json else as_text(facts))


def as_text(facts: dict[str, Any]) -> str:
    """The facts line by line, then the config."""
    import yaml

    sde, data, scaler = facts["sde"], facts["data"] or {}, facts["scaler"]
    ends = ", ".join(f"{end} = {sde[end]:g} (λ = {sde['lambda_' + end]:.4g})" for end in ("t_min", "t_max"))
    shape = " x ".join(map(str, facts["event_shape"]))
    step = "" if facts["step"] is None else f" of {facts['config']['train']['steps']}"
    rows: list[tuple[str, str]] = [
        (facts["task"], facts["name"]),
        ("file", f"{facts['path']} ({size_of(facts['bytes'])})"),
        ("sha256", facts["sha256"]),
        ("step", f"{facts['step']}{step}"),
        ("sde", f"{sde['name']}, {ends}"),
        ("prior", f"N(0, {sde['prior_std']:.4g}²){mismatch(sde['prior_kl'])}"),
        ("time", facts["time"]),
        ("prediction", facts["prediction"]),
        ("data", f"{data.get('name', '?')}, {data.get('rows', '?')} rows of {shape}"),
        ("classes", f"{len(facts['classes'])}: {', '.join(facts['classes'])}" if facts["classes"] else "none"),
        ("scaler", f"(x - shift) / scale, shift {_numbers(scaler['shift'])}, scale {_numbers(scaler['scale'])}"),
    ]
    meaning = {"ema": f"average, {facts['averages'][0]}", "raw": "last step", "opt": "optimiser's state"}
    for name, group in facts["weights"].items():
        note = f" ({meaning[name]})" if name in meaning else ""
        rows.append((f"{name}{note}", f"{group['parameters']:,} numbers, sha256 {group['sha256'][:16]}…"))
    config = yaml.safe_dump(facts["config"], sort_keys=False, default_flow_style=None, width=100).rstrip()
    return align(rows) + "\nconfig\n  " + config.replace("\n", "\n  ")


def mismatch(kl: float | None) -> str:
    """How far the prior is from the noised data, with a warning where it shows."""
    if kl is None:
        return ""
    warning = ": too far apart, noise the data more (t_max, sigma_max) or scale them" if kl > PRIOR_KL else ""
    return f", KL(p_T ‖ prior) = {kl:.2g} nats per coordinate{warning}"


def _numbers(values: list[float], most: int = 4) -> str:
    return ", ".join(f"{v:.6g}" for v in values[:most]) + (", …" if len(values) > most else "")
