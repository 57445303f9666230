"""Configs: those that ship work, and every mistake in one is a line that names what is allowed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from scoresde import BadInput
from scoresde.config import Config, Data, Train, load_config, parse_config
from scoresde.construct import construct
from scoresde.data import TOY, Dataset, available, load
from scoresde.data.public import PUBLIC
from scoresde.model import build, build_classifier
from scoresde.nn import NETWORKS
from scoresde.sdes import SDES
from scoresde.train.run import Run

ALL = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
CONFIGS = [path for path in ALL if not path.stem.endswith("_cifar10")]  # the published ones: test_recipes.py
CHANNELS = {"etth1": 7}  # of named series
SMALL = {"data": {"name": "moons"}, "network": {"name": "mlp"}}


def stand_in(config: Config, n: int = 8) -> Dataset:
    """Random data of the kind that a config's name and options imply."""
    name, y, window = config.data.name, torch.arange(n) % 2, config.data.options.get("window")
    if name in TOY:
        return load(name, n=n)
    if name in PUBLIC:
        images = torch.randint(256, (n, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return Dataset(images, y, PUBLIC[name].classes, name=name)
    if window:
        walks = torch.randn(n, CHANNELS[name], window, generator=torch.Generator().manual_seed(0)).cumsum(2)
        return Dataset(walks, name=name, series=True)
    assert name == "datasaurus"
    return Dataset(torch.randn(n, 2, generator=torch.Generator().manual_seed(0)), y, tuple("abcdefghijklm"), name=name)


def refused(values: object, source: str = "config") -> str:
    with pytest.raises(BadInput) as caught:
        parse_config(values, source)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(source)
    return text


def test_a_series_is_learnt_by_its_config() -> None:
    """Twenty steps of etth1 on walks: every one finite, and the loss of the same draws is lower afterwards."""
    config = load_config(next(path for path in CONFIGS if path.stem == "etth1"))
    small = config.train.model_copy(update={"batch_size": 16, "warmup": 0})
    data = stand_in(config, 32)
    run = Run(config.model_copy(update={"train": small}), data)
    t = torch.linspace(0.01, 1, 32)
    given = (run.scaler.encode(data.x), t, torch.randn(data.x.shape, generator=torch.Generator().manual_seed(1)))

    def loss() -> float:
        with torch.no_grad():
            return float(run.objective(*given, None, {})[0].mean())

    before = loss()
    for _ in range(20):
        run.advance()
    assert run.scaler.axis == -2 and len(run.scaler.shift) == CHANNELS["etth1"]
    assert run.skipped == 0 and loss() < before


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_trains(path: Path, tmp_path: Path) -> None:
    """Its data exist, its SDE and network are built, and a step on data of its shape is finite."""
    config = load_config(path)
    assert config.data.name in available()
    data = stand_in(config)
    x = torch.randn(2, *data.event_shape, generator=torch.Generator().manual_seed(0))
    if config.task == "classifier":
        made, _ = build_classifier(config, data.event_shape, tuple(data.classes))
        assert made.logits(x, made.sde.t_max / 2).shape == (2, data.num_classes)
    else:
        made, _ = build(config, data.event_shape, data.num_classes)
        assert made.x0(x, made.sde.t_max / 2).shape == x.shape and made.prediction == config.prediction
    assert type(made.sde) is type(construct("sde", SDES, config.sde))
    small = {"batch_size": 4, "init": None, "compile": False}

    def of(**more: object) -> Config:
        return config.model_copy(update={"train": config.train.model_copy(update={**small, **more})})

    if config.train.objective == "distillation":  # of a teacher that is not there yet
        Run(of(objective="denoising", guidance=1.0), data).save(tmp_path / "teacher")
        small["init"] = str(tmp_path / "teacher")
    run = Run(of(), data)
    run.advance()
    assert run.step == 1 and run.skipped == 0
    assert config.train.steps % config.train.checkpoint_every == 0 and config.train.warmup < config.train.steps


def test_shipped_configs_are_named_by_their_data() -> None:
    assert {"datasaurus", "swiss_roll", "mnist", "fashion_mnist", "etth1"} <= {path.stem for path in CONFIGS}
    assert all(path.stem.startswith(load_config(path).data.name) for path in CONFIGS)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_config_comes_back_from_its_own_json(path: Path) -> None:
    """What a checkpoint stores is the config, defaults filled in."""
    config = load_config(path)
    assert parse_config(config.model_dump(mode="json")) == config
    assert config.model_dump(mode="json")["train"].keys() == Train.model_fields.keys()


def test_configs_are_values() -> None:
    config = parse_config(SMALL)
    assert config == parse_config(SMALL) and config != parse_config({**SMALL, "time": "t"})
    with pytest.raises(Exception, match="frozen"):
        config.time = "t"


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("place, model", [((), Config), (("data",), Data), (("train",), Train)], ids=str)
def test_an_unknown_key_names_the_nearest(place: tuple[str, ...], model: type) -> None:
    """At each level, for each key with two letters swapped."""
    for key in model.model_fields:
        typo = key[:-2] + key[-1] + key[-2] if len(key) > 2 else key + "_"
        section = {**SMALL, place[0]: {**SMALL.get(place[0], {}), typo: 1}} if place else {**SMALL, typo: 1}
        text = refused(section, "run.yaml")
        assert text.startswith(f"run.yaml: unknown key '{'.'.join((*place, typo))}': choose from ")
        assert text.endswith(f"; did you mean '{key}'?") and ", ".join(model.model_fields) in text


@pytest.mark.parametrize(
    "train, message",
    [
        *(({"steps": v}, f"train.steps = {v!r}: ") for v in (0, -1, 2.5, "many", None, [1])),
        *(({"batch_size": v}, f"train.batch_size = {v!r}: ") for v in (0, 1.5)),
        *(({"lr": v}, f"train.lr = {v!r}: ") for v in (0, -1e-3, "fast", float("nan"), float("inf"))),
        *(({"warmup": v}, f"train.warmup = {v!r}: ") for v in (-1, 0.5)),
        *(({"decay": v}, f"train.decay = {v!r}: input should be 'none' or 'cosine'") for v in ("linear", 3)),
        *(({"weight_decay": v}, f"train.weight_decay = {v!r}: ") for v in (-1, float("nan"))),
        *(({"clip": v}, f"train.clip = {v!r}: ") for v in (0, -1, float("nan"))),
        *(({"ema": v}, f"train.ema = {v!r}: ") for v in (-0.1, 1, 2, float("nan"))),
        *(({"label_dropout": v}, f"train.label_dropout = {v!r}: ") for v in (-0.1, 1.1)),
        *(
            ({"precision": v}, f"train.precision = {v!r}: input should be 'auto', 'float32' or 'bf16'")
            for v in ("fp16", 16)
        ),
        *(({"seed": v}, f"train.seed = {v!r}: ") for v in (-1, 0.5)),
        *(({"checkpoint_every": v}, f"train.checkpoint_every = {v!r}: ") for v in (0, -5)),
        *(({key: "maybe"}, f"train.{key} = 'maybe': ") for key in ("flip", "uncertainty")),
    ],
)
def test_wrong_types_and_ranges(train: dict, message: str) -> None:
    assert message in refused({**SMALL, "train": train})


@pytest.mark.parametrize(
    "values, message",
    [
        (None, "a mapping of task, data, sde, network, prediction, learned_variance, time, train is needed"),
        ([SMALL], "a mapping of"),
        ("data: moons", "a mapping of"),
        ({}, "data is missing"),
        ({**SMALL, "task": "clasifier"}, "task = 'clasifier': input should be 'denoiser' or 'classifier'"),
        ({"data": {"name": "moons"}}, "network is missing"),
        ({**SMALL, "data": {}}, "data.name is missing"),
        ({**SMALL, "data": "moons"}, "data = 'moons': "),
        ({**SMALL, "data": {"name": "moons", "scaler": "std"}}, "data.scaler = 'std': input should be 'image'"),
        ({**SMALL, "data": {"name": "moons", "options": 3}}, "data.options = 3: "),
        ({**SMALL, "network": "mlp"}, "network = 'mlp': "),
        ({**SMALL, "sde": ["vp"]}, "sde = ['vp']: "),
        ({**SMALL, "train": 100}, "train = 100: "),
        ({**SMALL, 1: 2}, "1"),
    ],
)
def test_wrong_shapes_of_a_config(values: object, message: str) -> None:
    assert message in refused(values)


def test_every_field_has_a_default_that_its_own_rules_allow() -> None:
    defaults = {name: field.default for name, field in Train.model_fields.items()}
    assert Train.model_validate(defaults) == Train.model_validate({}) == parse_config(SMALL).train


@pytest.mark.parametrize("text", ["a: [1", "{", "a: b: c", "\tdata: 1", "%", "!!python/object:os.system {}", "\x00"])
def test_what_is_not_yaml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match="not YAML") as caught:
        load_config(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text, key, line",
    [
        ("data: {name: moons}\ndata: {name: moons}", "data", 2),
        ("data: {name: moons}\ntrain:\n  lr: 0.1\n  steps: 3\n\n  lr: 0.2", "lr", 6),
        ("network: {name: mlp,\n  depth: 1, depth: 1}", "depth", 2),
        ("train: {times: {name: index, N: 3, name: index}}", "name", 1),
        ('data:\n  options: {n: 3, "n": 4}', "n", 2),
    ],
)
def test_a_key_is_given_once(text: str, key: str, line: int, tmp_path: Path) -> None:
    """At every depth, however it is written; the same key in two sections is two keys, and `<<` may be overridden."""
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_config(path)
    assert str(caught.value) == f"config '{path}': key '{key}' is given twice, again in line {line}"
    path.write_text("data: &a {name: moons}\nnetwork: {<<: *a, name: mlp}")
    assert load_config(path).network == {"name": "mlp"}


def test_anchors_may_be_merged_but_not_hold_themselves(tmp_path: Path) -> None:
    """A key that overrides a merged one is no second one, though the mapping is merged again elsewhere."""
    path = tmp_path / "a.yaml"
    path.write_text(
        "data: {name: moons, options: {a: &x {width: 1}, b: &y {<<: *x, width: 32}}}\n"
        "network: {<<: *y, name: mlp}\nsde: {name: vp}\nprediction: eps\ntrain: {steps: 1}\n"
    )
    assert load_config(path).network == {"name": "mlp", "width": 32}
    path.write_text("data: {name: moons}\nnetwork: &n {name: mlp, a: *n}\nprediction: eps\ntrain: {steps: 1}\n")
    with pytest.raises(BadInput, match="holds itself"):
        load_config(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "values, place",
    [
        (lambda v: {"network": {"name": "unet", "dropout": v}}, "network.dropout"),
        (lambda v: {"network": {"name": "mlp", "scales": [1.0, v]}}, "network.scales[1]"),
        (lambda v: {"sde": {"name": "vp", "beta_max": v}}, "sde.beta_max"),
        (lambda v: {"train": {"times": {"name": "lognormal", "mean": v}}}, "train.times.mean"),
    ],
)
def test_numbers_are_finite(values: Callable, place: str, value: float) -> None:
    assert refused({**SMALL, **values(value)}) == f"config: {place} = {value}: input should be a finite number"


def test_unreadable_files(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(BadInput, match=f"config '{path}': no such file"):
            load_config(path)
    (tmp_path / "latin.yaml").write_bytes("data: {name: é}".encode("latin-1"))
    with pytest.raises(BadInput, match="not YAML"):
        load_config(tmp_path / "latin.yaml")
    (tmp_path / "date.yaml").write_text("data: 2024-13-45")
    with pytest.raises(BadInput, match="not YAML"):
        load_config(tmp_path / "date.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(BadInput, match="a mapping of"):
        load_config(tmp_path / "empty.yaml")


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as a word; it means a number, at any depth."""
    numbers = {"1e-2": 0.01, "1E2": 100.0, "+1.5e3": 1500.0, "-2.e1": -20.0, ".5e1": 5.0, "1e+1": 10.0, "1.0e-1": 0.1}
    words = ["1e", "e5", "1e-", "'1e-2'", "1e2x", "min_snr:1e-2", "1.2.3e4", "0x1e-2"]
    (tmp_path / "run.yaml").write_text(
        "data: {name: moons}\nnetwork: {name: mlp, scales: [1e-1]}\ntrain: {lr: 1e-3, steps: 1_000, warmup: 1e2}\n"
        f"sde: {{name: ve, sigma_min: 1e-2, numbers: [{', '.join(numbers)}], words: [{', '.join(words)}]}}"
    )
    config = load_config(tmp_path / "run.yaml")
    assert config.train.lr == 0.001 and config.train.steps == 1000 and config.train.warmup == 100
    assert config.network["scales"] == [0.1] and config.sde["sigma_min"] == 0.01
    assert config.sde["numbers"] == list(numbers.values())
    assert config.sde["words"] == [word.strip("'") for word in words]
    assert yaml.safe_load("1e-3") == "1e-3"


@pytest.mark.parametrize(
    "values, message",
    [
        ({"task": "clasifier"}, "; did you mean 'classifier'?"),
        ({"data": {"name": "moons", "scaler": "standrad"}}, "; did you mean 'standard'?"),
        ({"train": {"objective": "hybird"}}, "; did you mean 'hybrid'?"),
        ({"train": {"decay": "cosin"}}, "; did you mean 'cosine'?"),
        ({"train": {"precision": "bf61"}}, "; did you mean 'bf16'?"),
        ({"train": {"decay": 3}}, "input should be 'none' or 'cosine'"),
        ({"train": {"weight_decay": float("inf")}}, "train.weight_decay = inf: input should be a finite number"),
    ],
    ids=str,
)
def test_one_of_a_few_words_names_the_nearest(values: dict, message: str) -> None:
    assert refused({**SMALL, **values}).endswith(message)


# ----------------------------------------------------------------------------------------------------------- construct

ENTRIES = [("sde", name, ()) for name in SDES] + [("network", name, ((1, 8, 8),)) for name in NETWORKS]


@pytest.mark.parametrize("what, name, given", ENTRIES, ids=[name for _, name, _ in ENTRIES])
def test_options_of_everything_registered_are_taught(what: str, name: str, given: tuple) -> None:
    registry = {"sde": SDES, "network": NETWORKS}[what]
    built = construct(what, registry, {"name": name}, *given)
    assert built == registry[name]() if what == "sde" else isinstance(built, registry[name])
    known = list(inspect.signature(registry[name]).parameters)[len(given) :]
    for key in known:
        typo = f"{key}x"
        with pytest.raises(BadInput) as caught:
            construct(what, registry, {"name": name, typo: 1}, *given)
        assert str(caught.value) == (
            f"unknown option {typo!r} of {what} {name!r}: choose from {', '.join(known)}; did you mean {key!r}?"
        )
        with pytest.raises(BadInput, match=f"{name}|{type(built).__name__}|features") as caught:
            construct(what, registry, {"name": name, key: {"a": "mapping"}}, *given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what, registry", [("sde", SDES), ("network", NETWORKS)], ids=["sde", "network"])
def test_unknown_names_are_taught(what: str, registry: dict) -> None:
    for name in registry:
        with pytest.raises(BadInput, match=f"choose from {', '.join(registry)}; did you mean '{name}'"):
            construct(what, registry, {"name": f"{name}x"})
    for spec in ({}, {"name": None}, {"name": 3}):
        with pytest.raises(BadInput, match=f"unknown {what} .*choose from"):
            construct(what, registry, spec)


@pytest.mark.parametrize(
    "what, registry, spec, place, given",
    [
        ("sde", SDES, {"name": "ve", "sigma_min": "small"}, "sde 've': sigma_min = 'small': ", ()),
        ("sde", SDES, {"name": "vp", "beta_min": 1, "beta_max": [20]}, "sde 'vp': beta_max = [20]: ", ()),
        ("network", NETWORKS, {"name": "mlp", "width": "wide", "depth": 2}, "network 'mlp': width = 'wide': ", ((2,),)),
        ("network", NETWORKS, {"name": "unet", "multipliers": 2}, "network 'unet': multipliers = 2: ", ((1, 8, 8),)),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_named(what: str, registry: dict, spec: dict, place: str, given: tuple) -> None:
    with pytest.raises(BadInput) as caught:
        construct(what, registry, spec, *given)
    assert str(caught.value).startswith(place)


def test_a_value_that_makes_no_sense_is_one_line() -> None:
    for spec in ({"beta_min": -1}, {"beta_min": 3, "beta_max": 2}, {"t_min": 2}, {"beta_max": "20"}):
        with pytest.raises(BadInput) as caught:
            construct("sde", SDES, {"name": "vp", **spec})
        assert "\n" not in str(caught.value)
    for spec in ({"channels": 0}, {"channels": -4}, {"patch": 0}, {"heads": 0}, {"multipliers": []}, {"dropout": 2}):
        with pytest.raises(BadInput) as caught:
            construct("network", NETWORKS, {"name": "unet", "channels": 8, **spec}, (1, 8, 8))
        assert "\n" not in str(caught.value)
    for spec in ({"width": 0}, {"width": -1}, {"depth": -1}, {"features": 3}, {"classes": -1}):
        with pytest.raises(BadInput) as caught:
            construct("network", NETWORKS, {"name": "mlp", **spec}, (2,))
        assert "\n" not in str(caught.value)


def test_networks_and_data_must_fit() -> None:
    config = parse_config({**SMALL, "network": {"name": "unet", "channels": 8}})
    for event in ((), (2,), (1, 1, 8, 8)):
        with pytest.raises(BadInput, match=r"UNet: events of shape .* must be \(channels, length\) or"):
            build(config, event, 0)
    for classes in (1, 2):
        config = parse_config({**SMALL, "network": {"name": "mlp", "classes": classes}})
        with pytest.raises(BadInput, match=f"network.classes = {classes}: the data have 3 classes"):
            build(config, (2,), 3)
    assert build(parse_config({**SMALL, "network": {"name": "mlp", "classes": 0}}), (2,), 3)[1].labels is None
    assert build(parse_config(SMALL), (2,), 3)[1].classes == 3
