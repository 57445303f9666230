"""Figures show the numbers they claim to show, files open, and nothing global changes."""

import io
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import scoresde
from scoresde.analytic import GaussianMixture
from scoresde.checkpoint import load_checkpoint, save_checkpoint
from scoresde.cli import main
from scoresde.cli.plot import COLUMNS
from scoresde.errors import BadInput
from scoresde.model import find_model
from scoresde.noise import START, SeededNoise
from scoresde.pictures import film, picture
from scoresde.plotting import animate, plot_marginals, plot_samples, plot_schedules, plot_scores, record, render
from scoresde.plotting.marginals import columns, density, extent
from scoresde.plotting.schedules import PANELS
from scoresde.samplers import SAMPLERS
from scoresde.sdes import SDES

LINE, PLANE = GaussianMixture.example(1), GaussianMixture.example(2)


def test_schedules_are_those_of_the_sdes() -> None:
    """Read back from the lines of the axes, for every SDE there is."""
    sdes = {name: make() for name, make in SDES.items()}
    figure: Any = plot_schedules(sdes)
    assert [ax.get_title() for ax in figure.axes] == list(PANELS.values())
    assert all(name in figure.get_label() for name in sdes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(sdes)
    for k, sde in enumerate(sdes.values()):
        lines = [ax.lines[k] for ax in figure.axes]
        assert figure.axes[0].get_xlabel() == "t / t_max"
        t = lines[0].get_xdata() * sde.t_max
        assert t[0] == pytest.approx(sde.t_min) and t[-1] == pytest.approx(sde.t_max)
        alpha, sigma, lam, decay, g2 = (line.get_ydata() for line in lines)
        at = torch.from_numpy(t)
        np.testing.assert_allclose(alpha, sde.alpha(at), rtol=1e-7)
        np.testing.assert_allclose(sigma, sde.sigma(at), rtol=1e-7)
        np.testing.assert_allclose(lam, np.log(alpha / sigma), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(-decay, sde.f(at), rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(g2, sde.g2(at), rtol=1e-6)


def test_time_is_t_where_the_sdes_end_alike() -> None:
    figure: Any = plot_schedules({"vp": scoresde.VPSDE(), "flow": scoresde.RectifiedFlow()})
    assert {ax.get_xlabel() for ax in figure.axes} == {"t"}
    assert figure.axes[0].lines[1].get_xdata()[-1] == scoresde.RectifiedFlow().t_max
    f, g2 = figure.axes[3].lines[0].get_ydata(), figure.axes[4].lines[0].get_ydata()
    np.testing.assert_allclose(2 * f, g2, rtol=1e-6)  # β of a VP-SDE


@pytest.mark.parametrize("name", SDES)
def test_every_density_of_the_image_integrates_to_one(name: str) -> None:
    sde = SDES[name]()
    (t, early), far = columns(sde, 12), name in ("ve", "edm")
    assert early is (name == "edm") and (np.diff(t) > 0).all()
    y = extent(LINE, sde, t, far)
    p = density(LINE, sde, t, y, far)
    assert p.shape == (len(y), len(t))
    np.testing.assert_allclose(np.trapezoid(p, y, axis=0), 1, atol=4e-3)


@pytest.mark.parametrize("name", ["vp", "edm"])
def test_paths_start_at_the_prior_and_end_where_sample_ends(name: str) -> None:
    sde, steps, paths, seed = SDES[name](), 12, 3, 5
    figure: Any = plot_marginals(LINE, sde, paths, steps=steps, seed=seed)
    left, *images, right = figure.axes
    far = name == "edm"
    assert left.get_ylabel() == ("x / √(α² + σ²)" if far else "x")
    grid = columns(sde, steps + 1)[0][::-1].tolist()
    scale = sde.prior_std() if far else 1.0
    start = SeededNoise(seed, range(paths))(START, 0, torch.zeros(paths, 1).double())[:, 0] * sde.prior_std() / scale
    for ax, sampler in zip(images, ("ddpm", "ode"), strict=True):
        lines = ax.lines[:paths]
        end = scoresde.sample(LINE.denoiser(sde), (paths, 1), sampler, grid=grid, seed=seed, dtype=torch.float64)
        to = sde.prior_std(end.times[-1]) if far else 1.0
        np.testing.assert_allclose([line.get_ydata()[0] for line in lines], start, rtol=1e-6)
        np.testing.assert_allclose([line.get_ydata()[-1] for line in lines], end.x[:, 0] / to, rtol=1e-6)
        assert lines[0].get_xdata().tolist() == list(end.times) and ax.get_xlabel() == "t"
        t, y = columns(sde)[0], left.lines[0].get_ydata()
        np.testing.assert_allclose(ax.collections[0].get_array(), density(LINE, sde, t, y, far))
    for ax, at in ((left, sde.t_min), (right, sde.t_max)):
        s = sde.prior_std(at) if far else 1.0
        exact = LINE.log_prob(torch.from_numpy(ax.lines[0].get_ydata() * s)[:, None], sde, at).exp() * s
        np.testing.assert_allclose(ax.lines[0].get_xdata(), exact, rtol=1e-6, atol=1e-12)


def test_arrows_are_the_exact_score() -> None:
    sde, times = scoresde.VPSDE(), [0.05, 0.4]
    figure: Any = plot_scores(PLANE, sde, times)
    for ax, t in zip(figure.axes, times, strict=True):
        (quiver,) = (part for part in ax.collections if hasattr(part, "U"))
        score = PLANE.score(torch.from_numpy(np.asarray(quiver.XY)), sde, t)
        np.testing.assert_allclose(np.stack([quiver.U, quiver.V], 1), score, rtol=1e-9, atol=1e-12)
        assert f"t = {t:g}" in ax.get_title() and ax.get_xlabel() == "x₁"
        assert len(ax.collections) == 2  # contours too
    of_model = plot_scores(PLANE.denoiser(sde), times=times, arrows=5)
    for ax, t in zip(of_model.axes, times, strict=True):
        (quiver,) = ax.collections
        score = PLANE.score(torch.from_numpy(np.asarray(quiver.XY)), sde, t)
        np.testing.assert_allclose(np.stack([quiver.U, quiver.V], 1), score, rtol=2e-3, atol=2e-3)  # in float32


def test_samples_are_the_existing_picture() -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8)).astype(np.uint8)
    figure: Any = plot_samples(x, np.array([0, 1, 0, 1, 1]))
    assert "5 samples of 2 classes" in figure.get_label()
    expected = np.asarray(Image.open(io.BytesIO(picture(x, np.array([0, 1, 0, 1, 1])))).convert("RGB"))
    shown = np.asarray(Image.open(io.BytesIO(render(figure))).convert("RGB"))
    np.testing.assert_array_equal(shown, expected)


def test_tensors_are_drawn_as_arrays_are() -> None:
    x, kinds = torch.rand(6, 2, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
    assert picture(x, kinds) == picture(x.numpy(), kinds.numpy())
    assert animate(x[None], [1.0], kinds) == animate(x.numpy()[None], [1.0], kinds.numpy())
    assert plot_samples(x, kinds).get_label() == "6 samples of 2 classes of shape (2,)."


@pytest.mark.parametrize("shape", [(6, 2), (3, 1), (5, 1, 8, 8), (5, 3, 8, 8), (5, 8, 8)])
def test_a_moving_picture_has_a_frame_for_each_state(shape: tuple[int, ...]) -> None:
    states = np.random.default_rng(0).normal(size=(4, *shape))
    with Image.open(io.BytesIO(animate(states, [1.0, 0.5, 0.2, 0.0]))) as film:
        assert film.format == "GIF" and film.n_frames == 4 and film.info["loop"] == 0
        frames = []
        for k in range(4):
            film.seek(k)
            frames.append(np.asarray(film.convert("RGB")))
    assert all((a != b).any() for a, b in itertools.pairwise(frames))


@pytest.mark.parametrize("shape", [(6, 2), (5, 1, 8, 8), (5, 3, 9, 7)])
def test_a_video_shows_what_the_moving_picture_shows(shape: tuple[int, ...]) -> None:
    states, times = np.random.default_rng(0).normal(size=(4, *shape)), [1.0, 0.5, 0.2, 0.0]
    with av.open(io.BytesIO(animate(states, times, form="mp4"))) as video:
        (stream,) = video.streams.video
        assert stream.codec_context.name == "h264" and stream.average_rate == 12.5
        shown = [frame.to_ndarray(format="rgb24").astype(float) for frame in video.decode(stream)]
    with Image.open(io.BytesIO(animate(states, times))) as film:
        for k in range(4):
            film.seek(k)
            frame = np.asarray(film.convert("RGB")).astype(float)
            off = [np.abs(each[: frame.shape[0], : frame.shape[1]] - frame).mean() for each in shown[:4]]
            assert off[k] < 0.5 * min(off[:k] + off[k + 1 :])  # half the colours and a palette lie between them
    assert len(shown) == 4 + 18 and {each.shape for each in shown} == {shown[0].shape}
    assert all(size % 2 == 0 for size in shown[0].shape[:2])  # players refuse odd ones
    assert max(np.abs(each - shown[3]).mean() for each in shown[4:]) < 2  # the last one stays


def test_a_record_is_the_run_of_sample() -> None:
    denoiser = PLANE.denoiser(scoresde.EDM())
    times, states = record(denoiser, (4, 2), "em", 6, seed=3)
    run = scoresde.sample(denoiser, (4, 2), "em", 6, seed=3)
    assert times.tolist() == list(run.times) and states.shape == (7, 4, 2)
    np.testing.assert_array_equal(states[-1], run.x.numpy())
    again = scoresde.sample(denoiser, (4, 2), "em", 6, seed=3, x=torch.from_numpy(states[0]))
    np.testing.assert_array_equal(again.x, run.x)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda: plot_schedules({}), "at least one"),
        (lambda: plot_marginals(PLANE, scoresde.VPSDE()), r"\(2,\)"),
        (lambda: plot_marginals(LINE, scoresde.VPSDE(), 0), "paths"),
        (lambda: plot_scores(LINE, scoresde.VPSDE()), r"\(1,\)"),
        (lambda: plot_scores(PLANE), "needs an sde"),
        (lambda: plot_scores(PLANE, scoresde.VPSDE(), [3.0]), "t = 3"),
        (lambda: animate(np.zeros((2, 3, 2)), [1.0]), "2 states and 1 times"),
        (lambda: animate(np.zeros((1, 3, 2)), [1.0], form="mp3"), "did you mean 'mp4'"),
        (lambda: animate(np.full((1, 3, 2), np.nan), [1.0]), r"states: nan at \[0, 0, 0\]"),
        (lambda: plot_samples(torch.tensor([[0.0, 1.0], [np.inf, 2.0]])), r"samples: inf at \[1, 0\]"),
        (lambda: render(plot_samples(np.zeros((3, 2))), "pgn"), "did you mean 'png'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        wrong()


STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "gif": b"GIF89a", "mp4": b"\0\0\0\x20ftyp"}


@pytest.mark.parametrize(
    "words",
    [
        "schedules vp edm --out a.png",
        "schedules --out a.svg",
        "marginals --paths 2 --steps 10 --out a.png",
        "marginals --means -1,1 --stds 0.2,0.3 --sde ve --paths 1 --steps 5 --out a.pdf",
        "scores --times 0.2 --out a.png",
        "scores --model datasaurus --times 0.2 --out a.svg",
        "samples moons --num 50 --out a.png",
        "trajectory --steps 3 --num 20 --out a.gif",
        "trajectory --steps 3 --num 20 --out a.mp4",
        "trajectory --model datasaurus --class dino --sampler ode --steps 2 --num 9 --out a.png",
        "trajectory --sampler auto --steps 4 --num 20 --out a.gif",
    ],
)
def test_commands_write_files_that_open(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["plot", *words.split()])
    assert done.exit_code == 0, (done.output, done.exception)
    (path,) = tmp_path.iterdir()
    assert done.stdout.strip() == path.name == words.split()[-1]
    content = path.read_bytes()
    assert content.startswith(STARTS[path.suffix[1:]])
    if path.suffix in (".png", ".gif"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 100
            described = words.split()[0] in ("schedules", "marginals", "scores", "samples")
            assert not described or image.info["Description"].endswith(".")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("schedules vpp", "did you mean 'vp'"),
        ("schedules --out a.jpg", "--out a.jpg: the name must end in .png, .svg or .pdf"),
        ("trajectory --out a.webm", "--out a.webm: the name must end in .gif, .mp4 or .png"),
        ("scores --out no/a.png", "no folder 'no'"),
        ("shedules", "did you mean 'schedules'"),
        ("marginals --means 1,2", "2, 3 and 2 numbers"),
        ("marginals --means 1 --stds 0", "above 0"),
        *(
            (f"marginals --{name} {value},1 --{other} 1,1", f"--{name} {value}: {name} must be finite numbers")
            for name, other in (("means", "stds"), ("stds", "means"))
            for value in ("nan", "inf", "-inf", "1e+200")
        ),
        ("marginals --means 1,2 --stds 1,1 --weights inf,1", "--weights inf: weights must be finite numbers"),
        ("scores --times 7", "t = 7"),
        ("scores --model datasaurus --sde vp", "give one"),
        ("trajectory --class dino", "give a --model"),
        ("trajectory --sampler dimm", "did you mean 'ddim'"),
        *(
            (f"trajectory --sampler {name} --steps 5", f"--sampler {name}: each sample has steps of its own")
            for name, sampler in SAMPLERS.items()
            if not sampler.build
        ),
        ("trajectory --weights raw", "--weights raw: give a --model"),
        ("scores --device cuda", "--device cuda: give a --model"),
        ("scores --model datasaurus --weights rew", "unknown weights 'rew'"),
    ],
)
def test_a_mistake_is_one_line(words: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["plot", *words.split()])
    assert done.exit_code == 2 and what in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", ["schedules --out {}.png", "scores --out {}.svg", "trajectory --out {}.mp4"])
