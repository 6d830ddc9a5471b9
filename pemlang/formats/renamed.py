"""An adapter or a model with other names for its modules, as a recipe states them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import Adapter
from pemlang.formats.image_names import names_like
from pemlang.formats.namings import hold_apart
from pemlang.formats.record import names_format
from pemlang.tensorfiles.digests import text_digest


def renamed(adapter: Adapter, names: Mapping[str, str]) -> Adapter:
    """The same with other names for some of its modules.

    Args:
        adapter: as its files name it.
        names: new names by old ones; a name may stay as it is, and then it is known to be right.

    Raises:
        Fault: PEM0363 two modules would have one name.
    """
    modules = adapter.format.modules(adapter)
    hold_apart(modules, names)
    return replace(adapter.format.renamed(adapter, names), names=names)


def names_as_in(adapter: Adapter, other: Adapter) -> dict[str, str]:
    """What another adapter calls the modules of one, each in a file of an image model; raises
    PEM0354 where one of them is none, and as names_like."""
    for x in (adapter, other):
        if not x.format.starts:
            raise Fault(
                "PEM0354",
                f"{visible(x.directory)} is no LoRA of an image model in one file",
                'say the names themselves: with names={ "old.*": "new.*" }',
            )
    naming, theirs = names_format(adapter).naming, names_format(other).naming
    return names_like(adapter.layout.shapes, naming, other.layout.shapes, theirs)


def named_as(model: Adapter, adapter: Adapter) -> Adapter:
    """An adapter as its files name it, with the names that another one has been given."""
    return adapter if model.stored is None else renamed(adapter, model.names)


def names_of(adapter: Adapter) -> str:
    """What tells the names that a recipe gives an adapter from those in its files; empty where
    they are these."""
    other = {old: new for old, new in sorted(adapter.names.items()) if old != new}
    return f" named {text_digest(json.dumps(other))}" if other else ""
