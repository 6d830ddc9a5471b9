"""`pem` in processes of its own, where being one is what is looked at: on a terminal, on the path,
and what it imports."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from support.command import Done, command

ROOT = Path(__file__).parents[2]


def on_a_terminal(*words: str, folder: Path, **env: str) -> Done:
    """Run `pem` on a terminal; what it shows there is its output, whichever stream it wrote to."""
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        command(*words),
        cwd=folder,
        env=os.environ | {"TERM": "xterm"} | env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # the other end has closed
        pass
    os.close(ours)
    return Done(run.wait(timeout=60), shown.decode(), "")


def with_imports(*words: str | Path, folder: Path, of: Iterable[str]) -> Done:
    """Run `pem`; the last line on standard error lists which of some modules it has imported."""
    code = (
        "import sys, atexit\n"
        f"of = {set(of)!r}\n"
        "atexit.register(lambda: print(sorted(of & set(sys.modules)), file=sys.stderr))\n"
        "from pemlang.cli.main import main\n"
        f"main({list(map(str, words))!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def pem_on_the_path(folder: Path) -> dict[str, str]:
    """A `pem` in the bin/ of a folder that is the one under test, and the environment to find it
    by."""
    script = folder / "bin" / "pem"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT)}
