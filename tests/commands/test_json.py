"""What commands give as JSON: held to the schemas in docs, which are those of the code."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from support import delta, lora, pem, recipe
from support.outputs import key_pair

from pemlang.cli.main import Commands, cli, command_names
from pemlang.ops import every_operator
from pemlang.show import catalogue

DOCS = Path(__file__).parents[2] / "docs"
SCHEMAS = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "schemas").iterdir()}
TEXT = (
    'adapter a = "a"\nadapter b = "b"\nlet both = a + b\nassert norm(a) > 0\nsave both to "out/x"\n'
)

RIGHT = [
    "check new.pem old.pem",
    "plan new.pem",
    "build new.pem old.pem",
    "build --sweep w=0,1 swept.pem",
    "tune swept.pem --metric os.path:getsize --minimize size --values w=1,2 --sampler grid",
    "lock new.pem old.pem",
    "diff old.pem new.pem",
    "diff a b",
    "verify out/x",
    "verify out/x --rebuild",
    "explain-output out/x",
    "inspect a",
    "inspect a/adapter_model.safetensors",
    "init a b -o {new}.pem",
    "convert merge.yml -o {new}.pem",
    "test tested.pem",
    "doc std.paper",
    "doc swept.pem",
    "fmt new.pem old.pem",
    "report new.pem -o {new}.html",
    "report a b -o {new}.html",
    "report old.pem new.pem -o {new}.html",
    "graph new.pem",
    "sign out/x --key {key}",
    "clean",
    "ops",
    "ops .+",
    "explain",
    "explain 306",
]
WRONG = [
    "check wrong.pem",
    "plan wrong.pem",
    "build wrong.pem",
    "tune wrong.pem --metric os.path:getsize --minimize size",
    "lock wrong.pem",
    "diff new.pem wrong.pem",
    "diff a out",
    "verify a",
    "explain-output a",
    "inspect .",
    "init empty -o {new}.pem",
    "convert torn.pem -o {new}.pem",
    "test torn.pem",
    "doc old.pem",
    "fmt torn.pem",
    "report wrong.pem -o {new}.html",
    "graph wrong.pem",
    "sign a --key {key}",
]
ALWAYS_RIGHT = {"clean", "ops", "explain"}  # but for a mistake in the command line itself
# What they give is files, or text for git, a shell or an editor.
NO_RESULT = {"git-setup", "completion", "git-diff", "git-tensors", "new", "lsp"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("json")
    lora(at / "a", 1)
    lora(at / "b", 2)
    recipe(at, TEXT, "old.pem")
    recipe(at, 'adapter a = "a"\nadapter b = "b"\nsave a + b to "out/y" with rank=6\n', "new.pem")
    recipe(at, 'adapter a = "a"\nparam w: number = 1\nsave w * a to "out/w{w}"\n', "swept.pem")
    recipe(at, 'adapter a = "a"\nlet x = b\n', "wrong.pem")
    recipe(at, "let\n", "torn.pem")
    recipe(at, 'test "one" {\n    print 1 + 1\n    assert true\n}\n', "tested.pem")
    (at / "merge.yml").write_text("models: [{model: org/chat}]\nmerge_method: passthrough\n")
    (at / "empty").mkdir()
    key_pair(at / "key")
    assert pem("build", "old.pem", folder=at).code == 0
    return at


def given(line: str, folder: Path, code: int) -> dict[str, Any]:
    """What a command gives, held to its schema."""
    new = sum(1 for _ in folder.iterdir())
    command, *words = line.format(new=f"new-{new}", key="key").split()
    done = pem(command, "--format", "json", *words, folder=folder)
    assert (done.code, done.err) == (code, ""), done
    told: dict[str, Any] = json.loads(done.out)
    Draft202012Validator(json.loads(SCHEMAS[command])).validate(told)
    return told


@pytest.mark.parametrize("line", RIGHT)
def test_a_result_is_as_its_schema_says(folder: Path, line: str) -> None:
    told = given(line, folder, 0)
    assert len(told) > 1
    assert [message["severity"] for message in told["messages"]].count("error") == 0


@pytest.mark.parametrize("line", WRONG)
def test_a_mistake_is_as_the_schema_says(folder: Path, line: str) -> None:
    told = given(line, folder, 1)
    assert "error" in [message["severity"] for message in told["messages"]]


def test_schemas_are_those_of_the_code() -> None:
    schema = runpy.run_path(str(DOCS / "make.py"))["schema"]
    assert {command: schema(command) for command in SCHEMAS} == SCHEMAS
    for text in SCHEMAS.values():
        Draft202012Validator.check_schema(json.loads(text))


def test_every_command_that_gives_json_has_a_schema_and_is_tried() -> None:
    assert isinstance(cli, Commands)
    context = click.Context(cli)
    giving = set()
    for name in command_names():
        command = cli.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option.type, click.Choice) and "json" in option.type.choices:
                giving.add(name)
    assert giving == set(SCHEMAS) == set(command_names()) - NO_RESULT
    assert giving == {line.split()[0] for line in RIGHT}
    assert giving - ALWAYS_RIGHT == {line.split()[0] for line in WRONG}


def test_a_schema_refuses_what_it_does_not_name(folder: Path) -> None:
    told = given("build new.pem", folder, 0)
    told["outputs"][0]["more"] = 1
    assert not Draft202012Validator(json.loads(SCHEMAS["build"])).is_valid(told)


def test_a_build_gives_ranks_hashes_and_the_errors_made(folder: Path) -> None:
    told = given("build new.pem --force", folder, 0)
    [output] = told["outputs"]
    assert (output["path"], output["rank"]) == (str(folder / "out/y"), 6)
    assert (
        output["semantic_hash"] == given("plan new.pem", folder, 0)["outputs"][0]["semantic_hash"]
    )
    assert 0 < output["loss"]["total"] < max(output["loss"]["sites"].values()) < 1
    assert [message["code"] for message in told["messages"]] == ["PEM0702"]
    assert given("build new.pem", folder, 0)["outputs"][0]["was_there"]


def test_an_expression_gives_its_recipe(folder: Path) -> None:
    done = pem("build", "-e", "a", "a=a", "--to", "out/e", "--format", "json", folder=folder)
    told = json.loads(done.out)
    Draft202012Validator(json.loads(SCHEMAS["build"])).validate(told)
    assert told["recipe"].endswith('save a to "out/e"\n')


def test_one_wrong_recipe_of_several_hides_no_result(folder: Path) -> None:
    told = given("build wrong.pem new.pem", folder, 1)
    assert [Path(output["path"]).name for output in told["outputs"]] == ["y"]
    assert told["messages"][0]["file"] == "wrong.pem"


def test_a_number_that_json_has_none_for_is_null(tmp_path: Path) -> None:
    lora(tmp_path / "a", alpha=1e308)
    done = pem("inspect", "a", "--format", "json", folder=tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(done.out, parse_constant=refuse)


def test_every_command_that_writes_says_what_it_wrote(folder: Path) -> None:
    recipe(folder, 'adapter  a = "a"\nsave a to "out/z"\n', "loose.pem")
    assert given("fmt new.pem loose.pem --check", folder, 1)["changed"] == ["loose.pem"]
    told = given("fmt new.pem loose.pem", folder, 0)
    assert told == {"recipes": 2, "changed": ["loose.pem"], "written": True, "messages": []}
    told = given("init a b -o first.pem", folder, 0)
    assert told["recipe"] == (folder / "first.pem").read_text(encoding="utf-8")
    path = given("sign out/x --key {key}", folder, 0)["path"]
    assert (folder / path).samefile(folder / "out/x/model.sig")
    left = folder / ".y.0123456789abcdef.pem-part"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert given("clean", folder, 0)["removed"][0] == {"path": left.name, "size": 4}


def test_the_numbers_of_a_report(folder: Path) -> None:
    told = given("report old.pem -o numbers.html", folder, 0)
    assert (folder / told["path"]).read_text(encoding="utf-8").count("<section") == len(
        told["sections"]
    )
    [figures] = told["figures"]
    norms = {adapter["name"]: adapter["norm"] for adapter in figures["adapters"]}
    deltas = {name: delta(folder / name) for name in ("a", "b")}
    for name, sites in deltas.items():
        assert norms[name] == pytest.approx(np.sqrt(sum((d**2).sum() for d in sites.values())))
    [pair] = figures["likeness"]
    inner = sum((deltas["a"][site] * deltas["b"][site]).sum() for site in deltas["a"])
    assert pair["adapters"] == ["a", "b"]
    assert pair["cosine"] == pytest.approx(inner / norms["a"] / norms["b"])
    for adapter in figures["adapters"]:
        squares = sum(norm**2 for norm in adapter["layers"].values())
        assert squares == pytest.approx(adapter["norm"] ** 2)
        assert (adapter["lost_at_rank"][0], adapter["lost_at_rank"][-1]) == (1, 0)


def test_operators_codes_and_graphs_are_given_whole(folder: Path) -> None:
    names = [operator["name"] for operator in given("ops", folder, 0)["operators"]]
    assert names == [operator.name for operator in every_operator()]
    density = given("ops ties", folder, 0)["operators"][0]["settings"]["density"]
    assert density.endswith("numbers above 0, up to 1")
    assert given("explain", folder, 0)["codes"].keys() == catalogue().keys()
    drawn = given("graph old.pem", folder, 0)
    titles = [vertex["title"] for vertex in drawn["vertices"]]
    lines = {(titles[edge["source"]], titles[edge["target"]]) for edge in drawn["edges"]}
    assert {("a", "sum"), ("b", "sum"), ("sum", "out/x")} <= lines
