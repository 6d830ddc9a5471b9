"""A use of an operator as its author wrote it, and the same text with parts of it replaced."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field

from pemlang.dataclass import dataclass
from pemlang.diagnostics import showable
from pemlang.graph.node import AdapterNode, ModelNode
from pemlang.source import Span

_INDENT = re.compile(r"(?<=\n)[ \t]+")

Edit = tuple[Span, str]
"""A place of the source, and what is to stand there."""


@dataclass(frozen=True, eq=False)
class Use:
    """A use of an operator, as written.

    What help shows is made of it by replacing what is wrong, so that no operand, setting or weight
    is lost.

    Attributes:
        whole: all of it.
        operands: the adapters or models that it combines, and where each is written; none where
            they are the items of a list that has a name.
        symbols: the operators between them, of a chain.
        function: the name, of a call.
        parts: the arguments of a call, each with its name where that is written.
        values: what is written for each parameter, or for each option of a `save`.
    """

    whole: Span
    operands: tuple[tuple[Span, AdapterNode | ModelNode], ...] = ()
    symbols: tuple[Span, ...] = ()
    function: Span | None = None
    parts: tuple[Span, ...] = ()
    values: Mapping[str, Span] = field(default_factory=dict)

    @property
    def adapters(self) -> tuple[AdapterNode, ...]:
        """The operands that are adapters."""
        return tuple(x for _, x in self.operands if isinstance(x, AdapterNode))

    def text(self, index: int) -> str:
        """An operand as written."""
        return self.operands[index][0].text

    def replaced(self, edits: Iterable[Edit]) -> str | None:
        """The whole with some places of it replaced."""
        return replaced(self.whole, edits)

    def with_operands(self, texts: Iterable[str]) -> str | None:
        """The whole with other operands."""
        places = [span for span, _ in self.operands]
        return self.replaced(zip(places, texts, strict=True))

    def having(self, name: str, text: str) -> str | None:
        """The whole with another value for a parameter."""
        if name in self.values:
            return self.replaced([(self.values[name], text)])
        return self.replaced([self.with_argument(f"{name}={text}")]) if self.parts else None

    def with_argument(self, argument: str) -> Edit:
        """The edit that adds an argument to a call."""
        return after(self.parts[-1], f", {argument}")

    def without(self, name: str) -> str | None:
        """The whole without an argument, which is not the first."""
        if name not in self.values:
            return None
        start, index = self.values[name].start, 0
        while self.parts[index].end < start:
            index += 1
        span = Span(self.whole.source, self.parts[index - 1].end, self.parts[index].end)
        return self.replaced([(span, "")])


def before(span: Span, text: str) -> Edit:
    """The edit that puts a text before a place."""
    return Span(span.source, span.start, span.start), text


def after(span: Span, text: str) -> Edit:
    """The edit that puts a text after a place."""
    return Span(span.source, span.end, span.end), text


def replaced(whole: Span, edits: Iterable[Edit]) -> str | None:
    """A part of a source with some places of it replaced; None where that is too long to be shown,
    or has characters that are not."""
    parts, at = [], whole.start
    for span, new in sorted(edits, key=lambda edit: (edit[0].start, edit[0].end)):
        parts += [whole.source.text[at : span.start], new]
        at = span.end
    text = "".join([*parts, whole.source.text[at : whole.end]])
    text = _INDENT.sub(lambda match: match[0].expandtabs(4), text)
    return showable(text)
