"""The rules of the house: what imports what, what is documented, what is committed, and that the README runs."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import scoresde

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "scoresde"
CORE = (
    "errors",
    "analytic_start",
    "brownian",
    "schedule",
    "sde",
    "families",
    "ddpm",
    "sdes",
    "labels",
    "denoiser",
    "transforms",
    "classifier",
    "analytic",
    "noise",
    "grids",
    "construct",
    "losses",
    "samplers",
    "guidance",
    "likelihood",
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITTEN = {"build", "dist", "venv", "runs", "samples", "out", "data", "htmlcov"}  # at the top: what programs write

# Every level of the house, lowest first: a file may import its own level and those above it in this list, never below.
LEVELS = (
    ("errors",),
    ("construct", "schedule"),
    ("sde",),
    ("families",),
    ("ddpm",),
    ("sdes", "labels", "noise"),
    ("denoiser",),
    ("grids", "analytic", "analytic_start", "classifier", "losses", "transforms"),
    ("samplers", "brownian"),
    ("guidance", "likelihood"),
    ("checkpoint", "data", "nn", "page", "pictures"),
    ("config",),
    ("model",),
    ("metrics", "plotting", "train"),
    ("comparison",),
    ("cli", "__main__"),
)


def tracked() -> list[Path]:
    """The files of the repository: those git tracks, or, in a copy without git, those that look like them."""
    if shutil.which("git"):
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0 and listed.stdout:
            return [ROOT / name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not _ignored(path.relative_to(ROOT).parts)]


def _ignored(parts: tuple[str, ...]) -> bool:
    ends = (".git", ".venv", ".egg-info", ".pyc", "_cache", "__pycache__", ".coverage")
    return parts[0] in WRITTEN or any(part.endswith(ends) for part in parts)


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) for every import of scoresde in a file, wherever it stands, as the part below the package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            names = [f"{module}.{name.name}" for name in node.names] if module == "scoresde" else [module]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "scoresde":
                yield node.lineno, ".".join(name.split(".")[1:2])


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


# ------------------------------------------------------------------------------------------------------------- imports


def test_imports_run_downward_only() -> None:
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
    assert {part_of(path) for path in files} == set(level), "a new part of the package: give it a level"
    upward = []
    for path in files:
        for line, name in imports(path):
            if name in ("", "__version__"):
                name = "errors"  # the package itself: loads nothing
            if name not in level:  # a public name: where it is defined
                name = getattr(scoresde, name).__module__.split(".")[1]
            if level[name] > level[part_of(path)]:
                upward.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
            assert not (part_of(path) in CORE and name not in CORE), f"the core: {path.relative_to(ROOT)}:{line} {name}"
    assert not upward


def test_the_core_needs_nothing_heavy() -> None:
    """Only torch, torchdiffeq, numpy, scipy, einops and the annotations' jaxtyping, beside the standard library."""
    allowed = {"torch", "torchdiffeq", "numpy", "scipy", "einops", "jaxtyping", "scoresde", *sys.stdlib_module_names}
    for path in sorted(PACKAGE.rglob("*.py")):
        if part_of(path) in CORE:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = [name.name for name in node.names] if isinstance(node, ast.Import) else []
                modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert {module.split(".")[0] for module in modules} <= allowed, f"{path.relative_to(ROOT)}: {modules}"


LAZY = """
import sys, scoresde
assert "torch" not in sys.modules and "numpy" not in sys.modules
assert scoresde.__version__ and "VPSDE" in dir(scoresde)
assert "torch" not in sys.modules
scoresde.VPSDE
assert "torch" in sys.modules
scoresde.sample
upper = {"pydantic", "yaml", "PIL", "pooch", "click", "rich", "matplotlib"} & set(sys.modules)
assert not upper, upper
try:
    scoresde.VPSED
except AttributeError as error:
    assert "VPSED" in str(error)
else:
    raise AssertionError
"""


def test_importing_the_package_loads_torch_only_when_used() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", LAZY], check=True)


# ------------------------------------------------------------------------------------------------------- documentation


