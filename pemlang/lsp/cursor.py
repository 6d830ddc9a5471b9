"""What stands before the cursor in a statement that is being written, and so need not parse."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pemlang.dataclass import dataclass
from pemlang.syntax.parser import STATEMENTS
from pemlang.syntax.split import TOKEN

_BEGINS = re.compile(rf"(?:{'|'.join(STATEMENTS)})\b")
_TEST = re.compile(r'\btest\s+"(?:\\.|[^"\\\n])*"\s*$')
_NAME = re.compile(r"[^\W\d][\w\u0300-\u036f]*(?:\s*\.\s*[^\W\d][\w\u0300-\u036f]*)?\s*$")
_WORD = re.compile(r"[^\W\d][\w\u0300-\u036f]*$")
_LET = re.compile(r"\n\s*let\s+([^\W\d][\w\u0300-\u036f]*)")
_PARAM = re.compile(r"[(,]\s*([^\W\d][\w\u0300-\u036f]*)\s*:")
_NAMED = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")


@dataclass(frozen=True)
class WrittenCall:
    """A call that is being written.

    Attributes:
        function: its name, `module.name` of one of a module.
        given: the texts of its arguments up to the cursor, the last one unfinished.
    """

    function: str
    given: tuple[str, ...]

    @property
    def argument(self) -> str | None:
        """The parameter that the last argument names."""
        match = _NAMED.match(self.given[-1])
        return None if match is None else match[1]

    @property
    def named(self) -> list[str]:
        """The parameters that arguments before the last one name."""
        return [match[1] for x in self.given[:-1] if (match := _NAMED.match(x))]

    def not_given(self, params: Sequence[str]) -> list[str]:
        """Those of its parameters that no argument before the last one gives."""
        by_place = params[: len(self.given) - 1 - len(self.named)]
        return [name for name in params if name not in (*self.named, *by_place)]


@dataclass(frozen=True)
class CursorPlace:
    """A place where something is being written.

    Attributes:
        text: all of the text up to it.
        start: where its statement begins.
        brackets: where the brackets around it open, the outermost first.
        test: where the braces open of the test that it is in.
        quote: where the string begins that it is in.
        in_comment: whether it is in a comment.
    """

    text: str
    start: int
    brackets: tuple[int, ...]
    test: int | None
    quote: int | None
    in_comment: bool

    @property
    def statement(self) -> str:
        """Its statement, up to the string or the word that is being written."""
        end = len(self.text) - len(self.word) if self.quote is None else self.quote
        return self.text[self.start : end]

    @property
    def word(self) -> str:
        """The word that is being written."""
        match = _WORD.search(self.text, self.start) if self.quote is None else None
        return "" if match is None else match[0]

    @property
    def string(self) -> str:
        """The string that is being written."""
        return "" if self.quote is None else self.text[self.quote + 1 :]

    @property
    def own_names(self) -> list[str]:
        """The names that the function, or the test, around it has given so far."""
        names = [] if self.test is None else _LET.findall(self.text, self.test, self.start)
        is_def = self.statement.lstrip().startswith("def")
        return names + (_PARAM.findall(self.statement) if is_def else [])

    @property
    def bracket(self) -> str:
        """The bracket around it, `(`; empty where there is none."""
        return self.text[self.brackets[-1]] if self.brackets else ""

    @property
    def before_bracket(self) -> str:
        """The statement up to the bracket around it."""
        return self.text[self.start : self.brackets[-1]] if self.brackets else ""

    @property
    def call(self) -> WrittenCall | None:
        """The call around it."""
        for index in range(len(self.brackets) - 1, -1, -1):
            opening = self.brackets[index]
            name = _NAME.search(self.text[max(0, opening - 200) : opening])
            if self.text[opening] == "(" and name is not None:
                function = "".join(name[0].split())
                return WrittenCall(function, tuple(_arguments(self.text[opening + 1 :])))
        return None


def cursor_at(text: str, offset: int) -> CursorPlace:
    """What stands before a place."""
    text = text[:offset]
    start, at = 0, 0
    brackets: list[int] = []
    test: int | None = None  # where the braces of the test open that it is in
    quote: int | None = None
    in_comment = False
    while token := TOKEN.search(text, at):
        kind, at = token.lastgroup, token.end()
        in_comment = kind in ("comment", "doc") and at == len(text)
        if kind == "newline" and (at_margin := _BEGINS.match(text, at)) is not None:
            start, brackets = at_margin.start(), []  # what was open before is not meant to go on
        elif kind == "newline" and brackets in ([], [test]):
            start = at
        elif kind == "open":
            if not brackets and _TEST.search(text, start, token.start()):
                test = token.start()
            brackets.append(token.start())
        elif kind == "close" and brackets:
            brackets.pop()
        elif kind == "quote":
            end = text.find("\n", at)
            if end < 0:
                quote = token.start()
                break
            start, at = end, end
            brackets = [x for x in brackets if x == test]
    around = tuple(x for x in brackets if x != test)
    test = test if test in brackets else None
    return CursorPlace(text, start, around, test, quote, in_comment)


def _arguments(text: str) -> list[str]:
    """The arguments of a call that is not closed."""
    given, depth, begun = [], 0, 0
    for token in re.finditer(r'"(?:\\.|[^"\\\n])*"?|[(\[{]|[)\]}]|,', text):
        if token[0] in "([{":
            depth += 1
        elif token[0] in ")]}":
            depth -= 1
        elif token[0] == "," and depth == 0:
            given.append(text[begun : token.start()])
            begun = token.end()
    return [*given, text[begun:]]
