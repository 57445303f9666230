"""Quality figures: closed forms, definitions written out, invariances, refusals; and the frozen feature classifier."""

import importlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from scoresde import metrics
from scoresde.checkpoint import digest, load_checkpoint, save_checkpoint
from scoresde.errors import BadInput
from scoresde.metrics import (
    agreement,
    expected_coverage,
    frechet_distance,
    kernel_distance,
    load_features,
    memorisation,
    nearest,
    prdc,
    within_class_std,
)

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "scoresde" / "pretrained" / "features.safetensors"
needs_data = pytest.mark.skipif(not os.environ.get("SCORESDE_DATA"), reason="SCORESDE_DATA is not set")


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(seed: int, n: int) -> Tensor:
    """Random smooth pictures, uint8 (n, 1, 28, 28)."""
    coarse = torch.rand(n, 1, 7, 7, generator=torch.Generator().manual_seed(seed))
    return (255 * torch.nn.functional.interpolate(coarse, scale_factor=4.0, mode="bilinear")).to(torch.uint8)


def frechet(a: Tensor, b: Tensor) -> float:
    return frechet_distance(a, b, allow_small=True)


# ----------------------------------------------------------------------------------------------------------- Fréchet


@pytest.mark.parametrize(("n", "d"), [(2500, 8), (300, 64), (20, 50)])  # the last: covariances of rank 19
def test_frechet_distance_of_a_set_to_itself_is_zero_and_to_its_translate_is_the_squared_shift(n: int, d: int) -> None:
    x, shift = normal(0, n, d) @ normal(1, d, d), normal(2, d)
    assert frechet(x, x) < 1e-6
    assert frechet(x, x[torch.randperm(n, generator=torch.Generator().manual_seed(3))]) < 1e-6
    assert frechet(x, x + shift) == pytest.approx(float(shift.square().sum()), rel=1e-9)


def test_frechet_distance_to_a_linear_image_is_that_of_the_optimal_map() -> None:
    """For symmetric A > 0 the optimal map from N(0, C) to N(0, A C A) is A (Gelbrich 1990): FD = E |x - A x|²."""
    x = normal(0, 500, 6) @ normal(1, 6, 6) + 3
    root = normal(2, 6, 6)
    a, centred = root @ root.T / 6 + 0.1 * torch.eye(6), x - x.mean(0)
    cost = (centred - centred @ a).square().sum() / 499 + (x.mean(0) - x.mean(0) @ a).square().sum()
    assert frechet(x, x @ a) == pytest.approx(float(cost), rel=1e-10)


def test_frechet_distance_is_symmetric_and_unmoved_by_rotation() -> None:
    x, y = normal(0, 400, 5) @ normal(1, 5, 5), normal(2, 300, 5) + 1
    rotation = torch.linalg.qr(normal(3, 5, 5)).Q
    assert frechet(x, y) == pytest.approx(frechet(y, x), rel=1e-12)
    assert frechet(x @ rotation, y @ rotation) == pytest.approx(frechet(x, y), rel=1e-10)


@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (0.5, 1.5)])
def test_frechet_distance_of_samples_falls_to_the_closed_form_of_their_gaussians(m: float, s: float) -> None:
    """N(0, 1)^d and N(m, s²)^d: d m² + d (1 - s)². The estimate is above it, by an amount that falls like 1/n."""
    d, exact = 10, 10 * m**2 + 10 * (1 - s) ** 2
    excess = [
        sum(frechet(normal(2 * i, n, d), m + s * normal(2 * i + 1, n, d)) - exact for i in range(40)) / 40
        for n in (100, 400, 1600)
    ]
    assert excess[0] > 2.5 * excess[1] > 2.5 * 2.5 * excess[2] > 0
    assert excess[2] < 0.1 + 0.01 * exact


def test_frechet_distance_of_few_points_is_refused_with_n() -> None:
    x = normal(0, 3000, 3)
    assert frechet_distance(x[:2048], x[-2048:]) < 0.02
    for real, fake in ((x[:2047], x), (x, x[:2047])):
        with pytest.raises(BadInput, match=r"n = 2047.*allow_small"):
            frechet_distance(real, fake)


# --------------------------------------------------------------------------------------------------------------- KID


def mmd(x: Tensor, y: Tensor) -> float:
    """The definition, term by term."""

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_kernel_distance_is_its_definition_and_its_error_the_jackknife() -> None:
    x, y = normal(0, 7, 3), normal(1, 5, 3) + 0.5
    variance = 0.0
    for points, value in ((x, lambda rest: mmd(rest, y)), (y, lambda rest: mmd(x, rest))):
        out = torch.tensor([value(torch.cat([points[:i], points[i + 1 :]])) for i in range(len(points))]).double()
        variance += float((len(points) - 1) / len(points) * (out - out.mean()).square().sum())
    estimate = kernel_distance(x, y)
    assert estimate.value == pytest.approx(mmd(x, y), rel=1e-10)
    assert estimate.standard_error == pytest.approx(math.sqrt(variance), rel=1e-5)
    assert kernel_distance(y, x) == pytest.approx(estimate, rel=1e-10)


