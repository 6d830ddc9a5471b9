"""What an editor is told of recipes that are being written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lsprotocol import types
from support import lora, recipe
from support.editor import Editor, applied
from support.models import SHAPES, model

TWO = 'adapter a = "a"\nadapter b = "b"\n'
SAVED = f'{TWO}let x = a + b\nsave x to "out/x"\n'


def test_of_a_buffer_that_no_file_holds(editor: Editor) -> None:
    editor.write(f"{TWO}let x = a + c\n")
    [only] = [x for x in editor.diagnostics() if x.code == "PEM0206"]
    assert only.range == types.Range(types.Position(2, 12), types.Position(2, 13))
    assert only.severity == types.DiagnosticSeverity.Error
    assert only.source == "pem" and "nothing is called `c`" in only.message
    assert "help: " in only.message
    editor.write(SAVED)
    assert editor.codes() == []
    assert not (editor.folder / "recipe.pem").exists()


def test_columns_are_counted_as_editors_do(editor: Editor) -> None:
    editor.write('print "𝒳𝒳" + λ\n', "wide.pem")
    [only] = [x for x in editor.diagnostics("wide.pem") if x.code == "PEM0206"]
    assert (only.range.start.character, only.range.end.character) == (15, 16)
    editor.write('print "𝒳𝒳"\r\nprint λ\r\n', "wide.pem")
    [only] = [x for x in editor.diagnostics("wide.pem") if x.code == "PEM0206"]
    assert only.range == types.Range(types.Position(1, 6), types.Position(1, 7))
    editor.leave("wide.pem")


def test_an_import_is_read_as_it_stands_in_its_buffer(editor: Editor) -> None:
    recipe(editor.folder, "def half(x: adapter) -> adapter = 0.5 * x\n", "lib.pem")
    text = f'import "lib.pem" (half)\n{TWO}save half(a) to "out/x"\n'
    editor.write(text)
    assert editor.codes() == []
    editor.write("def twice(x: adapter) -> adapter = 2 * x\n", "lib.pem")
    editor.until(lambda: editor.told() != [])
    assert editor.codes() == ["PEM0206"]
    editor.leave("lib.pem")
    editor.until(lambda: editor.told() == [])


def test_what_is_wrong_with_an_import_that_is_not_open_is_told_of_its_file(editor: Editor) -> None:
    recipe(editor.folder, "let x = nowhere\n", "broken.pem")
    editor.write('import "broken.pem" as broken\n')
    editor.until(lambda: editor.told("broken.pem") != [])
    assert editor.told("broken.pem") == ["PEM0206"]
    assert editor.codes() == []
    editor.write(SAVED)
    assert editor.codes() == []
    editor.until(lambda: editor.told("broken.pem") == [])


def test_tests_are_checked_too(editor: Editor) -> None:
    test = 'test "t" {\n    let s = sample(lora(rank=2))\n    assert same(s + s, 2 * %s)\n}\n'
    editor.write(SAVED + test % "s")
    assert editor.codes() == []
    editor.write(SAVED + test % "t")
    assert editor.codes() == ["PEM0206"]


def test_adapters_are_read_again_when_they_change(editor: Editor) -> None:
    lora(editor.folder / "late", 4)
    editor.write('adapter l: lora(rank=4) = "late"\nsave l to "out/x"\n')
    assert editor.codes() == []
    lora(editor.folder / "late", 4, rank=2)
    editor.write('adapter l: lora(rank=4) = "late"\nsave l to "out/x" \n')
    assert editor.codes() == ["PEM0316"]
    config = editor.folder / "late" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "peft_type": "VERA"}))
    editor.save()
    editor.until(lambda: editor.told() not in ([], ["PEM0316"]))


def test_models_are_read_again_when_they_change(editor: Editor) -> None:
    model(editor.folder / "whole")
    lora(editor.folder / "on_it", 1, {"model.layers.0.self_attn.q_proj": (12, 12)})
    text = 'model m = "whole"\nadapter l = "on_it"\nsave m + l to "out/x"\n'
    editor.write(text)
    assert editor.codes() == []
    model(
        editor.folder / "whole",
        shapes={**SHAPES, "model.layers.0.self_attn.q_proj.weight": (14, 12)},
    )
    editor.write(f"{text} ")
    assert editor.codes() == ["PEM0307"]


def test_a_certificate_is_nobodys_business(editor: Editor) -> None:
    editor.write("-----BEGIN CERTIFICATE-----\nMII\n", "cert.pem")
    assert editor.codes("cert.pem") == []
    assert editor.hover("-----BEGIN CERT|IFICATE-----\n", "cert.pem") == ""
    editor.leave("cert.pem")


def test_the_hub_is_asked_when_a_recipe_is_saved_and_no_earlier(tmp_path: Path) -> None:
    editor = Editor(tmp_path)
    editor.write("language 1\n")
    editor.write('adapter a = "hf://no-such-org/no-such-name@main"\n')
    [only] = editor.diagnostics()
    assert (only.code, only.severity) == ("PEM0385", types.DiagnosticSeverity.Information)
    assert "save the recipe" in only.message
    editor.save()
    editor.until(lambda: editor.told() == ["PEM0441"])
    editor.close()


def test_help_is_pasted(editor: Editor) -> None:
    text = f'{TWO}let x = a + bb\nsave x to "out/x"\n'
    editor.write(text)
    [wrong] = editor.diagnostics()
    asked = types.CodeActionParams(
        editor.at("recipe.pem"), wrong.range, types.CodeActionContext([wrong])
    )
    [action] = editor.ask(types.TEXT_DOCUMENT_CODE_ACTION, asked)
    assert action.title == "write b" and action.is_preferred
    assert action.kind == types.CodeActionKind.QuickFix
    editor.write(applied(text, action.edit.changes[editor.uri("recipe.pem")]))
    assert editor.codes() == []


HOSTILE = {
    "doubling": "def f0(x: number) -> number = x + x\n"
    + "".join(f"def f{i}(x: number) -> number = f{i - 1}(x) + f{i - 1}(x)\n" for i in range(1, 60))
    + "let y = f59(1)\n",
    "lists": "let a0 = [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
    + "".join(f"let a{i} = [x + y for x, y in zip(a{i - 1}, a{i - 1})]\n" for i in range(1, 900)),
    "brackets": "let x = " + "(" * 5000,
    "quotes": 'let x = "' * 3000,
    "long": "let x = " + " + ".join(["1"] * 40000),
    "unseen": "let x = \u202e1\n\x0c\u2028let y = 2\ud83d\ude00\n",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_recipe_does_not_hang_it(editor: Editor, kind: str) -> None:
    editor.write(HOSTILE[kind], "hostile.pem")
    editor.write(SAVED)
    assert editor.codes() == []
    assert "LoRA" in editor.hover(SAVED.replace("save x", "save |x"))
    editor.write(HOSTILE[kind] + "\n", "hostile.pem")
    editor.diagnostics("hostile.pem")
    editor.leave("hostile.pem")
