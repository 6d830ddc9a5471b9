"""The grammar of tree-sitter, from the one that recipes are parsed by.

Rules are written anew one by one. What tree-sitter needs otherwise is in `_BY_HAND`: what a file is
made of, names, comments, and strings with their parts.
"""

from __future__ import annotations

import json
import re
from itertools import chain

from lark import Lark, Token, Tree

_BY_HAND = r"""
    // Outside brackets a newline ends a statement.
    source_file: $ => seq(
      repeat("\n"),
      optional(seq($._statement, repeat(seq(repeat1("\n"), $._statement)), repeat("\n"))),
    ),
    identifier: _ => /[\p{L}\p{Nl}\p{No}_][\p{L}\p{N}_\u0300-\u036f]*/,
    string: $ => seq(
      '"',
      repeat(choice($.escape, $.interpolation, token.immediate(prec(1, /[^"\\\n{}]+|[{}]/)))),
      token.immediate('"'),
    ),
    escape: _ => token.immediate(prec(2, /\\[^\n]|\{\{|\}\}/)),
    interpolation: _ => token.immediate(prec(2, /\{[^{}"\n]+\}/)),
    documentation: _ => token(prec(1, /##[^\n]*/)),
    comment: _ => /#[^\n]*/,
"""
_BY_HAND_RULES = {"start", "string"}
_NAMES = {"NAME": "identifier", "STRING": "string", "COMMENT": "comment"}
_OF_HELIX = {
    "boolean": "constant.builtin.boolean",
    "number": "constant.numeric",
    "string.escape": "constant.character.escape",
    "comment": "comment.line",
    "comment.documentation": "comment.line.documentation",
    "function.call": "function",
    "module": "namespace",
}
_WORD = re.compile(r"/(\w+)\(\?!\\w\)/")


def grammar_js(grammar: str) -> str:
    """The grammar of tree-sitter.

    Args:
        grammar: that of Lark, grammar/pem.lark.
    """
    lark = Lark.open_from_package(
        "lark", "lark.lark", ["grammars"], parser="lalr", maybe_placeholders=False
    )
    written = _Writer([x for x in lark.parse(grammar).children if isinstance(x, Tree)])
    return f"""\
// Recipes of pemlang. Written by editors/make.py from grammar/pem.lark.
module.exports = grammar({{
  name: "pem",
  word: $ => $.identifier,
  extras: $ => [/\\s/, $.documentation, $.comment],
  rules: {{{_BY_HAND}{written.rules()}  }},
}});
"""


def highlights(grammar: str, functions: list[str], words: list[str]) -> str:
    """The query that colours: each token by one pattern, so that their order means nothing.

    Args:
        grammar: that of tree-sitter.
        functions: the names of those that are built in.
        words: which words of the language read as operators.
    """
    rules = grammar[grammar.index("_statement:") :]
    tokens = set(re.findall(r'"([^"\\]+)"', rules)) - {"true", "false"}
    keywords = {token for token in tokens if token.isalpha()} - set(words)
    brackets, delimiters = set("()[]{}"), set(",:.")
    kinds = {
        "keyword": keywords,
        "keyword.operator": set(words),
        "punctuation.bracket": brackets,
        "punctuation.delimiter": delimiters,
        "operator": tokens - keywords - set(words) - brackets - delimiters,
    }
    lists = "".join(f"[{_quoted(some)}] @{kind}\n" for kind, some in kinds.items())
    known = _quoted(set(functions))
    return f"""\
; Written by editors/make.py.
{lists}
[(true) (false)] @boolean
(number) @number
(string) @string
(escape) @string.escape
(interpolation) @string.special
(comment) @comment
(documentation) @comment.documentation

(type_name . (identifier) @type.builtin)
(def_stmt . "def" . (identifier) @function)
(def_param . (identifier) @variable.parameter)
(named_arg . (identifier) @variable.parameter)
(declared_option . (identifier) @variable.parameter)
(module_path (identifier) @module)
(import_alias (identifier) @module)
(name (identifier) @module "." (identifier))
(call (name "." (identifier) @function.call))
((call (name . (identifier) @function.call .)) (#not-any-of? @function.call {known}))
((call (name . (identifier) @function.builtin .)) (#any-of? @function.builtin {known}))
"""


def helix(query: str) -> str:
    """A query that colours, by the names that Helix has for the same."""
    for name, of_helix in _OF_HELIX.items():
        query = re.sub(rf"@{re.escape(name)}(?![\w.])", f"@{of_helix}", query)
    return query


