"""The passes from a source to a checked recipe, in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from pemlang.check.conditions import Condition, Known
from pemlang.check.elaborate import Elaborator, Loaders, leaf, want_kind
from pemlang.check.kinds import article, kind_of_type
from pemlang.check.options import (
    Output,
    heads_agree,
    option_dtype,
    option_heads,
    output_path,
    unknown_option,
)
from pemlang.check.program import Program, load_program
from pemlang.check.scope import (
    POISON,
    BaseName,
    Function,
    Module,
    Poison,
    Scope,
    Stop,
    resolve_names,
)
from pemlang.diagnostics import Diagnostic, Fault, Report, nearest, visible
from pemlang.graph.node import Graph, ModelType, Node, Num
from pemlang.graph.numbers import shown
from pemlang.ops.record import Context, Watch, kind_of
from pemlang.ops.shaping import compress
from pemlang.source import Source, Span
from pemlang.syntax import tree as t
from pemlang.syntax.builder import number_value
from pemlang.version import LANGUAGE

Setting = Fraction | str | Condition

# The value of a number that is not measured: itself.
_EXACT: Callable[[Any], Fraction] = lambda number: number  # noqa: E731
_NUMBER = re.compile(r"(-?)(\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?)", re.ASCII)


@dataclass(frozen=True)
class Assertion:
    """An `assert` of the recipe."""

    condition: Condition
    message: str | None
    span: Span


@dataclass
class Checked:
    """A recipe that has been through the passes.

    Attributes:
        path, source: the recipe.
        settings: values given for its params.
        loaders, root: how files are reached; where outputs may lie.
        report: everything found.
        program: its files, parsed.
        scopes: the names of each file.
        elaborator: the graph, and what to look at once weights are read.
        outputs, assertions: its saves and asserts.
        params: the value of each param of the main file.
    """

    path: Path
    source: Source
    settings: Mapping[str, str | float | bool]
    loaders: Loaders
    root: Path
    report: Report = field(default_factory=Report)
    program: Program = field(init=False)
    scopes: dict[Path, Scope] = field(default_factory=dict)
    elaborator: Elaborator = field(init=False)
    outputs: list[Output] = field(default_factory=list)
    assertions: list[Assertion] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.elaborator.graph

    @property
    def scope(self) -> Scope:
        return self.scopes[self.path]

    @property
    def watches(self) -> list[tuple[Watch, Span]]:
        return self.elaborator.watches

    def leaf_name(self, node: Node) -> str:
        """What the recipe calls an adapter."""
        return self.elaborator.leaves.get(node, ("?", ""))[0]


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
    checked = Checked(path, source, settings or {}, loaders, root or source.directory)
    for run in PASSES:
        run(checked)
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
    for output in checked.outputs:
        for other in first.values():
            same = output.target == other.target
            if same or _inside(output.target, other.target):
                line, _ = other.span.source.position(other.span.start)
                apart = f"{visible(other.path)!r}: one directory is inside the other"
                fault = Fault(
                    "PEM0344",
                    f"line {line} saves to {'the same directory' if same else apart}",
                    "save each output to a directory of its own",
                )
                checked.report.add(fault.at(output.span))
        first.setdefault(output.target, output)


def _inside(one: Path, two: Path) -> bool:
    return one.is_relative_to(two) or two.is_relative_to(one)


PASSES: tuple[Callable[[Checked], None], ...] = (
    _parse,
    _settings_known,
    _elaborate,
    _outputs_apart,
)


class File:
    """The statements of one file, evaluated top to bottom."""

    def __init__(self, checked: Checked, scope: Scope, is_main: bool) -> None:
        self._checked, self._scope, self._is_main = checked, scope, is_main
        self._elaborator, self._report = checked.elaborator, checked.report

    def run(self, statements: tuple[t.Statement, ...]) -> None:
        for index, statement in enumerate(statements):
            value: Any = POISON
            try:
                if isinstance(statement, t.Language):
                    self._language(statement, index)
                else:
                    value = getattr(self, f"_{type(statement).__name__.lower()}")(statement)
            except Stop:
                pass
            if isinstance(statement, t.Declaration):
                self._scope.declare(statement.name, value, self._report)

    def _language(self, statement: t.Language, index: int) -> None:
        with self._elaborator.at(statement.span):
            if statement.version.value != LANGUAGE:
                raise Fault(
                    "PEM0113",
                    f"this is language {shown(statement.version.value)}, pemlang reads language "
                    f"{LANGUAGE}",
                    f"language {LANGUAGE}",
                )
            if index > 0:
                raise Fault("PEM0113", "`language` is the first statement of a file", "move it up")

    def _import(self, statement: t.Import) -> None:
        found = self._checked.program.imports.get(statement)
        scope = None if found is None else self._checked.scopes.get(found)
        module = POISON if scope is None else Module(scope)
        if statement.alias is not None:
            self._scope.declare(statement.alias, module, self._report)
        for name in statement.names:
            value: Any = POISON
            if found is not None and isinstance(module, Module):
                std = isinstance(statement.module, tuple)
                try:
                    with self._elaborator.at(name.span):
                        value = module.member(name.name, f"std.{found.stem}" if std else found.name)
                except Stop:
                    pass
            self._scope.declare(name, value, self._report)

    def _base(self, statement: t.Base) -> BaseName:
        resolve_names(statement.identity, self._scope, self._report)
        value = self._elaborator.of_kind(statement.identity, self._scope, "string", "[string]")
        names = (value,) if isinstance(value, str) else tuple(value)
        with self._elaborator.at(statement.identity.span):
            if not names or not all(names):
                raise Fault("PEM0312", "a base needs a name", 'base llama = "huggyllama/llama-7b"')
        return BaseName(names, statement.span)

    def _on(self, name: t.Name | None) -> BaseName | None:
        if name is None:
            return None
        with self._elaborator.at(name.span):
            value = self._scope.look_up(name)
            if isinstance(value, Poison):
                raise Stop
            if not isinstance(value, BaseName):
                raise Fault(
                    "PEM0301",
                    f"`{name.name}` is not a base",
                    'declare one: base llama = "huggyllama/llama-7b"',
                )
        return value

    def _adapter(self, statement: t.Adapter) -> Node:
        resolve_names(statement.path, self._scope, self._report)
        base = self._on(statement.base)
        path = self._elaborator.of_kind(statement.path, self._scope, "string")
        source = statement.span.source
        with self._elaborator.at(statement.path.span):
            key, adapter = self._checked.loaders.adapter(path, source.directory)
            own = adapter.config.base
            if base is not None and own is not None and own not in base.names:
                names = ", ".join(f'"{visible(name)}"' for name in (*base.names, own))
                assert statement.base is not None
                raise Fault(
                    "PEM0305",
                    f"its adapter_config.json says it belongs to {visible(own)!r}, not to "
                    f"{visible(base.names[0])!r}",
                    "if the two names mean one model, declare it with both: "
                    f"base {statement.base.name} = [{names}]",
                )
        identity = base.names[0] if base is not None else own
        node = leaf(self._elaborator.graph, key, adapter, identity)
        self._elaborator.leaves.setdefault(node, (statement.name.name, path))
        if statement.type is not None:
            self._elaborator.annotated(node, statement.type, statement.name.span, self._scope)
        return node

    def _model(self, statement: t.Model) -> Node:
        resolve_names(statement.path, self._scope, self._report)
        base = self._on(statement.base)
        path = self._elaborator.of_kind(statement.path, self._scope, "string")
        with self._elaborator.at(statement.path.span):
            directory = statement.span.source.directory
            key, shapes = self._checked.loaders.model(path, directory)
        type_ = ModelType(base.names[0] if base else None, shapes)
        return self._elaborator.graph.add("model", (), (key,), type_)

    def _param(self, statement: t.Param) -> Setting:
        with self._elaborator.at(statement.type.span):
            kind = kind_of_type(statement.type)
            if kind not in ("number", "string", "bool"):
                raise Fault(
                    "PEM0212", "a param is a number, a string or a bool", "param weight: number"
                )
        default = None if statement.default is None else self._known(statement.default, kind)
        name = statement.name.name
        if self._is_main and name in self._checked.settings:
            with self._elaborator.at(statement.name.span):
                value: Any = _setting(self._checked.settings[name], kind, name)
        elif default is None:
            with self._elaborator.at(statement.span):
                raise Fault(
                    "PEM0213",
                    f"`{visible(name)}` has no value: it has no default",
                    f"pem build … --set {visible(name)}=…"
                    if self._is_main
                    else "give it a default: --set reaches the params of the main file only",
                )
        else:
            value = default
        if statement.low is not None and statement.high is not None:
            low, high = self._known(statement.low, "number"), self._known(statement.high, "number")
            with self._elaborator.at(statement.span):
                _hold_range(name, kind, value, low, high)
        if self._is_main:
            self._checked.params[name] = value
        return value  # type: ignore[no-any-return]

    def _known(self, tree: t.Tree, kind: str) -> Any:
        resolve_names(tree, self._scope, self._report)
        value = self._elaborator.value(tree, self._scope)
        with self._elaborator.at(tree.span):
            want_kind(value, (kind,))
            if isinstance(value, Node) or (isinstance(value, Condition) and value.measured()):
                raise Fault(
                    "PEM0212",
                    "this is measured from weights; a param is known before they are read",
                    f"write a {kind}, or use `let`",
                )
        return Known(value.holds(_EXACT)) if isinstance(value, Condition) else value

    def _let(self, statement: t.Let) -> Any:
        resolve_names(statement.value, self._scope, self._report)
        value = self._elaborator.value(statement.value, self._scope)
        with self._elaborator.at(statement.value.span):
            how = {"function": "call it: name(…)", "module": "name what is in it: module.name"}
            if kind_of(value) in how:
                message = f"{article(kind_of(value))} is no value"
                raise Fault("PEM0301", message, how[kind_of(value)])
        if statement.type is not None:
            self._elaborator.annotated(value, statement.type, statement.value.span, self._scope)
        return value

    def _unread(self, statement: t.Unread) -> Any:
        return POISON

    def _def(self, statement: t.Def) -> Function:
        self._elaborator.check_def(statement, self._scope)
        return Function(statement, self._scope)

    def _assert(self, statement: t.Assert) -> None:
        resolve_names(statement.condition, self._scope, self._report)
        condition: Condition = self._elaborator.of_kind(statement.condition, self._scope, "bool")
        message = None
        if statement.message is not None:
            resolve_names(statement.message, self._scope, self._report)
            message = self._elaborator.of_kind(statement.message, self._scope, "string")
        found = Assertion(condition, message, statement.span)
        if condition.measured():
            self._checked.assertions.append(found)
        else:
            failed = failure(found, _EXACT)
            if failed is not None:
                self._report.add(failed)

    def _save(self, statement: t.Save) -> None:
        with self._elaborator.at(statement.span):
            if not self._is_main:
                raise Fault(
                    "PEM0215",
                    "an imported file saves nothing: only the recipe being built does",
                    "move the `save` into that recipe, or remove it",
                )
        resolve_names(statement.value, self._scope, self._report)
        resolve_names(statement.path, self._scope, self._report)
        node = self._elaborator.of_kind(statement.value, self._scope, "adapter", "model")
        path = self._elaborator.of_kind(statement.path, self._scope, "string")
        options = self._options(statement)
        rank, energy = options.get("rank"), options.get("energy")
        with self._elaborator.at(statement.span):
            if rank is not None or energy is not None:
                want_kind(node, ("adapter",))
                text = " ".join(statement.value.span.text.split())
                ctx = Context(self._elaborator.graph, (text,), "save")
                node = compress(ctx, node, rank, energy)
        with self._elaborator.at(statement.path.span):
            out = self._checked.root
            target = output_path(path, out, out)
        heads = options.get("heads")
        with self._elaborator.at(statement.span):
            if not isinstance(node.type, ModelType):
                heads_agree(self._elaborator.graph, node, heads, self._checked.leaf_name)
        self._checked.outputs.append(
            Output(
                node, path, target, options.get("dtype"), heads, statement.span,
                " ".join(statement.value.span.text.split()),
            )
        )  # fmt: skip

    def _options(self, statement: t.Save) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for option in statement.options:
            with self._elaborator.at(option.span):
                if option.name in found:
                    raise Fault("PEM0318", f"`{option.name}` is given twice")
                if option.name not in ("rank", "energy", "dtype", "heads"):
                    raise unknown_option(option.name)
                if option.name == "dtype":
                    found["dtype"] = option_dtype(option.value)
                    continue
            resolve_names(option.value, self._scope, self._report)
            if option.name == "heads":
                value = self._elaborator.value(option.value, self._scope)
                with self._elaborator.at(option.value.span):
                    found["heads"] = option_heads(value, option.value.span.text)
            else:
                found[option.name] = self._elaborator.of_kind(option.value, self._scope, "number")
        return found


def _known(number: Num) -> Fraction:
    assert isinstance(number, Fraction)  # a condition that is not measured has no other
    return number


def failure(assertion: Assertion, value: Callable[[Any], Fraction]) -> Diagnostic | None:
    """The diagnostic of an assertion that does not hold, with both values; None when it does."""
    if assertion.condition.holds(value):
        return None
    said = f"{visible(assertion.message)}" if assertion.message else "this does not hold"
    return Diagnostic(
        "PEM0501",
        "error",
        f"assertion failed: {said}",
        assertion.span,
        None,
        tuple(assertion.condition.sides(value)),
    )


def _hold_range(name: str, kind: str, value: Any, low: Fraction, high: Fraction) -> None:
    if kind != "number":
        raise Fault("PEM0212", f"a {kind} has no range", "remove `in …`")
    if low > high:
        raise Fault(
            "PEM0212",
            f"no number lies in {shown(low)}..{shown(high)}",
            f"in {shown(high)}..{shown(low)}",
        )
    if not low <= value <= high:
        raise Fault(
            "PEM0214",
            f"`{visible(name)}` is {shown(value)}, outside {shown(low)}..{shown(high)}",
            f"a value from {shown(low)} to {shown(high)}",
        )


def _setting(value: str | float | bool, kind: str, name: str) -> Setting:
    """A value given from outside as the param's kind; raises PEM0212."""
    if kind == "bool":
        if isinstance(value, bool) or value in ("true", "false"):
            return Known(value in (True, "true"))
    elif kind == "string" and isinstance(value, str):
        return value
    elif kind == "number" and not isinstance(value, bool):
        found = _NUMBER.fullmatch(str(value).strip())
        if found is not None:
            return number_value(found[2]) * (-1 if found[1] else 1)
    raise Fault(
        "PEM0212",
        f"{visible(repr(value), 40)} is not a {kind}, which `{visible(name)}` is",
        {"bool": "true or false", "number": "a number such as 0.6"}.get(kind),
    )
