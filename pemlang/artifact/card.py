"""The README.md of an output: what it is, where it came from, how to load it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from pemlang.dataclass import dataclass
from pemlang.formats import Format
from pemlang.formats.adapter import method_title
from pemlang.inputs.hub import HUB_NAME
from pemlang.markup import code, markdown
from pemlang.version import __version__

MARK = "<!-- made by pemlang -->"


@dataclass(frozen=True)
class CardInput:
    """An input as the card lists it: what the recipe calls it, its path, and its files' digests."""

    name: str
    path: str
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Card:
    """What a card tells.

    Attributes:
        title: the output's directory name.
        expression: what was saved, as written.
        method, base: of the adapter.
        format: of its files.
        recipe_name, recipe: the file and its text.
        params: the values of its params.
        inputs: what it was made from.
        imports: the recipes it imports, and the digests of their text.
        semantic_hash: equal for outputs of equal meaning.
        notes: what truncation lost, and the like.
    """

    title: str
    expression: str
    method: str
    base: str | None
    format: Format
    recipe_name: str
    recipe: str
    params: Mapping[str, str]
    inputs: Sequence[CardInput]
    imports: Mapping[str, str]
    semantic_hash: str
    notes: Sequence[str]


def write_card(card: Card) -> str:
    """The card as Markdown. Names are untrusted: nothing in them is markup."""
    lines = [*_front_matter(card), MARK, "", f"# {markdown(card.title)}", ""]
    base = f" {'of' if _is_model(card) else 'for'} {markdown(card.base)}" if card.base else ""
    title = "model" if _is_model(card) else f"{method_title(card.method)} adapter"
    lines += [f"A {title}{base}, composed without training: {code(card.expression)}.", ""]
    lines += [f"- {markdown(note)}" for note in card.notes] + [""] * bool(card.notes)
    lines += [*_loading(card), "## Made from", ""]
    for made_from in card.inputs:
        lines.append(f"- {code(made_from.name)} = {code(made_from.path)}")
        files = made_from.digests.items()
        lines += [f"  - {markdown(file)}: blake3 `{digest}`" for file, digest in files]
    lines += [f"- {code(name)}: blake3 `{digest}`" for name, digest in card.imports.items()]
    lines += ["", f"Semantic hash: `{card.semantic_hash}`", "", *_recipe(card)]
    return "\n".join(lines)


def _is_model(card: Card) -> bool:
    return card.format.holds == "model"


def _front_matter(card: Card) -> list[str]:
    lines = ["---"]
    if card.format.library:
        lines.append(f"library_name: {card.format.library}")
    if card.base and HUB_NAME.fullmatch(card.base):
        lines.append(f"base_model: {json.dumps(card.base)}")
    kinds = ["- merge"] if _is_model(card) else [f"- {x}" for x in card.method.split("+")]
    return [*lines, "tags:", *kinds, "- pemlang", "---"]


def _loading(card: Card) -> list[str]:
    on_the_hub = card.base is not None and HUB_NAME.fullmatch(card.base)
    base = card.base if card.base and on_the_hub else "the model it belongs to"
    lines = card.format.loading(base)
    return ["## Load it", "", "```python", *lines, "```", ""] if lines else []


def _recipe(card: Card) -> list[str]:
    lines = [f"## The recipe, {markdown(card.recipe_name)}", ""]
    if card.params:
        values = ", ".join(code(f"{name} = {value}") for name, value in card.params.items())
        lines += [f"Built by pemlang {__version__} with {values}.", ""]
    else:
        lines += [f"Built by pemlang {__version__}.", ""]
    longest = max((len(run) for run in re.findall(r"`{3,}", card.recipe)), default=2)
    fence = "`" * (longest + 1)
    return [*lines, f"{fence}text", card.recipe.rstrip("\n"), fence, ""]
