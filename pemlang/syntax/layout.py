"""Statements as boxes: brackets, operators, and the comments between them.

A box is built from the tree, in the order of the text. The comments that stand before a piece are
taken where the piece has a line of its own; the tree forgets brackets that it does not need, and
what is written has none but those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pemlang.source import Source
from pemlang.syntax import boxes
from pemlang.syntax import tree as t
from pemlang.syntax.binding import (
    IF,
    NOT,
    POSTFIX,
    SUM,
    UNARY,
    binds,
    ends_lines,
    hugs,
    is_short,
    joins,
    opens,
    operands,
    words,
)
from pemlang.syntax.boxes import Box, Group, Hug, IfBroken, Line, Nest, Newline
from pemlang.syntax.builder import ASCII
from pemlang.syntax.notes import NoPlace, Places, around, line_after, written_out
from pemlang.syntax.split import Chunk

# What ⊕ ⊖ ⊗ are typed as.
TYPED = {symbol: typed for typed, symbol in ASCII.items()}

# A number, a string, true, false or a name, as it is spelt.
_LEAF = re.compile(
    r'"(?:\\.|[^"\\\n])*"|[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?'
    r"|[^\W\d][\w\u0300-\u036f]*(?:\s*\.\s*[^\W\d][\w\u0300-\u036f]*)?"
)


def statement(source: Source, chunk: Chunk, tree: t.Statement, ascii: bool = False) -> str:
    """The text of a statement, laid out; ⊕ ⊖ ⊗ as they are typed in ASCII where that is asked for.

    One with a comment where no line can end is as it was.
    """
    layout = _TreeLayout(source, chunk, TYPED if ascii else {})
    try:
        box = _STATEMENTS[type(tree)](layout, tree)
        layout.pass_to(chunk.end)
    except NoPlace:
        lines = source.text[chunk.start : chunk.end].split("\n")
        return "\n".join(line.rstrip() for line in lines)
    return "\n".join(line.rstrip() for line in boxes.written(box).split("\n"))


class _Joined(NamedTuple):
    """Operands with operators between them: the first, and a line's end and an operand in turn."""

    first: Box
    rest: tuple[Box, ...]
    hug: tuple[Box, Box] | None  # all but the last operand, and that, if it can break by itself


