"""The page of `scoresde compare` in a real browser: nothing fetched, keys, both colour schemes, a phone's width.

``python tests/test_compare_page.py comparison docs`` takes the pictures of docs/ and prints the README's table.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LONGEST = 3300  # pixels of a picture, at most
PHONE = {"width": 360, "height": 740}
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser is installed")


def browser(playwright: Any) -> Any:
    return playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, images: Path) -> dict[str, Path]:
    """A page of points and one of images."""
    from scoresde import load_model
    from scoresde.comparison import compare, flow, quality
    from scoresde.comparison.facts import facts
    from scoresde.comparison.page import render

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flow, "CALLS", 24)
        patch.setattr(quality, "DRAWS", 2)
        written: dict[str, Path] = {}
        for kind, name in {"points": "datasaurus", "images": str(images)}.items():
            model = load_model(name)
            labels = torch.arange(24) % len(model.classes)
            real = torch.rand(60, 2) * 100 if kind == "points" else None
            found = compare(model, ["ddim", "ddpm"], [3, 6], num=24, labels=labels, real=real)
            written[kind] = tmp_path_factory.mktemp(kind) / "comparison.html"
            written[kind].write_bytes(render(found, facts(found, "scoresde compare", {})))
    return written


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        launched = browser(playwright)
        yield launched
        launched.close()


@pytest.fixture(params=["points", "images"])
def page(request: pytest.FixtureRequest, chromium: Any, pages: dict[str, Path]) -> Iterator[Any]:
    """The open page; afterwards: that it asked for nothing and complained of nothing."""
    context = chromium.new_context(viewport=PHONE, offline=True)
    opened, asked, said = context.new_page(), list[str](), list[str]()
    opened.on("request", lambda r: asked.append(r.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(pages[request.param].as_uri())
    yield opened
    context.close()
    assert [url for url in asked if not url.startswith("data:")] == [pages[request.param].as_uri()]
    assert not said


def shown(page: Any) -> list[str]:
    """What the two panels of the walk show now."""
    script = "e => e.src || e.querySelector('.now').getAttribute('d')"
    return [page.locator(f"#{part}").evaluate(script) for part in ("x", "x0")]


def test_the_slider_walks_by_keys_and_says_where_it_is(page: Any) -> None:
    slider = page.get_by_label("From noise to data")
    slider.focus()
    seen, places = [shown(page)], [slider.get_attribute("aria-valuetext")]
    for _ in range(3):
        page.keyboard.press("ArrowRight")
        seen.append(shown(page))
        places.append(slider.get_attribute("aria-valuetext"))
    assert len({x for x, _ in seen}) == 4 and len(set(places)) == 4
    assert places[0] == "t = 1, after 0 network calls" and "after 3 network calls" in places[3]
    assert page.locator("#place").inner_text() == places[3]
    page.keyboard.press("Home")
    assert shown(page) == seen[0]


def test_another_run_starts_from_the_same_noise_and_ends_elsewhere(page: Any) -> None:
    slider, starts, ends = page.get_by_label("From noise to data"), set[str](), set[str]()
    for run in range(4):
        page.get_by_label("Run", exact=True).select_option(str(run))
        for key, found in (("Home", starts), ("End", ends)):
            slider.focus()
            page.keyboard.press(key)
            found.add(shown(page)[0])
    assert len(starts) == 1 and len(ends) == 4


def test_everything_can_be_read_out_reached_by_keys_and_fits_a_phone(page: Any) -> None:
    for width in (360, 800, 1400):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(e => e.alt.trim())")
    assert page.evaluate("[...document.querySelectorAll('svg')].every(e => e.getAttribute('aria-label'))")
    reached: set[str] = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        script = "document.activeElement.id || document.activeElement.ariaLabel"
        reached.add(str(page.evaluate(script)))
    assert {"run", "step", "figures", "samples"} <= reached


def test_light_and_dark(page: Any) -> None:
    colours: list[tuple[str, str]] = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        style = page.locator(".matrix th[scope=row]").first.evaluate_handle("e => getComputedStyle(e)")
        colours.append((style.evaluate("s => s.color"), style.evaluate("s => s.backgroundColor")))
    (ink, ground), (dark_ink, dark_ground) = colours
    assert ink != ground != dark_ground != dark_ink != ink


# ------------------------------------------------------------------------------------------------------------ for docs/


def take_pictures(page: Path, folder: Path) -> None:
    """The page in light, in dark and on a phone, and its samples alone, in greys and the colours of curves."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    from scoresde.pictures import COLOURS

    greys = [(k, k, k) for k in range(0, 256, 15)]
    tints = [(share, ground) for share in (1, 0.5, 0.15) for ground in (17, 255)]
    shades = [tuple(int(g + s * (c - g)) for c in colour) for colour in COLOURS for s, g in tints]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in [*greys, (17, 17, 17), *shades] for value in colour])

    def keep(png: bytes, name: str) -> None:
        shot = Image.open(io.BytesIO(png)).convert("RGB")
        shot.quantize(palette=palette, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)

    with sync_playwright() as playwright:
        launched = browser(playwright)
        for name, scheme, width in (("light", "light", 900), ("dark", "dark", 900), ("narrow", "light", 360)):
            opened = launched.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            opened.goto(page.resolve().as_uri())
            opened.locator("#run").select_option(label="ddim, 20 calls")
            opened.locator("#step").fill("12")
            opened.evaluate("scrollTo(0, 0)")
            settings = opened.locator("h2", has_text="Settings").bounding_box()
            clip = {"x": 0, "y": 0, "width": width, "height": min(settings["y"], LONGEST)}
            keep(opened.screenshot(full_page=True, clip=clip), f"compare-{name}")
            if name == "light":
                keep(opened.locator(".matrix").screenshot(), "compare")
        launched.close()


def best_of_each(runs: list[dict[str, Any]]) -> str:
    """The README's table: a row for each budget, its distances to the flow, the best in bold."""
    names = list(dict.fromkeys(run["sampler"] for run in runs))
    rows = [f"| NFE | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (1 + len(names)) + "|"]
    for budget in dict.fromkeys(run["nfe"] for run in runs):
        cells = [f"{run['to_flow']:.3f}" for run in runs if run["nfe"] == budget]
        marks = ["**" * run["nearest_to_flow"] for run in runs if run["nfe"] == budget]
        noisy = [run["stochastic"] for run in runs if run["nfe"] == budget]
        shown = [f"({c})" if n else f"{m}{c}{m}" for c, m, n in zip(cells, marks, noisy, strict=True)]
        rows.append(f"| {budget} | {' | '.join(shown)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    take_pictures(Path(sys.argv[1]) / "comparison.html", Path(sys.argv[2]))
    print(best_of_each(json.loads((Path(sys.argv[1]) / "comparison.json").read_text(encoding="utf-8"))["runs"]))
