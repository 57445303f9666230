"""What a run minimises, as its config says: a loss, the times it is taken at, what is learned beside the network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoresde.classifier import NoisyClassifier
from scoresde.config import Config, Train, parse_config
from scoresde.denoiser import Denoiser
from scoresde.errors import BadInput
from scoresde.losses import (
    denoising_loss,
    guidance_distillation_loss,
    hybrid_loss,
    make_times,
    sliced_score_matching_loss,
    vlb_loss,
)
from scoresde.losses.times import LossAware, Times
from scoresde.losses.weightings import weight
from scoresde.model import load_model
from scoresde.nn.uncertainty import Uncertainty
from scoresde.sde import SDE

UINT8 = 256  # values of a pixel, which the image scaler puts on [-1, 1]


class Objective(nn.Module):
    """The loss of every sample, by the keys objective, weighting, times and uncertainty of a config's ``train``.

    The teacher of the objective "distillation" is the model of ``train.init``, whole in every process.
    """

    def __init__(self, config: Config, denoiser: Denoiser) -> None:
        super().__init__()
        train, name = config.train, config.train.times.get("name")
        self.name, self.weighting, self.denoiser = train.objective, train.weighting, denoiser
        self.network = denoiser.network  # whose gradients processes share with those of the rest
        self.times = make_times(train.times, denoiser.sde)
        _check_ends(train, denoiser, self.times)
        self.uncertainty = Uncertainty() if train.uncertainty else None
        self.levels = UINT8 if config.data.scaler == "image" else None
        own = denoiser.sde.N
        self.N = own or int(train.times.get("N", denoiser.sde.label_steps))
        what = f"train.objective = {train.objective!r}"
        if train.objective in ("hybrid", "vlb") and not (name == "index" or (own and name == "loss_aware")):
            raise BadInput(f"{what} is of the steps of a chain: choose times 'index'")
        if train.objective == "hybrid" and not config.learned_variance:
            raise BadInput(f"{what} needs learned_variance: true")
        if config.learned_variance and train.objective not in ("hybrid", "vlb"):
            raise BadInput(f"learned_variance: {what} does not train it: choose 'hybrid' or 'vlb'")
        if train.objective in ("vlb", "sliced") and train.weighting != "simple":
            raise BadInput(f"train.weighting = {train.weighting!r}: {what} has its own weights")
        if train.objective == "sliced" and train.uncertainty:
            raise BadInput("train.uncertainty: the sliced loss may be negative, and has no scale to learn")
        self.teacher, self.guidance, self.classes = None, train.guidance, int(getattr(self.network, "classes", 0))
        self.taught_by = ""  # the teacher's hash
        if train.objective == "distillation":
            if not train.init or not self.classes:
                raise BadInput(f"{what} needs train.init, the teacher, and a network with classes")
            self.teacher, self.taught_by = _teacher(config, denoiser)
        elif train.guidance != 1:
            raise BadInput(f"train.guidance = {train.guidance}: {what} has none: choose 'distillation'")

    @property
    def probes(self) -> bool:
        """Whether the loss is of random directions too."""
        return self.name == "sliced"

    def own(self) -> list[nn.Parameter]:
        """What is learned beside the network."""
        return list(self.uncertainty.parameters()) if self.uncertainty else []

    def forward(
        self, x0: Tensor, t: Tensor, noise: Tensor, probe: Tensor | None, cond: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """The loss of every sample, and the same as it is minimised, with its learned uncertainty, (n,) each."""
        losses = self.losses(x0, t, noise, probe, cond)
        return losses, self.uncertainty(losses, self.denoiser.sde.lam(t)) if self.uncertainty else losses

    def losses(self, x0: Tensor, t: Tensor, noise: Tensor, probe: Tensor | None, cond: Mapping[str, Any]) -> Tensor:
        """The loss of every sample, (n,)."""
        if self.name == "hybrid":
            how: dict[str, Any] = {"N": self.N, "levels": self.levels}
            return hybrid_loss(self.denoiser, x0, t, noise, self.weighting, **how, **cond)
        if self.name == "vlb":
            return vlb_loss(self.denoiser, x0, t, noise, self.N, levels=self.levels, **cond)
        if self.name == "sliced":
            assert probe is not None
            return sliced_score_matching_loss(self.denoiser, x0, t, noise, probe, **cond)
        if self.teacher:
            how = {"w": self.guidance, "null": self.classes, "weighting": self.weighting}
            return guidance_distillation_loss(self.denoiser, self.teacher, x0, t, noise, **how, **cond)
        return denoising_loss(self.denoiser, x0, t, noise, self.weighting, **cond)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep."""
        own = self.uncertainty.state_dict(prefix="uncertainty.") if self.uncertainty else {}
        return {**own, **{f"times.{key}": value for key, value in self.times.state().items()}}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        self.times.load(_group(state, "times."))
        if self.uncertainty:
            self.uncertainty.load_state_dict(_group(state, "uncertainty."))


