"""``scoresde likelihood``: how probable a model holds given data to be."""

from __future__ import annotations

import io
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.data import read_options
from scoresde.cli.files import DEFAULT_MODEL, json_text
from scoresde.cli.output import OutFile
from scoresde.cli.params import Number, Whole, device_option, find_device, json_option, weights_option
from scoresde.cli.progress import steps_bar
from scoresde.cli.space import check_pixels, draws_images
from scoresde.cli.text import align, duration
from scoresde.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from scoresde.data import Dataset
    from scoresde.model import Model

AT_ONCE = 2**15  # numbers in the states of one batch, unless --batch-size says otherwise


@click.command("likelihood", short_help="log p of given data, in nats and bits per dimension.")
@click.argument("data", metavar="NAME|PATH")
@click.option("--model", default=DEFAULT_MODEL, metavar="NAME|PATH", help=f"The model (default: {DEFAULT_MODEL}).")
@click.option("--num", type=Whole(), metavar="N", help="The first N events (default: all).")
@click.option("--split", default="train", metavar="NAME", help="train (default), test or val, of sets that have it.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the reader; repeat it.")
@click.option("--levels", type=Whole(2), metavar="N", help="The data are the whole numbers 0 to N-1: bits/dim too.")
@click.option("--draws", type=Whole(), default=1, metavar="K", help="Dequantisations per event, with --levels.")
@click.option("--divergence", default="hutchinson", metavar="NAME", help="hutchinson (default), hutch++ or exact.")
@click.option("--probes", type=Whole(), metavar="K", help="Random vectors per event (default: 1).")
@click.option("--probe", metavar="NAME", help="Their kind, rademacher (default) or gaussian.")
@click.option("--steps", type=Whole(), metavar="N", help="Intervals of the grid (default: 50).")
@click.option("--rtol", type=Number(), metavar="X", help="Instead of --steps: an adaptive run of this tolerance.")
@click.option("--grid", metavar="NAME", help="lambda (default), phi, karras, ...")
@click.option("--class", "class_", metavar="NAME|INDEX", help="One class, or none (default: the data's own).")
@weights_option
@click.option("--seed", type=Whole(0), default=0, metavar="N", help="Of probes and dequantisation (default: 0).")
@device_option
@click.option("--batch-size", type=Whole(), metavar="N", help="Events at a time: changes memory and rounding.")
@click.option("--out", type=OutFile(".npz"), metavar="NPZ", help="Write the numbers of each event there.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    data: str,
    model: str,
    num: int | None,
    split: str,
    options: tuple[str, ...],
    class_: str | None,
    weights: str,
    device: str,
    batch_size: int | None,
    out: Path | None,
    as_json: bool,
    **how: Any,
) -> None:
    """How probable a model holds DATA to be, a set by name or a file, as `scoresde data inspect` reads it.

    The density is in nats, in the data's own units, by the probability flow. --levels declares them to be whole
    numbers: then it is a lower bound of their probability, and bits per dimension are told.

    \b
    Examples:
      scoresde likelihood fashion_mnist --split test --num 64 --levels 256
      scoresde likelihood samples/ode-10-seed0.npz --rtol 1e-4 --out nats.npz
      scoresde likelihood datasaurus --model datasaurus --divergence exact --json
    """  # noqa: D301 (click wants the \b)
    import torch

    from scoresde.data import load
    from scoresde.model import load_model

    if how["draws"] > 1 and how["levels"] is None:
        raise BadInput(f"--draws {how['draws']}: dequantisation needs --levels")
    for name in ("probes", "probe"):
        if how["divergence"] == "exact" and how[name] is not None:
            raise BadInput(f"--{name} {how[name]}: --divergence exact draws no vectors; take hutchinson or hutch++")
    if how["divergence"] == "hutch++" and how["probe"] is not None:
        raise BadInput(f"--probe {how['probe']}: the vectors of --divergence hutch++ are Gaussian; take hutchinson")
    how = {key: value for key, value in how.items() if value is not None}
    device, given = find_device(device), read_options(options)
    loaded = load_model(model, weights, device)
    events = load(data, split, **given)
    n = min(len(events), num or len(events))
    labels = labels_of(loaded, events, class_, n)
    if draws_images(loaded):
        check_pixels(events, torch.arange(n))
    if "levels" in how:
        check_levels(events, n, how["levels"])
    start = time.perf_counter()
    arrays, facts = run(loaded, events, labels, n, device, batch_size, how)
    own = "the data's own" if labels is not None else "none"
    facts = {
        "command": shlex.join(["scoresde", *ctx.obj]),
        "model": model,
        "weights": weights,
        "data": {"name": data, "split": split, "options": given, "rows": len(events), "sha256": events.sha256},
        "class": class_ or own,
        "seed": how["seed"],
        **facts,
        "seconds": round(time.perf_counter() - start, 3),
    }
    lists = {key: value.tolist() for key, value in arrays.items()} if as_json else {}
    click.echo(json_text({**facts, **lists}) if as_json else as_text(facts))
    if out is not None:
        write(out, arrays)
        if not as_json:
            click.echo(str(out))


