"""Time series: windows tile the series and stay within their part; the scaler works channel by channel."""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reading import refuses, write

from scoresde.data import Dataset, Scaler, load
from scoresde.data.series import ETTH1_SPLITS, windows
from scoresde.errors import BadInput

ROWS = 60


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Columns date, a, b: a is the number of the row, b = 1000 - a."""
    rows = "".join(f"2020-01-{k // 24 + 1:02d} {k % 24:02d}:00,{k},{1000 - k}\n" for k in range(ROWS))
    return write(tmp_path / "hours.csv", "date,a,b\n" + rows)


@pytest.mark.parametrize("window", [1, 5, 20, 60])
@pytest.mark.parametrize("stride", [1, 3, 20, 100])
def test_windows_are_the_rows_they_say(table: Path, window: int, stride: int) -> None:
    data = load(table, window=window, stride=stride)
    count = (ROWS - window) // stride + 1
    assert data.x.shape == (count, 2, window) and data.x.dtype == torch.float32 and data.series
    starts = stride * torch.arange(count)
    rows = (starts[:, None] + torch.arange(window)).float()
    assert torch.equal(data.x[:, 0], rows) and torch.equal(data.x[:, 1], 1000 - rows)
    assert torch.equal(data.take(torch.tensor([count - 1, 0])), data.x[[count - 1, 0]])
    assert starts[-1] + window <= ROWS < starts[-1] + window + stride  # one more would not fit
    if stride == window and ROWS % window == 0:
        assert torch.equal(data.x[:, 0].reshape(-1), torch.arange(float(ROWS)))


@pytest.mark.parametrize("cuts", [(0.0, 0.6, 0.8, 1.0), (0, 1 / 3, 2 / 3, 1), (0.0, 0.123, 0.5, 0.77)])
def test_parts_share_no_row_and_leave_none_out(table: Path, cuts: tuple[float, ...]) -> None:
    seen = [load(table, window=1, part=part, columns="a").x.flatten() for part in pairwise(cuts)]
    assert torch.equal(torch.cat(seen), torch.arange(float(ROWS))[: round(cuts[-1] * ROWS)])
    for part, rows in zip(pairwise(cuts), seen, strict=True):
        x = load(table, window=7, part=part, columns=["a"]).x
        assert x.min() == rows.min() and x.max() == rows.max()


def test_windows_take_no_memory_of_their_own() -> None:
    series = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    assert windows(series, 100).untyped_storage().data_ptr() == series.untyped_storage().data_ptr()


def test_malformed_series(table: Path, tmp_path: Path) -> None:
    def complains(match: str, **options: Any) -> None:
        with pytest.raises(BadInput, match=match):
            load(table, **options)

    complains("window is needed", stride=3)
    complains("window", window=0)
    complains("stride", window=3, stride=1.5)
    complains("only 60 rows", window=61)
    complains("only 12 rows", window=13, part=[0.8, 1])
    for part in ([0.5, 0.5], [0.6, 0.2], [-0.1, 1], [0, 1.1], [0], "0,1", 0.5, [0, "1"]):
        complains(r"part must be \[a, b\]", window=3, part=part)
    complains("'c'.*choose from date, a, b", window=3, columns=["a", "c"])
    complains("line 2, column 'date'", window=3, columns=["date"])
    complains("'widow'.*did you mean 'window'", widow=3, stride=1)
    refuses(write(tmp_path / "nan.csv", "t,x\nmon,1\ntue,nan\n"), "line 3, column 'x'", window=1)
    refuses(write(tmp_path / "words.csv", "t,x\nmon,a\ntue,b\n"), "no column of numbers", window=1)
    with pytest.raises(BadInput, match=r"series must have shape \(N, channels, length\)"):
        Dataset(torch.zeros(3, 2), series=True)


@pytest.mark.parametrize("kind", ["standard", "unit"])
@pytest.mark.parametrize("channels", [1, 3, 100])
def test_a_series_is_scaled_channel_by_channel(kind: str, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scales = 10.0 ** (torch.arange(channels) % 7 - 3.0)
    x = (torch.randn(40, channels, 12, generator=generator) + 2) * scales[:, None]
    scaler = Scaler.fit(Dataset(x, series=True), kind)
    z = scaler.encode(x)
    if kind == "standard":
        torch.testing.assert_close(z.mean(dim=(0, 2)), torch.zeros(channels), rtol=0, atol=1e-5)
        torch.testing.assert_close(z.std(dim=(0, 2), correction=0), torch.ones(channels))
    else:
        torch.testing.assert_close(z.amin(dim=(0, 2)), -torch.ones(channels))
        torch.testing.assert_close(z.amax(dim=(0, 2)), torch.ones(channels))
    torch.testing.assert_close(scaler.decode(z), x, rtol=1e-5, atol=1e-6 * float(x.abs().max()))
    assert torch.equal(scaler.encode(x[3]), z[3])
    stored = Scaler.from_json(json.loads(json.dumps(scaler.to_json())))
    assert stored == scaler and torch.equal(stored.encode(x), z)
    volume = -12 * sum(np.log(scaler.scale))
    assert scaler.log_det((channels, 12)) == pytest.approx(volume, rel=1e-12)
    if channels > 1:
        for call in (lambda: scaler.encode(x.transpose(1, 2)), lambda: scaler.log_det((12, channels))):
            with pytest.raises(BadInput, match=f"{channels} channels"):
                call()
        with pytest.raises(BadInput, match=r"channel 1 .* constant"):
            x[:, 1] = 5
            Scaler.fit(Dataset(x, series=True), kind)


def test_series_in_an_array(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(9, 2, 5)).astype(np.float32)
    np.save(tmp_path / "a.npy", x)
    for stream in (False, True):
        assert len(Scaler.fit(load(tmp_path / "a.npy", series=True, stream=stream)).scale) == 2
    assert len(Scaler.fit(load(tmp_path / "a.npy")).scale) == 1


def test_other_axes_are_refused() -> None:
    for axis in (0, 1, -3, 2.0, "x", True):
        with pytest.raises(BadInput, match="axis must be -1 or -2"):
            Scaler.from_json({"shift": [0.0], "scale": [1.0], "axis": axis})


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("SCORESDE_DATA"), reason="SCORESDE_DATA is not set")
def test_etth1() -> None:
    whole = load(Path(os.environ["SCORESDE_DATA"]) / "ett/ETTh1.csv", window=1).x[:, :, 0]
    assert whole.shape == (17_420, 7)
    for split, (start, stop) in ETTH1_SPLITS.items():
        data = load("etth1", split, window=100, stride=9)
        assert torch.equal(data.x[0].T, whole[start : start + 100]) and data.name == f"etth1/{split}"
        last = start + 9 * (len(data) - 1)
        assert torch.equal(data.x[-1].T, whole[last : last + 100]) and stop - 9 < last + 100 <= stop
    assert [stop - start for start, stop in ETTH1_SPLITS.values()] == [8640, 2880, 2880]
    assert load("etth1", "val", columns="OT").event_shape == (1, 96)
    refuses("etth1", "'vall'", "did you mean 'val'", split="vall")
