"""What changed between two recipes, in the algebra: not what was written, but what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from pemlang.check.checked import Checked
from pemlang.check.conditions import Combined, Comparison, Condition, known
from pemlang.check.options import Output, semantic_hash
from pemlang.diagnostics import visible
from pemlang.graph.formula import Algebra, count, number_text, rank_text
from pemlang.graph.node import AdapterType, ModelType, Node, plain
from pemlang.graph.normal import adapter_type, pairs, terms
from pemlang.ops.agree import TITLES
from pemlang.ops.record import ranks

State = Literal["same", "changed", "added", "removed"]


@dataclass(frozen=True)
class OutputChange:
    """One output on both sides.

    Attributes:
        name: what it is called: the name that is saved, or the path.
        path: where it is saved; the new path where it moved.
        state: what became of it.
        changes: what changed, a phrase each: `toxic −0.6 → −0.75`, `rank 32 → 16`, `+2 sites`.
        values: its normal form on each side that has it.
        hashes: its semantic hash on each side that has it.
    """

    name: str
    path: str
    state: State
    changes: tuple[str, ...] = ()
    values: tuple[str | None, str | None] = (None, None)
    hashes: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True)
class Meaning:
    """What changed between two recipes.

    Attributes:
        old, new: what the sides are called.
        outputs: every output, in the new recipe's order, then those that are gone.
        assertions: what is asserted no more, or now, `− cosine(a, b) < 0.9`, or of other content.
        notes: what stands for what.
    """

    old: str
    new: str
    outputs: tuple[OutputChange, ...]
    assertions: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether every output means what it meant, and all that was asserted still is. Of files
        that save nothing, such as one that others import, nothing can be said."""
        told = bool(self.outputs) and not self.assertions
        return told and all(one.state == "same" for one in self.outputs)


@dataclass
class _View:
    """The outputs of one side by what they may be matched on."""

    checked: Checked | None
    algebra: Algebra = field(init=False)
    outputs: list[Output] = field(init=False)

    def __post_init__(self) -> None:
        self.algebra = Algebra(self.checked.leaf_name if self.checked else lambda _: "?")
        self.outputs = [] if self.checked is None else self.checked.outputs

    def value(self, output: Output | None) -> str | None:
        return None if output is None else self.algebra.value(output.node)

    def assertions(self) -> dict[object, str]:
        """What is asserted, by what it means, in words."""
        found = [] if self.checked is None else self.checked.assertions
        conditions = [one.condition for one in found]
        return {_key(one): self.algebra.condition(one) for one in conditions}

    def name(self, output: Output) -> str:
        """The name that is saved, where it is one and saved once; else the path."""
        alone = [one.label for one in self.outputs].count(output.label) == 1
        return output.label if alone and output.label.isidentifier() else output.path


# x > y is y < x.
_TURNED = {">": "<", ">=": "<="}


def _key(condition: Condition) -> object:
    """What a condition means: equal for those that mean the same."""
    if isinstance(condition, Comparison):
        left, right = (
            one.key if isinstance(one, Node) else str(one)
            for one in (condition.left, condition.right)
        )
        turned = _TURNED.get(condition.symbol)
        if turned is not None or (condition.symbol in ("==", "!=") and right < left):
            left, right = right, left
        return (turned or condition.symbol, left, right)
    if isinstance(condition, Combined):
        return (condition.word, *map(_key, condition.parts))
    return condition.holds(known)


def meaning(
    old: Checked | None, new: Checked | None, names: tuple[str, str], notes: Sequence[str] = ()
) -> Meaning:
    """What changed.

    Args:
        old, new: the recipes, their adapters known by content; None where there is none.
        names: what they are called.
        notes: what to tell beside it.
    """
    one, two = _View(old), _View(new)
    changes = []
    for before, after in _matched(one.outputs, two.outputs):
        changes.append(_change(one, two, before, after))
    was, now = one.assertions(), two.assertions()
    gone = [text for key, text in was.items() if key not in now]
    come = [text for key, text in now.items() if key not in was]
    asserted = [f"− {text}" for text in gone if text not in come]
    asserted += [f"+ {text}" for text in come if text not in gone]
    asserted += [f"~ {text}, of other content" for text in come if text in gone]
    return Meaning(*names, tuple(changes), tuple(asserted), tuple(notes))


def _matched(
    old: Sequence[Output], new: Sequence[Output]
) -> list[tuple[Output | None, Output | None]]:
    """Outputs of the two sides that are one: those saved to one path; then, of the rest, those of
    one meaning, and those of one name."""
    left = list(old)
    found: dict[int, Output] = {}
    for what in (lambda o: o.path, semantic_hash, lambda o: o.label):
        for index, output in enumerate(new):
            if index not in found:
                same = next((one for one in left if what(one) == what(output)), None)
                if same is not None:
                    found[index] = same
                    left.remove(same)
    matched: list[tuple[Output | None, Output | None]] = [
        (found.get(index), output) for index, output in enumerate(new)
    ]
    return matched + [(output, None) for output in left]