def check_levels(data: Dataset, n: int, levels: int) -> None:
    """Refuse data in memory that are not the whole numbers 0 to levels - 1; what is on a disk is seen as it is read."""
    from scoresde.data import Streamed
    from scoresde.data.dataset import piece_size

    first, size = 0, piece_size(data.event_shape)
    for part in () if isinstance(data, Streamed) else data.x[:n].split(size):
        x = part.reshape(len(part), -1).float()  # 256 is no uint8
        bad = ((x != x.round()) | (x < 0) | (x >= levels)).any(1)
        if bool(bad.any()):
            row = first + int(bad.nonzero()[0])
            raise BadInput(
                f"--levels {levels}: row {row} (counted from 0) of {data.name} is not of the whole numbers 0 to"
                f" {levels - 1}"
            )
        first += size


def labels_of(model: Model, data: Dataset, wanted: str | None, n: int) -> Tensor | None:
    """The class of each event: the one wanted, or the data's own, by name, or by number in a file without names."""
    import torch

    from scoresde.cli.draw import choose_labels

    if data.event_shape != model.event_shape:
        raise BadInput(
            f"{data.name}: events have shape {data.event_shape}, model {model.name!r} needs {model.event_shape}:"
            " give their own model by --model"
        )
    if wanted is not None:
        return choose_labels(model, wanted, n, 0)
    if not model.classes or data.labels is None:
        return None
    numbers = tuple(map(str, range(data.num_classes)))  # labels without names, as `scoresde sample` writes them
    if data.classes == numbers != model.classes and Path(data.source).is_file() and len(numbers) <= len(model.classes):
        return data.labels[:n]
    for name in data.classes:
        if name not in model.classes:
            raise BadInput(
                f"{data.name}: its class {name!r} is none of model {model.name!r}, {', '.join(model.classes)}:"
                " give one of them by --class, or --class none"
            )
    return torch.tensor([model.classes.index(name) for name in data.classes])[data.labels[:n]]


