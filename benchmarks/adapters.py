"""A sampler of k-diffusion or a scheduler of diffusers run on a scoresde denoiser.

Every call goes through the denoiser and is counted. States are converted where a library works on x/α. diffusers gets
its chain of betas from the very SDE of the denoiser; a label means the noise level that diffusers' own interpolation
gives it, and where a scheduler rounds its labels the network is asked at the rounded one, as in use. diffusers computes
in float32 inside most schedulers; with a float64 state its modules are given float64 for float32, so that formulas are
compared and not roundings.

Needs the extra, pip install 'scoresde[bench]', and pip install --no-deps k-diffusion, whose requirements hold numpy
below 2. Only its sampling module is loaded: the package around it imports data tools that fail on current setuptools.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser
from scoresde.sde import SDE

Draw = Callable[[Tensor], Tensor]  # standard normal noise like the given state
CHAIN = 1000  # training steps of the chain that diffusers is given


class Run(NamedTuple):
    """The last state, the calls it took, and the time at which it is."""

    x: Tensor
    calls: int
    end: float


@dataclass
class Counted:
    """A denoiser at noise levels: forms at x with σ/α = ρ, calls counted."""

    denoiser: AnyDenoiser
    cond: Mapping[str, Any] = field(default_factory=dict)
    calls: int = 0

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, form: str, x: Tensor, t: float) -> Tensor:
        self.calls += 1
        return self.denoiser.predict(form, x, t, **self.cond)

    def time(self, lam: float) -> float:
        """t at which λ = ``lam``, never noisier than the start."""
        return min(float(self.sde.t_of_lam(torch.tensor(lam, dtype=torch.float64))), self.sde.t_max)

    def alpha(self, t: float) -> float:
        return float(self.sde.knots([t]).alpha[0])


def _missing(package: str) -> ImportError:
    hint = "pip install 'scoresde[bench]' && pip install --no-deps k-diffusion"
    return ImportError(f"{package} is not installed: {hint}")


# ------------------------------------------------------------------------------------------------------- k-diffusion


@cache
def k_diffusion() -> ModuleType:
    """``k_diffusion.sampling``, without what its package imports beside it."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or not spec.submodule_search_locations:
        raise _missing("k-diffusion")
    package = ModuleType("k_diffusion")
    package.__path__, package.__spec__ = list(spec.submodule_search_locations), spec
    stubs: dict[str, ModuleType] = {"k_diffusion": package}
    if importlib.util.find_spec("torchvision") is None:  # its utils import it for pictures, which no sampler uses
        stubs |= {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms")}
        stubs["torchvision.transforms"].functional = None  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules.update(stubs)
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name in stubs.keys() - {"k_diffusion"}:
            del sys.modules[name]


def run_k(
    name: str,
    denoiser: AnyDenoiser,
    x: Tensor,
    sigmas: Sequence[float],
    cond: Mapping[str, Any] | None = None,
    noise: Draw | None = None,
    **options: Any,
) -> Run:
    """``sample_NAME`` over noise levels σ/α, from the state x at the first to the last; 0 is the data."""
    model = Counted(denoiser, cond or {})

    def denoised(y: Tensor, sigma: Tensor) -> Tensor:
        t = model.time(-math.log(float(sigma[0])))
        return model("x0", model.alpha(t) * y, t)

    if noise:
        options["noise_sampler"] = lambda sigma, sigma_next: noise(x)
    ends = [model.time(-math.log(s)) if s else 0.0 for s in (sigmas[0], sigmas[-1])]
    levels = torch.tensor(list(sigmas), dtype=x.dtype)
    y = getattr(k_diffusion(), f"sample_{name}")(denoised, x / model.alpha(ends[0]), levels, disable=True, **options)
    return Run(model.alpha(ends[1]) * y, model.calls, ends[1])


def k_sigmas(grid: str, sde: SDE, n: int, zero: bool) -> list[float]:
    """k-diffusion's noise levels of n intervals from t_max to t_min, or with a last one to 0."""
    make, count = getattr(k_diffusion(), f"get_sigmas_{grid}"), n if zero else n + 1
    ends = np.exp(-sde.knots([sde.t_min, sde.t_max]).lam).tolist()
    torch.set_default_dtype(torch.float64)  # in which its grids are computed
    try:
        levels = make(count) if grid == "vp" else make(count, *ends)
    finally:
        torch.set_default_dtype(torch.float32)
    return levels.tolist() if zero else levels[:-1].tolist()


# --------------------------------------------------------------------------------------------------------- diffusers


class _Wide:
    """A module in which float32 is float64."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


@contextmanager
def _inside(module: ModuleType, wide: bool, noise: Draw | None, x: Tensor) -> Generator[None]:
    """A scheduler's module with float64 arithmetic and with ``noise`` in the place of its own, for a while."""
    changes: dict[str, Any] = {"torch": _Wide(torch), "np": _Wide(np)} if wide else {}
    if noise:
        changes["randn_tensor"] = lambda shape, **how: noise(x)
    kept = {name: getattr(module, name) for name in changes if hasattr(module, name)}
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if wide else usual)
    for name in kept:
        setattr(module, name, changes[name])
    try:
        yield
    finally:
        torch.set_default_dtype(usual)
        for name, value in kept.items():
            setattr(module, name, value)


