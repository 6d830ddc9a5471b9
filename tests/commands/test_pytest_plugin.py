"""Tests of recipes under pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support import recipe

LAWS = """
test "right" {
    let a = sample(ia3)
    print norm(a) > 0
    assert same(a + a, 2 * a)
}
test "wrong" {
    assert same(sample(ia3(seed=1)), sample(ia3(seed=2)))
}
"""


def pytest_of(folder: Path, *words: str) -> tuple[int, str]:
    """What pytest says in a folder, with the plugin and no other."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pemlang.pytest_plugin", "-p", "no:cacheprovider",
         *words],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert "INTERNALERROR" not in done.stdout
    return done.returncode, done.stdout


def test_each_test_is_an_item(tmp_path: Path) -> None:
    recipe(tmp_path / "recipes", LAWS, "laws.pem")
    recipe(tmp_path, "let x = 1\n", "none.pem")
    recipe(tmp_path, "-----BEGIN CERTIFICATE-----\n", "roots.pem")
    code, out = pytest_of(tmp_path, "-v")
    assert (code, "1 failed, 1 passed" in out) == (1, True)
    assert "recipes/laws.pem::right PASSED" in out
    assert "error[PEM0501]" in out
    assert "Traceback" not in out and "pytest_plugin.py" not in out
    code, out = pytest_of(tmp_path, "-k", "right", "-rP")
    assert (code, "1 passed, 1 deselected" in out) == (0, True)
    code, out = pytest_of(tmp_path, "recipes/laws.pem::wrong")
    assert "1 failed" in out


def test_a_recipe_is_checked_once_for_all_of_its_tests(tmp_path: Path) -> None:
    laws = "".join(f'test "law {n}" {{ assert same({n}, {n}) }}\n' for n in range(300))
    recipe(tmp_path, laws, "laws.pem")
    began = os.times().children_user
    code, out = pytest_of(tmp_path)
    assert (code, "300 passed" in out) == (0, True)
    assert os.times().children_user - began < 10
    assert "300 passed" in pytest_of(tmp_path, "-p", "pytest_lsp")[1]


def test_a_recipe_that_is_wrong(tmp_path: Path) -> None:
    recipe(tmp_path, f"let x = )\n{LAWS}", "laws.pem")
    code, out = pytest_of(tmp_path)
    assert (code, "error[PEM0106]" in out) == (2, True)
    recipe(tmp_path, f"let x = nothing\n{LAWS}", "laws.pem")
    code, out = pytest_of(tmp_path)
    assert (code, out.count("error[PEM02") >= 2) == (1, True)


def test_where_there_is_no_recipe_nothing_is_imported(tmp_path: Path) -> None:
    text = "import sys\n\ndef test_it():\n    assert 'pemlang.check' not in sys.modules\n"
    (tmp_path / "test_it.py").write_text(
        f"{text}    assert 'lark' not in sys.modules and 'pemlang.api' not in sys.modules\n"
    )
    assert pytest_of(tmp_path)[0] == 0
