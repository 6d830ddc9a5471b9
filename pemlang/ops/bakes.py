"""model + adapter, where the adapter names modules: LoRA and (IA)³ baked into a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence, Set
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.homes import located, tensor_of_head
from pemlang.formats.transformers import is_embedding, is_shared, model_types, stored_as
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Leaf, Model, combined_leaves
from pemlang.graph.node import AdapterNode, ModelNode, Node, Part, TensorsNode
from pemlang.graph.normal import linear
from pemlang.graph.types import AdapterType
from pemlang.modules import Shapes, SiteShape, SiteValues
from pemlang.modules.dense import DENSE
from pemlang.modules.sites import EXPERTS
from pemlang.ops.experts import experts_of, in_parameters
from pemlang.ops.fused import fused_in
from pemlang.ops.models import Bake, hold_base
from pemlang.ops.models import bake as bake_tensors
from pemlang.ops.own import hold_whole
from pemlang.ops.record import Context
from pemlang.tensorfiles.dtypes import FLOATS

if TYPE_CHECKING:
    from pemlang.graph.formula import Formula
    from pemlang.graph.lowering import LoweringContext
    from pemlang.graph.rebuild import Rebuilding
    from pemlang.tensorfiles.safetensors import TensorEntry

Homes = Mapping[str, tuple[str, bool]]
"""The tensors of a model that an adapter changes, each with the site that does, and whether it is
stored as the transpose of what the module computes with."""


@dataclass(frozen=True, eq=False, repr=False)
class ModuleBake(ModelNode):
    """model + adapter, where the adapter has modules.

    Attributes:
        homes: where they are: tensor, site, and whether it is turned.
    """

    kind = "module_bake"
    compound = True

    model: ModelNode
    adapter: AdapterNode
    homes: tuple[tuple[str, str, bool], ...]

    @cached_property
    def home_of(self) -> Homes:
        """The homes by tensor."""
        return {tensor: (site, turned) for tensor, site, turned in self.homes}

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return (self.model, self.adapter)

    def parts(self) -> tuple[Part, ...]:
        return (self.homes,)

    @property
    def whose(self) -> ModelNode:
        return self.model

    def entry(self, site: str) -> TensorEntry:
        return self.model.entry(site)

    def within(self, graph: Graph, add: Callable[[ModelNode], ModelNode]) -> ModelNode | None:
        """What scales a weight scales what was added to it before; factors add to it."""
        if not self.adapter.type.factored:
            return None
        return with_modules(graph, add(self.model), self.adapter, self.home_of)

    def rebuilt(self, new: Rebuilding) -> Node:
        model, x = new.node(self.model), new.adapter(self.adapter)
        return with_modules(new.graph, model, x, dict(self.home_of))

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        weights = args[self.model]
        assert weights is not None
        if ctx.site not in self.home_of:
            return weights
        site, turned = self.home_of[ctx.site]
        part = ctx.at(self.adapter, site)
        if part is None:
            return weights
        [weight], shape = weights.values, self.adapter.shapes[site]
        new = part.parametrisation.baked(ctx.builder, weight, part, shape, turned)
        return weights.with_values(new)

    def formula(self, write: Formula) -> str:
        return f"{write.inner(self.model)} + {write.inner(self.adapter)}"

    @property
    def title(self) -> str:
        return "model + adapter"

    def invariant(self) -> None:
        assert [home[0] for home in self.homes] == sorted(self.home_of), "homes out of order"
        assert set(self.home_of) <= set(self.shapes)
        assert {site for site, _ in self.home_of.values()} == set(self.adapter.shapes)


@dataclass(frozen=True, eq=False, repr=False)
class WithHeads(ModelNode):
    """A model with the modules that an adapter has saved whole in the place of its own.

    Attributes:
        leaf: the adapter.
        heads: the model's tensors, each with its key in the adapter.
    """

    kind = "with_heads"
    compound = True

    model: ModelNode
    leaf: Leaf
    heads: tuple[tuple[str, str], ...]

    @cached_property
    def key_of(self) -> Mapping[str, str]:
        """The keys by tensor."""
        return dict(self.heads)

    @property
    def args(self) -> tuple[TensorsNode, ...]:
        return (self.model, self.leaf)

    def parts(self) -> tuple[Part, ...]:
        return (self.heads,)

    @property
    def whose(self) -> ModelNode:
        return self.model

    def entry(self, site: str) -> TensorEntry:
        return self.model.entry(site)

    def rebuilt(self, new: Rebuilding) -> Node:
        leaf = new.node(self.leaf)
        return new.graph.add(WithHeads(self.type, new.node(self.model), leaf, self.heads))

    def lower(
        self, ctx: LoweringContext, args: Mapping[TensorsNode, SiteValues | None]
    ) -> SiteValues | None:
        key = self.key_of.get(ctx.site)
        weights = args[self.model]
        if key is None or weights is None:
            return weights
        head, rows = ctx.head(self.leaf, key), self.leaf.adapter.layout.rows.get(key)
        if rows is not None:
            head = ctx.builder.put_rows(weights.values[0], head, rows)
        return SiteValues(DENSE, (head,))

    def formula(self, write: Formula) -> str:
        return f"{write.inner(self.model)} with the heads of {write.name(self.leaf)}"

    @property
    def title(self) -> str:
        return "heads put in"

    def invariant(self) -> None:
        assert self.heads == tuple(sorted(self.heads)), "heads out of order"
        layout = self.leaf.adapter.layout
        for tensor, key in self.heads:
            whole = 1 if key in layout.rows else 0
            assert self.shapes[tensor].a[whole:] == layout.heads[key].shape[whole:]


def with_modules(graph: Graph, model: ModelNode, x: AdapterNode, homes: Homes) -> ModelNode:
    """The node of model + adapter, by modules. Laws: m + 0 = m; (m + x) + y = m + (x + y) of
    adapters of one kind. Of two kinds, the second changes what the first has made: the gains of an
    (IA)³ scale a LoRA that was baked before. So it is with two DoRAs, each of which brings what
    is there to its lengths."""
    before = model
    if isinstance(before, ModuleBake) and _add_up(before, x, homes):
        both = {**before.home_of, **homes}
        shapes = Shapes({**before.adapter.shapes, **x.shapes})
        type_ = AdapterType(x.type.base, shapes)
        x = linear(graph, type_, [(Fraction(1), before.adapter), (Fraction(1), x)])
        model, homes = before.model, both
        if isinstance(model, WithHeads) and model.leaf not in combined_leaves(x):
            model = model.model
    if not x.as_sum():
        return model
    written = tuple((tensor, *homes[tensor]) for tensor in sorted(homes))
    return graph.add(ModuleBake(model.type, model, x, written))


def _add_up(before: ModuleBake, x: AdapterNode, homes: Homes) -> bool:
    """Whether a second adapter has the kind of the first, and the same names for modules."""
    first = before.adapter
    sites = {site for site, _ in before.home_of.values()}
    return (
        (len(x.type.kinds) == 1 or x.type.has_factors)
        and not x.type.needs_base
        and x.type.kinds == first.type.kinds
        and all(first.shapes[site] == x.shapes[site] for site in sites & set(x.shapes))
        and all(before.home_of.get(tensor, home) == home for tensor, home in homes.items())
    )


# --- type rule -------------------------------------------------------------------------------


def bake(ctx: Context, model: ModelNode, x: AdapterNode) -> ModelNode:
    """The node of model + adapter.

    Raises:
        Fault: as models.bake for an adapter of tensors; PEM0304 two sites that change one tensor,
            PEM0307 a tensor of another shape, PEM0338 a module that the model does not have,
            PEM0339 one that shares its tensor with another, PEM0346 heads of two adapters, or of
            one where another changes the same tensor, PEM0419 heads of whole numbers.
    """
    if set(x.type.kinds) <= {DENSE.name}:
        for before in _heads_in(model):
            _hold_unchanged(ctx, before.leaf, dict(before.heads), set(x.shapes))
        return bake_tensors(ctx, model, x)
    hold_base(ctx, model, x)
    hold_whole(ctx, x)
    leaf = _with_heads(ctx, model, x)
    heads = {} if leaf is None else {tensor_of_head(k): k for k in leaf.adapter.layout.heads}
    weight_of = {site: _weight(site, shape) for site, shape in x.shapes.items()}
    _hold_apart(model, list(weight_of.values()))
    if leaf is not None:
        _hold_heads_apart(model, leaf, heads)
    try:
        place = located(model.shapes, [*weight_of.values(), *heads])
    except Fault as fault:
        raise _of_other_modules(ctx, model, x, fault) from None
    if leaf is not None:
        replaced = {place[tensor]: key for tensor, key in heads.items()}
        _hold_heads(ctx, model, leaf, replaced)
        _hold_unchanged(ctx, leaf, replaced, _changed_in(model))
        model = ctx.graph.add(WithHeads(model.type, model, leaf, tuple(sorted(replaced.items()))))
    homes: dict[str, tuple[str, bool]] = {}
    for site, weight in weight_of.items():
        for tensor, home in _homes(ctx, model, x, site, place[weight]).items():
            if tensor in homes:
                raise Fault(
                    "PEM0304",
                    f"{visible(site)} and {visible(homes[tensor][0])} of `{ctx.text(1)}` both "
                    f"change {visible(tensor)}",
                    "add the two to the model one after the other: b + x + y",
                )
            homes[tensor] = home
    for node in _heads_in(model):
        whole = {t: k for t, k in node.heads if k not in node.leaf.adapter.layout.copies}
        _hold_unchanged(ctx, node.leaf, whole, homes.keys())
    return with_modules(ctx.graph, model, x, homes)


def _of_other_modules(ctx: Context, model: ModelNode, x: AdapterNode, fault: Fault) -> Fault:
    """The same fault, with what to write where a model has in one what an adapter has apart, or the
    other way round."""
    fused = fused_in(x, model)
    if fused is not None:
        return Fault(fault.code, fault.message, fused.help(ctx.graph), [fused.note])
    together = {site.rpartition(".")[0] for site in in_parameters(x.shapes)}
    apart = {experts for site in x.shapes if (experts := experts_of(site))}
    for tensor in model.shapes:
        if experts_of(tensor) in together:
            return Fault(
                fault.code,
                fault.message,
                "save the model with one parameter for all experts, as transformers 5 has it: "
                "model.save_pretrained(directory, save_original_format=False)",
                [f"the model has each expert by itself: {visible(tensor)}"],
            )
        if tensor.rpartition(".")[0] in apart:
            return Fault(
                fault.code,
                fault.message,
                "save the model with each expert by itself, as transformers 4 had it: in "
                "transformers 5 model.save_pretrained(directory) does",
                [f"the model has all experts in one parameter: {visible(tensor)}"],
            )
    return fault


def _weight(site: str, shape: SiteShape) -> str:
    """The tensor that a site changes, as its adapter's base names it."""
    return site if shape.layer in (DENSE.name, EXPERTS) else f"{site}.weight"


