"""What `edit`, `inpaint` and `interpolate` share: their options, the model and its condition, the files they write."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scoresde.cli.files import DEFAULT_MODEL, free_name, json_text, name_files, plain
from scoresde.cli.options import flags_of, read_options
from scoresde.cli.output import write_together
from scoresde.cli.params import Whole, device_option, find_device, together, weights_option
from scoresde.cli.progress import sampling_bar
from scoresde.cli.text import duration

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from scoresde.model import Model
    from scoresde.samplers import Result

F = TypeVar("F", bound=Callable[..., Any])
OUT = "edits"

grid_options = together(
    click.option("--steps", type=Whole(), metavar="N", help="Intervals of the grid (default: the sampler's)."),
    click.option("--grid", metavar="NAME", help="t, lambda, phi, karras, karras:5, ... (default: the sampler's)."),
)
draw_options = together(
    click.option("--nfe", type=Whole(), metavar="N", help="Instead of --steps: a budget of network calls."),
    click.option("--final", metavar="NAME", help="How a run ends: zero, t_min or denoise."),
    click.option("--num", type=Whole(), default=1, metavar="N", help="Results, each by noise of its own (default: 1)."),
    click.option("--seed", type=Whole(0), default=0, metavar="N", help="Result k of a seed is always the same."),
)


def model_options(command: F) -> F:
    """The options that say which model, under which condition, and where files go."""
    return together(
        click.option(
            "--model",
            default=DEFAULT_MODEL,
            metavar="NAME|PATH",
            help=f"A shipped model of images (default: {DEFAULT_MODEL}) or a checkpoint: see `scoresde models`.",
        ),
        click.option("--class", "class_", metavar="NAME|INDEX", help="Of what the image is (default: no class)."),
        weights_option,
        click.option(
            "--resize", is_flag=True, help="Take the middle of an image, in the size and colours of the model."
        ),
        device_option,
        click.option("--batch-size", type=Whole(), metavar="N", help="Images at a time: changes memory and rounding."),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            default=Path(OUT),
            metavar="DIR",
            help=f"Folder to write into (default: {OUT}).",
        ),
    )(command)


@dataclass(frozen=True)
class Task:
    """A model, the condition of all its samples, and the arguments of a run that were given."""

    model: Model
    class_: str | None
    weights: str
    device: str
    num: int
    batch: int
    cond: dict[str, Any]
    options: dict[str, Any]
    command: str
    begin: float = field(default_factory=time.perf_counter)

    def sample(self, run: Callable[..., Result], intervals: int | None, label: str) -> Result:
        """``run(callback=…)`` with a bar on a terminal."""
        with sampling_bar(label, intervals, -(-self.num // self.batch)) as callback:
            return run(callback=callback)

    def write(
        self,
        out: Path,
        name: str,
        pixels: np.ndarray,
        sheet: bytes,
        facts: Mapping[str, Any],
        result: Result,
        cost: str = "",
    ) -> None:
        """Write every image, the sheet and the record, all or none, and say what was done, and at what further cost."""
        from scoresde.cli.draw import counts_of, told
        from scoresde.cli.image_files import png

        seconds, info = time.perf_counter() - self.begin, self.model.info
        record = plain(
            {
                "command": self.command,
                **facts,
                "model": self.model.name,
                "weights": self.weights,
                "sha256": info["sha256"],
                "step": info.get("step"),
                "settings": dict(result.settings),
                "class": self.class_,
                "classes": self.model.classes,
                "num": len(pixels),
                "batch_size": self.batch,
                "times": result.times,
                "nfe": result.nfe,
                "network_evals": result.network_evals,
                **counts_of(result),
                "seconds": round(seconds, 3),
            }
        )
        name = free_name(out, name, record)
        number = (lambda k: "") if len(pixels) == 1 else (lambda k: f"-{k + 1}")
        files = {f"{name}{number(k)}.png": png(image) for k, image in enumerate(pixels)}
        files |= {f"{name}-sheet.png": sheet, f"{name}.json": (json_text(record) + "\n").encode()}
        for path in write_together(out, files):
            click.echo(str(path))
        settings = record["settings"]
        steps = f"{settings['steps']} steps" if settings.get("steps") else "adaptive"
        click.echo(
            f"{len(pixels)} of {self.model.name} ({self.weights} weights) by {settings['sampler']}, {steps}:"
            f" {record['nfe']} network calls per image{cost}, {told(record)}{duration(seconds)}"
        )


def prepare_task(ctx: click.Context, given: dict[str, Any], sampler: str, num: int) -> Task:
    """The task of a command's options, whose model is loaded and whose device is known."""
    from scoresde.cli.draw import choose_labels
    from scoresde.cli.image_files import image_shape
    from scoresde.model import load_model

    options, device = read_options(sampler, given["own"], flags_of(ctx)), find_device(given["device"])
    model = load_model(given["model"], given["weights"], device)
    image_shape(model)
    class_ = given["class_"]
    labels: Tensor | None = None if class_ is None else choose_labels(model, class_, num, 0)
    cond = {} if labels is None else {"y": labels.to(device)}
    batch = given["batch_size"] or model.batch_size
    command = shlex.join(["scoresde", *ctx.obj])
    return Task(model, class_, given["weights"], device, num, batch, cond, options, command)


def name_of(task: Task, stem: str, what: str, settings: Mapping[str, Any], origin: str | None = None) -> str:
    """boot-edit0.6-ode-20-seed0: the image, what was done, and the run as `sample` names it."""
    return f"{stem}-{what}-{name_files(task.model.name, task.class_, settings, origin)}"
