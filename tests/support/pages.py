"""Pages whose commands are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DATE = "2026-01-01T12:00:00Z"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
    ROOT / "examples/paper/smollm2/README.md",
]
NOT_RUN = {
    "pip install .": "the network; tests/wheel.sh installs the wheel, and builds with it",
    "make demo": "the network; test_quickstart.py builds and measures the same",
    "make models": "the network, and minutes; test_models_example.py builds its recipes",
}
"""The commands of pages that no test runs, and why."""


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


def done(command: str, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """The exit code of a command line, and all that it wrote."""
    ended = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=_on_one_processor,  # what a plan needs goes by how many there are
    )
    return ended.returncode, re.sub(r"[ \t]+$", "", ended.stdout, flags=re.MULTILINE)


def ran(block: str, folder: Path, env: dict[str, str]) -> str:
    """A block of commands, with each one's output as it is now."""
    shown = []
    for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
        output = done(command, folder, env)[1].rstrip("\n")
        shown.append(f"$ {command}\n{output}\n" if output else f"$ {command}\n")
    return "".join(shown)


def followed(
    text: str,
    folder: Path,
    env: dict[str, str],
    python: Callable[[str, Path], None] | None = None,
) -> str:
    """Run the commands of a page in order, as one who reads it would; the page, with the outputs
    that it shows as they are now.

    Args:
        text, folder, env: the page, and where and by whom it is followed.
        python: what runs its blocks of Python; they are left out where it is not given.
    """
    now = text
    for language, block in FENCE.findall(text):
        if language == "console":
            now = now.replace(block, ran(block, folder, env))
        elif language == "python" and python is not None:
            python(block, folder)
        elif not language:
            for command in commands(block):
                word, *rest = command.split()
                if word == "cd":
                    folder /= rest[0]
                elif command not in NOT_RUN:
                    code, told = done(command, folder, env)
                    assert code == 0, f"{command}\n{told}"
    return now


def commands(block: str) -> Iterator[str]:
    """The command lines of a block without outputs, without what is said beside them."""
    for line in block.splitlines():
        command = re.sub(r"\s{2,}#.*", "", line).strip()
        if command:
            yield command