@pytest.mark.parametrize(
    ("shift", "low", "high"),
    # Equal distributions: unbiased, the jackknife variance twice the true one (degenerate); else the true one.
    [(0.0, 1.4, 2.8), (0.5, 0.75, 1.35)],
)
def test_kernel_distance_is_unbiased_and_its_standard_error_honest(shift: float, low: float, high: float) -> None:
    """In 1-D MMD² = 3 (Δm_1)² + 3 (Δm_2)² + (Δm_3)², m_j the raw moments (the kernel's features: x, x², x³)."""
    exact = 3 * shift**2 + 3 * (shift**2) ** 2 + (shift**3 + 3 * shift) ** 2
    runs = [kernel_distance(normal(2 * i, 120, 1), shift + normal(2 * i + 1, 120, 1)) for i in range(500)]
    values, errors = torch.tensor(runs, dtype=torch.float64).T
    assert abs(float(values.mean()) - exact) < 3 * float(values.std()) / math.sqrt(500)
    assert low < float(errors.square().mean() / values.var()) < high


# --------------------------------------------------------------------------- precision, recall, density, coverage


def test_prdc_is_its_definition() -> None:
    x, y, k = normal(0, 30, 2), 0.7 * normal(1, 20, 2) + 0.3, 3

    def radius(points: Tensor, i: int) -> float:
        return sorted(math.dist(points[i].tolist(), p.tolist()) for j, p in enumerate(points) if j != i)[k - 1]

    def inside(a: Tensor, b: Tensor, r: float) -> bool:
        return math.dist(a.tolist(), b.tolist()) <= r

    in_real = [[inside(a, b, radius(x, i)) for b in y] for i, a in enumerate(x)]
    in_fake = [[inside(a, b, radius(y, j)) for j, b in enumerate(y)] for a in x]
    expected = (
        sum(any(row[j] for row in in_real) for j in range(20)) / 20,
        sum(any(row) for row in in_fake) / 30,
        sum(map(sum, in_real)) / (k * 20),
        sum(any(row) for row in in_real) / 30,
    )
    assert prdc(x, y, k) == pytest.approx(expected, abs=1e-12)


def test_prdc_of_identical_disjoint_and_collapsed_sets() -> None:
    x = normal(0, 400, 4)
    same = prdc(x, x)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert prdc(x, x + 1000) == (0, 0, 0, 0)
    collapsed = prdc(x, 0.01 * normal(1, 400, 4))  # every sample near the mean: realistic, and almost nothing drawn
    assert collapsed.precision == 1
    assert collapsed.recall < 0.05
    assert collapsed.coverage < 0.4
    twice = x.repeat(2, 1)  # repeated points have balls of radius 0 at k = 1, which still hold their own kind
    assert prdc(twice, twice, 1).coverage == 1


@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 5), (150, 60, 3)])
def test_coverage_and_density_of_equal_distributions_have_their_expected_values(n: int, m: int, k: int) -> None:
    runs = torch.tensor([prdc(normal(2 * i, n, 3), normal(2 * i + 1, m, 3), k) for i in range(60)]).double()
    mean, error = runs.mean(0), runs.std(0) / math.sqrt(60)
    assert abs(float(mean[3]) - expected_coverage(n, m, k)) < 3.5 * float(error[3])
    assert abs(float(mean[2]) - 1) < 3.5 * float(error[2])


def test_expected_coverage_tends_to_one_minus_two_to_the_minus_k() -> None:
    assert expected_coverage(10**7, 10**7, 5) == pytest.approx(1 - 2**-5, abs=1e-6)
    with pytest.raises(BadInput, match="n must be larger"):
        expected_coverage(1, 1, 5)
    assert expected_coverage(2, 1, 1) == pytest.approx(1 / 2)  # the nearest of one real and one fake point


@pytest.mark.parametrize("k", [0, -1, 20, True])
def test_prdc_refuses_an_impossible_k(k: Any) -> None:
    with pytest.raises(BadInput, match=r"k = .*1 to 19"):
        prdc(normal(0, 20, 2), normal(1, 30, 2), k)


# ---------------------------------------------------------------------------------------------- what all of them share


