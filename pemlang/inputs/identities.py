"""What tells adapters apart: their content, and which copy of it they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.diagnostics import Fault, placed
from pemlang.execute.machine import default_threads
from pemlang.formats.adapter import Adapter
from pemlang.formats.renamed import named_as, names_of
from pemlang.graph.leaves import Stored
from pemlang.inputs.hub import SCHEME
from pemlang.inputs.resolver import Resolver
from pemlang.tensorfiles.digests import changed, take_digests


def identified(checked: Checked, resolver: Resolver) -> Checked:
    """A recipe that is right, its adapters fetched and known by their content; statistics that it
    does not use are no part of that.

    Raises:
        PemError: what is wrong with any of them, at the places that name them.
    """
    stored: dict[Stored, Adapter] = {}
    contents: dict[Stored, str] = {}
    wrong, weighed = [], checked.graph.weighed()
    for leaf, spelt in checked.spellings.items():
        try:
            adapter = _whole(leaf, checked, resolver)
            stored[leaf] = adapter if leaf in weighed else replace(adapter, statistics=None)
        except Fault as fault:
            wrong.append(fault.at(spelt[0].span))
    files = [file for adapter in stored.values() for file in resolver.large_files(adapter)]
    with placed(None):
        take_digests(files, default_threads())
    adapters = {leaf: named_as(leaf.adapter, adapter) for leaf, adapter in stored.items()}
    for leaf, adapter in stored.items():
        spelling = checked.spellings[leaf][0]
        try:
            contents[leaf] = resolver.content(adapter, spelling) + names_of(adapters[leaf])
        except Fault as fault:
            wrong.append(fault.at(spelling.span))
    checked.told(wrong).raise_errors()
    copies = _copies(checked, adapters, contents)
    return checked.identified({leaf: (copies[leaf], adapter) for leaf, adapter in adapters.items()})


def _whole(leaf: Stored, checked: Checked, resolver: Resolver) -> Adapter:
    adapter = resolver.whole(leaf.adapter.in_files, checked.spellings[leaf][0])
    before, after = leaf.adapter.in_files.layout, adapter.layout
    if (before.shapes, before.ranks) != (after.shapes, after.ranks):
        raise changed(adapter.weights)
    return adapter


def _copies(
    checked: Checked, adapters: Mapping[Stored, Adapter], contents: Mapping[Stored, str]
) -> dict[Stored, str]:
    """The identity of each adapter. A copy elsewhere stays another adapter, as it is to a check
    that reads no tensor: which copy it is goes by the names of their places, so that it does not
    depend on the order of declarations."""
    names: dict[str, dict[Path, str]] = {}
    for leaf, adapter in adapters.items():
        places = names.setdefault(contents[leaf], {})
        for spelling in checked.spellings[leaf]:
            name = seen_from(checked.source.directory, spelling.path, spelling.directory)
            places[adapter.place] = min(places.get(adapter.place, name), name)
    identities = {}
    for leaf, adapter in adapters.items():
        places = names[contents[leaf]]
        copy = sorted(places, key=lambda place: places[place]).index(adapter.place)
        identities[leaf] = contents[leaf] + f" copy {copy}" * bool(copy)
    return identities


def seen_from(directory: Path, path: str, written_in: Path) -> str:
    """What an adapter's path, written in a recipe of some folder, is called in another."""
    if path.startswith(SCHEME) or Path(path).is_absolute():
        return path
    return Path(os.path.relpath(written_in / path, directory)).as_posix()
