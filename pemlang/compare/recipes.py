"""What changed between two recipes, in the algebra: not what was written, but what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pemlang.check.checked import Checked
from pemlang.check.outputs import Output
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.formats.adapter import kinds_text
from pemlang.graph.difference import Difference
from pemlang.graph.formula import Formula, count, rank_text, size_text
from pemlang.graph.leaves import Stored
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
    before, after = _SideView(old), _SideView(new)
    changes = tuple(_change(before, after, *outputs) for outputs in _matched(before, after))
    return RecipeComparison(*names, changes, tuple(_assertions(before, after)), tuple(notes))


class _SideView:
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


def _assertions(before: _SideView, after: _SideView) -> list[str]:
    was, now = before.assertions(), after.assertions()
    gone = [text for key, text in was.items() if key not in now]
    come = [text for key, text in now.items() if key not in was]
    phrases = [f"− {text}" for text in gone if text not in come]
    phrases += [f"+ {text}" for text in come if text not in gone]
    return phrases + [f"~ {text}, of other content" for text in come if text in gone]


_MATCHED_ON: tuple[Callable[[_SideView, Output], object], ...] = (
    lambda view, output: output.path,
    lambda view, output: view.hash(output),
    lambda view, output: output.label,
)


def _matched(before: _SideView, after: _SideView) -> list[tuple[Output | None, Output | None]]:
    """Outputs of the two sides that are one: those saved to one path; then, of the rest, those of
    one meaning, and those of one name."""
    left = list(before.outputs)
    older: dict[int, Output] = {}
    for key in _MATCHED_ON:
        for index, output in enumerate(after.outputs):
            if index in older:
                continue
            same = next((x for x in left if key(before, x) == key(after, output)), None)
            if same is not None:
                older[index] = same
                left.remove(same)
    matched: list[tuple[Output | None, Output | None]] = [
        (older.get(index), output) for index, output in enumerate(after.outputs)
    ]
    return matched + [(output, None) for output in left]


def _change(
    before: _SideView, after: _SideView, old: Output | None, new: Output | None
) -> OutputChange:
    some = new or old
    assert some is not None
    name = (after if new else before).name(some)
    values = before.value(old), after.value(new)
    hashes = before.hash(old), after.hash(new)
    if old is None or new is None:
        return OutputChange(name, some.path, "removed" if old else "added", (), values, hashes)
    changes = [] if hashes[0] == hashes[1] else _phrases(before.write, after.write, old, new)
    if old.path != new.path:
        changes.append(f"saved to {visible(new.path)}, was {visible(old.path)}")
    different = changes or hashes[0] != hashes[1]
    state: OutputState = "changed" if different else "same"
    return OutputChange(name, some.path, state, tuple(changes), values, hashes)


def _phrases(write_old: Formula, write_new: Formula, old: Output, new: Output) -> list[str]:
    """What changed between two outputs of different meaning."""
    write = Difference(write_old, write_new)
    phrases = write.values(old.node, new.node) + _types(old.node, new.node)
    if old.dtype != new.dtype:
        phrases.append(f"dtype {_dtype(old)} → {_dtype(new)}")
    if (old.heads and old.heads.key) != (new.heads and new.heads.key):
        phrases.append(f"heads {_lent(old.heads, write_old)} → {_lent(new.heads, write_new)}")
    if old.shard != new.shard:
        phrases.append(f"shards {_shard(old)} → {_shard(new)}")
    if (old.tokenizer and old.tokenizer.key) != (new.tokenizer and new.tokenizer.key):
        phrases.append(
            f"tokenizer {_lent(old.tokenizer, write_old)} → {_lent(new.tokenizer, write_new)}"
        )
    return phrases or [write.whole(old.node, new.node)]


def _dtype(output: Output) -> str:
    return "of the inputs" if output.dtype is None else output.dtype.lower()


def _lent(lender: Stored | None, write: Formula) -> str:
    return "the inputs' own" if lender is None else f"of {write.value(lender)}"


def _shard(output: Output) -> str:
    return "of the inputs" if output.shard is None else f"of {size_text(output.shard)}"


def _types(old: Node, new: Node) -> list[str]:
    """What of the type changed, that the values do not say."""
    if not (isinstance(old, AdapterNode) and isinstance(new, AdapterNode)):
        return []
    before, after = old.type, new.type
    phrases = []
    if before.kinds != after.kinds:
        phrases.append(f"{kinds_text(before.kinds)} → {kinds_text(after.kinds)}")
    elif before.has_factors and (was := _rank(old)) != (now := _rank(new)):
        phrases.append(f"{was} → {now.removeprefix('rank ')}")
    if before.base != after.base:
        phrases.append(f"base {visible(before.base)} → {visible(after.base)}")
    more = after.shapes.keys() - before.shapes.keys()
    less = before.shapes.keys() - after.shapes.keys()
    phrases += [f"+{count(len(more), 'site')}"] if more else []
    return phrases + ([f"−{count(len(less), 'site')}"] if less else [])


def _rank(node: AdapterNode) -> str:
    """`rank 8`; `rank at most 8` where an energy decides."""
    text = rank_text(node)
    return text.replace(" ", " at most ", 1) if node.at_most else text