def _change(one: _View, two: _View, old: Output | None, new: Output | None) -> OutputChange:
    there = new or old
    assert there is not None
    name = (two if new else one).name(there)
    values = one.value(old), two.value(new)
    hashes = tuple(None if o is None else semantic_hash(o) for o in (old, new))
    moved = [f"saved to {visible(new.path)}, was {visible(old.path)}"] if (
        old and new and old.path != new.path
    ) else []  # fmt: skip
    state: State = "changed"
    changes: list[str] = []
    if old is None or new is None:
        state = "added" if old is None else "removed"
    elif hashes[0] == hashes[1]:
        state = "changed" if moved else "same"
    else:
        changes = _Compared(one, two).outputs(old, new)
    return OutputChange(name, there.path, state, (*changes, *moved), values, (hashes[0], hashes[1]))


class _Compared:
    """Two values, and how one became the other."""

    def __init__(self, one: _View, two: _View) -> None:
        self._one, self._two = one.algebra, two.algebra

    def outputs(self, old: Output, new: Output) -> list[str]:
        """The phrases for two outputs of different meaning."""
        found = self._values(old.node, new.node)
        found += self._types(old.node, new.node)
        if old.dtype != new.dtype:
            found.append(f"dtype {_dtype(old)} → {_dtype(new)}")
        if (old.heads and old.heads.key) != (new.heads and new.heads.key):
            was, now = (
                "the inputs' own" if o.heads is None else f"of {a.value(o.heads)}"
                for o, a in ((old, self._one), (new, self._two))
            )
            found.append(f"heads {was} → {now}")
        return found or [self._told(old.node, new.node)]

    def _told(self, old: Node, new: Node) -> str:
        was, now = self._one.value(old), self._two.value(new)
        return f"{was} → {now}" if was != now else f"{now}, made otherwise"

    def _values(self, old: Node, new: Node) -> list[str]:
        """How a value changed."""
        if old.key == new.key:
            return []
        if "compress" in (old.op, new.op):
            inner = self._values(_uncut(old), _uncut(new))
            return inner + _cut(old, new)
        if old.op == new.op == "merge" and old.attrs[0] == new.attrs[0]:
            return self._merges(old, new)
        if old.op == new.op and old.op in ("pad", "rescale"):
            return self._values(old.args[0], new.args[0]) or [self._told(old, new)]
        if "mix" in (old.op, new.op) and {old.op, new.op} <= {"mix", "leaf"}:
            return self._terms(pairs(old), pairs(new), "⊗")
        if {old.op, new.op} <= {"sum", "leaf", "compress", "pad", "rescale", "mix", "merge"} and (
            "sum" in (old.op, new.op) or old.op == new.op == "leaf"
        ):
            return self._terms(terms(old), terms(new), "")
        return [self._told(old, new)]

    def _terms(self, old: Mapping[Node, Any], new: Mapping[Node, Any], sign: str) -> list[str]:
        """Two weighted sums, term by term."""
        before = {node.key: (node, coef) for node, coef in old.items()}
        after = {node.key: (node, coef) for node, coef in new.items()}
        gone: dict[str, list[tuple[Node, Any]]] = {}
        for k, (node, coef) in before.items():
            if k not in after:
                gone.setdefault(self._one.value(node), []).append((node, coef))
        found = []
        for key in sorted(after, key=lambda key: self._two.value(after[key][0])):
            node, now = after[key]
            name = self._two.value(node)
            if key in before:
                was = before[key][1]
                if plain(was) != plain(now):  # a number that is measured is a node
                    found.append(self._weights(name, node, (was, now), sign))
            elif gone.get(name):  # by the same name something else
                other, was = gone[name].pop(0)
                found.append(f"{name}: {_contents(other, node)}")
                if plain(was) != plain(now):  # a number that is measured is a node
                    found.append(self._weights(name, node, (was, now), sign))
            else:
                found.append(f"+ {self._weight(self._two, now, sign)}{name}")
        for name in sorted(gone):
            found += [f"− {self._weight(self._one, coef, sign)}{name}" for _, coef in gone[name]]
        return found

    def _weights(self, name: str, node: Node, coefs: tuple[Any, Any], sign: str) -> str:
        """A term whose weight changed, or where it is."""
        one, two = self._coef(self._one, coefs[0]), self._coef(self._two, coefs[1])
        if one != two:
            if not sign:
                return f"{name} {one} → {two}"
            terms_ = (
                self._weight(a, c, sign) for a, c in zip((self._one, self._two), coefs, strict=True)
            )
            return " → ".join(f"{weight}{name}" for weight in terms_)
        before, after = (_places(coef, node) for coef in coefs)
        if before == after:
            if any(isinstance(coef, Node) for coef in coefs):
                return f"{name} by {two}, measured on other content"
            return f"{name} by other weights at some of its sites: {two.rstrip('⊗⊖')}"
        if len(before) != len(after):
            return f"{name} at {len(before)} → {count(len(after), 'site')}"
        return f"{name} at {len(after)} other sites"

    def _coef(self, algebra: Algebra, coef: Any) -> str:
        """A coefficient of a sum, or the pair of one of a ⊕ as it stands before its term."""
        if _is_pair(coef):
            turned = "" if coef[0] == coef[1] else "⊖"
            return f"{algebra.coefficient(coef[0])}⊗{turned}"
        return algebra.coefficient(coef)

    def _weight(self, algebra: Algebra, coef: Any, sign: str) -> str:
        text = self._coef(algebra, coef)
        if sign:
            return "" if text == "1⊗" else text.removeprefix("1⊗")
        return "" if text == "1" else f"{text}·"

    def _merges(self, old: Node, new: Node) -> list[str]:
        """Two merges by one method: their settings, weights and adapters."""
        name, over_was, limit_was, weights_was, settings_was = old.attrs
        _, over_now, limit_now, weights_now, settings_now = new.attrs
        was, now = dict(settings_was), dict(settings_now)
        was |= {"over": over_was, "rank": limit_was}
        now |= {"over": over_now, "rank": limit_now}
        found = [
            f"{name}: {key} {_setting(was.get(key))} → {_setting(now.get(key))}"
            for key in sorted(was.keys() | now.keys())
            if plain(was.get(key)) != plain(now.get(key))
        ]
        pairs_was = dict(zip(old.args, weights_was, strict=True))
        pairs_now = dict(zip(new.args, weights_now, strict=True))
        if (len(pairs_was), len(pairs_now)) != (len(old.args), len(new.args)):
            return [self._told(old, new)]  # an adapter that stands there twice
        inside = self._terms(pairs_was, pairs_now, "")
        return found + [f"{name}: {text}" for text in inside] or [self._told(old, new)]

    def _types(self, old: Node, new: Node) -> list[str]:
        """What of the type changed, that the cut does not say."""
        one, two = old.type, new.type
        if isinstance(one, ModelType) or isinstance(two, ModelType):
            return []
        assert isinstance(one, AdapterType) and isinstance(two, AdapterType)
        found = []
        if one.method != two.method:
            found.append(f"{TITLES[one.method]} → {TITLES[two.method]}")
        elif one.method == "lora" and (was := _rank(old)) != (now := _rank(new)):
            found.append(f"{was} → {now.removeprefix('rank ')}")
        if one.base != two.base:
            found.append(f"base {visible(one.base)} → {visible(two.base)}")
        more, less = two.shapes.keys() - one.shapes.keys(), one.shapes.keys() - two.shapes.keys()
        found += [f"+{count(len(more), 'site')}"] if more else []
        found += [f"−{count(len(less), 'site')}"] if less else []
        return found


