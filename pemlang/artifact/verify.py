"""An output held to its provenance: every digest, and a build of it once more."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pemlang.artifact.provenance import NAME, Provenance, Subject, read_provenance
from pemlang.artifact.subjects import subject, tensor_digests
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.peft import CONFIG, WEIGHTS
from pemlang.inputs.hub import SCHEME, parse_reference
from pemlang.inputs.lock import Lock, Locked
from pemlang.pipeline.build import How, build
from pemlang.resources import resource
from pemlang.source import Source
from pemlang.syntax.files import read_source
from pemlang.tensorfiles.digests import anew, content_digest, file_digest, text_digest
from pemlang.tensorfiles.disk import is_file
from pemlang.tensorfiles.safetensors import read_metadata

SIGNATURE = "model.sig"
State = Literal["same", "differs", "missing", "unchecked"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: a file.
        state: what became of it.
        details: what differs in it, a line each; or why it was not looked at.
    """

    what: str
    state: State
    details: tuple[str, ...] = ()


@dataclass
class Verified:
    """What there is to say of an output.

    Attributes:
        provenance: of the output.
        outputs, materials: its files, and what it was made from.
        rebuilt: its files against those of another build; None where there was none.
    """

    provenance: Provenance
    outputs: list[Finding] = field(default_factory=list)
    materials: list[Finding] = field(default_factory=list)
    rebuilt: list[Finding] | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing differs or is missing."""
        found = [*self.outputs, *self.materials, *(self.rebuilt or [])]
        return all(one.state in ("same", "unchecked") for one in found)


def verify(directory: Path, folder: Path | None = None) -> Verified:
    """Take every digest of an output's provenance again.

    Args:
        directory: the output.
        folder: that of the recipe; where the provenance says the output lies in it, when not
            given.

    Raises:
        Fault: PEM0810 there is no provenance that can be read.
    """
    found = Verified(read_provenance(directory))
    known = found.provenance.subjects
    with anew():
        for name in sorted(known):
            found.outputs.append(_output(directory, name, known[name]))
        found.outputs += _strangers(directory, set(known))
        found.outputs += _said(directory, found.provenance)
        place = folder or recipe_folder(directory, found.provenance)
        found.materials = list(_materials(found.provenance, place))
    return found


def recipe_folder(directory: Path, provenance: Provenance) -> Path | None:
    """The folder of the recipe that built an output, if it lies in it as it was built."""
    inside, here = Path(provenance.output), directory.resolve()
    if inside.is_absolute() or ".." in inside.parts or not here.parts[-len(inside.parts) :]:
        return None
    if here.parts[-len(inside.parts) :] != inside.parts:
        return None
    folder = Path(*here.parts[: -len(inside.parts)])
    return folder if is_file(folder / provenance.recipe) else None


def _output(directory: Path, name: str, known: Subject) -> Finding:
    path = directory / name
    what = visible(name)
    if name != Path(name).name or not is_file(path):
        return Finding(what, "missing")
    if path.is_symlink():
        return Finding(what, "differs", ("it is a link",))
    try:
        now = subject(path)
    except (Fault, OSError, ValueError) as error:
        why = error.message if isinstance(error, Fault) else str(error)
        return Finding(what, "differs", (f"it cannot be read: {visible(why)}",))
    if (now.sha256, now.blake3) == (known.sha256, known.blake3):
        return Finding(what, "same")
    return Finding(what, "differs", tuple(_parts(name, known.parts, now.parts)))


def _parts(name: str, was: Any, now: Any) -> Iterator[str]:
    """What of a file differs: fields of a config, tensors."""
    if name == WEIGHTS:
        changed = sorted(key for key in was.keys() & now.keys() if was[key] != now[key])
        if changed:
            yield f"the numbers of {listed(changed, 3)}"
        for word, keys in (("missing", was.keys() - now.keys()), ("new", now.keys() - was.keys())):
            if keys:
                yield f"{word}: {listed(sorted(keys), 3)}"
        if was == now:
            yield "its header, and no tensor"
        return
    for key in sorted(was.keys() | now.keys()):
        if was.get(key, ...) != now.get(key, ...):
            one, two = (_value(parts.get(key, ...)) for parts in (was, now))
            yield f"`{visible(key, 60)}` is {two}, was {one}"


def _value(value: Any) -> str:
    return "not there" if value is ... else visible(json.dumps(value, ensure_ascii=False), 100)


def _strangers(directory: Path, known: set[str]) -> list[Finding]:
    """Files that the build did not write, and a signature that is not looked at here."""
    there = {path.name for path in directory.iterdir()}
    found = [
        Finding(visible(name), "differs", ("the build did not write it",))
        for name in sorted(there - known - {NAME, SIGNATURE})
    ]
    if SIGNATURE in there:
        found.append(Finding(SIGNATURE, "unchecked", ("--key holds it to a public key",)))
    return found


def _said(directory: Path, provenance: Provenance) -> list[Finding]:
    """What the tensors' file says of itself, which the provenance has to agree with."""
    try:
        said = read_metadata(directory / WEIGHTS)
    except Fault:
        return []  # said already
    told = []
    if said.get("pemlang_semantic_hash") != provenance.semantic_hash:
        other = visible(said.get("pemlang_semantic_hash"), 64)
        told.append(f"{WEIGHTS} says its semantic hash is {other}")
    files: dict[str, list[str]] = {}
    for one in provenance.materials:
        if one.source:
            files.setdefault(one.source, []).append(one.digest)
    inputs = sorted(content_digest(digests) for digests in files.values())
    if said.get("pemlang_inputs") != " ".join(inputs):
        told.append(f"{WEIGHTS} says it was made from other adapters")
    return [Finding(NAME, "differs", tuple(told))] if told else []


