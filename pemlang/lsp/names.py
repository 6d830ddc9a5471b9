"""What the names of a recipe are bound to, in all its files: from their trees alone, so that a
recipe with mistakes has them too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Literal

from pemlang.check.annotations import REFINEMENTS
from pemlang.check.files import RecipeFiles, load_files
from pemlang.check.options import WORDS
from pemlang.check.scope import PRIVATE, Scope, bare_words
from pemlang.check.values import POISON
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Report
from pemlang.lsp.open_files import OpenFiles
from pemlang.ops import FUNCTIONS
from pemlang.source import Source, Span
from pemlang.syntax import tree as t

Role = Literal["value", "parameter", "function", "module"]


@dataclass(frozen=True, eq=False)
class BoundName:
    """What a name is bound to.

    Attributes:
        path: the file that declares it.
        span: where its name stands there.
        role: what it is used as.
        tree: what declares it: a statement, a parameter of a function, or the name itself.
    """

    path: Path
    span: Span
    role: Role
    tree: t.Tree

    @property
    def name(self) -> str:
        """It, as it is declared."""
        return self.span.text

    @property
    def place(self) -> tuple[Path, int]:
        """What tells it from any other, in the same texts."""
        return self.path, self.span.start


@dataclass(frozen=True, eq=False)
class Occurrence:
    """A place where a name stands: `tree` is the name there, None where it is an argument's."""

    span: Span
    bound: BoundName
    tree: t.Name | None


@dataclass(eq=False)
class FileNames:
    """The names of one file.

    Attributes:
        occurrences: every place of a name, in no order.
        shared: what files that import it see.
        names: what it declares and imports.
        local: the names inside of functions, lists and tests, with the places where they hold.
        modules: what is in the files that it imports under a name.
    """

    occurrences: list[Occurrence] = field(default_factory=list)
    shared: dict[str, BoundName] = field(default_factory=dict)
    names: dict[str, BoundName] = field(default_factory=dict)
    local: list[tuple[Span, BoundName]] = field(default_factory=list)
    modules: dict[BoundName, FileNames] = field(default_factory=dict)

    def at(self, offset: int) -> Occurrence | None:
        """The name that stands at a place, or ends there."""
        there = [x for x in self.occurrences if x.span.start <= offset <= x.span.end]
        return max(there, key=lambda x: x.span.start, default=None)

    def visible_at(self, offset: int) -> dict[str, BoundName]:
        """The names that may be used at a place."""
        own = {
            name: bound
            for name, bound in self.names.items()
            if bound.span.source is not self._source or bound.span.end <= offset
        }
        inner = {
            bound.name: bound for span, bound in self.local if span.start <= offset <= span.end
        }
        return own | inner

    @property
    def _source(self) -> object:
        return next((x.span.source for x in self.occurrences), None)


def names_of(files: RecipeFiles) -> Mapping[Path, FileNames]:
    """The names of a recipe and of what it imports, by file."""
    found: dict[Path, FileNames] = {}
    for path in files.order():
        if path in files.trees:
            found[path] = _NameBinder(path, files, found).run(files.trees[path])
    return found


def shared_names(target: str, directory: Path, files: OpenFiles) -> Mapping[str, BoundName]:
    """What a file that imports another would see of it; nothing of what is no recipe.

    Args:
        target: the other, as an import has it: `"house.pem"`, `std.paper`.
        directory: of the file that imports.
        files: the open recipes.
    """
    source = Source("", f"import {target} as imported\n", directory)
    importing = directory / "importing"
    names = names_of(load_files(importing, source, Report(), files))
    return {x: y for module in names[importing].modules.values() for x, y in module.shared.items()}


