"""What a recipe, or an editor, may do to a server that answers all the same."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from lsprotocol import types
from support.editor import Editor

from pemlang.lsp import MOST_ASKED_AT_ONCE, TextPlaces

TWO = 'adapter a = "a"\nadapter b = "b"\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-32-le"])
def test_columns_are_what_the_encoding_says(encoding: str) -> None:
    text = "aé\u4e2d\U0001d4b3\U0001d4b3b\n\n\U0001d4b3\ud800z"
    kind = types.PositionEncodingKind(encoding.removesuffix("-le"))
    unit = {"utf-8": 1, "utf-16-le": 2, "utf-32-le": 4}[encoding]
    places = TextPlaces(text, kind)
    for offset in range(len(text) + 1):
        before = text[:offset].split("\n")
        column = len(before[-1].encode(encoding, "surrogatepass")) // unit
        place = types.Position(len(before) - 1, column)
        assert places.position(offset) == place
        assert places.offset(place) == offset
    assert places.offset(types.Position(0, 99)) == text.index("\n")
    assert places.offset(types.Position(9, 0)) == len(text)


@pytest.mark.parametrize("comment", ["", "# 𝒳\n"])
def test_a_line_as_long_as_a_recipe_may_be(editor: Editor, comment: str) -> None:
    """Each of its tokens and names is found without going through the line again."""
    editor.write(f"{comment}{TWO}let x = [{', '.join(['a'] * 60_000)}, 𝒳]\n")
    assert editor.codes() != []
    began = time.perf_counter()
    at = editor.at("recipe.pem")
    tokens = types.SemanticTokensParams(at)
    assert len(editor.ask(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, tokens).data) > 5 * 60_000
    declared = types.Position(comment.count("\n"), 8)
    asked = types.ReferenceParams(types.ReferenceContext(True), at, declared)
    assert len(editor.ask(types.TEXT_DOCUMENT_REFERENCES, asked)) == 60_001
    assert time.perf_counter() - began < 60


def test_tokens_of_a_text_with_ends_of_lines_of_its_own(editor: Editor) -> None:
    editor.write("      # one\rtwo\rlet x = 1 # three\r\r\nlet y = 2\n")
    asked = types.SemanticTokensParams(editor.at("recipe.pem"))
    assert min(editor.ask(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, asked).data) >= 0


def test_the_hub_is_asked_a_few_questions_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):  # it is closed
            while True:
                waiting.append(silent.accept()[0])

    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        Thread(target=accept, daemon=True).start()
        editor = Editor(tmp_path)
        editor.write("".join(f'adapter a{i} = "hf://org/a{i}@main"\n' for i in range(60)))
        editor.until(lambda: len(waiting) >= MOST_ASKED_AT_ONCE)
        until = time.monotonic() + 1
        editor.until(lambda: time.monotonic() > until)
        assert len(waiting) == MOST_ASKED_AT_ONCE
        assert set(editor.codes()) <= {"PEM0385", "PEM0114"}
        editor.close()
    for connection in waiting:
        connection.close()
