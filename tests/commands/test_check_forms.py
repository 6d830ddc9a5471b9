"""`pem check` of several recipes, as SARIF and as annotations of a GitHub workflow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from support import Done, lora, pem, recipe

import pemlang
from pemlang.show import Finding, catalogue, log

WRONG = 'adapter a = "a"\nlet λx = "𝛼" + b\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lora(tmp_path / "a", 1)
    recipe(tmp_path, 'adapter a = "a"\nsave a to "out"\n', "right.pem")
    recipe(tmp_path, WRONG, "wrong.pem")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(*words: str) -> Done:
    return pem("check", *words)


def results(*words: str) -> list[dict[str, Any]]:
    """The results of a SARIF log of some recipes."""
    sarif = json.loads(check("--format", "sarif", *words).out)
    hold_to_sarif(sarif)
    every: list[dict[str, Any]] = sarif["runs"][0]["results"]
    return every


def place(result: dict[str, Any]) -> tuple[str, list[int]]:
    physical = result["locations"][0]["physicalLocation"]
    region = physical["region"]
    numbers = [region[key] for key in ("startLine", "startColumn", "endLine", "endColumn")]
    return unquote(physical["artifactLocation"]["uri"]), numbers


def hold_to_sarif(sarif: dict[str, Any]) -> None:
    """What the schema of SARIF 2.1.0 and GitHub's code scanning require of a log such as ours."""
    assert set(sarif) == {"$schema", "version", "runs"}
    assert sarif["version"] == "2.1.0"
    [run] = sarif["runs"]
    assert set(run) == {"tool", "columnKind", "results"}
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    driver = run["tool"]["driver"]
    assert set(driver) == {"name", "version", "rules"}
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)
    for rule in driver["rules"]:
        assert set(rule) == {"id", "shortDescription", "fullDescription", "help"}
        assert len(rule["fullDescription"]["text"]) <= 1024
        assert rule["help"]["text"] == rule["help"]["markdown"]
    for result in run["results"]:
        assert set(result) == {"ruleId", "level", "message", "locations"}
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["ruleId"] in ids
        assert result["message"]["text"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"[!#$&'()*+,/:;=?@\[\]A-Za-z0-9_.~%-]+", uri), uri
        name, (line, column, end_line, end_column) = place(result)
        assert (1, 1) <= (line, column) <= (end_line, end_column), name


def test_places_are_in_code_points(folder: Path) -> None:
    [result] = results("wrong.pem")
    assert (result["ruleId"], result["level"]) == ("PEM0206", "error")
    assert place(result) == ("wrong.pem", [2, 16, 2, 17])
    assert result["message"]["text"].startswith("nothing is called `b`\nhelp: ")


def test_rules_are_those_that_were_used(folder: Path) -> None:
    sarif = json.loads(check("wrong.pem", "--format", "sarif").out)
    [rule] = sarif["runs"][0]["tool"]["driver"]["rules"]
    assert rule["id"] == "PEM0206"
    assert rule["shortDescription"]["text"] == catalogue()["PEM0206"].title


def test_every_code_makes_a_rule(folder: Path) -> None:
    findings = [
        Finding("right.pem", pemlang.Diagnostic(code, "error", code)) for code in catalogue()
    ]
    hold_to_sarif(log(findings))


def test_nothing_wrong_is_an_empty_run(folder: Path) -> None:
    done = check("right.pem", "--format", "sarif")
    hold_to_sarif(json.loads(done.out))
    assert json.loads(done.out)["runs"][0]["results"] == []
    assert done.code == 0


def test_a_message_without_a_place_is_at_the_top_of_the_recipe(folder: Path) -> None:
    recipe(folder, " ", "empty.pem")
    [result] = results("empty.pem")
    assert place(result) == ("empty.pem", [1, 1, 1, 1])
    shown = check("empty.pem", "--format", "github").out
    at = "file=empty.pem,line=1,endLine=1,title=PEM0104,col=1,endColumn=1"
    assert shown.startswith(f"::error {at}::empty.pem is empty%0Ahelp: ")


def test_names_of_files_are_relative_and_encoded(folder: Path) -> None:
    recipe(folder / "some 100% place", WRONG.replace('"a"', '"../a"'), "x:y,z.pem")
    path = folder / "some 100% place" / "x:y,z.pem"
    for name in (str(path), "a/../some 100% place/x:y,z.pem"):
        [result] = results(name)
        assert place(result)[0] == "some 100% place/x:y,z.pem"
    shown = check(name, "--format", "github").out
    assert "file=some 100%25 place/x%3Ay%2Cz.pem,line=2," in shown


