"""YAML with the place of each value. It may come from anywhere: no tag makes anything, and its
size and depth are bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.source import Source, Span

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 40
MAX_VALUES = 20_000
_NUMBER = re.compile(r"[-+]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][-+]?\d{1,2})?")
_TAG = "tag:yaml.org,2002:"

MarkedScalar: TypeAlias = "str | Fraction | bool | None"


@dataclass(frozen=True, eq=False)
class Marked:
    """A value of a document.

    Attributes:
        data: text, a number, true or false, nothing, a list, or a mapping.
        span: where it is.
    """

    data: MarkedScalar | tuple[Marked, ...] | Mapping[str, MarkedEntry]
    span: Span

    def wrong(self, code: str, message: str, help: str) -> Fault:
        """What is wrong with it, at its place."""
        return Fault(code, message, help, place=self.span)

    def number(self, what: str) -> Fraction:
        """It as a number, which true and a text of digits are to mergekit too; raises Fault
        PEM0832."""
        if isinstance(self.data, bool | Fraction):
            return Fraction(self.data)
        if isinstance(self.data, str) and _NUMBER.fullmatch(self.data):  # 1e-5 is none to YAML
            return Fraction(self.data)
        raise self.wrong("PEM0832", f"{what} is a number", f"write one, as in {what}: 0.5")

    def text(self, what: str, example: str) -> str:
        """It as a text; raises Fault PEM0832."""
        if isinstance(self.data, str) and self.data.strip():
            return self.data.strip()
        raise self.wrong("PEM0832", f"{what} is a text", f"write one, as in {what}: {example}")

    def items(self, what: str) -> tuple[Marked, ...]:
        """It as a list; raises Fault PEM0832."""
        if isinstance(self.data, tuple) and self.data:
            return self.data
        help = f"write a list below it, each item after a dash: {what}: [ … ]"
        raise self.wrong("PEM0832", f"{what} is a list with something in it", help)

    def entries(self, what: str) -> Mapping[str, MarkedEntry]:
        """It as a mapping; raises Fault PEM0832."""
        if isinstance(self.data, Mapping):
            return self.data
        help = "write one on each line, as in weight: 0.5"
        raise self.wrong("PEM0832", f"{what} is a mapping of names to values", help)


@dataclass(frozen=True, eq=False)
class MarkedEntry:
    """An entry of a mapping: the place of its key, and its value."""

    key: Span
    value: Marked


def read_yaml(source: Source) -> Marked:
    """The one document of a file.

    Raises:
        Fault: PEM0831 it is not YAML that can be read, PEM0830 PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        message = "a configuration of mergekit is YAML, which needs the package PyYAML"
        raise Fault("PEM0830", message, 'pip install "pemlang[convert]"') from None
    try:
        _hold_size(source)
        node = yaml.compose(source.text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        at = min(mark.index if mark else 0, len(source.text) - 1)
        where = Span(source, at, at + 1)
        help = "correct it: indentation is by spaces, and a colon has a space after it"
        message = f"this is not YAML: {visible(why)}"
        raise Fault("PEM0831", message, help, place=where) from None
    return _Nodes(source).value(node)


def _hold_size(source: Source) -> None:
    """Raise Fault PEM0831 for a document that is nested too deeply or has too much in it."""
    import yaml

    depth = 0
    for count, event in enumerate(yaml.parse(source.text, yaml.SafeLoader)):
        opens = isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
        depth += opens - isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
        if depth > MAX_DEPTH or count > MAX_VALUES:
            where = Span(source, event.start_mark.index, event.start_mark.index + 1)
            message = "it is nested too deeply, or holds too much"
            raise _unread(message, where, "a configuration of mergekit is far smaller")


def _unread(message: str, where: Span, help: str) -> Fault:
    return Fault("PEM0831", message, help, place=where)


class _Nodes:
    """Makes values of what PyYAML's composer gives, which makes nothing itself."""

    def __init__(self, source: Source) -> None:
        import yaml

        self._source, self._yaml = source, yaml
        self._scalars = yaml.SafeLoader("")
        self._left = MAX_VALUES  # what aliases stand for is counted each time
        self._around: set[yaml.Node] = set()

    def value(self, node: yaml.Node) -> Marked:
        self._left -= 1
        span = self._span(node)
        if self._left < 0:
            message = "its aliases stand for too much"
            raise _unread(message, span, "write out what they stand for")
        if node in self._around:
            message = "an alias stands for what it is in itself"
            raise _unread(message, span, "write out what it stands for")
        if not isinstance(node, self._yaml.MappingNode | self._yaml.SequenceNode):
            return Marked(self._scalar(node, span), span)
        self._around.add(node)
        mapping = isinstance(node, self._yaml.MappingNode)
        data = self._mapping(node) if mapping else tuple(self.value(item) for item in node.value)
        self._around.remove(node)
        return Marked(data, span)

    def _mapping(self, node: yaml.Node) -> dict[str, MarkedEntry]:
        entries: dict[str, MarkedEntry] = {}
        for key, value in node.value:
            span = self._span(key)
            if not isinstance(key, self._yaml.ScalarNode) or key.tag == _TAG + "merge":
                raise _unread("this key is no plain name", span, "write the keys out")
            if key.value in entries:
                message = f"`{visible(key.value, 40)}` stands here twice"
                raise _unread(message, span, "leave one of the two out")
            entries[key.value] = MarkedEntry(span, self.value(value))
        return entries

    def _scalar(self, node: yaml.Node, span: Span) -> MarkedScalar:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "null":
            return None
        if kind in ("str", "timestamp"):
            return text
        if kind not in ("int", "float", "bool"):
            message = f"the tag {visible(node.tag, 60)} is not read"
            raise _unread(message, span, "leave the tag out")
        if kind == "float" and _NUMBER.fullmatch(text):
            return Fraction(text)
        try:
            made = self._scalars.construct_object(node)
            return made if kind == "bool" else Fraction(made)
        except (ValueError, OverflowError):  # .inf, or thousands of digits
            message = f"{visible(text, 40)} is no number that can be used"
            raise _unread(message, span, "write a plain number, as in 0.5") from None

    def _span(self, node: yaml.Node) -> Span:
        """Where a node is: of what goes over several lines, its first."""
        start, end = node.start_mark.index, node.end_mark.index
        line = self._source.text[start:end].split("\n")[0].rstrip()
        return Span(self._source, start, start + max(1, len(line)))
