"""What other toolkits call our samplers. Update rule, grid and ending are separate here; their names often fix several.

A row without a grid or a final leaves them open, as the other toolkit does: it takes the noise levels from its caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Alias(NamedTuple):
    """``name`` in ``toolkit``, where the ``note`` holds, is ``sampler`` with these options, grid and final."""

    toolkit: str
    name: str
    sampler: str
    options: Mapping[str, Any] = {}
    grid: str | None = None
    final: str | None = None
    note: str = ""

    @property
    def words(self) -> str:
        """In the words of the command line.

        >>> Alias("k-diffusion", "sample_euler_ancestral", "ddim", {"eta": 1.0}, final="zero").words
        'ddim --eta 1 --final zero'
        """
        given = {**self.options, "grid": self.grid, "final": self.final}
        flags = (f"--{name.replace('_', '-')} {_word(value)}" for name, value in given.items() if value is not None)
        return " ".join((self.sampler, *flags))


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


_TRAILING = "timestep_spacing='trailing', clip_sample=False, and n divides the 1000 steps of training"
ALIASES: tuple[Alias, ...] = (
    Alias("k-diffusion", "sample_euler", "ddim", {}, "karras", "zero", "s_churn=0"),
    Alias("k-diffusion", "sample_euler_ancestral", "ddim", {"eta": 1.0}, "karras", "zero"),
    Alias("k-diffusion", "sample_heun", "edm", {}, "karras", "zero"),
    Alias("k-diffusion", "sample_dpm_2", "dpm2s", {}, "karras", "zero"),
    Alias("k-diffusion", "sample_dpm_2_ancestral", "dpm2a", {}, "karras", "zero"),
    Alias("k-diffusion", "sample_dpmpp_2s_ancestral", "dpm++2sa", {}, "karras", "zero"),
    Alias("k-diffusion", "sample_dpmpp_sde", "dpm++sde", {}, "karras", "zero", "its noise: --noise brownian"),
    Alias("k-diffusion", "sample_dpmpp_2m", "dpm++2m", {}, "karras", "zero"),
    Alias("k-diffusion", "sample_dpmpp_2m_sde", "dpm++2m-sde", {}, "karras", "zero"),
    Alias("k-diffusion", "sample_dpmpp_3m_sde", "dpm++3m-sde", {}, "karras", "zero"),
    Alias("k-diffusion", "sample_lms", "lms", {}, "karras", "t_min", "where it ends at sigma_min"),
    Alias("k-diffusion", "sample_dpm_adaptive", "dpm-adaptive"),
    Alias("diffusers", "DDIMScheduler", "ddim", {}, "index", "zero", _TRAILING),
    Alias("diffusers", "DDPMScheduler", "ddpm", {}, "index", "zero", _TRAILING),
    Alias("diffusers", "DPMSolverMultistepScheduler", "dpm++2m", {}, "karras", "zero", "use_karras_sigmas=True"),
    Alias(
        "diffusers",
        "DPMSolverSinglestepScheduler",
        "dpm++2s",
        {},
        "karras",
        "zero",
        "two of its steps are one of ours, whose middle lies half-way in λ, not on its grid",
    ),
    Alias("diffusers", "EulerDiscreteScheduler", "ddim", {}, "karras", "zero", "use_karras_sigmas=True"),
    Alias("diffusers", "EulerAncestralDiscreteScheduler", "ddim", {"eta": 1.0}, None, "zero"),
    Alias("diffusers", "HeunDiscreteScheduler", "edm", {}, "karras", "zero", "use_karras_sigmas=True"),
    Alias("diffusers", "KDPM2DiscreteScheduler", "dpm2s", {}, "karras", "zero", "use_karras_sigmas=True"),
    Alias("diffusers", "KDPM2AncestralDiscreteScheduler", "dpm2a", {}, "karras", "zero", "use_karras_sigmas=True"),
    Alias("diffusers", "UniPCMultistepScheduler", "unipc", {"order": 2}, "karras", "zero", "use_karras_sigmas=True"),
    Alias(
        "diffusers",
        "LMSDiscreteScheduler",
        "lms",
        {},
        "karras",
        "t_min",
        "use_karras_sigmas=True; it extrapolates into the data, where ours ends at t_min",
    ),
    Alias("diffusers", "PNDMScheduler", "plms", {}, "leading:1", "t_min", "skip_prk_steps=True, steps_offset=1"),
    Alias("diffusers", "IPNDMScheduler", "ipndm", {"order": 4}, None, "t_min"),
    Alias(
        "diffusers",
        "SASolverScheduler",
        "sa-solver",
        {"predictor_order": 2, "corrector_order": 2},
        note="its noise is left out before step 200 and after step 800 of 1000",
    ),
    Alias(
        "diffusers", "DEISMultistepScheduler", "eab2", {"space": "eps"}, note="it interpolates in log σ/α, deis in t"
    ),
    Alias("diffusers", "DPMSolverSDEScheduler", "dpm++sde", {}, "karras", "zero", "use_karras_sigmas=True"),
    Alias("diffusers", "EDMEulerScheduler", "ddim", {}, "karras", "zero", "s_churn=0"),
    Alias("diffusers", "EDMDPMSolverMultistepScheduler", "dpm++2m", {}, "karras", "zero"),
    Alias("diffusers", "FlowMatchEulerDiscreteScheduler", "ddim", {}, "t", "zero", "shift=1, of a flow (--sde flow)"),
    Alias("diffusers", "RePaintScheduler", "travel", {}, "index", "zero", "with an image: scoresde inpaint"),
    Alias("A1111", "Heun", "edm", {}, None, "zero"),
    Alias("A1111", "DPM2", "dpm2s", {}, None, "zero"),
    Alias("A1111", "DPM2 a", "dpm2a", {}, None, "zero"),
    Alias("A1111", "DPM++ 2S a", "dpm++2sa", {}, None, "zero"),
    Alias("A1111", "DPM++ SDE", "dpm++sde", {}, None, "zero"),
    Alias("A1111", "DPM++ 2M", "dpm++2m", {}, None, "zero"),
    Alias("A1111", "DPM++ 2M SDE", "dpm++2m-sde", {}, None, "zero"),
    Alias("A1111", "DPM++ 3M SDE", "dpm++3m-sde", {}, None, "zero"),
    Alias("A1111", "DPM adaptive", "dpm-adaptive"),
    Alias("A1111", "Restart", "restart", {}, "karras", "zero", "its levels of restarting are others"),
    Alias("A1111", "LMS", "lms", {}, None, "t_min", "it extrapolates into the data, where ours is the estimate"),
    Alias("A1111", "PLMS", "plms", {}, None, "t_min"),
    Alias("A1111", "UniPC", "unipc", {"variant": "bh1"}),
    Alias("A1111", "DPM++ 2M Karras", "dpm++2m", {}, "karras", "zero"),
    Alias("A1111", "Euler", "ddim", {}, None, "zero"),
    Alias("A1111", "Euler a", "ddim", {"eta": 1.0}, None, "zero"),
    Alias("A1111", "DDIM", "ddim"),
)


def of_sampler(name: str) -> list[Alias]:
    """The rows of one of our samplers."""
    return [alias for alias in ALIASES if alias.sampler == name]


def in_our_words(name: str) -> str | None:
    """What another toolkit's name means here, if it is one: whatever its case, with k-diffusion's sample_ or without.

    >>> in_our_words("euler A")
    "'Euler a' of A1111 is, in scoresde's words: ddim --eta 1 --final zero"
    >>> in_our_words("DPM2 Karras")
    "'DPM2 Karras' of A1111 is, in scoresde's words: dpm2s --grid karras --final zero"
    """
    asked = name.casefold()
    for alias in ALIASES:
        if asked in (alias.name.casefold(), alias.name.casefold().removeprefix("sample_")):
            return f"{alias.name!r} of {alias.toolkit} is, in scoresde's words: {alias.words}"
    base, _, grid = asked.rpartition(" ")
    for alias in ALIASES:  # a name of A1111 with its schedule behind it
        if alias.toolkit == "A1111" and base == alias.name.casefold() and grid in ("karras", "exponential"):
            alias = alias._replace(name=f"{alias.name} {grid.capitalize()}", grid=grid)
            return f"{alias.name!r} of {alias.toolkit} is, in scoresde's words: {alias.words}"
    return None
