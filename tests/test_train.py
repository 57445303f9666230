"""Training: it learns, it is a function of its config and data alone, and it survives kills, NaN and odd units."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde
from scoresde import BadInput, TrainingStopped, load_model
from scoresde.checkpoint import load_checkpoint
from scoresde.config import Config, parse_config
from scoresde.data import Dataset, Scaler, load
from scoresde.denoiser import FORMS
from scoresde.losses import WEIGHTINGS
from scoresde.sdes import SDES
from scoresde.train import objective, train
from scoresde.train.draws import batch_rows
from scoresde.train.keep import CHECKPOINT, MODEL
from scoresde.train.run import Run, learning_rate

MLP = {"name": "mlp", "width": 32, "depth": 1, "features": 16}
UNET = {"name": "unet", "channels": 6, "multipliers": [1], "blocks": 1, "attention": [], "heads": 1, "dropout": 0.3}
ENCODER = {"name": "encoder", "channels": 6, "multipliers": [1, 2], "blocks": 1, "heads": 1, "dropout": 0.3}


def configured(network: dict | None = None, data: dict | None = None, **options: object) -> Config:
    """A small config: keys of `Config` and of its section ``train`` mixed."""
    top = {key: options.pop(key) for key in ("task", "sde", "prediction", "learned_variance", "time") if key in options}
    options = {"steps": 20, "batch_size": 16, "warmup": 3, "ema": 0.9, "report": False, **options}
    data = {"name": "moons", "options": {"n": 64}, **(data or {})}
    return parse_config(
        {"data": data, "network": network or MLP, "time": "t", "prediction": "v", **top, "train": options}
    )


def points(n: int = 64, classes: int = 3) -> Dataset:
    x = load("moons", n=n).x
    return Dataset(x, torch.arange(n) % classes, tuple("abcdefghijklm"[:classes]), name="moons")


def pictures(n: int = 24) -> Dataset:
    x = torch.randint(256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset(x, torch.arange(n) % 3, ("a", "b", "c"), name="noise")


def state(run: Run) -> dict[str, Tensor]:
    """Copies of the weights, the average and the optimiser's state."""
    optimiser = run.optimiser.state_dict()["state"]
    return {
        **{f"raw/{k}": v.detach().clone() for k, v in run.network.state_dict().items()},
        **{f"ema/{k}": v.clone() for k, v in run.ema.weights.items()},
        **{f"opt/{i}/{k}": v.clone() for i, entry in optimiser.items() for k, v in entry.items()},
        **{f"data/{k}": v for k, v in run.moments.items()},
        **{f"objective/{k}": v.clone() for k, v in run.objective.state().items()},
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


DATASAURUS = {"name": "mlp", "width": 192, "depth": 4, "features": 64, "scales": [0.25, 1.0]}  # the shipped model's
LEARNED = {"sde": {"name": "ddpm", "betas": "cosine", "N": 20}, "prediction": "eps", "learned_variance": True}
KINDS: dict[str, tuple[dict, Callable[[], Dataset], dict]] = {
    "points": (MLP, lambda: load("moons", n=64), {}),
    "classes": (MLP, points, {"weight_decay": 0.1}),
    "pictures": (UNET, pictures, {"time": "1000t", "flip": True}),
    "bf16": (UNET, pictures, {"time": "1000t", "precision": "bf16"}),
    "chain": (MLP, points, {"sde": {"name": "ddpm"}, "times": "index"}),
    "hybrid": (UNET, pictures, {**LEARNED, "objective": "hybrid", "times": "index", "weighting": "min_snr:3"}),
    "bound": (MLP, points, {**LEARNED, "objective": "vlb", "times": {"name": "loss_aware", "history": 1}}),
    "bound of an SDE": (MLP, points, {"objective": "vlb", "times": {"name": "index", "N": 30}}),
    "sliced": (MLP, points, {"prediction": "score", "objective": "sliced", "times": "levels"}),
    "edm": (MLP, points, {"sde": {"name": "edm"}, "prediction": "edm", "times": "lognormal", "uncertainty": True}),
    "flow": (MLP, points, {"sde": {"name": "flow"}, "prediction": "flow", "times": "logitnormal"}),
    "classifier": (ENCODER, pictures, {"task": "classifier", "time": "1000t", "times": "loss_aware"}),
    "distillation": (
        DATASAURUS,
        lambda: points(classes=13),
        {"init": "datasaurus", "objective": "distillation", "guidance": 3.0},
    ),
    "likelihood": (MLP, points, {"weighting": "likelihood", "times": "importance", "prediction": "eps"}),
}


def made(kind: str, **more: object) -> Run:
    network, data, options = KINDS[kind]
    scaler = {"scaler": "image"} if data is pictures else {}
    network = more.pop("network", network)
    return Run(configured(network, scaler, **{**options, **more}), data())


def distance(a: Tensor, b: Tensor) -> float:
    """Sliced Wasserstein-1: the mean gap between sorted projections on 64 directions, for as many points."""
    angle = torch.linspace(0, math.pi, 65)[:-1]
    directions = torch.stack([angle.cos(), angle.sin()])
    return float(((a @ directions).sort(0).values - (b @ directions).sort(0).values).abs().mean())


def drawn(denoiser: scoresde.Denoiser, scaler: Scaler, n: int = 1000, steps: int = 10) -> Tensor:
    return scaler.decode(scoresde.sample(denoiser, (n, 2), "ode", steps).x)


# ------------------------------------------------------------------------------------------------------------ learning


def test_training_learns_the_data(tmp_path: Path) -> None:
    """The loss falls by far more than its own noise, and samples come four times nearer to fresh data."""
    network = {**MLP, "width": 64, "depth": 2, "features": 32}
    options = {"steps": 300, "batch_size": 256, "warmup": 20, "ema": 0.98, "lr": 1e-2}
    config = configured(network, {"name": "gaussians", "options": {"n": 4000}}, **options)
    seen: list[tuple[int, dict[str, float]]] = []
    path = train(config, tmp_path / "run", report=lambda step, figures: seen.append((step, figures)))
    assert path == tmp_path / "run" / MODEL and [step for step, _ in seen] == list(range(1, 301))
    assert all(math.isfinite(v) and v > 0 for _, figures in seen for v in figures.values())
    losses = torch.tensor([figures["loss"] for _, figures in seen])
    early, late = losses[:30], losses[-30:]
    assert early.mean() - late.mean() > 5 * math.sqrt((early.var() + late.var()) / 30)
    untrained, model = Run(config, load("gaussians", n=4000)), load_model(path)
    fresh = load("gaussians", n=4000, seed=1).x
    far = distance(drawn(untrained.denoiser, untrained.scaler, 4000), fresh)
    assert distance(drawn(model.denoiser, model.scaler, 4000), fresh) < far / 4


def test_a_young_average_is_not_noise() -> None:
    """After 100 steps samples of the average are about as near as those of the weights themselves."""
    data = load("moons", n=2000)
    run = Run(configured({**MLP, "width": 64, "depth": 2}, steps=100, batch_size=256, ema=0.9999, lr=3e-3), data)
    for _ in range(100):
        run.advance()
    raw = distance(drawn(run.denoiser, run.scaler), data.x[:1000])
    run.network.load_state_dict(run.ema.weights)
    assert distance(drawn(run.denoiser, run.scaler), data.x[:1000]) <= 1.5 * raw


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("form", FORMS)
def test_every_sde_and_prediction_trains(name: str, form: str) -> None:
    """Every step is finite and moves every weight."""
    run = Run(configured(sde={"name": name}, prediction=form, time="log_sigma/4"), points())
    before = state(run)
    for _ in range(5):
        assert math.isfinite(run.advance()["loss"]) and run.skipped == 0
    assert not any(torch.equal(before[key], value) for key, value in state(run).items() if key.endswith("weight"))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", ["vp", "ddpm"])
def test_every_weighting_trains(weighting: str, name: str) -> None:
    """Under DDPM on the chain's own indices, the last one included."""
    times = "index" if name == "ddpm" else "uniform"
    run = Run(configured(sde={"name": name}, weighting=weighting, times=times, steps=10), points())
    before = state(run)
    for _ in range(10):
        assert math.isfinite(run.advance()["loss"]) and run.skipped == 0
    assert not any(torch.equal(before[key], value) for key, value in state(run).items() if key.endswith("weight"))


@pytest.mark.parametrize("times", ["index", "loss_aware", "uniform"])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_finite_at_the_last_time_is_refused(form: str, times: str) -> None:
    """Under zero terminal SNR, where λ has no end; what is not refused has finite losses there."""
    data, refused = points(), set[str]()
    last = torch.ones(2) if times != "uniform" else torch.full((2,), 1 - 2**-24)
    for weighting in (*WEIGHTINGS, "uncertainty"):
        options = {"uncertainty": True} if weighting == "uncertainty" else {"weighting": weighting}
        config = configured(sde={"name": "ddpm", "zero_terminal_snr": True}, prediction=form, times=times, **options)
        try:
            made = Run(config, data).objective
        except BadInput as error:
            why = f"train.{next(iter(options))}" if form in ("v", "x0") else f"'{form}' prediction gives no x0"
            assert why in str(error) and "at t = 1" in str(error)
            refused.add(weighting)
            continue
        noise = torch.randn(2, 2, generator=torch.Generator().manual_seed(0))
        for losses in made(data.x[:2], last, noise, None, {"y": torch.zeros(2, dtype=torch.long)}):
            assert losses.isfinite().all(), weighting
    if form not in ("v", "x0"):
        assert refused == {*WEIGHTINGS, "uncertainty"}
    elif times != "uniform":
        assert refused == {"likelihood", "sigmoid", "uncertainty"}
    assert "snr" not in refused or form not in ("v", "x0")


def test_units_do_not_matter() -> None:
    """Data shifted by 50 and scaled by 7: the same run in scaled space, the same samples in the data's own."""
    data = load("moons", n=512)
    moved = Dataset(7 * data.x + 50, name="moved")
    one, two = runs = [Run(configured(steps=100, batch_size=64), d) for d in (data, moved)]
    for run in runs:
        for _ in range(100):
            run.advance()
    weights = zip(state(one).values(), state(two).values(), strict=True)
    assert all((a - b).abs().max() < 1e-3 for a, b in weights)
    x, y = (drawn(run.denoiser, run.scaler) for run in runs)
    assert ((y - 50) / 7 - x).abs().max() < 1e-3
    near = 4 * moved.x.std(0) / math.sqrt(len(y))  # and so is their mean, to what 1,000 samples can tell
    assert ((y.mean(0) - moved.x.mean(0)).abs() < near + 0.1 * moved.x.std(0)).all()


# ----------------------------------------------------------------------------------------------------- order and rates


@pytest.mark.parametrize("size, batch", [(10, 1), (10, 3), (10, 5), (10, 10), (7, 7), (7, 4), (1, 1), (5, 13)])
def test_each_epoch_is_a_permutation(size: int, batch: int) -> None:
    steps = range(4 * size)
    order = torch.cat([batch_rows(size, batch, 3, step) for step in steps])
    assert len(order) == len(steps) * batch and all(len(batch_rows(size, batch, 3, step)) == batch for step in steps)
    epochs = order[: len(order) // size * size].reshape(-1, size)
    assert torch.equal(epochs.sort(1).values, torch.arange(size).expand(len(epochs), -1))


def test_rows_are_a_function_of_seed_and_step() -> None:
    one = [batch_rows(50, 8, 0, step) for step in range(30)]
    assert all(torch.equal(one[step], batch_rows(50, 8, 0, step)) for step in reversed(range(30)))
    assert torch.equal(torch.cat(one), torch.cat([batch_rows(50, 16, 0, step) for step in range(15)]))
    epochs = [tuple(batch_rows(50, 50, seed, step).tolist()) for seed in range(4) for step in range(4)]
    assert len(set(epochs)) == 16 and tuple(range(50)) not in epochs


@pytest.mark.parametrize("warmup", [0, 1, 10, 30])
@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_the_learning_rate_rises_in_a_line_and_ends_where_it_says(warmup: int, decay: str) -> None:
    config = configured(steps=100, warmup=warmup, lr=0.5, decay=decay)
    rates = [learning_rate(config, step) for step in range(101)]
    assert rates[: warmup + 1] == pytest.approx([0.5 * (k + 1) / warmup for k in range(warmup)] + [0.5])
    if decay == "none":
        assert set(rates[warmup:]) == {0.5}
    else:
        falling = torch.tensor(rates[warmup:], dtype=torch.float64)
        assert rates[100] == pytest.approx(0, abs=1e-15) and (falling.diff() < 0).all()
        assert (falling + falling.flip(0)).numpy() == pytest.approx(0.5)  # half a cosine is odd about its middle


def test_the_optimiser_uses_that_rate() -> None:
    """The first step of Adam moves each weight by the rate times the sign of its gradient."""
    run = made("points", lr=0.01, warmup=4, clip=1e9)
    before = state(run)
    run.advance()
    after = state(run)
    for i, (name, _) in enumerate(run.network.named_parameters()):
        gradient = after[f"opt/{i}/exp_avg"]
        large = gradient.abs() > 1e-4
        moved = (after[f"raw/{name}"] - before[f"raw/{name}"])[large]
        assert moved == pytest.approx(-0.0025 * gradient[large].sign(), rel=1e-2)


# ---------------------------------------------------------------------------------------------------------- not finite


def not_finite(monkeypatch: pytest.MonkeyPatch, steps: Callable[[int], bool], kind: str, runs: list[Run]) -> None:
    """Make the loss, or only its gradient, NaN at the chosen steps (counted from 0) of the last of ``runs``."""
    real = objective.denoising_loss

    def loss(denoiser: scoresde.Denoiser, *args: object, **cond: object) -> Tensor:
        losses = real(denoiser, *args, **cond)
        if not steps(runs[-1].step):
            return losses
        if kind == "loss":
            return losses * torch.tensor([math.nan] + [1.0] * (len(losses) - 1))
        if kind == "infinite":
            return losses * math.inf
        assert isinstance(denoiser.network, torch.nn.Module)
        return losses + (0 * next(denoiser.network.parameters()).sum()).sqrt()  # value 0, derivative 0 · ∞

    monkeypatch.setattr(objective, "denoising_loss", loss)
    advance = Run.advance

    def advanced(run: Run) -> dict[str, float]:
        runs.append(run)
        return advance(run)

    monkeypatch.setattr(Run, "advance", advanced)


@pytest.mark.parametrize("kind", ["loss", "infinite", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    not_finite(monkeypatch, lambda step: step == 3, kind, [])
    run = made("classes")
    for _ in range(3):
        run.advance()
    before = state(run)
    figures = run.advance()
    assert same(before, state(run)) and run.step == 4 and run.skipped == 1
    assert not all(math.isfinite(v) for v in figures.values()) and math.isfinite(figures["loss"]) == (
        kind == "gradient"
    )
    run.advance()
    assert not same(before, state(run)) and run.step == 5 and run.skipped == 0
    assert all(torch.isfinite(value).all() for value in state(run).values())


@pytest.mark.parametrize("kind", ["loss", "infinite", "gradient"])
def test_ten_steps_in_a_row_stop_the_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(steps=40, checkpoint_every=1000)
    not_finite(monkeypatch, lambda step: step >= 12, kind, runs := [])
    with pytest.raises(
        TrainingStopped, match=r"step 22: ten steps in a row not finite \((at t = .*)?gradient norm"
    ) as caught:
        train(config, tmp_path / "run")
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    tensors, info = load_checkpoint(tmp_path / "run" / CHECKPOINT)
    assert info["step"] == 22 and same(tensors, state(runs[-1])) and not (tmp_path / "run" / MODEL).exists()
    monkeypatch.undo()
    reference = Run(config, load("moons", n=64))
    for _ in range(12):
        reference.advance()
    assert same(tensors, state(reference))  # the last good weights
    assert torch.isfinite(drawn(load_model(tmp_path / "run").denoiser, reference.scaler, 10)).all()
    train(config, tmp_path / "run", resume=True)
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT)[1]["step"] == 40


def test_nine_in_a_row_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    not_finite(monkeypatch, lambda step: step % 10 != 0, "loss", [])
    train(configured(steps=41), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT)[1]["step"] == 41


@pytest.mark.parametrize("bad", [1, 9])
def test_a_run_that_ends_on_bad_steps_writes_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    not_finite(monkeypatch, lambda step: step >= 40 - bad, "loss", [])
    with pytest.raises(TrainingStopped, match=f"step 40: the run ended on {bad} step"):
        train(configured(steps=40), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run" / CHECKPOINT)[1]["skipped"] == bad
    assert not (tmp_path / "run" / MODEL).exists()


def test_a_resumed_run_counts_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after six bad steps, it stops after four more: at the same step as the uninterrupted run."""
    not_finite(monkeypatch, lambda step: step >= 2, "loss", [])
    run, again = made("points"), made("points")
    for _ in range(8):
        run.advance()
    run.save(tmp_path / "checkpoint")
    again.restore(tmp_path / "checkpoint")
    for _ in range(3):
        again.advance()
    with pytest.raises(TrainingStopped, match="step 12"):
        again.advance()


# ----------------------------------------------------------------------------------------------- what networks are fed


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_labels_are_dropped_for_the_null_class_at_the_asked_rate(rate: float) -> None:
    run, seen = made("classes", label_dropout=rate), []
    run.network.register_forward_pre_hook(lambda module, args, cond: seen.append(cond["y"]), with_kwargs=True)
    for _ in range(60):
        run.advance()
    assert run.data.labels is not None
    given = torch.stack([run.data.labels[batch_rows(64, 16, 0, step)] for step in range(60)])
    y = torch.stack(seen)
    dropped = y == 3
    assert torch.equal(y[~dropped], given[~dropped])
    spread = math.sqrt(rate * (1 - rate) / y.numel())
    assert abs(float(dropped.float().mean()) - rate) <= 4 * spread


def test_images_keep_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen, real = made("pictures", flip=False, label_dropout=0.0), [], objective.denoising_loss

    def spy(denoiser: scoresde.Denoiser, x0: Tensor, *args: object, **cond: Tensor) -> Tensor:
        seen.append((x0, cond["y"]))
        return real(denoiser, x0, *args, **cond)

    monkeypatch.setattr(objective, "denoising_loss", spy)
    run.advance()
    ((x0, y),) = seen
    for image, label in zip(x0, y, strict=True):
        row = (run.scaler.encode(run.data.x) == image).flatten(1).all(1).nonzero().item()
        assert run.data.labels is not None and label == run.data.labels[row]


def test_data_without_labels_are_trained_without() -> None:
    run, seen = made("points"), []
    run.network.register_forward_pre_hook(lambda module, args, cond: seen.append(cond), with_kwargs=True)
    run.advance()
    assert seen == [{}]


def test_keys_of_labels_need_labels() -> None:
    """Of the data, and classes of the network; a rate left at its default is not counted, nor are a start's classes."""
    plain = load("moons", n=64)
    for network, options, data, message in (
        (MLP, {"label_dropout": 0.2}, plain, "train.label_dropout = 0.2: moons has no labels"),
        ({**MLP, "classes": 2}, {}, plain, "network.classes = 2: moons has no labels"),
        (
            {**MLP, "classes": 0},
            {"label_dropout": 0.2},
            points(),
            "train.label_dropout = 0.2: a network with classes: 0",
        ),
    ):
        with pytest.raises(BadInput, match=message) as caught:
            Run(configured(network, **options), data)
        assert "\n" not in str(caught.value)
    for network, options, data in (
        (MLP, {"label_dropout": 0.0}, plain),
        ({**MLP, "classes": 0}, {"label_dropout": 0.1}, plain),
        (MLP, {"label_dropout": 0.2}, points()),
        ({**DATASAURUS, "classes": 13}, {"init": "datasaurus"}, plain),
    ):
        assert math.isfinite(Run(configured(network, **options), data).advance()["loss"])


@pytest.mark.parametrize("flip", [False, True])
def test_images_are_mirrored_half_of_the_time(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen, real = made("pictures", flip=flip), [], objective.denoising_loss
    monkeypatch.setattr(
        objective, "denoising_loss", lambda d, x0, *args, **cond: seen.append(x0) or real(d, x0, *args, **cond)
    )
    for _ in range(20):
        run.advance()
    given = torch.cat([run.scaler.encode(run.data.x[batch_rows(24, 16, 0, step)]) for step in range(20)])
    x0 = torch.cat(seen)
    plain, mirrored = (x0 == given).flatten(1).all(1), (x0 == given.flip(-1)).flatten(1).all(1)
    assert (plain ^ mirrored).all()
    assert abs(float(mirrored.float().mean()) - 0.5 * flip) <= 4 * math.sqrt(0.25 * flip / len(x0))


@pytest.mark.parametrize("kind", ["classes", "pictures"])
def test_half_precision_is_for_the_network_alone(kind: str) -> None:
    """Under bf16 the network's layers compute in bfloat16; weights, average, optimiser and loss stay float32."""
    run, full, dtypes = made(kind, precision="bf16"), made(kind), set()
    layers = [m for m in run.network.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    for layer in layers:
        layer.register_forward_hook(lambda module, args, out: dtypes.add(out.dtype))
    losses = [(run.advance()["loss"], full.advance()["loss"]) for _ in range(5)]
    assert all(half == pytest.approx(exact, rel=0.05) for half, exact in losses) and losses[-1][0] != losses[-1][1]
    assert layers and dtypes == {torch.bfloat16}
    assert {value.dtype for value in state(run).values()} == {torch.float32}
    assert all((a - b).abs().max() < 0.05 for a, b in zip(state(run).values(), state(full).values(), strict=True))


def test_global_random_state_is_neither_read_nor_changed(tmp_path: Path) -> None:
    models = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state(), str(np.random.get_state())
            path = train(configured(UNET, time="1000t", steps=3), tmp_path / str(seed), data=pictures())
            assert torch.equal(torch.get_rng_state(), before[0]) and str(np.random.get_state()) == before[1]
            models.append(path.read_bytes())
    assert models[0] == models[1]


def test_a_model_knows_the_moments_of_its_scaled_data(tmp_path: Path) -> None:
    """Of each class and, last, of all; an analytic start by class takes a row for each sample."""
    data = points()
    model = load_model(train(configured({**MLP, "classes": 3}, steps=1), tmp_path / "run", data=data))
    x, labels = model.scaler.encode(data.x).double(), data.labels
    assert model.moments is not None and labels is not None
    for row, part in enumerate([*(x[labels == k] for k in range(3)), x]):
        assert (model.moments[0][row] - part.mean(0)).abs().max() < 1e-6
        assert float(model.moments[1][row]) == pytest.approx(float(part.var(0, correction=0).mean()), rel=1e-4)
    y = torch.tensor([2, 0, 2, 1])
    noise = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    together = model.start(2.0, y).state(model.sde, noise)
    for k in range(4):
        alone = model.start(2.0, y[k : k + 1]).state(model.sde, noise[k : k + 1])
        assert torch.equal(together[k : k + 1], alone)
    assert not torch.equal(together, model.start(2.0).state(model.sde, noise))


def test_networks_are_told_of_augmentation() -> None:
    """Labels of what was done to each image; an image that is told zeros is the image itself."""
    run, seen = made("pictures", flip=False, augment=0.3, network={**UNET, "augment": 9}), []
    run.objective.register_forward_pre_hook(lambda module, args: seen.append((args[0], args[4]["augment"])))
    for _ in range(8):
        run.advance()
    x0, told = (torch.cat(each) for each in zip(*seen, strict=True))
    given = torch.cat([run.scaler.encode(run.data.x[batch_rows(24, 16, 0, step)]) for step in range(8)])
    same_image = (x0 == given).flatten(1).all(1)
    assert torch.equal(same_image, (told == 0).all(1)) and 0 < int(same_image.sum()) < len(x0)


@pytest.mark.parametrize("kind", ["classes", "pictures"])
def test_who_reads_the_data_does_not_matter(kind: str, tmp_path: Path) -> None:
    """Worker processes, a set that stays on the disk: the same weights, bitwise."""
    runs = [made(kind), made(kind, workers=2)]
    data = runs[0].data
    if kind == "pictures":
        assert data.labels is not None
        np.savez(tmp_path / "x.npz", images=data.x.numpy(), labels=data.labels.numpy(), classes=list(data.classes))
        streamed = load(tmp_path / "x.npz", stream=True)
        runs.append(Run(runs[0].config, streamed))
    for run in runs:
        for _ in range(3):
            run.advance()
        run.close()
    for run in runs[1:]:
        assert same(state(runs[0]), state(run))


def test_augmentation_needs_a_network_that_listens() -> None:
    with pytest.raises(BadInput, match=r"train.augment: the network must be told of it: network.augment = 9"):
        made("pictures", augment=0.1)
    with pytest.raises(BadInput, match=r"train.augment: only for images"):
        made("points", augment=0.1)


def test_constant_data_are_refused() -> None:
    with pytest.raises(BadInput, match="constant"):
        Run(configured(), Dataset(torch.ones(64, 2), name="ones"))
