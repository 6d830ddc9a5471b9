"""A build of shards that is stopped, and goes on: the same bytes as if it had not been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import command, pem, recipe
from support.models import DECLARED, SHAPES, left, model, stopped

import pemlang

LAYERS = {f"model.layers.{i}.up_proj.weight": (40, 40) for i in range(40)}
MERGE = "b + ties([m - b, n - b], density=0.3)"
RECORD = ".finished.jsonl"


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Three models of many layers, and a recipe that makes a shard of each tensor."""
    for tuned, name in enumerate("bmn"):
        model(tmp_path / name, tuned, {**SHAPES, **LAYERS})
    recipe(tmp_path, f'{DECLARED}save {MERGE} to "out/x" with shard="1B"\n')
    return tmp_path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def uninterrupted(folder: Path, output: str = "x") -> dict[str, bytes]:
    """What the recipe makes, in another place."""
    done = pem("build", folder / "recipe.pem", "--out", folder / "whole")
    assert done.code == 0, done.err
    return contents(folder / "whole/out" / output)


def resumed(folder: Path) -> pemlang.BuildResult:
    """The build that goes on; nothing is left beside its outputs."""
    options = pemlang.BuildOptions(resume=True)
    result = pemlang.load(folder / "recipe.pem").build(options=options)
    assert left(folder) == []
    return result


def running(folder: Path, shards: int) -> subprocess.Popen[str]:
    """A build that has finished some shards, or all it had to do."""
    words = command("build", str(folder / "recipe.pem"), "--threads", "1")
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while run.poll() is None:
        records = list(folder.glob(f"out/.x.*/{RECORD}"))
        if records and len(records[0].read_bytes().splitlines()) > shards:
            break
        time.sleep(0.001)
    return run


# --- stopped ---------------------------------------------------------------------------------


def test_killed_at_ten_moments(deep: Path) -> None:
    """Each time at another number of shards; every third one is killed again as it goes on."""
    whole, draw, used = uninterrupted(deep), random.Random(1), 0
    for turn in range(10):
        run = running(deep, draw.randrange(1, 40))
        time.sleep(draw.random() / 100)
        run.kill()
        run.communicate()
        if turn % 3 == 0:
            again = subprocess.Popen(command("build", str(deep / "recipe.pem"), "--resume"))
            time.sleep(draw.random())
            again.kill()
            again.wait()
        for half in left(deep):
            assert not {"config.json", "model.safetensors.index.json"} < set(contents(half))
        [built] = resumed(deep).outputs
        used += built.resumed
        assert contents(deep / "out/x") == whole
        shutil.rmtree(deep / "out/x")
    assert used > 20


def test_no_space(deep: Path) -> None:
    """What is finished is not made again, and the message says what stays."""
    whole, at = uninterrupted(deep), stopped(deep)
    shards = sorted(at.glob("*.safetensors"))[:3]
    before = [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in shards]
    result = resumed(deep)
    [built] = result.outputs
    assert (built.resumed, result.warnings) == (3, ())
    for name, number, written in before:
        status = (deep / "out/x" / name).stat()
        assert (status.st_ino, status.st_mtime_ns) == (number, written)
    assert contents(deep / "out/x") == whole


def test_an_interrupt_says_what_stays(deep: Path) -> None:
    whole, run = uninterrupted(deep), running(deep, 2)
    run.send_signal(signal.SIGINT)
    _, told = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "`pem build --resume`" in told
    [built] = resumed(deep).outputs
    assert built.resumed >= 2
    assert contents(deep / "out/x") == whole


def test_two_at_once(deep: Path) -> None:
    """What another build is at work on is not gone on with, and it goes on itself."""
    whole, run = uninterrupted(deep), running(deep, 2)
    run.send_signal(signal.SIGSTOP)
    held = left(deep)
    done = pem("build", deep / "recipe.pem", "--resume")
    assert (done.code, left(deep)) == (0, held)
    assert "from before" not in done.out
    run.send_signal(signal.SIGCONT)
    _, told = run.communicate(timeout=30)
    assert (run.returncode, told, left(deep)) == (0, "", [])
    assert contents(deep / "out/x") == whole


def test_without_resume_all_is_made_again(deep: Path) -> None:
    whole = uninterrupted(deep)
    stopped(deep)
    done = pem("build", deep / "recipe.pem")
    assert done.code == 0
    assert "PEM0710" in done.err and "had finished 3 files" in done.err
    assert contents(deep / "out/x") == whole
    assert left(deep) == []


def test_it_is_cleaned_up(deep: Path) -> None:
    stopped(deep)
    assert "MB freed" in pem("clean", deep).out
    assert left(deep) == []


def test_a_mistake_keeps_what_is_finished(deep: Path) -> None:
    """A build that goes on and cannot, for too little memory, leaves it for the next one."""
    at = stopped(deep)
    done = pem("build", deep / "recipe.pem", "--resume", "--memory", "1kB")
    assert "PEM0521" in done.err
    assert left(deep) == [at]
    assert resumed(deep).outputs[0].resumed == 3


def test_wrong_numbers_leave_nothing(deep: Path) -> None:
    """They would be as wrong again."""
    stopped(deep)
    weights = load_file(deep / "m/model.safetensors")
    weights["scale"] += torch.inf  # the last tensor
    save_file(weights, deep / "m/model.safetensors")
    done = pem("build", deep / "recipe.pem")
    assert "PEM0502" in done.err and "--resume" not in done.err
    assert left(deep) == []


