"""docs/review.md shows what its commands print: they are run, and each output is compared.

`pytest --rewrite` writes the outputs anew, to be reviewed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "review.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DATE = "2026-01-01T12:00:00Z"


def environment(home: Path) -> dict[str, str]:
    """A user of their own, whose commits are the same each time."""
    settings = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_PAGER": "cat",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }
    for who in ("AUTHOR", "COMMITTER"):
        settings |= {
            f"GIT_{who}_NAME": "reader",
            f"GIT_{who}_EMAIL": "reader@example.org",
            f"GIT_{who}_DATE": DATE,
        }
    return settings


def _on_one_processor() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def ran(block: str, folder: Path, env: dict[str, str]) -> str:
    """A block with each command's output as it is now."""
    shown = []
    for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=_on_one_processor,  # what a plan needs goes by how many there are
        )
        output = re.sub(r"[ \t]+$", "", done.stdout, flags=re.MULTILINE).rstrip("\n")
        shown.append(f"$ {command}\n{output}\n" if output else f"$ {command}\n")
    return "".join(shown)


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
