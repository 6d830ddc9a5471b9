"""Recipes read by their lock: without their adapters, or held to what it has of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.elaborate import Loaders
from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft import CONFIG, Adapter
from pemlang.formats.signature import Malformed, adapter_from, signature
from pemlang.inputs.hub import SCHEME, parse_reference
from pemlang.inputs.identities import Identities
from pemlang.inputs.imports import import_name, imports_of
from pemlang.inputs.load import local, model
from pemlang.inputs.lock import NAME, Lock, Locked, unreadable
from pemlang.tensorfiles.digests import digests_of, file_digest
from pemlang.tensorfiles.disk import is_file, lfs_pointer
from pemlang.version import __version__


def locked_loaders(lock: Lock) -> Loaders:
    """Adapters as the lock has them, their content for identity. No file of theirs need be there;
    one that is, or a Git LFS pointer in its place, is held to the lock: PEM0803."""
    seen: dict[str, Adapter] = {}
    identities = Identities()

    def adapter(path: str, directory: Path) -> tuple[str, Adapter]:
        locked, source = lock.find(path, directory), lock.source(path, directory)
        if source not in seen:
            seen[source] = from_lock(lock, path, directory)
            if not path.startswith(SCHEME):
                _hold_files(lock, source, seen[source].directory)
        found = seen[source]
        return identities.of(path, directory, found.directory, locked.content), found

    return Loaders(adapter, model, identities)


def _hold_files(lock: Lock, source: str, directory: Path) -> None:
    locked = lock.adapters[source]
    for name, digest in locked.files.items():
        path = directory / Path(name).name
        if not is_file(path):
            continue
        pointer = lfs_pointer(path)
        if pointer is None and file_digest(path) != digest:
            raise _other(lock, source, name, _told(digest, file_digest(path)))
        before = locked.sha256.get(name)
        if pointer is not None and before not in (None, pointer):
            raise _other(lock, source, name, _told(before, pointer, "SHA-256"))


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
    place = _place(lock, path, directory)
    weights = list(locked.files)[1]
    if weights != Path(weights).name:
        raise unreadable(lock.directory / NAME, f"{weights} is not the name of a file")
    try:
        return adapter_from(locked.signature, place, weights)
    except Malformed as error:
        source = lock.source(path, directory)
        raise unreadable(lock.directory / NAME, f"its entry for {source}: {error}") from None


def _place(lock: Lock, path: str, directory: Path) -> Path:
    """Where an adapter would lie: what tells it from another of the same content."""
    locked = lock.find(path, directory)
    if locked.same is not None:
        return local(locked.same, lock.directory)
    if path.startswith(SCHEME):
        return Path(f"{SCHEME}{parse_reference(path).repo}@{locked.revision}")
    return local(path, directory)


def held(lock: Lock, inner: Loaders, whole: bool) -> Loaders:
    """Loaders that give only what the lock has: hub references at the revision it has, and, once
    the tensors are there, files of the digests it has.

    Raises:
        Fault: PEM0802 for an adapter that is not in the lock, PEM0803 for one that differs.
    """

    def adapter(path: str, directory: Path) -> tuple[str, Adapter]:
        if lock.partial and lock.source(path, directory) not in lock.adapters:
            return inner.adapter(path, directory)
        locked = lock.find(path, directory)
        if locked.revision is not None and path.startswith(SCHEME):
            pinned = f"{SCHEME}{parse_reference(path).repo}@{locked.revision}"
            key, found = inner.adapter(pinned, directory)
        else:
            key, found = inner.adapter(path, directory)
        if whole or _looks_other(locked, found):
            for name in differences(locked.files, digests_of(found)):
                told = _told(locked.files.get(name), digests_of(found).get(name))
                raise _other(lock, lock.source(path, directory), name, told)
        if whole and locked.signature and signature(found) != locked.signature:
            source = lock.source(path, directory)
            raise _other(lock, source, "the signature", "its files are those of the lock")
        return key, found

    return Loaders(adapter, inner.model, inner.identities)


def _looks_other(locked: Locked, found: Adapter) -> bool:
    """Whether what lies there differs in its config or header from what was locked: then that is
    what to say, rather than what the recipe cannot do with it. Its tensors need not be read."""
    if not is_file(found.weights):
        return False
    config = found.directory / CONFIG
    if file_digest(config) != locked.files.get(CONFIG):
        return True
    return bool(locked.signature) and signature(found) != locked.signature


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The names whose digests differ."""
    return [n for n in dict.fromkeys((*before, *after)) if before.get(n) != after.get(n)]


def _told(before: str | None, after: str | None, algorithm: str = "BLAKE3") -> str:
    one, two = (digest[:12] if digest else "none" for digest in (before, after))
    return f"{algorithm} was {visible(one)}, is {two}"


def hold_imports(checked: Checked, lock: Lock) -> None:
    """Report each import of a recipe that is not what the lock has: PEM0802, PEM0803."""
    now = imports_of(checked)
    for statement, path in checked.program.imports.items():
        name = import_name(path, checked.source.directory)
        before = lock.imports.get(name)
        if before is None:
            fault = Fault("PEM0802", f"{visible(name)} is not in {lock.name}", lock.again)
        elif before != now.get(name):
            fault = Fault(
                "PEM0803",
                f"{visible(name)} is not what {lock.name} has",
                f"put the locked text back, or {lock.again}",
                (_told(before, now.get(name)),),
            )
        else:
            continue
        checked.report.add(fault.at(statement.span))


def hold_version(lock: Lock) -> None:
    """Raise PEM0804 where another version made the lock: it may give other bytes."""
    if lock.tool != __version__:
        raise Fault(
            "PEM0804",
            f"{lock.name} was written by pemlang {visible(lock.tool, 40)}, this is {__version__}",
            f'pip install "pemlang=={visible(lock.tool, 40)}", or {lock.again}',
        )
