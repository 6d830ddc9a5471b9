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
from lark.parsers.lalr_analysis import IntParseTable, Shift

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


def worked_out() -> str:
    """The tables of the grammar as JSON: the same text in every process."""
    text = _grammar()
    parser = _made(text)
    _number_states(parser.parser.parser._parse_table)
    data, memo = parser.memo_serialize([TerminalDef, Rule])
    kept = {"for": _belongs_to(text), "tables": {"data": data, "memo": memo}}
    return json.dumps(kept, separators=(",", ":"), sort_keys=True) + "\n"


def _number_states(table: IntParseTable) -> None:
    """Number states as they are reached from the first, by tokens in the order of their names.
    Lark numbers them as they lie in a set."""
    numbers = {state: number for number, state in enumerate(table.start_states.values())}
    pending, states = list(numbers), {}
    for state in pending:
        actions = sorted(table.states[state].items())
        for _, (action, target) in actions:
            if action is Shift and target not in numbers:
                numbers[target] = len(numbers)
                pending.append(target)
        states[numbers[state]] = {
            token: (action, numbers[target] if action is Shift else target)
            for token, (action, target) in actions
        }
    table.states = states
    table.start_states = {start: numbers[state] for start, state in table.start_states.items()}
    table.end_states = {start: numbers[state] for start, state in table.end_states.items()}


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
    (resource("grammar") / TABLES).write_text(worked_out(), "utf-8")