class _TreeLayout(Places):
    """Boxes of one statement."""

    def __init__(self, source: Source, chunk: Chunk, typed: Mapping[str, str]) -> None:
        super().__init__(source, chunk)
        self._typed_as = typed

    def lead(self, tree: t.Tree, need: int = IF) -> int:
        """Where a tree begins, without the brackets that it does not need."""
        while binds(tree) >= need:
            if joins(tree):
                tree, need = operands(tree)[0], binds(tree) + 1
            elif isinstance(tree, t.Selection | t.Index):
                tree, need = tree.operand, POSTFIX
            else:
                return self.first_token(tree.span.start)
        return tree.span.start

    # --- expressions -----------------------------------------------------------------------

    def expression(self, tree: t.Tree, need: int = IF) -> Box:
        """A tree inside brackets, where any line may end, as part of what binds like `need`."""
        if binds(tree) < need:
            _, closing = self.brackets_after(tree.span.start)
            before = self.notes(self.lead(tree))
            inner, _ = self._outermost(tree)
            return around("(", ")", before, inner, self.notes(closing))
        if not joins(tree):
            return _EXPRESSIONS[type(tree)](self, tree)
        joined = self._joined(tree)
        group = Group((joined.first, Nest(joined.rest)))
        return Hug(*joined.hug, group) if joined.hug else group

    def value(self, tree: t.Tree, need: int = IF) -> Box:
        """A tree outside all brackets: it gets some if it does not fit on the line."""
        if binds(tree) < need:
            return self.expression(tree, need)
        before = self.notes(self.lead(tree, need))
        inner, hug = self._outermost(tree)
        after = self.notes(tree.span.end)
        if not (before or after or ends_lines(tree)):
            return inner
        group = around(IfBroken("("), IfBroken(")"), before, inner, after)
        return Hug(*hug, group) if hug and not before and not after else group

    def _outermost(self, tree: t.Tree) -> tuple[Box, tuple[Box, Box] | None]:
        """A tree alone between brackets, and how it may do without them."""
        if not joins(tree):
            return self.expression(tree), None
        joined = self._joined(tree)
        return Group((joined.first, *joined.rest)), joined.hug

    def _joined(self, tree: t.Tree) -> _Joined:
        need, (first, *others) = binds(tree) + 1, operands(tree)
        start, rest = self.expression(first, need), []
        free = True
        for word, operand in zip(words(tree), others, strict=True):
            before = self.notes(self.lead(operand, need))
            free = free and not before
            operator = self._typed_as.get(word, word) + " "
            rest += [line_after(before, " "), operator, self.expression(operand, need)]
        hug = self._hug(tree, (start, *rest[:-1]), rest[-1]) if free else None
        return _Joined(start, tuple(rest), hug)

    def _hug(self, tree: t.Tree, head: Box, last: Box) -> tuple[Box, Box] | None:
        """The operands of a tree, if the last can be broken and the others be left on a line."""
        if not hugs(tree) or boxes.has_newline(head):
            return None
        if isinstance(last, Hug):
            return (head, last.head), last.last
        operand = operands(tree)[-1]
        if joins(operand) and binds(operand) > binds(tree):
            return None  # comments keep its own operands from being left on a line
        return head, last

    def leaf(self, tree: t.Tree) -> str:
        match = _LEAF.match(self._text, self.lead(tree))
        if match is None:  # a comment inside a name
            raise NoPlace
        self.pass_to(match.end())
        if isinstance(tree, t.Name):
            return f"{tree.module}.{tree.name}" if tree.module else tree.name
        return match.group()

    def brackets(
        self,
        after: int,
        items: Sequence[t.Tree],
        build: Callable[[Any], Box],
        comma: bool = True,
        space: str = "",
    ) -> Box:
        """The next pair of brackets, with an item a line where that is too long for one.

        Args:
            after: where to look for the bracket that opens.
            items: what is between them.
            build: makes the box of an item.
            comma: whether a comma may follow the last item.
            space: what stands inside the brackets, on one line.
        """
        opening, closing = self.brackets_after(after)
        inner: list[Box] = []
        for item in items:
            before = self.notes(self.lead(item))
            inner += [line_after(before, " " if inner else space), build(item), ","]
        if items:
            inner[-1] = IfBroken(",") if comma else ""
        last = self.notes(closing)
        if not inner and not last:
            return self._text[opening] + self._text[closing]
        end = Newline() if last else Line(space)
        body = Nest((*inner, *written_out(last)))
        return Group((self._text[opening], body, end, self._text[closing]))

    def named(self, tree: t.NamedArg) -> Box:
        return (f"{tree.name}=", self.expression(tree.value))

    def unary(self, tree: t.Unary) -> Box:
        symbol = tree.operator.symbol
        return (self._typed_as.get(symbol, symbol), self.expression(tree.operand, UNARY))

    def negation(self, tree: t.Logic) -> Box:
        return ("not ", self.expression(tree.operands[0], NOT))

    def call(self, tree: t.Call) -> Box:
        name = self.leaf(tree.function)
        return (name, self.brackets(tree.function.span.end, tree.args, self.expression))

    def list_(self, tree: t.ListOf) -> Box:
        return self.brackets(self.lead(tree), tree.items, self.expression)

    def if_(self, tree: t.If) -> Box:
        box: tuple[Box, ...] = ("if ", self.expression(tree.condition))
        for word, branch in (("then ", tree.then), ("else ", tree.otherwise)):
            before = self.notes(self.lead(branch))
            box += (line_after(before, " "), word, self.expression(branch))
        return Group(box)

    def for_each(self, tree: t.ForEach) -> Box:
        _, closing = self.brackets_after(self.lead(tree))
        before = self.notes(self.lead(tree.body))
        body = self.expression(tree.body)
        between = self.notes(tree.names[0].span.start)
        names = ", ".join(map(self.leaf, tree.names))
        within = (f"for {names} in ", self.expression(tree.source))
        inner = (body, line_after(between, " "), *within)
        return around("[", "]", before, inner, self.notes(closing))

    def item(self, tree: t.Index) -> Box:
        operand, at = self.expression(tree.operand, POSTFIX), tree.operand.span.end
        return (operand, boxes.Flat(self.brackets(at, [tree.number], self.leaf, comma=False)))

    def per(self, tree: t.Per) -> Box:
        return ("per ", self.brackets(self.lead(tree), tree.items, self.per_item, space=" "))

    def renames(self, tree: t.Renames) -> Box:
        return self.brackets(self.lead(tree), tree.rows, self.rename, space=" ")

    def rename(self, tree: t.Rename) -> Box:
        return (self.leaf(tree.old), ": ", self.leaf(tree.new))

    def per_item(self, tree: t.PerItem) -> Box:
        pattern = self.leaf(tree.pattern) if tree.pattern else "else"
        return (pattern, ": ", self.expression(tree.value))

    def select(self, tree: t.Selection) -> Box:
        operand, at = self.expression(tree.operand, POSTFIX), tree.operand.span.end
        selector = tree.selector
        if isinstance(selector, t.Globs):
            return (operand, self.brackets(at, selector.patterns, self.leaf, comma=False))
        box = self.brackets(at, [selector], self.selector, comma=False)
        whole = opens(tree.operand) and is_short(selector) and not boxes.has_newline(box)
        return (operand, boxes.Flat(box) if whole else box)

    def selector(self, tree: t.Layers | t.Like) -> Box:
        if isinstance(tree, t.Like):
            return ("like ", self.expression(tree.other))
        first = self.expression(tree.first, SUM)
        to = () if tree.last is tree.first else ("..", self.expression(tree.last, SUM))
        return ("layers ", first, *to)

    # --- types -----------------------------------------------------------------------------

    def type(self, tree: Any) -> Box:
        if isinstance(tree, t.TypeList):
            return self.brackets(tree.span.start, [tree.item], self.type, comma=False)
        if not tree.refinements:
            return str(tree.name)
        return (
            tree.name,
            self.brackets(tree.span.start, tree.refinements, self.named, comma=False),
        )

    def _typed(self, type_: t.Tree | None) -> Box:
        return (": ", self.type(type_)) if type_ else ""

    def _ranged(self, tree: t.Param | t.DefParam) -> tuple[Box, ...]:
        if tree.low is None or tree.high is None:
            return (self._typed(tree.type),)
        ends = (self.value(tree.low, SUM), "..", self.value(tree.high, SUM))
        return (self._typed(tree.type), " in ", *ends)

    # --- statements ------------------------------------------------------------------------

    def language(self, tree: t.Language) -> Box:
        return ("language ", self.leaf(tree.version))

    def import_(self, tree: t.Import) -> Box:
        module = tree.module
        word = "export import " if tree.hands_on else "import "
        start = (word, self.leaf(module) if isinstance(module, t.String) else ".".join(module))
        if tree.alias:
            return (*start, " as ", self.leaf(tree.alias))
        return (*start, " ", self.brackets(tree.span.start, tree.names, self.leaf))

    def base(self, tree: t.Base) -> Box:
        return ("base ", self.leaf(tree.name), " = ", self.value(tree.identity))

    def module(self, tree: t.ModelStatement | t.AdapterStatement) -> Box:
        word, type_ = (
            ("adapter ", tree.type) if isinstance(tree, t.AdapterStatement) else ("model ", None)
        )
        start = (word, self.leaf(tree.name), self._typed(type_))
        on = (" on ", self.leaf(tree.base)) if tree.base else ()
        return (*start, *on, _tail(f" = {self.leaf(tree.path)}"), *self._with(tree.options))

    def param(self, tree: t.Param) -> Box:
        start = ("param ", self.leaf(tree.name), *self._ranged(tree))
        return (*start, " = ", self.value(tree.default)) if tree.default else start

    def let(self, tree: t.Let) -> Box:
        start = ("let ", self.leaf(tree.name), self._typed(tree.type))
        return (*start, " = ", self.value(tree.value))

    def def_(self, tree: t.Def) -> Box:
        name = self.leaf(tree.name)
        params = self.brackets(tree.name.span.end, tree.params, self.def_param)
        returns = (" -> ", self.type(tree.returns)) if tree.returns else ()
        return ("def ", name, params, *returns, " = ", self.value(tree.body))

    def def_param(self, tree: t.DefParam) -> Box:
        start = (self.leaf(tree.name), *self._ranged(tree))
        return (*start, " = ", self.expression(tree.default)) if tree.default else start

    def assert_(self, tree: t.Assert) -> Box:
        start = ("assert ", self.value(tree.condition))
        return (*start, _tail(f" else {self.leaf(tree.message)}")) if tree.message else start

    def print_(self, tree: t.Print) -> Box:
        return ("print ", self.value(tree.value))

    def test(self, tree: t.Test) -> Box:
        start = ("test ", self.leaf(tree.title), " ")
        opening, closing = self.brackets_after(tree.title.span.end)
        inner: list[Box] = []
        at = opening
        for statement in tree.statements:
            for note in self.notes(statement.span.start):
                gap = Newline() if note.alone else "  "
                inner += [self._blank(at, note.at) if note.alone else (), gap, note.text]
                at = note.at
            inner += [self._blank(at, statement.span.start), Newline()]
            inner.append(_STATEMENTS[type(statement)](self, statement))
            at = statement.span.end
        for note in self.notes(closing):
            inner += [Newline() if note.alone else "  ", note.text]
        return (*start, "{", Nest(tuple(inner)), Newline() if inner else "", "}")

    def _blank(self, start: int, end: int) -> Box:
        """The blank line that stands between two lines of a test, if one does."""
        return Newline() if self._text.count("\n", start, end) > 1 else ()

    def save(self, tree: t.Save) -> Box:
        box = ("save ", self.value(tree.value), _tail(f" to {self.leaf(tree.path)}"))
        return (*box, *self._with(tree.options))

    def _with(self, options: Sequence[t.NamedArg]) -> list[Box]:
        """What stands after a path."""
        box: list[Box] = []
        for option in options:
            box += [f"{', ' if box else ' with '}{option.name}=", self.value(option.value)]
        return box


