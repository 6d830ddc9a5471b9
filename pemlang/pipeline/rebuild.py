"""An output built once more, elsewhere, and compared byte by byte."""

from __future__ import annotations

import filecmp
import json
from contextlib import suppress
from pathlib import Path

from pemlang.artifact.provenance import Provenance
from pemlang.artifact.staging import PROVENANCE
from pemlang.artifact.subjects import tensor_digests
from pemlang.artifact.verify import FileVerdict, changed_parts, recipe_folder
from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_file, temporary
from pemlang.inputs.hub import SCHEME, parse_reference
from pemlang.inputs.lock import Lock, Locked
from pemlang.pipeline.build import BuildOptions, build
from pemlang.source import Source
from pemlang.tensorfiles.digests import anew


def rebuild(
    directory: Path, provenance: Provenance, folder: Path | None, threads: int | None = None
) -> list[FileVerdict]:
    """Build an output again, and hold what is there to that.

    Args:
        directory: the output.
        provenance: of the output.
        folder: the recipe's; where the provenance says the output lies in it, when not given.
        threads: at most so many at work.

    Raises:
        Fault: PEM0811 the recipe's folder is not known.
        PemError: the build fails: PEM0803 an input is not what it was, and as build.
    """
    place = folder or recipe_folder(directory, provenance)
    if place is None:
        raise Fault(
            "PEM0811",
            f"the folder of {visible(provenance.recipe)} is not known, and its inputs are "
            "relative to it",
            "give it with --from",
        )
    source = Source(provenance.recipe, provenance.text, place.resolve())
    lock = _lock(provenance, place)
    options = BuildOptions(threads=threads, force=True, lock=lock, only=provenance.output)
    with temporary("verify") as root, anew():
        path = source.directory / provenance.recipe
        result = build(path, source, provenance.settings, root, options=options)
        if not result.outputs:
            raise Fault(
                "PEM0810",
                f"{PROVENANCE} says it is {visible(provenance.output)} of a recipe that saves no "
                "such output",
                "build the adapter again with `pem build`",
            )
        [built] = result.outputs
        names = sorted(name for name in provenance.subjects if name == Path(name).name)
        return [_compared(directory / name, built.path / name) for name in [*names, PROVENANCE]]


def _lock(provenance: Provenance, folder: Path) -> Lock:
    """What the inputs are held to."""
    lock = Lock(
        folder.resolve(), tool=provenance.tool, language=provenance.language, name=PROVENANCE,
        partial=True, again="build it again with `pem build`",
    )  # fmt: skip
    for material in provenance.materials:
        if not material.source:
            lock.imports[material.uri] = material.digest
            continue
        place, _, file = material.uri.rpartition("/")
        revision = parse_reference(place).revision if place.startswith(SCHEME) else None
        before = lock.adapters.get(material.source)
        files = {} if before is None else dict(before.files)
        lock.adapters[material.source] = Locked(files | {file: material.digest}, {}, revision)
    return lock


def _compared(was: Path, now: Path) -> FileVerdict:
    name, what = was.name, visible(was.name)
    if not is_file(was):
        return FileVerdict(what, "missing")
    if not is_file(now):
        return FileVerdict(what, "differs", ("a build does not write it",))
    if filecmp.cmp(was, now, shallow=False):
        return FileVerdict(what, "same")
    details: tuple[str, ...] = ()
    with suppress(Fault, OSError, ValueError):
        if was.suffix == ".safetensors":
            details = tuple(changed_parts(name, tensor_digests(now), tensor_digests(was)))
        elif was.suffix == ".json" and name != PROVENANCE:
            before, after = (json.loads(path.read_bytes()) for path in (now, was))
            details = tuple(changed_parts(name, before, after))
    return FileVerdict(what, "differs", details)
