"""Guidance distillation: the loss is the distance from the guided teacher, and a run learns to be it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exact import F64, SDES
from test_train import MLP, configured, made, points
from torch import Tensor

import scoresde
from scoresde import BadInput
from scoresde.denoiser import FORMS
from scoresde.guidance import classifier_free
from scoresde.losses import WEIGHTINGS, guidance_distillation_loss, weight
from scoresde.train.run import Run

MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.5, 0.7]], dtype=F64)  # of two classes, and of their absence
LABELS = torch.tensor([0, 1, 2, 1])
PLAIN = {**MLP, "classes": 0}


class Classes(torch.nn.Module):
    """The exact denoiser of a Gaussian per class, in any form; ``grown`` of its mean's distance from the null one's."""

    def __init__(self, sde: scoresde.SDE, form: str, grown: float = 1.0) -> None:
        super().__init__()
        self.sde, self.form, self.classes = sde, form, 2
        self.means = torch.nn.Parameter(MEANS[2] + grown * (MEANS - MEANS[2]))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        alpha, sigma, mean = self.sde.alpha(t)[:, None], self.sde.sigma(t)[:, None], self.means[y]
        x0 = mean + 0.3 * alpha / (0.3 * alpha**2 + sigma**2) * (x - alpha * mean)
        inner = scoresde.Denoiser(lambda x, t: x0, self.sde, "x0")
        return inner.predict(self.form, x, t)


def given(sde: scoresde.SDE) -> tuple[Tensor, Tensor, Tensor]:
    x0, noise = torch.randn(2, 4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    return x0, torch.tensor([0.2, 0.5, 0.8, 0.9], dtype=F64) * sde.t_max, noise


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_weighed_distance_from_classifier_free_guidance(form: str, name: str) -> None:
    """In every form and weighting; zero for the network whose class effect is w times the teacher's, at every t."""
    sde, w = SDES[name], 2.5
    teacher = scoresde.Denoiser(Classes(sde, form), sde, form)
    (x0, t, noise), student = given(sde), scoresde.Denoiser(Classes(sde, form, 0.4), sde, form)
    x = sde.perturb(x0, t, noise)
    guided = classifier_free(teacher, w)
    gap = student.predict(form, x, t, y=LABELS) - guided.predict(form, x, t, y=LABELS)
    for weighting in WEIGHTINGS:
        loss = guidance_distillation_loss(student, teacher, x0, t, noise, w, 2, weighting, y=LABELS)
        assert torch.allclose(loss, weight(weighting, student, t) * gap.square().mean(1), rtol=1e-7), weighting
    learned = scoresde.Denoiser(Classes(sde, form, w), sde, form)
    loss = guidance_distillation_loss(learned, teacher, x0, t, noise, w, 2, y=LABELS)
    assert (loss <= 1e-20 * guided.predict(form, x, t, y=LABELS).square().mean(1).clamp(min=1)).all()


def test_only_the_student_has_a_gradient_and_null_labels_keep_the_teacher() -> None:
    sde = SDES["vp"]
    theirs, ours = Classes(sde, "v"), Classes(sde, "v")
    teacher, student = scoresde.Denoiser(theirs, sde, "v"), scoresde.Denoiser(ours, sde, "v")
    x0, t, noise = given(sde)
    loss = guidance_distillation_loss(student, teacher, x0, t, noise, 2.0, 2, y=LABELS)
    loss.sum().backward()
    assert theirs.means.grad is None and ours.means.grad is not None
    assert ours.means.grad[:2].abs().min() > 0 and loss[2] == 0 and (ours.means.grad[2] == 0).all()


def test_a_run_learns_its_guided_teacher() -> None:
    """The shipped points under w = 3: half the mean square from it within sixty steps, the teacher as it was."""
    run = made("distillation", lr=1e-3, guidance=3.0, steps=60, batch_size=64)
    teacher = scoresde.load_model("datasaurus").denoiser
    assert run.objective.teacher is not None
    y = torch.arange(13).repeat(20)
    x0 = torch.randn(260, 2, generator=torch.Generator().manual_seed(1))
    t = torch.linspace(0.05, 0.95, 260)
    x = run.denoiser.sde.perturb(x0, t, torch.randn(260, 2, generator=torch.Generator().manual_seed(2)))
    wanted = classifier_free(teacher, 3.0).x0(x, t, y=y)

    def gap() -> float:
        with torch.no_grad():
            return float((run.denoiser.x0(x, t, y=y) - wanted).square().mean())

    before = gap()
    for _ in range(60):
        run.advance()
    assert gap() < 0.5 * before
    assert torch.equal(run.objective.teacher.x0(x, t, y=y), teacher.x0(x, t, y=y))


@pytest.mark.parametrize(
    "options, said",
    [
        ({"objective": "distillation"}, "needs train.init, the teacher"),
        ({"guidance": 2.0}, "train.guidance = 2.0: .*'denoising' has none: choose 'distillation'"),
        ({"objective": "distillation", "guidance": float("nan")}, "train.guidance = nan"),
        ({"objective": "distillation", "guidance": -1}, "train.guidance = -1"),
        ({"objective": "distilation"}, "train.objective = 'distilation'"),
    ],
)
def test_refusals(options: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        Run(configured(**options), points())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind, theirs, ours, said",
    [
        ("points", {}, {}, "needs labels: moons has none"),
        ("classes", {"network": PLAIN}, {"network": PLAIN}, "the teacher, and a network with classes"),
        ("classes", {}, {"prediction": "eps"}, "cannot teach: its prediction is v, not eps"),
        ("classes", {"sde": {"name": "cosine"}}, {}, "cannot teach: its sde is Cosine.*, not VPSDE"),
        ("classes", {}, {"time": "1000t"}, "cannot teach: its time is t, not 1000t"),
        ("classes", {"label_dropout": 0.0}, {}, "cannot teach: it has no null class"),
    ],
)
def test_teachers_that_cannot_teach(kind: str, theirs: dict, ours: dict, said: str, tmp_path: Path) -> None:
    made(kind, **theirs).save(tmp_path / "teacher")
    with pytest.raises(BadInput, match=said) as caught:
        made(kind, **ours, init=str(tmp_path / "teacher"), objective="distillation")
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_under_its_own_teacher_alone(tmp_path: Path) -> None:
    teacher = made("classes")
    teacher.save(tmp_path / "teacher")
    run = made("classes", init=str(tmp_path / "teacher"), objective="distillation")
    run.advance()
    run.save(tmp_path / "half")
    made("classes", init=str(tmp_path / "teacher"), objective="distillation").restore(tmp_path / "half")
    teacher.advance()
    teacher.save(tmp_path / "teacher")
    with pytest.raises(BadInput, match="made with another teacher"):
        made("classes", init=str(tmp_path / "teacher"), objective="distillation").restore(tmp_path / "half")
