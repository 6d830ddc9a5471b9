"""The parser, from tables that were worked out beforehand.

Working out the LALR tables of the grammar takes longer than checking a recipe. They are kept beside
it, in grammar/pem.tables.json, as JSON, with the version of Lark and the digest of the grammar that
they belong to; where either is another, they are worked out anew. `make grammar` writes them.
"""

from __future__ import annotations

import hashlib
import json

import lark
from lark import Lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from pemlang.resources import resource

TABLES = "pem.tables.json"


def load_parser() -> Lark:
    """The parser of single statements."""
    return kept_parser() or _made(_grammar())


def kept_parser() -> Lark | None:
    """The parser from the tables; None where they are lost, or belong to another grammar."""
    try:
        tables = json.loads((resource("grammar") / TABLES).read_text(encoding="utf-8"))
        if tables["for"] == _belongs_to(_grammar()):
            return Lark.load(_numbered(tables["tables"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def write_tables() -> None:
    """Work out the tables, and keep them beside the grammar."""
    text = _grammar()
    data, memo = _made(text).memo_serialize([TerminalDef, Rule])
    kept = {"for": _belongs_to(text), "tables": {"data": data, "memo": memo}}
    path = resource("grammar") / TABLES
    path.write_text(json.dumps(kept, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")


def _grammar() -> str:
    return (resource("grammar") / "pem.lark").read_text(encoding="utf-8")


def _belongs_to(text: str) -> list[str]:
    return [lark.__version__, hashlib.sha256(text.encode()).hexdigest()]


def _made(text: str) -> Lark:
    return Lark(
        text,
        parser="lalr",
        lexer="contextual",
        propagate_positions=True,
        maybe_placeholders=True,
    )


def _numbered(value: object) -> object:
    """JSON with the whole numbers that keys were before they were written."""
    if isinstance(value, dict):
        return {int(k) if k.isdigit() else k: _numbered(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbered(item) for item in value]
    return value


if __name__ == "__main__":
    write_tables()
