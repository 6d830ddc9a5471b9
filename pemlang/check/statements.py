"""The statements of a file, one after another: what each declares, asserts or saves."""

from __future__ import annotations

from typing import Any

from pemlang.check.checked import Checked
from pemlang.check.conditions import Assertion, Condition, Known, failure, known
from pemlang.check.definitions import check_def
from pemlang.check.elaborate import Declared, leaf, want_kind
from pemlang.check.kinds import article, kind_of_type
from pemlang.check.options import (
    OPTIONS,
    Output,
    heads_agree,
    option_dtype,
    option_heads,
    output_path,
    unknown_option,
)
from pemlang.check.params import Setting, hold_range, setting
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
from pemlang.diagnostics import Fault, visible
from pemlang.graph.node import ModelType, Node
from pemlang.graph.numbers import shown
from pemlang.ops.agree import same_base
from pemlang.ops.record import Context, kind_of
from pemlang.ops.shaping import compress
from pemlang.syntax import tree as t
from pemlang.version import LANGUAGE


class File:
    """The statements of one file, evaluated top to bottom."""

    def __init__(self, checked: Checked, scope: Scope, is_main: bool) -> None:
        self._checked, self._scope, self._is_main = checked, scope, is_main
        self._elaborator, self._report = checked.elaborator, checked.report

    def run(self, statements: tuple[t.Statement, ...]) -> None:
        """Evaluate them; what is wrong with one is reported, and the next is evaluated."""
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
        declared = Declared(statement.name.name, path, source.directory)
        self._elaborator.leaves.setdefault(node, declared)
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
                value: Any = setting(self._checked.settings[name], kind, name)
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
                hold_range(name, kind, value, low, high)
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
        return Known(value.holds(known)) if isinstance(value, Condition) else value

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
        check_def(self._elaborator, statement, self._scope)
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
            failed = failure(found, known)
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
            if heads is not None and not isinstance(node.type, ModelType):
                texts = (statement.value.span.text, self._checked.leaf_name(heads))
                same_base(Context(self._elaborator.graph, texts, "heads"), node, heads)
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
                if option.name not in OPTIONS:
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
