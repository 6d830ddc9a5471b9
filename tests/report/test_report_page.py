"""The page of a report, as text."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from support import Done, pem, recipe
from support.reports import IMAGE, SCRIPT, TEXT, Page

from pemlang.show import Chart, Column, View, chart, table, whole_page


def report(*words: str | Path) -> Done:
    return pem("report", *words)


def policy_of(page: Page) -> dict[str, set[str]]:
    [policy] = [
        attrs["content"] or ""
        for tag, attrs in page.tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    parts = (part.split() for part in policy.split(";"))
    return {name: set(values) for name, *values in parts}


def test_the_policy_names_what_the_page_holds_and_nothing_else(folder: Path) -> None:
    out = folder / "report.html"
    assert report(recipe(folder, TEXT), "-o", out).code == 0
    page = Page(out.read_text(encoding="utf-8"))
    policy = policy_of(page)

    def digests(kind: str) -> set[str]:
        return {
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in page.texts[kind]
        }

    assert policy["default-src"] == {"'none'"}
    assert policy["script-src"] == digests("script")
    assert policy["style-src"] == digests("style")
    assert policy["img-src"] == {"data:"}
    assert len(page.texts["script"]) == 2
    for tag, attrs in page.tags:
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
    page = Page(chart(hostile))
    [data] = page.texts["data"]
    assert json.loads(data)["views"][0]["rows"] == [[IMAGE, [1.0]]]
    assert not set("<>&\u2028\u2029") & set(data)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in page.tags]


def test_numbers_in_tables() -> None:
    shown = table([Column("n", "number")] * 3, [[1234567, -0.123456789, None]])
    assert 'data-value="1234567">1,234,567<' in shown
    assert 'data-value="-0.123456789">−0.1235<' in shown
    assert '<td class="number">–<' in shown


def test_a_page_without_charts_needs_no_library() -> None:
    assert len(whole_page("x", [])) < 40_000


def test_a_report_of_an_adapter_and_of_two(folder: Path) -> None:
    out = folder / "report.html"
    assert report(folder / "a", "-o", out).code == 0
    text = out.read_text(encoding="utf-8")
    for wanted in ("<dd>LoRA</dd>", "layers.*.q_proj", "layers.2.down", "linear 16×40"):
        assert wanted in text
    assert report(folder / "a", folder / "b", "-o", out).code == 0
    text = out.read_text(encoding="utf-8")
    assert "What changed" in text
    assert text.count("<h2>Sites, ") == 2
    assert report(folder / "i", "-o", out).code == 0
    assert "None of these is a LoRA" in out.read_text(encoding="utf-8")


def test_a_report_of_a_recipe_that_saves_nothing(folder: Path) -> None:
    path = recipe(folder, 'adapter a = "a"\n')
    assert report(path, "-o", folder / "x.html").code == 0
    assert "saves nothing" in (folder / "x.html").read_text(encoding="utf-8")
    assert report(recipe(folder, "let x = 1\n"), "-o", folder / "x.html").code == 0


def test_only_a_report_is_replaced(folder: Path) -> None:
    out = folder / "notes.html"
    out.write_text("<html>mine</html>")
    done = report(folder / "a", "-o", out)
    assert "was not written by this command" in done.err
    assert out.read_text() == "<html>mine</html>"
    assert "cannot be written" in report(folder / "a", "-o", folder / "no" / "x").err


@pytest.mark.parametrize(("target", "code"), [("wrong.pem", "PEM0206"), ("nowhere", "PEM0410")])
def test_what_is_wrong_leaves_the_last_report(folder: Path, target: str, code: str) -> None:
    recipe(folder, "let x = b\n", "wrong.pem")
    out = folder / "report.html"
    report(folder / "a", "-o", out)
    before = out.read_bytes()
    done = report(folder / target, "-o", out)
    assert done.code == 1
    assert code in done.err
    assert out.read_bytes() == before
    assert not list(folder.glob(".report*"))


def test_an_input_that_is_not_finite_is_told(folder: Path) -> None:
    weights = folder / "a" / "adapter_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    weights.write_bytes(raw)
    for target in (folder / "a", recipe(folder, TEXT)):
        done = report(target, "-o", folder / "x.html")
        assert done.code == 1
        assert "PEM0502" in done.err
        assert not (folder / "x.html").exists()
