"""Noise-aware classifiers: their probabilities, that training finds Bayes' rule, their files, and what is refused."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

import scoresde
from scoresde import VPSDE, BadInput, NoisyClassifier, load_classifier, load_model
from scoresde.cli import main
from scoresde.config import Config, parse_config
from scoresde.data import Dataset, Scaler, load
from scoresde.guidance import classifier_guidance
from scoresde.model import CLASSIFIER, DEFAULT, build_classifier, card, shipped_classifiers
from scoresde.nn import CLASSIFIERS
from scoresde.train import train
from scoresde.train.run import Run

SMALL = {
    "encoder": ((1, 8, 8), {"channels": 12, "multipliers": [1, 2], "blocks": 1, "heads": 2}),
    "encoder of series": ((2, 16), {"channels": 12, "multipliers": [1], "blocks": 2, "heads": 2}),
    "mlp": ((2,), {"width": 16, "depth": 1, "features": 8}),
}
every_network = pytest.mark.parametrize("name", SMALL)
NAMES = ("left", "right")


def small(name: str, **more: object) -> tuple[NoisyClassifier, Tensor, Tensor]:
    """A classifier of three with weights of no special value, four states and times."""
    event, options = SMALL[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CLASSIFIERS[name.split()[0]](event, 3, **{**options, **more}).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        time = "t" if name == "mlp" else "1000t"
        return NoisyClassifier(network, VPSDE(), ("a", "b", "c"), event, time), torch.randn(4, *event), torch.rand(4)


def configured(data: dict, network: dict, **options: object) -> Config:
    train = {"steps": 12, "batch_size": 16, "warmup": 3, "log_every": 4, "report": False, **options}
    return parse_config({"task": "classifier", "data": data, "network": network, "time": "t", "train": train})


def pictures(n: int = 24, classes: int = 3) -> Dataset:
    x = torch.randint(256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Dataset(x, torch.arange(n) % max(1, classes) if classes else None, tuple("abc"[:classes]), name="noise")


# ------------------------------------------------------------------------------------------------------- probabilities


@every_network
def test_probabilities_sum_to_one_and_belong_to_their_row(name: str) -> None:
    """Of scalar and own times, int and tensor classes; the gradient of a row is that of its state alone."""
    classifier, x, t = small(name)
    whole = torch.stack([classifier.log_prob(x, t, k) for k in range(3)])
    assert (whole.exp().sum(0) - 1).abs().max() < 1e-6 and whole.std() > 1e-3
    y = torch.tensor([2, 0, 1, 1])
    assert torch.equal(classifier.log_prob(x, t, y), whole[y, torch.arange(4)])
    alone = torch.cat([classifier.log_prob(x[i : i + 1], float(t[i]), y[i : i + 1]) for i in range(4)])
    assert (classifier.log_prob(x, t, y) - alone).abs().max() < 1e-5
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(classifier.log_prob(x, t, y)[1], x)
    moved = gradient.flatten(1).abs().amax(1)
    assert moved[1] > 1e-4 and moved[[0, 2, 3]].max() == 0


@every_network
def test_a_classifier_knows_the_time_and_a_new_one_nothing(name: str) -> None:
    classifier, x, t = small(name)
    assert (classifier.logits(x, 0.1) - classifier.logits(x, 0.9)).abs().max() > 1e-3
    event, options = SMALL[name]
    new = NoisyClassifier(CLASSIFIERS[name.split()[0]](event, 3, **options), VPSDE(), ("a", "b", "c"), event)
    assert torch.equal(new.logits(x, t), torch.zeros(4, 3))


def test_states_are_told_in_units_of_their_own_size() -> None:
    """Of a variance-exploding SDE and of its variance-preserving equal: the same logits of the same state."""
    edm, vp = scoresde.EDM(), VPSDE()
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def net(x: Tensor, label: Tensor) -> Tensor:
        return torch.cat([x, x * label[:, None]], dim=1)

    one, two = (NoisyClassifier(net, sde, tuple("abcd"), (2,), "lambda", True) for sde in (edm, vp))
    same = edm.t_of_lam(vp.lam(t))
    assert (one.logits(x / vp.alpha(t)[:, None], same) - two.logits(x, t)).abs().max() < 1e-9
    raw = NoisyClassifier(net, edm, tuple("abcd"), time="lambda")
    assert torch.equal(raw.logits(x, t), net(x, edm.lam(t)))
    assert two.logits(x.float(), 0.5).dtype == torch.float32 and two.logits(x, 0.5).dtype == torch.float64


def test_training_finds_bayes_rule_at_every_level() -> None:
    """Two Gaussians ±m of variance s²: log p(1 | x_t)/p(0 | x_t) = 2 α m·x_t/(α² s² + σ²)."""
    m, s, n = torch.tensor([1.0, 0.5]), 0.5, 4096
    y = torch.arange(n) % 2
    x = (2 * y[:, None] - 1) * m + s * torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    data = Dataset(x, y, NAMES, name="two")
    network = {"name": "mlp", "width": 32, "depth": 1, "features": 16, "scales": []}
    run = Run(configured({"name": "two", "scaler": "none"}, network, steps=200, batch_size=256, lr=5e-3), data)
    figures = [run.advance() for _ in range(200)]
    assert figures[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    run.network.eval()
    sde = run.model.sde
    for t in (0.05, 0.3, 0.6, 0.95):
        alpha, sigma = (float(each(torch.tensor(t))) for each in (sde.alpha, sde.sigma))
        noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
        states = alpha * x[:500] + sigma * noise
        exact = torch.sigmoid(2 * alpha * states @ m / (alpha**2 * s**2 + sigma**2))
        found = run.model.log_prob(states, t, 1).exp()
        assert (found - exact).abs().mean() < 0.04, t


def test_a_network_that_knows_its_number_of_classes_needs_no_names() -> None:
    class Logits(torch.nn.Module):
        classes = 3

        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return torch.cat([x, label[:, None]], dim=1)

    classifier = NoisyClassifier(Logits(), VPSDE())
    assert classifier.classes == ("0", "1", "2") and classifier.event_shape is None
    x, t, y = torch.ones(4, 2), torch.full((4,), 0.5), torch.tensor([0, 1, 2, 2])
    assert torch.equal(classifier(x, t, y), classifier.log_prob(x, 0.5, y))
    assert not NoisyClassifier(lambda x, label: x, VPSDE()).classes


# ------------------------------------------------------------------------------------------------------- as torch sees


def test_no_call_waits_for_a_device_to_read_the_classes() -> None:
    """On "meta" nothing can be read."""
    weights = torch.ones(2, 3, device="meta")
    classifier = NoisyClassifier(lambda x, label: x @ weights, VPSDE(), tuple("abc"), (2,))
    x, y = torch.ones(4, 2, device="meta", requires_grad=True), torch.zeros(4, dtype=torch.int64, device="meta")
    for each in (y, 1):
        assert classifier.log_prob(x, 0.5, each).shape == (4,)
    guided = classifier_guidance(scoresde.Denoiser(lambda x, t: x, VPSDE()), classifier)
    assert guided.x0(x, 0.5, y=y).shape == (4, 2)


@pytest.mark.parametrize("name", ["encoder", "encoder of series"])
def test_encoders_recompute_their_blocks_to_the_same_gradients(name: str) -> None:
    found = []
    for checkpoint in (False, True):
        classifier, x, t = small(name, checkpoint=checkpoint)
        x.requires_grad_()
        classifier.log_prob(x, t, 1).sum().backward()
        assert isinstance(classifier.network, torch.nn.Module)
        found.append([x.grad, *(p.grad for p in classifier.network.parameters())])
    assert all((a - b).abs().max() < 1e-6 for a, b in zip(*found, strict=True))


# --------------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run on pictures."""
    out = tmp_path_factory.mktemp("classifier") / "run"
    config = configured({"name": "noise", "scaler": "image"}, {"name": "encoder", **SMALL["encoder"][1]}, report=True)
    config = config.model_copy(update={"time": "1000t"})
    train(config, out, data=pictures())
    return out