class _NameBinder:
    """Goes through one file, after those that it imports."""

    def __init__(self, path: Path, files: RecipeFiles, others: Mapping[Path, FileNames]) -> None:
        self._path, self._files, self._others = path, files, others
        self._file = FileNames()

    def run(self, tree: t.RecipeFile) -> FileNames:
        names: dict[str, BoundName] = self._file.names
        own = list(self._statements(tree.statements, names))
        shared = {x for x in own if not x.name.startswith(PRIVATE)}
        self._file.shared |= {x: y for x, y in names.items() if y in shared}
        return self._file

    def _statements(
        self, statements: tuple[t.Statement, ...], names: dict[str, BoundName]
    ) -> Iterator[BoundName]:
        """Bind the names of statements; gives what other files see of them."""
        for statement in statements:
            if isinstance(statement, t.Import):
                given = self._import(statement, names)
                yield from given if statement.hands_on else ()
                continue
            if isinstance(statement, t.Test):
                inner = dict(names)
                for bound in self._statements(statement.statements, inner):
                    self._file.local.append((statement.span, bound))
                continue
            if isinstance(statement, t.Def):
                bound = self._def(statement, names)
            else:
                for part in _parts(statement):
                    self._visit(part, names)
                if not isinstance(statement, t.Declaration):
                    continue
                bound = self._bind(statement.name, "value", statement)
            names.setdefault(statement.name.name, bound)
            yield bound

    def _import(self, statement: t.Import, names: dict[str, BoundName]) -> list[BoundName]:
        path = self._files.imports.get(statement)
        target = self._others.get(path) if path is not None else None
        given = []
        if statement.alias is not None:
            bound = self._bind(statement.alias, "module", statement)
            if target is not None:
                self._file.modules[bound] = target
            names.setdefault(statement.alias.name, bound)
            given.append(bound)
        for name in statement.names:
            there = None if target is None else target.shared.get(name.name)
            if there is None:
                there = self._bind(name, "value", statement)
            else:
                self._file.occurrences.append(Occurrence(name.span, there, name))
            names.setdefault(name.name, there)
            given.append(there)
        return given

    def _bind(self, name: t.Name, role: Role, tree: t.Tree) -> BoundName:
        bound = BoundName(self._path, name.span, role, tree)
        self._file.occurrences.append(Occurrence(name.span, bound, name))
        return bound

    def _def(self, statement: t.Def, names: Mapping[str, BoundName]) -> BoundName:
        bound = self._bind(statement.name, "function", statement)
        inner = dict(names)
        for param in statement.params:
            for part in (param.type, param.low, param.high, param.default):
                if part is not None:
                    self._visit(part, names)
            inner[param.name.name] = self._bind(param.name, "parameter", param)
            self._file.local.append((statement.span, inner[param.name.name]))
        if statement.returns is not None:
            self._visit(statement.returns, names)
        self._visit(statement.body, inner)
        return bound

    def _visit(self, tree: t.Tree, names: Mapping[str, BoundName]) -> None:
        if isinstance(tree, t.Name):
            self._use(tree, names)
        elif isinstance(tree, t.Call):
            self._call(tree, names)
        elif isinstance(tree, t.ForEach):
            for source in tree.lists:
                self._visit(source, names)
            inner = dict(names)
            for name in tree.names:
                inner[name.name] = self._bind(name, "parameter", name)
                self._file.local.append((tree.span, inner[name.name]))
            self._visit(tree.body, inner)
        elif isinstance(tree, t.TypeName):
            for refinement in tree.refinements:
                if refinement.name != REFINEMENTS[-1] or not isinstance(refinement.value, t.Name):
                    self._visit(refinement.value, names)
        else:
            for child in tree.children():
                self._visit(child, names)

    def _use(self, name: t.Name, names: Mapping[str, BoundName]) -> BoundName | None:
        if name.module is None:
            bound = names.get(name.name)
            span = name.span
        else:
            module = names.get(name.module)
            if module is None or module not in self._file.modules:
                return None
            before, _, after = name.span.text.partition(".")
            start, end = name.span.start, name.span.end
            whole = Span(name.span.source, start, start + len(before.rstrip()))
            self._file.occurrences.append(Occurrence(whole, module, None))
            bound = self._file.modules[module].shared.get(name.name)
            span = Span(name.span.source, end - len(after.lstrip()), end)
        if bound is not None:
            self._file.occurrences.append(Occurrence(span, bound, name))
        return bound

    def _call(self, tree: t.Call, names: Mapping[str, BoundName]) -> None:
        if tree.function.name == "sample" and tree.function.module is None:
            for arg in tree.args:  # lora(…) in it is no call
                for part in arg.children() if isinstance(arg, t.Call) else (arg,):
                    if not isinstance(part, t.Name):
                        self._visit(part, names)
            return
        function = self._use(tree.function, names)
        own = function.tree if function is not None else None
        params = {p.name.name: p for p in own.params} if isinstance(own, t.Def) else {}
        words: set[int] = set()
        if tree.function.name in FUNCTIONS and any(isinstance(x, t.NamedArg) for x in tree.args):
            words = {id(x) for x in bare_words(tree, Scope(dict.fromkeys(names, POISON)))}
        for arg in tree.args:
            if isinstance(arg, t.NamedArg) and arg.name in params and function is not None:
                name = params[arg.name].name
                bound = self._file_of(function).get(name.span.start)
                if bound is not None:
                    self._file.occurrences.append(Occurrence(arg.name_span, bound, None))
            value = arg.value if isinstance(arg, t.NamedArg) else arg
            if id(value) not in words:
                self._visit(value, names)

    def _file_of(self, function: BoundName) -> dict[int, BoundName]:
        """The parameters of the file that declares a function, by where they stand."""
        file = self._file if function.path == self._path else self._others[function.path]
        return {x.span.start: x for _, x in file.local if isinstance(x.tree, t.DefParam)}


def _parts(statement: t.Statement) -> Iterator[t.Tree]:
    """What of a statement has names in it, but for the one it declares."""
    declared = statement.name if isinstance(statement, t.Declaration) else None
    for part in statement.children():
        if part is declared:
            continue
        if isinstance(part, t.NamedArg):
            if part.name not in WORDS:
                yield part.value
        else:
            yield part
