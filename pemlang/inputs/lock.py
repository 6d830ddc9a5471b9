"""pem.lock: what the recipes of a folder are made from, as text. For each adapter the digests of
its files, the revision that a hub reference stood for, and the signature that a type check needs;
for each import its digest; of those that are published their versions and their text; and the
versions.

With it a recipe is checked, planned and compared without a byte of its adapters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, TypeVar

from pemlang.check.published import HUB, PublishedRecipe
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_file, open_plain, replace_file
from pemlang.formats.adapter import STATISTICS
from pemlang.formats.record import FORMATS, default_format
from pemlang.formats.signature import Malformed, tensors_in
from pemlang.inputs.identities import seen_from
from pemlang.tensorfiles.digests import text_digest
from pemlang.tensorfiles.jsons import parse_json
from pemlang.version import LANGUAGE, __version__

NAME = "pem.lock"
FORMAT = 1
MAX_BYTES = 64 << 20
Detail = TypeVar("Detail")
_DIGEST, _COMMIT = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
MAX_FILES = 1024  # of an adapter or a model
MAX_TENSORS = 1 << 19  # of all adapters together: ten of 224 sites have 4,480
_OWN = ("files", "sha256", "revision", "same", "format")  # not of a signature
ABOUT = "What the recipes of this folder are made from. Written by `pem lock`; commit it."


@dataclass(frozen=True)
class Locked:
    """An adapter of a lock.

    Attributes:
        files: BLAKE3 of each file that is read, in the order its identity is taken in.
        sha256: SHA-256 of those that hold tensors, by which Git LFS knows them.
        signature: what its format says that a check needs.
        revision: the commit a hub reference stood for.
        same: the source of another adapter that was in the same directory, by a link.
        format: of its files, by name.
    """

    files: Mapping[str, str]
    signature: Mapping[str, object]
    revision: str | None = None
    same: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    format: str = field(default_factory=lambda: default_format().name)

    def beside(self, other: Locked) -> Locked:
        """The same with the statistics that another recipe uses, where this one has none."""
        if STATISTICS in self.files or STATISTICS not in other.files:
            return self
        return replace(
            self,
            files=_with(self.files, STATISTICS, other.files),
            sha256=_with(self.sha256, STATISTICS, other.sha256),
            signature=_with(self.signature, "statistics", other.signature),
        )

    @property
    def weights(self) -> str:
        """The name of the file that holds its tensors."""
        return [name for name in self.files if name != STATISTICS][-1]


@dataclass
class Lock:
    """A pem.lock.

    Attributes:
        directory: the folder it lies in; its recipes' own.
        recipes: name to the sources of its adapters and the names of its imports.
        adapters: source, as seen from the folder, to what it was.
        imports: name to BLAKE3 of the text.
        published: those of libraries and of the hub, as they were.
        tool, language: the versions that made it.
        name: what messages call it.
        partial: whether there may be adapters that it does not have, which are then any.
        again: what to do where something is to differ from it.
    """

    directory: Path
    recipes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    adapters: dict[str, Locked] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    published: dict[str, PublishedRecipe] = field(default_factory=dict)
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
        adapters: dict[str, dict[str, object]] = {}
        for source, locked in sorted(self.adapters.items()):
            other = None if locked.format == default_format().name else locked.format
            also = {"revision": locked.revision, "same": locked.same, "format": other}
            adapters[source] = {key: value for key, value in also.items() if value is not None}
            adapters[source] |= {"files": dict(locked.files), "sha256": dict(locked.sha256)}
            adapters[source] |= locked.signature
        fields = {
            "about": ABOUT,
            "lock": FORMAT,
            "language": self.language,
            "pemlang": self.tool,
            "recipes": dict(sorted(self.recipes.items())),
            "imports": dict(sorted(self.imports.items())),
            "adapters": adapters,
        }
        if self.published:
            fields["published"] = {
                name: _published_fields(self.published[name]) for name in sorted(self.published)
            }
        return json.dumps(fields, indent=1) + "\n"


def _published_fields(recipe: PublishedRecipe) -> dict[str, object]:
    of = {"distribution": recipe.distribution} if recipe.distribution else {}
    return {**of, "version": recipe.version, "text": recipe.data.decode().split("\n")}


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
        value = parse_json(data) if len(data) <= MAX_BYTES else None
    except ValueError:
        value = None
    if not isinstance(value, dict) or type(value.get("lock")) is not int:
        raise unreadable(path, "it is not what `pem lock` writes")
    if value["lock"] != FORMAT or value.get("language") != LANGUAGE:
        raise unreadable(path, "another version of pemlang wrote it")
    tool, parts = value.get("pemlang"), [value.get(k) for k in ("recipes", "imports", "adapters")]
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
    _add_published(lock, path, value.get("published", {}))
    tensors = 0
    for source, entry in adapters.items():
        lock.adapters[source] = _locked(path, source, entry)
        try:
            tensors += tensors_in(lock.adapters[source].signature)
        except Malformed as error:
            raise unreadable(path, f"its entry for {source}: {error}") from None
    if tensors > MAX_TENSORS:
        raise unreadable(path, f"it names {tensors} tensors, and {MAX_TENSORS} are the most")
    return lock


def _add_published(lock: Lock, path: Path, entries: object) -> None:
    """Take the text of published recipes, which is what the lock says of the imports."""
    if not isinstance(entries, dict):
        raise unreadable(path, "what it says of published recipes is not whole")
    for name, entry in entries.items():
        fields = entry if isinstance(entry, dict) else {}
        version, of, lines = (fields.get(key, "") for key in ("version", "distribution", "text"))
        is_whole = _is_list([version, of]) and _is_list(lines) and name.startswith(HUB) != bool(of)
        if not is_whole or not (of or _COMMIT.fullmatch(version)):
            raise unreadable(path, f"its entry for {visible(name)} is not whole")
        data = "\n".join(lines).encode(errors="replace")
        if lock.imports.get(name) != text_digest(data.decode()):
            raise unreadable(path, f"its text of {visible(name)} has another digest")
        lock.published[name] = PublishedRecipe(name, path / name, data, version, of)


def _locked(path: Path, source: str, entry: Any) -> Locked:
    entry = entry if isinstance(entry, dict) else {}
    files, pointers = entry.get("files"), entry.get("sha256", {})
    revision, same = entry.get("revision", ""), entry.get("same", "")
    format_ = entry.get("format", default_format().name)
    if (
        not isinstance(files, dict)
        or not 0 < len(files) <= MAX_FILES
        or files.keys() == {STATISTICS}
        or not isinstance(pointers, dict)
        or not _is_list([revision, same, format_])
        or not all(map(_is_digest, (*files.values(), *pointers.values())))
        or not (revision == "" or _COMMIT.fullmatch(revision))
        or format_ not in FORMATS
        or len(files) <= len(FORMATS[format_].texts)
    ):
        raise unreadable(path, f"its entry for {visible(source)} is not whole")
    signature = {key: value for key, value in entry.items() if key not in _OWN}
    return Locked(files, signature, revision or None, same or None, pointers, format_)


def _with(
    fields: Mapping[str, Detail], key: str, others: Mapping[str, Detail]
) -> dict[str, Detail]:
    """Some fields, and one of others where they have it."""
    return {**fields, **({key: others[key]} if key in others else {})}


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


def joined(old: Lock | None, new: Sequence[Lock]) -> Lock:
    """The lock of a folder with some of its recipes locked anew. What no recipe that is still
    there needs goes; what one recipe uses of an adapter stays where another uses less of it."""
    total = Lock(new[0].directory)
    anew = {name for lock in new for name in lock.recipes}
    if old is not None:
        total.recipes = {k: v for k, v in old.recipes.items() if k not in anew}
        total.recipes = {k: v for k, v in total.recipes.items() if is_file(total.directory / k)}
        needed = _needed(total, "adapters")
        total.adapters = {k: v for k, v in old.adapters.items() if k in needed}
        total.imports |= old.imports
        total.published |= old.published
    for lock in new:
        total.recipes |= lock.recipes
        total.imports |= lock.imports
        total.published |= lock.published
        for source, locked in lock.adapters.items():
            before = total.adapters.get(source)
            total.adapters[source] = locked if before is None else locked.beside(before)
    total.adapters = {k: v for k, v in total.adapters.items() if k in _needed(total, "adapters")}
    needed = _needed(total, "imports")
    total.imports = {k: v for k, v in total.imports.items() if k in needed}
    total.published = {k: v for k, v in total.published.items() if k in needed}
    return total


def _needed(lock: Lock, what: str) -> set[str]:
    return {name for made_of in lock.recipes.values() for name in made_of[what]}


def write_lock(lock: Lock) -> Path:
    """Write a lock, whole or not at all; raises PEM0805 where it would not be read, and OSError."""
    path, text = lock.directory / NAME, lock.as_text().encode()
    tensors = sum(tensors_in(locked.signature) for locked in lock.adapters.values())
    if tensors > MAX_TENSORS or len(text) > MAX_BYTES:
        raise Fault(
            "PEM0805",
            f"{visible(path)} would name {tensors:,} tensors in {len(text):,} bytes",
            f"at most {MAX_TENSORS:,} tensors and {MAX_BYTES:,} bytes are read: move some of the "
            "recipes to a folder of their own, which has a lock of its own",
        )
    replace_file(path, text)
    return path
