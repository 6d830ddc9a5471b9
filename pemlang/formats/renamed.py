"""An adapter or a model with other names for its modules, as a recipe states them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import Adapter, PartsOf
from pemlang.formats.fused import parts_text, split
from pemlang.formats.image_names import names_like
from pemlang.formats.namings import hold_apart
from pemlang.formats.record import names_format
from pemlang.tensorfiles.digests import text_digest

NO_PARTS: PartsOf = {}


def renamed(adapter: Adapter, names: Mapping[str, str], parts_of: PartsOf = NO_PARTS) -> Adapter:
    """The same with other names for some of its modules, and others in parts.

    Args:
        adapter: as its files name it.
        names: new names by old ones; a name may stay as it is, and then it is known to be right.
        parts_of: what some other modules are split into, by their old names.

    Raises:
        Fault: PEM0363 two modules would have one name, PEM0365 a module has no such parts.
    """
    modules = adapter.format.modules(adapter)
    new = [(x, names.get(x, x)) for x in modules if x not in parts_of]
    hold_apart([*new, *((x, part.name) for x, parts in parts_of.items() for part in parts)])
    apart = split(adapter, parts_of)
    return replace(adapter.format.renamed(apart, names), names=names, stored=adapter)


def names_as_in(adapter: Adapter, other: Adapter) -> dict[str, str]:
    """What another adapter calls the modules of one, each in a file of an image model; raises
    PEM0354 where one of them is none, and as names_like."""
    for x in (adapter, other):
        if not x.format.starts:
            raise Fault(
                "PEM0354",
                f"{visible(x.place)} is no LoRA of an image model in one file",
                'say the names themselves: with names={ "old.*": "new.*" }',
            )
    naming, theirs = names_format(adapter).naming, names_format(other).naming
    return names_like(adapter.layout.shapes, naming, other.layout.shapes, theirs)


def named_as(model: Adapter, adapter: Adapter) -> Adapter:
    """An adapter as its files name it, with the names that another one has been given."""
    return adapter if model.stored is None else renamed(adapter, model.names, model.parts_of)


def names_of(adapter: Adapter) -> str:
    """What tells the names that a recipe gives an adapter from those in its files; empty where
    they are these."""
    other = {old: new for old, new in adapter.names.items() if old != new}
    other |= {old: parts_text(parts) for old, parts in adapter.parts_of.items()}
    return f" named {text_digest(json.dumps(other, sort_keys=True))}" if other else ""
