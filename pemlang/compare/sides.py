"""The two sides of a comparison: a recipe of the working tree, or of a git revision, checked
without more of its adapters than is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.values import Params
from pemlang.compare.recipes import RecipeComparison, compare_recipes
from pemlang.dataclass import dataclass
from pemlang.disk import is_file, temporary
from pemlang.inputs.revision import FirstFoundResolver, Revision, WorkingTree
from pemlang.pipeline.checking import identified_with
from pemlang.source import Source
from pemlang.syntax.files import read_source


@dataclass
class Side:
    """One side.

    Attributes:
        name: what it is called.
        checked: the recipe.
        notes: what stands for what on it.
    """

    name: str
    checked: Checked
    notes: list[str] = field(default_factory=list)


@contextmanager
def opened(place: str, params: Params) -> Iterator[Side]:
    """A side of a comparison, open as long as its files are needed.

    Args:
        place: a path, or `REVISION:PATH` with a path as git takes it there.
        params: values for the recipe's params.

    Raises:
        Fault: PEM0820 no such revision or file in it, and as read_source.
        PemError: what is wrong with the recipe.
    """
    revision, colon, path = place.partition(":")
    if not colon or is_file(Path(place)):
        file = Path(place).absolute()
        yield working_side(place, file, read_source(file, place), params)
        return
    with temporary("diff") as folder:
        tree = Revision(revision, folder)
        file = tree.file(path)
        source = read_source(file, place)
        beside = WorkingTree(source.directory)
        lookups = [beside.locked, tree.adapter]
        resolver = FirstFoundResolver(lookups, beside.locked_recipe, tree.here)
        checked = identified_with(resolver, file, source, params)
        tree.hold(checked)
        yield Side(place, checked, tree.notes)


def compared(old: str, new: str, params: Params) -> RecipeComparison:
    """What changed between two recipes, each in a place as `opened` takes it; raises as that."""
    with opened(old, params) as before, opened(new, params) as after:
        return compare_sides(before, after)


def compare_sides(before: Side, after: Side) -> RecipeComparison:
    """What changed between two sides."""
    notes = list(dict.fromkeys([*before.notes, *after.notes]))
    return compare_recipes(before.checked, after.checked, (before.name, after.name), notes)


def working_side(name: str, path: Path, source: Source, params: Params) -> Side:
    """A side of the working tree: its adapters as they are there, those that are not as pem.lock
    has them."""
    tree = WorkingTree(source.directory)
    resolver = FirstFoundResolver([tree.on_disk, tree.locked], tree.published)
    return Side(name, identified_with(resolver, path, source, params))