def test_a_file_that_cannot_be_written_is_told_first(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **how: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.chdir(tmp_path)
    for name in ("render", "record"):
        monkeypatch.setattr(scoresde.plotting, name, lambda *_, **how: pytest.fail("drawn"))
    args = words.format("taken").split()
    Path(args[-1]).mkdir()
    done = CliRunner().invoke(main, ["plot", *args])
    assert done.exit_code == 2 and f"--out {args[-1]}: a folder has that name" in done.stderr
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    done = CliRunner().invoke(main, ["plot", *words.format("a").split()])
    assert done.exit_code == 5 and "cannot write into '.': Permission denied" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == args[-1:]


def test_frames_of_auto_are_those_of_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out, args in (("a.png", ["--sampler", "auto"]), ("b.png", ["--sampler", "auto", "--model", "datasaurus"])):
        words = ["plot", "trajectory", *args, "--steps", "6", "--num", "9", "--out", out]
        assert CliRunner().invoke(main, words).exit_code == 0
    times, states = record(PLANE.denoiser(scoresde.VPSDE()), (9, 2), "auto", nfe=6)
    shown = np.unique(np.linspace(0, len(times) - 1, COLUMNS).round().astype(int))
    assert Path("a.png").read_bytes() == film(states[shown], [f"t = {t:.2g}" for t in times[shown]])


def test_a_video_without_its_library_is_refused_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(scoresde.plotting, "record", None)
    done = CliRunner().invoke(main, ["plot", "trajectory", "--out", "a.mp4"])
    assert done.exit_code == 2 and "pip install 'scoresde[video]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", ["scores --times 0.2", "trajectory --sampler ode --steps 2 --num 9"])
