"""Names of other toolkits in our words: commands that run, and mean there what they mean here."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import make_context, works
from test_cli_replay import record_of

import scoresde
from scoresde.cli.files import plain
from scoresde.grids import FINALS, from_sigmas, make_grid
from scoresde.samplers import SAMPLERS
from scoresde.samplers.aliases import ALIASES, Alias, in_our_words

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize("alias", ALIASES, ids=[alias.name for alias in ALIASES])
def test_aliases_are_commands_that_run(alias: Alias, points: Path) -> None:
    sampler, vp = SAMPLERS[alias.sampler], scoresde.VPSDE()
    assert alias.options.keys() <= sampler.options().keys() and alias.final in (*FINALS, None)
    words = alias.words.split()
    make_context(["sample", "--sampler", *words])
    steps = ["--steps", 3] if sampler.build else []
    works("sample", "--model", points, "--sampler", *words, *steps, "--num", 2)
    settings = record_of()["settings"]
    assert settings["options"] == plain({**sampler.options(), **alias.options})
    if sampler.build:
        own = sampler.defaults(3)
        grid, final = alias.grid or own[0], alias.final or own[1]
        assert (settings["grid"], settings["final"]) == (grid, final) and make_grid(grid, vp, 3, final)


def test_alias_table() -> None:
    text = works("samplers", "--aliases")
    for alias in ALIASES:
        assert re.search(rf"^{alias.toolkit} +{re.escape(alias.name)} +{re.escape(alias.words)}", text, re.M)
    facts = json.loads(works("samplers", "--aliases", "--json"))
    assert [fact["name"] for fact in facts] == [alias.name for alias in ALIASES]
    assert facts[1]["command"] == "scoresde sample --sampler ddim --eta 1 --grid karras --final zero"
    (mine,) = (fact["aliases"] for fact in json.loads(works("samplers", "--json")) if fact["name"] == "dpm++2m")
    assert [fact["name"] for fact in mine] == [alias.name for alias in ALIASES if alias.sampler == "dpm++2m"]


def test_names_of_others_in_our_words() -> None:
    assert in_our_words("eULER A") == "'Euler a' of A1111 is, in scoresde's words: ddim --eta 1 --final zero"
    assert in_our_words("dpmpp_2m") == in_our_words("sample_dpmpp_2m")
    assert in_our_words("ddim2") is None
    assert len({alias[:2] for alias in ALIASES}) == len(ALIASES)


def k_diffusion(name: str, sigmas: list[float], x: torch.Tensor, x0: Any, noise: Any) -> torch.Tensor:
    """The update rules in terms of σ alone, at α = 1: Euler's with and without new noise, and the two-step one."""
    old = None
    for i, (s, t) in enumerate(pairwise(sigmas)):
        d = x0(x, s)
        if name == "sample_euler":
            x = x + (t - s) * (x - d) / s
        elif name == "sample_euler_ancestral":
            up = math.sqrt(t**2 * (s**2 - t**2) / s**2)
            x = x + (math.sqrt(t**2 - up**2) - s) * (x - d) / s + (up * noise(i, 0, x) if t else 0)
        else:
            two = d if old is None or t == 0 else d + (d - old[0]) * math.log(s / t) / (2 * math.log(old[1] / s))
            x, old = t / s * x + (1 - t / s) * two, (d, s)
    return x


SIGMAS = [alias for alias in ALIASES if alias.name in ("sample_euler", "sample_euler_ancestral", "sample_dpmpp_2m")]


@pytest.mark.parametrize("alias", SIGMAS, ids=[alias.name for alias in SIGMAS])
def test_names_of_k_diffusion_mean_what_they_mean_there(alias: Alias) -> None:
    sde, noise = scoresde.EDM(), scoresde.SeededNoise(1, range(3))
    denoiser = scoresde.GaussianMixture.example(2).denoiser(sde)
    sigmas = [80.0, 24.0, 7.0, 2.0, 0.6, 0.1, 0.0]
    x = torch.full((3, 2), 80.0, dtype=torch.float64) * torch.tensor([[0.5], [-1.0], [2.0]], dtype=torch.float64)
    want = k_diffusion(alias.name, sigmas, x, denoiser.x0, noise)
    got = scoresde.sample(
        denoiser, (3, 2), alias.sampler, grid=from_sigmas(sde, sigmas), x=x, noise=noise, **alias.options
    )
    assert (got.x - want).abs().max() < 1e-10
