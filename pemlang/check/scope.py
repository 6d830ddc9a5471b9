"""Names of one file and what they mean."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import field
from typing import TYPE_CHECKING

from pemlang.check import elsewhere
from pemlang.check.values import POISON, Poison, RecipeValue
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, Report, listed, nearest, visible
from pemlang.ops import FUNCTIONS
from pemlang.ops.record import Parameter
from pemlang.source import Span
from pemlang.syntax import tree as t
from pemlang.syntax.files import ON_THE_COMMAND_LINE

if TYPE_CHECKING:
    from pemlang.check.params import NumberRange

PRIVATE = "_"


class Stop(Exception):
    """A statement cannot be evaluated; why has been reported."""


@dataclass(frozen=True, eq=False)
class Function:
    """A `def`, with the scope it was written in, and the ranges of its params by their names."""

    tree: t.Def
    scope: Scope
    ranges: Mapping[str, NumberRange]
    kind = "function"


@dataclass(frozen=True, eq=False)
class Module:
    """A file imported under a name."""

    scope: Scope
    kind = "module"

    def member(self, name: str, module: str, before: str = "") -> RecipeValue:
        """What a name means in the file; raises PEM0206, and PEM0208 for one that is the file's
        own. `module` is what messages call it, and `before` what is written before the name."""
        if name in self.scope.values:
            self._hold_shared(name, module)
            return self.scope.values[name]
        names = [visible(value) for value in self.scope.values if self.scope.shares(value)]
        close = nearest(name, names)
        has = (
            f"name one that there is: {listed(names, 8)}"
            if names
            else "declare it there: it has nothing yet"
        )
        raise Fault(
            "PEM0206",
            f"`{visible(module, 60)}` has nothing called `{visible(name, 60)}`",
            f"did you mean `{before}{close}`?" if close else has,
        )

    def _hold_shared(self, name: str, module: str) -> None:
        """Raise PEM0208 for a name that the file does not hand on."""
        if name.startswith(PRIVATE):
            raise Fault(
                "PEM0208",
                f"`{visible(name)}` is private to `{visible(module, 60)}`: its name begins with "
                f"`{PRIVATE}`",
                "use what the file offers; or give it a name without that sign there",
            )
        if name in self.scope.imported:
            raise Fault(
                "PEM0208",
                f"`{visible(name)}` is imported in `{visible(module, 60)}`, which does not hand it "
                "on",
                "take it from where it is declared, or put `export` before the import there",
            )


@dataclass(eq=False)
class Scope:
    """The names declared so far in a file.

    Attributes:
        values: what they mean; POISON where the declaration is wrong.
        places: where they are declared.
        later: names that are declared further down.
        imported: names of other files that this one does not hand on.
    """

    values: MutableMapping[str, RecipeValue] = field(default_factory=dict)
    places: MutableMapping[str, Span] = field(default_factory=dict)
    later: dict[str, Span] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)

    def declare(self, name: t.Name, value: RecipeValue, report: Report) -> None:
        """Give a name a meaning; reports PEM0201 and PEM0202 and keeps the first meaning."""
        fault = self.taken(name.name)
        if fault is not None:
            report.add(fault.at(name.span))
            self.values.setdefault(name.name, POISON)
            return
        self.values[name.name] = value
        self.places[name.name] = name.span

    def shares(self, name: str) -> bool:
        """Whether files that import this one see a name of its own."""
        return not name.startswith(PRIVATE) and name not in self.imported

    def taken(self, name: str) -> Fault | None:
        """Why a name cannot be given, if it cannot."""
        if name in t.KEYWORDS:
            return Fault("PEM0202", f"`{name}` is a word of the language", "choose another name")
        if name in FUNCTIONS or name in t.FORMS:
            return Fault(
                "PEM0202",
                f"`{name}` is an operator of the language, this would hide it",
                f"choose another name, such as `my_{name}`",
            )
        if name in self.places:
            place = self.places[name]
            line, _ = place.source.position(place.start)
            return Fault(
                "PEM0201",
                f"`{visible(name)}` is already declared at {visible(place.source.name)}:{line}",
                "choose another name",
            )
        return None

    def look_up(self, name: t.Name, called: bool = False) -> RecipeValue:
        """What a name means; `called` says that it stands where a function does.

        Raises:
            Fault: PEM0206 unknown, PEM0207 declared only further down, PEM0302 a function of the
                language.
        """
        if name.module is not None:
            module = self.look_up(t.Name(name.span, name.module))
            if isinstance(module, Poison):
                return module
            if not isinstance(module, Module):
                raise Fault(
                    "PEM0206",
                    f"`{visible(name.module)}` is not an imported module",
                    'give a file that name: import "file.pem" as name',
                )
            return module.member(name.name, name.module, f"{visible(name.module)}.")
        if name.name in self.values:
            return self.values[name.name]
        shown = visible(name.name, 60)
        if name.name in self.later:
            place = self.later[name.name]
            line, _ = place.source.position(place.start)
            inside = place.start <= name.span.start and place.source is name.span.source
            raise Fault(
                "PEM0207",
                f"`{shown}` uses itself: functions and names are not recursive"
                if inside and name.span.start < place.end
                else f"`{shown}` is declared only on line {line}",
                "use names that are declared above this line",
            )
        if name.name in FUNCTIONS:
            raise Fault("PEM0302", f"`{shown}` is a function, not a value", f"call it: {shown}(…)")
        raise Fault("PEM0206", f"nothing is called `{shown}`", self._instead(name, called))

    def _instead(self, unknown: t.Name, called: bool) -> str:
        """What to write instead of a name that means nothing."""
        name = unknown.name
        fold = {known.casefold(): text for known, text in elsewhere.FUNCTIONS.items()}
        if called and name.casefold() in fold and name.casefold() not in FUNCTIONS:
            return fold[name.casefold()]
        if not called and name in elsewhere.VALUES:
            return elsewhere.VALUES[name]
        own = [
            known
            for known, value in self.values.items()
            if isinstance(value, Function | Poison) or not called
        ]
        close = nearest(name, [*own, *FUNCTIONS] if called else own)
        if close is not None:
            return f"did you mean `{visible(close)}`?"
        if unknown.span.source.name == ON_THE_COMMAND_LINE:
            return (
                "call one that `pem ops` lists"
                if called
                else f"give the folder of its adapter, too: {visible(name)}=DIR"
            )
        return (
            "call one that `pem ops` lists, or define it"
            if called
            else "declare it above, or import it"
        )

    def child(self) -> Scope:
        """A scope for the body of a function: its params, then this file's names."""
        return Scope(ChainMap({}, self.values), ChainMap({}, self.places), self.later)


