"""The study: it goes on after a kill, is one command's at a time, and may be anyone's file."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import pem
from support.command import command
from support.tuning import DISTANCE, TEXT, calls, killing, rows, script, stocked, tuned

WORDS = ("--maximize", "s", "--trials", "9", "--seed", "3")
ROUNDS = int(os.environ.get("PEM_ROUNDS", "3"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stocked(tmp_path)
    return tmp_path


def study(folder: Path) -> Path:
    return folder / "recipe.study"


def test_a_tuning_that_was_killed_goes_on_and_measures_nothing_twice(folder: Path) -> None:
    assert killing(folder, at=4).code == -signal.SIGKILL
    before = rows(study(folder))
    known = sum(row[4] != "{}" for row in before)
    assert known in (2, 3)  # the third may have been on its way into the file
    done = tuned(folder, script(folder, 'echo "$w"'))
    assert done.code == 0
    assert rows(study(folder))[:known] == before[:known]
    values = [f"{i / 10:g}" for i in range(11)]
    assert calls(folder) == [*values[:4], *values[known:]]
    assert not list(folder.glob("recipe.study-*"))


@pytest.mark.parametrize("words", ["tpe --jobs 2", "tpe --first-metric", "cmaes"])
def test_killed_at_any_moment_it_ends_as_it_would_have(folder: Path, words: str) -> None:
    text = TEXT.replace("param w", "param v: number in 1..2 = 1\nparam w")
    text = text.replace("save w", "save v * w")
    stocked(folder, text)
    metric = script(folder, 'echo "$w"')
    options = ["recipe.pem", "--metric", metric, *WORDS, "--sampler", *words.split()]
    options += [metric] * words.endswith("--first-metric")
    began = time.monotonic()
    assert pem("tune", *options, "--study", "whole.study", folder=folder, process=True).code == 0
    took = time.monotonic() - began
    draw = random.Random(0)
    for moment in range(ROUNDS):
        run = subprocess.Popen(
            command("tune", *options), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            run.wait(took * (0.3 + 0.8 * draw.random()))
        except subprocess.TimeoutExpired:
            run.kill()
        run.wait()
        assert run.stderr is not None
        assert b"Traceback" not in run.stderr.read()
        run.stderr.close()
        if moment % 3 == 2:
            assert pem("tune", *options, folder=folder).code == 0
            assert rows(study(folder)) == rows(folder / "whole.study")
            study(folder).unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_metric(folder: Path, number: signal.Signals) -> None:
    metric = script(folder, "echo $$ > $here/metric-pid; sleep 60")
    words = ("tune", "recipe.pem", "--metric", metric, *WORDS)
    run = subprocess.Popen(command(*words), cwd=folder, stderr=subprocess.PIPE, text=True)
    while not (folder / "metric-pid").exists() or not (folder / "metric-pid").read_text():
        time.sleep(0.02)
    run.send_signal(number)
    _, said = run.communicate(timeout=20)
    assert run.returncode == 128 + number
    assert said.strip().startswith("Interrupted")
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "metric-pid").read_text()), 0)
    [(number, settings, *_, numbers, code, _)] = rows(study(folder))
    assert (number, json.loads(str(settings)), numbers, code) == (1, {"w": "0.5"}, "{}", "")


def test_more_trials_go_on_from_those_that_are_there(folder: Path) -> None:
    metric = script(folder, 'echo "$w"')
    words = ("tune", "recipe.pem", "--metric", metric, "--maximize", "s", "--trials")
    assert pem(*words, "5", folder=folder).code == 0
    before = rows(study(folder))
    assert pem(*words, "8", "--jobs", "2", "--timeout", "9", folder=folder).code == 0
    assert rows(study(folder))[:5] == before
    assert pem(*words, "8", "--study", "one.study", folder=folder).code == 0
    assert rows(folder / "one.study")[:5] == before


def test_two_commands_cannot_have_one_study(folder: Path) -> None:
    metric = script(folder, "touch $here/at-work; sleep 60")
    run = subprocess.Popen(command("tune", "recipe.pem", "--metric", metric, *WORDS), cwd=folder)
    while not (folder / "at-work").exists():
        time.sleep(0.02)
    done = pem("tune", "recipe.pem", "--metric", metric, *WORDS, folder=folder)
    assert (done.code, "error[PEM0922]" in done.err) == (1, True)
    run.kill()
    run.wait()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--metric", "echo 2 {output}"), "another metric\n"),
        (("--minimize", "t"), "another objective\n"),
        (("--seed", "4"), "another seed\n"),
        (("--sampler", "grid", "--seed", "5"), "another sampler and another seed\n"),
        (("--values", "w=0.5,1"), "another range of values\n"),
        (("--first-metric", "echo 2 {output}"), "another first metric\n"),
        (("--only", "out/x"), "another output\n"),
    ],
)
def test_a_study_of_something_else_is_left_alone(
    folder: Path, words: tuple[str, ...], named: str
) -> None:
    metric = script(folder, 'echo "$w"')
    first = ("tune", "recipe.pem", "--metric", metric, "--maximize", "s", "--trials", "2")
    assert pem(*first, folder=folder).code == 0
    before = study(folder).read_bytes()
    done = pem(*first, *words, folder=folder)
    assert done.code == 1
    assert "PEM0921" in done.err
    assert named in done.err
    assert study(folder).read_bytes() == before


@pytest.mark.parametrize("change", ["recipe", "adapter"])
def test_a_study_of_what_has_changed_since_is_refused(folder: Path, change: str) -> None:
    metric = script(folder, 'echo "$w"')
    assert tuned(folder, metric).code == 0
    if change == "recipe":
        (folder / "recipe.pem").write_text(TEXT.replace("(1 - w)", "w"))
    else:
        (folder / "a" / "adapter_model.safetensors").write_bytes(
            (folder / "b" / "adapter_model.safetensors").read_bytes()
        )
    done = tuned(folder, metric)
    assert done.code == 1
    assert "PEM0923" in done.err


def test_a_recipe_that_was_rewritten_and_means_the_same_goes_on(folder: Path) -> None:
    metric = script(folder, 'echo "$w"')
    assert tuned(folder, metric).code == 0
    text = TEXT.replace("w * a + (1 - w) * b", "b + w * (a - b)")
    (folder / "recipe.pem").write_text(f"# in other words\n{text}")
    assert tuned(folder, metric).code == 0
    assert len(calls(folder)) == 11


def test_a_study_in_which_nothing_was_measured_is_begun_anew(folder: Path) -> None:
    assert tuned(folder, "false {output}").code == 1
    (folder / "recipe.pem").write_text(TEXT.replace("(1 - w)", "2 * (1 - w)"))
    metric = script(folder, 'echo "$w"')
    assert tuned(folder, metric, "--values", "w=0.5,1").code == 0
    assert [row[0] for row in rows(study(folder))] == [1, 2]
    assert calls(folder) == ["0.5", "1"]


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory", "a\nb*\x1b\"'#"])
def test_a_study_is_in_the_file_that_is_named(folder: Path, name: str) -> None:
    assert tuned(folder, script(folder, 'echo "$w"'), "--study", name).code == 0
    assert len(rows(folder / name)) == 11


def test_words_that_are_no_utf_8_are_no_other_words_the_next_time(folder: Path) -> None:
    metric = script(folder, 'echo "$w"') + " '\udcff'"
    for _ in range(2):
        assert tuned(folder, metric).code == 0
    assert len(calls(folder)) == 11
    seen = pem("inspect", "recipe.study", folder=folder)
    assert (seen.code, "'\\udcff'" in seen.out) == (0, True)


@pytest.mark.parametrize(
    "away",
    [
        "rm -f $here/recipe.study*",
        ": > $here/recipe.study",
        "cp $here/recipe.study $here/y; mv $here/y $here/recipe.study",
        "head -c 20000 /dev/urandom > $here/recipe.study",
    ],
)
def test_a_study_that_is_lost_meanwhile_is_told_at_once(folder: Path, away: str) -> None:
    done = tuned(folder, script(folder, f'test $w != 0.1 || {{ {away}; }}; echo "$w"'), "--write")
    assert done.code == 1
    assert "error[PEM0920]" in done.err
    assert "removed or replaced" in done.err
    assert (folder / "recipe.pem").read_text() == TEXT


def test_a_study_without_room_keeps_what_it_has(folder: Path) -> None:
    words = ("tune", "recipe.pem", "--metric", script(folder, 'echo "$w"'), *WORDS, "--write")
    limited = ("sh", "-c", 'ulimit -f 40; exec "$@"', "sh", *command(*words))  # 20 kB a file
    done = subprocess.run(limited, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error[PEM0512]: cannot write the study recipe.study: disk I/O error" in done.stderr
    assert (folder / "recipe.pem").read_text() == TEXT
    assert pem(*words, folder=folder).code == 0
    assert len(rows(study(folder))) == 9


def changed(folder: Path, *statements: str) -> None:
    with sqlite3.connect(study(folder)) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


HOSTILE: dict[str, Callable[[Path], object]] = {
    "text": lambda folder: study(folder).write_text("SQLite format 3\0" + "x" * 200),
    "short": lambda folder: study(folder).write_bytes(study(folder).read_bytes()[:5000]),
    "large": lambda folder: os.truncate(study(folder), (64 << 20) + 4096),
    "table": lambda folder: changed(folder, "CREATE TABLE more (x)"),
    "view": lambda folder: changed(
        folder, "DROP TABLE trials", "CREATE VIEW trials AS SELECT 1, '{}', '', 0.0, '{}', '', ''"
    ),
    "trigger": lambda folder: changed(
        folder, "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM study; END"
    ),
    "mark": lambda folder: changed(folder, "PRAGMA application_id = 7"),
    "no settings": lambda folder: changed(folder, "DELETE FROM study"),
    "settings": lambda folder: changed(folder, "UPDATE study SET settings = '[]'"),
    "deep": lambda folder: changed(folder, f"UPDATE study SET settings = '{'[' * 99999}'"),
    "nested": lambda folder: changed(
        folder,
        "UPDATE study SET settings = "
        f"json_set(settings, '$.fixed.v', json('{'[' * 300 + ']' * 300}'))",
    ),
    "field": lambda folder: changed(folder, "UPDATE study SET settings = '{\"metric\": 1}'"),
    "number": lambda folder: changed(folder, "UPDATE trials SET number = 70 WHERE number = 2"),
    "value": lambda folder: changed(folder, "UPDATE trials SET settings = '{\"w\": \"7\"}'"),
    "power": lambda folder: changed(
        folder, "UPDATE trials SET settings = '{\"w\": \"1e999999999\"}'"
    ),
    "param": lambda folder: changed(folder, "UPDATE trials SET settings = '{\"v\": \"1\"}'"),
    "list": lambda folder: changed(folder, "UPDATE trials SET settings = '{\"w\": [1]}'"),
    "numbers": lambda folder: changed(folder, "UPDATE trials SET numbers = '{\"s\": \"1\"}'"),
    "nan": lambda folder: changed(folder, "UPDATE trials SET numbers = '{\"s\": NaN}'"),
    "huge": lambda folder: changed(
        folder, f"UPDATE trials SET numbers = '{{\"s\": 1{'0' * 400}}}'"
    ),
    "first": lambda folder: changed(folder, "UPDATE trials SET first = 9e999"),
    "no hash": lambda folder: changed(folder, "UPDATE trials SET hash = ''"),
    "failed": lambda folder: changed(folder, "UPDATE trials SET code = 'PEM0910'"),
    "other": lambda folder: changed(folder, "UPDATE trials SET numbers = '{\"t\": 1}'"),
    "many": lambda folder: changed(
        folder,
        "WITH RECURSIVE n(i) AS (SELECT 12 UNION ALL SELECT i + 1 FROM n WHERE i < 10005) INSERT "
        "INTO trials SELECT i, '{\"w\": \"1\"}', '', NULL, '{}', '', '' FROM n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_study_that_is_none_is_an_error_and_left_alone(folder: Path, hostile: str) -> None:
    metric = script(folder, 'echo "$w"')
    assert tuned(folder, metric).code == 0
    HOSTILE[hostile](folder)
    before = study(folder).read_bytes()
    done = tuned(folder, metric)
    assert done.code == 1, done.out
    assert "error[PEM0920]" in done.err
    assert study(folder).read_bytes() == before
    seen = pem("inspect", "recipe.study", folder=folder)  # never a traceback
    assert seen.code == 0 or "error[PEM0" in seen.err
    assert study(folder).read_bytes() == before


def test_what_is_in_a_study_is_shown_also_where_its_recipe_is_gone(folder: Path) -> None:
    metric = script(folder, 'test "$w" != 0 && echo "$w"')
    assert tuned(folder, metric).code == 0
    (folder / "recipe.pem").unlink()
    lines = pem("inspect", "recipe.study", folder=folder).out.splitlines()
    assert lines[:2] == ["is               a study of pem tune", "objective        maximize s"]
    assert "range of values  w = 0..1" in lines
    assert "trials           11, 1 failed" in lines
    assert [line.split("  ")[-1].strip() for line in lines if line.startswith("trial ")] == [
        f"w = {i / 10:g}: s = {i / 10:g}" for i in range(10, 0, -1)
    ]
    first = ("tune", "recipe.pem", "--metric", DISTANCE, "--minimize", "distance")
    (folder / "recipe.pem").write_text(TEXT)
    words = (*first, "--maximize", "norm", "--sampler", "grid", "--trials", "5", "--format", "json")
    front = pem(*words, "--study", "two.study", folder=folder)
    shown = json.loads(pem("inspect", "two.study", "--format", "json", folder=folder).out)
    assert shown["facts"]["objective"] == "maximize norm, minimize distance"
    assert list(shown["config"]) == [f"trial {x}" for x in json.loads(front.out)["best"]]


def test_a_study_that_is_no_file_is_an_error_and_nothing_waits_for_it(folder: Path) -> None:
    os.mkfifo(study(folder))
    done = tuned(folder, script(folder, "echo 1"), process=True)
    assert (done.code, "error[PEM0920]" in done.err) == (1, True)
    assert "it is no file" in done.err


def test_a_study_that_is_read_only_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = script(folder, 'test "$w" != 0 && echo "$w"')
    assert tuned(folder, metric).code == 0
    before = study(folder).read_bytes()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert "trial 11" in pem("inspect", "recipe.study", folder=folder).out
    assert "readonly" in tuned(folder, metric).err  # what failed cannot be tried again
    (folder / "recipe.study-wal").write_bytes(b"x")  # as of one that was killed
    assert "it is read-only, and" in pem("inspect", "recipe.study", folder=folder).err
    assert study(folder).read_bytes() == before


def test_a_study_with_a_byte_changed_never_gives_a_traceback(folder: Path) -> None:
    metric = script(folder, 'echo "$w"')
    assert tuned(folder, metric).code == 0
    whole, draw = study(folder).read_bytes(), random.Random(1)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice((1, 1, 40))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        study(folder).write_bytes(data)
        for left in folder.glob("recipe.study-*"):
            left.unlink()
        done = tuned(folder, metric)  # in this process: a traceback would be raised here
        assert done.code in (0, 1)
        assert done.code == 0 or "error[PEM092" in done.err


def test_what_a_study_says_is_shown_escaped(folder: Path) -> None:
    metric = script(folder, "exit 1")
    assert tuned(folder, metric).code == 1
    changed(folder, "UPDATE trials SET message = '\x1b[31m<b>' WHERE number = 1")
    script(folder, 'echo "$w"')
    done = tuned(folder, metric, "--plot", "x.svg")
    assert "\x1b" not in done.text + (folder / "x.svg").read_text()
    changed(folder, "UPDATE study SET settings = replace(settings, 'metric.sh', '\\u001b[31m')")
    seen = pem("inspect", "recipe.study", folder=folder)
    assert (seen.code, "\\u001b[31m" in seen.out, "\x1b" in seen.text) == (0, True, False)
