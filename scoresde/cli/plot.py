"""``scoresde plot``: figures of schedules, marginals, scores, samples and trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoresde.cli.output import OutFile
from scoresde.cli.params import Numbers, Whole, device_option, find_device, weights_option
from scoresde.cli.table import find_sde
from scoresde.errors import BadInput, choose

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from scoresde.data import Dataset
    from scoresde.model import Model

FIGURE = (".png", ".svg", ".pdf")
FILM = (".gif", ".mp4", ".png")
COLUMNS = 6  # of a trajectory as one picture
LARGEST = 1e6  # among the numbers of a mixture


class PlotCommands(click.Group):
    """The kinds of figures; another name is answered with them."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if not args[0].startswith("-"):
            choose("command of plot", args[0], self.commands)
        return super().resolve_command(ctx, args)


def out_option(default: str, allowed: Sequence[str] = FIGURE) -> Any:
    """--out FILE, with its endings."""
    text = f"Write it there: {', '.join(allowed)} (default: {default})."
    return click.option("--out", type=OutFile(*allowed), default=default, metavar="FILE", help=text)


sde_option = click.option("--sde", metavar="NAME", help="vp (default), subvp, cosine, sigmoid, ve, edm, flow or ddpm.")
seed_option = click.option("--seed", type=Whole(0), default=0, metavar="N", help="Of the noise (default: 0).")


