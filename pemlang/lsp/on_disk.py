"""What may be named where a path, a reference or a site is being written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from pemlang.diagnostics import Fault
from pemlang.formats.reading import in_order
from pemlang.formats.record import formats_of
from pemlang.formats.transformers import is_model
from pemlang.inputs.hub import SCHEME
from pemlang.syntax.files import SUFFIX
from pemlang.syntax.written import quoted
from pemlang.tensorfiles.container import SUFFIXES

MOST = 1000
"""Entries of a folder, repositories of a cache, or sites, that are looked at."""


def paths_from(directory: Path, written: str) -> list[str]:
    """The folders, and the files of tensors, that a path may go on with, as a recipe writes them;
    a folder that is looked into ends in no slash where it holds an adapter or a model."""
    return list(_entries(directory, written, SUFFIXES))


def recipes_from(directory: Path, written: str) -> list[str]:
    """The same of folders and recipes."""
    return list(_entries(directory, written, (SUFFIX,)))


def _entries(directory: Path, written: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    parent, slash, _ = written.rpartition("/")
    if written.startswith(SCHEME) or "\0" in written:
        return
    try:
        with os.scandir(directory / (parent + slash)) as scanned:
            entries = [x for x in islice(scanned, MOST) if not x.name.startswith(".")]
    except OSError:
        return
    for name in in_order(entry.name for entry in entries):
        place = directory / (parent + slash) / name
        if place.is_dir():
            end = "" if _holds_weights(place) and suffixes == SUFFIXES else "/"
        elif name.endswith(suffixes):
            end = ""
        else:
            continue
        try:
            yield quoted(f"{parent}{slash}{name}{end}")[1:-1]
        except Fault:  # characters that no recipe shows
            continue


def _holds_weights(place: Path) -> bool:
    adapter = any(not x.one_file and x.detect(place).fits for x in formats_of("adapter"))
    return adapter or is_model(place)


def hub_references(models: bool) -> list[str]:
    """References to the adapters, or the models, of the hub that are in its cache, each at the
    commit that is there."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / (
        "huggingface"
    )
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    references = []
    for snapshot in islice(sorted(cache.glob("models--*--*/snapshots/*")), MOST):
        org, _, name = snapshot.parent.parent.name.removeprefix("models--").partition("--")
        for place in (snapshot, *islice((x for x in snapshot.iterdir() if x.is_dir()), MOST)):
            fits = is_model(place) if models else _holds_adapter(place)
            if fits:
                folder = "" if place == snapshot else f"/{place.name}"
                references.append(f"{SCHEME}{org}/{name}{folder}@{snapshot.name}")
    return references


def _holds_adapter(place: Path) -> bool:
    """Whether a folder of the cache has what describes an adapter; its tensors come later."""
    return any(
        (place / record.described_in).is_file()
        for record in formats_of("adapter")
        if not record.one_file
    )


def sites_by_pattern(sites: Collection[str]) -> dict[str, int]:
    """Patterns that select some sites, with how many each selects: by the last part of a name, by
    the part before it, and single ones."""
    last = Counter(f"*.{site.rpartition('.')[2]}" for site in sites if "." in site)
    within = Counter(f"*.{x[-2]}.*" for x in (s.split(".") for s in sites) if len(x) > 2)
    within = Counter({x: y for x, y in within.items() if not x[2:-2].isdecimal()})
    single = dict.fromkeys(islice(in_order(sites), MOST), 1)
    return {**dict(sorted(last.items())), **dict(sorted(within.items())), **single}
