"""The page of a report, in Chromium."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support import Done, lora, pem, recipe
from support.browser import opened
from support.reports import IMAGE, SCRIPT

ROOT = Path(__file__).parents[2]
QUICKSTART = Path("examples") / "quickstart" / "quickstart.pem"
IMAGES = ROOT / "docs" / "images"
DRAWN = """() => [...document.querySelectorAll('.plot canvas')].map(canvas => {
  const { width, height } = canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
})"""
WIDTHS = "() => [document.documentElement.scrollWidth, innerWidth]"


def report(*words: str | Path) -> Done:
    return pem("report", *words)


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "quickstart.html"
    assert pem("report", QUICKSTART, "-o", out, folder=ROOT).code == 0
    return out


def test_it_is_drawn_without_complaint_and_without_network(browser: Any, quickstart: Path) -> None:
    seen = opened(browser, quickstart)
    drawn = seen.page.evaluate(DRAWN)
    assert len(drawn) == 10
    assert min(drawn) > 20  # colours of a canvas; one that is empty has one
    assert seen.page.locator("svg.pem-graph text").count() > 20
    assert (seen.complaints, seen.requests) == ([], [quickstart.as_uri()])
    seen.page.close()


def test_a_table_is_sorted_by_its_headers(browser: Any, quickstart: Path) -> None:
    seen = opened(browser, quickstart)
    norms = seen.page.locator("#s0 th", has_text="norm").last
    norms.get_by_role("button").click()
    assert norms.get_attribute("aria-sort") == "ascending"
    assert seen.column("#s0", 5) == sorted(seen.column("#s0", 5), key=float)
    norms.get_by_role("button").press("Enter")
    assert norms.get_attribute("aria-sort") == "descending"
    assert seen.column("#s0", 5) == sorted(seen.column("#s0", 5), key=float, reverse=True)
    seen.page.locator("#s3 th button").first.click()
    assert seen.column("#s3", 0) == sorted(seen.column("#s3", 0))
    assert seen.complaints == []
    seen.page.close()


def test_a_long_table_is_searched(browser: Any, folder: Path) -> None:
    sites = {f"layers.{i}.{name}": (12, 16) for i in range(9) for name in ("q_proj", "v_proj")}
    lora(folder / "a", 1, sites)
    report(folder / "a", "-o", folder / "x.html")
    seen = opened(browser, folder / "x.html")
    seen.page.get_by_role("searchbox").fill("layers.3 v_proj")
    assert seen.column("#s3", 0) == ["layers.3.v_proj"]
    assert seen.page.locator("#s3 [role=status]").inner_text() == "1 of 18 rows"
    seen.page.get_by_role("searchbox").fill("")
    assert len(seen.column("#s3", 0)) == 18
    seen.page.locator("#s3 th button", has_text="layer").click()
    layers = [int(text) for text in seen.column("#s3", 1)]
    assert layers == sorted(layers)
    assert seen.complaints == []
    seen.page.close()


def test_a_choice_redraws_a_chart_and_its_numbers(browser: Any, quickstart: Path) -> None:
    seen = opened(browser, quickstart)
    figure = seen.page.locator("#s4 figure").first
    figure.locator("summary").click()
    before = seen.column("#s4 figure:first-of-type", 1)
    figure.locator("select").select_option(index=1)
    after = seen.column("#s4 figure:first-of-type", 1)
    assert len(before) == len(after) == 5
    assert before != after
    assert seen.complaints == []
    seen.page.close()


def test_dark_is_dark(browser: Any, quickstart: Path) -> None:
    seen = opened(browser, quickstart, color_scheme="dark")
    paper = "() => getComputedStyle(document.querySelector('section')).backgroundColor"
    ink = "() => getComputedStyle(document.querySelector('svg .title')).fill"

    def lightness(code: str) -> int:
        return sum(map(int, re.findall(r"\d+", seen.page.evaluate(code))[:3]))

    assert lightness(paper) < 200
    assert lightness(ink) > 500
    assert min(seen.page.evaluate(DRAWN)) > 20
    seen.page.emulate_media(color_scheme="light")
    assert lightness(paper) > 600
    assert seen.complaints == []
    seen.page.close()


def test_a_phone_scrolls_down_and_not_across(browser: Any, quickstart: Path, folder: Path) -> None:
    report(folder / "a", folder / "b", "-o", folder / "x.html")
    for path in (quickstart, folder / "x.html"):
        seen = opened(browser, path, viewport={"width": 390, "height": 844})
        inside, window = seen.page.evaluate(WIDTHS)
        assert inside <= window == 390
        assert min(seen.page.evaluate(DRAWN)) > 20
        assert seen.complaints == []
        seen.page.close()


def test_on_paper_there_are_no_controls(browser: Any, quickstart: Path) -> None:
    seen = opened(browser, quickstart, color_scheme="dark")
    assert seen.page.locator("nav, .controls").first.is_visible()
    seen.page.emulate_media(media="print")
    for control in seen.page.locator("nav, .controls, figure summary").all():
        assert not control.is_visible()
    paper = seen.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert seen.page.locator(".plot canvas").first.is_visible()
    seen.page.set_viewport_size({"width": 760, "height": 1000})
    inside, window = seen.page.evaluate(WIDTHS)
    assert inside <= window
    assert seen.complaints == []
    seen.page.close()


def test_hostile_names_run_nothing(browser: Any, tmp_path: Path) -> None:
    sites = {f"layers.{i}.{SCRIPT.replace('/', '')}.{IMAGE}.q": (12, 16) for i in range(3)}
    names = [IMAGE, SCRIPT.replace("/", ""), "{b|x}"]
    for seed, name in enumerate(names):
        extra: dict[str, Any] = {"base_model_name_or_path": SCRIPT, "target_modules": ["q"]}
        lora(tmp_path / name, seed, sites, **extra)
    quoted = [name.replace("\\", "\\\\").replace('"', '\\"') for name in names]
    text = "".join(f'adapter a{i} = "{name}"\n' for i, name in enumerate(quoted))
    text = text.replace("{", "{{").replace("}", "}}")
    text += f'# {SCRIPT}\nsave a0 + 2 * a1 to "out/{quoted[1]}"\nsave a2 to "out/{quoted[0]}"\n'
    pages = [
        (recipe(tmp_path, text),),
        (tmp_path / IMAGE,),
        (tmp_path / IMAGE, tmp_path / names[1]),
    ]
    for number, targets in enumerate(pages):
        out = tmp_path / f"{number}.html"
        done = report(*targets, "-o", out)
        assert done.code == 0, done.err
        seen = opened(browser, out)
        for select in seen.page.locator("select").all():
            select.select_option(index=1)
        seen.page.mouse.move(400, 500)
        for canvas in seen.page.locator(".plot").all():
            canvas.hover()
        assert seen.page.evaluate("() => window.hacked") is None
        assert seen.page.locator("img").count() == 0
        assert seen.page.locator("script").count() == seen.page.locator("figure").count() + 2
        assert (seen.complaints, seen.requests) == ([], [out.as_uri()])
        seen.page.close()


def test_pictures_for_the_documents(
    request: pytest.FixtureRequest, browser: Any, quickstart: Path
) -> None:
    if not request.config.getoption("--screenshots"):
        pytest.skip("they are made with --screenshots")
    IMAGES.mkdir(exist_ok=True)
    wide, phone = {"width": 1280, "height": 1180}, {"width": 390, "height": 844}
    for name, size, scheme, section in (
        ("light", wide, "light", 0),
        ("dark", wide, "dark", 4),
        ("phone", phone, "light", 3),
    ):
        seen = opened(browser, quickstart, viewport=size, color_scheme=scheme)
        if section:
            seen.page.evaluate(f"() => document.querySelector('#s{section}').scrollIntoView()")
        seen.page.screenshot(path=IMAGES / f"report-{name}.png")
        assert (IMAGES / f"report-{name}.png").stat().st_size < 250_000
        seen.page.close()
