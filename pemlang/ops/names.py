"""Adapters, and models, that call the same modules by two names, and what brings them together."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import permutations

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.formats.namings import NAMINGS, NEW, Naming, named, rules_text
from pemlang.formats.record import names_format
from pemlang.formats.renamed import names_as_in
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import Stored, combined_leaves
from pemlang.graph.node import TensorsNode
from pemlang.modules.sites import layer_start
from pemlang.ops.use import after, replaced

MOST_DECLARED = 3
"""Declarations that help shows."""


@dataclass(frozen=True, eq=False)
class TwoNames:
    """What looks like two names of the same modules.

    Attributes:
        x: the adapter that is to have the names of the other.
        names: the other's names of its sites, by its own.
        naming: the rule that explains them, where one does.
    """

    x: TensorsNode
    names: Mapping[str, str]
    naming: Naming | None

    @property
    def note(self) -> str:
        """What it is, in words."""
        old, new = next(iter(self.names.items()))
        whose = f": {self.naming.seen} have the second" if self.naming else ""
        return f"{visible(old)} and {visible(new)} look like two names of one module{whose}"

    def help(self, graph: Graph) -> str:
        """What to write where they are."""
        return declared_so(graph, self.x, self.names, self._text) or (
            "give the adapters one name for each module where they are declared, with "
            'names={ "old.*": "new.*" }'
        )

    def _text(self, leaf: Stored) -> str | None:
        """What gives an adapter the names of the other."""
        mine = {old: new for old, new in self.names.items() if old in leaf.shapes}
        if self.naming is not None and _says(self.naming.word, leaf, mine):
            return f'"{self.naming.word}"'
        return rules_text(mine)


def declared_so(
    graph: Graph, x: TensorsNode, modules: Collection[str], names: Callable[[Stored], str | None]
) -> str | None:
    """What to write where some modules of an adapter have another's names, or are in parts there;
    None where that cannot be shown.

    Args:
        graph: of both.
        x: that has them.
        modules: the modules.
        names: what `names=` is to say of one in files; None where that cannot be written.
    """
    leaves = [leaf for leaf in combined_leaves(x) if not leaf.shapes.keys().isdisjoint(modules)]
    texts = []
    for leaf in leaves:
        span, text = graph.declared.get(leaf), names(leaf)
        if span is not None and text is not None and leaf.adapter.stored is None:
            texts.append(replaced(span, [after(span, f" with names={text}")]))
    if not leaves or len(texts) < len(leaves) or len(texts) > MOST_DECLARED or None in texts:
        return None
    so = f"where these are the same modules, declare {'them' if len(texts) > 1 else 'it'} so: "
    return so + "; ".join(filter(None, texts))


def two_names(left: TensorsNode, right: TensorsNode) -> TwoNames | None:
    """What looks like two names of the same modules in two adapters, or two models: of more than
    half of the sites that one has alone, a known renaming gives one that the other has alone, of
    the same shape; or they are the same from the number of the layer on, below one more name or
    one less, as model.layers.0.q and model.language_model.layers.0.q are.

    Names that a recipe states are the author's word: they are not changed again, and a site that
    keeps its name by such a rule is no other's.
    """
    kept = kept_names(left) | kept_names(right)
    sides = [(x, y) for x, y in permutations((left, right)) if not _stated(x)]
    for naming in sorted(NAMINGS, key=lambda naming: naming.word != NEW):
        for x, y in sides if naming.word else ():
            names = _shared(x, y, kept, naming.changed(x.shapes))
            if names:
                return TwoNames(x, names, naming)
    for x, y in reversed(sides):
        names = _shared(x, y, kept, dict(_nested_pairs(x, y)))
        if names:
            return TwoNames(x, names, None)
    return None


def naming_of(x: TensorsNode) -> set[str]:
    """The namings of the files that an adapter is made from."""
    return {names_format(leaf.adapter).naming for leaf in combined_leaves(x)}


def names_of_one(graph: Graph, left: TensorsNode, right: TensorsNode) -> str:
    """What to write where the files of two adapters name modules in two ways: a declaration that
    gives one of them the names of the other, where every module has one."""
    pairs = permutations(combined_leaves(left) + combined_leaves(right), 2)
    declared = [
        (span, before, x.adapter, y.adapter)
        for x, y in pairs
        if (span := graph.declared.get(x)) and (before := graph.declared.get(y))
        if span.source is before.source and x.adapter.stored is None
    ]
    for span, before, one, other in sorted(
        declared, key=lambda pair: pair[0].start < pair[1].start
    ):
        name = _NAME.match(before.text)
        try:
            names = names_as_in(one, other)
        except Fault:
            continue
        text = name and replaced(span, [after(span, f" with names={name[1]}")])
        if name and text and any(old != new for old, new in names.items()):
            where = "" if before.start < span.start else f" below `{name[1]}`"
            return f"declare it so{where}: {text}"
    return "give one the names of the other where it is declared: with names=OTHER"


_NAME = re.compile(r"\w+\s+(\w+)")
"""A declaration up to the name of what it declares."""


def _stated(x: TensorsNode) -> bool:
    return any(leaf.adapter.names for leaf in combined_leaves(x))


def kept_names(x: TensorsNode) -> set[str]:
    """Sites that the author says to have their right names."""
    return {
        old for leaf in combined_leaves(x) for old, new in leaf.adapter.names.items() if old == new
    }


def _shared(
    x: TensorsNode, y: TensorsNode, kept: set[str], names: Mapping[str, str]
) -> dict[str, str]:
    """Those of some other names of sites that the other adapter has; none where they are few."""
    alone, others = x.shapes.keys() - y.shapes.keys(), y.shapes.keys() - x.shapes.keys()
    shared = {
        old: new
        for old, new in names.items()
        if old in alone and new in others and x.shapes[old] == y.shapes[new]
        if old not in kept and new not in kept
    }
    return shared if 2 * len(shared) > min(len(alone), len(others)) else {}


def _nested_pairs(x: TensorsNode, y: TensorsNode) -> Iterator[tuple[str, str]]:
    within = {_parts(site)[1]: site for site in y.shapes if site not in x.shapes}
    for site in x.shapes:
        above, below = _parts(site)
        twin = None if site in y.shapes else within.get(below)
        if below and twin is not None and _nested(above, _parts(twin)[0]):
            yield site, twin


def _parts(site: str) -> tuple[str, str]:
    """The name of a site above the number of its layer, and from there on; the second is empty
    where it has none."""
    start = layer_start(site)
    return (site, "") if start is None else (site[:start], site[start:])


def _nested(name: str, other: str) -> bool:
    parts, others = set(name.split(".")), set(other.split("."))
    return parts <= others or others <= parts


def _says(word: str, leaf: Stored, names: Mapping[str, str]) -> bool:
    """Whether a naming gives an adapter some names."""
    try:
        new = named(word, leaf.adapter.format.modules(leaf.adapter))
    except Fault:
        return False
    return all(new.get(old) == name for old, name in names.items())
