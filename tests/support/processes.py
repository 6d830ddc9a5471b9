"""`pem` in processes of its own, where being one is what is looked at: on a terminal, on the path,
and what it imports."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from support.command import Done, command

ROOT = Path(__file__).parents[2]
_WITH_EXTENSIONS = """
import contextlib, importlib, io, json, sys
names, commands = json.load(sys.stdin)
for name in names:
    importlib.import_module(name)
from pemlang.cli.main import main

done = []
for command in commands:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main(command.split())
        except SystemExit as end:
            done.append((end.code, out.getvalue()))
json.dump(done, sys.stdout)
"""


def on_a_terminal(*words: str, folder: Path, typed: str = "", **env: str) -> Done:
    """Run `pem` on a terminal; what it shows there is its output, whichever stream it wrote to.
    What is typed is there from the start."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
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


def with_extensions(folder: Path, extensions: str, *commands: str) -> list[tuple[int, str]]:
    """The exit code of some commands, and what they write, in a process that has imported some
    extensions, which lie in a folder of that name."""
    where = {"PYTHONPATH": str(folder / "extensions"), "XDG_CACHE_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", _WITH_EXTENSIONS],
        input=json.dumps([extensions.split(), commands]),
        cwd=folder,
        env={**os.environ, **where},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, text) for code, text in json.loads(done.stdout)]


def pem_on_the_path(folder: Path) -> dict[str, str]:
    """A `pem` in the bin/ of a folder that is the one under test, and the environment to find it
    by."""
    script = folder / "bin" / "pem"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    script.chmod(0o755)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT)}
