"""What the grammar's rules become: a method here for every rule of the grammar."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeAlias

from lark import Token, v_args
from lark.tree import Meta
from lark.visitors import Transformer_NonRecursive

from pemlang.diagnostics import Fault, visible
from pemlang.source import Source, Span
from pemlang.syntax import tree as t

Items: TypeAlias = "list[Any]"
"""What the parser hands over for a rule: tokens, trees, and None for what is left out."""

# What is typed in ASCII and what it stands for.
ASCII = {".+": "⊕", ".-": "⊖", ".*": "⊗"}
_HOLE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}
MAX_DIGITS = 40
MAX_EXPONENT = 260  # the largest number, 40 digits at this exponent, is still a float64


@v_args(meta=True)
class TreeBuilder(Transformer_NonRecursive[Token, t.Statement]):
    """Builds the tree of one statement of a source, without recursion."""

    def __init__(self, source: Source, doc: str) -> None:
        super().__init__()
        self._source, self._doc = source, doc

    # --- helpers ---------------------------------------------------------------------------

    def _span(self, meta: Meta) -> Span:
        return Span(self._source, int(meta.start_pos), int(meta.end_pos))

    def _at(self, token: Token) -> Span:
        return Span(self._source, int(token.start_pos or 0), int(token.end_pos or 0))

    def _name(self, token: Token) -> t.Name:
        return t.Name(self._at(token), unicodedata.normalize("NFC", str(token)))

    def _operator(self, token: Token) -> t.Symbol:
        return t.Symbol(self._at(token), ASCII.get(str(token), str(token)))

    # --- statements ------------------------------------------------------------------------

    def language_stmt(self, meta: Meta, items: Items) -> t.Tree:
        number = t.Number(self._at(items[0]), number_value(str(items[0])))
        return t.Language(self._span(meta), self._doc, number)

    def module_path(self, meta: Meta, items: Items) -> object:
        return tuple(str(item) for item in items)

    def import_names(self, meta: Meta, items: Items) -> object:
        return [self._name(item) for item in items if item is not None]

    def import_alias(self, meta: Meta, items: Items) -> object:
        return self._name(items[0])

    def import_stmt(self, meta: Meta, items: Items) -> t.Tree:
        export, module, what = items
        names, alias = (tuple(what), None) if isinstance(what, list) else ((), what)
        hands_on = export is not None
        return t.Import(self._span(meta), self._doc, module, names, alias, hands_on)

    def base_stmt(self, meta: Meta, items: Items) -> t.Tree:
        return t.Base(self._span(meta), self._doc, self._name(items[0]), items[1])

    def model_stmt(self, meta: Meta, items: Items) -> t.Tree:
        name, base, path, options = items
        on = self._name(base) if base is not None else None
        return t.ModelStatement(
            self._span(meta), self._doc, self._name(name), on, path, options or ()
        )

    def adapter_stmt(self, meta: Meta, items: Items) -> t.Tree:
        name, type_, base, path, options = items
        on = self._name(base) if base is not None else None
        return t.AdapterStatement(
            self._span(meta), self._doc, self._name(name), type_, on, path, options or ()
        )

    def declared_options(self, meta: Meta, items: Items) -> object:
        return tuple(items)

    def declared_option(self, meta: Meta, items: Items) -> t.Tree:
        return self.named_arg(meta, items)

    def renames(self, meta: Meta, items: Items) -> t.Tree:
        return t.Renames(self._span(meta), tuple(item for item in items if item is not None))

    def rename(self, meta: Meta, items: Items) -> t.Tree:
        return t.Rename(self._span(meta), *items)

    def param_stmt(self, meta: Meta, items: Items) -> t.Tree:
        name, type_, low, high, default = items
        return t.Param(self._span(meta), self._doc, self._name(name), type_, low, high, default)

    def let_stmt(self, meta: Meta, items: Items) -> t.Tree:
        return t.Let(self._span(meta), self._doc, self._name(items[0]), *items[1:])

    def def_param(self, meta: Meta, items: Items) -> t.Tree:
        return t.DefParam(self._span(meta), self._name(items[0]), *items[1:])

    def def_params(self, meta: Meta, items: Items) -> object:
        return tuple(item for item in items if item is not None)

    def def_stmt(self, meta: Meta, items: Items) -> t.Tree:
        name, params, returns, body = items
        return t.Def(self._span(meta), self._doc, self._name(name), params or (), returns, body)

    def assert_stmt(self, meta: Meta, items: Items) -> t.Tree:
        return t.Assert(self._span(meta), self._doc, *items)

    def print_stmt(self, meta: Meta, items: Items) -> t.Tree:
        return t.Print(self._span(meta), self._doc, items[0])

    def test_stmt(self, meta: Meta, items: Items) -> t.Tree:
        title, *statements = items
        inner = tuple(replace(statement, doc="") for statement in statements)
        return t.Test(self._span(meta), self._doc, title, inner)

    def save_stmt(self, meta: Meta, items: Items) -> t.Tree:
        value, path, options = items
        return t.Save(self._span(meta), self._doc, value, path, options or ())

    def options(self, meta: Meta, items: Items) -> object:
        return tuple(items)

    # --- types -----------------------------------------------------------------------------

    def type_name(self, meta: Meta, items: Items) -> t.Tree:
        name, *refinements = items
        return t.TypeName(
            self._span(meta), str(name), tuple(r for r in refinements if r is not None)
        )

    def type_list(self, meta: Meta, items: Items) -> t.Tree:
        return t.TypeList(self._span(meta), items[0])

    # --- expressions -----------------------------------------------------------------------

    def or_(self, meta: Meta, items: Items) -> t.Tree:
        return t.Logic(self._span(meta), "or", tuple(items)) if len(items) > 1 else items[0]

    def and_(self, meta: Meta, items: Items) -> t.Tree:
        return t.Logic(self._span(meta), "and", tuple(items)) if len(items) > 1 else items[0]

    def not_(self, meta: Meta, items: Items) -> t.Tree:
        return t.Logic(self._span(meta), "not", (items[0],))

    def comparison(self, meta: Meta, items: Items) -> t.Tree:
        left, symbol, right = items
        if symbol is None:
            return left  # type: ignore[no-any-return]
        return t.Compare(self._span(meta), left, self._operator(symbol), right)

    def chain(self, meta: Meta, items: Items) -> t.Tree:
        if len(items) == 1:
            return items[0]  # type: ignore[no-any-return]
        operators = tuple(self._operator(token) for token in items[1::2])
        return t.Chain(self._span(meta), tuple(items[::2]), operators)

    def unary(self, meta: Meta, items: Items) -> t.Tree:
        return t.Unary(self._span(meta), self._operator(items[0]), items[1])

    def call(self, meta: Meta, items: Items) -> t.Tree:
        return t.Call(self._span(meta), items[0], items[1] or ())

    def arguments(self, meta: Meta, items: Items) -> object:
        return tuple(item for item in items if item is not None)

    def named_arg(self, meta: Meta, items: Items) -> t.Tree:
        return t.NamedArg(self._span(meta), str(items[0]), items[1])

    def select(self, meta: Meta, items: Items) -> t.Tree:
        operand, selector = items
        if isinstance(selector, t.Number | t.Name):
            return t.Index(self._span(meta), operand, selector)
        return t.Selection(self._span(meta), operand, selector)

    def globs(self, meta: Meta, items: Items) -> t.Tree:
        return t.Globs(self._span(meta), tuple(items))

    def layers(self, meta: Meta, items: Items) -> t.Tree:
        first, last = items
        return t.Layers(self._span(meta), first, first if last is None else last)

    def like(self, meta: Meta, items: Items) -> t.Tree:
        return t.Like(self._span(meta), items[0])

    def number(self, meta: Meta, items: Items) -> t.Tree:
        return t.Number(self._span(meta), number_value(str(items[0])))

    def true(self, meta: Meta, items: Items) -> t.Tree:
        return t.Bool(self._span(meta), True)

    def false(self, meta: Meta, items: Items) -> t.Tree:
        return t.Bool(self._span(meta), False)

    def name(self, meta: Meta, items: Items) -> t.Tree:
        first, second = items
        if second is None:
            return self._name(first)
        module, name = self._name(first).name, self._name(second).name
        return t.Name(self._span(meta), name, module)

    def group(self, meta: Meta, items: Items) -> t.Tree:
        inner: t.Tree = items[0]
        return replace(inner, span=self._span(meta))  # the brackets belong to what they hold

    def list_(self, meta: Meta, items: Items) -> t.Tree:
        return t.ListOf(self._span(meta), tuple(item for item in items if item is not None))

    def if_(self, meta: Meta, items: Items) -> t.Tree:
        return t.If(self._span(meta), *items)

    def for_(self, meta: Meta, items: Items) -> t.Tree:
        body, *names, source = items
        return t.ForEach(self._span(meta), body, tuple(map(self._name, names)), source)

    def per_item(self, meta: Meta, items: Items) -> t.Tree:
        pattern = items[0] if isinstance(items[0], t.String) else None
        return t.PerItem(self._span(meta), pattern, items[1])

    def per(self, meta: Meta, items: Items) -> t.Tree:
        return t.Per(self._span(meta), tuple(item for item in items if item is not None))

    def string(self, meta: Meta, items: Items) -> t.Tree:
        span = self._at(items[0])
        parts: list[str | t.Name] = []
        text, at = str(items[0])[1:-1], 0
        for hole in _HOLE.finditer(text):
            parts.append(_unescape(text[at : hole.start()]))
            at = hole.end()
            if hole.group() in ("{{", "}}"):
                parts.append(hole.group()[0])
            elif hole.group(1) is None or not hole.group(1).strip().isidentifier():
                raise Fault(
                    "PEM0111",
                    f"`{visible(hole.group(), 40)}` is not a name in braces",
                    'interpolate a param as "{weight}"; write {{ and }} for plain braces',
                )
            else:
                start = span.start + 1 + hole.start(1)
                inner = Span(self._source, start, start + len(hole.group(1)))
                parts.append(t.Name(inner, unicodedata.normalize("NFC", hole.group(1).strip())))
        parts.append(_unescape(text[at:]))
        return t.String(span, tuple(part for part in parts if part != ""))


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        char = match.group(1)
        if char not in _ESCAPES:
            raise Fault(
                "PEM0111",
                f"`\\{visible(char)}` is not an escape",
                'write \\\\ for a backslash, \\" for a quote, \\n for a newline, \\t for a tab',
            )
        return _ESCAPES[char]

    return re.sub(r"\\(.)", one, text)


def number_value(text: str) -> Fraction:
    """The exact value of a number as written: 0.6 is 3/5.

    Raises:
        Fault: PEM0110 when it has more digits or a larger exponent than any weight needs.
    """
    mantissa, _, exponent = text.lower().partition("e")
    digits = sum(char.isdigit() for char in mantissa)
    if digits > MAX_DIGITS or (len(exponent) > 5 or abs(int(exponent or 0)) > MAX_EXPONENT):
        raise Fault(
            "PEM0110",
            f"the number {visible(text, 30)} is out of bounds",
            f"write at most {MAX_DIGITS} digits and an exponent of at most {MAX_EXPONENT}",
        )
    return Fraction(text.replace("_", ""))
