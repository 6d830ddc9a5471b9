"""A provenance that was changed, by accident or to deceive: it is told, it leads nowhere, and no
junk in it is a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import build, edit, pem
from support.junk import changed, places
from support.outputs import DECLARED, PROVENANCE, TEXT, asked, contents, provenance, verified

import pemlang


def test_one_byte_of_the_provenance_is_told_wherever_it_is(output: Path) -> None:
    path = output / PROVENANCE
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        done = pem("verify", output)
        assert (done.code, "PEM0810" in done.err) == (1, True), at
    path.write_bytes(whole)
    assert pem("verify", output).code == 0


DAMAGED = [
    b"",
    b"{",
    b"\xff",
    b"[]",
    b"[" * 99_999,
    b"9" * 5000,
    b'{"a":' * 500 + b"1" + b"}" * 500,
]


@pytest.mark.parametrize("data", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_provenance_is_told(folder: Path, output: Path, data: bytes) -> None:
    (output / PROVENANCE).write_bytes(data)
    for words in (["verify"], ["verify", "--rebuild"], ["explain-output"]):
        done = pem(*words, output)
        assert (done.code, "error[PEM0810]" in done.err) == (1, True)
    with pytest.raises(pemlang.PemError, match="PEM0510"):
        build(folder, TEXT)
    assert pem("build", folder / "recipe.pem", "--force").code == 0
    assert verified(output).holds


def test_what_is_no_output_is_told(folder: Path) -> None:
    for other in (folder / "a", folder / "nowhere", folder / "recipe.pem"):
        for command in ("verify", "explain-output"):
            done = pem(command, other)
            assert (done.code, "error[PEM0810]" in done.err) == (1, True)


# --- changed to deceive --------------------------------------------------------------------


def test_a_hash_that_the_tensors_do_not_say_is_told(output: Path) -> None:
    def other_hash(statement: Any) -> None:
        definition = statement["predicate"]["buildDefinition"]
        definition["internalParameters"]["semanticHash"] = "0" * 64

    edit(output, other_hash)
    assert verified(output).differing.keys() == {PROVENANCE}


@pytest.mark.parametrize(
    "where", ["../x", "/etc", "", ".", "..", "out/../../x", "a\0b", "out/y", "x" * 5000]
)
def test_an_output_of_another_place_leads_nowhere(folder: Path, output: Path, where: str) -> None:
    edit(output, lambda statement: asked(statement).update(output=where))
    before = contents(folder)
    for words in (["verify"], ["verify", "--rebuild"], ["verify", "--rebuild", "--from", folder]):
        assert pem(*words, output).code in (0, 1)
    assert pem("verify", "--rebuild", "--from", folder, output).code == 1
    assert contents(folder) == before


def test_a_recipe_in_a_provenance_writes_nowhere_else(folder: Path, output: Path) -> None:
    text = DECLARED + 'save a to "../../outside"\nsave b to "out/x"\n'
    edit(output, lambda statement: asked(statement)["recipe"].update(text=text))
    before = sorted(folder.parent.rglob("*"))
    assert pem("verify", output, "--rebuild").code == 1
    assert sorted(folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "name", ["../recipe.pem", "/etc/passwd", "a\0b", "no.txt", "", "..", "x\x1b[31m"]
)
def test_subjects_of_any_name_are_no_crash(output: Path, name: str) -> None:
    edit(output, lambda statement: statement["subject"][1].update(name=name))
    done = pem("verify", output, "--rebuild")
    assert (done.code, "\x1b[31m" in done.text) == (1, False)


@pytest.mark.parametrize("name", ["r\0.pem", "../r.pem", "r\n.pem", ""])
def test_a_recipe_of_no_plain_name_is_refused(output: Path, name: str) -> None:
    edit(output, lambda statement: asked(statement)["recipe"].update(name=name))
    done = pem("verify", output, "--rebuild")
    assert (done.code, "PEM0810" in done.err) == (1, True)


# --- junk ----------------------------------------------------------------------------------

JUNK = [None, True, -1, 10**400, 1e999, "\ud800", "a\0b\x1b[31m", [], [[1, 2]], {"a": {"b": [1]}}]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:12])
def test_junk_anywhere_in_a_provenance_is_no_crash(output: Path, junk: Any) -> None:
    whole = (output / PROVENANCE).read_text()
    statement = provenance(output)
    for place in places(statement):
        (output / PROVENANCE).write_text(json.dumps(changed(statement, place, junk)))
        for words in (["verify"], ["explain-output"], ["verify", "--format", "json"]):
            done = pem(*words, output)
            assert done.code in (0, 1)
            assert "\x1b[31m" not in done.text
    done = pem("verify", output, process=True)
    assert (done.code in (0, 1), "Traceback" in done.err) == (True, False)
    (output / PROVENANCE).write_text(whole)
    assert verified(output).holds


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk)[:12])
def test_a_forced_build_makes_good_what_junk_says(folder: Path, output: Path, junk: Any) -> None:
    """Above all where the junk is in what is taken from it: what came out, and the parts."""
    statement = provenance(output)
    taken = [p for p in places(statement) if {"byproducts", "annotations"} & set(p)]
    for place in taken[:: max(1, len(taken) // 12)]:
        (output / PROVENANCE).write_text(json.dumps(changed(statement, place, junk)))
        assert pem("build", folder / "recipe.pem", "--force").code == 0
        assert pem("plan", folder / "recipe.pem").code == 0