def _materials(provenance: Provenance, folder: Path | None) -> Iterator[Finding]:
    if folder is None:
        why = ("the recipe's folder is not known: give it with --from",)
        yield Finding(provenance.recipe, "unchecked", why)
    else:
        yield _recipe(folder / provenance.recipe, provenance)
    for one in provenance.materials:
        name = visible(one.uri)
        if one.source.startswith(SCHEME):
            yield Finding(name, "unchecked", ("it is on the hub, at this revision",))
            continue
        is_std = not one.source and one.uri.startswith("std.")
        if folder is None and not is_std:
            yield Finding(name, "unchecked")
            continue
        path = resource("stdlib") / f"{one.uri.removeprefix('std.')}.pem" if is_std else (
            (folder or Path()) / one.uri
        )  # fmt: skip
        yield _material(name, path, one.digest, is_text=not one.source)


def _material(name: str, path: Path, digest: str, is_text: bool) -> Finding:
    try:
        now = text_digest(read_source(path).text) if is_text else file_digest(path)
    except (Fault, ValueError):  # a NUL in the path
        return Finding(name, "missing")
    if now == digest:
        return Finding(name, "same")
    return Finding(name, "differs", (f"BLAKE3 was {visible(digest, 12)}, is {now[:12]}",))


def _recipe(path: Path, provenance: Provenance) -> Finding:
    name = visible(provenance.recipe)
    try:
        text = read_source(path).text
    except Fault:
        return Finding(name, "missing")
    if text == provenance.text:
        return Finding(name, "same")
    return Finding(name, "differs", ("its text has changed since: build again",))


# --- once more -----------------------------------------------------------------------------


def rebuild(directory: Path, verified: Verified, folder: Path | None, how: How) -> None:
    """Build an output again, elsewhere, and compare it byte by byte.

    Args:
        directory: the output.
        verified: what `verify` found; takes what this finds.
        folder: the recipe's.
        how: threads and memory.

    Raises:
        Fault: PEM0811 the recipe's folder is not known.
        PemError: the build fails: PEM0803 an input is not what it was, and as build.
    """
    provenance = verified.provenance
    place = folder or recipe_folder(directory, provenance)
    if place is None:
        raise Fault(
            "PEM0811",
            f"the folder of {visible(provenance.recipe)} is not known, and its inputs are "
            "relative to it",
            "give it with --from",
        )
    source = Source(provenance.recipe, provenance.text, place.resolve())
    held = How(
        threads=how.threads, memory=how.memory, force=True, lock=_lock(provenance, place),
        only=provenance.output,
    )  # fmt: skip
    with TemporaryDirectory(prefix="pem-verify-") as elsewhere, anew():
        root = Path(elsewhere).resolve()
        path = source.directory / provenance.recipe
        result = build(path, source, provenance.settings, root, how=held)
        if not result.outputs:
            raise Fault(
                "PEM0810",
                f"{NAME} says it is {visible(provenance.output)} of a recipe that saves no such "
                "output",
                "build the adapter again with `pem build`",
            )
        [built] = result.outputs
        names = [*sorted(name for name in provenance.subjects if name == Path(name).name), NAME]
        verified.rebuilt = [_compared(directory / name, built.path / name) for name in names]


def _lock(provenance: Provenance, folder: Path) -> Lock:
    """What the inputs are held to."""
    lock = Lock(
        folder.resolve(), tool=provenance.tool, language=provenance.language, name=NAME,
        partial=True, again="build it again with `pem build`",
    )  # fmt: skip
    for one in provenance.materials:
        if not one.source:
            lock.imports[one.uri] = one.digest
            continue
        place, _, file = one.uri.rpartition("/")
        revision = parse_reference(place).revision if place.startswith(SCHEME) else None
        before = lock.adapters.get(one.source)
        files = {} if before is None else dict(before.files)
        lock.adapters[one.source] = Locked(files | {file: one.digest}, {}, revision)
    return lock


def _compared(was: Path, now: Path) -> Finding:
    name, what = was.name, visible(was.name)
    if not is_file(was):
        return Finding(what, "missing")
    if not is_file(now):
        return Finding(what, "differs", ("a build does not write it",))
    if filecmp.cmp(was, now, shallow=False):
        return Finding(what, "same")
    details: tuple[str, ...] = ()
    with suppress(Fault, OSError, ValueError):
        if name == WEIGHTS:
            details = tuple(_parts(name, tensor_digests(now), tensor_digests(was)))
        elif name == CONFIG:
            one, two = (json.loads(path.read_bytes()) for path in (now, was))
            details = tuple(_parts(name, one, two))
    return Finding(what, "differs", details)