def _homes(
    ctx: Context, model: ModelNode, x: AdapterNode, site: str, weight: str
) -> dict[str, tuple[str, bool]]:
    """The tensors that a site changes: a weight, and the bias of outputs that are scaled; raises
    PEM0307."""
    shape, record = x.shapes[site], x.type.record(site)
    bias = f"{weight.removesuffix('.weight')}.bias"
    tensors = [weight]
    if shape.layer == "gain_out" and bias in model.shapes:
        tensors.append(bias)
    homes = {}
    for tensor in tensors:
        stored = model.shapes[tensor].a
        ways = record.orientations(shape, stored)
        if not ways:
            raise Fault(
                "PEM0307",
                f"{visible(site)} is {shape} in `{ctx.text(1)}`, and {visible(tensor)} of "
                f"`{ctx.text(0)}` is {'×'.join(map(str, stored))}",
                "give the model that the adapter was trained on",
            )
        homes[tensor] = (site, ways[0] if len(ways) == 1 else _turned(model, x, site, tensor))
    return homes


# The models of transformers whose experts are (in, out): `is_transposed` there.
_EXPERTS_TURNED = frozenset(("gpt_oss", "aria_text", "openai_privacy_filter"))


def _turned(model: ModelNode, x: AdapterNode, site: str, tensor: str) -> bool:
    """Whether a square tensor is stored transposed: by the model's config, and where that names no
    architecture with such modules, by the adapter's. Of experts, by the model's alone."""
    origin = model.origin.adapter
    if x.shapes[site].layer == EXPERTS:
        return not _EXPERTS_TURNED.isdisjoint(model_types(origin.fields))
    if model_types(origin.fields):
        return stored_as(origin, tensor) == "conv1d"
    return any(leaf.adapter.fan_in_fan_out for leaf in combined_leaves(x))


