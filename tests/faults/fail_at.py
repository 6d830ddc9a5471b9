"""A build in which the n-th call that changes a file fails, or kills the process: for every n.

Run by test_every_write.py in a process of its own, with fail_at.c preloaded. What it takes: the
folder of a recipe whose outputs are there, the recipe of other outputs in their place, how the
calls go wrong, and words that all builds are given. What it prints: how many calls there were, and
each n after which something was not as it has to be.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from forked import contents, warm

from pemlang.cli.main import main

HOW = {"fail": 1, "kill": 2}
WORDS = sys.argv[4:]
NO_EXCHANGE = "NO_EXCHANGE" in os.environ
SHIM = ctypes.CDLL(None)
SHIM.faults_arm.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int]


def attempt(recipe: Path, n: int, how: int) -> tuple[int, int, str]:
    """Build in a process of its own: how it ended, the calls it made, what it told."""
    with tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as counted:
        child = os.fork()
        if child == 0:
            os.dup2(told.fileno(), 1)
            os.dup2(told.fileno(), 2)
            code = 99
            try:
                SHIM.faults_arm(n, how, errno.ENOSPC)
                main(["build", str(recipe), "--threads", "1", *WORDS])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                seen = SHIM.faults_seen()
                SHIM.faults_arm(0, 0, 0)
                os.write(counted.fileno(), str(seen).encode())
                os._exit(code)
        _, status = os.waitpid(child, 0)
        for file in (told, counted):
            file.seek(0)
        calls = counted.read()
        return os.waitstatus_to_exitcode(status), int(calls or -1), told.read().decode()


def files_of(place: Path) -> dict[str, bytes]:
    """The files of an output: those of a folder, or a file alone."""
    if place.is_file():
        return {place.name: place.read_bytes()}
    return contents(place)


def waits(was: dict[str, bytes], out: Path) -> bool:
    """Whether what was there waits in a stage, until the next build."""
    stages = [contents(path) for path in out.iterdir() if path.name.startswith(".")]
    return any(set(was.values()) <= set(stage.values()) for stage in stages)


def wrong_after(
    folder: Path, recipe: Path, before: dict[str, dict[str, bytes]],
    after: dict[str, dict[str, bytes]], ended: int, told: str,
) -> str:  # fmt: skip
    """What is not as it has to be after a build that went wrong; empty where all is."""
    if ended not in (0, 1, -signal.SIGKILL) or "Traceback" in told:
        return f"it ended with {ended}: {told}"
    if ended == 1 and "error[PEM05" not in told:
        return f"no code that says so: {told}"
    for name, wanted in after.items():
        now = files_of(folder / "out" / name)
        was = before.get(name, {})
        if not now and NO_EXCHANGE and waits(was, folder / "out"):
            now = was
        if now not in (was, wanted):
            return f"{name} is neither what it was nor what it was to be: {sorted(now)}"
        if ended == 0 and now != wanted:
            return f"it ended well, and {name} is what it was"
        other = name + ".provenance.json"
        if (
            ended == 1
            and other in after
            and was != wanted
            and (now == wanted) != (files_of(folder / "out" / other) == after[other])
        ):
            return f"{name} and its provenance are of two builds"
    ended, _, told = attempt(recipe, 0, 0)
    if ended != 0:
        return f"the next build ended with {ended}: {told}"
    for name, wanted in after.items():
        if files_of(folder / "out" / name) != wanted:
            return f"the next build did not make {name}"
    left = sorted(path.name for path in (folder / "out").iterdir())
    return f"left behind: {left}" if left != sorted(after) else ""


def everywhere(folder: Path, recipe: Path, how: str) -> tuple[int, dict[int, str]]:
    """How many calls a build makes, and what is wrong after it goes wrong at each of them."""
    kept = folder / "kept"
    shutil.copytree(folder / "out", kept)
    before = {path.name: files_of(path) for path in kept.iterdir()}
    ended, _, told = attempt(recipe, 0, 0)
    assert ended == 0, told
    after = {path.name: files_of(path) for path in (folder / "out").iterdir()}
    wrong: dict[int, str] = {}
    n = 0
    while True:
        n += 1
        shutil.rmtree(folder / "out")
        shutil.copytree(kept, folder / "out")
        ended, calls, told = attempt(recipe, n, HOW[how])
        if ended != -signal.SIGKILL and calls < n:
            return n - 1, wrong
        found = wrong_after(folder, recipe, before, after, ended, told)
        if found:
            wrong[n] = found


if __name__ == "__main__":
    warm(Path(sys.argv[2]))
    with contextlib.redirect_stdout(sys.stderr):
        points, wrong = everywhere(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    print(json.dumps([points, wrong]))
