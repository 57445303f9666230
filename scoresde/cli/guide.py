"""Guidance on the command line: its options, what a record keeps of it, and the denoiser that it makes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from scoresde.cli.params import Number, Numbers, together
from scoresde.errors import BadInput, choose

if TYPE_CHECKING:
    from scoresde.denoiser import AnyDenoiser
    from scoresde.model import Model

F = TypeVar("F", bound=Callable[..., Any])
NEEDS_W = {
    "interval": "--guidance-interval",
    "rescale": "--rescale",
    "negative_class": "--negative-class",
    "weak": "--weak",
    "classifier": "--classifier",
}


@dataclass(frozen=True)
class Guidance:
    """What was asked for, as in `scoresde.guidance.classifier_free`, `autoguidance` and `classifier_guidance`."""

    w: float
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    negative_class: str | None = None
    weak: str | None = None
    weak_sha256: str | None = None
    classifier: str | None = None
    classifier_sha256: str | None = None
    conditional: bool = False

    def denoiser(self, model: Model, device: str, dtype: str) -> GuidedModel:
        """The model, guided, its classes, and the guidance with the digest of its other network."""
        from scoresde.guidance import autoguidance, classifier_free
        from scoresde.model import load_model

        if self.classifier:
            return self._by_classifier(model, device, dtype)
        if self.weak:
            weak = load_model(self.weak, device=device)
            digest = _same("--weak", self.weak, self.weak_sha256, weak.info)
            if weak.event_shape != model.event_shape or weak.classes != model.classes:
                raise BadInput(f"--weak {self.weak}: a model of other data than {model.name!r}")
            if dtype == "float64":
                cast(Any, weak.denoiser.network).double()
            guided = autoguidance(model.denoiser, weak.denoiser, self.w, interval=self.interval)
            return GuidedModel(guided, replace(self, weak_sha256=digest), model.classes)
        if not model.classes:
            raise BadInput(
                f"--guidance: model {model.name!r} has no classes: guide it by a weaker one, --weak MODEL, or by"
                " --classifier"
            )
        if self.negative_class is None:
            need_null("--guidance", model, "train it with 0.1, or give --negative-class")
        away = self.negative_class
        null = None if away is None else find_class(model.classes, "--negative-class", away)
        how: dict[str, Any] = {"null": null, "interval": self.interval, "rescale": self.rescale}
        return GuidedModel(classifier_free(model.denoiser, self.w, **how), self, model.classes)

    def _by_classifier(self, model: Model, device: str, dtype: str) -> GuidedModel:
        from scoresde.guidance import classifier_guidance
        from scoresde.model import load_classifier

        assert self.classifier
        classifier = load_classifier(self.classifier, device=device, model=model)
        digest = _same("--classifier", self.classifier, self.classifier_sha256, classifier.info)
        if self.conditional and not model.classes:
            raise BadInput(f"--conditional: model {model.name!r} has no classes to be told")
        if model.classes and not self.conditional:
            need_null("--classifier", model, "tell it the class too, --conditional")
        if dtype == "float64":
            cast(Any, classifier.network).double()
        guided = classifier_guidance(model.denoiser, classifier, self.w, conditional=self.conditional)
        return GuidedModel(guided, replace(self, classifier_sha256=digest), classifier.classes)


class GuidedModel(NamedTuple):
    """A guided denoiser, its guidance with what is known of it now, and the classes that it can be asked for."""

    denoiser: AnyDenoiser
    guidance: Guidance | None
    classes: tuple[str, ...]


def need_null(flag: str, model: Model, instead: str) -> None:
    """Refuse a model with classes that was never trained without one."""
    if not model.info["config"].get("train", {}).get("label_dropout", 0.1):
        raise BadInput(
            f"{flag}: model {model.name!r} has no null class, as it was trained with train.label_dropout = 0: {instead}"
        )


def _same(flag: str, name: str, recorded: str | None, info: dict[str, Any]) -> str:
    """The digest of a network's file, which is that of the record, if there is one."""
    digest: str = info["sha256"]
    if recorded not in (None, digest):
        raise BadInput(f"{flag} {name} is another one now: SHA-256 {digest[:12]}…")
    return digest


