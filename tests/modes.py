"""Classes that are the modes of a mixture: their exact conditional model and classifier."""

from __future__ import annotations

from typing import Any

import torch
from exact import F64, SDES, mixture, steps_for

import scoresde
from scoresde import SAMPLERS
from scoresde.denoiser import FORMS

VP = SDES["vp"]
DATA = mixture()
MODES = [scoresde.Gaussian(mean, cov) for mean, cov in zip(DATA.means, DATA.covs, strict=True)]
Y = torch.tensor([0, 2, 1, 0, 2])


class Network(torch.nn.Module):
    """The exact model of modes 0, 1, 2, and of all data under the label 3; it counts its calls and rows."""

    classes = 3

    def __init__(self, sde: scoresde.SDE = VP, prediction: str = "v") -> None:
        super().__init__()
        self.calls: list[int] = []
        self.each = [data.network(sde, prediction) for data in (*MODES, DATA)]

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(x))
        out = torch.full_like(x, torch.nan)
        for k in set(y.tolist()):
            label = t if t.stride() == (0,) else t[y == k]
            out[y == k] = self.each[k](x[y == k], label[: int((y == k).sum())])
        return out


def model(sde: scoresde.SDE = VP, prediction: str = "v") -> scoresde.Denoiser:
    return scoresde.Denoiser(Network(sde, prediction), sde, prediction)


class Exact:
    """log p(mode y | x_t), which counts its calls."""

    classes = 3

    def __init__(self, sde: scoresde.SDE = VP) -> None:
        self.sde, self.calls = sde, 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        each = torch.stack([mode.log_prob(x, self.sde, t) for mode in MODES], 1) + DATA.weights.log()
        return each.log_softmax(1).gather(1, y[:, None])[:, 0]


def draw(denoiser: Any, name: str = "ddim", steps: int | None = None, **how: Any) -> scoresde.Result:
    """Five float64 samples, of classes Y unless told otherwise."""
    n = None if "nfe" in how else steps or steps_for(name)
    how = {"cond": {"y": Y}, **how}
    if not SAMPLERS[name].build:
        how |= {"rtol": 0.2, "atol": 0.2}
    return scoresde.sample(denoiser, (5, 2), name, n, dtype=F64, **how)


def forms(denoiser: Any, x: torch.Tensor, t: Any, **cond: Any) -> list[torch.Tensor]:
    """Every form by predict and, at one time, by plan."""
    outs = [denoiser.predict(form, x, t, **cond) for form in FORMS]
    if isinstance(t, float):
        outs += [denoiser.plan(form, [0.9, t], x, **cond)(1, x) for form in FORMS]
    return outs


def close(found: list[torch.Tensor], wanted: list[torch.Tensor], tolerance: float = 1e-9) -> bool:
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in zip(found, wanted, strict=True))


TIMES = [0.2, torch.tensor([0.05, 0.2, 0.4, 0.6, 0.9], dtype=F64)]