# --- heads -----------------------------------------------------------------------------------


def _with_heads(ctx: Context, model: ModelNode, x: AdapterNode) -> Leaf | None:
    """The adapter whose heads go into the model; raises PEM0346 where two have some."""
    leaves = [leaf for leaf in combined_leaves(x) if isinstance(leaf, Leaf)]
    having = [leaf for leaf in leaves if leaf.adapter.layout.heads]
    before = [node.leaf for node in _heads_in(model)]
    if len(having) > 1 or (having and before and before != having):
        raise Fault(
            "PEM0346",
            f"several adapters in `{ctx.text(0)} + {ctx.text(1)}` have weights that are saved "
            "whole, such as heads (modules_to_save), and a model has one of each",
            "save the sum of the adapters with heads=NAME, and add what that gives to the model; "
            "or add what each changes: b + (((b + x) - b) + ((b + y) - b))",
        )
    return having[0] if having and not before else None


def _within(model: ModelNode) -> Iterator[ModelNode]:
    """A model, and what it is made from by what was added to it, the last first."""
    yield model
    while inner := [arg for arg in model.args if isinstance(arg, ModelNode)]:
        model = inner[0]
        yield model


def _heads_in(model: ModelNode) -> list[WithHeads]:
    """Where heads of adapters are in a model already."""
    return [node for node in _within(model) if isinstance(node, WithHeads)]