def _check_ends(train: Train, denoiser: Denoiser, times: Times) -> None:
    """Refuse what is not finite at the first or the last time: under zero terminal SNR λ has no end there."""
    sde, form = denoiser.sde, denoiser.prediction
    if isinstance(times, LossAware):
        t = torch.tensor([sde.t_max / sde.N if sde.N else sde.t_min, sde.t_max])
    else:
        t = times.place(torch.tensor([0.0, 1 - 2**-24])).t
    checked = {f"weighting = {train.weighting!r}: the weight of the {form} error": weight(train.weighting, denoiser, t)}
    if train.uncertainty:
        checked["uncertainty: it is learned over λ, which"] = sde.lam(t)
    for what, values in checked.items():
        for at, value in zip(t.tolist(), values.tolist(), strict=True):
            if not math.isfinite(value):
                raise BadInput(f"train.{what} is {value} at t = {at:.4g}, which is among the train.times")


def _teacher(config: Config, student: Denoiser) -> tuple[Denoiser, str]:
    """The frozen model of ``train.init`` and its hash, if its outputs mean what the student's do."""
    init = str(config.train.init)
    model = load_model(init)
    teacher, theirs = model.denoiser, parse_config(model.info["config"], init)
    assert isinstance(teacher, Denoiser) and isinstance(teacher.network, nn.Module)
    for what, own, other in (
        ("sde", student.sde, teacher.sde),
        ("prediction", student.prediction, teacher.prediction),
        ("time", student.time, teacher.time),
        ("data.scaler", config.data.scaler, theirs.data.scaler),
    ):
        if own != other:
            raise BadInput(f"train.init = {init!r} cannot teach: its {what} is {other}, not {own}")
    if not theirs.train.label_dropout:
        raise BadInput(f"train.init = {init!r} cannot teach: it has no null class, as its train.label_dropout was 0")
    if isinstance(student.network, nn.Module):
        teacher.network.to(next(student.network.parameters()).device)
    if config.train.compile:
        teacher.network.compile()
    return teacher, str(model.info["sha256"])


class ClassifierObjective(nn.Module):
    """The cross-entropy -log p(y | x_t, t) of every sample, x_t = α x_0 + σ ε, and whether its class is the likeliest.

    (Dhariwal & Nichol 2021, section 4.) Of a config's ``train`` the times count; its other keys of the loss are those
    of denoisers and must be left alone.
    """

    probes = False

    def __init__(self, config: Config, classifier: NoisyClassifier) -> None:
        super().__init__()
        self.classifier, self.network = classifier, classifier.network
        self.times = make_times(config.train.times, classifier.sde)
        fresh = Train.model_validate({})
        for key in ("objective", "guidance", "weighting", "uncertainty", "augment"):
            if (value := getattr(config.train, key)) != getattr(fresh, key):
                raise BadInput(f"train.{key} = {value!r} is of denoisers: task 'classifier' takes none")
        if config.learned_variance:
            raise BadInput("learned_variance: true is of denoisers: task 'classifier' takes none")

    def own(self) -> list[nn.Parameter]:
        """Nothing beside the network."""
        return []

    def forward(
        self, x0: Tensor, t: Tensor, noise: Tensor, probe: Tensor | None, cond: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of every sample twice, as `Objective` has it, and 1 where the class is right, (n,) each."""
        logits = self.classifier.logits(self.classifier.sde.perturb(x0, t, noise), t).float()
        losses = F.cross_entropy(logits, cond["y"], reduction="none")
        return losses, losses, (logits.argmax(dim=1) == cond["y"]).float()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep."""
        return {f"times.{key}": value for key, value in self.times.state().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""
        self.times.load(_group(state, "times."))


def _group(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


class ByLevel:
    """Mean losses, or other figures of samples, in equal parts of λ, from noise to data, since they were last read."""

    def __init__(self, sde: SDE, parts: int = 8) -> None:
        low, high = np.clip(sde.knots((sde.t_max, sde.t_min)).lam, -10, 10).tolist()
        self.sde, self.edges = sde, torch.linspace(low, high, parts + 1)
        self.total, self.number = torch.zeros(parts), torch.zeros(parts)

    def add(self, t: Tensor, losses: Tensor) -> None:
        """Count these losses; those that are not finite are left out."""
        t, losses = t.detach().float().cpu(), losses.detach().float().cpu()
        part = torch.bucketize(self.sde.lam(t), self.edges[1:-1])
        fine = torch.isfinite(losses)
        self.total.index_add_(0, part[fine], losses[fine])
        self.number.index_add_(0, part[fine], torch.ones_like(losses[fine]))

    def state(self) -> list[list[float]]:
        """What a checkpoint must keep, for JSON; nothing if there is nothing to tell."""
        return [self.total.tolist(), self.number.tolist()] if self.number.any() else []

    def load(self, state: Sequence[Sequence[float]]) -> None:
        """Take it back."""
        if state:
            self.total, self.number = (torch.tensor(each) for each in state)

    def read(self) -> list[float | None]:
        """The means, None where there were no losses; begins anew."""
        means = [float(a / n) if n else None for a, n in zip(self.total, self.number, strict=True)]
        self.total.zero_()
        self.number.zero_()
        assert all(mean is None or math.isfinite(mean) for mean in means)
        return means