# --- what has changed ------------------------------------------------------------------------


def recipe_changed(folder: Path) -> None:
    recipe(folder, (folder / "recipe.pem").read_text().replace("0.3", "0.4"))


def dtype_changed(folder: Path) -> None:
    recipe(folder, (folder / "recipe.pem").read_text().replace("shard=", "dtype=bf16, shard="))


def input_changed(folder: Path) -> None:
    model(folder / "m", 7, {**SHAPES, **LAYERS})


def version_changed(folder: Path) -> None:
    [record] = folder.glob(f"out/.x.*/{RECORD}")
    now = json.dumps(pemlang.__version__)
    record.write_text(record.read_text().replace(f'"version": {now}', '"version": "0.0.9"'))


CHANGES = {
    recipe_changed: "has changed since",
    dtype_changed: "has changed since",
    input_changed: "has changed since",
    version_changed: "pemlang 0.0.9 made it",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_has_changed_starts_again(change: Callable[[Path], None], deep: Path) -> None:
    stopped(deep)
    change(deep)
    result = resumed(deep)
    [warning] = result.warnings
    assert warning.code == "PEM0710" and CHANGES[change] in warning.message
    assert result.outputs[0].resumed == 0
    assert contents(deep / "out/x") == uninterrupted(deep)


def test_a_recipe_that_means_the_same_goes_on(deep: Path) -> None:
    stopped(deep)
    text = (deep / "recipe.pem").read_text()
    recipe(deep, text.replace(f"save {MERGE}", f"let merged = {MERGE}\nsave merged"))
    assert resumed(deep).outputs[0].resumed == 3
    assert contents(deep / "out/x") == uninterrupted(deep)


# --- what is in the folder is not trusted ------------------------------------------------------


def first(at: Path) -> Path:
    return sorted(at.glob("*.safetensors"))[0]


def a_changed_byte(at: Path) -> None:
    data = bytearray(first(at).read_bytes())
    data[-1] ^= 1
    first(at).write_bytes(data)


def a_cut_file(at: Path) -> None:
    os.truncate(first(at), 10)


def a_file_that_is_gone(at: Path) -> None:
    first(at).unlink()


def a_link(at: Path) -> None:
    """To a file that holds what it should: it is another's to change."""
    shard = first(at)
    shard.rename(at.parent.parent / "elsewhere")
    shard.symlink_to(at.parent.parent / "elsewhere")


def a_cut_line(at: Path) -> None:
    lines = (at / RECORD).read_bytes().split(b"\n")
    lines[1] = lines[1][:50]
    (at / RECORD).write_bytes(b"\n".join(lines))


DAMAGE = [a_changed_byte, a_cut_file, a_file_that_is_gone, a_link, a_cut_line]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_shard_is_made_again(damage: Callable[[Path], None], deep: Path) -> None:
    damage(stopped(deep))
    elsewhere = deep / "elsewhere"
    before = elsewhere.read_bytes() if elsewhere.exists() else b""
    assert resumed(deep).outputs[0].resumed == 2
    assert contents(deep / "out/x") == uninterrupted(deep)
    assert not any(path.is_symlink() for path in (deep / "out/x").iterdir())
    assert not before or elsewhere.read_bytes() == before


def no_record(at: Path) -> None:
    (at / RECORD).write_bytes(b"[" * 100_000 + b'\n{"files": {"../../b/config.json": 1}}\n\xff\n7')


def anybodys(at: Path) -> None:
    (at / RECORD).chmod(0o666)


def linked(at: Path) -> None:
    (at / RECORD).rename(at.parent.parent / "record")
    (at / RECORD).symlink_to(at.parent.parent / "record")


def endless(at: Path) -> None:
    (at / RECORD).unlink()
    os.mkfifo(at / RECORD)


@pytest.mark.parametrize("damage", [no_record, anybodys, linked, endless])
def test_a_record_that_does_not_count(damage: Callable[[Path], None], deep: Path) -> None:
    damage(stopped(deep))
    result = resumed(deep)
    assert [warning.code for warning in result.warnings] == ["PEM0710"]
    assert result.outputs[0].resumed == 0
    assert contents(deep / "out/x") == uninterrupted(deep)


def test_a_strange_file_keeps_it_from_being_ours(deep: Path) -> None:
    """As without a record: what holds anything else is left alone."""
    at = stopped(deep)
    (at / "mine.txt").write_text("a")
    options = pemlang.BuildOptions(resume=True)
    result = pemlang.load(deep / "recipe.pem").build(options=options)
    assert result.outputs[0].resumed == 0
    assert (at / "mine.txt").exists()


# --- several outputs, and what is told of them -------------------------------------------------


def test_outputs_that_share_what_they_read(deep: Path) -> None:
    """A part of both is gone on with where both have it; what truncation took is told as ever."""
    text = (
        f'{DECLARED}let cut = compress((m - b)["*_proj.weight"], rank=3)\n'
        'save b + cut to "out/x" with shard="1B"\nsave n + cut to "out/y" with shard="9kB"\n'
    )
    recipe(deep, text)
    stopped(deep, after=20)
    assert len(left(deep)) == 2
    counts = [built.resumed for built in resumed(deep).outputs]
    assert all(counts)
    assert contents(deep / "out/x") == uninterrupted(deep)
    assert contents(deep / "out/y") == contents(deep / "whole/out/y")
