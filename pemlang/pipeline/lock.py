"""The lock of a recipe as its adapters are now."""

from __future__ import annotations

from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.published import PublishedRecipe
from pemlang.check.values import Params, Spelling
from pemlang.diagnostics import placed
from pemlang.disk import sha256
from pemlang.formats.adapter import Adapter
from pemlang.inputs.hub import SCHEME, parse_reference
from pemlang.inputs.imports import imports_of
from pemlang.inputs.lock import Lock, Locked
from pemlang.inputs.resolver import DiskResolver
from pemlang.pipeline.checking import identified_with
from pemlang.source import Source
from pemlang.tensorfiles.digests import anew, hold_unchanged


def locked_now(path: Path, source: Source, params: Params) -> Lock:
    """The lock of one recipe as its adapters are now, whole, fetched where they are on the hub.

    Raises:
        PemError: everything wrong with the recipe, or PEM0411 a file that cannot be read.
    """
    with anew(), placed(None):
        checked = identified_with(DiskResolver(), path, source, params)
        lock = _lock_of(checked)
        for leaf in checked.spellings:
            hold_unchanged(leaf.adapter.seen)
        return lock


def imports_locked(checked: Checked) -> Lock:
    """The lock of a recipe as its imports are now, without its adapters."""
    imports = imports_of(checked)
    lock = Lock(checked.source.directory, imports=imports, published=_published(checked))
    lock.recipes[checked.path.resolve().name] = {"adapters": [], "imports": sorted(imports)}
    return lock


def _lock_of(checked: Checked) -> Lock:
    lock = imports_locked(checked)
    spelt = [
        (lock.source(spelling.path, spelling.directory), spelling, leaf.adapter.in_files)
        for leaf, spellings in checked.spellings.items()
        for spelling in spellings
    ]
    first: dict[Path, str] = {}
    for source, spelling, adapter in sorted(spelt, key=lambda item: item[0]):
        lock.adapters[source] = _locked(source, spelling, adapter, first)
    lock.recipes[checked.path.resolve().name]["adapters"] = sorted(lock.adapters)
    return lock


def _published(checked: Checked) -> dict[str, PublishedRecipe]:
    """The published recipes of a recipe, each with its text as it was read."""
    return {
        recipe.name: recipe._replace(data=checked.files.trees[path].span.source.text.encode())
        for path, recipe in checked.files.published.items()
        if path in checked.files.trees
    }


def _locked(source: str, spelling: Spelling, adapter: Adapter, first: dict[Path, str]) -> Locked:
    """An adapter of a lock; `first` has the first source of each directory."""
    remote = spelling.path.startswith(SCHEME)
    commit = parse_reference(spelling.path).commit(adapter.directory) if remote else None
    same = None if remote else first.setdefault(adapter.place, source)
    return Locked(
        adapter.digests,
        adapter.signature,
        commit,
        None if same == source else same,
        {
            name: sha256(adapter.directory / name)
            for name in adapter.digests
            if name not in adapter.format.texts
        },
        adapter.format.name,
    )