def _changed_in(model: ModelNode) -> set[str]:
    """The tensors of a model that adapters have changed before."""
    changed: set[str] = set()
    for node in _within(model):
        if isinstance(node, ModuleBake):
            changed |= node.home_of.keys()
        elif isinstance(node, Bake):
            changed |= node.adapter.shapes.keys()
    return changed


def _hold_unchanged(
    ctx: Context, leaf: Leaf, replaced: Mapping[str, str], changed: Set[str]
) -> None:
    """Raise PEM0346 for a tensor that a head takes the place of and another adapter changes: the
    output would have one of the two, by the order in which they are written."""
    both = sorted(replaced.keys() & changed)
    if both:
        copied = all(replaced[tensor] in leaf.adapter.layout.copies for tensor in both)
        raise Fault(
            "PEM0346",
            f"in `{ctx.text(0)} + {ctx.text(1)}` one adapter has {listed(both)} whole, and another "
            "changes it",
            "save the first without its copy of the base: "
            "model.save_pretrained(directory, save_embedding_layers=False)"
            if copied
            else 'select what the other changes, as in (m - b)["*.layers.*"]; or add what both '
            "change, in brackets: b + (((b + x) - b) + (m - b))",
        )


def copied_over(nodes: Iterable[Node], declared: Container[Node]) -> Iterator[Fault]:
    """PEM0711 for each model among some nodes in which a copy of its base's own weights, which PEFT
    saves beside a LoRA on an embedding, takes the place of tuned ones. `declared` are the models
    that a recipe declares beside their bases."""
    for node in nodes:
        if not isinstance(node, WithHeads) or node.type.base is None:
            continue
        copies = [t for t, key in node.heads if key in node.leaf.adapter.layout.copies]
        *_, first = _within(node)
        if copies and (not isinstance(first, Model) or first in declared):
            yield Fault(
                "PEM0711",
                f"the adapter in {visible(node.leaf.adapter.place.name)} has its base's own "
                f"{listed(copies)}, which takes the place of what the model was tuned to",
                "save the adapter without that copy: "
                "model.save_pretrained(directory, save_embedding_layers=False)",
            )