def scheduler_class(name: str) -> Any:
    """diffusers' class ``NAMEScheduler``."""
    if importlib.util.find_spec("diffusers") is None:
        raise _missing("diffusers")
    return getattr(importlib.import_module("diffusers"), f"{name}Scheduler")


def chain_times(sde: SDE, N: int = CHAIN) -> tuple[float, ...]:
    """The times of a training chain of N steps: index i at (i + 1)/N of t_max."""
    return tuple(((np.arange(N) + 1) / N * sde.t_max).tolist())


def run_diffusers(
    name: str,
    denoiser: AnyDenoiser,
    x: Tensor,
    n: int,
    chain: Sequence[float] | None = None,
    cond: Mapping[str, Any] | None = None,
    noise: Draw | None = None,
    step: Mapping[str, Any] | None = None,
    **config: Any,
) -> Run:
    """n steps of ``NAMEScheduler`` with ``config`` on a training chain with these times (by default 1000, even).

    ``step`` are arguments of its `step`. The EDM schedulers know no chain and are given the ends of the SDE instead.
    """
    model, cls = Counted(denoiser, cond or {}), scheduler_class(name)
    sde, edm, chain = denoiser.sde, name.startswith("EDM"), chain or chain_times(denoiser.sde)
    at = sde.knots(chain)
    steps = np.diff(np.log(at.alpha), prepend=0.0)
    start = model.alpha(sde.t_max if edm else chain[-1])
    if edm:
        ends = np.exp(-sde.knots([sde.t_min, sde.t_max]).lam).tolist()
        config = {"sigma_min": ends[0], "sigma_max": ends[1], **config}
    elif name == "IPNDM":
        config = {"trained_betas": [*at.sigma[::-1].tolist(), 0.0], **config}
    else:
        config = {"num_train_timesteps": len(chain), "trained_betas": (-np.expm1(2 * steps)).tolist(), **config}
    with _inside(sys.modules[cls.__module__], x.dtype == torch.float64, noise, x):
        scheduler = cls(**config)
        scheduler.set_timesteps(n)
        scaled = float(scheduler.init_noise_sigma) != 1  # works on x/α
        y = x / start if scaled else x
        for label in scheduler.timesteps:
            given = scheduler.scale_model_input(y, label)
            y = scheduler.step(_output(model, scheduler, given, label, at.lam), label, y, **(step or {})).prev_sample
    end = _end(scheduler, model, chain)
    return Run(model.alpha(end) * y if scaled else y, model.calls, end)


def _output(model: Counted, scheduler: Any, given: Tensor, label: Tensor, lams: np.ndarray) -> Tensor:
    """What the scheduler's network would return for its input at its label."""
    name = type(scheduler).__name__
    if name.startswith("IPNDM"):
        phi = 0.5 * math.pi * float(label)
        return model("v", given, model.time(math.log(math.cos(phi) / math.sin(phi))))
    if name.startswith("EDM"):
        t, sigma, data = model.time(-4 * float(label)), math.exp(4 * float(label)), scheduler.config.sigma_data
        size = math.hypot(sigma, data)
        y = given * size  # the network is given c_in y
        x0 = model("x0", model.alpha(t) * y, t)
        return (x0 - (data / size) ** 2 * y) * (size / (sigma * data))
    return model("eps", given, model.time(float(np.interp(float(label), np.arange(len(lams)), lams))))


def _end(scheduler: Any, model: Counted, chain: Sequence[float]) -> float:
    """The time a run has reached: that of the last noise level, or of the index it stepped to."""
    if type(scheduler).__name__.startswith("IPNDM"):
        return 0.0
    if hasattr(scheduler, "sigmas"):
        last = float(scheduler.sigmas[-1])
        return model.time(-math.log(last)) if last else 0.0
    last = int(scheduler.timesteps[-1])
    if hasattr(scheduler, "previous_timestep"):
        index = int(scheduler.previous_timestep(last))
    else:  # DDIM and PNDM step by a constant stride, wherever their next index is
        index = last - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    if index >= 0:
        return chain[index]
    return 0.0 if float(getattr(scheduler, "final_alpha_cumprod", 1.0)) == 1 else chain[0]
