"""A build in which an input is changed when the n-th file is opened or looked at: for every n.

Run by test_changed_inputs.py in a process of its own. What it takes: the folder of a recipe, the
input, what to put in its place, and how. What it prints: how many points there were, and each n
after which the output was not made from what its provenance names.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from pathlib import Path

from forked import contents, warm

from pemlang.cli.main import main

WATCHED = ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.link", "os.truncate")


def attempt(folder: Path, input_: Path, new: bytes, how: str, n: int) -> tuple[int, int, str]:
    """Build in a process of its own: its exit code, the points it came to, what it told."""
    reading, writing = os.pipe()
    told = folder / "told"
    child = os.fork()
    if child == 0:
        seen = 0

        def at(event: str, _: object) -> None:
            nonlocal seen
            if event in WATCHED:
                seen += 1
                if seen == n:
                    change(input_, new, how)

        code = 99
        try:
            handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            sys.addaudithook(at)
            main(["build", str(folder / "recipe.pem"), "--threads", "1"])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os.write(writing, str(seen).encode())
            os._exit(code)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    points = int(os.read(reading, 99) or -1)
    os.close(reading)
    return os.waitstatus_to_exitcode(status), points, told.read_text()


def change(input_: Path, new: bytes, how: str) -> None:
    """Put something else in the place of a file, or into it."""
    if how == "replaced":
        beside = input_.with_name("beside")
        beside.write_bytes(new)
        beside.replace(input_)
    else:
        input_.write_bytes(new)


def named(output: Path) -> list[str]:
    """The digests of what an output was made from, as its provenance has them."""
    statement = json.loads((output / "provenance.json").read_text())
    made_from = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    return [material["digest"]["blake3"] for material in made_from]


def everywhere(folder: Path, input_: Path, new: bytes, how: str) -> tuple[int, dict[int, str]]:
    """How many points a build comes to, and what is wrong after a change at each of them."""
    old, output = input_.read_bytes(), folder / "out" / "x"
    truths = []
    for data in (old, new):
        shutil.rmtree(folder / "out", ignore_errors=True)
        input_.write_bytes(data)
        code, _, told = attempt(folder, input_, new, how, 0)
        assert code == 0, told
        truths.append((named(output), contents(output)))
    wrong: dict[int, str] = {}
    n = 0
    while True:
        n += 1
        shutil.rmtree(folder / "out", ignore_errors=True)
        change(input_, old, "replaced")
        code, points, told = attempt(folder, input_, new, how, n)
        if points < n:
            return n - 1, wrong
        if code == 1 and "error[PEM04" in told and "Traceback" not in told:
            if (folder / "out").exists():
                wrong[n] = "it was refused, and written"
        elif code != 0 or (named(output), contents(output)) not in truths:
            wrong[n] = f"it ended with {code}: {told}"


if __name__ == "__main__":
    here, input_ = Path(sys.argv[1]), Path(sys.argv[2])
    warm(here / "recipe.pem")
    print(json.dumps(everywhere(here, input_, Path(sys.argv[3]).read_bytes(), sys.argv[4])))
