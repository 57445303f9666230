"""What the averaged weights draw, from the same noise each time, as pictures in the run's folder."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from scoresde.checkpoint import write_atomically
from scoresde.data import to_uint8
from scoresde.errors import SolverFailure
from scoresde.pictures import curves, picture
from scoresde.samplers import sample
from scoresde.train.keep import make
from scoresde.train.run import Run, out_of_memory

IMAGES, POINTS = 40, 2000
CALLS = 20


class Preview:
    """Samples of a run, one picture each time it is asked: sample i of class i mod classes, from seed 0."""

    def __init__(self, run: Run, out: Path) -> None:
        self.run, self.folder = run, out / "samples"

    def draw(self) -> bytes:
        """Draw ``CALLS`` network calls a sample with the sampler measured best for that; returns the PNG.

        One process writes; where weights lie in shards all must draw. There is none of a classifier, of events that are
        no points, series or images; where drawing fails, as for want of memory or by a network that is not finite, that
        is told and the run goes on.
        """
        try:
            return self._draw()
        except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
            scarce = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and out_of_memory(error))
            if isinstance(error, RuntimeError) and not (scarce or isinstance(error, SolverFailure)):
                raise
            if scarce and self.run.engine.sharded:  # the others wait for this one
                raise
            why = (str(error) or type(error).__name__).splitlines()[0]
            self.run.tell(f"step {self.run.step}: no samples could be drawn ({why})")
            return b""

    def _draw(self) -> bytes:
        run, shape = self.run, self.run.data.event_shape
        if not (run.engine.main or run.engine.sharded) or len(shape) > 3 or run.config.task == "classifier":
            return b""
        count = POINTS if len(shape) < 2 else IMAGES
        classes = len(run.data.classes) if getattr(run.network, "classes", 0) else 0
        labels = torch.arange(count) % classes if classes else None
        cond = {} if labels is None else {"y": labels.to(run.device)}
        with averaged(run), torch.compiler.set_stance("force_eager"):
            how: dict[str, Any] = {"nfe": CALLS, "device": run.device, "cond": cond, "batch_size": 256}
            x = sample(run.denoiser, (count, *shape), "auto", **how).x
        if not run.engine.main:
            return b""
        x = run.scaler.decode(x).cpu()
        if not x.isfinite().all():
            raise SolverFailure("they are not finite")
        values = (to_uint8(x) if run.config.data.scaler == "image" else x).numpy()
        content = (
            curves(values[:16]) if len(shape) == 2 else picture(values, None if labels is None else labels.numpy())
        )
        make(self.folder)
        write_atomically(self.folder / f"step-{run.step:07d}.png", content)
        run.engine.track_image("samples", content, run.step)
        return content


@contextmanager
def averaged(run: Run) -> Generator[None]:
    """Inside, the run's network has its first average for weights; afterwards its own again, bitwise."""
    own = {key: value.detach().clone() for key, value in run.network.state_dict().items()}
    training = run.network.training
    run.network.load_state_dict(run.ema.weights)
    run.network.eval()
    try:
        yield
    finally:
        run.network.load_state_dict(own)
        run.network.train(training)