def _hold_heads(ctx: Context, model: ModelNode, leaf: Leaf, replaced: Mapping[str, str]) -> None:
    """Raise PEM0307 for a head of another shape than the model's own, PEM0419 for one of whole
    numbers."""
    entries = leaf.adapter.layout.heads
    for tensor, key in replaced.items():
        own, new = model.shapes[tensor].a, entries[key].shape
        last = max(leaf.adapter.layout.rows.get(key, (-1,)))
        if last >= own[0]:
            raise Fault(
                "PEM0307",
                f"`{ctx.text(1)}` has a row for token {last} in {visible(tensor)}, which has "
                f"{own[0]:,} in `{ctx.text(0)}`",
                "load the model with as many tokens as the adapter has, and save it",
            )
        if key in leaf.adapter.layout.rows:
            new = (own[0], *new[1:])
        if own != new:
            raise Fault(
                "PEM0307",
                f"{visible(tensor)} is {'×'.join(map(str, own))} in `{ctx.text(0)}`, and "
                f"{'×'.join(map(str, new))} among the heads of `{ctx.text(1)}`",
                "load the model with as many labels or tokens as the adapter has, and save it",
            )
        if entries[key].dtype not in FLOATS:
            raise Fault(
                "PEM0419",
                f"{visible(key)} of `{ctx.text(1)}` is of dtype {entries[key].dtype}",
                f"save it as one of {', '.join(FLOATS)}",
            )


def _hold_heads_apart(model: ModelNode, leaf: Leaf, heads: Mapping[str, str]) -> None:
    """As `_hold_apart`, but for rows of an embedding, which PEFT puts into what it is tied to too;
    raises PEM0339 too for such rows where the model ties nothing."""
    layout = leaf.adapter.layout
    embeddings = [x for x, key in heads.items() if key in layout.rows and is_embedding(x)]
    _hold_apart(model, [tensor for tensor in heads if tensor not in embeddings])
    apart = [x for x in embeddings if not is_shared(model.origin.adapter, x)]
    if layout.tied_rows and apart:
        raise Fault(
            "PEM0339",
            f"the adapter has one set of rows for {listed(apart)} and for the output layer, and "
            "the model does not tie the two",
            "give the model that the adapter was trained on",
        )


def _hold_apart(model: ModelNode, wanted: Sequence[str]) -> None:
    """Raise PEM0339 for a tensor of an adapter's base that is two modules' in the model."""
    shared = {tensor for tensor in wanted if is_shared(model.origin.adapter, tensor)}
    if shared:
        raise Fault(
            "PEM0339",
            f"{listed(sorted(shared))} would change, and the model ties it: the embedding and the "
            "output layer are one tensor in its files, and the adapter was trained on one of the "
            "two",
            "leave the module out of the adapter; or untie the model in transformers: give its "
            "output layer a copy of the weight, set config.tie_word_embeddings to False, save it",
        )
