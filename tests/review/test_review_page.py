"""docs/review.md shows what its commands print: they are run, and each output is compared.

`pytest --rewrite` writes the outputs anew, to be reviewed.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support.pages import ROOT, environment, ran

PAGE = ROOT / "docs" / "review.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_shows_what_its_commands_print(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder, home = tmp_path / "merges", tmp_path / "home"
    home.mkdir()
    shutil.copytree(ROOT / "examples/quickstart/adapters", folder / "adapters")
    env, text = environment(home), PAGE.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) > 8
    (folder / "recipe.pem").write_text(re.findall(r"^```pem\n(.*?)^```", text, re.S | re.M)[0])
    now = [ran(block, folder, env) for block in blocks]
    rebuilt = next(block for block in now if "--rebuild" in block)
    assert "✗" not in rebuilt, rebuilt
    if request.config.getoption("--rewrite"):
        fresh = iter(now)
        text = BLOCK.sub(lambda _: f"```console\n{next(fresh)}```", text)
        PAGE.write_text(text, encoding="utf-8")
    else:
        assert now == blocks
