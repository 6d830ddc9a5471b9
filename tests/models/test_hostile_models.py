"""Models whose files are not what they seem, or not what they were when they were locked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import build, codes, edit, pem, recipe
from support.models import DECLARED, model

SAVE = f'{DECLARED}save b + 0.5 * (m - b) + 0.3 * (n - b) to "out"\n'


def test_a_link_to_something_else_is_not_copied_into_an_output(folder: Path) -> None:
    secret = folder.parent / "secret.txt"
    secret.write_text("of another")
    for name in ("tokenizer.json", "chat_template.jinja", "config.json"):
        place = folder / "b" / name
        before = place.read_text() if place.exists() else None
        place.unlink(missing_ok=True)
        place.symlink_to(secret)
        assert set(codes(folder, SAVE)) == {"PEM0437"}
        assert not (folder / "out").exists()
        place.unlink()
        if before is not None:
            place.write_text(before)
    assert codes(folder, SAVE) == []


def test_links_as_people_and_the_hub_s_cache_make_them_are_followed(folder: Path) -> None:
    tokenizer = folder / "b/tokenizer.json"
    tokenizer.unlink()
    tokenizer.symlink_to("../m/tokenizer.json")
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    (folder / "b/model.safetensors").rename(blobs / "abc")
    (folder / "b/model.safetensors").symlink_to(blobs / "abc")
    (folder / "b/config.json").rename(blobs / "def")
    (folder / "b/config.json").symlink_to(blobs / "def")
    out = build(folder, SAVE).outputs[0].path
    assert not (out / "tokenizer.json").is_symlink()
    assert (out / "tokenizer.json").read_text() == (folder / "m/tokenizer.json").read_text()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_file_that_came_after_the_lock_is_said_by_the_check(folder: Path, name: str) -> None:
    recipe(folder, SAVE)
    assert pem("lock", "recipe.pem", folder=folder).code == 0
    assert pem("check", "--locked", "recipe.pem", folder=folder).code == 0
    (folder / "b" / name).write_text("{}")
    for command in ("check", "plan", "build"):
        done = pem(command, "--locked", "recipe.pem", folder=folder)
        assert done.code == 1 and "PEM0803" in done.err and name in done.err, command


def test_a_file_that_is_gone_since_the_lock_is_said_where_the_tensors_are_there(
    folder: Path,
) -> None:
    recipe(folder, SAVE)
    assert pem("lock", "recipe.pem", folder=folder).code == 0
    (folder / "n/tokenizer.json").unlink()
    for command in ("check", "build"):
        done = pem(command, "--locked", "recipe.pem", folder=folder)
        assert done.code == 1 and "tokenizer.json of n" in done.err, command
    (folder / "n/model-00002-of-00003.safetensors").unlink()
    assert pem("check", "--locked", "recipe.pem", folder=folder).code == 0


@pytest.mark.parametrize("command", ["check", "plan", "graph", "lock", "report", "build"])
def test_a_shard_that_is_missing_or_cut_is_named(folder: Path, command: str) -> None:
    shard = folder / "n/model-00002-of-00003.safetensors"
    whole = shard.read_bytes()
    for damage in (shard.unlink, lambda: shard.write_bytes(whole[:-10])):
        damage()
        done = pem(command, recipe(folder, SAVE), folder=folder)
        assert done.code == 1 and "PEM0412" in done.err and shard.name in done.err
        assert not (folder / "out").exists() and not (folder / "report.html").exists()


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_recipes_that_differ_by_a_model_of_a_hostile_name(folder: Path, form: str) -> None:
    for name in ("<script>x", "`|[y](z)"):
        model(folder / name, 3)
    first = recipe(folder, 'model o = "<script>x"\nsave o to "out"\n', "first.pem")
    second = recipe(folder, 'model o = "`|[y](z)"\nsave o to "out"\n', "second.pem")
    done = pem("diff", first, second, "--format", form, folder=folder)
    assert done.code == 0, done.err
    assert form != "html" or "<script>" not in done.out


def test_an_output_whose_files_were_changed_is_no_longer_whole(folder: Path) -> None:
    out = build(folder, SAVE).outputs[0].path
    config = out / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"\x1b[31m<b>": {"deep": [1]}}))
    done = pem("verify", "out", folder=folder)
    assert done.code == 1 and "config.json differs" in done.out and "\x1b" not in done.out

    def renamed(statement: dict[str, object]) -> None:
        statement["predicateType"] = "\x1b[31m"

    edit(out, renamed)
    told = pem("explain-output", "out", folder=folder)
    assert told.code == 1 and "PEM0810" in told.err and "\x1b" not in told.text