def run(
    model: Model,
    data: Dataset,
    labels: Tensor | None,
    n: int,
    device: str,
    batch_size: int | None,
    how: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The numbers of each event as arrays, and what there is to say of all, batch by batch."""
    from math import log, prod

    import numpy as np
    import torch

    from scoresde.likelihood import discrete_log_prob, log_prob
    from scoresde.losses import prior_bound

    size = min(n, batch_size or max(1, AT_ONCE // prod(model.event_shape)))
    levels, draws = how.get("levels"), how["draws"]
    given: dict[str, Any] = {key: value for key, value in how.items() if key not in ("levels", "draws")}
    values: list[Tensor] = []
    errors: list[Tensor] = []
    priors: list[Tensor] = []
    calls = products = 0
    settings: Mapping[str, Any] = {}
    with steps_bar("likelihood", n) as done:
        for first in range(0, n, size):
            rows = torch.arange(first, min(first + size, n))
            x = data.take(rows).to(device)
            cond = {} if labels is None else {"y": labels[rows].to(device)}
            more: dict[str, Any] = {**given, "first": first, "scaler": model.scaler, "cond": cond}
            if levels is None:
                found = log_prob(model.denoiser, x, **more)
            else:
                found = discrete_log_prob(model.denoiser, x, levels=levels, draws=draws, **more)
            values.append(found.log_prob.double().cpu())
            errors.append(found.standard_error.double().cpu())
            calls, products, settings = max(calls, found.nfe), max(products, found.products), found.settings
            del found  # the latents are as large as the data
            priors.append(prior_bound(model.sde, model.scaler.encode(x)).double().cpu())
            done(len(rows))
    value, error = torch.cat(values), torch.cat(errors)
    dims = prod(model.event_shape)
    arrays = {"log_prob": value.numpy(), "standard_error": error.numpy()}
    if levels is not None:
        arrays["bits_per_dim"] = (-value / (dims * log(2))).numpy()
    if labels is not None:
        arrays["labels"] = labels.numpy()
    at = model.sde.knots([model.sde.t_min])
    versions = {"device": device, "torch": torch.__version__, "numpy": np.__version__}
    spread = float(value.std()) / n**0.5 if n > 1 else None
    facts: dict[str, Any] = {
        "sha256": model.info["sha256"],
        "num": n,
        "dims": dims,
        "mean": float(value.mean()),
        "mean_standard_error": spread,
        "probes_standard_error": float(error.square().mean().sqrt())
        if how.get("probes", 1) > 1
        else None,  # of an event
        "bits": -float(value.mean()) / (dims * log(2)) if levels is not None else None,
        "bits_standard_error": spread / (dims * log(2)) if levels is not None and spread is not None else None,
        "prior_term": float(torch.cat(priors).mean()) * dims * log(2),  # L_T: what the prior costs, at most, on average
        "noise": float(at.sigma[0] / at.alpha[0]),  # of x_{t_min}, whose density it is, in the denoiser's units
        "nfe": calls,
        "network_evals": calls * model.denoiser.rows_per_call,
        "products": products,
        "batch_size": size,
        "settings": {**{key: value for key, value in settings.items() if key != "first"}, **versions},
    }
    return arrays, facts


def as_text(facts: dict[str, Any]) -> str:
    """The figures as a table."""

    def figure(value: float, error: float | None, digits: int) -> str:
        return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")

    rows = [
        ("events", f"{facts['num']:,} of {facts['data']['name']}, {facts['dims']} numbers each"),
        ("class", facts["class"]),
        (
            "log p" if facts["bits"] is None else "log P ≥",
            f"{figure(facts['mean'], facts['mean_standard_error'], 3)} nats",
        ),
    ]
    if facts["probes_standard_error"] is not None:
        many = (
            f"{facts['settings']['probes']} probes have a standard error of {facts['probes_standard_error']:.3g} nats"
        )
        rows.append(("probes", f"the {many} for an event, on average"))
    if facts["bits"] is not None:
        rows.append(("bits/dim", figure(facts["bits"], facts["bits_standard_error"], 4)))
    ends = f"the prior lowers the mean by at most {facts['prior_term']:.2g} nats; density at noise {facts['noise']:.2g}"
    rows.append(("ends", f"{ends} in scaled units"))
    rows.append(("cost", f"{facts['nfe']} network calls, {facts['products']} products per event"))
    settings, adaptive = facts["settings"], facts["settings"]["adaptive"]
    steps = "adaptive" if adaptive else f"{settings['steps']} steps in {settings['grid']}"
    rows.append(("by", f"{facts['model']} ({facts['weights']} weights), {settings['divergence']}, {steps}"))
    rows.append(("time", duration(facts["seconds"])))
    return align(rows)


def write(path: Path, arrays: dict[str, Any]) -> None:
    """The arrays as an .npz file, whole or not at all."""
    import numpy as np

    from scoresde.checkpoint import write_atomically

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
