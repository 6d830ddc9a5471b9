"""How one value became another, in phrases that a reader of a change wants: `toxic −0.6 → −0.75`,
`+ 0.5·movies`, `books at 12 → 6 sites`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import Generic, TypeVar

from pemlang.graph.formula import Formula, Setting, count, number_text
from pemlang.graph.leaves import Leaf
from pemlang.graph.node import AdapterNode, Coef, Node, NumberNode, told
from pemlang.graph.normal import Pair


class Difference:
    """Compares values of two graphs, an older one and a newer one.

    Args:
        old, new: write the values of each.
    """

    def __init__(self, old: Formula, new: Formula) -> None:
        self._old, self._new = old, new

    def values(self, old: Node, new: Node) -> list[str]:
        """How a value changed; nothing where it did not."""
        if old.key == new.key:
            return []
        # What cuts says what is cut, and the cut: it goes before what has terms.
        for node in sorted((new, old), key=lambda node: not _cuts(node)):
            phrases = node.differ(old, new, self)
            if phrases is not None:
                return phrases
        return [self.whole(old, new)]

    def whole(self, old: Node, new: Node) -> str:
        """Both values, where nothing shorter tells how one became the other."""
        before, after = self._old.value(old), self._new.value(new)
        return f"{before} → {after}" if before != after else f"{after}, made otherwise"

    def setting(self, name: str, key: str, old: Setting, new: Setting) -> str:
        """A setting of an operator."""
        return f"{name}: {key} {_setting(old)} → {_setting(new)}"

    def energies(self, old: AdapterNode, new: AdapterNode) -> list[str]:
        """How a truncation changed, where the rank that comes out does not say it."""
        before, after = old.kept_energy, new.kept_energy
        if before == after:
            return []
        texts = ("none" if share is None else number_text(share) for share in (before, after))
        return [f"energy {' → '.join(texts)}"]

    def terms(self, old: Mapping[AdapterNode, Coef], new: Mapping[AdapterNode, Coef]) -> list[str]:
        """Two weighted sums, term by term."""
        return _SumTerms(self._old, self._new).phrases(old, new)

    def pairs(self, old: Mapping[AdapterNode, Pair], new: Mapping[AdapterNode, Pair]) -> list[str]:
        """Two ⊕, term by term."""
        return _MixTerms(self._old, self._new).phrases(old, new)


def _cuts(node: Node) -> bool:
    return isinstance(node, AdapterNode) and node.uncut is not node


def _setting(value: Setting) -> str:
    if value is None:
        return "none"
    return number_text(value) if isinstance(value, Fraction) else str(value)


Weight = TypeVar("Weight", Coef, Pair)


class _WeightedTerms(ABC, Generic[Weight]):
    """The terms of two combinations of adapters."""

    def __init__(self, old: Formula, new: Formula) -> None:
        self._old, self._new = old, new

    @abstractmethod
    def text(self, write: Formula, weight: Weight) -> str:
        """A weight."""

    @abstractmethod
    def leading(self, write: Formula, weight: Weight) -> str:
        """A weight before its term; nothing for 1."""

    @abstractmethod
    def moved(self, name: str, old: Weight, new: Weight) -> str:
        """A term whose weight changed."""

    @abstractmethod
    def where(self, weight: Weight) -> Coef:
        """The coefficient that says at which sites a term is."""

    def phrases(
        self, old: Mapping[AdapterNode, Weight], new: Mapping[AdapterNode, Weight]
    ) -> list[str]:
        """What changed: terms by name, then those that are gone."""
        before = {node.key: weight for node, weight in old.items()}
        kept = {node.key for node in new}
        gone: dict[str, list[tuple[AdapterNode, Weight]]] = {}
        for node, weight in old.items():
            if node.key not in kept:
                gone.setdefault(self._old.value(node), []).append((node, weight))
        phrases = []
        for node in sorted(new, key=self._new.value):
            name, weight = self._new.value(node), new[node]
            if node.key in before:
                phrases += self._weights(name, node, before[node.key], weight)
            elif gone.get(name):  # by the same name something else
                other, was = gone[name].pop(0)
                phrases.append(f"{name}: {_contents(other, node)}")
                phrases += self._weights(name, node, was, weight)
            else:
                phrases.append(f"+ {self.leading(self._new, weight)}{name}")
        for name in sorted(gone):
            phrases += [f"− {self.leading(self._old, weight)}{name}" for _, weight in gone[name]]
        return phrases

    def _weights(self, name: str, node: AdapterNode, old: Weight, new: Weight) -> list[str]:
        """How the weight of a term changed, or where the term is."""
        if told(old) == told(new):
            return []
        before, after = self.text(self._old, old), self.text(self._new, new)
        if before != after:
            return [self.moved(name, old, new)]
        here, now = (_sites(self.where(weight), node) for weight in (old, new))
        by = after.rstrip("⊗⊖")
        if here == now and (_measured(old) or _measured(new)):
            return [f"{name} by {by}, measured on other content"]
        if here == now:
            return [f"{name} by other weights at some of its sites: {by}"]
        if len(here) != len(now):
            return [f"{name} at {len(here)} → {count(len(now), 'site')}"]
        return [f"{name} at {len(now)} other sites"]


class _SumTerms(_WeightedTerms[Coef]):
    """Of sums, `0.5·x`."""

    def text(self, write: Formula, weight: Coef) -> str:
        return write.coefficient(weight)

    def leading(self, write: Formula, weight: Coef) -> str:
        text = self.text(write, weight)
        return "" if text == "1" else f"{text}·"

    def moved(self, name: str, old: Coef, new: Coef) -> str:
        return f"{name} {self.text(self._old, old)} → {self.text(self._new, new)}"

    def where(self, weight: Coef) -> Coef:
        return weight


class _MixTerms(_WeightedTerms[Pair]):
    """Of ⊕, `0.5⊗x` and `0.5⊗⊖x`."""

    def text(self, write: Formula, weight: Pair) -> str:
        of_a, of_b = weight
        return f"{write.coefficient(of_a)}⊗{'' if of_a == of_b else '⊖'}"

    def leading(self, write: Formula, weight: Pair) -> str:
        return self.text(write, weight).removeprefix("1⊗")

    def moved(self, name: str, old: Pair, new: Pair) -> str:
        return f"{self.leading(self._old, old)}{name} → {self.leading(self._new, new)}{name}"

    def where(self, weight: Pair) -> Coef:
        return weight[0]


def _contents(old: Node, new: Node) -> str:
    """What became of an adapter that keeps its name."""
    if not isinstance(old, Leaf) or not isinstance(new, Leaf):
        return "made otherwise"
    before, after = (leaf.identity.partition(" ")[0][:12] for leaf in (old, new))
    if before != after:
        return f"other content, {before} → {after}"
    return "on another base" if old.shapes == new.shapes else "other names of its modules"


def _sites(coef: Coef, node: AdapterNode) -> frozenset[str]:
    """The sites that a term is at."""
    if isinstance(coef, tuple):
        return frozenset(site for site, _ in coef)
    return frozenset(node.shapes)


def _measured(weight: object) -> bool:
    """Whether a number of it is read off adapters."""
    if isinstance(weight, tuple):
        return any(map(_measured, weight))
    return isinstance(weight, NumberNode)
