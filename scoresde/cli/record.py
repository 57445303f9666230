"""Records: what `sample`, `encode` and the edits wrote about a run, read back and checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scoresde.cli.draw import Request
from scoresde.cli.guide import Guidance
from scoresde.cli.options import read_value, spell_flag, word_kinds
from scoresde.errors import BadInput
from scoresde.model import Model
from scoresde.samplers import Sampler

TRAJECTORY = "-trajectory"


class Settings(BaseModel):
    """The part of a record that the library wrote."""

    model_config = ConfigDict(strict=True)

    sampler: str
    adaptive: bool
    steps: int | None = None
    grid: str | None = None
    final: str | None = None
    start: float = 0.0
    options: dict[str, Any]
    seed: int
    noise: str
    first: int
    dtype: Literal["float32", "float64"]
    device: Literal["cpu", "cuda"]
    revision: int
    scoresde: str = "?"
    torch: str = "?"
    numpy: str = "?"


class Source(BaseModel):
    """A file that a run started from: latents, samples, an image."""

    model_config = ConfigDict(strict=True)

    file: str
    sha256: str

    def find(self, folder: Path) -> Path:
        """The file, where the record says or in ``folder``, with the same content."""
        import hashlib

        paths = [path for path in (Path(self.file), folder / Path(self.file).name) if path.is_file()]
        for path in paths:
            if hashlib.sha256(path.read_bytes()).hexdigest() == self.sha256:
                return path
        if paths:
            raise BadInput(f"{str(paths[0])!r} is not what the run started from: the record says {self.sha256[:12]}…")
        raise BadInput(f"the run started from {self.file!r}, which is not there: put it beside the record")


class Record(BaseModel):
    """What decides the samples of a run."""

    model_config = ConfigDict(strict=True)

    model: str
    weights: str
    sha256: str
    settings: Settings
    class_: str | None = Field(alias="class")
    clip_x0: list[float] | None = Field(min_length=2, max_length=2)
    threshold: float | None = None
    guidance: Guidance | None = None
    num: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    times: list[float]
    save_every: int | None = Field(None, ge=1)
    from_latent: Source | None = None

    def request(self, model: Model, sampler: Sampler, device: str, latent: Path | None = None) -> Request:
        """The same run, by this model and sampler."""
        settings = self.settings
        how: dict[str, Any] = {"final": settings.final}
        if not settings.adaptive and settings.grid == "given":
            how = {"grid": self.times}
        elif not settings.adaptive:
            start = model.start(settings.start) if settings.start else None
            steps = len(self.times) - 1 - (settings.final == "denoise")  # whose last jump is no step of the grid
            how = {"steps": steps, "grid": settings.grid, "final": settings.final, "start": start}
        kinds = word_kinds(sampler)
        for name, value in settings.options.items():  # as words stand the numbers that JSON does not know
            word = isinstance(value, str) and name in kinds
            how[name] = read_value(spell_flag(name), value, kinds[name]) if word else value
        return Request(
            model=model.name,
            sampler=settings.sampler,
            how=how,
            weights=self.weights,
            num=None if latent else self.num,
            seed=settings.seed,
            first=settings.first,
            class_=None if self.class_ == "in turn" else self.class_,
            clip_x0=(self.clip_x0[0], self.clip_x0[1]) if self.clip_x0 else None,
            threshold=self.threshold,
            guidance=self.guidance,
            noise=settings.noise,
            device=device,
            dtype=settings.dtype,
            batch_size=self.batch_size,
            save_every=self.save_every,
            latent=latent,
        )


class Place(BaseModel):
    """The settings of an encoding or an edit, of which only the device is asked for."""

    model_config = ConfigDict(strict=True, extra="allow")

    device: Literal["cpu", "cuda"] | None = None


class Redone(BaseModel):
    """What an encoding or an edit is done again by, among all else that its record says."""

    model_config = ConfigDict(strict=True, extra="allow")

    command: str
    model: str
    weights: str
    sha256: str
    settings: Place
    encoded: Source | None = None
    image: Source | None = None
    images: list[Source] | None = None
    mask: Source | None = None

    def inputs(self) -> dict[str, list[Source]]:
        """The files that went in, by the names of the facts."""
        one = {"encoded": self.encoded, "image": self.image, "mask": self.mask}
        files = {key: [source] for key, source in one.items() if source}
        return files | ({"images": self.images} if self.images else {})


def find_record(path: Path) -> Path:
    """The record of any of a run's files, which stands beside it."""
    if not path.is_file():
        raise BadInput(f"{str(path)!r}: no such file")
    stems = (path.stem, re.sub(rf"{TRAJECTORY}$|-sheet$|-\d+$", "", path.stem))  # an edit's pictures are numbered
    for stem in stems:
        if (record := path.with_name(f"{stem}.json")).is_file():
            return record
    raise BadInput(f"{str(path)!r}: its record {stems[-1]}.json is not beside it")


def read_record(path: Path) -> Record | Redone:
    """A record from its file; a damaged one is refused in one line."""
    try:
        text = path.read_text(encoding="utf-8")
        facts = json.loads(text)
    except ValueError:  # no JSON, or no text
        raise BadInput(f"{str(path)!r} is no whole record of a run: not JSON") from None
    redone = isinstance(facts, dict) and ("encoded" in facts or "edited" in facts)
    try:
        return (Redone if redone else Record).model_validate_json(text, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise BadInput(f"{str(path)!r} is no whole record of a run: {place or 'it'}: {fault['msg']}") from None
