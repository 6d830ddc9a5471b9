"""A pem.lock that is damaged, or that someone wrote to deceive: it is told, it leads nowhere, and
no junk in it is a crash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support import lora, pem, recipe
from support.junk import changed, places
from support.locks import DECLARED, built_hash, edit_lock, lock
from support.outputs import CONFIG

from pemlang.inputs import MAX_BYTES

DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"{",
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "deeply nested": b"[" * 100_000,
    "nested inside": b'{"lock": 1, "x": ' + b"[" * 500 + b"]" * 500 + b"}",
    "a long number": b'{"lock": ' + b"9" * 5000 + b"}",
    "huge": b" " * (MAX_BYTES + 1),
    "true": b'{"lock": true}',
    "merged": b"<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> x\n",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_lock_is_told(folder: Path, data: bytes) -> None:
    (folder / "pem.lock").write_bytes(data)
    for words in (
        ["check", "--locked", "recipe.pem"],
        ["plan", "--locked", "recipe.pem"],
        ["build", "--locked", "recipe.pem"],
        ["lock", "recipe.pem"],
        ["diff", "recipe.pem", "recipe.pem"],
    ):
        done = pem(*words)
        assert (done.code, "error[PEM0801]" in done.err) == (1, True), (words, done)
    assert (folder / "pem.lock").read_bytes() == data


def test_a_lock_cut_anywhere_is_told_or_whole(folder: Path) -> None:
    lock()
    data = (folder / "pem.lock").read_bytes()
    for end in range(0, len(data) - 2, 97):
        (folder / "pem.lock").write_bytes(data[:end])
        assert pem("check", "--locked", "recipe.pem").code == 1


@pytest.mark.parametrize("junk", [None, 7, "\ud800{0..5}", [], {}, ["x"], {"a": {"b": 1}}, 1e999])
def test_junk_anywhere_in_a_lock_is_no_crash(folder: Path, junk: Any) -> None:
    locked = lock()
    recipe(folder / "lib", "let half = 0.5\n", "w.pem")
    for place in places(locked):
        (folder / "pem.lock").write_text(json.dumps(changed(locked, place, junk)))
        for words in (["plan", "--locked"], ["build", "--locked"], ["lock"]):
            assert pem(*words, "recipe.pem").code in (0, 1)
    done = pem("check", "--locked", "recipe.pem", process=True)
    assert (done.code in (0, 1), "Traceback" in done.err) == (True, False)


@pytest.mark.parametrize(
    "name", ["../../etc/x", "/etc/passwd", "", "..", ".", "a\0b", "x" * 5000, "a\x1b[31m"]
)
def test_a_lock_leads_nowhere(folder: Path, name: str) -> None:
    """Names in it are compared, and never opened."""
    lock()

    def rename(locked: Any) -> None:
        adapter = locked["adapters"]["adapters/a"]
        adapter["files"] = dict(zip([CONFIG, name], adapter["files"].values(), strict=True))

    edit_lock(rename)
    done = pem("build", "--locked", "recipe.pem")
    assert (done.code, "\x1b" in done.text) == (1, False)
    shutil.rmtree(folder / "adapters")
    assert pem("plan", "--locked", "recipe.pem").code in (0, 1)


def test_a_lock_cannot_pass_one_adapter_off_as_another(folder: Path) -> None:
    """The order of digests is part of a content, and `same` holds nothing together in a build."""
    lora(folder / "adapters/c", 3)
    recipe(folder, DECLARED + 'adapter c = "adapters/c"\nsave a + b + c to "out/x"\n')
    lock()
    edit_lock(lambda locked: locked["adapters"]["adapters/c"].update(same="adapters/a"))
    wanted = built_hash()
    assert pem("build", "--locked", "recipe.pem").code == 0
    assert built_hash() == wanted


def test_layers_that_run_backwards_are_refused(folder: Path) -> None:
    lock()

    def backwards(locked: Any) -> None:
        adapter = locked["adapters"]["adapters/a"]
        adapter["tensors"] = {
            key.replace("{0..1}", "{1..0}"): value for key, value in adapter["tensors"].items()
        }

    edit_lock(backwards)
    assert "{1..0}" in Path("pem.lock").read_text()
    done = pem("check", "--locked", "recipe.pem")
    assert (done.code, "PEM0801" in done.err) == (1, True)


def test_a_deeply_nested_config_is_told(folder: Path) -> None:
    path = folder / "adapters/a" / CONFIG
    config = path.read_text().rstrip().removesuffix("}")
    path.write_text(f'{config}, "megatron_config": {"[" * 300}{"]" * 300}}}')
    for command in ("check", "lock", "build"):
        done = pem(command, "recipe.pem")
        assert (done.code, "PEM0414" in done.err) == (1, True)
