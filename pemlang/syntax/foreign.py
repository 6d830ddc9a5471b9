"""Texts of other languages that are given for a recipe: told as what they are, once."""

from __future__ import annotations

import re

from pemlang.diagnostics import Diagnostic, Fault
from pemlang.source import Source, Span
from pemlang.syntax.files import DECLARE

_MIGRATE = "write what it does as a recipe: docs/migrating.md has it for each method"
_MODULES = "torch|peft|transformers|numpy|safetensors|os|sys"
_SIGNS = {
    "a mergekit configuration": (r"^merge_method\s*:|^(?:models|slices)\s*:\s*$", _MIGRATE),
    "a Python program": (
        rf"^from\s+(?!std\b)[\w.]+\s+import\b|^import\s+(?:{_MODULES})\b|^if\s+__name__\b",
        _MIGRATE,
    ),
    "JSON": (r"\A\s*\{", DECLARE),
    "a web page": (r"\A\s*<(?:!doctype|html)\b", "download the file itself, its raw text"),
}
"""What gives each of them away, and what to do with it."""


def foreign(source: Source) -> Diagnostic | None:
    """What a text is that does not parse, where it shows that it is of another language."""
    for what, (sign, help) in _SIGNS.items():
        match = re.search(sign, source.text, re.MULTILINE | re.IGNORECASE)
        if match is not None:
            place = Span(source, match.start(), match.end())
            return Fault("PEM0115", f"this is {what}, not a recipe", help).at(place)
    return None
