"""Models of other tokens and other tensors brought together: `m[like b]`, and `join` of models.

Rows of embeddings and of output layers are matched by token, as mergekit's `tokenizer_source` does:
a token that a model lacks gets the row that the model it is brought to has for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.disk import is_dir
from pemlang.formats.transformers import StoredModel, is_of_tokens, token_rows
from pemlang.formats.vocabulary import Vocabulary, hold_growing, rest_of, runs, tells_tokens
from pemlang.graph.formula import count
from pemlang.graph.node import ModelNode, Node, TensorsNode
from pemlang.graph.types import ModelType
from pemlang.modules import Shapes, SiteValues
from pemlang.ops.mend import operand
from pemlang.ops.names import two_names
from pemlang.ops.record import Context

if TYPE_CHECKING:
    from pemlang.formats.vocabulary import Run
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.tensorfiles.safetensors import TensorEntry


@dataclass(frozen=True, eq=False, repr=False)
class ModelLike(ModelNode):
    """The tensors of a model that another has too, with the tokens of that one.

    Attributes:
        model: whose tensors they are.
        like: whose tokens they have, and the rows of those that the model lacks.
    """

    kind = "model_like"

    model: ModelNode
    like: ModelNode

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return (self.model, self.like)

    @property
    def whose(self) -> ModelNode:
        return self.like

    def entry(self, site: str) -> TensorEntry:
        entry = self.like.entry(site)
        shape = self.shapes[site].a
        return entry if entry.whole == shape else replace(entry, shape=shape)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(ModelLike(self.type, new.node(self.model), new.node(self.like)))

    @cached_property
    def _rows(self) -> frozenset[str]:
        return matched_by_token(self.model, self.like)

    @cached_property
    def _runs(self) -> Sequence[Run]:
        return own_runs(self.model, self.like)

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        own, other = args[self.model], args[self.like]
        assert own is not None and other is not None
        rows = self.shapes[ctx.site].a[0] if ctx.site in self._rows else 0
        same = self.model.shapes[ctx.site] == self.shapes[ctx.site]
        if not rows or (same and tuple(self._runs) == ((0, 0, rows),)):
            return own
        both = (tuple(self._runs), rest_of(self._runs, rows))
        return own.with_values(
            ctx.builder.gather_rows([own.values[0], other.values[0]], both, rows)
        )

    def formula(self, write: Formula) -> str:
        return f"{write.inner(self.model)}[like {write.value(self.like)}]"

    def invariant(self) -> None:
        assert self.model is not self.like, "x[like x], which is x"
        assert self.shapes.keys() == self.model.shapes.keys() & self.like.shapes.keys()


@dataclass(frozen=True, eq=False, repr=False)
class JoinedModels(ModelNode):
    """The first of some models with the tokens of all. The row of a token that it lacks is the mean
    of the rows that the others have for it.

    Attributes:
        models: the models.
    """

    kind = "join_models"

    models: tuple[ModelNode, ...]

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return self.models

    @property
    def whose(self) -> ModelNode:
        return self.models[0]

    @cached_property
    def joined(self) -> Vocabulary:
        return joined_vocabulary(self.models)

    def entry(self, site: str) -> TensorEntry:
        entry = self.models[0].entry(site)
        shape = self.shapes[site].a
        return entry if entry.whole == shape else replace(entry, shape=shape)

    def rebuilt(self, new: Rebuilding) -> Node:
        return new.graph.add(JoinedModels(self.type, tuple(map(new.node, self.models))))

    @cached_property
    def _runs(self) -> tuple[tuple[Run, ...], ...]:
        first, *others = self.models
        known = vocabulary_of(first).numbers
        new = {t: number for t, number in self.joined.numbers.items() if t not in known}
        taken = [(number, number, 1) for number in new.values()]
        of_others = []
        for other in others:
            numbers = _within(other).numbers
            places = [(number, numbers[token]) for token, number in new.items() if token in numbers]
            of_others.append(runs(sorted(places)))
        return (rest_of(taken, _rows_of(first)), *of_others)

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        parts = [args[model] for model in self.models]
        values = [part.values[0] for part in parts if part is not None]
        first = parts[0]
        assert first is not None
        if self.shapes[ctx.site] == self.models[0].shapes[ctx.site] and not self._grows(ctx.site):
            return first
        rows = self.shapes[ctx.site].a[0]
        return first.with_values(ctx.builder.gather_rows(values, self._runs, rows))

    def _grows(self, site: str) -> bool:
        return any(site in matched_by_token(self.models[0], x) for x in self.models[1:])

    def formula(self, write: Formula) -> str:
        return f"join({', '.join(write.value(model) for model in self.models)})"

    @property
    def name(self) -> str:
        return "join"

    def invariant(self) -> None:
        assert len(self.models) > 1
        assert self.models[0].shapes.keys() == self.shapes.keys()


# --- tokens ----------------------------------------------------------------------------------


def _rows_of(model: ModelNode) -> int:
    """The rows of its embedding of tokens; 0 where no name tells which tensor that is."""
    return token_rows(model.shapes) or 0


def matched_by_token(x: ModelNode, y: ModelNode) -> frozenset[str]:
    """The tensors of two models that have a row for each token: the embedding and the output layer
    by their names, and where the two have not as many rows, what else has as many as they."""
    rows, others = _rows_of(x), _rows_of(y)
    if not rows or not others:
        return frozenset()
    return frozenset(
        site
        for site, shape in x.shapes.items()
        if site in y.shapes
        if shape.a[:1] == (rows,) and y.shapes[site].a == (others, *shape.a[1:])
        if rows != others or is_of_tokens(site)
    )


def vocabulary_of(model: ModelNode) -> Vocabulary:
    """The tokens of a model; raises Fault PEM0357 where no file tells them."""
    if model.joined is not None:
        return model.joined
    stored = model.origin.adapter
    assert isinstance(stored, StoredModel)
    return stored.vocabulary


def _within(model: ModelNode) -> Vocabulary:
    """The tokens of a model that have a row."""
    vocabulary, rows = vocabulary_of(model), _rows_of(model)
    numbers = {token: number for token, number in vocabulary.numbers.items() if number < rows}
    return replace(vocabulary, numbers=numbers)


def own_runs(model: ModelNode, like: ModelNode) -> Sequence[Run]:
    """The rows of `like` whose tokens a model has, and where it has them; raises Fault PEM0357.

    Where neither has a tokenizer, or a lock alone is at hand, rows of one number are of one token.
    """
    rows, others = _rows_of(like), _rows_of(model)
    places = [model.origin.adapter.directory, like.origin.adapter.directory]
    told = any(map(tells_tokens, places))
    if not all(map(is_dir, places)) or (rows == others and not told):
        return ((0, 0, min(rows, others)),)
    return vocabulary_of(like).runs_from(vocabulary_of(model), rows, others)


def joined_vocabulary(models: Sequence[ModelNode]) -> Vocabulary:
    """The tokens of all of some models, after those of the first; raises Fault PEM0357."""
    first = models[0]
    hold_growing(first.origin.adapter.directory, vocabulary_of(first), _rows_of(first))
    return vocabulary_of(first).joined([_within(model) for model in models[1:]])


# --- type rules ------------------------------------------------------------------------------


def model_like(ctx: Context, x: ModelNode, y: ModelNode) -> ModelNode:
    """The node of x[like y]. Law: x[like x] = x.

    Raises:
        Fault: PEM0320 they have no tensor in common; PEM0357 no file tells which token a row is of.
    """
    if x is y:
        return x
    shared = [site for site in x.shapes if site in y.shapes]
    if not shared:
        message = "the two models have no tensor in common"
        raise Fault("PEM0320", message, "select like a model of the same architecture")
    rows = matched_by_token(x, y)
    if rows:
        own_runs(x, y)
    shapes = {site: (y if site in rows else x).shapes[site] for site in shared}
    base = x.type.base if x.type.base is not None else y.type.base
    return ctx.graph.add(ModelLike(ModelType(base, Shapes(shapes)), x, y))


def join_models(ctx: Context, *models: ModelNode) -> ModelNode:
    """The node of join(m, n, …). Law: join(m, n) = m where n has no token that m has not.

    Raises:
        Fault: as _of_tokens; PEM0357 no file tells which token a row is of, or tokens cannot be
            added to the first.
    """
    first = models[0]
    grown = _of_tokens(ctx, models)
    if len(models) == 1:
        return first
    vocabulary = joined_vocabulary(models)
    if vocabulary.new == (first.joined.new if first.joined else ()):
        return first
    rows = max(_rows_of(first), vocabulary.next)
    new = {site: first.shapes[site]._replace(a=(rows, *first.shapes[site].a[1:])) for site in grown}
    type_ = ModelType(first.type.base, Shapes({**first.shapes, **new}))
    return ctx.graph.add(JoinedModels(type_, models))


def _of_tokens(ctx: Context, models: Sequence[ModelNode]) -> frozenset[str]:
    """The tensors of the first of some models that get a row for each token of the others.

    Raises:
        Fault: PEM0307 another has none to take rows from, PEM0357 no name tells which they are.
    """
    first, *others = models
    rows = _rows_of(first)
    if not rows:
        raise Fault(
            "PEM0357",
            f"no tensor of `{ctx.text(0)}` is called as embeddings of tokens are",
            "join models of transformers that read tokens",
        )
    own = frozenset(x for x in first.shapes if is_of_tokens(x) and first.shapes[x].a[0] == rows)
    grown = own.union(*(matched_by_token(first, other) for other in others))
    for index, other in enumerate(others, 1):
        for site in sorted(grown):
            wanted = first.shapes[site]._replace(a=(_rows_of(other), *first.shapes[site].a[1:]))
            held = other.shapes.get(site)
            if held != wanted:
                raise Fault(
                    "PEM0307",
                    f"{visible(site)} is {first.shapes[site]} in `{ctx.text(0)}` and "
                    f"{held or 'missing'} in `{ctx.text(index)}`, whose tokens have "
                    f"{_rows_of(other)} rows",
                    "join models of one architecture and one width",
                )
    return grown


def _unlike(x: ModelNode, y: ModelNode) -> list[str]:
    """The tensors of two models whose shapes differ in more than rows of tokens."""
    rows = matched_by_token(x, y)
    both = [site for site in x.shapes if site in y.shapes and site not in rows]
    return [site for site in both if x.shapes[site] != y.shapes[site]]


def apart(ctx: Context, x: ModelNode, y: ModelNode) -> Fault:
    """PEM0307: what tells the tensors of two models from each other, and what to write instead."""
    differ = _unlike(x, y) or [s for s in x.shapes if s in y.shapes and x.shapes[s] != y.shapes[s]]
    extra = [site for site in x.shapes if site not in y.shapes]
    lacking = [site for site in y.shapes if site not in x.shapes]
    told = [
        f"`{ctx.text(index)}` has {count(len(sites), 'tensor')} that `{ctx.text(1 - index)}` does "
        f"not have: {listed(sites)}"
        for index, sites in enumerate((extra, lacking))
        if sites
    ]
    if differ:
        shapes = f"{x.shapes[differ[0]]} in `{ctx.text(0)}` and {y.shapes[differ[0]]} in"
        told.insert(0, f"{visible(differ[0])} is {shapes} `{ctx.text(1)}`")
        told += [f"{len(differ)} tensors differ so"] if len(differ) > 1 else []
    twins = two_names(x, y) if extra or lacking else None
    if twins is not None:
        return Fault("PEM0307", told[0], twins.help(ctx.graph), (*told[1:], twins.note))
    if _unlike(x, y) or len(extra) == len(x.shapes):
        help = "give models of one architecture: their tokens may differ, and the tensors one lacks"
        return Fault("PEM0307", told[0], help, tuple(told[1:]))
    if differ:
        try:
            own_runs(x, y)
        except Fault as fault:
            return Fault("PEM0307", told[0], fault.help, (*told[1:], fault.message))
        told.append("x[like y] has the tokens of y; join(y, x) is y with the tokens of both")
    return Fault("PEM0307", told[0], _brought_together(ctx, differ, extra, lacking), told[1:])


def _brought_together(
    ctx: Context, differ: Sequence[str], extra: Sequence[str], lacking: Sequence[str]
) -> str:
    """The use of two models with what both have, and with the tokens of one."""
    use = ctx.use if ctx.use is not None and len(ctx.use.operands) == 2 else None
    left, right = (ctx.text(i) if use is None else use.text(i) for i in (0, 1))
    texts = [left, right]
    if extra or differ:
        texts[0] = f"{operand(left)}[like {right}]"
    if lacking:
        texts[1] = f"{operand(right)}[like {texts[0]}]"
    whole = use.with_operands(texts) if use is not None else None
    return whole or f"write {' and '.join(texts)} in the place of {left} and {right}"
