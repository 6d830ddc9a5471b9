"""A first recipe over some adapters, for their owner to go on from: `pem init`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from pemlang.dataclass import dataclass
from pemlang.formats import Adapter
from pemlang.modules import SiteShape
from pemlang.ops import FUNCTIONS
from pemlang.source import Source
from pemlang.syntax.format import formatted
from pemlang.syntax.written import name_like, quoted
from pemlang.version import LANGUAGE

_WEIGHT, _SUM = "weight", "merged"

Key = TypeVar("Key")


@dataclass(frozen=True)
class FirstAdapter:
    """An adapter of a first recipe.

    Attributes:
        path: where it is, as the recipe writes it.
        adapter: what its headers say.
    """

    path: str
    adapter: Adapter

    @property
    def model(self) -> str:
        """What its base is most likely the same model by: the last part of its name."""
        return _last_part(self.adapter.base or "").casefold()

    @property
    def type(self) -> str:
        """What a declaration says of it after a colon, if it can be said in a word or two."""
        kinds, ranks = self.adapter.layout.shapes.kinds, set(self.adapter.layout.ranks.values())
        if len(kinds) > 1:
            return ""
        return f": {kinds[0]}(rank={ranks.pop()})" if len(ranks) == 1 else f": {kinds[0]}"


def first_recipe(adapters: Sequence[FirstAdapter]) -> str:
    """The text of a recipe, in the one layout, that declares adapters and their bases, and saves a
    sum of those that belong to one base and are of one kind.

    Raises:
        Fault: PEM0111 a path or the name of a base has characters that no recipe shows.
    """
    taken = {*FUNCTIONS, _WEIGHT, _SUM}

    def named(text: str) -> str:
        name = name_like(text, taken)
        taken.add(name)
        return name

    models = _grouped(adapters, lambda one: one.model)
    bases = {model: named(model) for model in models if model}
    names = {one.path: named(_last_part(one.path)) for one in adapters}
    lines = [f"language {LANGUAGE}", ""]
    for model, base in bases.items():
        lines += _base(base, list(dict.fromkeys(one.adapter.base or "" for one in models[model])))
    lines += [""] * bool(bases)
    for one in adapters:
        on = f" on {bases[one.model]}" if one.model else ""
        lines.append(f"adapter {names[one.path]}{one.type}{on} = {quoted(one.path)}")
    alike = _grouped(adapters, lambda one: (one.model, one.adapter.layout.shapes.kinds))
    groups = [(key, part) for key, group in alike.items() for part in _fitting(group)]
    for (model, kinds), group in groups:
        words = [_SUM, bases.get(model, "")] if len(models) > 1 else [_SUM]
        words += kinds if len(group) < len(models[model]) else []
        result = _SUM if len(groups) == 1 else named("_".join(words))
        lines += ["", *_sum(result, [names[one.path] for one in group], group, len(groups) == 1)]
    return formatted(Source("a first recipe", "\n".join([*lines, ""])))


def _grouped(
    adapters: Iterable[FirstAdapter], key: Callable[[FirstAdapter], Key]
) -> dict[Key, list[FirstAdapter]]:
    groups: dict[Key, list[FirstAdapter]] = {}
    for one in adapters:
        groups.setdefault(key(one), []).append(one)
    return groups


def _fitting(adapters: Iterable[FirstAdapter]) -> list[list[FirstAdapter]]:
    """Adapters in groups, in each of which a site has one shape."""
    groups: list[tuple[list[FirstAdapter], dict[str, SiteShape]]] = []
    for one in adapters:
        shapes = dict(one.adapter.layout.shapes)
        for group, known in groups:
            if all(known.get(site, shape) == shape for site, shape in shapes.items()):
                group.append(one)
                known.update(shapes)
                break
        else:
            groups.append(([one], shapes))
    return [group for group, _ in groups]


def _base(name: str, spellings: Sequence[str]) -> Iterator[str]:
    if len(spellings) == 1:
        yield f"base {name} = {quoted(spellings[0])}"
        return
    yield "# Their configs name it differently: if these are two models, declare them apart."
    yield f"base {name} = [{', '.join(map(quoted, spellings))}]"


def _sum(
    result: str, names: Sequence[str], group: Sequence[FirstAdapter], alone: bool
) -> Iterator[str]:
    """The statements that add some adapters and save what comes out."""
    layouts = [one.adapter.layout for one in group]
    alike = all(layout.shapes.keys() == layouts[0].shapes.keys() for layout in layouts)
    if len(names) == 1:
        value = names[0]
    elif len(names) == 2 and alone:
        yield f"## How much of the result is {names[0]}."
        yield f"param {_WEIGHT}: number in 0..1 = 0.5"
        yield ""
        first, second = f"{_WEIGHT} * {names[0]}", f"(1 - {_WEIGHT}) * {names[1]}"
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
    heads = f" with heads={with_heads[0]}" if with_heads and _differ(group) else ""
    yield f'save {result} to "out/{result}"{heads}'


def _differ(group: Sequence[FirstAdapter]) -> bool:
    """Whether the heads of some adapters are not of the same names and shapes."""
    heads = [one.adapter.layout.heads for one in group]
    shapes = [{key: (entry.dtype, entry.shape) for key, entry in each.items()} for each in heads]
    return any(each != shapes[0] for each in shapes)


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2].partition("@")[0]