def test_a_run_tells_its_accuracy_by_noise_level(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12]
    for line in lines:
        told = [share for share in line["accuracy_by_level"] if share is not None]
        assert (
            len(line["accuracy_by_level"]) == 8 and told and all(0 <= share <= 1 for share in [*told, line["accuracy"]])
        )
        counted = [share is None for share in line["accuracy_by_level"]]
        assert counted == [loss is None for loss in line["by_level"]]
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "Accuracy by noise level" in page and "<img" not in page and not (trained / "samples").exists()


def test_a_classifier_comes_back_from_its_file(trained: Path) -> None:
    """The average of the run in a network of the same make, in half precision where it is large."""
    classifier = load_classifier(trained)
    tensors, info = scoresde.checkpoint.load_checkpoint(trained / "checkpoint.safetensors")
    run = Run(parse_config(info["config"]), pictures())
    run.network.load_state_dict({k.removeprefix("ema/"): v for k, v in tensors.items() if k.startswith("ema/")})
    run.network.eval()
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert (classifier.logits(x, 0.3) - run.model.logits(x, 0.3)).abs().max() < 1e-2
    assert classifier.classes == ("a", "b", "c") and classifier.event_shape == (1, 8, 8)
    assert isinstance(classifier.network, torch.nn.Module)
    assert not any(parameter.requires_grad for parameter in classifier.network.parameters())


