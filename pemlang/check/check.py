"""The passes from a source to a checked recipe, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.elaborate import Elaborator, Loaders
from pemlang.check.options import Output
from pemlang.check.program import load_program
from pemlang.check.scope import Scope
from pemlang.check.statements import File
from pemlang.diagnostics import Diagnostic, Fault, nearest, visible
from pemlang.graph.node import Graph
from pemlang.source import Source
from pemlang.syntax import tree as t


def check(
    path: Path,
    source: Source,
    loaders: Loaders,
    settings: Mapping[str, str | float | bool] | None = None,
    root: Path | None = None,
) -> Checked:
    """Everything that can be said about a recipe without reading a tensor.

    Args:
        path, source: the recipe.
        loaders: how adapters and models are reached.
        settings: values for its params; text is read as the param's type.
        root: where outputs may lie; the recipe's folder when not given.
    """
    loaders.identities.start(source.directory)
    while True:
        checked = Checked(path, source, settings or {}, loaders, root or source.directory)
        for run in PASSES:
            run(checked)
        if not loaders.identities.settle():
            return checked


def _parse(checked: Checked) -> None:
    checked.program = load_program(checked.path, checked.source, checked.report)


def _settings_known(checked: Checked) -> None:
    statements = checked.program.trees[checked.path].statements
    known = [s.name.name for s in statements if isinstance(s, t.Param)]
    for name in checked.settings:
        if name not in known:
            close = nearest(name, known)
            fault = Fault(
                "PEM0211",
                f"the recipe has no param `{visible(name, 40)}` to set",
                f"did you mean `{visible(close)}`?"
                if close
                else (f"its params are {', '.join(known)}" if known else "it has no params"),
            )
            checked.report.add(fault.at(None))


def _elaborate(checked: Checked) -> None:
    checked.elaborator = Elaborator(Graph(), checked.report, checked.loaders)
    for path in checked.program.order():
        if path not in checked.program.trees:
            continue
        scope = checked.scopes[path] = Scope()
        statements = checked.program.trees[path].statements
        for statement in reversed(statements):
            if isinstance(statement, t.Declaration):
                scope.later[statement.name.name] = statement.span
        File(checked, scope, is_main=path == checked.path).run(statements)


def _outputs_apart(checked: Checked) -> None:
    first: dict[Path, Output] = {}
    below: dict[Path, Output] = {}
    for output in checked.outputs:
        target = output.target
        others = [first.get(place) for place in (target, *target.parents)]
        for other in (*others, below.get(target)):
            if other is not None:
                checked.report.add(_not_apart(output, other))
        first.setdefault(target, output)
        for parent in target.parents:
            below.setdefault(parent, output)


def _not_apart(output: Output, other: Output) -> Diagnostic:
    line, _ = other.span.source.position(other.span.start)
    apart = f"{visible(other.path)!r}: one directory is inside the other"
    same = output.target == other.target
    fault = Fault(
        "PEM0344",
        f"line {line} saves to {'the same directory' if same else apart}",
        "save each output to a directory of its own",
    )
    return fault.at(output.span)


PASSES: tuple[Callable[[Checked], None], ...] = (
    _parse,
    _settings_known,
    _elaborate,
    _outputs_apart,
)