def _is_pair(coef: Any) -> bool:
    """A pair of coefficients, and no coefficient by site, which is a tuple of (site, number)."""
    return isinstance(coef, tuple) and len(coef) == 2 and not (
        isinstance(coef[0], tuple) and coef[0] and isinstance(coef[0][0], str)
    )  # fmt: skip


def _places(coef: Any, node: Node) -> frozenset[str]:
    """The sites that a term is at."""
    by_site = coef[0] if _is_pair(coef) else coef
    if isinstance(by_site, tuple):
        return frozenset(site for site, _ in by_site)
    return frozenset(adapter_type(node).shapes)


def _uncut(node: Node) -> Node:
    return node.args[0] if node.op == "compress" else node


def _rank(node: Node) -> str:
    """`rank 8`; `rank at most 8` where an energy decides."""
    text = rank_text(ranks(node))
    by_energy = node.op == "compress" and node.attrs[0] is None
    return text.replace(" ", " at most ", 1) if by_energy else text


def _cut(old: Node, new: Node) -> list[str]:
    """How a truncation changed, where the rank that comes out does not say it."""
    was, now = (node.attrs[1] if node.op == "compress" else None for node in (old, new))
    if was == now:
        return []
    one, two = ("none" if energy is None else number_text(energy) for energy in (was, now))
    return [f"energy {one} → {two}"]


def _contents(old: Node, new: Node) -> str:
    """What became of an adapter that keeps its name."""
    if old.op != "leaf" or new.op != "leaf":
        return "made otherwise"
    was, now = (str(node.attrs[0]).partition(" ")[0][:12] for node in (old, new))
    return f"other content, {was} → {now}" if was != now else "on another base"


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    return number_text(value) if isinstance(value, Fraction) else str(value)


def _dtype(output: Output) -> str:
    return "of the inputs" if output.dtype is None else output.dtype.lower()
