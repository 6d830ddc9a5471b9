"""An adapter or a model with other names for its modules, as a recipe states them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from pemlang.formats.adapter import Adapter
from pemlang.formats.namings import hold_apart
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


def named_as(model: Adapter, adapter: Adapter) -> Adapter:
    """An adapter as its files name it, with the names that another one has been given."""
    return adapter if model.stored is None else renamed(adapter, model.names)


def names_of(adapter: Adapter) -> str:
    """What tells the names that a recipe gives an adapter from those in its files; empty where
    they are these."""
    other = {old: new for old, new in sorted(adapter.names.items()) if old != new}
    return f" named {text_digest(json.dumps(other))}" if other else ""
