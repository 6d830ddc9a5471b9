"""The passes from a source to a checked recipe, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from types import MappingProxyType

from pemlang.check.assertions import Assertion
from pemlang.check.checked import Checked
from pemlang.check.elaborate import Elaborator
from pemlang.check.files import RecipeFiles, load_files
from pemlang.check.outputs import Output, same_place
from pemlang.check.params import DeclaredParam
from pemlang.check.scope import Scope
from pemlang.check.statements import FileElaborator
from pemlang.check.tests import CheckedTest, Printed
from pemlang.check.values import Follow, Inputs, ParamConstant, Params, unfollowed
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, Report, nearest, visible
from pemlang.graph.dag import Graph
from pemlang.source import Source
from pemlang.syntax import tree as t


@dataclass(eq=False)
class CheckState:
    """A recipe on its way through the passes: each fills what the next ones need.

    Attributes:
        path, source, settings, inputs, root: as `check` takes them.
        report: everything that was said so far.
        files: the recipe and what it imports, parsed.
        scopes: the names of each file.
        elaborator: the graph, and what to look at once weights are read.
        testing: whether its tests are checked too.
        follow: told of each expression and its value.
        outputs, assertions, prints, tests: its saves, asserts, prints and tests.
        params: the value of each param of the main file.
        declared: how each of them is declared.
    """

    path: Path
    source: Source
    settings: Params
    inputs: Inputs
    root: Path
    testing: bool = False
    follow: Follow = unfollowed
    report: Report = field(default_factory=Report)
    files: RecipeFiles = field(init=False)
    scopes: dict[Path, Scope] = field(default_factory=dict)
    elaborator: Elaborator = field(init=False)
    outputs: list[Output] = field(default_factory=list)
    assertions: list[Assertion] = field(default_factory=list)
    prints: list[Printed] = field(default_factory=list)
    tests: list[CheckedTest] = field(default_factory=list)
    params: dict[str, ParamConstant] = field(default_factory=dict)
    declared: dict[str, DeclaredParam] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.files = RecipeFiles()
        self.elaborator = Elaborator(Graph(), self.report, self.inputs, self.follow)

    def finished(self) -> Checked:
        """What the passes leave."""
        scope = self.scopes[self.path]
        return Checked(
            path=self.path,
            source=self.source,
            settings=self.settings,
            diagnostics=tuple(self.report),
            files=self.files,
            graph=self.elaborator.graph,
            leaves=MappingProxyType(self.elaborator.leaves),
            spellings=MappingProxyType(self.elaborator.spellings),
            watches=tuple(self.elaborator.watches),
            outputs=tuple(self.outputs),
            assertions=tuple(self.assertions),
            prints=tuple(self.prints),
            tests=tuple(self.tests),
            params=MappingProxyType(self.params),
            declared=MappingProxyType(self.declared),
            names=MappingProxyType(scope.values),
            places=MappingProxyType(scope.places),
        )


def check(
    path: Path,
    source: Source,
    inputs: Inputs,
    settings: Params | None = None,
    root: Path | None = None,
    testing: bool = False,
    follow: Follow = unfollowed,
) -> Checked:
    """Everything that can be said about a recipe without reading a tensor.

    Args:
        path, source: the recipe.
        inputs: how adapters and models are reached.
        settings: values for its params.
        root: where outputs may lie; the recipe's folder when not given.
        testing: whether the tests of the recipe are checked too.
        follow: told of each expression, in functions each time they are called, and its value;
            what it raises ends the check.
    """
    root = root or source.directory
    state = CheckState(path, source, settings or {}, inputs, root, testing, follow)
    for run in PASSES:
        run(state)
    return state.finished()


def _parse(state: CheckState) -> None:
    state.files = load_files(state.path, state.source, state.report, state.inputs)


def _settings_known(state: CheckState) -> None:
    statements = state.files.trees[state.path].statements
    params = [s.name.name for s in statements if isinstance(s, t.Param)]
    for name in state.settings:
        if name not in params:
            close = nearest(name, params)
            fault = Fault(
                "PEM0211",
                f"the recipe has no param `{visible(name, 40)}` to set",
                f"did you mean `{visible(close)}`?"
                if close
                else (
                    f"set one that there is: {', '.join(params)}"
                    if params
                    else f"leave it out, or declare it: param {visible(name, 40)}: number"
                ),
            )
            state.report.add(fault.at(None))


def _elaborate(state: CheckState) -> None:
    for path in state.files.order():
        if path not in state.files.trees:
            continue
        scope = state.scopes[path] = Scope()
        statements = state.files.trees[path].statements
        for statement in reversed(statements):
            if isinstance(statement, t.Declaration):
                scope.later[statement.name.name] = statement.span
        is_published = path in state.files.published
        FileElaborator(state, scope, path == state.path, is_published).run(statements)


def _outputs_apart(state: CheckState) -> None:
    first: dict[Path, Output] = {}
    below: dict[Path, Output] = {}
    for output in state.outputs:
        target = same_place(output.target)
        others = [first.get(place) for place in (target, *target.parents)]
        for other in (*others, below.get(target)):
            if other is not None:
                state.report.add(_not_apart(output, other))
        first.setdefault(target, output)
        for parent in target.parents:
            below.setdefault(parent, output)


def _not_apart(output: Output, other: Output) -> Diagnostic:
    line, _ = other.span.source.position(other.span.start)
    apart = f"{visible(other.path)!r}: one directory is inside the other"
    same = f"{visible(other.path)!r}, the same directory where case does not count"
    if output.target == other.target:
        same = "the same directory"
    is_same = same_place(output.target) == same_place(other.target)
    fault = Fault(
        "PEM0344",
        f"line {line} saves to {same if is_same else apart}",
        "save each output to a directory of its own",
    )
    return fault.at(output.span)


PASSES: tuple[Callable[[CheckState], None], ...] = (
    _parse,
    _settings_known,
    _elaborate,
    _outputs_apart,
)