@pytest.mark.parametrize("name", scoresde.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(scoresde, name)
    assert name in dir(scoresde)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert inspect.getdoc(value), name
    else:  # a registry or the version
        assert isinstance(value, dict | str) and value


def test_the_stub_and_all_agree() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    named = {name.name for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names}
    listed = next(
        [ast.literal_eval(item) for item in node.value.elts]
        for node in stub.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    )
    assert set(listed) - {"__version__"} == named == set(scoresde.__all__) - {"__version__"}
    assert len(listed) == len(set(listed))


def public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public functions and classes that a module defines, and the public methods of those classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value


@pytest.mark.parametrize("name", CORE)
def test_everything_public_in_the_core_is_documented(name: str) -> None:
    """With a docstring of its own: a dataclass does not get by with the signature that Python puts there."""
    paths = [PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").is_file() else sorted((PACKAGE / name).glob("*.py"))
    assert paths
    for path in paths:
        stem = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(f"scoresde.{stem}")
        assert module.__doc__, path
        written = {
            node.name: node for node in ast.parse(path.read_text(encoding="utf-8")).body if hasattr(node, "name")
        }
        for entry, value in public(module):
            node = written.get(entry)
            assert isinstance(node, ast.FunctionDef | ast.ClassDef), f"{path}: {entry}"
            assert (ast.get_docstring(node) or "").strip(), f"{path.relative_to(ROOT)}: {entry} ({value})"


# ---------------------------------------------------------------------------------------------------- what is committed


def test_no_file_names_a_place_of_this_machine() -> None:
    absolute = re.compile(r"(?<![\w.~/>-])/(?:work|home|root|Users|tmp/bash)[/\w]")
    shared = "../" + "shared"
    found = []
    for path, text in texts():
        for number, line in enumerate(text.splitlines(), 1):
            if absolute.search(line) and path != Path("tests/test_house.py"):
                found.append(f"{path}:{number}: {line.strip()[:80]}")
            if shared in line and path != Path(".ci/run"):
                found.append(f"{path}:{number}: {line.strip()[:80]}")
    assert not found


def test_cuda_is_named_only_where_devices_are_chosen() -> None:
    """String literals in code; docstrings may speak of it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if part_of(path) == "cli":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        doc = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in doc:
                assert "cuda" not in node.value.lower(), f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("cuda", "is_cuda"), f"{path.relative_to(ROOT)}:{node.lineno}: .{node.attr}"


def test_files_are_read_in_one_sitting() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 320, f"{path.relative_to(ROOT)}: {len(lines)} lines"


def test_the_version_is_written_once() -> None:
    """In scoresde/__init__.py; pyproject reads it, the installed package and the changelog agree with it."""
    version = scoresde.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+([abrc.dev\d]*)", version)
    assert importlib.metadata.version("scoresde") == version
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert newest and newest[1] == version
    written = re.compile(r"""(?:\b|_)version(?:__)?\b["']?\s*[:=]\s*["']?""" + re.escape(version))
    places = [str(path) for path, text in texts() if written.search(text) and path.suffix not in (".md", ".json")]
    assert places == ["scoresde/__init__.py"]


def test_weights_are_few_and_small() -> None:
    """Only in scoresde/pretrained, at most 5 MB each and 1 MB for classifiers, each with its card."""
    binary = {".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".npz", ".npy", ".pkl", ".h5", ".onnx", ".gz", ".zip"}
    weights = [path for path in tracked() if path.suffix in binary]
    assert weights
    for path in weights:
        assert path.parent == PACKAGE / "pretrained" and path.suffix == ".safetensors", path.relative_to(ROOT)
        assert path.with_suffix(".json").is_file(), f"{path.name} has no card"
        assert path.stat().st_size <= (1e6 if path.stem.endswith(("features", "classifier")) else 5e6), (
            path.relative_to(ROOT)
        )
    others = [path for path in tracked() if path not in weights]
    assert max(path.stat().st_size for path in others) < 1.5e6  # pictures of docs/ at most


# ---------------------------------------------------------------------------------------------------------- the README


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


def test_the_readme_has_two_complete_set_up_commands() -> None:
    """Each makes an environment and installs with the tested versions: one runs the main job, one the tests."""
    setups = [block.strip() for block in blocks("bash") if "pip install" in block]
    assert len(setups) == 2
    for command in setups:
        assert "\n" not in command and command.count("pip install") == 1 and "-c constraints.txt" in command
        assert command.startswith("python3 -m venv ") and " && " in command
    assert setups[0].endswith(" && scoresde sample --sampler ode --steps 10")
    assert "'.[test]'" in setups[1] and re.search(r"pytest( -n 2)?$", setups[1])
    assert (ROOT / "constraints.txt").is_file()
    marked = re.findall(r"^<!-- test-command -->\n+```bash\n(.*?)^```", README, re.S | re.M)
    assert [block.strip() for block in marked] == [setups[1]] and README.count("<!-- test-command -->") == 1
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "test-command" in run and "pip install" not in run  # it runs this very command, it has none of its own


def test_constraints_pin_every_dependency() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {name.lower().replace("_", "-") for name in re.findall(r"^([\w.-]+)==", text, re.M)}
    for need in importlib.metadata.requires("scoresde") or []:
        name = re.match(r"[\w.-]+", need)
        assert name and name[0].lower().replace("_", "-") in pinned, need
    assert "torch==2.13.0" in text.split()


@pytest.mark.parametrize("block", [pytest.param(b, id=str(i)) for i, b in enumerate(blocks("python"))])
def test_the_readmes_python_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(block, names)
    used = {name for name in scoresde.__all__ if names.get(name) is getattr(scoresde, name)}
    assert used  # it shows something of the package, and that much of it works
    assert "print(" not in block or capsys.readouterr().out.strip()


def test_the_tests_check_annotations_and_their_shapes() -> None:
    """Of arguments, of results and of a dataclass; an integer is a number."""
    sde, x = scoresde.VPSDE(), torch.ones(3, 2)
    assert scoresde.VPSDE(beta_max=20).log_alpha(torch.ones(2)).shape == (2,)
    mean = scoresde.Denoiser(lambda x, t: x, sde).posterior
    assert mean(x, 0, 1)[0].shape == (3, 2)
    wide = type("Wide", (scoresde.VPSDE,), {"sigma": lambda self, t: x})()
    for wrong in (
        lambda: scoresde.VPSDE(beta_max="20"),
        lambda: sde.log_alpha(0.5),
        lambda: sde.prior_log_prob(x.int()),
        lambda: wide.phi(x[0]),
    ):
        with pytest.raises(TypeError, match="type"):
            wrong()


def test_what_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
