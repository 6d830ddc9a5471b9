"""`pem test` of several files: side by side, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import command, pem, recipe

import pemlang
from pemlang.pipeline import Died, side_by_side

SECONDS = re.compile(r'in \d+\.\d\d s|time="[\d.]+"|"seconds": [\d.e-]+')
SLOW = """
def two(x: number) -> number = x + x
def eight(x: number) -> number = two(two(two(x)))
def more(x: number) -> number = eight(x) + eight(x) + eight(x) + eight(x)
def much(x: number) -> number = more(more(more(x))) + more(more(more(x)))
test "slow" { assert much(much(1)) + much(much(1)) > 0 }
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files with tests: some pass, some fail, some are wrong, and the first take longest."""
    recipe(tmp_path, SLOW, "a_slow.pem")
    recipe(tmp_path, "let x = y\n", "b_wrong.pem")
    recipe(tmp_path, 'test "no" { let a = sample(ia3) print norm(a) assert norm(a) < 0 }', "c.pem")
    recipe(tmp_path, "let x = 1\n", "d_no_tests.pem")
    for name in "efghij":
        recipe(
            tmp_path, f'test "{name}" {{ assert same(sample(lora), sample(lora)) }}', f"{name}.pem"
        )
    return tmp_path


@pytest.mark.parametrize("form", ["text", "json", "junit"])
def test_what_is_told_is_the_same_however_many_are_at_work(
    form: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = set()
    for processors in (1, 3, 8):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, most=processors: range(most))
        done = pem("test", ".", "--format", form, folder=files)
        told.add((done.code, SECONDS.sub("", done.out), done.err))
    monkeypatch.setattr(sys, "platform", "darwin")  # in this process
    done = pem("test", ".", "--format", form, folder=files)
    assert told == {(1, SECONDS.sub("", done.out), done.err)}
    assert "a_slow.pem" in done.out and "PEM0206" in done.out


def test_a_file_that_crashes_hides_no_other(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = pemlang.Recipe.test

    def crashing(self: pemlang.Recipe, *words: Any) -> Sequence[Any]:
        outcomes = run(self, *words)
        if "no" in [outcome.title for outcome in outcomes]:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcomes

    monkeypatch.setattr(pemlang.Recipe, "test", crashing)
    told = json.loads(pem("test", files, "--format", "json").out)
    assert told["passed"] == 7
    [died] = [x for x in told["messages"] if x["code"] == "PEM0530"]
    assert "c.pem was ended by SIGKILL" in died["message"]


def test_a_file_that_hangs_hides_no_other(files: Path, tmp_path: Path) -> None:
    """Interrupted, it tells what the others came to, which of them did not end, and leaves no
    process and nothing that was drawn."""
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    run = subprocess.Popen(
        command("test", "."), cwd=files, env={**os.environ, "TMPDIR": str(drawn)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while not (begun := children.read_text().split()):
        time.sleep(0.002)
    os.kill(int(begun[0]), signal.SIGSTOP)
    alone = 0
    while alone < 50:  # one second in which there was no other
        alone = alone + 1 if children.read_text().split() == begun[:1] else 0
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert run.returncode == 128 + signal.SIGINT
    assert "WRONG ./b_wrong.pem" in out and "FAILED ./c.pem: no" in out
    assert "Not finished: ./a_slow.pem\n" in err and "Traceback" not in err
    assert not Path(f"/proc/{begun[0]}").exists()
    assert list(drawn.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_of_it(number: signal.Signals, files: Path, tmp_path: Path) -> None:
    """Sent to the group, as a terminal does; at any moment."""
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    for wait in (0.1, 0.4, 0.6, 0.8):
        run = subprocess.Popen(
            command("test", "."), cwd=files, env={**os.environ, "TMPDIR": str(drawn)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        time.sleep(wait)
        os.killpg(run.pid, number)
        _, err = run.communicate(timeout=30)
        assert "Traceback" not in err
        assert run.returncode in (1, -number, 128 + number)
        assert list(drawn.iterdir()) == []


def double(number: int) -> int:
    if number == 3:
        os._exit(7)
    return 2 * number


def test_each_in_a_process_of_its_own() -> None:
    wanted = {number: 2 * number for number in range(40)} | {3: Died(7)}
    for most in (1, 4, 100):
        assert dict(side_by_side(double, range(40), most)) == wanted


def leave(number: int) -> None:
    Path(tempfile.mkdtemp(), "drawn").write_text("what a test has drawn")
    os._exit(number)


def test_what_a_process_leaves_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert dict(side_by_side(leave, [3, 4], 2)) == {0: Died(3), 1: Died(4)}
    assert list(tmp_path.iterdir()) == []


def test_each_test_has_steps_of_its_own(tmp_path: Path) -> None:
    """A file does not fail because it has many tests, and all of them end."""
    text = SLOW.replace("slow", "one")
    more = "".join(text[text.index("test") :].replace("one", name) for name in ("two", "three"))
    outcomes = pemlang.load(recipe(tmp_path, text + more)).test()
    assert [outcome.passed for outcome in outcomes] == [True, True, True]
