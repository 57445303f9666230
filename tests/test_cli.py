"""The command line: every command, what it writes, and how it fails."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import scoresde.model
from scoresde import SAMPLERS
from scoresde.cli import COMMANDS, files, main, options
from scoresde.config import parse_config
from scoresde.data import Dataset
from scoresde.guidance import INPAINTING
from scoresde.train.run import Run

pytestmark = pytest.mark.usefixtures("here")

CLASSES = ("T-shirt/top", "bag", "ankle boot")


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def works(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result.stdout


def fails(code: int, *args: object) -> str:
    """The one line that a failing command prints on stderr."""
    result = run(*args)
    assert result.exit_code == code, (result.output, result.exception)
    line = result.stderr.strip()
    assert line.startswith("scoresde: error: ") and "\n" not in line, result.stderr
    assert "Traceback" not in result.output
    return line


def points_config(**train_options: object) -> dict[str, object]:
    return {
        "data": {"name": "moons", "options": {"n": 64}},
        "network": {"name": "mlp", "width": 16, "depth": 1, "features": 8},
        "time": "t",
        "train": {"steps": 3, "batch_size": 16, "warmup": 1, "ema": 0.5, **train_options},
    }


def image_run(broken: bool = False) -> Run:
    config = parse_config(
        {
            "data": {"name": "squares", "scaler": "image"},
            "network": {"name": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": [], "heads": 1},
            "prediction": "v",
            "time": "1000t",
            "train": {"steps": 3, "batch_size": 12, "warmup": 1, "lr": 0.1, "ema": 0.5},
        }
    )
    labels = torch.arange(12) % 3
    x = (labels * 100)[:, None, None, None].expand(12, 1, 8, 8).to(torch.uint8).contiguous()
    run = Run(config, Dataset(x, labels, CLASSES, name="squares"))
    for _ in range(3):
        run.advance()
    if broken:
        for weights in (*run.ema.weights.values(), *run.network.parameters()):
            weights.data.fill_(torch.nan)
    return run


def drawn(out: str = "samples") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the record of the only run in a folder."""
    assert len(list(Path(out).iterdir())) == 3
    (arrays,), (record,) = Path(out).glob("*.npz"), Path(out).glob("*.json")
    with np.load(arrays) as file:
        return dict(file), json.loads(record.read_text(encoding="utf-8"))


# ----------------------------------------------------------------------------------------------------------- the group


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from scoresde.cli import COMMANDS, main\n"
        "for args in ([], ['--help'], ['--version'], *([name, '--help'] for name in COMMANDS)):\n"
        "    result = CliRunner().invoke(main, args)\n"
        "    assert result.exit_code == 0, result.output\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pydantic', 'rich', 'yaml', 'PIL', 'torchdiffeq'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = str(Path(scoresde.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=env)
    command = [sys.executable, "-m", "scoresde", "smaple"]
    bad = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert bad.returncode == 2 and "did you mean 'sample'?" in bad.stderr and bad.stdout == ""


@pytest.mark.parametrize("given", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_threads_that_wait_yield_to_others_unless_told_otherwise(given: dict[str, str]):
    code = "import os, scoresde.cli; print(os.environ.get('GOMP_SPINCOUNT'))"
    env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | given
    root = {"PYTHONPATH": str(Path(scoresde.__file__).parents[1])}
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env | root, check=True
    ).stdout
    assert said.strip() == {(): "10000", ("GOMP_SPINCOUNT",): "7", ("OMP_WAIT_POLICY",): "None"}[tuple(given)]


def test_help_lists_every_command():
    text = works("--help")
    assert all(re.search(rf"^  {name} ", text, re.M) for name in COMMANDS)
    assert text == works()
    assert scoresde.__version__ in works("--version")


def test_examples_in_help_can_be_parsed():
    examples: list[list[str]] = []
    for args in ([], *([name] for name in COMMANDS)):
        lines = re.findall(r"^ +scoresde (.+?)(?:  .*)?$", works(*args, "--help"), re.M)
        assert len(lines) >= 3 or args == ["models"] or args == ["samplers"], args
        examples += [shlex.split(line) for line in lines]
    for example in examples:
        make_context(example)


def make_context(words: list[str]) -> None:
    """Read the words of a command line; raises what a user would see."""
    command = main.get_command(main.make_context("scoresde", ["models"]), words[0])
    assert command
    context = command.make_context(words[0], words[1:])
    if context.params.get("own"):
        name, own = context.params["sampler"], context.params["own"]
        name = name or INPAINTING[context.params["method"]].sampler
        given = options.read_options(name, own, options.flags_of(context))
        assert given.keys() <= options.word_kinds(SAMPLERS[name]).keys()


def test_the_options_in_help_are_those_of_some_sampler():
    known = {flag for name in SAMPLERS for flag in map(options.spell_flag, options.word_kinds(SAMPLERS[name]))}
    assert {usage.split()[0] for usage, _ in options.COMMON} <= known
    own = {flag for name in ("sample", "table") for flag in re.findall(r"--[\w-]+", flags_in_help(name))}
    assert not own & known  # a builder's option of the same name could never be reached


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_every_option_once(name: str):
    flags = re.findall(r"^  (?:-\w, )?(--[\w-]+)", works(name, "--help").partition("\nOptions:")[2], re.M)
    assert flags and len(flags) == len(set(flags))


def flags_in_help(command: str) -> str:
    return "".join(re.findall(r"^  (--[^ ]+)", works(command, "--help").split("Options of some")[0], re.M))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_option_of_every_sampler_can_be_typed(name: str):
    """The default, written as a word, is read back as it was."""
    sampler = SAMPLERS[name]
    kinds = options.word_kinds(sampler)
    for adaptive in ([False] if sampler.build else []) + ([True] if sampler.adaptive else []):
        for option, default in sampler.options(adaptive).items():
            assert kinds[option], option
            if default is not None:
                flag, word = options.spell({option: default}).split()
                read = options.read_options(name, {flag: word}, [])[option]
                assert read == default and (isinstance(read, bool) == isinstance(default, bool))


def test_default_model_is_the_library_s():
    assert files.DEFAULT_MODEL == scoresde.model.DEFAULT


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def broken():
        raise RuntimeError("boom")

    monkeypatch.setattr(scoresde.model, "shipped", broken)
    result = run("models")
    assert result.exit_code == 1 and isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (PermissionError(errno.EACCES, "Permission denied", "x.npz"), 2),
        (MemoryError(), 2),
        (torch.OutOfMemoryError("CUDA out of memory"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_from_outside(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch):
    def broken():
        raise error

    monkeypatch.setattr(scoresde.model, "shipped", broken)
    fails(code, "models")