def _quoted(words: set[str]) -> str:
    return " ".join(f'"{word}"' for word in sorted(words))


class _Writer:
    """Rules of Lark as those of tree-sitter.

    A rule with a `?`, which leaves no node where it has one part, is two: a hidden choice, and a
    node for what has more.

    Args:
        definitions: the rules and terminals of a grammar.
    """

    def __init__(self, definitions: list[Tree[Token]]) -> None:
        self._terminals: dict[str, str] = {}
        self._hidden: set[str] = set()
        self._written: dict[str, str] = {}
        rules = []
        for definition in definitions:
            name, body = str(definition.children[0]), definition.children[-1]
            assert isinstance(body, Tree)
            if definition.data == "token":
                self._terminals[name] = self._terminal(name, body)
            elif definition.data == "rule" and name.lstrip("?") not in _BY_HAND_RULES:
                rules.append((name.lstrip("?"), body))
                self._hidden |= {name[1:]} if name.startswith("?") else set()
        for name, body in rules:
            if name in self._hidden:
                parts = [self._alternative(name, x) for x in _alternatives(body)]
                self._write(f"_{name}", _choice(list(chain.from_iterable(parts))))
            else:
                self._write(name, self._code(body))

    def rules(self) -> str:
        """All of them, a line each."""
        return "".join(f"    {name}: {text},\n" for name, text in self._written.items())

    def _write(self, name: str, code: str) -> None:
        self._written[name] = f"{'$' if '$' in code else '_'} => {code}"

    def _terminal(self, name: str, body: Tree[Token]) -> str:
        """What stands for a terminal in rules: words and symbols as they are, else a name."""
        if name in _NAMES:
            return f"$.{_NAMES[name]}"
        words = [str(_tree(x).children[0]) for x in _alternatives(body)]
        if words[0].startswith('"'):
            return _choice(words)
        word = _WORD.fullmatch(words[0])
        if word:
            return json.dumps(word[1])
        self._write(name.lower(), words[0].replace(r"(?!\w)", ""))
        return f"$.{name.lower()}"

    def _alternative(self, rule: str, body: Tree[Token]) -> list[str]:
        """What one of the alternatives of a hidden rule may be; its node is written beside it."""
        node = rule
        if body.data == "alias":
            node, body = str(body.children[1]).rstrip("_"), _tree(body.children[0])
        elif body.data != "expansion":
            return [self._code(body)]
        parts = [_tree(x) for x in body.children] if body.data == "expansion" else [body]
        alone = len(parts) == 2 and self._is_hidden(parts[0]) and _may_be_empty(parts[1])
        code = self._code(body)
        if code == f"$.{node}":
            return [code]
        if alone:
            code = f"seq({self._code(parts[0])}, {self._code(parts[1], needed=True)})"
        own = node if node not in self._written else f"{rule}_{node}"
        self._write(own, code)
        there = f"$.{own}" if own == node else f"alias($.{own}, $.{node})"
        return [self._code(parts[0]), there] if alone else [there]

    def _is_hidden(self, part: Tree[Token]) -> bool:
        return part.data == "name" and str(part.children[0]) in self._hidden

    def _code(self, part: Tree[Token], needed: bool = False) -> str:
        """A part of a rule; `needed` says that it is not empty, though it might be."""
        first = part.children[0]
        if part.data == "name":
            name = str(first)
            if name in self._terminals:
                return self._terminals[name]
            return f"$._{name}" if name in self._hidden else f"$.{name}"
        if part.data == "literal":
            return str(first)
        inner = [self._code(_tree(x)) for x in part.children if isinstance(x, Tree)]
        if part.data == "expr":
            kind = "repeat1" if needed or part.children[1] == "+" else "repeat"
            return f"{kind}({inner[0]})"
        if part.data == "maybe":
            return inner[0] if needed else f"optional({inner[0]})"
        return _choice(inner) if part.data == "expansions" else f"seq({', '.join(inner)})"


def _tree(part: Tree[Token] | Token) -> Tree[Token]:
    assert isinstance(part, Tree)
    return part


def _alternatives(body: Tree[Token]) -> list[Tree[Token]]:
    return [_tree(x) for x in body.children] if body.data == "expansions" else [body]


def _may_be_empty(part: Tree[Token]) -> bool:
    return part.data == "maybe" or (part.data == "expr" and part.children[1] == "*")


def _choice(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"choice({', '.join(parts)})"
