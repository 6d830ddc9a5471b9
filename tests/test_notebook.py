"""Recipes in notebooks, by IPython itself; and what they show there and in Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.lib.pretty import pretty
from support import delta, lora, recipe
from support.reports import IMAGE, Page

import pemlang

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
TEXT = (
    'adapter a = "a"\nadapter b = "b"\nparam w: number in 0..1 = 0.5\n'
    'let both = w * a + (1 - w) * b\nsave both to "out/x"\n'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shell(folder: Path) -> Any:
    made = InteractiveShell(colors="nocolor")
    made.history_manager.enabled = False
    ran(made, "%load_ext pemlang")
    return made


def ran(shell: Any, cell: str) -> Any:
    done = shell.run_cell(cell)
    done.raise_error()
    return done.result


def test_a_cell_is_a_recipe(shell: Any, folder: Path) -> None:
    shown = ran(shell, f"%%pem merged w=0.25\n{TEXT}")
    assert shown is shell.user_ns["merged"]
    ran(shell, "result = merged.build()")
    assert (folder / "out" / "x" / "adapter_config.json").exists()
    assert shell.user_ns["result"].outputs[0].rank == 8
    assert ran(shell, "%%pem\nlet x = 1") is shell.user_ns["recipe"]


def test_a_line_tells_a_value(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ran(shell, f"%%pem\n{TEXT}")
    capsys.readouterr()
    ran(shell, "%pem both - 0.5 * a")
    ran(shell, "%pem norm(a) > 0")
    assert capsys.readouterr().out.splitlines() == [
        "both - 0.5 * a is 0.5·b: LoRA, rank 4, 4 sites",
        "norm(a) > 0 is true",
    ]


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("%pem norm(c)", "<expression>:1:6"),
        ("%pem a +", "<expression>:1:4"),
        ("%%pem\nlet x = y\n", "<text>:1:9"),
        ("%%pem w=7\n" + TEXT, "PEM0214"),
        ("%%pem 5\n" + TEXT, "PEM0601"),
        ("%%pem v=1\n" + TEXT, "PEM0211"),
    ],
)
def test_mistakes_are_told_below_the_cell(
    shell: Any, capsys: pytest.CaptureFixture[str], cell: str, told: str
) -> None:
    first = ran(shell, f"%%pem\n{TEXT}")
    capsys.readouterr()
    ran(shell, cell)
    shown = capsys.readouterr()
    assert told in shown.err
    assert "Traceback" not in shown.err + shown.out
    assert shell.user_ns["recipe"] is first


def test_an_error_is_shown_without_the_python_that_found_it(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shell.run_cell("import pemlang\npemlang.loads('let x = y').build()")
    shown = capsys.readouterr()
    assert "error[PEM0206]" in shown.out + shown.err
    assert "api.py" not in shown.out + shown.err


def test_a_diagnostic_is_its_caret_text() -> None:
    [wrong] = pemlang.loads("let x = y").check()
    assert pretty(wrong) == str(wrong)
    assert pretty((wrong,)) == f"({wrong},)"


def test_a_recipe_shows_what_it_saves_and_its_graph(folder: Path) -> None:
    shown = pemlang.load(recipe(folder, TEXT))._repr_html_()
    assert "<td" in shown and "0.5·a + 0.5·b" in shown and "LoRA, rank 8, 4 sites" in shown
    svg = shown[shown.index("<svg") : shown.index("</svg>") + 6]
    assert len(ElementTree.fromstring(svg).findall(".//{*}rect")) >= 4
    named = pemlang.loads('adapter a = "a"\nlet x = 2 * a')._repr_html_()
    assert "2·a" in named and "<svg" not in named
    assert "error[PEM0206]" in pemlang.loads("let x = y")._repr_html_()


def test_what_comes_from_files_is_text_there(folder: Path) -> None:
    name = IMAGE.replace("/", "")
    (folder / "a").rename(folder / name)
    quoted = name.replace('"', '\\"')
    for text in (
        f'adapter a = "{quoted}"\nsave a to "out/{quoted}"',
        f'adapter a = "a{quoted}"\nsave a to "out"',
    ):
        page = Page(pemlang.loads(text)._repr_html_())
        assert not {"img", "script"} & {tag for tag, _ in page.tags}
        assert not [x for _, attributes in page.tags for x in attributes if x.startswith("on")]


# --- expressions over the names of a recipe ------------------------------------------------------


def test_an_expression_is_evaluated(folder: Path) -> None:
    a, b = delta(folder / "a"), delta(folder / "b")
    opened = pemlang.loads(TEXT)
    tensors = opened.evaluate("0.5 * a + both")
    for site, wanted in a.items():
        key = f"base_model.model.{site}.lora_{{}}.weight"
        ours = 2 * tensors[key.format("B")].double() @ tensors[key.format("A")].double()
        assert np.allclose(ours, wanted + 0.5 * b[site], atol=1e-4)
    cosine = sum(np.sum(a[x] * b[x]) for x in a) / np.sqrt(
        sum(np.sum(x**2) for x in a.values()) * sum(np.sum(x**2) for x in b.values())
    )
    assert opened.measure("cosine(a, b)") == pytest.approx(cosine, rel=1e-6)
    assert opened.measure("1 / 3") == 1 / 3
    assert opened.measure(" w ") == 0.5


@pytest.mark.parametrize(
    ("expression", "code", "place"),
    [
        ("2 * c", "PEM0206", "<expression>:1:5"),
        ("a\nsave a", "PEM0108", "<expression>:2:7"),
        ("a\nlet z = a", "PEM0108", "<expression>:1:1"),
        ("a)", "PEM0106", "<expression>:1:2"),
        ("", "PEM0108", "<expression>:1:1"),
        ("# a", "PEM0108", "<expression>:1"),
        ("2 * a", "PEM0301", "<expression>:1:1"),
        ("[1, 2]", "PEM0301", "<expression>:1:1"),
        ("norm(a) < 1", "PEM0301", "<expression>:1:1"),
        ("a\0", "PEM0105", "<expression>:1:2"),
    ],
)
def test_what_is_wrong_has_its_place_in_the_expression(
    folder: Path, expression: str, code: str, place: str
) -> None:
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.loads(TEXT).measure(expression)
    assert wrong.value.diagnostics[0].code == code
    assert place in str(wrong.value)


def test_what_is_wrong_with_the_recipe_keeps_its_place(folder: Path) -> None:
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, 'adapter a = "a"\nlet x = y\n')).measure("norm(a)")
    assert "recipe.pem:2:9" in str(wrong.value)


def test_neither_torch_nor_ipython_is_imported_for_a_measure(folder: Path) -> None:
    code = (
        "import sys, pemlang\n"
        f"assert pemlang.loads({TEXT!r}).measure('norm(a)') > 0\n"
        "assert not {'torch', 'IPython'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)


CELLS = [
    "%load_ext pemlang",
    "%%pem merged weight=0.4\n"
    'adapter movies = "adapters/movies-lora"\nadapter products = "adapters/products-lora"\n'
    "param weight: number in 0..1 = 0.5\n"
    'let both = weight * movies + (1 - weight) * products\nsave both to "out/both"',
    "%pem cosine(movies, both)",
    "%pem 2 * both - movies",
    "merged.measure('norm(mvies)')",
]


def test_a_picture_for_the_documents(
    request: pytest.FixtureRequest, browser: Any, tmp_path: Path
) -> None:
    """The notebook is run by Jupyter: pip install nbconvert ipykernel."""
    if not request.config.getoption("--screenshots"):
        pytest.skip("it is made with --screenshots")
    exporters = pytest.importorskip("nbconvert.exporters")
    preprocessors = pytest.importorskip("nbconvert.preprocessors")
    v4 = pytest.importorskip("nbformat.v4")
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in CELLS])
    run = preprocessors.ExecutePreprocessor(allow_errors=True)
    run.preprocess(notebook, {"metadata": {"path": str(ROOT / "examples" / "quickstart")}})
    html, _ = exporters.HTMLExporter().from_notebook_node(notebook)
    (tmp_path / "notebook.html").write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": 1000, "height": 660})
    page.goto((tmp_path / "notebook.html").as_uri())
    page.screenshot(path=IMAGES / "notebook.png")
    assert (IMAGES / "notebook.png").stat().st_size < 250_000
    page.close()
