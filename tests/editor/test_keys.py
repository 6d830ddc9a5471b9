"""After any keys an editor is told what a fresh check says; and how soon."""

from __future__ import annotations

import os
import random
import statistics
import time
from pathlib import Path

import pytest
from lsprotocol import types
from support import lora, recipe
from support.editor import Editor

import pemlang
from pemlang.check import PASSES, CheckState
from pemlang.inputs import SampleResolver

KEYS = int(os.environ.get("PEM_KEYS", "400"))
"""How many; 10,000 take some minutes."""

LIBRARY = "def half(x: adapter) -> adapter = 0.5 * x\nlet share = 0.25\n"
TEXT = """\
language 1

import "library.pem" (half, share)
import std.paper as paper

adapter a = "a"
adapter b: lora(rank=4) = "b"  # a comment
param w: number in 0..1 = 0.5

def mixed(x: adapter, y: adapter, by: number = 0.5) -> adapter = by * x + (1 - by) * y

let all = [a, b]
let x = sum([share * y for y in all])
let t = ties([a, b], weights=[1, w], density=0.5, over=factors)
let s = a["*.query", "*.value"][layers 0..1]
assert share < 0.5 else "too much"
save mixed(x, half(b), by=w) to "out/x{w}" with rank=4, dtype=bf16

test "halves" {
    let i = sample(lora(rank=2))
    assert same(half(i) + half(i), i)
    assert fails(i ⊕ a, "PEM0306")
}
"""
PIECES = [
    "a", "b", "x", "w", "share", "half", "(", ")", "[", "]", "{", "}", '"', "=", ",", ".", "..",
    "+", "⊕", "-", "*", "\n", " ", "#", "let ", "save ", "adapter ", "ties", "rank=", "0.5", "1",
    "λ", "\U0001d4b3", "\r", "test ", 'to "out/y"', "import ", "std.paper", "\u202e", "else",
]  # fmt: skip


def changed(draw: random.Random, text: str) -> str:
    """A text after a key, a paste, or a line that is moved."""
    at = draw.randrange(len(text) + 1)
    what = draw.random()
    if what < 0.45:
        return text[:at] + draw.choice(PIECES) + text[at:]
    if what < 0.8:
        return text[:at] + text[at + draw.choice([1, 1, 2, 5]) :]
    lines = text.split("\n")
    line = lines.pop(draw.randrange(len(lines)))
    lines.insert(draw.randrange(len(lines) + 1), line)
    if what > 0.97:
        lines.append(line)
    return "\n".join(lines)


def said(folder: Path, samples: Path, name: str) -> list[tuple[str, str, int]]:
    """What a fresh check says of a file and of its tests: code, first line of the message, line."""
    try:
        loaded = pemlang.load(name)
        told = set(loaded.check())
        of = loaded.checked()
        state = CheckState(of.path, of.source, {}, SampleResolver(samples), folder, testing=True)
        for run in PASSES:
            run(state)
        told |= {x for test in state.tests for x in test.diagnostics}
    except pemlang.PemError as error:
        told = set(error.diagnostics)
    found = set()
    for x in told:
        line = x.span.source.position(x.span.start)[0] if x.span else 1
        if x.span is None or x.span.source.name == name:
            found.add((x.code, x.message.split("\n")[0], line))
    return sorted(found)


def shown(diagnostics: list[types.Diagnostic]) -> list[tuple[str, str, int]]:
    return sorted(
        {(str(x.code), x.message.split("\n")[0], x.range.start.line + 1) for x in diagnostics}
    )


@pytest.mark.parametrize("seed", range(2))
def test_after_random_keys_the_same_is_told_as_by_a_fresh_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    root = tmp_path.resolve()
    monkeypatch.chdir(root)
    lora(root / "a", 1)
    lora(root / "b", 2)
    recipe(root, LIBRARY, "library.pem")
    editor, draw, text = Editor(root), random.Random(seed), TEXT
    editor.write(text)
    assert editor.codes() == []
    for key in range(1, KEYS // 2 + 1):
        text = changed(draw, text) if len(text) < 3 * len(TEXT) else TEXT
        if draw.random() < 0.02:
            text = TEXT
        editor.write(text)
        if draw.random() < 0.5:
            place = types.Position(draw.randrange(20), draw.randrange(40))
            params = types.HoverParams(editor.at("recipe.pem"), place)
            editor.ask_later(types.TEXT_DOCUMENT_HOVER, params)
        if key % 20 == 0 or key == KEYS // 2:
            with (root / "recipe.pem").open("w", encoding="utf-8", newline="") as file:
                file.write(text)
            editor.answered()
            told = shown(editor.diagnostics())
            (root / "samples").mkdir(exist_ok=True)
            lone = "\r" in text.replace("\r\n", "\n")  # which begins a line in an editor alone
            fresh = said(root, root / "samples", "recipe.pem")
            assert [x[: 2 if lone else 3] for x in told] == [
                x[: 2 if lone else 3] for x in fresh
            ], text
    editor.close()


def test_how_soon_a_key_is_answered(tmp_path: Path) -> None:
    """A figure of a machine at rest is in docs/editors.md; here it may be busy."""
    root, many = tmp_path.resolve(), 200
    sites = {f"layers.{i}.{x}": (8, 8) for i in range(32) for x in "qkvogud"}
    first = lora(root / "a0", 0, sites, rank=1)
    for index in range(1, many):
        (root / f"a{index}").mkdir()
        for file in first.iterdir():
            (root / f"a{index}" / file.name).write_bytes(file.read_bytes())
    text = "".join(f'adapter a{i} = "a{i}"\n' for i in range(many))
    text += f"let s = {' + '.join(f'{i + 1} * a{i}' for i in range(many))}\n"
    text += f"let p = {' ⊕ '.join(f'a{i}' for i in range(many))}\n"
    text += 'save s to "out/s" with rank=8\nsave p to "out/p"\n'
    editor = Editor(root)
    editor.write(text)
    assert editor.codes() == []
    seconds = []
    for key in range(9):
        editor.write(f"{text}let n = {key}\n")
        began = time.perf_counter()
        editor.diagnostics()
        seconds.append(time.perf_counter() - began)
    editor.close()
    print(f"median {statistics.median(seconds):.3f} s, longest {max(seconds):.3f} s")
    assert statistics.median(seconds) < 1
