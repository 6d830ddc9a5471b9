"""pem.lock: what the recipes of a folder are made from, as text. For each adapter the digests of
its files, the revision that a hub reference stood for, and the signature that a type check needs;
for each import its digest; and the versions.

With it a recipe is checked, planned and compared without a byte of its adapters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pemlang.artifact.staging import placed
from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.elaborate import Loaders
from pemlang.diagnostics import Fault, visible
from pemlang.execute.machine import default_threads
from pemlang.formats.peft import CONFIG, Adapter
from pemlang.formats.signature import signature
from pemlang.inputs.hub import SCHEME
from pemlang.inputs.identities import seen_from
from pemlang.inputs.imports import imports_of
from pemlang.inputs.load import loaders
from pemlang.source import Source
from pemlang.tensorfiles.digests import anew, content_digest, digests_of, take_digests
from pemlang.tensorfiles.disk import is_file, open_plain, replace_file, sha256
from pemlang.tensorfiles.jsons import parse_json
from pemlang.version import LANGUAGE, __version__

NAME = "pem.lock"
FORMAT = 1
MAX_BYTES = 64 << 20
_DIGEST, _COMMIT = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
ABOUT = "What the recipes of this folder are made from. Written by `pem lock`; commit it."


@dataclass(frozen=True)
class Locked:
    """An adapter of a lock.

    Attributes:
        files: BLAKE3 of each file that is read, in the order its identity is taken in.
        sha256: SHA-256 of those that hold tensors, by which Git LFS knows them.
        signature: its config and its tensors' names, dtypes and shapes.
        revision: the commit a hub reference stood for.
        same: the source of another adapter that was in the same directory, by a link.
    """

    files: Mapping[str, str]
    signature: Mapping[str, Any]
    revision: str | None = None
    same: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """The identity of its content."""
        return content_digest(self.files.values())


@dataclass
class Lock:
    """A pem.lock.

    Attributes:
        directory: the folder it lies in; its recipes' own.
        recipes: name to the sources of its adapters and the names of its imports.
        adapters: source, as seen from the folder, to what it was.
        imports: name to BLAKE3 of the text.
        tool, language: the versions that made it.
        name: what messages call it.
        partial: whether there may be adapters that it does not have, which are then any.
        again: what to do where something is to differ from it.
    """

    directory: Path
    recipes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    adapters: dict[str, Locked] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    tool: str = __version__
    language: int = LANGUAGE
    name: str = NAME
    partial: bool = False
    again: str = "run `pem lock` and have the change reviewed"

    def source(self, path: str, directory: Path) -> str:
        """What an adapter's path, written in a recipe of some folder, is called here."""
        return seen_from(self.directory, path, directory)

    def find(self, path: str, directory: Path) -> Locked:
        """An adapter as it was; raises PEM0802."""
        source = self.source(path, directory)
        if source not in self.adapters:
            raise Fault(
                "PEM0802",
                f"{visible(source)} is not in {self.name}",
                f"run `pem lock` where the adapters are, and commit {NAME}",
            )
        return self.adapters[source]

    def as_text(self) -> str:
        """The file: stable to the byte, a line for each fact."""
        adapters: dict[str, dict[str, Any]] = {}
        for source, locked in sorted(self.adapters.items()):
            also = {"revision": locked.revision, "same": locked.same}
            adapters[source] = {key: value for key, value in also.items() if value is not None}
            adapters[source] |= {"files": dict(locked.files), "sha256": dict(locked.sha256)}
            adapters[source] |= locked.signature
        said = {
            "about": ABOUT,
            "lock": FORMAT,
            "language": self.language,
            "pemlang": self.tool,
            "recipes": dict(sorted(self.recipes.items())),
            "imports": dict(sorted(self.imports.items())),
            "adapters": adapters,
        }
        return json.dumps(said, indent=1) + "\n"


def read_lock(directory: Path) -> Lock:
    """The lock of a folder; raises PEM0801 where there is none that can be read."""
    path = directory / NAME
    if not is_file(path):
        raise Fault(
            "PEM0801",
            f"there is no {NAME} in {visible(directory)}",
            "run `pem lock` on the recipe where its adapters are",
        )
    try:
        with open_plain(path) as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from None
    return parse_lock(data, path)


def parse_lock(data: bytes, path: Path) -> Lock:
    """The lock in some bytes; raises PEM0801."""
    try:
        found = parse_json(data) if len(data) <= MAX_BYTES else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or type(found.get("lock")) is not int:
        raise unreadable(path, "it is not what `pem lock` writes")
    if found["lock"] != FORMAT or found.get("language") != LANGUAGE:
        raise unreadable(path, "another version of pemlang wrote it")
    tool, parts = found.get("pemlang"), [found.get(k) for k in ("recipes", "imports", "adapters")]
    recipes, imports, adapters = parts
    if not isinstance(tool, str) or not all(isinstance(part, dict) for part in parts):
        raise unreadable(path, "a part of it is missing")
    assert recipes is not None and imports is not None and adapters is not None
    lock = Lock(path.parent, tool=tool)
    for name, made_of in recipes.items():
        if not isinstance(made_of, dict) or not all(
            _is_list(made_of.get(what)) for what in ("adapters", "imports")
        ):
            raise unreadable(path, f"its entry for {visible(name)} is not whole")
        lock.recipes[name] = {what: made_of[what] for what in ("adapters", "imports")}
    for name, digest in imports.items():
        if not _is_digest(digest):
            raise unreadable(path, f"its entry for {visible(name)} is no digest")
        lock.imports[name] = digest
    for source, said in adapters.items():
        lock.adapters[source] = _locked(path, source, said)
    return lock


