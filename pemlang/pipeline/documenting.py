"""What a file of recipes says of the names it offers: its `##` comments, signatures and tests, and
what its functions come to on adapters that are drawn."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.conditions import Condition
from pemlang.check.files import std_module, std_modules
from pemlang.check.scope import names_in
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Report
from pemlang.disk import temporary
from pemlang.graph.formula import Formula, type_text
from pemlang.graph.node import Node
from pemlang.graph.numbers import shown
from pemlang.inputs.libraries import installed, installed_modules
from pemlang.inputs.samples import SampleResolver
from pemlang.source import Source
from pemlang.syntax import tree as t
from pemlang.syntax.files import decoded, read_source
from pemlang.syntax.parser import parse

MOST_DRAWN = 300
"""Functions of a file up to which their normal forms are shown."""

User = TypeVar("User")

_KINDS = ("lora", "ia3", "dense")
_SHARES = ("0.5", "0.25", "0.75")
_ARGUMENTS = (
    ("lora", _SHARES, 2),
    ("lora", ("2", "3", "4"), 2),
    ("lora", _SHARES, 1),
    ("ia3", _SHARES, 2),
    ("dense", _SHARES, 2),
)
"""What functions are called with, one after the other until one fits and has a normal form that is
not `LONG`: adapters of a kind, numbers, and how many adapters stand in a list."""

LONG = 200
"""Characters of a normal form that no reader takes in."""

_PLAIN = {"[number]": "[3, 1]", "bool": "true", "string": '"text"', "schedule": "ramp(0, 1)"}
"""What stands for a parameter of another type."""

_FIRST_SEED = 1_000_000  # of samples: tests of the file have drawn with none of them
_ABOVE_ALL = re.compile(r"\s*\Z|(?:language|import|export)\b")
"""What is no declaration, below a comment that is of the whole file."""
_SITE = re.compile(r"[\w.]+", re.ASCII)


@dataclass(frozen=True)
class ParamDoc:
    """A parameter of a function: its type as written, and the range and the default that it may
    have."""

    name: str
    type: str
    range: str | None
    default: str | None


@dataclass(frozen=True)
class ExampleDoc:
    """A call on samples, its normal form, and its type; of a condition or a number no type."""

    call: str
    normal_form: str
    type: str


@dataclass(frozen=True)
class TestDoc:
    """A test of the file that uses a name."""

    title: str
    text: str


@dataclass(frozen=True)
class NameDoc:
    """A name that a file offers.

    Attributes:
        name: as it is imported.
        kind: of statement that declares it, such as def or param.
        signature: a function with its types, or the statement as written.
        text: the statement as written.
        about: what its `##` comment says, in one line.
        source: what stands there after `Source:`.
        params: of a function.
        example: of a function, where one could be drawn.
        tests: those that use it.
        uses: the names of this file and of the standard library that it is written with.
        used_by: the names of this file that are written with it.
    """

    name: str
    kind: str
    signature: str
    text: str
    about: str
    source: str
    params: Sequence[ParamDoc]
    example: ExampleDoc | None
    tests: Sequence[TestDoc]
    uses: Sequence[str]
    used_by: Sequence[str]


@dataclass(frozen=True)
class HandedOnDoc:
    """Names that a file hands on: the file that they are of, as it is imported, and what they are
    called here; of a whole file its alias."""

    of: str
    names: Sequence[str]


@dataclass(frozen=True)
class LibraryDoc:
    """A file.

    Attributes:
        name: what it is called.
        module: how a name of it is imported.
        about: what its first comment says.
        names: those that it declares.
        hands_on: those of other files.
    """

    name: str
    module: str
    about: str
    names: Sequence[NameDoc]
    hands_on: Sequence[HandedOnDoc]


def documented(path: Path, source: Source, name: str) -> LibraryDoc:
    """All that a file says of what it offers.

    Args:
        path, source: the file.
        name: of the module that it is, such as `std.paper`, or its path as it was given.

    Raises:
        PemError: it is no recipe, as far as its text alone tells.
    """
    report = Report()
    statements = parse(source, report).statements
    report.raise_errors()
    offered = [x for x in statements if isinstance(x, t.Declaration) and _is_offered(x)]
    definitions = [x for x in offered if isinstance(x, t.Def)]
    drawn = _drawn(path, _without_tests(source, statements), definitions)
    known = _known(statements, offered)
    uses = {x.name.name: _used(x, known) - {x.name.name} for x in offered}
    used_by = _turned((name, used) for name, used in uses.items())
    tests = _turned((_test(x), _used(x, known)) for x in statements if isinstance(x, t.Test))
    names = [
        NameDoc(
            name=x.name.name,
            kind=x.span.text.split(maxsplit=1)[0],
            signature=x.signature if isinstance(x, t.Def) else " ".join(x.span.text.split()),
            text=x.span.text,
            about=_about(x.doc),
            source=_source(x.doc),
            params=_params(x) if isinstance(x, t.Def) else (),
            example=drawn.get(x.name.name),
            tests=tests.get(x.name.name, ()),
            uses=sorted(uses[x.name.name]),
            used_by=sorted(used_by.get(x.name.name, ())),
        )
        for x in offered
    ]
    module = name if name.startswith("std.") else f'"{path.name}"'
    hands_on = [_handed_on(x) for x in statements if isinstance(x, t.Import) and x.hands_on]
    return LibraryDoc(name, module, _head(source, path.name), names, hands_on)


def _handed_on(statement: t.Import) -> HandedOnDoc:
    of = statement.module
    names = statement.names if statement.alias is None else (statement.alias,)
    return HandedOnDoc(
        ".".join(of) if isinstance(of, tuple) else of.span.text, [x.name for x in names]
    )


def library(name: str) -> list[LibraryDoc]:
    """The recipes of a library that is installed, such as `house`, or one, such as `house.merges`;
    none where there is none of the name. Raises as installed_modules, and PemError as documented.
    """
    under = f"{name}."
    docs = []
    for module in installed_modules():
        if module == name or module.startswith(under):
            recipe = installed(module)
            source = decoded(recipe.data, module, recipe.path.parent)
            docs.append(replace(documented(recipe.path, source, module), module=module))
    return docs


def standard_library() -> list[LibraryDoc]:
    """The files of the standard library."""
    return [standard_module(name) for name in std_modules()]


def standard_module(name: str) -> LibraryDoc:
    """One of its files, such as `std.paper`; raises PEM0203."""
    path = std_module(name)
    return documented(path, read_source(path, name), name)


def _is_offered(statement: t.Declaration) -> bool:
    """Whether a name is for other files, and there is something to say of it."""
    said = isinstance(statement, t.Def | t.Param) or bool(statement.doc)
    return said and not statement.name.name.startswith("_")


def _head(source: Source, file: str) -> str:
    """The comment that a file begins with, in one line; that of a declaration is none."""
    lines = source.text.splitlines()
    head = list(takewhile(lambda line: line.startswith("#"), lines))
    below = "".join(lines[len(head) : len(head) + 1])
    if not _ABOVE_ALL.match(below):
        head = list(takewhile(lambda line: not line.startswith("##"), head))
    words = " ".join(line.lstrip("#").strip() for line in head).strip()
    about = words.removeprefix(f"{file}: ")
    return f"{about[:1].upper()}{about[1:]}"


def _about(doc: str) -> str:
    return " ".join(_parts(doc)[0].split())


def _source(doc: str) -> str:
    return " ".join(_parts(doc)[1].split())


def _parts(doc: str) -> tuple[str, str]:
    """What a comment says, and the source that its last lines name."""
    about, _, source = re.sub(r"(?m)^\s*Source:", "\0", doc, count=1).partition("\0")
    return about, source


def _params(definition: t.Def) -> list[ParamDoc]:
    return [
        ParamDoc(
            x.name.name,
            x.type.span.text,
            None if x.low is None or x.high is None else x.low.span.to(x.high.span).text,
            None if x.default is None else x.default.span.text,
        )
        for x in definition.params
    ]


def _test(test: t.Test) -> TestDoc:
    title = "".join(part for part in test.title.parts if isinstance(part, str))
    return TestDoc(title, test.span.text)


# --- who uses what --------------------------------------------------------------------------------


def _known(
    statements: Sequence[t.Statement], offered: Sequence[t.Declaration]
) -> dict[tuple[str | None, str | None], str]:
    """What names in a file stand for, by module and name: its own, and those of the standard
    library, whose names after an alias are all known."""
    known: dict[tuple[str | None, str | None], str] = {
        (None, x.name.name): x.name.name for x in offered
    }
    for statement in statements:
        if isinstance(statement, t.Import) and isinstance(statement.module, tuple):
            module = ".".join(statement.module)
            known.update({(None, x.name): f"{module}.{x.name}" for x in statement.names})
            if statement.alias is not None:
                known[statement.alias.name, None] = module
    return known


def _used(tree: t.Tree, known: dict[tuple[str | None, str | None], str]) -> set[str]:
    used = set()
    for name in names_in(tree):
        if (name.module, name.name) in known:
            used.add(known[name.module, name.name])
        elif (name.module, None) in known:
            used.add(f"{known[name.module, None]}.{name.name}")
    return used


def _turned(uses: Iterable[tuple[User, set[str]]]) -> dict[str, list[User]]:
    """What uses each name, in order, by what each of them uses."""
    users: dict[str, list[User]] = {}
    for user, names in uses:
        for name in names:
            users.setdefault(name, []).append(user)
    return users


# --- normal forms on samples ----------------------------------------------------------------------


def _without_tests(source: Source, statements: Iterable[t.Statement]) -> Source:
    """A file whose tests are not evaluated: blanks stand in their places."""
    parts, at = [], 0
    for test in (x.span for x in statements if isinstance(x, t.Test)):
        parts += [source.text[at : test.start], re.sub(r"\S", " ", test.text)]
        at = test.end
    return replace(source, text="".join([*parts, source.text[at:]]))


def _drawn(path: Path, source: Source, definitions: Sequence[t.Def]) -> dict[str, ExampleDoc]:
    """A call of each function that one of `_ARGUMENTS` fits, with what it comes to; of several that
    are long, the shortest."""
    if len(definitions) > MOST_DRAWN:
        return {}
    seeds: dict[str, int] = {}
    examples: dict[str, ExampleDoc] = {}
    with temporary("samples") as folder:
        resolver = SampleResolver(folder)
        for arguments in _ARGUMENTS:
            calls = {
                x.name.name: SampleCall(x, *arguments, seeds)
                for x in definitions
                if _length(examples.get(x.name.name)) > LONG
            }
            drawn = _examples(path, source, calls, resolver) if calls else {}
            examples |= {x: y for x, y in drawn.items() if _length(y) < _length(examples.get(x))}
    return examples


def _length(example: ExampleDoc | None) -> float:
    """Of its normal form; one that is not there is longer than any."""
    return math.inf if example is None else len(example.normal_form)


def _examples(
    path: Path, source: Source, calls: Mapping[str, SampleCall], resolver: SampleResolver
) -> dict[str, ExampleDoc]:
    """What calls come to, by function, of those that are right: tests that print them are put after
    the text of the file, and checked with it."""
    added = [call.as_test(name) for name, call in calls.items()]
    longer = replace(source, text="\n".join([source.text, *added, ""]))
    checked = _known_by_name(check(path, longer, resolver, testing=True))
    write = Formula(checked.leaf_name)
    examples = {}
    for test in checked.tests:
        wrong = any(told.severity == "error" for told in test.diagnostics)
        if test.span.start < len(source.text) or wrong or not test.prints:
            continue
        text, value = calls[test.title].text, test.prints[0].value
        if isinstance(value, Node):
            examples[test.title] = ExampleDoc(text, write.value(value), type_text(value))
        elif isinstance(value, Condition):
            examples[test.title] = ExampleDoc(text, value.formula(write), "")
    return examples


def _known_by_name(checked: Checked) -> Checked:
    """A recipe whose adapters are known by what they are called, so that the order of terms is not
    that of the places that samples have."""
    of_one_name: Counter[str] = Counter()
    identities = {}
    for leaf, declared in checked.leaves.items():
        of_one_name[declared.name] += 1
        identities[leaf] = (f"{declared.name} {of_one_name[declared.name]}", leaf.adapter)
    return checked.identified(identities)


class SampleCall:
    """A function, called with samples that are called as its parameters are.

    Args:
        definition: the function.
        kind, numbers, many: one of `_ARGUMENTS`.
        seeds: that of each sample by its name: one name, one sample, and no other has its seed.
    """

    def __init__(
        self,
        definition: t.Def,
        kind: str,
        numbers: Sequence[str],
        many: int,
        seeds: dict[str, int],
    ) -> None:
        self._kind, self._numbers, self._many, self._seeds = kind, numbers, many, seeds
        self._taken = {param.name.name for param in definition.params}
        self._sites = _sites(definition)
        self._lets: list[str] = []
        required = [param for param in definition.params if param.default is None]
        in_order = required == list(definition.params[: len(required)])
        given = [
            self._argument(param, numbers[number % len(numbers)])
            if in_order
            else f"{param.name.name}={self._argument(param, numbers[number % len(numbers)])}"
            for number, param in enumerate(required)
        ]
        self.text = f"{definition.name.name}({', '.join(given)})"
        if definition.returns is not None and definition.returns.span.text == "schedule":
            self.text += f" * {self._sample(self._free('a'), kind, 'layers=3')}"

    def as_test(self, title: str) -> str:
        """A test that prints it."""
        lets = "".join(f"    {line}\n" for line in self._lets)
        return f'test "{title}" {{\n{lets}    print {self.text}\n}}'

    def _argument(self, param: t.DefParam, number: str) -> str:
        name, type_ = param.name.name, " ".join(param.type.span.text.split())
        word = type_.partition("(")[0]
        if word in ("adapter", *_KINDS):
            return self._sample(name, word if word in _KINDS else self._kind)
        if type_ == "[adapter]":
            one = name.rstrip("s") or name
            names = [self._free(f"{one}{n}") for n in range(1, self._many + 1)]
            return f"[{', '.join(self._sample(name, self._kind) for name in names)}]"
        return _PLAIN.get(type_, _in_range(param, number))

    def _sample(self, name: str, kind: str, *settings: str) -> str:
        seed = self._seeds.setdefault(name, _FIRST_SEED + len(self._seeds))
        given = ", ".join([f"seed={seed}", *settings, *self._sites])
        self._lets.append(f"let {name} = sample({kind}({given}))")
        return name

    def _free(self, name: str) -> str:
        while name in self._taken:
            name += "1"
        self._taken.add(name)
        return name


def _in_range(param: t.DefParam, number: str) -> str:
    """A number as it is, or the middle of the range of a parameter that does not take it."""
    if not (isinstance(param.low, t.Number) and isinstance(param.high, t.Number)):
        return number
    low, high = param.low.value, param.high.value
    return number if low <= Fraction(number) <= high else shown((low + high) / 2)


def _sites(definition: t.Def) -> Sequence[str]:
    """The sites that samples need for the patterns in a function, as a setting; none where it has
    no pattern."""
    patterns = [
        "".join(part for part in pattern.parts if isinstance(part, str))
        for pattern in _patterns(definition.body)
    ]
    sites = [f"model.{x.strip('*.').replace('*', '0')}" for x in dict.fromkeys(patterns)]
    if not sites or not all(_SITE.fullmatch(site) for site in sites):
        return ()
    return ["sites=[{}]".format(", ".join(f'"{site}"' for site in [*sites, "model.rest"]))]


def _patterns(tree: t.Tree) -> Iterator[t.String]:
    if isinstance(tree, t.PerItem) and tree.pattern is not None:
        yield tree.pattern
    if isinstance(tree, t.Globs):
        yield from tree.patterns
    for child in tree.children():
        yield from _patterns(child)
