"""Tree to typed graph: every statement evaluated from headers alone, its mistakes collected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field
from fractions import Fraction
from functools import cached_property
from typing import cast

from pemlang.check.annotations import check_annotation, dtype_name, hold_refinement
from pemlang.check.assertions import AssertedPart, Assertion, Trace
from pemlang.check.calls import bind, call_use, chain_use, run_of_terms, written
from pemlang.check.conditions import COMPARABLE, Combined, Comparison, Condition, Decided
from pemlang.check.expansion import Expansion
from pemlang.check.forms import FORMS
from pemlang.check.kinds import article, choose, kind_of_type, not_prefix
from pemlang.check.lists import chosen, for_each, item_of, list_of
from pemlang.check.params import hold_argument
from pemlang.check.scope import Function, Scope, Stop, bare_words
from pemlang.check.selections import selection
from pemlang.check.values import (
    BaseName,
    Declared,
    Follow,
    Inputs,
    Plain,
    Poison,
    RecipeValue,
    Sample,
    Spelling,
)
from pemlang.check.wanted import hold_size, list_kind, want_kind, want_within
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, Report, visible
from pemlang.formats.adapter import Adapter
from pemlang.formats.renamed import names_of
from pemlang.graph.dag import Graph
from pemlang.graph.formula import Formula
from pemlang.graph.leaves import Model, Stored
from pemlang.graph.node import AdapterNode, ModelNode, Num
from pemlang.graph.numbers import shown
from pemlang.graph.types import ModelType
from pemlang.ops import FUNCTIONS, INFIX, PREFIX
from pemlang.ops.merge import FULL
from pemlang.ops.own import applied, hold_own
from pemlang.ops.record import Context, Operator, Parameter, Watch, kind_of
from pemlang.ops.schedule import PerPattern, Schedule
from pemlang.ops.use import Use
from pemlang.source import Span
from pemlang.syntax import tree as t

MAX_STRING = 4096


@dataclass(eq=False)
class Elaborator:
    """Evaluates expressions and declarations into a graph.

    Attributes:
        graph: what is built.
        report: what is wrong.
        inputs: how adapters and models are reached.
        follow: told of each expression and its value.
        watches: comparisons to make once weights are read, with their places.
        claims: what arguments of functions have to be once weights are read.
        leaves: how each adapter leaf is declared, for messages and cards.
        spellings: all the ways in which its place is spelt.
        expansion: the calls it is in.
        is_testing, samples: whether this is a test; what tests draw, with bounds of its numbers.
        filling: the calls that give what fills the matrices of a LoRA; see full_rank.
    """

    graph: Graph
    report: Report
    inputs: Inputs
    follow: Follow
    watches: list[tuple[Watch, Span]] = field(default_factory=list)
    claims: dict[tuple[Span, Num], Assertion] = field(default_factory=dict)
    leaves: dict[Stored, Declared] = field(default_factory=dict)
    spellings: dict[Stored, list[Spelling]] = field(default_factory=dict)
    filling: dict[AdapterNode, tuple[Use, ...] | None] = field(default_factory=dict)
    expansion: Expansion = field(default_factory=Expansion)
    is_testing: bool = False
    samples: dict[Sample, int] = field(default_factory=dict)
    _trace: Trace | None = None

    @cached_property
    def formula(self) -> Formula:
        """Writes values as a reader has them; it keeps what it has written."""
        return Formula(lambda node: self.leaves[node].name)  # type: ignore[index]

    # --- saying what is wrong --------------------------------------------------------------

    @contextmanager
    def at(self, span: Span) -> Iterator[None]:
        """Give a Fault its place, report it, and stop the statement."""
        try:
            yield
        except Fault as fault:
            fault.notes = (*fault.notes, *self.expansion.notes_of(fault, span))
            self.report.add(fault.at(span))
            raise Stop from None

    @contextmanager
    def reporting_to(self, report: Report) -> Iterator[None]:
        """Tell what is wrong inside to another report."""
        before, self.report = self.report, report
        try:
            yield
        finally:
            self.report = before

    @contextmanager
    def testing(self, report: Report) -> Iterator[None]:
        """Evaluate a test, which tells what is wrong to a report of its own."""
        self.is_testing = True
        try:
            with self.reporting_to(report), self.expansion.of_a_test():
                yield
        finally:
            self.is_testing = False

    # --- expressions -----------------------------------------------------------------------

    def value(self, tree: t.Tree, scope: Scope) -> RecipeValue:
        """The value of an expression; raises Stop when something in it is wrong."""
        if self.expansion.places:
            self.count(tree)
        if self._trace is None:
            value: RecipeValue = _EVALUATE[type(tree)](self, tree, scope)
        else:
            with self._trace.part(tree) as part:
                value = _EVALUATE[type(tree)](self, tree, scope)
                part.keep(value)
        self.follow(tree, value)
        return value

    def traced(self, tree: t.Tree, scope: Scope) -> tuple[AssertedPart, Condition]:
        """The truth that an assertion is, and all that it is made from."""
        self._trace = trace = Trace()
        try:
            condition = self.condition(tree, scope)
        finally:
            self._trace = None
        return trace.whole, condition

    def of_kind(self, tree: t.Tree, scope: Scope, *kinds: str) -> RecipeValue:
        """The value of an expression of one of some kinds; reports PEM0301 otherwise."""
        value = self.value(tree, scope)
        with self.at(tree.span):
            want_kind(value, kinds)
        return value

    def number(self, tree: t.Tree, scope: Scope) -> Num:
        """The number that an expression is."""
        return cast("Num", self.of_kind(tree, scope, "number"))

    def text(self, tree: t.Tree, scope: Scope) -> str:
        """The string that an expression is."""
        return cast("str", self.of_kind(tree, scope, "string"))

    def adapter(self, tree: t.Tree, scope: Scope) -> AdapterNode:
        """The adapter that an expression is."""
        return cast("AdapterNode", self.of_kind(tree, scope, "adapter"))

    def condition(self, tree: t.Tree, scope: Scope) -> Condition:
        """The truth that an expression is."""
        return cast("Condition", self.of_kind(tree, scope, "bool"))

    def count(self, tree: t.Tree, steps: int = 1) -> None:
        """Count steps of an expansion; reports PEM0333 where there are too many."""
        if not self.expansion.fits(steps):
            with self.at(tree.span):
                raise self.expansion.too_far()

    def _number(self, tree: t.Number, scope: Scope) -> Fraction:
        return tree.value

    def _bool(self, tree: t.Bool, scope: Scope) -> Condition:
        return Decided(tree.value)

    def string(self, tree: t.String, scope: Scope) -> str:
        parts = []
        for part in tree.parts:
            if isinstance(part, str):
                parts.append(part)
                continue
            value = self.value(part, scope)
            with self.at(part.span):
                if isinstance(value, str):
                    parts.append(value)
                elif isinstance(value, Fraction):
                    parts.append(shown(value))
                else:
                    raise Fault(
                        "PEM0301",
                        f"`{visible(part.name)}` is {article(kind_of(value))}: only a number or a "
                        "string that is known before weights are read can stand in text",
                        "put a param in the braces, or a `let` that is a number",
                    )
        text = "".join(parts)
        with self.at(tree.span):
            if len(text) > MAX_STRING:
                message = f"this text is longer than {MAX_STRING} characters"
                raise Fault("PEM0333", message, "put fewer texts together in it")
        return text

    def _name(self, tree: t.Name, scope: Scope) -> RecipeValue:
        with self.at(tree.span):
            value = scope.look_up(tree)
        if isinstance(value, Poison):
            raise Stop
        if isinstance(value, BaseName):
            declared = Declared(tree.name, value.names[0], value.span.source.directory)
            with self.at(tree.span):
                place, stored = self.inputs.model(declared.path, declared.directory)
            return self.model(declared, value.names[0], value.span, place, stored)
        return value

    def model(
        self, declared: Declared, base: str | None, span: Span, place: str, stored: Adapter
    ) -> ModelNode:
        """The node of a model in files.

        Args:
            declared: how the recipe declares it.
            base: the model that it is, or was tuned from, where that is said.
            span: where its place is written.
            place, stored: what is there; see Inputs.
        """
        type_ = ModelType(base, stored.layout.shapes)
        node = self.graph.add(Model(type_, place + names_of(stored), stored))
        self.declare(node, declared, span)
        return node

    def declare(self, node: Stored, declared: Declared, span: Span) -> None:
        """Take note of how something in files is declared, and where its place is written."""
        self.leaves.setdefault(node, declared)
        spelt = self.spellings.setdefault(node, [])
        spelling = Spelling(declared.path, declared.directory, span)
        spelt += [spelling] * (spelling not in spelt)

    def _chain(self, tree: t.Chain, scope: Scope) -> RecipeValue:
        values = [self.value(operand, scope) for operand in tree.operands]
        spans = [operand.span for operand in tree.operands]
        total, at = values[0], 1
        while at < len(values):
            end = run_of_terms(tree.operators, values, total, at)
            here, span = spans[0].to(spans[at - 1]), spans[0].to(spans[end - 1])
            if end - at > 1:
                terms = cast("list[AdapterNode]", [total, *values[at:end]])
                places = [here, *spans[at:end]]
                total = self._terms(tree.operators[at - 1 : end - 1], terms, places)
            else:
                operator = tree.operators[at - 1]
                places = [here, spans[at]]
                total = self._apply(operator, INFIX, (total, values[at]), places, span)
            at = end
        return total

    def _terms(
        self, operators: Sequence[t.Symbol], values: Sequence[AdapterNode], spans: Sequence[Span]
    ) -> AdapterNode:
        """A chain of + and −, or of ⊕ and ⊖, over adapters, as one value."""
        records = [INFIX[operator.symbol] for operator in operators]
        terms = records[0].terms
        assert terms is not None
        agreed, written = values[0], _written(spans[0])
        use = chain_use(operators, values, spans)
        steps = zip(operators, values[1:], spans[1:], strict=True)
        for at, (operator, value, span) in enumerate(steps, 1):
            ctx = Context(self.graph, (written, _written(span)), operator.symbol, use=use, at=at)
            with self.at(use.whole):
                hold_own(ctx, (agreed, value))
                held = terms.agree(ctx, agreed, value)
            self.watches += [(watch, use.whole) for watch in ctx.watches]
            if held is not agreed:
                agreed, written = held, _written(span)
        signs = [1, *(record.sign for record in records)]
        return terms.total(self.graph, list(zip(signs, values, strict=True)))

    def _unary(self, tree: t.Unary, scope: Scope) -> RecipeValue:
        operand = self.value(tree.operand, scope)
        with self.at(tree.operator.span):
            if tree.operator.symbol not in PREFIX:
                raise not_prefix(tree.operator.symbol)
        return self._apply(tree.operator, PREFIX, (operand,), [tree.operand.span], tree.span)

    def _apply(
        self,
        operator: t.Symbol,
        table: Mapping[str, Operator],
        values: tuple[RecipeValue, ...],
        places: Sequence[Span],
        span: Span,
    ) -> RecipeValue:
        texts = tuple(map(_written, places))
        use = chain_use([operator], values, places)
        ctx = Context(self.graph, texts, operator.symbol, use=use)
        with self.at(span):
            signature = choose(table[operator.symbol], [list_kind(v) for v in values])
            result = applied(signature, ctx, *values)
            if isinstance(result, Schedule):
                hold_size(result)
        self.watches += [(watch, span) for watch in ctx.watches]
        return result

    def _compare(self, tree: t.Compare, scope: Scope) -> Condition:
        left, right = self.value(tree.left, scope), self.value(tree.right, scope)
        kinds = {kind_of(left), kind_of(right)}
        texts = (_written(tree.left.span), _written(tree.right.span))
        with self.at(tree.span):
            if kinds == {"number"}:
                sides = cast("tuple[Num, Num]", (left, right))
                return Comparison(tree.operator.symbol, *sides, texts)
            if kinds == {"string"} and tree.operator.symbol in ("==", "!="):
                return Decided((left == right) == (tree.operator.symbol == "=="))
            raise Fault(
                "PEM0302",
                f"`{tree.operator.symbol}` does not compare "
                f"{' and '.join(article(kind_of(v)) for v in (left, right))}",
                COMPARABLE.get(frozenset(kinds), "compare two numbers"),
            )

    def _logic(self, tree: t.Logic, scope: Scope) -> Condition:
        combined = Combined(tree.word, tuple(self.condition(x, scope) for x in tree.operands))
        with self.at(tree.span):
            hold_size(combined)
        return combined

    def _per(self, tree: t.Per, scope: Scope) -> PerPattern:
        rows: list[tuple[str, Num | Schedule, Span]] = []
        otherwise: Num | Schedule | None = None
        for item in tree.items:
            number = cast("Num | Schedule", self.of_kind(item.value, scope, "number", "schedule"))
            with self.at(item.span):
                if otherwise is not None:
                    raise Fault("PEM0323", "`else` is the last row of `per`", "move it to the end")
            if item.pattern is None:
                otherwise = number
            else:
                rows.append((self.string(item.pattern, scope), number, item.pattern.span))
        places = tuple(place for *_, place in rows)
        return PerPattern(tuple((text, number) for text, number, _ in rows), otherwise, places)

    # --- calls -----------------------------------------------------------------------------

    def _call(self, tree: t.Call, scope: Scope) -> RecipeValue:
        name = tree.function
        if tree.form is not None:
            return FORMS[tree.form](self, tree, scope)
        own = None
        if name.module is not None or name.name in scope.values or name.name not in FUNCTIONS:
            with self.at(name.span):
                own = scope.look_up(name)
            if isinstance(own, Poison):
                raise Stop
            with self.at(name.span):
                if not isinstance(own, Function):
                    message = f"`{visible(name.span.text)}` is not a function"
                    raise Fault("PEM0302", message, "call a `def`, or one that `pem ops` lists")
        args = [written(arg) for arg in tree.args]
        words = {id(word) for word in bare_words(tree, scope)}
        values = [a.span.text if id(a) in words else self.value(a, scope) for a in args]
        if isinstance(own, Function):
            return self._expand(tree, own, args, values)
        return self._builtin(tree, args, values)

    def _builtin(
        self,
        tree: t.Call,
        args: Sequence[t.Tree],
        values: list[RecipeValue],
    ) -> RecipeValue:
        operator = FUNCTIONS[tree.function.name]
        signature = operator.signatures[0]
        if operator.of_models and any(list_kind(x).strip("[]") == "model" for x in values):
            signature = operator.of_models
        with self.at(tree.span):
            bound = bind(signature.params, tree, values)
        order = [*bound.positions, *bound.rest]
        slots = [p for p in signature.params if not p.variadic]
        slots += [signature.params[-1]] * len(bound.rest)
        given: list[object] = []
        for param, index in zip(slots, order, strict=True):
            if index is None:
                given.append(param.default)
                continue
            with self.at(tree.args[index].span):
                want_within(values[index], param, tree.args[index])
            with self.at(args[index].span):
                want_kind(values[index], param.kinds, args[index].span.text)
            given.append(values[index])
        texts = tuple(_written(args[i].span) for i in order if i is not None)
        lists = [arg for arg in args if isinstance(arg, t.ListOf)]
        items = tuple(_written(item.span) for item in lists[0].items) if lists else ()
        use = call_use(tree, values, dict(zip(slots, order, strict=True)))
        ctx = Context(self.graph, texts, tree.function.name, items, use)
        with self.at(tree.span):
            result = applied(signature, ctx, *given)
        self.watches += [(watch, tree.span) for watch in ctx.watches]
        for fault in ctx.noticed:
            self.report.add(fault.at(tree.span, "warning"))
        made = result.as_sum() if isinstance(result, AdapterNode) else ()
        for node in made:  # several where a setting varies by site
            if node.fills and node.name == operator.name:
                calls = self.filling.get(node, ())
                said = calls is None or FULL in given
                self.filling[node] = None if said else (*(calls or ()), use)
        return result

    def _expand(
        self,
        tree: t.Call,
        function: Function,
        args: Sequence[t.Tree],
        values: list[RecipeValue],
    ) -> RecipeValue:
        self.count(tree, 0)  # before the params, which may be many, are looked at once more
        definition, name = function.tree, function.tree.name.name
        params = [
            Parameter(p.name.name, (kind_of_type(p.type),), ... if p.default is None else None)
            for p in definition.params
        ]
        with self.at(tree.span):
            self.expansion.hold_depth()
            bound = bind(params, tree, values)
        inner = function.scope.child()
        with self.expansion.inside(f"in the call of `{visible(name)}`", tree.span):
            for param, index in zip(definition.params, bound.positions, strict=True):
                if index is None:
                    assert param.default is not None
                    given, value = param.default, self.value(param.default, function.scope)
                else:
                    given, value = args[index], values[index]
                self.annotated(value, param.type, given.span, inner)
                if param.name.name in function.ranges:
                    hold_argument(self, function.ranges[param.name.name], value, given, param)
                inner.values[param.name.name] = value
            result = self.value(definition.body, inner)
            if definition.returns is not None:
                self.annotated(result, definition.returns, definition.body.span, inner)
        return result

    def annotated(self, value: RecipeValue, type_: t.Tree, span: Span, scope: Scope) -> None:
        """Hold a value to an annotation; reports PEM0301, PEM0316, PEM0317, PEM0340."""
        with self.at(type_.span):
            kind = kind_of_type(type_)
        with self.at(span):
            want_kind(value, (kind,))
        if isinstance(type_, t.TypeList):
            items = cast("tuple[Plain, ...]", value)
            if self.expansion.places:
                self.count(type_, len(items))
            for item in items:
                self.annotated(item, type_.item, span, scope)
        elif isinstance(type_, t.TypeName) and kind == "adapter":
            refinements: dict[str, RecipeValue] = {}
            for refinement in type_.refinements:
                with self.at(refinement.span):
                    hold_refinement(refinement, refinements)
                tree = refinement.value
                bare = isinstance(tree, t.Name) and refinement.name == "dtype"
                refinements[refinement.name] = tree.span.text if bare else self.value(tree, scope)
                if refinement.name == "dtype":
                    with self.at(tree.span):
                        dtype_name(refinements["dtype"])
            with self.at(type_.span):
                texts = [refinement.span.text for refinement in type_.refinements]
                adapter = cast("AdapterNode", value)
                check_annotation(adapter, type_.name, refinements, _written(span), texts)


def _written(span: Span) -> str:
    """The text of an operand, short enough for a message."""
    text = " ".join(span.source.text[span.start : min(span.end, span.start + 600)].split())
    return text if len(text) <= 60 else text[:57] + "…"


_EVALUATE: dict[type[t.Tree], Callable[..., RecipeValue]] = {
    t.Number: Elaborator._number,
    t.Bool: Elaborator._bool,
    t.String: Elaborator.string,
    t.Name: Elaborator._name,
    t.ListOf: list_of,
    t.ForEach: for_each,
    t.Index: item_of,
    t.If: chosen,
    t.Chain: Elaborator._chain,
    t.Unary: Elaborator._unary,
    t.Compare: Elaborator._compare,
    t.Logic: Elaborator._logic,
    t.Per: Elaborator._per,
    t.Selection: selection,
    t.Call: Elaborator._call,
}
"""What evaluates each kind of expression."""
