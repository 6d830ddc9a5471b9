"""A statement that does not parse, as it was meant: with the one sign that is missing, too many, or
that another language has. What help shows is a statement that parses, with every name, number and
string that the author wrote."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from pemlang.dataclass import dataclass
from pemlang.diagnostics import nearest

LONGEST = 1000
"""Characters of a statement that is tried."""

_NEAR = 8
"""Signs on either side at which a part of a statement may begin or end."""

_OPERATOR = re.compile(r"(?:\.[-+*]|[-+*/⊕⊖⊗])\s*\Z")
_OPERATOR_AND_WORD = re.compile(r"(?:\.[-+*]|[-+*/⊕⊖⊗])\s*(to|with|on|else)\Z")
_QUOTED = re.compile(r"'([^'\"\\\n]*)'")
_PRODUCT = re.compile(r"(?<![\w.])([0-9][0-9_]*(?:\.[0-9]+)?)([^\W\d]\w*)")
_PATH = re.compile(r"[\w.~/][^\s\"',]*")
_NAMED = re.compile(r",\s*[^\W\d]\w*\Z")
_PATTERN = re.compile(r"[\w.]*[*?][\w.*?]*")
_INDEX = re.compile(r"\[\s*(\w+)\Z")
_BOUND = r"(-?[\w.]+?)"
_BOUNDS = re.compile(
    rf"\bin\s*[\[(]?\s*{_BOUND}\s*(?:,|:|\.\.|\bto\b|-)\s*{_BOUND}(?:\s*[\])])?(?=\s*(?:=|\Z))"
)
_UNTYPED = re.compile(r"param\s+(?!(?:number|string|bool)\b)\w+(?=\s+in\b)")
_IMPORTED = re.compile(r"import\s+(?:\"(?:.*/)?)?(?:\w+\.)*?([^\W\d]\w*)(?:\.pem\")?\Z")
_FROM = re.compile(r"from\s+(\S+)\s+import\s+\(?([\w,\s]*\w)\)?\Z")
_LITERALS = (("number", r"-?\d"), ("string", '"'), ("bool", r"(?:true|false)\b"))
_STAR = re.compile(r"(?:from|import) ((?:\w+\.)*([^\W\d]\w*)) ?(?:import\b)? ?\(? ?\* ?\)?")
_WHOLE_OR_RENAMED = re.compile(
    r"import (\"(?:[^\"]*/)?([^\W\d]\w*)\.pem\"|(?:\w+\.)*([^\W\d]\w*)) ?"
    r"\( ?(?:\*|[\w, ]*\bas\b[\w, ]*) ?\)"
)
_UNQUOTED = re.compile(r"import (?=\S*/)((?:\.{0,2}/)*\w[\w./-]*?)(?:\.pem)? ((?:\(|as\b).*)")
_PREFIX = re.compile(r"(?<!\w)[fr]\Z")
_LIST_TYPE = re.compile(r"(?::|->)\s*([Ll]ist)\Z")
_VALUE_IN_TEST = re.compile(r"(?m)^(\s*|.*\{\s*)(?=[^\W\d]\w*\s*=(?!=))")
_BETWEEN = re.compile(r"if\b(.+?)\belse\b", re.DOTALL)
_BRACES = re.compile(r"\{([^{}:]+?)=?(?::[^{}]*)?\}")
_SIGNS = {"&&": "and", "||": "or"}
_LINKS = ("as", "in", "into", "from", "is", "->", "=>", ":=", ",", ":")
"""What other languages write between the parts of a statement."""


@dataclass(frozen=True)
class Misread:
    """Where a statement stops making sense.

    Attributes:
        text: of the statement.
        start, end: the token that is out of place; the end of the text where more should follow.
        wanted: the terminals that could stand there.
    """

    text: str
    start: int
    end: int
    wanted: frozenset[str]

    @property
    def before(self) -> str:
        return self.text[: self.start].rstrip()

    @property
    def token(self) -> str:
        return self.text[self.start : self.end]

    @property
    def rest(self) -> str:
        return self.text[self.start :]

    @property
    def in_brackets(self) -> bool:
        opened = sum(self.text.count(sign, 0, self.start) for sign in "([{")
        return opened > sum(self.text.count(sign, 0, self.start) for sign in ")]}")


def corrected(misread: Misread, parses: Callable[[str], bool]) -> str | None:
    """The statement as it was meant, where one small change makes it parse."""
    if len(misread.text) > LONGEST:
        return None
    tried = (text for repair in _REPAIRS for text in repair(misread))
    return next((text for text in tried if text != misread.text and parses(text)), None)


def printed_apart(text: str, parses: Callable[[str], bool]) -> str | None:
    """What stands in the braces of a text, as in a format of Python, each printed by itself."""
    holes = list(_BRACES.finditer(text[:LONGEST]))
    only_names = all(hole[0][1:-1].strip().isidentifier() for hole in holes)
    if only_names or len(text) > LONGEST or re.search("[{}]", _BRACES.sub("", text)):
        return None
    prints = [f"print {hole[1].strip()}" for hole in holes]
    return "\n".join(prints) if all(map(parses, prints)) else None


def _comment(at: Misread) -> Iterator[str]:
    for line, start in ((at.text, at.start), (at.text, at.start - 1)):
        opening = line[max(start, 0) : start + 2]
        if opening in ("//", "/*") and "\n" not in line[start:]:
            words = line[start + 2 :].removesuffix("*/").strip()
            code = line[:start].rstrip()
            yield f"{code}  # {words}" if code else f"# {words}"


def _other_sign(at: Misread) -> Iterator[str]:
    """What other languages write in the place of a sign."""
    rest = at.rest
    if "COMPARE" in at.wanted and at.token == "=":
        yield f"{at.before} =={at.text[at.end :]}"
    for sign, word in _SIGNS.items():
        if rest.startswith(sign):
            yield f"{at.before} {word} {rest.removeprefix(sign).lstrip()}"
    quoted = _QUOTED.match(rest)
    if quoted:
        yield f'{at.text[: at.start]}"{quoted[1]}"{rest[quoted.end() :]}'
    if at.before.endswith(":") and at.token == "=":
        yield f"{at.before[:-1].rstrip()} = {at.text[at.end :].lstrip()}"
    if at.token == "," and re.search(r"(?<![\w.])\d+\Z", at.before) and re.match(r",\d", rest):
        yield f"{at.before}.{rest[1:]}"
    if re.match(r"\.\d", rest) and not at.before.endswith("."):
        yield f"{at.text[: at.start]}0{rest}"
    for product in _PRODUCT.finditer(at.text):
        if product.start() <= at.start < product.end():
            written = f"{product[1]} * {product[2]}"
            yield at.text[: product.start()] + written + at.text[product.end() :]
    if at.token.startswith('"') and _PREFIX.search(at.before):
        yield f"{at.before[:-1]}{rest}"
    if re.match(r'[fr]"', rest):
        yield f"{at.text[: at.start]}{rest[1:]}"
    if rest == ";":
        yield at.before


def _missing(at: Misread) -> Iterator[str]:
    """What is left out before the token."""
    if not at.rest:
        return
    equals = "=" if at.in_brackets or re.search(r"\bwith\b", at.before) else " = "
    named = _NAMED.search(at.before) and not re.match(r"\w+\s*=", at.rest)
    if "COMMA" in at.wanted and not ("EQUAL" in at.wanted and named):
        yield f"{at.before}, {at.rest}"
    if "EQUAL" in at.wanted:
        yield f"{at.before}{equals}{at.rest}"
        if at.token in _LINKS:
            yield f"{at.before}{equals}{at.text[at.end :].lstrip()}"
    for terminal, word in (("_WITH", "with"), ("_TO", "to"), ("_ELSE", "else"), ("_ON", "on")):
        if terminal in at.wanted:
            yield f"{at.before} {word} {at.rest}"
            if at.token in _LINKS:
                yield f"{at.before} {word} {at.text[at.end :].lstrip()}"
    if "COLON" in at.wanted and at.in_brackets:
        yield f"{at.before}: {at.rest}"
    if "COLON" in at.wanted and at.token == "=":
        for kind, literal in _LITERALS:
            if re.match(literal, at.text[at.end :].lstrip()):
                yield f"{at.before}: {kind} {at.rest}"


def _too_many(at: Misread) -> Iterator[str]:
    """An operator with nothing after it."""
    # A word of the language is taken for an operand: a + to "x".
    word = _OPERATOR_AND_WORD.search(at.before)
    if word:
        yield f"{at.before[: word.start()].rstrip()} {word[1]} {at.rest}"
    operator = _OPERATOR.search(at.before)
    if operator and at.rest and not _OPERATOR.match(at.token):
        yield f"{at.before[: operator.start()].rstrip()} {at.rest}"


def _bare_path(at: Misread) -> Iterator[str]:
    path = _PATH.match(at.rest)
    if "STRING" in at.wanted and "NUMBER" not in at.wanted and path:
        yield f'{at.text[: at.start]}"{path[0]}"{at.rest[path.end() :]}'


def _misspelt(at: Misread) -> Iterator[str]:
    """A word of the language that is spelt a little otherwise."""
    words = [terminal[1:].lower() for terminal in at.wanted if re.match(r"_[A-Z]", terminal)]
    close = nearest(at.token, words) if at.before and at.token.isalpha() else None
    if close:
        yield f"{at.text[: at.start]}{close}{at.text[at.end :]}"


def _selector(at: Misread) -> Iterator[str]:
    """What is selected, without the word or the quotes that say how; a range of layers."""
    pattern = _PATTERN.match(at.rest)
    if "_LAYERS" in at.wanted and at.rest[:1].isdigit():
        rest = re.sub(r"\A(\d+)\s*[:-]\s*(?=\d)", r"\1..", at.rest)
        yield f"{at.text[: at.start]}layers {rest}"
    if "_LAYERS" in at.wanted and pattern:
        yield f'{at.text[: at.start]}"{pattern[0]}"{at.rest[pattern.end() :]}'
    first = _INDEX.search(at.before)
    if first and first[1].isdigit() and re.match(r"\.\.|[:-]|to\b", at.rest):
        last = re.sub(r"\A(?:\.\.|[:-]|to\b)\s*", "", at.rest)
        yield f"{at.before[: first.start(1)]}layers {first[1]}..{last}"
    word = nearest(first[1], ["layers", "like"]) if first else None
    if first and word:
        yield f"{at.before[: first.start(1)]}{word} {at.rest}"
    if at.in_brackets and at.token in (":", "to"):
        yield f"{at.before}..{at.text[at.end :].lstrip()}"


def _range(at: Misread) -> Iterator[str]:
    """The range of a param, as mathematics and other languages write it."""
    if at.text.startswith("param"):
        mended = _BOUNDS.sub(r"in \1..\2", at.text, count=1)
        yield mended
        yield _UNTYPED.sub(r"\g<0>: number", mended)


def _import(at: Misread) -> Iterator[str]:
    """An import of a whole file, without the name that it goes by here; one of Python."""
    whole, names = _IMPORTED.match(at.text), _FROM.match(at.text)
    path = _UNQUOTED.fullmatch(" ".join(at.text.split()))
    if whole:
        yield f"{at.text} as {whole[1]}"
    if names:
        yield f"import {names[1]} ({names[2]})"
    if path:
        yield f'import "{path[1]}.pem" {path[2]}'


def _star(at: Misread) -> Iterator[str]:
    """An import of all that a file has, or of a name by another: by a name for the file."""
    whole = _STAR.fullmatch(" ".join(at.text.split()))
    if whole:
        yield f"import {whole[1]} as {whole[2]}"
    whole = _WHOLE_OR_RENAMED.fullmatch(" ".join(at.text.split()))
    if whole:
        yield f"import {whole[1]} as {whole[2] or whole[3]}"


def _choice(at: Misread) -> Iterator[str]:
    """A choice as in Python, `x if c else y`: of what stands between the `if` and the sign before
    it that leaves a statement."""
    choice = _BETWEEN.match(at.rest) if at.token == "if" else None
    if choice is None:
        return
    condition, rest = choice[1].strip(), at.rest[choice.end() :]
    for sign in list(re.finditer(r"[=,(\[]\s*", at.before))[: -_NEAR - 1 : -1]:
        value = at.before[sign.end() :]
        if value:
            head = at.before[: sign.end()]
            yield f"{head}if {condition} then {value} else {rest.strip()}"


def _loop(at: Misread) -> Iterator[str]:
    """A loop as in Python: one that stands in round brackets, or its names do."""
    if at.token == "for" and "_FOR" not in at.wanted:
        opened = _opening(at.before) + 1
        for closed in islice(re.finditer(r"\)", at.rest), _NEAR):
            inside = at.text[opened : at.start + closed.start()].strip()
            gap = " " if at.before[opened - 1 : opened] == "," else ""
            yield f"{at.text[:opened]}{gap}[{inside}]{at.rest[closed.start() :]}"
    names = re.match(r"\(([\w\s,]+)\)", at.rest)
    if names and at.before.endswith("for"):
        yield f"{at.before} {names[1].strip()}{at.rest[names.end() :]}"


def _opening(text: str) -> int:
    """Where the sign stands after which the last expression of a text begins; -1 without one."""
    depth = 0
    for place in range(len(text) - 1, -1, -1):
        sign = text[place]
        if depth == 0 and sign in "([{,":
            return place
        depth += (sign in ")]}") - (sign in "([{")
    return -1


def _list_type(at: Misread) -> Iterator[str]:
    """The type of a list, as in Python."""
    word = _LIST_TYPE.search(at.before)
    if word and at.token == "[":
        yield f"{at.before[: word.start(1)]}{at.rest}"


def _in_test(at: Misread) -> Iterator[str]:
    """Names in a test, without `let`."""
    if at.text.startswith("test"):
        yield _VALUE_IN_TEST.sub(r"\1let ", at.text)


def _export(at: Misread) -> Iterator[str]:
    """A declaration that is handed on, as all are."""
    if at.before == "export":
        yield at.rest


def _no_statement(at: Misread) -> Iterator[str]:
    """A name and its value, without `let`."""
    if at.start == 0 and re.match(r"\w+\s*=(?!=)\s*[^\s\"]", at.text):
        yield f"let {at.text}"


_REPAIRS = (
    _comment, _other_sign, _misspelt, _selector, _range, _import, _star, _choice, _loop, _list_type,
    _in_test, _export, _too_many, _missing, _bare_path, _no_statement,
)  # fmt: skip