def _tail(text: str) -> Box:
    return text if len(text) < boxes.WIDTH else boxes.Overhang(text)


# --- which method lays out what ---------------------------------------------------------------

_EXPRESSIONS: dict[type[t.Tree], Callable[[_TreeLayout, Any], Box]] = {
    t.Number: _TreeLayout.leaf,
    t.String: _TreeLayout.leaf,
    t.Bool: _TreeLayout.leaf,
    t.Name: _TreeLayout.leaf,
    t.NamedArg: _TreeLayout.named,
    t.Unary: _TreeLayout.unary,
    t.Logic: _TreeLayout.negation,
    t.Call: _TreeLayout.call,
    t.ListOf: _TreeLayout.list_,
    t.If: _TreeLayout.if_,
    t.ForEach: _TreeLayout.for_each,
    t.Index: _TreeLayout.item,
    t.Per: _TreeLayout.per,
    t.Renames: _TreeLayout.renames,
    t.Selection: _TreeLayout.select,
}

_STATEMENTS: dict[type[t.Statement], Callable[[_TreeLayout, Any], Box]] = {
    t.Language: _TreeLayout.language,
    t.Import: _TreeLayout.import_,
    t.Base: _TreeLayout.base,
    t.ModelStatement: _TreeLayout.module,
    t.AdapterStatement: _TreeLayout.module,
    t.Param: _TreeLayout.param,
    t.Let: _TreeLayout.let,
    t.Def: _TreeLayout.def_,
    t.Assert: _TreeLayout.assert_,
    t.Print: _TreeLayout.print_,
    t.Test: _TreeLayout.test,
    t.Save: _TreeLayout.save,
}