def test_an_import_is_told_of_once(folder: Path) -> None:
    recipe(folder, "let y = nothing\n", "shared.pem")
    for name in ("one.pem", "two.pem"):
        recipe(folder, 'import "shared.pem" as s\nlet x = 1\n', name)
    [result] = results("one.pem", "two.pem")
    assert place(result)[0] == "shared.pem"


def test_one_document_holds_all_recipes_and_the_worst_code_wins(folder: Path) -> None:
    every = results("right.pem", "wrong.pem", "nowhere.pem")
    assert [place(result)[0] for result in every] == ["wrong.pem", "nowhere.pem"]
    done = check("right.pem", "wrong.pem", "nowhere.pem", "--format", "json")
    assert [message["code"] for message in json.loads(done.out)["messages"]] == [
        "PEM0206",
        "PEM0100",
    ]
    assert done.code == 1
    assert check("right.pem", "wrong.pem", "--set", "w=1", "--format", "json").code == 2


def test_a_folder_stands_for_the_recipes_inside(folder: Path) -> None:
    recipe(folder / "deep" / "down", WRONG.replace('"a"', '"../../a"'), "also-wrong.pem")
    recipe(folder / ".hidden", WRONG)
    (folder / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    every = results(".", "wrong.pem")
    assert sorted(place(result)[0] for result in every) == ["deep/down/also-wrong.pem", "wrong.pem"]
    (folder / "wrong.pem").unlink()
    assert check(".").code == 1
    (folder / "deep/down/also-wrong.pem").unlink()
    assert check(".") == Done(0, "", "")


def test_a_folder_without_a_recipe_is_no_success(folder: Path) -> None:
    done = check("a")
    assert (done.code, "there is no recipe in a" in done.err) == (1, True)


def test_standard_input_is_checked_as_the_file_that_it_is_to_be(folder: Path) -> None:
    text = 'adapter a = "../a"\nsave a to "out"\n'
    (folder / "recipes").mkdir()
    named = ("--stdin-filename", "recipes/new.pem")
    assert pem("check", "-", *named, input=text) == Done(0, "", "")
    assert not (folder / "recipes/new.pem").exists()
    told = pem("check", "-", *named, input=WRONG.replace('"a"', '"../a"')).err
    assert " --> recipes/new.pem:2:16" in told
    assert " --> standard input:2:16" in pem("check", "-", input=WRONG).err
    assert "PEM0102" in pem("check", "-", input=b"\xff").err
    assert pem("check", *named, "right.pem").code == 2


def test_what_is_on_standard_input_has_its_places_though_no_file_is_called_so(
    folder: Path,
) -> None:
    text = 'language 1\nsave 2 * unheard to "q"\n'
    for name in ("new.pem", "nowhere/new.pem", None):
        words = [] if name is None else ["--stdin-filename", name]
        done = pem("check", "-", *words, "--format", "github", input=text)
        called = name or "standard input"
        assert f"file={called},line=2,endLine=2,title=PEM0206,col=10,endColumn=17" in done.out
        done = pem("check", "-", *words, "--format", "sarif", input=text)
        [result] = json.loads(done.out)["runs"][0]["results"]
        assert place(result) == (called, [2, 10, 2, 17])


def test_a_home_in_the_name_of_standard_input_is_written_out(folder: Path) -> None:
    lora(folder / "deep/b", 1)
    words = ("check", "-", "--stdin-filename=~/deep/new.pem")
    done = pem(*words, input='adapter b = "b"\nsave b to "q"\n', HOME=str(folder))
    assert done == Done(0, "", "")


def test_an_annotation_is_one_line_and_nothing_in_it_is_a_command(folder: Path) -> None:
    recipe(folder, 'adapter a = "a"\nlet x = [a,\n  50 %\n]\nlet y = "::error::\\n" + a\n', "v.pem")
    lines = check("v.pem", "wrong.pem", "--format", "github").out.splitlines()
    columns = r"(,col=\d+,endColumn=\d+)?"
    shape = rf"::(error|warning) file=[^,:]+,line=\d+,endLine=\d+,title=PEM\d{{4}}{columns}::.+"
    assert len(lines) > 1
    assert all(re.fullmatch(shape, line) for line in lines), lines
    assert any("%0Ahelp: " in line for line in lines)
    assert any("`%25`" in line for line in lines)


def test_a_message_in_sarif_holds_no_link(folder: Path) -> None:
    recipe(folder, 'adapter a = "[here](https://example.com)"\n', "link.pem")
    [result] = results("link.pem")
    assert r"[here\](https:" in result["message"]["text"]
