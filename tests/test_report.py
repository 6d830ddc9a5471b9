"""`pem report`: its numbers against dense float64 NumPy, its page as text, and in Chromium."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support import Dense, build, delta, gains, ia3, lora, recipe

import pemlang
from pemlang.cli.main import cli
from pemlang.compare import measure
from pemlang.compare.measure import Measured, Subject, truncation_curve
from pemlang.show.page import Chart, Column, View, chart, page, table
from pemlang.show.report import measured_of, sections_of_recipe

ROOT = Path(__file__).parent.parent
QUICKSTART = Path("examples") / "quickstart" / "quickstart.pem"
IMAGES = ROOT / "docs" / "images"
SITES = {
    f"layers.{i}.{name}": shape
    for i in range(3)
    for name, shape in (("q_proj", (12, 16)), ("down", (16, 40)))
}
TEXT = """
adapter a = "a"
adapter b = "b"
adapter c = "c"
adapter i = "i"
adapter j = "j"
save 0.5 * a - 2 * b to "out/sum"
save a + b to "out/cut" with rank=3
save i + 0.5 * j to "out/gains"
"""
SCRIPT = "</script><script>window.hacked=1</script>"
IMAGE = '"><img src=x onerror="window.hacked=1">'


def report(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, args)], standalone_mode=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        lora(tmp_path / name, seed, SITES, rank=4)
    for seed, name in enumerate("ij"):
        ia3(tmp_path / name, seed)
    return tmp_path


# --- numbers ---------------------------------------------------------------------------------


@pytest.fixture
def found(folder: Path) -> Measured:
    return measured_of(pemlang.load(recipe(folder, TEXT)).identified(), lambda *_: None)


def by_name(found: Measured, name: str) -> Subject:
    return next(subject for subject in found.norms if subject.name == name)


def dense(folder: Path, name: str) -> Dense:
    """What a subject of TEXT is, from the files."""
    if name in "ij":
        return {site: gain - 1 for site, gain in gains(folder / name).items()}
    if name == "out/gains":
        i, j = dense(folder, "i"), dense(folder, "j")
        return {site: i[site] + 0.5 * j[site] for site in i}
    if name in "abc":
        return delta(folder / name)
    a, b = delta(folder / "a"), delta(folder / "b")
    return {site: 0.5 * a[site] - 2 * b[site] for site in a}


@pytest.mark.parametrize("name", ["a", "b", "c", "i", "out/sum", "out/gains"])
def test_norms(folder: Path, found: Measured, name: str) -> None:
    expected = {site: float(np.linalg.norm(value)) for site, value in dense(folder, name).items()}
    assert found.norms[by_name(found, name)] == pytest.approx(expected, rel=1e-6)


def test_norms_of_what_is_cut_are_those_of_what_is_built(folder: Path, found: Measured) -> None:
    build(folder, TEXT)
    expected = {s: float(np.linalg.norm(d)) for s, d in delta(folder / "out/cut").items()}
    assert found.norms[by_name(found, "out/cut")] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["a", "out/sum"])
def test_spectra_and_what_a_truncation_loses(folder: Path, found: Measured, name: str) -> None:
    spectra = found.spectra[by_name(found, name)]
    squares, total = np.zeros(17), 0.0
    for site, value in dense(folder, name).items():
        sigma = np.linalg.svd(value, compute_uv=False)
        assert spectra[site] == pytest.approx(sigma[: len(spectra[site])], rel=1e-5)
        squares[: len(sigma)] += sigma**2
        total += float(np.sum(value**2))
    curve = truncation_curve(spectra)
    expected = [np.sqrt(squares[k:].sum() / total) for k in range(len(curve))]
    assert curve == pytest.approx(np.array(expected), abs=1e-6)
    assert (curve[0], curve[-1]) == (pytest.approx(1), 0)


def flat(values: Dense, layer: str = "") -> Any:
    kept = [value.ravel() for site, value in sorted(values.items()) if f".{layer}" in site]
    return np.concatenate(kept)


@pytest.mark.parametrize("names", ["abc", "ij"])
def test_cosines_and_sign_conflicts(folder: Path, found: Measured, names: str) -> None:
    [alike] = [one for one in found.alike if one.subjects[0].name in names]
    assert [subject.name for subject in alike.subjects] == list(names)
    layers = list(alike.products)
    for chosen, layer in [(layers, ""), (["1"], "1.")]:
        cosine, conflict = alike.cosine(chosen), alike.conflict(chosen)
        for (i, x), (j, y) in combinations(enumerate(names), 2):
            one, other = flat(dense(folder, x), layer), flat(dense(folder, y), layer)
            expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            assert [cosine[i, j], cosine[j, i]] == pytest.approx([expected] * 2, abs=1e-6)
            assert conflict[i, j] == pytest.approx(np.mean(np.sign(one) * np.sign(other) < 0))
    assert not alike.sampled
    assert np.diagonal(alike.cosine(layers)) == pytest.approx(1)
    assert not np.diagonal(alike.conflict(layers)).any()


def test_signs_of_a_large_site_are_those_of_a_sample(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = {"layers.0.q_proj": (512, 64), "layers.1.q_proj": (16, 64)}
    lora(folder / "a", 1, sites, rank=8)
    lora(folder / "b", 2, sites, rank=8)
    monkeypatch.setattr(measure, "TILE", 64 * 200)
    text = 'adapter a = "a"\nadapter b = "b"\nsave a + b to "x"\n'
    found = measured_of(pemlang.load(recipe(folder, text)).identified(), lambda *_: None)
    [alike] = found.alike
    one, other = flat(delta(folder / "a")), flat(delta(folder / "b"))
    assert alike.sampled
    assert sum(alike.entries.values()) == one.size
    expected = np.mean(np.sign(one) * np.sign(other) < 0)
    assert alike.conflict(["0", "1"])[0, 1] == pytest.approx(expected, abs=0.02)
    rows = measure.rows_looked_at(512, 64)
    assert len(rows) > 150
    assert np.diff(rows).max() <= 5


def test_a_zero_adapter_has_no_cosine(folder: Path) -> None:
    text = 'adapter a = "a"\nsave a - a to "zero"\nsave 2 * a to "x"\n'
    checked = pemlang.load(recipe(folder, text)).identified()
    found = measured_of(checked, lambda *_: None)
    assert not any(found.norms[by_name(found, "zero")].values())
    assert sections_of_recipe(pemlang.load(folder / "recipe.pem"), lambda *_: None)


def test_adapters_of_other_sites_or_methods_are_not_compared(folder: Path) -> None:
    lora(folder / "b", 1)
    text = 'adapter a = "a"\nadapter b = "b"\nadapter i = "i"\nsave 2 * a to "x"\n'
    found = measured_of(pemlang.load(recipe(folder, text)).identified(), lambda *_: None)
    assert found.alike == []
    sections = sections_of_recipe(pemlang.load(folder / "recipe.pem"), lambda *_: None)
    [likeness] = [section for section in sections if section.title == "Likeness"]
    assert "No two adapters" in likeness.html


# --- the page --------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would make of a page: its elements, its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "data": []}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script" and dict(attrs).get("type") == "application/json":
            self._inside = "data"

    def handle_data(self, data: str) -> None:
        if self._inside in self.texts:
            self.texts[self._inside].append(data)
            self._inside = ""


def policy_of(found: Page) -> dict[str, set[str]]:
    [policy] = [
        attrs["content"] or ""
        for tag, attrs in found.tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    parts = (part.split() for part in policy.split(";"))
    return {name: set(values) for name, *values in parts}


def test_the_policy_names_what_the_page_holds_and_nothing_else(folder: Path) -> None:
    out = folder / "report.html"
    assert report(recipe(folder, TEXT), "-o", out).return_value == 0
    found = Page(out.read_text(encoding="utf-8"))
    policy = policy_of(found)

    def digests(kind: str) -> set[str]:
        return {
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in found.texts[kind]
        }

    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == digests("script")
    assert policy["style-src"] == digests("style")
    assert policy["img-src"] == {"data:"}
    assert len(found.texts["script"]) == 2
    for tag, attrs in found.tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert not any(name == "style" or name.startswith("on") for name in attrs)
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")


def test_a_page_is_the_same_each_time(folder: Path) -> None:
    pages = []
    for _ in range(2):
        report(recipe(folder, TEXT), "-o", folder / "x.html")
        pages.append((folder / "x.html").read_bytes())
    assert pages[0] == pages[1]


def test_data_of_charts_is_json_that_ends_no_script() -> None:
    hostile = Chart("heat", SCRIPT, IMAGE, [SCRIPT], "x", [View(SCRIPT, [(IMAGE, [1.0])])], "u")
    found = Page(chart(hostile))
    [data] = found.texts["data"]
    assert json.loads(data)["views"][0]["rows"] == [[IMAGE, [1.0]]]
    assert not set("<>&\u2028\u2029") & set(data)
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in found.tags]


def test_numbers_in_tables() -> None:
    shown = table([Column("n", "number")] * 3, [[1234567, -0.123456789, None]])
    assert 'data-value="1234567">1,234,567<' in shown
    assert 'data-value="-0.123456789">−0.1235<' in shown
    assert '<td class="number">–<' in shown


def test_a_page_without_charts_needs_no_library() -> None:
    assert len(page("x", [])) < 40_000


def test_a_report_of_an_adapter_and_of_two(folder: Path) -> None:
    out = folder / "report.html"
    assert report(folder / "a", "-o", out).return_value == 0
    text = out.read_text(encoding="utf-8")
    for wanted in ("<dd>LoRA</dd>", "layers.*.q_proj", "layers.2.down", "linear 16×40"):
        assert wanted in text
    assert report(folder / "a", folder / "b", "-o", out).return_value == 0
    text = out.read_text(encoding="utf-8")
    assert "What changed" in text
    assert text.count("<h2>Sites, ") == 2
    assert report(folder / "i", "-o", out).return_value == 0
    assert "a gain has no spectrum" in out.read_text(encoding="utf-8")


def test_a_report_of_a_recipe_that_saves_nothing(folder: Path) -> None:
    path = recipe(folder, 'adapter a = "a"\n')
    assert report(path, "-o", folder / "x.html").return_value == 0
    assert "saves nothing" in (folder / "x.html").read_text(encoding="utf-8")
    assert report(recipe(folder, "let x = 1\n"), "-o", folder / "x.html").return_value == 0


def test_only_a_report_is_replaced(folder: Path) -> None:
    out = folder / "notes.html"
    out.write_text("<html>mine</html>")
    done = report(folder / "a", "-o", out)
    assert "was not written by this command" in str(done.exception)
    assert out.read_text() == "<html>mine</html>"
    assert "cannot be written" in str(report(folder / "a", "-o", folder / "no" / "x").exception)


@pytest.mark.parametrize(("target", "code"), [("wrong.pem", "PEM0206"), ("nowhere", "PEM0410")])
def test_what_is_wrong_leaves_the_last_report(folder: Path, target: str, code: str) -> None:
    recipe(folder, "let x = b\n", "wrong.pem")
    out = folder / "report.html"
    report(folder / "a", "-o", out)
    before = out.read_bytes()
    done = report(folder / target, "-o", out)
    assert done.return_value == 1
    assert code in done.stderr
    assert out.read_bytes() == before
    assert not list(folder.glob(".report*"))


def test_an_input_that_is_not_finite_is_told(folder: Path) -> None:
    weights = folder / "a" / "adapter_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    weights.write_bytes(raw)
    for target in (folder / "a", recipe(folder, TEXT)):
        done = report(target, "-o", folder / "x.html")
        assert done.return_value == 1
        assert "PEM0502" in done.stderr
        assert not (folder / "x.html").exists()


# --- in a browser ----------------------------------------------------------------------------

DRAWN = """() => [...document.querySelectorAll('.plot canvas')].map(canvas => {
  const { width, height } = canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  return new Set(new Uint32Array(pixels.buffer)).size;
})"""
WIDTHS = "() => [document.documentElement.scrollWidth, innerWidth]"


@dataclass
class Seen:
    """A page in a browser, and everything it complained of or asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def column(self, table: str, index: int) -> list[str]:
        cells = self.page.locator(f"{table} tbody tr:visible td:nth-child({index + 1})")
        return [text.strip() for text in cells.all_inner_texts()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    flags = "no-sandbox disable-gpu disable-background-networking disable-component-update"
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium,
            args=[f"--{flag}" for flag in (flags + " disable-sync no-first-run").split()],
        )
        yield launched
        launched.close()


def opened(browser: Any, path: Path, **how: Any) -> Seen:
    view = {"viewport": {"width": 1360, "height": 900}} | how
    seen = Seen(browser.new_page(**view))
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.goto(path.as_uri())
    seen.page.wait_for_selector(".plot canvas")
    return seen


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "quickstart.html"
    with contextlib.chdir(ROOT):
        assert report(QUICKSTART, "-o", out).return_value == 0
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
        assert done.return_value == 0, done.stderr
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