def test_the_weights_that_are_drawn_are_those_asked_for(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tensors, info = load_checkpoint(find_model("datasaurus"))
    raw = {key.replace("ema/", "raw/"): -value for key, value in tensors.items() if key.startswith("ema/")}
    save_checkpoint("both.safetensors", tensors | raw, info)
    raw = {key.replace("raw/", "ema/"): value for key, value in raw.items()}
    save_checkpoint("other.safetensors", tensors | raw, info)
    found = list[bytes]()
    for model in (["both"], ["both", "--weights", "raw"], ["other", "--device", "cpu"]):
        args = ["plot", *words.split(), "--out", "a.png", "--model", f"{model[0]}.safetensors", *model[1:]]
        assert CliRunner().invoke(main, args).exit_code == 0
        found.append(Path("a.png").read_bytes())
    assert found[0] != found[1] == found[2]


ALONE = """
import sys, scoresde, scoresde.plotting as plotting
assert "matplotlib" not in sys.modules
import matplotlib
before = matplotlib.rcParams.copy()  # dict(rcParams) would look for a backend, through pyplot
plotting.render(plotting.plot_schedules({"vp": scoresde.VPSDE()}), "svg")
plotting.render(plotting.plot_marginals(scoresde.GaussianMixture.example(1), scoresde.EDM(), 2, steps=4))
plotting.render(plotting.plot_scores(scoresde.GaussianMixture.example(2), scoresde.VPSDE(), [0.3]))
after = matplotlib.rcParams.copy()
assert "matplotlib.pyplot" not in sys.modules
assert list(dict.items(before)) == list(dict.items(after))
"""


def test_nothing_global_is_touched() -> None:
    """matplotlib is loaded when something is drawn, pyplot never, and the user's settings stay."""
    subprocess.run([sys.executable, "-W", "error", "-c", ALONE], check=True)