def test_the_command_line_trains_and_describes_classifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "task: classifier\ndata: {name: datasaurus}\nnetwork: {name: mlp, width: 8, depth: 1}\ntime: t\n"
        "train: {steps: 2, batch_size: 8, warmup: 1, report: false}\n"
    )
    data = Dataset(torch.randn(20, 2), torch.arange(20) % 2, NAMES, name="datasaurus")
    monkeypatch.setattr("scoresde.data.load", lambda *args, **options: data)
    done = CliRunner().invoke(main, ["train", "c.yaml", "--out", "run"])
    assert done.exit_code == 0 and "load_classifier('run')" in done.output, done.output
    told = CliRunner().invoke(main, ["inspect", "run"]).output
    assert told.startswith("classifier ") and " logits" in told and "2: left, right" in told
    refused = CliRunner().invoke(main, ["sample", "--model", "run", "--num", "1"], standalone_mode=True)
    assert refused.exit_code == 2


@pytest.mark.parametrize("name", shipped_classifiers())
def test_shipped_classifiers_fit_their_model(name: str) -> None:
    """The one of their name; noise takes away what a card says they know, down to nothing."""
    model = load_model(name.removesuffix(CLASSIFIER))
    classifier, told = load_classifier(name, model=model), card(name)
    assert told["sha256"] == classifier.info["sha256"] and classifier.classes == model.classes
    accuracy = [level["accuracy"] for level in told["figures"]["test"]["by_level"]]
    share = 1 / len(classifier.classes)
    assert accuracy == sorted(accuracy, reverse=True) and accuracy[0] > 0.8 and abs(accuracy[-1] - share) < 0.05


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("SCORESDE_DATA"), reason="no SCORESDE_DATA")
@pytest.mark.parametrize("level", [0, 4])
def test_the_card_of_the_shipped_classifier_is_true(level: int) -> None:
    """The accuracy at a level on 500 of the test images, within four standard errors."""
    classifier = load_classifier()
    told, test = card(classifier.name)["figures"]["test"]["by_level"][level], load("fashion_mnist", "test")
    assert test.labels is not None
    x = Scaler.from_json(classifier.info["scaler"]).encode(test.take(torch.arange(500)))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = classifier.logits(classifier.sde.perturb(x, torch.tensor(told["t"]), noise), told["t"])
    share = float((logits.argmax(1) == test.labels[:500]).double().mean())
    assert abs(share - told["accuracy"]) < 4 * (share * (1 - share) / 500) ** 0.5


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "x, y, words",
    [
        (torch.zeros(4, 3), 0, r"events of shape \(3,\), the classifier is of shape \(2,\)"),
        (torch.zeros(4, 2), 3, "y = 3: it knows the classes 0 to 2"),
        (torch.zeros(4, 2), torch.tensor([0, -1, 0, 0]), "it knows the classes 0 to 2"),
        (torch.zeros(4, 2), torch.tensor([0, 1]), "a class or one for each of 4 samples"),
        (torch.zeros(4, 2), torch.zeros(4), "a class or one for each of 4 samples"),
    ],
)
def test_states_and_classes_that_are_not_the_classifiers(x: Tensor, y: int | Tensor, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        small("mlp")[0].log_prob(x, 0.5, y)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize(
    "options, words",
    [
        ({"objective": "sliced"}, "train.objective = 'sliced' is of denoisers"),
        ({"weighting": "snr"}, "train.weighting = 'snr' is of denoisers"),
        ({"uncertainty": True}, "train.uncertainty = True is of denoisers"),
        ({"times": "indx"}, "did you mean 'index'"),
    ],
)
def test_what_is_of_denoisers_alone(options: dict, words: str) -> None:
    data = Dataset(torch.randn(20, 2), torch.arange(20) % 2, NAMES, name="two")
    with pytest.raises(BadInput, match=words):
        Run(configured({"name": "two"}, {"name": "mlp", "width": 8}, **options), data)


@pytest.mark.parametrize(
    "network, classes, words",
    [
        ({"name": "encoder", "channels": 8}, (), "the data have 0 classes: at least two"),
        ({"name": "unet", "channels": 8}, ("a", "b"), "unknown network 'unet': choose from encoder, mlp"),
        ({"name": "encoder", "chanels": 8}, ("a", "b"), "did you mean 'channels'"),
        ({"name": "encoder", "channels": 5}, ("a", "b"), "must be divisible by heads = 4 where they attend"),
        ({"name": "encoder", "channels": 8, "attention": [4]}, ("a", "b"), "names a level"),
        ({"name": "encoder", "channels": 8, "multipliers": [1, 2, 2, 2]}, ("a", "b"), "divisible by 16"),
    ],
)
def test_networks_that_cannot_classify(network: dict, classes: tuple, words: str) -> None:
    config = configured({"name": "two"}, network)
    with pytest.raises(BadInput, match=words):
        build_classifier(config, (1, 8, 8), classes)


def test_classifiers_and_models_are_not_confused(trained: Path) -> None:
    with pytest.raises(BadInput, match="is a classifier, not a denoiser: it is loaded by"):
        load_model(trained)
    with pytest.raises(BadInput, match="is a denoiser, not a classifier: it is loaded by"):
        load_classifier(DEFAULT)
    with pytest.raises(BadInput, match=r"its event shape \(1, 8, 8\) differs from model 'fashion-mnist'"):
        load_classifier(trained, model=load_model())
