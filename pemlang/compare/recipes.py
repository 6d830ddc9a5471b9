"""What changed between two recipes, in the algebra: not what was written, but what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pemlang.check.checked import Checked
from pemlang.check.outputs import Output
from pemlang.diagnostics import visible
from pemlang.formats.adapter import kinds_text
from pemlang.graph.difference import Difference
from pemlang.graph.formula import Formula, count, rank_text
from pemlang.graph.node import AdapterNode, Node

OutputState = Literal["same", "changed", "added", "removed"]


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
    state: OutputState
    changes: tuple[str, ...] = ()
    values: tuple[str | None, str | None] = (None, None)
    hashes: tuple[str | None, str | None] = (None, None)


@dataclass(frozen=True)
class RecipeComparison:
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
        if not self.outputs or self.assertions:
            return False
        return all(output.state == "same" for output in self.outputs)


def compare_recipes(
    old: Checked | None, new: Checked | None, names: tuple[str, str], notes: Sequence[str] = ()
) -> RecipeComparison:
    """What changed.

    Args:
        old, new: the recipes, their adapters known by content; None where there is none.
        names: what they are called.
        notes: what to tell beside it.
    """
    one, two = _View(old), _View(new)
    changes = tuple(_change(one, two, before, after) for before, after in _matched(one, two))
    return RecipeComparison(*names, changes, tuple(_assertions(one, two)), tuple(notes))


class _View:
    """What there is to say of one side."""

    def __init__(self, checked: Checked | None) -> None:
        self._checked = checked
        self.write = Formula(checked.leaf_name if checked else lambda _: "?")
        self.outputs = [] if checked is None else list(checked.outputs)

    def value(self, output: Output | None) -> str | None:
        """The normal form of an output."""
        return None if output is None else self.write.value(output.node)

    def hash(self, output: Output | None) -> str | None:
        """The semantic hash of an output."""
        assert output is None or self._checked is not None
        return None if output is None or self._checked is None else self._checked.hash(output)

    def assertions(self) -> dict[object, str]:
        """What is asserted, by what it means, in words."""
        assertions = () if self._checked is None else self._checked.assertions
        conditions = [assertion.condition for assertion in assertions]
        return {condition.meaning(): condition.formula(self.write) for condition in conditions}

    def name(self, output: Output) -> str:
        """The name that is saved, where it is one and saved once; else the path."""
        alone = [x.label for x in self.outputs].count(output.label) == 1
        return output.label if alone and output.label.isidentifier() else output.path


def _assertions(one: _View, two: _View) -> list[str]:
    was, now = one.assertions(), two.assertions()
    gone = [text for key, text in was.items() if key not in now]
    come = [text for key, text in now.items() if key not in was]
    phrases = [f"− {text}" for text in gone if text not in come]
    phrases += [f"+ {text}" for text in come if text not in gone]
    return phrases + [f"~ {text}, of other content" for text in come if text in gone]


_MATCHED_ON: tuple[Callable[[_View, Output], object], ...] = (
    lambda view, output: output.path,
    lambda view, output: view.hash(output),
    lambda view, output: output.label,
)


def _matched(one: _View, two: _View) -> list[tuple[Output | None, Output | None]]:
    """Outputs of the two sides that are one: those saved to one path; then, of the rest, those of
    one meaning, and those of one name."""
    left = list(one.outputs)
    before: dict[int, Output] = {}
    for what in _MATCHED_ON:
        for index, output in enumerate(two.outputs):
            if index in before:
                continue
            same = next((x for x in left if what(one, x) == what(two, output)), None)
            if same is not None:
                before[index] = same
                left.remove(same)
    matched: list[tuple[Output | None, Output | None]] = [
        (before.get(index), output) for index, output in enumerate(two.outputs)
    ]
    return matched + [(output, None) for output in left]


def _change(one: _View, two: _View, old: Output | None, new: Output | None) -> OutputChange:
    some = new or old
    assert some is not None
    name = (two if new else one).name(some)
    values = one.value(old), two.value(new)
    hashes = one.hash(old), two.hash(new)
    if old is None or new is None:
        return OutputChange(name, some.path, "removed" if old else "added", (), values, hashes)
    changes = [] if hashes[0] == hashes[1] else _phrases(one.write, two.write, old, new)
    if old.path != new.path:
        changes.append(f"saved to {visible(new.path)}, was {visible(old.path)}")
    different = changes or hashes[0] != hashes[1]
    state: OutputState = "changed" if different else "same"
    return OutputChange(name, some.path, state, tuple(changes), values, hashes)


def _phrases(one: Formula, two: Formula, old: Output, new: Output) -> list[str]:
    """What changed between two outputs of different meaning."""
    write = Difference(one, two)
    phrases = write.values(old.node, new.node) + _types(old.node, new.node)
    if old.dtype != new.dtype:
        phrases.append(f"dtype {_dtype(old)} → {_dtype(new)}")
    if (old.heads and old.heads.key) != (new.heads and new.heads.key):
        phrases.append(f"heads {_heads(old, one)} → {_heads(new, two)}")
    return phrases or [write.whole(old.node, new.node)]


def _dtype(output: Output) -> str:
    return "of the inputs" if output.dtype is None else output.dtype.lower()


def _heads(output: Output, write: Formula) -> str:
    return "the inputs' own" if output.heads is None else f"of {write.value(output.heads)}"


def _types(old: Node, new: Node) -> list[str]:
    """What of the type changed, that the values do not say."""
    if not (isinstance(old, AdapterNode) and isinstance(new, AdapterNode)):
        return []
    one, two = old.type, new.type
    phrases = []
    if one.kinds != two.kinds:
        phrases.append(f"{kinds_text(one.kinds)} → {kinds_text(two.kinds)}")
    elif one.is_lora and (was := _rank(old)) != (now := _rank(new)):
        phrases.append(f"{was} → {now.removeprefix('rank ')}")
    if one.base != two.base:
        phrases.append(f"base {visible(one.base)} → {visible(two.base)}")
    more, less = two.shapes.keys() - one.shapes.keys(), one.shapes.keys() - two.shapes.keys()
    phrases += [f"+{count(len(more), 'site')}"] if more else []
    return phrases + ([f"−{count(len(less), 'site')}"] if less else [])


def _rank(node: AdapterNode) -> str:
    """`rank 8`; `rank at most 8` where an energy decides."""
    text = rank_text(node.ranks)
    return text.replace(" ", " at most ", 1) if node.bounded else text
