"""Names of base models that may mean one model, and what to write where they do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pemlang.diagnostics import visible

MOST = 20
"""Names that a declaration is shown with."""

_CACHED = re.compile(r"(?:^|[/\\])models--([^/\\]+?)--([^/\\]+)(?=[/\\]|$)")
"""The place of a model in the hub's cache."""

_QUANTISED = re.compile(
    r"(?:[-_.](?:unsloth|bnb|gptq|awq|[48]-?bit|int[48]|fp8|nf4|hqq|eetq|aqlm|quantized))+$", re.I
)
"""How the name of a model ends whose weights are stored in fewer bits."""


def declared_with(name: str, names: Sequence[str], also: str = "") -> str:
    """What to do where all of the names mean one model: the declaration that has them."""
    say = f"if these names mean one model, declare it with all of them{also}"
    if len(names) > MOST:
        return say
    return f"{say}: base {name} = [{', '.join(map(_as_string, names))}]"


def _as_string(name: str) -> str:
    """A text as a string of a recipe."""
    text = visible(name).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text.replace("{", "{{").replace("}", "}}")}"'


def likeness(name: str, others: Iterable[str]) -> list[str]:
    """How a name is like the first of some others that it is like: the same but for a slash or for
    case, or where the hub's cache, or a folder, keeps it."""
    alike = (_like(name, other) or _like(other, name) for other in others if other != name)
    return [why for why in alike if why is not None][:1]


def _like(name: str, other: str) -> str | None:
    """How a name is like another, in words that name both; None where it is not."""
    plain, of = name.rstrip("/"), other.rstrip("/")
    both = f"{visible(name)!r} and {visible(other)!r}"
    if plain == of:
        return f"{both} are one name but for a slash at the end"
    if plain.casefold() == of.casefold():
        return f"{both} are one name but for case"
    full = _QUANTISED.sub("", plain)
    if full != plain and _last(full) == _last(_QUANTISED.sub("", of)):
        return f"{both}: the first is called as a quantised copy of the second"
    cached = _CACHED.search(name)
    if cached is not None and f"{cached[1]}/{cached[2]}".casefold() == of.casefold():
        return f"{visible(name)!r} is where the hub's cache keeps {visible(of)!r}"
    last = _last(of)
    if last and plain.count("/") != 1 and plain.casefold().endswith(f"/{last}"):
        return f"{both} end in the same name: one may be a copy of the other"
    return None


def _last(name: str) -> str:
    """The last part of a name, whatever its case."""
    return name.rpartition("/")[2].casefold()
