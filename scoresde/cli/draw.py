"""From a request to files: what `sample` and `replay` share."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from scoresde.cli.files import free_name, json_text, name_files, plain, render
from scoresde.cli.output import output_folder, write_together
from scoresde.cli.progress import sampling_bar
from scoresde.cli.text import duration
from scoresde.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.cli.guide import Guidance, GuidedModel
    from scoresde.cli.save import Trajectory
    from scoresde.denoiser import AnyDenoiser
    from scoresde.model import Model
    from scoresde.samplers import Result

NUM = 64
STEPS = {"accepted": "steps accepted", "rejected": "rejected"}


@dataclass(frozen=True)
class Request:
    """What is to be drawn, as asked for on the command line or read from a record.

    ``how`` holds the arguments steps, nfe, grid, final, start and the sampler's own options of `scoresde.sample`.
    """

    model: str
    sampler: str
    how: dict[str, Any] = field(default_factory=dict)
    weights: str = "ema"
    num: int | None = None
    seed: int = 0
    first: int = 0
    class_: str | None = None
    clip_x0: tuple[float, float] | None = None
    threshold: float | None = None
    guidance: Guidance | None = None
    noise: str = "cpu"
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int | None = None
    save_every: int | None = None
    latent: Path | None = None  # a file of states at t_max to start from


class Drawn(NamedTuple):
    """The files of a run and its record."""

    paths: list[Path]
    record: dict[str, Any]


class Run:
    """A request with every fault found, before a folder is made or the network is called."""

    def __init__(self, request: Request, model: Model) -> None:
        import torch

        from scoresde.cli.latent import read_rows
        from scoresde.samplers.job import prepare

        self.request, self.model = request, model
        self.rows = read_rows(request.latent, "latent", model) if request.latent else None
        self.denoiser, self.guidance, classes = _denoiser(request, model)
        if self.rows:
            self.labels, self.size = self.rows.labels, len(self.rows.x)
        else:
            self.labels = choose_labels(model, request.class_, request.num, request.first, classes)
            self.size = len(self.labels) if self.labels is not None else request.num or NUM
        self.batch = request.batch_size or model.batch_size
        if self.guidance and self.guidance.classifier and self.labels is None:
            raise BadInput("--classifier: say what it leads to, --class NAME")
        how = dict(request.how)
        if (start := how.get("start")) and self.labels is not None and model.classes:  # each from its class's mean
            how["start"] = model.start(start.shift, self.labels)
        if self.rows:
            given = how.get("grid") is not None and not isinstance(how["grid"], str)
            how |= {"x": self.rows.x} if given else {"x": self.rows.x, "final": how.get("final") or "t_min"}
        self.arguments: dict[str, Any] = {
            "shape": (self.size, *model.event_shape),
            "sampler": request.sampler,
            "seed": request.seed,
            "first": request.first,
            "noise": request.noise,
            "dtype": getattr(torch, request.dtype),
            "device": request.device,
            "cond": {} if self.labels is None else {"y": self.labels.to(request.device)},
            **how,
        }
        job = prepare(self.denoiser, **self.arguments)
        self.times, self.adaptive = job.solver.times, bool(job.settings["adaptive"])
        self.sampler, self.nfe = str(job.settings["sampler"]), job.solver.nfe
        if self.rows and self.times[0] < model.sde.t_max * (1 - 1e-9):
            raise BadInput(f"latents are states at t_max = {model.sde.t_max:g}: the grid starts at {self.times[0]:g}")

    def draw(self, out: Path, command: str, name: str | None = None) -> Drawn:
        """Draw, and write all files or none; ``name`` is what they are called, by default after the request."""
        from scoresde.samplers import sample

        intervals = None if self.adaptive else len(self.times) - 1
        bar = sampling_bar(self.request.sampler, intervals, -(-self.size // self.batch))
        with output_folder(out), self._trajectory(out) as states:
            start = time.perf_counter()
            with bar as moves:
                callback = _both(moves, states.add if states else None)
                result = sample(self.denoiser, **self.arguments, batch_size=self.batch, callback=callback)
            seconds = time.perf_counter() - start
            files = render(self.model, result, self.labels, self.request.class_ is None)
            if states:
                states.complete()
                files["-trajectory.png"] = self._picture(states)
            record = self._record(result, states, command, seconds)
            name = free_name(out, name or self._name(result), record)
            files[".json"] = (json_text(record) + "\n").encode()
            with states.placed(out / f"{name}-trajectory.npy") if states else nullcontext([]) as placed:
                written = write_together(out, {f"{name}{end}": content for end, content in files.items()})
        return Drawn([*written, *placed], record)

    def _name(self, result: Result) -> str:
        origin = f"from-{self.request.latent.stem}" if self.request.latent else None
        guidance = f"w{self.guidance.w:g}" if self.guidance else None
        return name_files(self.request.model, self.request.class_, result.settings, origin, guidance)

    @contextmanager
    def _trajectory(self, out: Path) -> Generator[Trajectory | None]:
        """Where the states go that are to be saved, if any."""
        from scoresde.cli.save import AdaptiveTrajectory, Trajectory, partial_file

        every, decode = self.request.save_every, self.model.scaler.decode
        if every is None:
            yield None
            return
        with partial_file(out) as file:
            if self.adaptive:
                yield AdaptiveTrajectory(file, every, decode, self.size)
            else:
                yield Trajectory(file, every, decode, self.size, self.times)

    def _picture(self, states: Trajectory) -> bytes:
        from scoresde.cli.save import picture_of

        labels = self.labels.numpy() if self.labels is not None and self.request.class_ is None else None
        return picture_of(Path(states.file.name), states.times, self.model, labels)

    def _record(self, result: Result, states: Trajectory | None, command: str, seconds: float) -> dict[str, Any]:
        """All that is needed to draw the samples again."""
        request, info = self.request, self.model.info
        latent = {"from_latent": {"file": str(request.latent), "sha256": self.rows.sha256}} if self.rows else {}
        drawn = "in turn" if self.model.classes and not self.rows else None
        return plain(
            {
                "command": command,
                "model": request.model,
                "weights": request.weights,
                "sha256": info["sha256"],
                "step": info.get("step"),
                "settings": dict(result.settings),
                "class": request.class_ or drawn,
                "classes": self.model.classes,
                "clip_x0": request.clip_x0,
                "threshold": request.threshold,
                "guidance": asdict(self.guidance) if self.guidance else None,
                "num": self.size,
                "batch_size": self.batch,
                **latent,
                "times": result.times,
                "save_every": request.save_every,
                "saved_times": states.times if states else None,
                "nfe": result.nfe,
                "network_evals": result.network_evals,
                **counts_of(result),
                "stopped": int((result.t_each != result.times[-1]).sum()),
                "seconds": round(seconds, 3),
            }
        )


def report(drawn: Drawn) -> None:
    """Say what was written and what it cost."""
    for path in drawn.paths:
        click.echo(str(path))
    record, settings = drawn.record, drawn.record["settings"]
    calls, evals = record["nfe"], record["network_evals"]
    steps = "adaptive" if settings["adaptive"] else f"{settings['steps']} steps"
    click.echo(
        f"{record['num']} samples of {record['model']} ({record['weights']} weights) by {settings['sampler']}, {steps}:"
        f" {calls} network calls per sample{f' ({evals} network evaluations)' if evals != calls else ''},"
        f" {told(record)}{duration(record['seconds'])}"
    )
    if record["stopped"]:
        click.echo(f"{record['stopped']} of them stopped before the end: raise --max-nfe, or the tolerances")


def counts_of(result: Result) -> dict[str, list[int] | None]:
    """For a record: the least and most steps that a sample of an adaptive run took, and that were refused."""
    own = result.settings["adaptive"]
    steps = {"accepted": result.accepted, "rejected": result.rejected}
    return {name: [int(n.min()), int(n.max())] if own and n.min() >= 0 else None for name, n in steps.items()}


def told(record: dict[str, Any]) -> str:
    """The same for a reader: 8 to 11 steps accepted, 0 to 3 rejected."""
    words = (f"{_span(*record[name])} {word}" for name, word in STEPS.items() if record[name])
    return "".join(f"{each}, " for each in words)


def _span(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _denoiser(request: Request, model: Model) -> GuidedModel:
    """The denoiser of a request, its guidance with what is known of it now, and the classes of both."""
    import torch

    from scoresde import transforms
    from scoresde.cli.guide import GuidedModel

    if request.clip_x0 and request.threshold is not None:
        raise BadInput("--clip-x0 and --threshold: both bound the estimate of the data, give one")
    denoiser, guidance, classes = cast("AnyDenoiser", model.denoiser), request.guidance, model.classes
    if request.dtype == "float64":
        cast(torch.nn.Module, model.denoiser.network).double()
    if guidance:
        denoiser, guidance, classes = guidance.denoiser(model, request.device, request.dtype)
    if request.threshold is not None:
        denoiser = transforms.dynamic_threshold(denoiser, request.threshold)
    if request.clip_x0:
        denoiser = transforms.clip(denoiser, *request.clip_x0)
    return GuidedModel(denoiser, guidance, classes)


def _both(*callbacks: Callable[..., None] | None) -> Callable[..., None] | None:
    """One callback that calls all that are there; None if there is none."""
    there = [callback for callback in callbacks if callback]

    def callback(*interval: Any) -> None:
        for each in there:
            each(*interval)

    return callback if there else None


def choose_labels(
    model: Model, wanted: str | None, num: int | None, first: int, names: tuple[str, ...] | None = None
) -> Tensor | None:
    """The class of each sample: class k mod classes for sample k, or the one that is wanted; None: no class.

    ``names`` are the classes that may be wanted, if there are others than the model's.
    """
    import torch

    from scoresde.cli.guide import find_class, need_null

    classes = len(model.classes)
    names = model.classes if names is None else names
    if wanted is None and classes:
        size = num or max(classes, NUM - NUM % classes)
        return (first + torch.arange(size)) % classes
    if wanted == "none" and classes:
        need_null("--class none", model, "name a class")
    if wanted is None or (wanted == "none" and classes):
        return None
    if not names:
        raise BadInput(f"--class {wanted}: model {model.name!r} has no classes")
    return torch.full((num or NUM,), find_class(names, "--class", wanted))
