"""What an editor shows, suggests and changes of a recipe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException
from support import lora, recipe
from support.editor import Editor, applied
from support.libraries import HALF, installed

from pemlang.ops import FUNCTIONS

TWO = 'adapter a = "a"\nadapter b = "b"\n'
REFERENCES = types.TEXT_DOCUMENT_REFERENCES
LIBRARY = """\
## Take a skill out of a module.
def without(x: adapter, skill: adapter, by: number = 1) -> adapter = x - by * skill
let share = 0.25
def _own(x: adapter) -> adapter = x
"""


@pytest.fixture
def house(editor: Editor) -> Editor:
    recipe(editor.folder, LIBRARY, "house.pem")
    recipe(editor.folder, 'import "house.pem" (share)\nlet z = share\n', "second.pem")
    return editor


# --- hover, hints and lenses ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("let x = |a + a", ["adapter a: LoRA, rank 4, 4 sites = a"]),
        ("let |x = a + a", ["let x: LoRA, rank 4, 4 sites = 2·a"]),
        ("let n = |norm(a)", ["norm", "‖"]),
        ("let n = a |⊕ b", ["x ⊕ y", "A₁ + A₂"]),
        ("let n = ti|es([a, b], density=0.5)", ["LoRA", "ties", "Merging"]),
        ("let n = ties([a, b], |density=0.5)", ["density", "share of the entries"]),
        ("let n = [0.5, 1]\nlet m = |n[0]", ["[number], 2 items"]),
        ("def f(|x: adapter) -> adapter = x", ["x: adapter"]),
        ("## Half of it.\ndef h(x: adapter) -> adapter = 0.5 * x\nlet y = |h(a)",
         ["def h(x: adapter) -> adapter", "Half of it."]),
        ("param w: number in 0..1 = 0.5\nlet y = |w * a", ["param w: number = 0.5"]),
        ('test "t" {\n    assert fails(a + 1, "PEM|0302")\n}', ["PEM0302"]),
        ('test "t" {\n    let s = sample(lora(rank=2))\n    print |s\n}', ["rank 2"]),
        ("let y = 0.5 |", []),
        ("# nothi|ng", []),
    ],
)  # fmt: skip
def test_hover(editor: Editor, line: str, told: list[str]) -> None:
    shown = editor.hover(f"{TWO}{line}\n")
    assert bool(shown) == bool(told)
    for word in told:
        assert word in shown


def test_hover_of_what_another_file_declares(house: Editor) -> None:
    shown = house.hover(f'import "house.pem" as h\n{TWO}let x = h.with|out(a, b)\n')
    assert "def without(x: adapter, skill: adapter, by: number = 1)" in shown
    assert "Take a skill out of a module" in shown and "house.pem" in shown


def test_what_is_hovered_is_no_markup(editor: Editor) -> None:
    shown = editor.hover(
        "## <img src=x> [a](http://b) `c`\ndef f(x: number) -> number = x\nlet y = |f(1)\n"
    )
    assert "<img" not in shown.replace("\\<img", "") and "[a](" not in shown


def test_types_stand_after_names(editor: Editor) -> None:
    text = f'{TWO}let x = a + b\nlet y: adapter = a\ntest "t" {{\n    let i = sample(ia3)\n}}\n'
    editor.write(text)
    whole = types.Range(types.Position(0, 0), types.Position(9, 0))
    asked = types.InlayHintParams(editor.at("recipe.pem"), whole)
    hints = editor.ask(types.TEXT_DOCUMENT_INLAY_HINT, asked)
    assert [(x.position.line, x.position.character, x.label) for x in hints] == [
        (0, 9, ": LoRA, rank 4, 4 sites"),
        (1, 9, ": LoRA, rank 4, 4 sites"),
        (2, 5, ": LoRA, rank 8, 4 sites"),
        (5, 9, ": (IA)³, 4 sites"),
    ]


def test_a_lens_has_the_normal_form_of_a_save(editor: Editor) -> None:
    editor.write(f'{TWO}let x = a + b - a\nsave x + x to "out/x" with rank=2\n')
    asked = types.CodeLensParams(editor.at("recipe.pem"))
    [lens] = editor.ask(types.TEXT_DOCUMENT_CODE_LENS, asked)
    assert lens.range.start.line == 3
    assert lens.command.title == "compress(2·b, rank=2): LoRA, rank 2, 4 sites"


def test_tokens_say_what_words_are(editor: Editor) -> None:
    text = "import std.paper as p\nexport import std.soups (uniform)\n"
    text += f"{TWO}def f(w: number) -> number = w\n"
    text += 'save f(2) * a to "x{f}" # so\n'
    editor.write(text)
    asked = types.SemanticTokensParams(editor.at("recipe.pem"))
    numbers = editor.ask(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, asked).data
    legend = editor.capabilities.semantic_tokens_provider.legend
    words, line, column = [], 0, 0
    for at in range(0, len(numbers), 5):
        down, right, length, kind, _ = numbers[at : at + 5]
        line, column = line + down, right + (column if not down else 0)
        word = text.split("\n")[line][column : column + length]
        words.append((word, legend.token_types[kind]))
    assert ("import", "keyword") in words and ("p", "namespace") in words
    assert {("std", "namespace"), ("soups", "namespace"), ("uniform", "function")} <= set(words)
    assert ("a", "variable") in words and ("f", "function") in words and ("w", "parameter") in words
    assert ("number", "type") in words and ("2", "number") in words and ("*", "operator") in words
    assert ("# so", "comment") in words and ('"x{', "string") in words


# --- what may be written -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("|", "adapter let save test", "a b norm"),
        ("le|", "let", "a"),
        ("let x = |", "a b norm ties if", "let save w"),
        ("let x = a + no|", "norm a", "density="),
        ("let x = ties([a, b], |)", "density= over= a", ""),
        ("let x = ties([a, b], over=|)", "factors delta", "density= norm a"),
        ("let x = ties([a, b], density=1, |)", "over=", "xs= density="),
        ("let x = join(a, |)", "b", "x="),
        ("def g(p: number, q: number) -> number = 1\nlet x = g(1, |)", "q=", "p="),
        ("let x = ties([a, b], rank=|)", "full norm", "density="),
        ('save a to "out/x" with |', "rank= dtype= reader=", "a"),
        ('save a to "out/x" with dtype=|', "bf16 f32", "a rank="),
        ('save a to "out/x" with rank=4, reader=|', "vllm peft", "dtype="),
        ('save a to "out/x" with heads=|', "a none mean", ""),
        ("save a |", "to", "norm"),
        ("let x: |", "number adapter lora", "a"),
        ("def f(x: |", "number adapter", "a"),
        ('let x = a["|"]', "*.query *.self.* encoder.layer.0.attention.self.query", ""),
        ("let x = a[|]", "layers like", ""),
        ('let x = per { "|": 0.5, else: 1 } * a', "*.query *.value", ""),
        ('adapter c = "|"', "a b runs/", "recipe.pem"),
        ('adapter c = "runs/|"', "runs/final", ""),
        ('adapter c = "a" with |', "names=", "rank="),
        ('adapter c = "a" with names="|"', "transformers-5 unwrapped", ""),
        ("import |", "std.paper", "a"),
        ("import std.|", "paper", ""),
        ("import std.paper (|)", "merge unlearn", "a"),
        ('import "|"', "house.pem", "a"),
        ('import "house.pem" (|)', "without share", "_own"),
        ("def g(first: number) -> number = |", "first a", "second"),
        ("def g(first: number) -> number = 1\nlet x = g(|)", "first= a g", ""),
        ('let w = 1\nsave a to "out/x{|', "out/x{w}", ""),
        ('test "t" {\n    let q = sample(lora)\n    assert same(|\n}', "q a sample", ""),
        ('test "t" {\n    assert fails(a, "|")\n}', "PEM0302", ""),
        ("# a comment |", "", "a let"),
        ("let x = (a + \nlet y = |", "a norm", "let"),
        ("let a|", "", "a norm"),
        ("adapter |", "", "a norm adapter"),
        ("def a|", "", "a norm"),
        ("def f(a|", "", "a norm"),
        ("def f(x: adapter, a|", "", "a norm"),
        ("def f(x: adapter, by: number = no|", "norm", ""),
        ("let x = [a for a|", "", "a norm"),
        ("let x = [a for a in |", "a", ""),
        ("let x = [n * y for n, y in |", "zip a mean", "let"),
        ("let x = [n * y for n, y in z|", "zip", ""),
        ("let x = zi|", "a", "zip"),
        ("import std.paper as a|", "", "a as"),
        ("let x =|", "", "a norm"),
        ("let x = a /|", "", "a norm"),
    ],
)  # fmt: skip
def test_completion(house: Editor, text: str, some: str, none: str) -> None:
    labels = house.completed(f"{TWO}{text}\n")
    assert set(some.split()) - set(labels) == set()
    assert set(none.split()) & set(labels) == set()


def test_what_fits_best_is_first(editor: Editor) -> None:
    def first(text: str) -> list[str]:
        items = editor.completed(f"{TWO}{text}\n").values()
        return [x.label for x in sorted(items, key=lambda x: x.sort_text)][:2]

    assert first("let x = ties([a, b], |") == ["weights=", "density="]
    assert first("let x = |") == ["a", "b"]
    assert first("let x = ties([a, b], rank=|")[0] == "full"
    assert first('let x = a["|"]') == ["*.query", "*.value"]


def test_members_of_a_module_are_completed(house: Editor) -> None:
    whole = f'import "house.pem" as h\n{TWO}let x = h.share * a\n'
    house.write(whole)
    assert set(house.completed(whole.replace("h.share", "h.|"))) == {"without", "share"}


def test_what_is_completed_says_its_type_and_replaces_what_is_written(editor: Editor) -> None:
    text = f'{TWO}let xy = a + b\nsave x| to "out/x"\n'
    item = editor.completed(text)["xy"]
    assert item.label_details.description.startswith("LoRA, rank 8, 4 sites = 1·a + 1·b")
    assert "save xy to" in applied(text.replace("|", ""), [item.text_edit])
    assert editor.completed(f"{TWO}let x = ti|\n")["ties"].documentation.value


def test_every_function_is_completed_and_explained(editor: Editor) -> None:
    assert set(FUNCTIONS) <= set(editor.completed(f"{TWO}let x = |\n"))
    for name in FUNCTIONS:
        assert editor.hover(f"let x = |{name}(1)\n"), name
        assert editor.signature(f"let x = {name}(|\n")[0].startswith(f"{name}("), name


def test_references_in_the_cache_of_the_hub_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import lora

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "cache" / "models--org--name" / "snapshots" / commit
    lora(snapshot / "deep", 1)
    editor = Editor(tmp_path)
    assert f"hf://org/name/deep@{commit}" in editor.completed('adapter a = "|"\n')
    editor.close()


def test_folders_that_cannot_be_read_suggest_nothing(editor: Editor) -> None:
    os.mkfifo(editor.folder / "pipe.safetensors")
    for path in ("nowhere/", "a/adapter_config.json/", "pipe.safetensors/", "x" * 5000 + "/"):
        assert all(x.startswith("hf:") for x in editor.completed(f'adapter c = "{path}|"\n'))


@pytest.mark.parametrize(
    ("line", "label", "active"),
    [
        ("let x = ties(|", "ties(xs: [adapter]", "xs: [adapter]"),
        ("let x = ties([a, b], density=|", "ties(", "density: number"),
        ("let x = ties([a, |", "ties(", "xs: [adapter]"),
        ("let x = without(a, |", "without(x: adapter, skill: adapter, by: number = 1)",
         "skill: adapter"),
        ("let x = without(a, b, by=|", "without(", "by: number = 1"),
        ("let x = without(a, skill=b, |", "without(", None),
        ("let x = 1 + |", "", None),
    ],
)  # fmt: skip
def test_signature_help(house: Editor, line: str, label: str, active: str | None) -> None:
    house.write(f'import "house.pem" (without)\n{TWO}')
    shown, now = house.signature(f'import "house.pem" (without)\n{TWO}{line}\n')
    assert shown.startswith(label) and bool(shown) == bool(label)
    assert now is None if active is None else (now or "").startswith(active)


def test_completion_of_an_installed_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merges = 'import "parts/more.pem" (share)\n' + HALF
    installed(tmp_path / "site", {"merges.pem": merges, "parts/more.pem": "let share = 1\n"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    editor = Editor(tmp_path)
    assert {"std.paper", "house.merges", "house.parts.more"} <= set(editor.completed("import |"))
    assert set(editor.completed("import house.|")) == {"merges", "parts.more"}
    assert set(editor.completed("import house.parts.m|")) == {"more"}
    names = editor.completed("import house.merges (|)")
    assert set(names) == {"half"} and "Half of an adapter" in names["half"].documentation.value
    assert set(editor.completed("import house.nothing (|)")) == set()
    editor.close()


# --- where names are ------------------------------------------------------------------------


def test_definition_and_references_in_one_file(editor: Editor) -> None:
    text = f'{TWO}let x = a + b\nsave |x to "out/x" with rank=2\n'
    assert editor.places(types.TEXT_DOCUMENT_DEFINITION, text) == [("recipe.pem", "x", 3)]
    shown = editor.places(REFERENCES, text)
    assert shown == [("recipe.pem", "x", 3), ("recipe.pem", "x", 4)]
    assert editor.places(types.TEXT_DOCUMENT_DEFINITION, f"{TWO}let y = no|rm(a)\n") == []


def test_across_files(house: Editor) -> None:
    text = f'import "house.pem" as h\n{TWO}let x = h.without(a, b, |by=h.share)\n'
    there = house.places(types.TEXT_DOCUMENT_DEFINITION, text)
    assert there == [("house.pem", "by", 2)]
    text = text.replace("|", "").replace("h.share", "h.|share")
    assert set(house.places(REFERENCES, text)) == {
        ("house.pem", "share", 3),
        ("recipe.pem", "share", 4),
        ("second.pem", "share", 1),
        ("second.pem", "share", 2),
    }


def renamed(editor: Editor, text: str, new: str, name: str = "recipe.pem") -> dict[str, str]:
    """The texts of all files once a name is another, by name."""
    more = {"new_name": new}
    edit = editor.place(types.RenameParams, types.TEXT_DOCUMENT_RENAME, text, name, **more)
    texts = {}
    for uri, edits in edit.changes.items():
        path = Path(uri.removeprefix("file://"))
        mine = path == editor.folder / name
        before = text.replace("|", "") if mine else path.read_text(encoding="utf-8")
        texts[path.name] = applied(before, edits)
    return texts


def test_rename(house: Editor) -> None:
    text = (
        f'import "house.pem" (without, |share)\n{TWO}'
        'let x = without(a, b, by=share)\nsave x to "out/{share}"\n'
    )
    assert renamed(house, text, "part") == {
        "recipe.pem": text.replace("|", "").replace("share", "part"),
        "house.pem": LIBRARY.replace("share", "part"),
        "second.pem": 'import "house.pem" (part)\nlet z = part\n',
    }
    text = text.replace("|", "").replace("by=", "b|y=")
    assert renamed(house, text, "much")["house.pem"] == LIBRARY.replace("by", "much")


def test_a_word_of_an_operator_is_no_name(editor: Editor) -> None:
    text = f"{TWO}let |delta = 1\n"
    text += "let x = ties([a, b], density=0.5, over=delta, weights=[delta, 1])\n"
    new = renamed(editor, text, "d")["recipe.pem"]
    assert "over=delta, weights=[d, 1]" in new


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ("let", "can be called"),
        ("1x", "can be called"),
        ("norm", "can be called"),
        ("a", "already"),
        ("bf16", "already"),
    ],
)
def test_a_name_that_would_change_the_meaning_is_refused(
    editor: Editor, new: str, why: str
) -> None:
    text = f'{TWO}let |x = a + b\nsave x to "out/x" with dtype=bf16\n'
    with pytest.raises(JsonRpcException, match=why):
        renamed(editor, text, new)


def test_what_is_not_the_readers_is_not_renamed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        lora(tmp_path / name, 1)
    editor = Editor(tmp_path)
    with pytest.raises(JsonRpcException, match="outside of the folder"):
        renamed(editor, f"import std.paper (|merge)\n{TWO}let x = merge(a, b)\n", "mine")
    with pytest.raises(JsonRpcException, match="does not parse"):
        renamed(editor, f"{TWO}let |x = a\nlet y = x +\n", "z")
    assert capfd.readouterr().err == ""  # a refusal is no mistake of the server
    editor.close()


def test_formatting(editor: Editor) -> None:
    text = "adapter  a='a'\n".replace("'", '"') + "let   x=a+  a # so\n"
    editor.write(text)
    asked = types.DocumentFormattingParams(
        editor.at("recipe.pem"), types.FormattingOptions(4, True)
    )
    edits = editor.ask(types.TEXT_DOCUMENT_FORMATTING, asked)
    assert applied(text, edits) == 'adapter a = "a"\nlet x = a + a  # so\n'
    editor.write("let x = = 1\n")
    assert not editor.ask(types.TEXT_DOCUMENT_FORMATTING, asked)