@pytest.mark.parametrize("figure", [frechet, lambda a, b: kernel_distance(a, b).value, prdc])
def test_figures_of_features_refuse_what_is_not_two_sets_in_one_space(figure: Callable[[Tensor, Tensor], Any]) -> None:
    x = normal(0, 30, 4)
    bad = x.clone()
    bad[7, 2] = math.nan
    for pair, words in (
        ((x, x[:, :3]), "real has 4 features and fake 3"),
        ((x, x[:1]), "fake: n = 1"),
        ((x[0], x), "real: .*shape"),
        ((x, bad), "fake: row 7"),
    ):
        with pytest.raises(BadInput, match=words):
            figure(*pair)


def test_figures_do_not_depend_on_order_or_batch_size() -> None:
    net, a, b = load_features(), pictures(0, 300), pictures(1, 300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(2))

    def figures(batch_size: int, rows: Tensor) -> list[float]:
        x, y = net.features(a[rows], batch_size), net.features(b[rows.flip(0)], batch_size)
        near = memorisation(a[rows].float(), b[rows].float(), pictures(2, 300)[rows].float())
        return [frechet(x, y), *kernel_distance(x, y), *prdc(x, y), *near]

    expected = figures(300, torch.arange(300))
    for batch_size in (7, 64, 256):
        assert figures(batch_size, order) == pytest.approx(expected, abs=1e-6, rel=1e-6)


# ------------------------------------------------------------------------------------------ labels, nearest neighbours


def test_agreement_is_a_share_with_a_binomial_error() -> None:
    asked = torch.arange(1000) % 10
    predicted = torch.where(torch.arange(1000) < 100, (asked + 1) % 10, asked)
    assert agreement(predicted, asked) == pytest.approx((0.9, math.sqrt(0.9 * 0.1 / 1000)))
    with pytest.raises(BadInput, match="agreement"):
        agreement(predicted, asked[:10])


def test_within_class_std_ignores_class_means() -> None:
    labels = torch.arange(6000) % 3
    noise = normal(0, 6000, 1, 4, 4)
    spread = within_class_std(100.0 * labels[:, None, None, None] + 2 * noise, labels)
    assert spread == pytest.approx(2, rel=0.02)
    assert within_class_std(labels[:, None].double(), labels) == 0
    assert within_class_std(3 * noise, labels) == pytest.approx(3 * within_class_std(noise, labels))
    with pytest.raises(BadInput, match="class 1"):
        within_class_std(noise[:3], torch.tensor([0, 0, 1]))


def test_nearest_is_its_definition_and_exact_for_copies() -> None:
    x, reference = normal(0, 40, 1, 5, 5).float(), normal(1, 90, 1, 5, 5).float()
    reference[33] = x[11]
    distance, index = nearest(x, reference)
    expected = (x[:, None] - reference[None]).double().flatten(2).norm(dim=2).min(dim=1)
    torch.testing.assert_close(distance, expected.values)
    assert torch.equal(index, expected.indices)
    assert (float(distance[11]), int(index[11])) == (0.0, 33)


def test_memorisation_tells_copies_from_new_samples() -> None:
    train, test, new = normal(0, 1000, 6), normal(1, 1000, 6), normal(2, 1000, 6)
    fresh = memorisation(new, train, test)
    assert fresh.median == pytest.approx(1, abs=0.1)
    assert fresh.closer < 0.03
    copies = memorisation(train[:100] + 1e-3 * test[:100], train, test)
    assert copies.median < 0.01
    assert copies.closer == 1
    assert memorisation(test, train, test).smallest == fresh.smallest_real
    with pytest.raises(BadInput, match="held-out"):
        memorisation(new, train, train)


# -------------------------------------------------------------------------------------------------- the frozen features


def test_features_are_those_of_the_card_and_small() -> None:
    net, card = load_features(), json.loads(SHIPPED.with_suffix(".json").read_text())
    tensors, info = load_checkpoint(SHIPPED)
    assert net.sha256 == card["sha256"] == info["sha256"] == digest(tensors)
    assert info["kind"] == "features"
    assert card["test"]["accuracy"] >= 0.9
    assert card["parameters"] == sum(p.numel() for p in net.network.parameters()) <= 250_000
    assert SHIPPED.stat().st_size == card["bytes"] <= 1_000_000


def test_features_are_in_eval_mode_and_repeat_themselves() -> None:
    net, x = load_features(), pictures(0, 20)
    first = net.features(x)
    assert not net.network.training
    assert not any(p.requires_grad for p in net.network.parameters())
    assert first.shape == (20, 64)
    assert torch.equal(first, net.features(x))
    net.network.train()  # by accident: nothing in it depends on the mode
    assert torch.equal(first, net.features(x))
    torch.testing.assert_close(first, net.features(x.float() / 127.5 - 1))
    assert torch.equal(net.predict(x), net.network(x.float() / 127.5 - 1).argmax(1))


