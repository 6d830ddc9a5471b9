"""docs/review.md shows what its commands print: they are run, and each output is compared.

`pytest --rewrite` writes the outputs anew, to be reviewed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.pages import FENCE, ROOT, environment, followed

PAGE = ROOT / "docs" / "review.md"


def test_the_page_shows_what_its_commands_print(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, home = tmp_path / "merges", tmp_path / "home"
    home.mkdir()
    shutil.copytree(ROOT / "examples/quickstart/adapters", folder / "adapters")
    env, text = environment(home), PAGE.read_text(encoding="utf-8")
    assert sum(language == "console" for language, _ in FENCE.findall(text)) > 8
    (folder / "recipe.pem").write_text(re.findall(r"^```pem\n(.*?)^```", text, re.S | re.M)[0])
    now = followed(text, folder, env)
    rebuilt = next(block for _, block in FENCE.findall(now) if "--rebuild" in block)
    assert "✗" not in rebuilt, rebuilt
    if request.config.getoption("--rewrite"):
        PAGE.write_text(now, encoding="utf-8")
    else:
        assert now == text
