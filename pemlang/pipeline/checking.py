"""A recipe checked, and known by the content of what it is made from: once a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.values import Params
from pemlang.inputs.identities import identified
from pemlang.inputs.resolver import Resolver
from pemlang.source import Source

if TYPE_CHECKING:
    from pemlang.inputs.lock import Lock


def checked_with(
    resolver: Resolver,
    path: Path,
    source: Source,
    params: Params,
    root: Path | None = None,
    lock: Lock | None = None,
) -> Checked:
    """All that can be said of a recipe from headers.

    Args:
        resolver: reaches its adapters and models.
        path, source: the recipe.
        params: values for its params.
        root: where its outputs may lie; its own folder when not given.
        lock: what its imports, and statistics that it uses, are held to.
    """
    checked = check(path, source, resolver, params, root)
    if lock is None:
        return checked
    from pemlang.inputs.locked import held_imports, held_statistics

    return checked.told([*held_imports(checked, lock), *held_statistics(checked, lock)])


def identified_with(
    resolver: Resolver,
    path: Path,
    source: Source,
    params: Params,
    root: Path | None = None,
    lock: Lock | None = None,
) -> Checked:
    """A recipe that is right, its adapters fetched and known by their content. It is checked from
    headers first, so that no tensor is fetched for a recipe that is wrong.

    Args: as checked_with.

    Raises:
        PemError: everything wrong with it.
    """
    checked = checked_with(resolver, path, source, params, root, lock)
    checked.raise_errors()
    return identified(checked, resolver)