def names_in(tree: t.Tree) -> Iterator[t.Name]:
    """Every name an expression uses, in the order written; not those that a list in it gives."""
    stack: list[tuple[t.Tree, frozenset[str]]] = [(tree, frozenset())]
    while stack:
        node, given = stack.pop()
        if isinstance(node, t.Name):
            if node.module is not None or node.name not in given:
                yield node
        elif isinstance(node, t.Call) and node.form is not None:
            stack += [(arg, given) for arg in reversed(list(_of_form(node)))]
        elif isinstance(node, t.ForEach):
            inner = given.union(name.name for name in node.names)
            stack += [(source, given) for source in reversed(node.lists)]
            stack.append((node.body, inner))
        else:
            stack += [(child, given) for child in reversed(list(node.children()))]


def resolve_names(
    tree: t.Tree, scope: Scope, report: Report, also: Callable[[str], bool] = lambda _: False
) -> None:
    """Report every unknown name of an expression; raises Stop when there is one.

    A called function may be an operator; `also` admits further names, such as a def's params.
    """

    def known(name: t.Name) -> bool:
        return name.module is not None or name.name in FUNCTIONS or name.name in scope.values

    wrong = False
    for name, fault in _given_names(tree, scope, also):
        report.add(fault.at(name.span))
        wrong = True
    calls = list(_calls(tree))
    called = {id(call.function) for call in calls}
    words = {
        id(word)
        for call in calls
        for word in (bare_words(call, scope) if known(call.function) else _words_of_any(call))
    }
    for name in names_in(tree):
        if id(name) in words:
            continue
        if name.module is None and also(name.name):
            continue
        if name.module is None and id(name) in called and name.name in FUNCTIONS:
            continue
        try:
            scope.look_up(name, id(name) in called)
        except Fault as fault:
            report.add(fault.at(name.span))
            wrong = True
    if wrong:
        raise Stop


def _of_form(call: t.Call) -> Iterator[t.Tree]:
    """What is a value of what a call is given that is no operator."""
    for arg in call.args:
        if call.form != "sample":
            yield arg
        elif isinstance(arg, t.Call):
            yield from arg.args


def _given_names(
    tree: t.Tree, scope: Scope, also: Callable[[str], bool]
) -> Iterator[tuple[t.Name, Fault]]:
    """The names of loops in an expression that cannot be given, and why."""
    stack: list[tuple[t.Tree, frozenset[str]]] = [(tree, frozenset())]
    while stack:
        node, given = stack.pop()
        if isinstance(node, t.ForEach):
            stack += [(source, given) for source in node.lists]
            for name in node.names:
                fault = scope.taken(name.name)
                if fault is None and (name.name in given or also(name.name)):
                    message = f"`{visible(name.name)}` is already the name of another value here"
                    fault = Fault("PEM0201", message, "choose another name")
                if fault is not None:
                    yield name, fault
                given |= {name.name}
            stack.append((node.body, given))
        else:
            stack += [(child, given) for child in node.children()]


def bare_words(call: t.Call, scope: Scope) -> list[t.Tree]:
    """The arguments that are an operator's own words, as over=factors, not names of the recipe.
    Where it takes numbers too, as for rank=full, what the recipe calls by that name is meant."""
    if call.function.module is not None or call.function.name not in FUNCTIONS:
        return []
    params = {p.name: p for p in FUNCTIONS[call.function.name].signatures[0].params}
    words = {word for param in params.values() for word in param.words}

    def is_word(name: str, param: Parameter | None) -> bool:
        if param is None:  # misspelt, and a word of another one still: the name is what is wrong
            return name in words and name not in scope.values
        if "number" not in param.kinds:
            return bool(param.words)
        return name not in scope.values and nearest(name, param.words) is not None

    return [
        arg.value
        for arg in call.args
        if isinstance(arg, t.NamedArg) and isinstance(arg.value, t.Name) and not arg.value.module
        if is_word(arg.value.name, params.get(arg.name))
    ]


def _words_of_any(call: t.Call) -> list[t.Tree]:
    """The arguments of a function that is misspelt which may be an operator's own words."""
    words = {
        word
        for operator in FUNCTIONS.values()
        for param in operator.signatures[0].params
        for word in param.words
    }
    values = [arg.value for arg in call.args if isinstance(arg, t.NamedArg)]
    return [v for v in values if isinstance(v, t.Name) and not v.module and v.name in words]


def _calls(tree: t.Tree) -> Iterator[t.Call]:
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, t.Call):
            yield node
        stack.extend(node.children())
