"""Messages of the language server."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from pemlang.lsp import EditorResolver, OpenFiles, analysed, hold_free, hold_renamable, uses_of
from support.messages.case import Diagnostics, made, raised, told

TEXT = "let x = 1\nlet y = x\n"


def renamed(
    root: Path, new: str, text: str = TEXT, other: str = "", most: int = 500
) -> Diagnostics:
    """What is said of another name for what is declared first."""
    files = OpenFiles()
    path = files.put((root / "typed.pem").as_uri(), text, 1)
    user = files.put((root / "user.pem").as_uri(), other or "language 1\n", 1)
    resolver = EditorResolver(root, files, lambda: None)
    found = [analysed(file, resolver) for file in (path, user)]
    names = found[0].names[path].names
    bound = next(iter(names.values()))

    def rename() -> None:
        hold_renamable(bound, [], files)
        hold_free(new, uses_of(bound, found, files, [root / "library"], most))

    (root / "typed.pem").write_text(text)
    try:
        return raised(rename)
    finally:
        (root / "typed.pem").unlink()


@made
def PEM0102_half_a_character(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    files = OpenFiles()
    path = files.put((root / "typed.pem").as_uri(), "let x = \ud83d", 1)
    return analysed(path, EditorResolver(root, files, lambda: None)).diagnostics


@made
def PEM0384_not_installed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr(importlib.util, "find_spec", lambda name: None)
    return told("lsp")


@made
def PEM0385_on_the_hub(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    files = OpenFiles()
    text = 'adapter a = "hf://org/name@main"\n'
    path = files.put((root / "typed.pem").as_uri(), text, 1)
    return analysed(path, EditorResolver(root, files, lambda: None)).diagnostics


@made
def PEM0386_keyword(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return renamed(root, "let")


@made
def PEM0386_taken(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return renamed(root, "y")


@made
def PEM0386_private(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    (root / "typed.pem").write_text(TEXT)
    return renamed(root, "_x", other='import "typed.pem" (x)\nlet z = x\n')


@made
def PEM0386_many(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return renamed(root, "z", most=0)


@made
def PEM0386_mistakes(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return renamed(root, "z", "let x = 1\nlet y = x +\n")


@made
def PEM0386_of_the_library(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return renamed(root, "z", "import std.paper (merge)\n")
