"""The values of the language, as the checker knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from pemlang.dataclass import dataclass
from pemlang.formats.adapter import Adapter
from pemlang.graph.node import AdapterNode, ModelNode, NumberNode
from pemlang.ops.schedule import Schedule
from pemlang.source import Source, Span

if TYPE_CHECKING:
    from pemlang.check.conditions import Condition
    from pemlang.check.published import PublishedRecipe
    from pemlang.check.scope import Function, Module
    from pemlang.syntax.tree import Tree


class Poison:
    """The value of a name whose declaration is wrong: said once, silent from then on."""


POISON = Poison()


@dataclass(frozen=True)
class BaseName:
    """A `base`: the model's identity and other names for the same model."""

    names: tuple[str, ...]
    span: Span
    kind = "base"


Plain: TypeAlias = "Fraction | NumberNode | str | Condition | Schedule | AdapterNode | ModelNode"
"""A value that can be an item of a list."""

RecipeValue: TypeAlias = "Plain | tuple[Plain, ...] | Function | Module | BaseName | Poison"
"""What a name can stand for."""

Follow: TypeAlias = "Callable[[Tree, RecipeValue], None]"
"""What is told of an expression and its value."""

ParamConstant: TypeAlias = "Fraction | str | Condition"
"""The value of a param."""


ParamValue: TypeAlias = "str | float | bool"
"""A value given for a param; text is read as the param's type."""

Params: TypeAlias = "Mapping[str, ParamValue]"
"""Values given for the params of a recipe, by name."""


def unfollowed(tree: Tree, value: RecipeValue) -> None:
    """For when nobody wants to know of values."""


class Declared(NamedTuple):
    """How a recipe declares an adapter: its name, its path as written, and the folder that path
    starts from."""

    name: str
    path: str
    directory: Path


class Spelling(NamedTuple):
    """How an adapter's place is spelt somewhere: its path as written, the folder that path starts
    from, and where it is written."""

    path: str
    directory: Path
    span: Span | None


class Sample(NamedTuple):
    """An adapter that a test draws.

    Attributes:
        kind: `lora`, `ia3` or `dense`.
        rank: of a LoRA.
        sites: names with a `*`, which stands for the number of a layer and what is before it.
        layers: how many it has.
        seed: of its numbers.
    """

    kind: str
    rank: int = 4
    sites: tuple[str, ...] = ("*.q_proj", "*.v_proj")
    layers: int = 2
    seed: int = 0

    @property
    def most_numbers(self) -> int:
        """How many it has at the most: two square matrices in each module."""
        modules = sum(self.layers if "*" in site else 1 for site in self.sites)
        return modules * 2 * max(self.rank, 16) ** 2


class ImportedTexts(Protocol):
    """How the files that a recipe imports are read."""

    def recipe(self, path: Path, name: str) -> Source:
        """The text of a file that is imported, and what messages call it; raises Fault."""

    def published(self, name: str, version: str | None = None) -> PublishedRecipe:
        """A recipe of a library or on the hub, by its name.

        Args:
            version: of the recipe beside which it lies, and so its own; None where that is not
                known.

        Raises:
            Fault: it is not there, or cannot be read.
        """


class Inputs(ImportedTexts, Protocol):
    """How a recipe's paths are reached: each is given as written, with the folder it is relative
    to, and stands for a place (equal for one that is the same) and what is there."""

    def adapter(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """An adapter, known by its headers; raises Fault."""

    def model(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """A model, known by its headers; raises Fault."""

    def sample(self, sample: Sample) -> Sequence[tuple[str, Adapter]]:
        """An adapter that a test draws, and its place; of a dense one the model and its base.
        Raises Fault where there are no tests."""