def test_features_tell_images_apart_by_more_than_their_class() -> None:
    """A feature space collapsed onto its ten classes could not see the spread within one."""
    spectrum = torch.linalg.svdvals(load_features().network.head.weight.double())
    assert int((spectrum > 1e-3 * spectrum[0]).sum()) == 10
    features = load_features().features(pictures(0, 500)).double()
    variances = torch.linalg.eigvalsh(features.T.cov())
    assert int((variances > 1e-3 * variances[-1]).sum()) > 20


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 28, 28), "shape"),
        (torch.zeros(0, 1, 28, 28), "shape"),
        (torch.zeros(3, 1, 32, 32), "shape"),
        (torch.full((3, 1, 28, 28), 255.0), r"\[-1, 1\].*\[255, 255\]"),
        (torch.full((3, 1, 28, 28), math.nan), "nan"),
        (torch.zeros(3, 1, 28, 28, dtype=torch.int64), "uint8"),
    ],
)
def test_features_refuse_other_images(images: Tensor, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        load_features().features(images)


def test_features_refuse_a_file_that_holds_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "other.safetensors", {"ema/w": torch.zeros(1)}, {"kind": "model"})
    with pytest.raises(BadInput, match="no feature classifier"):
        load_features(tmp_path / "other.safetensors")


def test_all_public_names_exist() -> None:
    assert all(hasattr(metrics, name) for name in metrics.__all__)


@pytest.mark.data
@needs_data
def test_the_classifier_reaches_its_stated_accuracy_on_the_real_test_set() -> None:
    from scoresde.data import load

    data, card = load("fashion_mnist", "test"), json.loads(SHIPPED.with_suffix(".json").read_text())
    assert data.labels is not None
    accuracy = agreement(load_features().predict(data.x), data.labels).value
    assert accuracy >= 0.9
    assert accuracy == pytest.approx(card["test"]["accuracy"], abs=2e-4)  # a tie may round differently elsewhere


@pytest.mark.data
@needs_data
def test_the_figures_order_real_images_and_damaged_ones() -> None:
    """Other real images are best; noise, blur and class means are worse, in every figure that claims to see them."""
    from scoresde.data import load

    data, n = load("fashion_mnist", "test"), 1000
    assert data.labels is not None
    net, x, other, labels = load_features(), data.x[:n], data.x[n : 2 * n], data.labels[n : 2 * n]
    noise = normal(0, *other.shape)
    means = torch.stack([data.x[data.labels == c].float().mean(0) for c in range(10)])[labels]
    sets = {
        "real": other,
        "noisy": (other + 20 * noise).clamp(0, 255).to(torch.uint8),
        "blurred": torch.nn.functional.avg_pool2d(other.float(), 3, 1, 1).to(torch.uint8),
        "means": (means + 5 * noise).clamp(0, 255).to(torch.uint8),
    }
    features, real = {name: net.features(images) for name, images in sets.items()}, net.features(x)
    coverage = {name: prdc(real, f).coverage for name, f in features.items()}
    kid = {name: kernel_distance(real, f) for name, f in features.items()}
    assert coverage["real"] == pytest.approx(expected_coverage(n, n), abs=0.02)
    assert kid["real"].value < 3 * kid["real"].standard_error
    for name in ("noisy", "blurred", "means"):
        assert coverage[name] < coverage["real"] - 0.1
        assert kid[name].value > 5 * kid[name].standard_error
        assert frechet(real, features[name]) > 2 * frechet(real, features["real"])
    assert coverage["means"] < 0.2


@pytest.mark.data
@needs_data
def test_the_card_script_merges_parts_and_drops_figures_of_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scoresde.config import Config
    from scoresde.data import load
    from scoresde.train.run import Run

    network = {"name": "unet", "channels": 16, "multipliers": [1, 1], "blocks": 1, "attention": []}
    data = {"name": "fashion_mnist", "scaler": "image"}
    run = Run(Config.model_validate({"data": data, "network": network}), load("fashion_mnist"))
    path, card = tmp_path / "tiny.safetensors", tmp_path / "tiny.json"
    run.save(path)
    card.write_text(json.dumps({"licence": "MIT", "figures": {"old": {}}, "sha256": "other"}))
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = importlib.import_module("model_card")
    command = ["--model", str(path), "--parts", "floor", "--num", "100", "--distance-num", "300"]
    result = CliRunner().invoke(script.main, command, catch_exceptions=False)
    written = json.loads(card.read_text())
    assert result.exit_code == 0
    assert written["licence"] == "MIT"
    assert written["sha256"] == load_checkpoint(path)[1]["sha256"]
    assert set(written["figures"]) == {"floor"}
    assert [d["n"] for d in written["figures"]["floor"]["train"]["distances"]] == [256, 300]
    assert written["features"]["sha256"] == load_features().sha256
    again = script.merged(
        {**written, "figures": {"ode-10": {}}}, script.load_model(path), load_features(), load("fashion_mnist", "test")
    )
    assert set(again["figures"]) == {"ode-10"}