def guidance_options(command: F) -> F:
    """The options of guidance."""
    return together(
        click.option(
            "--guidance",
            type=Number(),
            metavar="W",
            help="ε = ε_u + W (ε_c - ε_u): 1 is the class as it is, 0 no class, 2 to 4 more of it and less variety.",
        ),
        click.option(
            "--guidance-interval",
            "interval",
            type=Numbers(2),
            metavar="LO,HI",
            help="Guide only at noise levels σ/α above LO up to HI: 0.3,3.",
        ),
        click.option(
            "--rescale",
            type=Number(),
            metavar="X",
            help="Bring the spread of the guided estimate back to the conditional's, from 0 (not) to 1.",
        ),
        click.option(
            "--negative-class", metavar="NAME|INDEX", help="Lead away from this class instead of from no class."
        ),
        click.option(
            "--weak", metavar="NAME|PATH", help="Guide by a weaker model of the same data instead: autoguidance."
        ),
        click.option(
            "--classifier",
            metavar="NAME|PATH",
            help="Guide by a classifier of noisy states instead, W times its gradient: 0 is the model as it is.",
        ),
        click.option(
            "--conditional",
            is_flag=True,
            help="With --classifier: the model is told the class too.",
        ),
    )(command)


def read_guidance(given: dict[str, Any], class_: str | None) -> Guidance | None:
    """What `guidance_options` collected, taken out of all options."""
    w, conditional = given.pop("guidance"), given.pop("conditional")
    rest = {name: given.pop(name) for name in NEEDS_W}
    typed = [NEEDS_W[name] for name in NEEDS_W if rest[name] is not None]
    if conditional and rest["classifier"] is None:
        raise BadInput("--conditional is of --classifier: give one")
    if w is None:
        if typed:
            raise BadInput(f"{' and '.join(typed)}: say how strongly to guide, --guidance W")
        return None
    if rest["classifier"] is not None and len(typed) > 1:
        raise BadInput("--classifier takes --guidance and --conditional alone: there is no second model to lead from")
    if rest["weak"] is not None and len(typed) > (rest["interval"] is not None) + 1:
        raise BadInput("--weak takes --guidance and --guidance-interval alone: its two models see the same class")
    if class_ == "none" and rest["weak"] is None:
        raise BadInput("--guidance and --class none: guidance needs a class to lead to")
    rest["rescale"] = rest["rescale"] or 0.0
    return Guidance(w, **rest, conditional=conditional)


def warn(guidance: Guidance | None, sampler: str, nfe: int | None) -> None:
    """Say so where few calls of this sampler are known to go wrong under strong guidance."""
    from scoresde.guidance.strong import STRONG, enough_calls

    least = enough_calls(sampler)
    if guidance and abs(guidance.w) >= STRONG and nfe is not None and nfe < least:
        click.echo(
            f"scoresde: warning: {sampler!r} in {nfe} calls under guidance {guidance.w:g} is measured to go more than"
            f" twice as far wrong as ddim: give it {least} calls or more, or guide less",
            err=True,
        )


def find_class(names: tuple[str, ...], flag: str, wanted: str) -> int:
    """The number of a class that is given by name or number."""
    classes = len(names)
    by_name = {name.casefold(): k for k, name in enumerate(names)}
    if wanted.casefold() in by_name:
        return by_name[wanted.casefold()]
    if re.fullmatch(r"[+-]?\d+", wanted):
        if not 0 <= (k := int(wanted)) < classes:
            raise BadInput(f"{flag} {wanted}: classes are numbered 0 to {classes - 1}")
        return k
    more = ["none"] if flag == "--class" else []
    return names.index(choose(flag, wanted, [*names, *more]))