def _locked(path: Path, source: str, said: Any) -> Locked:
    files = said.get("files") if isinstance(said, dict) else None
    also = [said.get(key, "") if isinstance(said, dict) else None for key in ("revision", "same")]
    whole = isinstance(files, dict) and len(files) in (2, 3) and _is_list(also)
    pointers = said.get("sha256", {}) if isinstance(said, dict) else None
    whole = whole and isinstance(pointers, dict) and all(map(_is_digest, pointers.values()))
    whole = whole and (not also[0] or _COMMIT.fullmatch(str(also[0])) is not None)
    if not whole or not all(map(_is_digest, files.values())):  # type: ignore[union-attr]
        raise unreadable(path, f"its entry for {visible(source)} is not whole")
    assert isinstance(files, dict)
    kept = {key: said[key] for key in ("config", "tensors", "statistics") if key in said}
    revision, same = also
    return Locked(files, kept, revision or None, same or None, pointers or {})


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def unreadable(path: Path, why: str) -> Fault:
    """PEM0801 for a lock that is not to be read."""
    return Fault(
        "PEM0801",
        f"cannot read {visible(path)}: {visible(why)}",
        "write it anew: remove it, and run `pem lock` on the recipes of the folder",
    )


def recording(inner: Loaders, loaded: dict[tuple[str, Path], Adapter]) -> Loaders:
    """Loaders that note each adapter by its path as written and the folder of the recipe."""

    def adapter(path: str, directory: Path) -> tuple[str, Adapter]:
        key, found = inner.adapter(path, directory)
        loaded[path, directory] = found
        return key, found

    return Loaders(adapter, inner.model, inner.identities)


def locked_now(path: Path, source: Source, settings: Mapping[str, str | float | bool]) -> Lock:
    """The lock of one recipe as its adapters are now, whole, fetched where they are on the hub.

    Raises:
        PemError: everything wrong with the recipe, or PEM0411 a file that cannot be read.
    """
    check(path, source, loaders(), settings).report.raise_errors()
    loaded: dict[tuple[str, Path], Adapter] = {}
    checked = check(path, source, recording(loaders(whole=True), loaded), settings)
    checked.report.raise_errors()
    with placed(None), anew():
        take_digests([adapter.weights for adapter in loaded.values()], default_threads())
        return _lock_of(checked, loaded)


def _lock_of(checked: Checked, loaded: Mapping[tuple[str, Path], Adapter]) -> Lock:
    imports = imports_of(checked)
    lock = Lock(checked.source.directory, imports=imports)
    first: dict[Path, str] = {}
    for (path, where), adapter in sorted(loaded.items(), key=lambda one: lock.source(*one[0])):
        source, remote = lock.source(path, where), path.startswith(SCHEME)
        revision = adapter.directory.name if remote else None
        same = None if remote else first.setdefault(adapter.directory, source)
        digests = digests_of(adapter)
        lock.adapters[source] = Locked(
            digests,
            signature(adapter),
            revision,
            None if same == source else same,
            {name: sha256(adapter.directory / name) for name in digests if name != CONFIG},
        )
    made_of = {"adapters": sorted(lock.adapters), "imports": sorted(imports)}
    lock.recipes[checked.path.resolve().name] = made_of
    return lock


def joined(old: Lock | None, new: Sequence[Lock]) -> Lock:
    """The lock of a folder with some of its recipes locked anew. What no recipe that is still
    there needs goes."""
    total = Lock(new[0].directory)
    for lock in [*([] if old is None else [old]), *new]:
        total.recipes |= lock.recipes
        total.adapters |= lock.adapters
        total.imports |= lock.imports
    total.recipes = {k: v for k, v in total.recipes.items() if is_file(total.directory / k)}
    total.adapters = {k: v for k, v in total.adapters.items() if k in _needed(total, "adapters")}
    total.imports = {k: v for k, v in total.imports.items() if k in _needed(total, "imports")}
    return total


def _needed(lock: Lock, what: str) -> set[str]:
    return {name for made_of in lock.recipes.values() for name in made_of[what]}


def write_lock(lock: Lock) -> Path:
    """Write a lock, whole or not at all; raises OSError."""
    path = lock.directory / NAME
    replace_file(path, lock.as_text().encode())
    return path
