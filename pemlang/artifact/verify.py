"""An output held to its provenance: every digest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pemlang.artifact.place import (
    PROVENANCE,
    SIGNATURE,
    folder_of,
    names_at,
    own_file,
    own_name,
)
from pemlang.artifact.provenance import Provenance, Subject, read_provenance
from pemlang.artifact.sign import signed_by
from pemlang.artifact.subjects import copied, subject
from pemlang.check.published import is_published
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.disk import is_file
from pemlang.formats.identity import content_digest
from pemlang.inputs.hub import SCHEME
from pemlang.inputs.imports import published_digest
from pemlang.inputs.resolver import published_now
from pemlang.resources import resource
from pemlang.syntax.files import ON_THE_COMMAND_LINE, read_source
from pemlang.tensorfiles.container import SUFFIXES, metadata_of
from pemlang.tensorfiles.digests import anew, file_digest, text_digest

Verdict = Literal["same", "differs", "missing", "unchecked"]
"""What became of a file."""


@dataclass(frozen=True)
class FileVerdict:
    """A file that was looked at.

    Attributes:
        what: its name.
        state: what became of it.
        details: what differs in it, a line each; or why it was not looked at.
    """

    what: str
    state: Verdict
    details: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether it neither differs nor is missing."""
        return self.state in ("same", "unchecked")


@dataclass(frozen=True)
class Verified:
    """What there is to say of an output.

    Attributes:
        provenance: of the output.
        outputs, materials: its files, and what it was made from.
    """

    provenance: Provenance
    outputs: list[FileVerdict]
    materials: list[FileVerdict]


def verify(directory: Path, folder: Path | None = None, key: Path | None = None) -> Verified:
    """Take every digest of an output's provenance again.

    Args:
        directory: the output.
        folder: that of the recipe; where the provenance says the output lies in it, when not
            given.
        key: a public key that its signature is held to.

    Raises:
        Fault: PEM0810 there is no provenance that can be read; PEM0812 as signed_by.
    """
    provenance = read_provenance(directory)
    subjects = provenance.subjects
    with anew():
        outputs = [_output(folder_of(directory), name, subjects[name]) for name in sorted(subjects)]
        outputs += _strangers(directory, set(subjects))
        outputs += _signature(directory, key)
        outputs += _metadata(directory, provenance)
        place = folder or recipe_folder(directory, provenance)
        materials = list(_materials(provenance, place))
    return Verified(provenance, outputs, materials)


def recipe_folder(directory: Path, provenance: Provenance) -> Path | None:
    """The folder of the recipe that built an output, if it lies in it as it was built."""
    inside, here = Path(provenance.output), directory.resolve()
    if inside.is_absolute() or ".." in inside.parts or not here.parts[-len(inside.parts) :]:
        return None
    if here.parts[-len(inside.parts) :] != inside.parts:
        return None
    folder = Path(*here.parts[: -len(inside.parts)])
    lies_in_it = [provenance.recipe]
    if provenance.recipe == ON_THE_COMMAND_LINE:
        lies_in_it = [material.uri for material in provenance.materials]
    return folder if any(is_file(folder / name) for name in lies_in_it) else None


def _output(directory: Path, name: str, before: Subject) -> FileVerdict:
    path = directory / name
    what = visible(name)
    if name != Path(name).name or not is_file(path):
        return FileVerdict(what, "missing")
    if path.is_symlink():
        return FileVerdict(what, "differs", ("it is a link",))
    try:
        now = subject(path) if before.parts else copied(path)
    except (Fault, OSError, ValueError) as error:
        why = error.message if isinstance(error, Fault) else str(error)
        return FileVerdict(what, "differs", (f"it cannot be read: {visible(why)}",))
    if (now.sha256, now.blake3) == (before.sha256, before.blake3):
        return FileVerdict(what, "same")
    return FileVerdict(what, "differs", tuple(changed_parts(name, before.parts, now.parts)))