@click.group("plot", cls=PlotCommands, invoke_without_command=True, short_help="Figures.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Figures of what a diffusion does: all work without a trained model and without options.

    \b
    Examples:
      scoresde plot schedules vp cosine flow
      scoresde plot marginals --sde flow --out flow.pdf
      scoresde plot trajectory --model datasaurus --class dino
    """  # noqa: D301 (click wants the \b)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("schedules", short_help="Noise schedules side by side.")
@click.argument("names", nargs=-1, metavar="[SDE]...")
@out_option("schedules.png")
def schedules(names: tuple[str, ...], out: Path) -> None:
    """Noise schedules side by side: α, σ, λ, −f and g² over t, of vp, cosine and flow unless SDEs are named.

    \b
    Examples:
      scoresde plot schedules
      scoresde plot schedules vp subvp ddpm --out vp.svg
      scoresde plot schedules ve edm
    """  # noqa: D301 (click wants the \b)
    from scoresde.plotting import plot_schedules

    write(out, plot_schedules({name: find_sde(name, None) for name in names or ("vp", "cosine", "flow")}))


@command.command("marginals", short_help="The density over time, and paths of SDE and ODE.")
@sde_option
@click.option("--means", type=Numbers(), default="-1.3,0.2,1.3", metavar="LIST", help="Of the modes.")
@click.option("--stds", type=Numbers(), default="0.17,0.1,0.22", metavar="LIST", help="Their standard deviations.")
@click.option("--weights", type=Numbers(), metavar="LIST", help="Their weights (default: equal).")
@click.option("--paths", type=Whole(), default=6, metavar="N", help="Paths of each kind (default: 6).")
@click.option("--steps", type=Whole(), default=400, metavar="N", help="Steps of a path (default: 400).")
@seed_option
@out_option("marginals.png")
def marginals(
    sde: str | None,
    means: tuple[float, ...],
    stds: tuple[float, ...],
    weights: tuple[float, ...] | None,
    paths: int,
    steps: int,
    seed: int,
    out: Path,
) -> None:
    """From data to noise and back: p_t(x) of a Gaussian mixture, with paths of the reverse SDE and the flow.

    \b
    Examples:
      scoresde plot marginals
      scoresde plot marginals --sde edm --paths 10 --seed 3
      scoresde plot marginals --means -1,1 --stds 0.1,0.3 --weights 2,1 --out two.pdf
    """  # noqa: D301 (click wants the \b)
    import torch

    from scoresde.analytic import GaussianMixture
    from scoresde.plotting import plot_marginals

    weights = weights or (1.0,) * len(means)
    if not len(means) == len(stds) == len(weights) or not means:
        raise BadInput(
            f"--means, --stds and --weights: {len(means)}, {len(stds)} and {len(weights)} numbers, give as many"
        )
    for name, values in (("means", means), ("stds", stds), ("weights", weights)):
        for value in values:
            if not abs(value) <= LARGEST:
                raise BadInput(f"--{name} {value:g}: {name} must be finite numbers of at most {LARGEST:g}")
    if min(stds) <= 0:
        raise BadInput(f"--stds {min(stds):g}: standard deviations are above 0")
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (means, stds))
    data = GaussianMixture(torch.tensor(weights, dtype=torch.float64), mean[:, None], std[:, None, None] ** 2)
    write(out, plot_marginals(data, find_sde(sde, None), paths, steps=steps, seed=seed))


@command.command("scores", short_help="The score of points in the plane at several times.")
@sde_option
@click.option("--model", metavar="NAME|PATH", help="A model of points in the plane, instead of an exact mixture.")
@weights_option
@device_option
@click.option("--times", type=Numbers(), metavar="LIST", help="One panel each (default: where λ is 2, 0.5, -1).")
@out_option("scores.png")
def scores(
    sde: str | None, model: str | None, weights: str, device: str, times: tuple[float, ...] | None, out: Path
) -> None:
    """The score ∇ log p_t as arrows at several times: of an exact mixture over its density, or of a model.

    \b
    Examples:
      scoresde plot scores
      scoresde plot scores --sde flow --times 0.1,0.5,0.9
      scoresde plot scores --model datasaurus --out datasaurus.pdf
    """  # noqa: D301 (click wants the \b)
    from scoresde.analytic import GaussianMixture
    from scoresde.plotting import plot_scores

    device = device_of(model, weights, device)
    if model is None:
        write(out, plot_scores(GaussianMixture.example(2), find_sde(sde, None), times or None))
        return
    from scoresde.model import load_model

    find_sde(sde, model)  # refuses both
    loaded = load_model(model, weights, device)
    if loaded.event_shape != (2,):
        raise BadInput(
            f"--model {model}: events have shape {loaded.event_shape}, arrows need points in the plane, (2,)"
        )
    write(out, plot_scores(loaded.denoiser, None, times or None, device=device))


@command.command("samples", short_help="Samples or data: images, points or a CDF.")
@click.argument("data", default="moons", metavar="[NAME|PATH]")
@click.option("--split", default="train", metavar="NAME", help="train (default), test or val, of sets that have it.")
@click.option("--num", type=Whole(), metavar="N", help="The first N (default: 64 images, 2000 points).")
@out_option("samples.png")
def samples(data: str, split: str, num: int | None, out: Path) -> None:
    """Samples as `scoresde sample` pictures them: the first of a data set by name, or of a file as it writes them.

    \b
    Examples:
      scoresde plot samples
      scoresde plot samples samples/ode-10-seed0.npz --out samples.pdf
      scoresde plot samples fashion_mnist --split test --num 40
    """  # noqa: D301 (click wants the \b)
    from scoresde.data import load
    from scoresde.plotting import plot_samples

    write(out, plot_samples(*first(load(data, split), num)))


def first(data: Dataset, num: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The first events of a set, with their labels where there are several classes."""
    import torch

    n = min(len(data), num or (64 if len(data.event_shape) > 1 else 2000))
    labels = None if data.labels is None or data.num_classes < 2 else data.labels[:n].numpy()
    return data.take(torch.arange(n)).numpy(), labels


@command.command("trajectory", short_help="A run as a moving picture.")
@sde_option
@click.option("--model", metavar="NAME|PATH", help="A model, instead of an exact mixture in the plane.")
@weights_option
@device_option
@click.option("--class", "class_", metavar="NAME|INDEX", help="One class of the model (default: all in turn).")
@click.option("--sampler", default="ddpm", metavar="NAME", help="See `scoresde samplers` (default: ddpm).")
@click.option(
    "--steps", type=Whole(), default=40, metavar="N", help="Steps, and a frame each; of auto, calls (default: 40)."
)
@click.option("--num", type=Whole(), metavar="N", help="Samples (default: 400 points, 16 images).")
@seed_option
@out_option("trajectory.gif", FILM)
def trajectory(
    sde: str | None,
    model: str | None,
    weights: str,
    device: str,
    class_: str | None,
    sampler: str,
    steps: int,
    num: int | None,
    seed: int,
    out: Path,
) -> None:
    """A run from noise to samples, as a moving picture (.gif, .mp4) or as one picture of some of its states (.png).

    \b
    Examples:
      scoresde plot trajectory
      scoresde plot trajectory --sampler dpm++2m --out run.mp4
      scoresde plot trajectory --sampler ode --sde flow --out flow.png
      scoresde plot trajectory --model datasaurus --class dino --num 142
    """  # noqa: D301 (click wants the \b)
    import numpy as np

    from scoresde.checkpoint import write_atomically
    from scoresde.model import load_model
    from scoresde.pictures import film
    from scoresde.plotting import animate, record
    from scoresde.plotting.animation import video_library

    form = out.suffix.lower()[1:]
    if form == "mp4":
        video_library()  # refused before the run where it is missing
    family, labels, device = find_sde(sde, model), None, device_of(model, weights, device)
    how = {**steps_of(sampler, steps), "seed": seed}
    if model is None:
        from scoresde.analytic import GaussianMixture

        if class_ is not None:
            raise BadInput(f"--class {class_}: give a --model that has it")
        times, states = record(GaussianMixture.example(2).denoiser(family), (num or 400, 2), sampler, **how)
    else:
        times, states, labels = of_model(load_model(model, weights, device), class_, sampler, num, device, how)
    if form != "png":
        content = animate(states, times, labels, form)
    else:
        shown = np.unique(np.linspace(0, len(times) - 1, COLUMNS).round().astype(int))
        content = film(states[shown], [f"t = {t:.2g}" for t in times[shown]], labels)
    write_atomically(out, content)
    click.echo(str(out))


def device_of(model: str | None, weights: str, device: str) -> str:
    """Where a model is to run; the exact mixture, which has no weights, is computed on the CPU."""
    if model is not None:
        return find_device(device)
    for name, value, usual in (("weights", weights, ("ema",)), ("device", device, ("auto", "cpu"))):
        if value not in usual:
            raise BadInput(f"--{name} {value}: give a --model; the exact mixture has no weights and stays on the cpu")
    return "cpu"


def steps_of(sampler: str, steps: int) -> dict[str, int]:
    """So many steps as an argument of the run: `auto` has a budget of calls; what has no grid has no frames."""
    from scoresde.samplers.registry import find_sampler

    if sampler == "auto":
        return {"nfe": steps}
    if not find_sampler(sampler).build:
        raise BadInput(
            f"--sampler {sampler}: each sample has steps of its own, so there are no frames: take one with --steps,"
            " ode, ddpm, dpm++2m or another of `scoresde samplers`"
        )
    return {"steps": steps}


def of_model(
    model: Model, class_: str | None, sampler: str, num: int | None, device: str, how: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Times and states of a model's run, in the units of its data, and the labels."""
    import torch

    from scoresde.cli.draw import choose_labels
    from scoresde.plotting import record

    n = num or (400 if len(model.event_shape) == 1 else 16)
    y = choose_labels(model, class_, n, 0)
    cond = {} if y is None else {"y": y.to(device)}
    shape = (n, *model.event_shape)
    times, states = record(model.denoiser, shape, sampler, cond=cond, device=device, **how)
    decoded = torch.stack([model.scaler.decode(torch.from_numpy(state)) for state in states]).numpy()
    points = len(model.event_shape) == 1  # images stand in rows of eight, not in those of their classes
    return times, decoded, y.numpy() if y is not None and class_ is None and points else None


def write(out: Path, figure: Any) -> None:
    """The figure in the format of the file's ending."""
    from scoresde.checkpoint import write_atomically
    from scoresde.plotting import render

    write_atomically(out, render(figure, out.suffix.lower()[1:]))
    click.echo(str(out))
