"""A first recipe over some adapters and models, for their owner to go on from: `pem init`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from pemlang.diagnostics import Fault
from pemlang.formats.record import output_format
from pemlang.formats.renamed import names_as_in, renamed
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import leaf
from pemlang.modules import PARAMETRISATIONS, SiteShape
from pemlang.ops import FUNCTIONS
from pemlang.ops.fused import same_modules
from pemlang.show.first_input import SUM, WEIGHT, FirstInput, grouped, last_part
from pemlang.show.first_models import Family, families, model_lines
from pemlang.source import Source
from pemlang.syntax.format import formatted
from pemlang.syntax.written import name_like, quoted
from pemlang.version import LANGUAGE


def first_recipe(adapters: Sequence[FirstInput], models: Sequence[FirstInput] = ()) -> str:
    """The text of a recipe, in the one layout, that declares adapters and their bases, and saves a
    sum of those that belong to one base and are of one kind, on its model too where that is among
    the models; and of models the same as model_lines.

    Raises:
        Fault: PEM0111 a path or the name of a base has characters that no recipe shows.
    """
    taken = {*FUNCTIONS, WEIGHT, SUM}

    def named(text: str) -> str:
        name = name_like(text, taken)
        taken.add(name)
        return name

    lines = [f"language {LANGUAGE}", ""]
    groups = families(models, adapters, named)
    alone = len(groups) == 0 or (len(groups) == 1 and groups[0].only_holds_adapters)
    lines += model_lines(groups, named, alone=not adapters)
    if adapters:
        lines += _adapter_lines(adapters, groups, named, alone)
    return formatted(Source("a first recipe", "\n".join([*lines, ""])))


def _adapter_lines(
    adapters: Sequence[FirstInput],
    models: Sequence[Family],
    named: Callable[[str], str],
    alone: bool,
) -> Iterator[str]:
    homes = {one.path: family for family in models for one in family.adapters}
    tuned = {family.base.path for family in models if family.tuned}
    adapters, like = _named_alike(adapters)

    def base_of(one: FirstInput) -> str:
        """What tells the base of an adapter from others."""
        return homes[one.path].base.path if one.path in homes else one.model

    bases_of = grouped(adapters, base_of)
    bases = {family.base.path: family.name for family in models}
    elsewhere = [base for base in bases_of if base and base not in bases]
    bases |= {base: named(base) for base in elsewhere}
    names = {one.path: named(last_part(one.path)) for one in adapters}
    for base in elsewhere:
        spelt = list(dict.fromkeys(one.adapter.base or "" for one in bases_of[base]))
        yield from _base(bases[base], spelt)
    yield from [""] * bool(bases)
    for one in adapters:
        on = f" on {bases[base_of(one)]}" if base_of(one) else ""
        other = f" with names={names[like[one.path]]}" if one.path in like else ""
        yield f"adapter {names[one.path]}{one.type}{on} = {quoted(one.path)}{other}"
    alike = grouped(adapters, lambda one: (base_of(one), one.adapter.layout.shapes.kinds))
    groups = [(key, part) for key, group in alike.items() for part in _fitting(group)]
    only = alone and len(groups) == 1
    for (base, kinds), group in groups:
        words = [SUM, bases.get(base, "")] if len(bases_of) > 1 or not alone else [SUM]
        words += kinds if base in tuned or len(group) < len(bases_of[base]) else []
        result = SUM if only else named("_".join(words))
        yield ""
        yield from _sum(result, [names[one.path] for one in group], group, only)
        if group[0].path in homes and not _chooses_heads(group):
            yield f'save {bases[base]} + {result} to "out/{result}-baked"'


def _named_alike(adapters: Sequence[FirstInput]) -> tuple[list[FirstInput], dict[str, str]]:
    """The same, with the names of one before where that calls all modules of a LoRA of an image
    model otherwise; and the path of that one, by the path."""
    named: list[FirstInput] = []
    like: dict[str, str] = {}
    for one in adapters:
        alike = one.adapter
        for other in named:
            if other.path in like or one.naming == other.naming:
                continue
            try:
                alike = renamed(one.adapter, names_as_in(one.adapter, other.adapter))
            except Fault:
                continue
            like[one.path] = other.path
            break
        named.append(FirstInput(one.path, alike))
    return named, like


def _fitting(adapters: Iterable[FirstInput]) -> list[list[FirstInput]]:
    """Adapters in groups, in each of which a site has one shape, and no module two names, as files
    of two formats may give it; one that adds to a model alone is by itself."""
    groups: list[tuple[list[FirstInput], dict[str, SiteShape]]] = []
    for one in adapters:
        shapes = dict(one.adapter.layout.shapes)
        adds = not any(PARAMETRISATIONS[shape.kind].needs_base for shape in shapes.values())
        for group, known in groups:
            fits = adds and all(known.get(site, shape) == shape for site, shape in shapes.items())
            fits = fits and one.naming == group[0].naming
            if fits and not any(_by_two_names(one, other) for other in group):
                group.append(one)
                known.update(shapes)
                break
        else:
            groups.append(([one], shapes))
    return [group for group, _ in groups]


def _by_two_names(one: FirstInput, other: FirstInput) -> bool:
    graph = Graph()
    left, right = (leaf(graph, x.path, x.adapter, None) for x in (one, other))
    return left.shapes != right.shapes and same_modules(left, right) is not None


def _base(name: str, spellings: Sequence[str]) -> Iterator[str]:
    if len(spellings) == 1:
        yield f"base {name} = {quoted(spellings[0])}"
        return
    yield "# Their configs name it differently: if these are two models, declare them apart."
    yield f"base {name} = [{', '.join(map(quoted, spellings))}]"


def _sum(
    result: str, names: Sequence[str], group: Sequence[FirstInput], alone: bool
) -> Iterator[str]:
    """The statements that add some adapters and save what comes out."""
    layouts = [one.adapter.layout for one in group]
    alike = all(layout.shapes.keys() == layouts[0].shapes.keys() for layout in layouts)
    if len(names) == 1:
        value = names[0]
    elif len(names) == 2 and alone:
        yield f"## How much of the result is {names[0]}."
        yield f"param {WEIGHT}: number in 0..1 = 0.5"
        yield ""
        first, second = f"{WEIGHT} * {names[0]}", f"(1 - {WEIGHT}) * {names[1]}"
        value = f"{first} + {second}" if alike else f"join({first}, {second})"
    else:
        listed = ", ".join(names)
        value = f"mean([{listed}])" if alike else f"1 / {len(names)} * join({listed})"
    yield f"let {result} = {value}"
    yield ""
    if len(names) > 1 and layouts[0].ranks:
        sites = {site for layout in layouts for site in layout.ranks}
        total = max(sum(layout.ranks.get(site, 0) for layout in layouts) for site in sites)
        largest = max(max(layout.ranks.values()) for layout in layouts)
        cut = f"`with rank={largest}` cuts it, and loses as little as can be"
        yield f"# Exactly that, of rank {total}; {cut}."
    with_heads = [name for name, layout in zip(names, layouts, strict=True) if layout.heads]
    heads = f" with heads={with_heads[0]}" if _chooses_heads(group) else ""
    record = output_format([one.adapter for one in group])
    yield f'save {result} to "out/{result}{record.suffix}"{heads}'


def _chooses_heads(group: Sequence[FirstInput]) -> bool:
    """Whether it has to be said of which adapter the heads of a sum are."""
    layouts = [one.adapter.layout for one in group]
    with_heads = len(group) > 1 and any(layout.heads for layout in layouts)
    return with_heads and (_differ(group) or any(layout.of_base for layout in layouts))


def _differ(group: Sequence[FirstInput]) -> bool:
    """Whether the heads of some adapters are not of the same names and shapes."""
    heads = [one.adapter.layout.heads for one in group]
    shapes = [{key: (entry.dtype, entry.shape) for key, entry in each.items()} for each in heads]
    return any(each != shapes[0] for each in shapes)