def changed_parts(name: str, was: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    """What of a file differs: tensors, or the fields of a config."""
    if name.endswith(SUFFIXES):
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
            before, after = (_value(parts.get(key, ...)) for parts in (was, now))
            yield f"`{visible(key, 60)}` is {after}, was {before}"


def _value(value: object) -> str:
    return "not there" if value is ... else visible(json.dumps(value, ensure_ascii=False), 100)


def _strangers(directory: Path, subjects: set[str]) -> list[FileVerdict]:
    """Files that the build did not write."""
    own = {own_name(directory, name) for name in (PROVENANCE, SIGNATURE)}
    names = set(names_at(directory)) - subjects - own
    why = ("the build did not write it",)
    return [FileVerdict(visible(name), "differs", why) for name in sorted(names)]


def _signature(directory: Path, key: Path | None) -> list[FileVerdict]:
    """Whether the signature holds for a key, where one is given."""
    name = own_name(directory, SIGNATURE)
    signature = own_file(directory, SIGNATURE)
    if key is None:
        why = ("--key holds it to a public key",)
        return [FileVerdict(visible(name), "unchecked", why)] if is_file(signature) else []
    if not is_file(signature):
        return [
            FileVerdict(visible(name), "missing", ("`pem sign` writes it, by the private key",))
        ]
    wrong = signed_by(directory, key)
    return [FileVerdict(visible(name), "differs" if wrong else "same", (wrong,) if wrong else ())]


def _metadata(directory: Path, provenance: Provenance) -> list[FileVerdict]:
    """What the tensors' file says of itself, which the provenance has to agree with."""
    wrong = []
    for name in sorted(provenance.subjects):
        if name.endswith(SUFFIXES):
            wrong += _metadata_of(folder_of(directory), name, provenance)
    return (
        [FileVerdict(visible(own_name(directory, PROVENANCE)), "differs", tuple(wrong))]
        if wrong
        else []
    )


def _metadata_of(directory: Path, weights: str, provenance: Provenance) -> list[str]:
    try:
        metadata = metadata_of(directory / weights)
    except Fault:
        return []  # said already
    wrong = []
    if metadata.get("pemlang_semantic_hash") != provenance.semantic_hash:
        other = visible(metadata.get("pemlang_semantic_hash"), 64)
        wrong.append(f"{weights} says its semantic hash is {other}")
    files: dict[str, list[str]] = {}
    for material in provenance.materials:
        if material.source:
            files.setdefault(material.source, []).append(material.digest)
    inputs = sorted(content_digest(digests) for digests in files.values())
    if metadata.get("pemlang_inputs") != " ".join(inputs):
        wrong.append(f"{weights} says it was made from other adapters")
    return wrong


def _materials(provenance: Provenance, folder: Path | None) -> Iterator[FileVerdict]:
    if folder is None:
        why = ("the recipe's folder is not known: give it with --from",)
        yield FileVerdict(provenance.recipe, "unchecked", why)
    elif provenance.recipe != ON_THE_COMMAND_LINE:
        yield _recipe(folder / provenance.recipe, provenance)
    for material in provenance.materials:
        name, uri, is_text = visible(material.uri), material.uri, not material.source
        if uri.startswith(SCHEME):
            yield FileVerdict(name, "unchecked", ("it is on the hub, at this revision",))
        elif is_text and uri.startswith("std."):
            path = resource("stdlib") / f"{uri.removeprefix('std.')}.pem"
            yield _material(name, path, material.digest, is_text)
        elif is_text and is_published(uri):
            yield _library(name, uri, material.digest)
        elif folder is None:
            yield FileVerdict(name, "unchecked")
        else:
            yield _material(name, folder / uri, material.digest, is_text)


def _library(name: str, uri: str, digest: str) -> FileVerdict:
    """A recipe of a library, as it is installed now."""
    try:
        return _held(name, digest, published_digest(published_now(uri)))
    except Fault:
        return FileVerdict(name, "missing")


def _material(name: str, path: Path, digest: str, is_text: bool) -> FileVerdict:
    try:
        now = text_digest(read_source(path).text) if is_text else file_digest(path)
    except (Fault, ValueError):  # a NUL in the path
        return FileVerdict(name, "missing")
    return _held(name, digest, now)


def _held(name: str, digest: str, now: str) -> FileVerdict:
    if now == digest:
        return FileVerdict(name, "same")
    return FileVerdict(name, "differs", (f"BLAKE3 was {visible(digest, 12)}, is {now[:12]}",))


def _recipe(path: Path, provenance: Provenance) -> FileVerdict:
    name = visible(provenance.recipe)
    try:
        text = read_source(path).text
    except Fault:
        return FileVerdict(name, "missing")
    if text == provenance.text:
        return FileVerdict(name, "same")
    return FileVerdict(name, "differs", ("its text has changed since: build again",))
