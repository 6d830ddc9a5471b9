"""Recipes read by their lock: without their adapters, or held to what it has of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.published import PublishedRecipe
from pemlang.check.values import Spelling
from pemlang.diagnostics import Diagnostic, Fault, visible
from pemlang.disk import is_file, lfs_pointer
from pemlang.formats import FORMATS
from pemlang.formats.adapter import STATISTICS, Adapter
from pemlang.formats.gguf_names import known_model
from pemlang.formats.identity import used_digest
from pemlang.formats.reading import read_as
from pemlang.formats.record import Format
from pemlang.formats.signature import Malformed
from pemlang.inputs.hub import SCHEME, parse_reference
from pemlang.inputs.imports import import_name, imports_of, published_digest
from pemlang.inputs.lock import NAME, Lock, Locked, unreadable
from pemlang.inputs.resolver import Resolver, local, published_now
from pemlang.tensorfiles.digests import file_digest
from pemlang.version import __version__


def published_by(lock: Lock | None, name: str, version: str | None) -> PublishedRecipe:
    """A published recipe as a lock has it; one that it does not have, as it is now."""
    if lock is not None and name in lock.published:
        return lock.published[name]
    return published_now(name, version)


class LockResolver(Resolver):
    """Adapters as the lock has them, whether their files are there or not. A file that is there,
    or a Git LFS pointer to it, has to be the one that was locked: PEM0803."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._seen: dict[str, Adapter] = {}

    def adapter(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver."""
        source = self._lock.source(path, directory)
        if source not in self._seen:
            self._seen[source] = from_lock(self._lock, path, directory)
            if not path.startswith(SCHEME):
                self._hold_files(source, self._seen[source].directory)
        adapter = self._seen[source]
        return str(adapter.place), adapter

    def model(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver."""
        return self.adapter(path, directory)

    def published(self, name: str, version: str | None = None) -> PublishedRecipe:
        """See Resolver."""
        return published_by(self._lock, name, version)

    def content(self, adapter: Adapter, spelling: Spelling) -> str:
        """See Resolver."""
        return used_digest(adapter, self._lock.find(spelling.path, spelling.directory).files)

    def _hold_files(self, source: str, directory: Path) -> None:
        locked = self._lock.adapters[source]
        record = FORMATS[locked.format]
        names = locked.files.keys() - {STATISTICS}  # see held_statistics
        for name in locked.files:
            if name in names:
                _hold_file(self._lock, source, directory, name)
        for name in sorted(names ^ _read_now(record, source, directory, names)):
            now = file_digest(directory / name) if is_file(directory / name) else None
            raise _other(self._lock, source, name, _digests(locked.files.get(name), now))


def _read_now(record: Format, source: str, directory: Path, names: Set[str]) -> Set[str]:
    """The names of the files that a build would read at a place; those of the lock where not all
    is there."""
    if not record.detect(directory).whole:
        return names
    try:
        return {file.name for file in read_as(record, directory, source.startswith(SCHEME)).files}
    except Fault:
        return names


def held_statistics(checked: Checked, lock: Lock) -> Iterator[Diagnostic]:
    """What is wrong with statistics that a recipe uses, where they are there and not those that
    the lock has: PEM0803."""
    for leaf in checked.graph.weighed():
        for spelling in checked.spellings[leaf]:
            source = lock.source(spelling.path, spelling.directory)
            if source in lock.adapters and STATISTICS in lock.adapters[source].files:
                try:
                    _hold_file(lock, source, leaf.adapter.directory, STATISTICS)
                except Fault as fault:
                    yield fault.at(spelling.span)


def _hold_file(lock: Lock, source: str, directory: Path, name: str) -> None:
    """Raise PEM0803 where a file of an adapter is there, and is not the one of the lock."""
    locked, path = lock.adapters[source], directory / Path(name).name
    if not is_file(path):
        return
    pointer, before = lfs_pointer(path), locked.sha256.get(name)
    if pointer is None and file_digest(path) != locked.files[name]:
        raise _other(lock, source, name, _digests(locked.files[name], file_digest(path)))
    if pointer is not None and before not in (None, pointer):
        raise _other(lock, source, name, _digests(before, pointer, "SHA-256"))


def _other(lock: Lock, source: str, name: str, note: str) -> Fault:
    """PEM0803 for a file of an adapter."""
    return Fault(
        "PEM0803",
        f"{visible(name)} of {visible(source)} is not what {lock.name} has",
        f"put the locked file back, or {lock.again}",
        (note,),
    )


def from_lock(lock: Lock, path: str, directory: Path) -> Adapter:
    """An adapter as the lock has it; raises PEM0801, PEM0802."""
    locked = lock.find(path, directory)
    weights = locked.weights
    if weights != Path(weights).name:
        raise unreadable(lock.directory / NAME, f"{weights} is not the name of a file")
    try:
        place = _place(lock, path, directory)
        adapter = FORMATS[locked.format].restored(locked.signature, place, weights)
        return replace(adapter, model=known_model(locked.signature.get("model")))
    except Malformed as error:
        source = lock.source(path, directory)
        raise unreadable(lock.directory / NAME, f"its entry for {source}: {error}") from None


def _place(lock: Lock, path: str, directory: Path) -> Path:
    """Where an adapter would lie: what tells it from another of the same content."""
    locked = lock.find(path, directory)
    if locked.same is not None:
        return local(locked.same, lock.directory)
    if path.startswith(SCHEME):
        reference = parse_reference(path)
        return Path(reference.folder_at(locked.revision), reference.name)
    return local(path, directory)


_ReadStored = Callable[[str, Path], tuple[str, Adapter]]


class HeldResolver(Resolver):
    """Gives only what the lock has: hub references at the revision it has, and, once the tensors
    are there, files of the digests it has.

    Raises:
        Fault: PEM0802 for an adapter that is not in the lock, PEM0803 for one that differs.
    """

    def __init__(self, lock: Lock, inner: Resolver) -> None:
        self._lock, self._inner = lock, inner

    def adapter(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver."""
        return self._held(self._inner.adapter, path, directory)

    def model(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver."""
        return self._held(self._inner.model, path, directory)

    def published(self, name: str, version: str | None = None) -> PublishedRecipe:
        """See Resolver."""
        return published_by(self._lock, name, version)

    def _held(self, read: _ReadStored, path: str, directory: Path) -> tuple[str, Adapter]:
        locked = self._locked(path, directory)
        if locked is None:
            return read(path, directory)
        if locked.revision is not None and path.startswith(SCHEME):
            path = parse_reference(path).at(locked.revision)
        place, adapter = read(path, directory)
        bare = replace(adapter, statistics=None)  # whether the recipe uses them is not known yet
        if _looks_other(locked, bare):
            self._hold(locked, bare, self._lock.source(path, directory))
        return place, adapter

    def whole(self, adapter: Adapter, spelling: Spelling) -> Adapter:
        """See Resolver."""
        return self._inner.whole(adapter, spelling)

    def large_files(self, adapter: Adapter) -> list[Path]:
        """See Resolver."""
        return self._inner.large_files(adapter)

    def content(self, adapter: Adapter, spelling: Spelling) -> str:
        """See Resolver."""
        locked = self._locked(spelling.path, spelling.directory)
        if locked is not None:
            source = self._lock.source(spelling.path, spelling.directory)
            self._hold(locked, adapter, source)
            if _signed_other(locked, adapter):
                note = "its files are those of the lock"
                raise _other(self._lock, source, "the signature", note)
        return self._inner.content(adapter, spelling)

    def _locked(self, path: str, directory: Path) -> Locked | None:
        """What the lock has of an adapter; None of one that it need not have."""
        lock = self._lock
        if lock.partial and lock.source(path, directory) not in lock.adapters:
            return None
        return lock.find(path, directory)

    def _hold(self, locked: Locked, adapter: Adapter, source: str) -> None:
        now = adapter.digests
        for name in differences(locked.files, now):
            if name == STATISTICS and adapter.statistics is None:
                continue
            raise _other(self._lock, source, name, _digests(locked.files.get(name), now.get(name)))


def _looks_other(locked: Locked, adapter: Adapter) -> bool:
    """Whether what lies there differs in its config or header from what was locked: then that is
    what to say, rather than what the recipe cannot do with it. Its tensors need not be read."""
    if not is_file(adapter.weights):
        return False
    for file in adapter.files:
        if file not in adapter.tensor_files and file_digest(file) != locked.files.get(file.name):
            return True
    return _signed_other(locked, adapter)


def _signed_other(locked: Locked, adapter: Adapter) -> bool:
    """Whether the lock's signature is of another adapter; its statistics count where it is taken
    with them. A provenance has no signatures."""
    now, before = adapter.signature, dict(locked.signature)
    if adapter.statistics is None:
        before.pop("statistics", None)
    return bool(before) and now != before


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The names whose digests differ."""
    return [n for n in dict.fromkeys((*before, *after)) if before.get(n) != after.get(n)]


def _digests(before: str | None, after: str | None, algorithm: str = "BLAKE3") -> str:
    was, now = (digest[:12] if digest else "none" for digest in (before, after))
    return f"{algorithm} was {visible(was)}, is {visible(now)}"


def held_imports(checked: Checked, lock: Lock) -> Iterator[Diagnostic]:
    """What is wrong with each import of a recipe that is not what the lock has: PEM0802,
    PEM0803."""
    now = imports_of(checked)
    for statement, path in checked.files.imports.items():
        name = import_name(checked, path)
        before, after = lock.imports.get(name), now.get(name)
        if before is None and not lock.partial:
            fault = Fault("PEM0802", f"{visible(name)} is not in {lock.name}", lock.again)
            yield fault.at(statement.span)
        elif before not in (None, after):
            notes = (_digests(before, after),)
            help = f"put the locked text back, or {lock.again}"
            yield _other_import(lock, name, help, notes).at(statement.span)
        elif (other := _other_installed(lock, name)) is not None:
            yield other.at(statement.span)


def _other_import(lock: Lock, name: str, help: str, notes: tuple[str, ...]) -> Fault:
    """PEM0803 for an import."""
    why = f"{visible(name)} is not what {lock.name} has"
    return Fault("PEM0803", why, help, notes)


def _other_installed(lock: Lock, name: str) -> Fault | None:
    """What is wrong with a recipe of a library that a lock has, where another is installed. Where
    none is, the lock has all that is needed."""
    if name not in lock.published or name.startswith(SCHEME):
        return None
    try:
        here = published_now(name)
        after = published_digest(here)
    except Fault:
        return None
    if after == lock.imports[name]:
        return None
    was, library = lock.published[name], name.partition(".")[0]
    notes = (
        f"it was of {visible(was.of)}, {visible(here.of)} is installed",
        _digests(lock.imports[name], after),
    )
    help = f"install that one again, or see what this one changes: pem lock --upgrade {library}"
    return _other_import(lock, name, help, notes)


def hold_version(lock: Lock) -> None:
    """Raise PEM0804 where another version made the lock: it may give other bytes."""
    if lock.tool != __version__:
        raise Fault(
            "PEM0804",
            f"{lock.name} was written by pemlang {visible(lock.tool, 40)}, this is {__version__}",
            f'pip install "pemlang=={visible(lock.tool, 40)}", or {lock.again}',
        )
