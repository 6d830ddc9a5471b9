"""`pem doc`: what recipes say of what they offer, in every form."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from support import lora, pem, recipe
from support.reports import Page

from pemlang.show import HEAD

IMAGES = Path(__file__).parents[2] / "docs" / "images"
HOUSE = """# house.pem: how this house merges.
import std.paper (merge)

## How much of the first.
param share: number in 0..1 = 0.75

## Half of what `x` does, see `both`.
## Source: nobody (arXiv 2306.14870).
def half(x: adapter) -> adapter = 0.5 * x

def _own(x: adapter) -> adapter = half(x)

## Both, by std.paper, at `share`.
def both(
    a: lora,
    b: lora,
    by: number = 0.25,
) -> adapter = merge(_own(a), half(b), weight=by)

def flat(xs: [adapter], size: number) -> adapter = size * sum([x / norm(x) for x in xs])
def parts(by: number) -> schedule = per { "*.q_proj": by, "*mlp*": 1, else: 0 }
def small(x: adapter, most: number in 20 .. 30) -> bool = norm(x) < most
def never(m: model, x: adapter) -> model = m + x

let plain = 1

test "two halves" {
    let a = sample(lora)
    assert same(half(a) + half(a), a)
}
"""


def documented(folder: Path, text: str = HOUSE) -> dict[str, Any]:
    done = pem("doc", recipe(folder, text, "house.pem"), "--format", "json")
    assert done.code == 0, done
    [library] = json.loads(done.out)["libraries"]
    return {entry["name"]: entry for entry in library["names"]}


@pytest.mark.parametrize(
    ("head", "about"),
    [
        ("# house.pem: how we merge.\n# In short.\nlanguage 1\n", "How we merge. In short."),
        ("## How we merge.\nlanguage 1\n", "How we merge."),
        ("## How we merge.\n\n", "How we merge."),
        ("# How we merge.\n## Half of it.\n", "How we merge."),
        ("## Half of it.\n", ""),
    ],
)
def test_what_is_told_of_a_file(head: str, about: str, tmp_path: Path) -> None:
    text = f"{head}def half(x: adapter) -> adapter = 0.5 * x\n"
    done = pem("doc", recipe(tmp_path, text, "house.pem"), "--format", "json")
    [library] = json.loads(done.out)["libraries"]
    assert library["about"] == about


def test_what_is_told_of_each_name(tmp_path: Path) -> None:
    names = documented(tmp_path)
    assert list(names) == ["share", "half", "both", "flat", "parts", "small", "never"]
    half, both = names["half"], names["both"]
    assert half["about"] == "Half of what `x` does, see `both`."
    assert half["source"] == "nobody (arXiv 2306.14870)."
    assert half["used_by"] == ["both"]
    assert [test["title"] for test in half["tests"]] == ["two halves"]
    assert both["signature"] == "both(a: lora, b: lora, by: number = 0.25) -> adapter"
    assert [x["range"] for x in names["small"]["params"]] == [None, "20 .. 30"]
    assert [(x["name"], x["default"]) for x in both["params"]] == [
        ("a", None), ("b", None), ("by", "0.25"),
    ]  # fmt: skip
    assert both["uses"] == ["half", "std.paper.merge"]
    assert names["share"]["signature"] == "param share: number in 0..1 = 0.75"


def test_normal_forms_are_those_of_the_language(tmp_path: Path) -> None:
    examples = {name: entry["example"] for name, entry in documented(tmp_path).items()}
    assert examples["half"] == {
        "call": "half(x)", "normal_form": "0.5·x", "type": "LoRA, rank 4, 4 sites",
    }  # fmt: skip
    assert examples["parts"]["call"] == "parts(0.5) * a"
    assert examples["parts"]["normal_form"] == "(0.5 … 1 by site)·a[2 of 3 sites]"
    assert examples["flat"]["call"] == "flat([x1, x2], 0.25)"
    assert "1/norm(x2)" in examples["flat"]["normal_form"]
    assert examples["small"]["normal_form"] == "norm(x) < 25"
    assert examples["never"] is None and examples["share"] is None


def test_many_names_and_tests_are_told_in_a_moment(tmp_path: Path) -> None:
    many = range(1500)
    text = "".join(f"def f{n}(x: adapter) -> adapter = x\n" for n in many)
    text += "".join(f'test "of {n}" {{ assert same(f{n}(sample(lora)), 1) }}\n' for n in many)
    began = time.process_time()
    names = documented(tmp_path, text)
    assert time.process_time() - began < 5
    assert [test["title"] for test in names["f7"]["tests"]] == ["of 7"]


def test_nothing_of_a_long_comment_is_cut(tmp_path: Path) -> None:
    long = "word " * 200 + "end."
    file = recipe(tmp_path, f"# x.pem: {long}\n## {long}\ndef f(x: adapter) -> adapter = x\n")
    for form in ("text", "markdown", "json"):
        assert pem("doc", file, "--format", form).out.count("end.") == 2
    assert pem("doc", file, "--format", "html", "-o", tmp_path / "site").code == 0
    assert (tmp_path / "site" / "recipe.html").read_text().count("end.") >= 2


def test_a_schedule_is_shown_on_layers_that_tell_it(tmp_path: Path) -> None:
    text = "def tent(ends: number, by: number) -> schedule = ramp([ends, by, ends])\n"
    assert documented(tmp_path, text)["tent"]["example"] == {
        "call": "tent(0.5, 0.25) * a",
        "normal_form": "(0.25 … 0.5 by site)·a",
        "type": "LoRA, rank 4, 6 sites",
    }


def test_a_long_normal_form_gives_way_to_that_of_shorter_lists(tmp_path: Path) -> None:
    text = "def even(xs: [adapter]) -> adapter = sum([{}x / norm(x) for x in xs])\n"
    few = documented(tmp_path, text.format(""))["even"]["example"]
    norms = "".join(f"norm({n} * x + xs[0]) * " for n in range(3, 9))
    many = documented(tmp_path, text.format(norms))["even"]["example"]
    assert (few["call"], many["call"]) == ("even([x1, x2])", "even([x1])")
    assert "…" not in many["normal_form"]


def test_names_that_are_handed_on(tmp_path: Path) -> None:
    """A file that only hands on what others have is told too, and leads to their pages."""
    text = 'export import std.paper (merge, unlearn)\nexport import "<b>.pem" as other\n'
    (tmp_path / "all.pem").write_text(text)

    def shown(*words: str) -> str:
        done = pem("doc", "all.pem", *words, folder=tmp_path)
        assert (done.code, done.err) == (0, "")
        return done.out

    told = 'all.pem\n  Hands on merge, unlearn of std.paper\n  Hands on other of "<b>.pem"\n'
    assert shown() == told
    assert "Hands on `merge`, `unlearn` of `std.paper`." in shown("--format", "markdown")
    shown("std.paper", "--format", "html", "-o", "site")
    page = (tmp_path / "site/all.html").read_text()
    assert '#def-merge">merge</a>' in page and "<b>" not in page
    [library] = json.loads(shown("--format", "json"))["libraries"]
    assert library["hands_on"][0] == {"of": "std.paper", "names": ["merge", "unlearn"]}


def test_the_terminal_names_the_tests(tmp_path: Path) -> None:
    assert "\n      Test: two halves\n" in pem("doc", recipe(tmp_path, HOUSE, "house.pem")).out


def test_an_adapter_that_is_not_there_keeps_nothing_else_from_being_told(tmp_path: Path) -> None:
    names = documented(tmp_path, 'adapter gone = "gone"\n' + HOUSE.replace("import", "# import"))
    assert names["half"]["example"]["normal_form"] == "0.5·x"


def test_pages_do_not_change_from_one_time_to_the_next(tmp_path: Path) -> None:
    words = ("doc", recipe(tmp_path, HOUSE, "house.pem"), "std", "--format", "markdown")
    assert pem(*words).out == pem(*words).out


def test_files_with_one_name_have_pages_of_their_own(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        recipe(tmp_path / folder, f"## {folder}\ndef f(x: adapter) -> adapter = x\n", "a.pem")
    recipe(tmp_path, "## Three.\ndef f(x: adapter) -> adapter = x\n", "index.pem")
    for form, suffix in (("html", ".html"), ("markdown", ".md")):
        site = tmp_path / form
        done = pem("doc", tmp_path, "--format", form, "-o", site)
        assert done.code == 0, done
        names = {path.name for path in site.iterdir()}
        assert names == {f"{x}{suffix}" for x in ("index", "index-2", "a", "a-2")}
        assert all(HEAD.split("\n")[1] in path.read_text() for path in site.iterdir())


def test_every_link_of_a_site_leads_somewhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    recipe(tmp_path, HOUSE + "## Also.\ndef λ(x: adapter) -> adapter = half(x)\n", "house.pem")
    assert pem("doc", tmp_path, "std", "--format", "html", "-o", site).code == 0
    pages = {path.name: Page(path.read_text()) for path in site.iterdir()}
    assert len(pages) == 7
    ids = {name: {a["id"] for _, a in page.tags if "id" in a} for name, page in pages.items()}
    followed = 0
    for name, page in pages.items():
        for tag, attributes in page.tags:
            href = attributes.get("href", "")
            if tag != "a" or href.startswith("https://arxiv.org/abs/"):
                continue
            target, _, anchor = href.partition("#")
            assert not anchor or unquoted(anchor) in ids[target or name], href
            followed += 1
    assert followed > 60


def test_names_are_searched(browser: Any, tmp_path: Path) -> None:
    assert pem("doc", "std", "--format", "html", "-o", tmp_path).code == 0
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.get_by_placeholder("Search").fill("unlearn bes")
    names = page.locator("tbody tr:visible td:first-child").all_inner_texts()
    assert names == ["beside", "negation_beside"]
    page.close()


def unquoted(text: str) -> str:
    from urllib.parse import unquote

    return unquote(text)


SCRIPT = "<script>alert(1)</script>"
HOSTILE = f'''# x.pem: {SCRIPT} ![x](http://example.org/x.png) ```
## {SCRIPT} `{SCRIPT}` <img src=x onerror=alert(1)> [here](javascript:alert(1)) arXiv 2306.14870
## Source: {SCRIPT} @someone ```` " onclick="
def f(x: adapter, s: string = "{SCRIPT}```") -> adapter = x
test "{SCRIPT} `" {{
    assert same(f(sample(lora)), sample(lora)) # {SCRIPT}
    # ````
}}
'''


def test_what_is_written_is_text_alone(tmp_path: Path) -> None:
    file = recipe(tmp_path, HOSTILE, "it's <b>.pem")
    assert pem("doc", file, "--format", "html", "-o", tmp_path / "site").code == 0
    for path in (tmp_path / "site").iterdir():
        page = Page(path.read_text())
        tags = [tag for tag, _ in page.tags]
        assert tags.count("script") == 1 and "img" not in tags and "b" not in tags
        assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    shown = pem("doc", file, "--format", "markdown").out
    outside = re.sub(r"(?ms)^(`{3,})pem\n.*?^\1$", "", shown)
    assert "<script>" not in outside.replace(f"`{SCRIPT}`", "")
    assert "](javascript" not in shown and "](http://example" not in shown


def test_a_file_of_someone_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "std.paper.html").write_text("mine")
    done = pem("doc", "std", "--format", "html", "-o", tmp_path / "site")
    assert (done.code, "std.paper.html is there" in done.err) == (2, True)
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["std.paper.html"]
    (tmp_path / "site" / "std.paper.html").unlink()
    for _ in range(2):
        assert pem("doc", "std", "--format", "html", "-o", tmp_path / "site").code == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["std.papr"], 1, "name one that there is: std.paper\n"),
        (["std.soups.pem"], 1, "name one that there is: std.soups\n"),
        (["nowhere.pem"], 1, "PEM0100"),
        (["torn.pem"], 1, "PEM0108"),
        (["a"], 1, "PEM0100"),
        (["house.pem", "--format", "html"], 2, "-o DIR"),
        (["house.pem", "-o", "site"], 2, "--format html"),
        (["house.pem", "--format", "html", "-o", "house.pem"], 2, "house.pem"),
        (["house.pem", "--format", "html", "-o", "house.pem/x"], 2, "house.pem"),
    ],
)
def test_mistakes(words: list[str], code: int, told: str, tmp_path: Path) -> None:
    lora(tmp_path / "a")
    recipe(tmp_path, HOUSE, "house.pem")
    recipe(tmp_path, "let = \n", "torn.pem")
    done = pem("doc", *words, folder=tmp_path)
    assert (done.code, told in done.err) == (code, True), done
    assert "Traceback" not in done.err


def test_a_picture_for_the_documents(
    request: pytest.FixtureRequest, browser: Any, tmp_path: Path
) -> None:
    if not request.config.getoption("--screenshots"):
        pytest.skip("it is made with --screenshots")
    assert pem("doc", "std", "--format", "html", "-o", tmp_path).code == 0
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    page.goto((tmp_path / "std.unlearn.html").as_uri())
    page.get_by_text("Test: what is kept is kept").last.click()
    page.evaluate("() => document.querySelector('#def-negation_beside').scrollIntoView()")
    page.screenshot(path=IMAGES / "doc.png")
    assert (IMAGES / "doc.png").stat().st_size < 250_000
    page.close()
