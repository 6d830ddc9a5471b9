"""The statements of a file, one after another: what each declares, asserts or saves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypedDict, cast

from pemlang.check.assertions import Assertion, failure
from pemlang.check.conditions import Condition, Decided, exactly
from pemlang.check.declared import as_declared
from pemlang.check.definitions import check_def
from pemlang.check.forms import is_sample
from pemlang.check.full_rank import rank_not_said
from pemlang.check.kinds import kind_of_type
from pemlang.check.options import (
    OPTIONS,
    WORDS,
    hold_option,
    option_heads,
    option_shard,
    option_tokenizer,
    saved_with,
    says_word,
    unknown_option,
)
from pemlang.check.outputs import (
    HEADS,
    Output,
    doubtful,
    heads_agree,
    hold_dtypes,
    hold_files,
    hold_suffix,
    hold_whole,
    output_path,
)
from pemlang.check.params import DeclaredParam, declared_range, setting
from pemlang.check.published import HUB
from pemlang.check.readers import hold_reader
from pemlang.check.scope import Function, Module, Scope, Stop, resolve_names
from pemlang.check.tests import CheckedTest, Printed
from pemlang.check.values import (
    POISON,
    BaseName,
    Declared,
    ParamConstant,
    Poison,
    RecipeValue,
)
from pemlang.check.wanted import want_kind, want_value
from pemlang.diagnostics import Fault, Report, visible
from pemlang.formats.readers import OutputReader
from pemlang.formats.record import Format
from pemlang.formats.renamed import names_of
from pemlang.graph.leaves import Leaf, Model, Stored, leaf
from pemlang.graph.node import AdapterNode, ModelNode, Num, NumberNode
from pemlang.graph.numbers import shown
from pemlang.ops.agree import same_base
from pemlang.ops.bakes import copied_over
from pemlang.ops.bases import declared_with, likeness
from pemlang.ops.compress import compress
from pemlang.ops.merge import FULL
from pemlang.ops.own import hold_own
from pemlang.ops.record import Context, kind_of
from pemlang.ops.use import Use
from pemlang.source import Span
from pemlang.syntax import tree as t
from pemlang.version import LANGUAGE

if TYPE_CHECKING:
    from pemlang.check.check import CheckState


class SaveOptions(TypedDict, total=False):
    """The options of a `save`."""

    rank: Num | str
    energy: Num
    dtype: str
    heads: Leaf
    shard: int
    tokenizer: Model
    format: Format
    reader: OutputReader
    heads_by: str


class FileElaborator:
    """Evaluates the statements of one file, top to bottom."""

    def __init__(
        self, state: CheckState, scope: Scope, is_main: bool, is_published: bool = False
    ) -> None:
        self._state, self._scope = state, scope
        self._is_main, self._is_published = is_main, is_published
        self._elaborator, self._report = state.elaborator, state.report
        self._titles: set[str] = set()
        self._others: dict[Span, tuple[str, tuple[str, ...], list[tuple[str, str, Span]]]] = {}

    def run(self, statements: tuple[t.Statement, ...]) -> None:
        """Evaluate them; what is wrong with one is reported, and the next is evaluated."""
        for index, statement in enumerate(statements):
            value: RecipeValue = POISON
            try:
                if isinstance(statement, t.Language):
                    self._language(statement, index)
                else:
                    value = _EVALUATE[type(statement)](self, statement)
            except Stop:
                pass
            self._state.assertions += self._elaborator.claims.values()
            self._elaborator.claims.clear()
            if isinstance(statement, t.Declaration):
                self._scope.declare(statement.name, value, self._report)
        self._tell_other_bases()

    def _tell_other_bases(self) -> None:
        """Report PEM0305 of each adapter whose config names another base than it is declared on,
        with the one declaration that has the names of all of them."""
        for name, names, found in self._others.values():
            known = list(dict.fromkeys([*names, *(own for own, _, _ in found)]))
            help = declared_with(name, known)
            for own, message, span in found:
                self._report.add(Fault("PEM0305", message, help, likeness(own, names)).at(span))

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

    def _import(self, statement: t.Import) -> RecipeValue:
        path = self._state.files.imports.get(statement)
        scope = None if path is None else self._state.scopes.get(path)
        module: RecipeValue = POISON if scope is None else Module(scope)
        if not statement.hands_on:
            given = [*statement.names, *filter(None, [statement.alias])]
            self._scope.imported |= {name.name for name in given}
        if statement.alias is not None:
            self._scope.declare(statement.alias, module, self._report)
        for name in statement.names:
            value: RecipeValue = POISON
            if path is not None and isinstance(module, Module):
                dotted = statement.module if isinstance(statement.module, tuple) else (path.name,)
                try:
                    with self._elaborator.at(name.span):
                        value = module.member(name.name, ".".join(dotted))
                except Stop:
                    pass
            self._scope.declare(name, value, self._report)
        return POISON

    def _base(self, statement: t.Base) -> BaseName:
        resolve_names(statement.identity, self._scope, self._report)
        value = self._elaborator.of_kind(statement.identity, self._scope, "string", "[string]")
        names = (value,) if isinstance(value, str) else cast("tuple[str, ...]", value)
        with self._elaborator.at(statement.identity.span):
            if not names or not all(names):
                help = 'write one, as in base llama = "huggyllama/llama-7b"'
                raise Fault("PEM0312", "a base needs a name", help)
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

    def _adapter(self, statement: t.AdapterStatement) -> RecipeValue:
        resolve_names(statement.path, self._scope, self._report)
        base = self._on(statement.base)
        path = self._elaborator.text(statement.path, self._scope)
        directory = statement.span.source.directory
        with self._elaborator.at(statement.path.span):
            self._hold_reachable(statement, path)
            place, adapter = self._state.inputs.adapter(path, directory)
            own = adapter.base
        if base is not None and own is not None and own not in base.names:
            assert statement.base is not None
            told_in = adapter.format.described_in
            message = (
                f"its {told_in} says it belongs to {visible(own)!r}, not to "
                f"{visible(base.names[0])!r}"
            )
            others = self._others.setdefault(base.span, (statement.base.name, base.names, []))
            others[2].append((own, message, statement.path.span))
            raise Stop
        adapter = as_declared(self._elaborator, statement, self._scope, adapter)
        graph, place = self._elaborator.graph, place + names_of(adapter)
        node = leaf(graph, place, adapter, own if base is None else base.names[0])
        graph.declared.setdefault(node, statement.span)
        declared = Declared(statement.name.name, path, directory)
        self._elaborator.declare(node, declared, statement.path.span)
        if statement.type is not None:
            self._elaborator.annotated(node, statement.type, statement.name.span, self._scope)
        return node

    def _model(self, statement: t.ModelStatement) -> RecipeValue:
        resolve_names(statement.path, self._scope, self._report)
        base = self._on(statement.base)
        path = self._elaborator.text(statement.path, self._scope)
        with self._elaborator.at(statement.path.span):
            declared = Declared(statement.name.name, path, statement.span.source.directory)
            named = base.names[0] if base else None
            self._hold_reachable(statement, path)
            place, stored = self._state.inputs.model(path, declared.directory)
        stored = as_declared(self._elaborator, statement, self._scope, stored)
        node = self._elaborator.model(declared, named, statement.path.span, place, stored)
        self._elaborator.graph.declared.setdefault(node, statement.span)
        return node

    def _hold_reachable(self, statement: t.Declaration, path: str) -> None:
        """Raise PEM0391 where a published recipe names what is on this machine: it is read on
        others, of which it knows nothing."""
        if self._is_published and not path.startswith(HUB):
            raise Fault(
                "PEM0391",
                f"a published recipe names {visible(path, 80)}, a path of this machine",
                f'name one on the hub, "{HUB}org/name@revision", or make a function of it that '
                "takes the adapter",
            )

    def _param(self, statement: t.Param) -> RecipeValue:
        with self._elaborator.at(statement.type.span):
            kind = kind_of_type(statement.type)
            if kind not in ("number", "string", "bool"):
                help = "write the type as number, string or bool"
                raise Fault("PEM0212", "a param is a number, a string or a bool", help)
        default = None if statement.default is None else self._known(statement.default, kind)
        within = declared_range(self._elaborator, statement, kind, self._scope)
        declared = DeclaredParam(kind, within, default, statement)
        name = statement.name.name
        if self._is_main:
            self._state.declared[name] = declared
        if self._is_main and name in self._state.settings:
            with self._elaborator.at(statement.name.span):
                value: ParamConstant = setting(self._state.settings[name], kind, name)
        elif default is None:
            with self._elaborator.at(statement.span):
                raise Fault(
                    "PEM0213",
                    f"`{visible(name)}` has no value: it has no default",
                    f"give it one: pem build … --set {visible(name)}=…"
                    if self._is_main
                    else "give it a default: --set reaches the params of the main file only",
                )
        else:
            value = default
        with self._elaborator.at(statement.span):
            declared.hold(name, value)
        if self._is_main:
            self._state.params[name] = value
        return value

    def _known(self, tree: t.Tree, kind: str) -> ParamConstant:
        resolve_names(tree, self._scope, self._report)
        value = self._elaborator.value(tree, self._scope)
        with self._elaborator.at(tree.span):
            want_kind(value, (kind,))
            if isinstance(value, NumberNode) or (isinstance(value, Condition) and value.measured()):
                raise Fault(
                    "PEM0212",
                    "this is measured from weights; a param is known before they are read",
                    f"write a {kind}, or use `let`",
                )
        if isinstance(value, Condition):
            return Decided(value.holds(exactly))
        return cast("ParamConstant", value)

    def _let(self, statement: t.Let) -> RecipeValue:
        resolve_names(statement.value, self._scope, self._report)
        value = self._elaborator.value(statement.value, self._scope)
        with self._elaborator.at(statement.value.span):
            want_value(value)
        if statement.type is not None:
            self._elaborator.annotated(value, statement.type, statement.value.span, self._scope)
        if is_sample(statement.value) and isinstance(value, Stored):
            leaves = self._elaborator.leaves
            leaves[value] = leaves[value]._replace(name=statement.name.name)
        return value

    def _unread(self, statement: t.Unread) -> RecipeValue:
        return POISON

    def _def(self, statement: t.Def) -> RecipeValue:
        ranges = check_def(self._elaborator, statement, self._scope)
        return Function(statement, self._scope, ranges)

    def _assert(self, statement: t.Assert) -> RecipeValue:
        resolve_names(statement.condition, self._scope, self._report)
        whole, condition = self._elaborator.traced(statement.condition, self._scope)
        message = None
        if statement.message is not None:
            resolve_names(statement.message, self._scope, self._report)
            message = self._elaborator.text(statement.message, self._scope)
        assertion = Assertion(condition, message, statement.span, whole)
        if condition.measured():
            self._state.assertions.append(assertion)
        else:
            failed = failure(assertion, exactly)
            if failed is not None:
                self._report.add(failed)
        return POISON

    def _print(self, statement: t.Print) -> RecipeValue:
        resolve_names(statement.value, self._scope, self._report)
        value = self._elaborator.value(statement.value, self._scope)
        with self._elaborator.at(statement.value.span):
            want_value(value)
        if isinstance(value, tuple):
            self._elaborator.count(statement.value, len(value))
        if self._is_main:
            self._state.prints.append(Printed(value, statement.value.span))
        return POISON

    def _test(self, statement: t.Test) -> RecipeValue:
        title = self._elaborator.string(statement.title, self._scope)
        with self._elaborator.at(statement.title.span):
            if any(isinstance(part, t.Name) for part in statement.title.parts) or not title.strip():
                raise Fault("PEM0382", "a test is called by a plain text", 'test "name" { … }')
            if title in self._titles:
                message = f"two tests are called {visible(title, 60)!r}"
                raise Fault("PEM0201", message, "choose another name")
            self._titles.add(title)
        if self._is_main and self._state.testing:
            self._state.tests.append(self._checked(statement, title))
        return POISON

    def _checked(self, statement: t.Test, title: str) -> CheckedTest:
        """A test, whose names are its own, and whose mistakes are no mistakes of the file."""
        inner = copy.copy(self._state)
        inner.report, inner.assertions, inner.prints = Report(), [], []
        with self._elaborator.testing(inner.report):
            FileElaborator(inner, self._scope.child(), is_main=True).run(statement.statements)
        wrong = tuple(inner.report)
        return CheckedTest(title, statement.span, inner.assertions, inner.prints, wrong)

    def _save(self, statement: t.Save) -> RecipeValue:
        with self._elaborator.at(statement.span):
            if not self._is_main:
                raise Fault(
                    "PEM0215",
                    "an imported file saves nothing: only the recipe being built does",
                    "move the `save` into that recipe, or remove it",
                )
        resolve_names(statement.value, self._scope, self._report)
        resolve_names(statement.path, self._scope, self._report)
        value = self._elaborator.of_kind(statement.value, self._scope, "adapter", "model")
        node = cast("AdapterNode | ModelNode", value)
        path = self._elaborator.text(statement.path, self._scope)
        options = self._options(statement, node)
        rank, energy = options.get("rank"), options.get("energy")
        label = " ".join(statement.value.span.text.split())
        graph = self._elaborator.graph
        with self._elaborator.at(statement.span):
            if energy is not None or rank not in (None, FULL):
                adapter = cast("AdapterNode", node)
                values = {option.name: option.value.span for option in statement.options}
                ctx = Context(graph, (label,), "save", use=Use(statement.span, values=values))
                hold_own(ctx, (adapter,))
                node = compress(ctx, adapter, rank, energy)  # type: ignore[arg-type]
                for fault in ctx.noticed:
                    self._report.add(fault.at(statement.span, "warning"))
        if rank is None and isinstance(node, AdapterNode):
            self._hold_rank_said(statement, node)
        with self._elaborator.at(statement.path.span):
            target = output_path(path, self._state.root, self._state.root)
        heads = options.get("heads")
        output = Output(
            node,
            path,
            target,
            options.get("dtype"),
            heads,
            statement.span,
            label,
            options.get("shard"),
            options.get("tokenizer"),
            options.get("format"),
            options.get("reader"),
            options.get("heads_by", ""),
        )
        with self._elaborator.at(statement.span):
            if isinstance(node, AdapterNode):
                self._hold_adapter(statement, output)
            else:
                hold_whole(node)
                if "dtype" not in options:
                    hold_dtypes(graph, node, self._name, partial(saved_with, statement))
                for doubt in copied_over(graph.order([node]), graph.declared):
                    self._report.add(doubt.at(statement.span, "warning"))
        with self._elaborator.at(statement.path.span):
            hold_suffix(output.format_of(graph), path, statement.path.span.text)
        self._state.outputs.append(output)
        return POISON

    def _hold_adapter(self, statement: t.Save, output: Output) -> None:
        """Hold an adapter to what its heads, its files and its reader allow."""
        graph, heads = self._elaborator.graph, output.heads
        if heads is not None:
            texts = (statement.value.span.text, self._name(heads))
            same_base(Context(graph, texts, "heads"), output.node, heads)  # type: ignore[arg-type]
        lenders = heads_agree(graph, output, self._name)
        hold_files(output, graph, lenders)
        hold_reader(output, graph, lenders, partial(saved_with, statement))
        doubt = doubtful(graph.parts(output.node), output.node.shapes)
        if doubt is not None:
            self._report.add(doubt.at(statement.span, "warning"))

    def _hold_rank_said(self, statement: t.Save, node: AdapterNode) -> None:
        wrong = list(rank_not_said(statement, node, self._elaborator.filling))
        for fault, place in wrong:
            self._report.add(fault.at(place))
        if wrong:
            raise Stop

    def _name(self, leaf: Stored) -> str:
        return self._elaborator.leaves[leaf].name

    def _options(self, statement: t.Save, saved: AdapterNode | ModelNode) -> SaveOptions:
        options: SaveOptions = {}
        for option in statement.options:
            with self._elaborator.at(option.span):
                if option.name in options:
                    message = f"`{option.name}` is given twice"
                    raise Fault("PEM0318", message, "leave one of them out")
                if option.name not in OPTIONS:
                    raise unknown_option(option, "save", OPTIONS)
                hold_option(option, kind_of(saved))
            if option.name in WORDS:
                with self._elaborator.at(option.value.span):
                    word = WORDS[option.name](option.value)
                options[option.name] = word  # type: ignore[literal-required]
                continue
            if option.name == "rank" and says_word(option.value, (FULL,), self._scope.values):
                options["rank"] = FULL
                continue
            if option.name == "heads" and says_word(option.value, HEADS, self._scope.values):
                options["heads_by"] = option.value.span.text
                continue
            resolve_names(option.value, self._scope, self._report)
            if option.name == "heads":
                value = self._elaborator.value(option.value, self._scope)
                with self._elaborator.at(option.value.span):
                    leaves = self._elaborator.leaves
                    options["heads"] = option_heads(value, option.value.span.text, leaves)
            elif option.name == "shard":
                text = self._elaborator.text(option.value, self._scope)
                with self._elaborator.at(option.value.span):
                    options["shard"] = option_shard(text)
            elif option.name == "tokenizer":
                value = self._elaborator.value(option.value, self._scope)
                with self._elaborator.at(option.value.span):
                    assert isinstance(saved, ModelNode)
                    models, said = self._elaborator.leaves, option.value.span.text
                    options["tokenizer"] = option_tokenizer(value, said, saved, models)
            else:
                number = self._elaborator.number(option.value, self._scope)
                options[option.name] = number  # type: ignore[literal-required]
        return options


_EVALUATE: dict[type[t.Statement], Callable[..., RecipeValue]] = {
    t.Import: FileElaborator._import,
    t.Base: FileElaborator._base,
    t.AdapterStatement: FileElaborator._adapter,
    t.ModelStatement: FileElaborator._model,
    t.Param: FileElaborator._param,
    t.Let: FileElaborator._let,
    t.Unread: FileElaborator._unread,
    t.Def: FileElaborator._def,
    t.Assert: FileElaborator._assert,
    t.Print: FileElaborator._print,
    t.Test: FileElaborator._test,
    t.Save: FileElaborator._save,
}
"""What evaluates each kind of statement but `language`."""
