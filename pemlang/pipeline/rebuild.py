"""An output built once more, elsewhere, and compared byte by byte; where another linear algebra
library or processor built it, by what it does, within a tolerance."""

from __future__ import annotations

import filecmp
import json
import math
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from pemlang.artifact.place import PROVENANCE, folder_of, own_name
from pemlang.artifact.provenance import Loss, Provenance, read_provenance
from pemlang.artifact.subjects import tensor_digests
from pemlang.artifact.verify import FileVerdict, changed_parts, recipe_folder
from pemlang.diagnostics import Fault, PemError, visible
from pemlang.disk import is_file, temporary
from pemlang.execute.machine import algebra_name
from pemlang.formats import Adapter, read_adapter
from pemlang.graph.dag import Graph
from pemlang.graph.leaves import leaf
from pemlang.graph.normal import linear as combination
from pemlang.inputs.hub import SCHEME, parse_reference, read_hub_recipe
from pemlang.inputs.lock import Lock, Locked
from pemlang.pipeline.build import BuildOptions, build
from pemlang.pipeline.reading import reading
from pemlang.source import Source
from pemlang.tensorfiles.container import SUFFIXES, metadata_of
from pemlang.tensorfiles.digests import anew

TOLERANCE = 1e-3
"""Of the norm of an adapter: what the cut of a dense matrix promises, see kernels/sketch.py, and
more than rounding to bfloat16 makes of one digit here or there."""

_DIGITS = 4  # decimals of a loss within that tolerance


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
        Fault: PEM0811 the recipe's folder is not known, or as read_hub_recipe.
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
    options = BuildOptions(
        threads=threads, force=True, lock=lock, only=provenance.output, lasting=False
    )
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
        names.append(own_name(directory, PROVENANCE))
        pairs = [(folder_of(directory) / name, folder_of(built.path) / name) for name in names]
        verdicts = [_compared(was, now) for was, now in pairs]
        here = read_provenance(built.path).outcome.algebra  # what is there may say anything
        if here and provenance.outcome.algebra not in ("", here):
            return _tolerant(verdicts, provenance, directory, built.path)
        return verdicts


def _tolerant(
    verdicts: list[FileVerdict], provenance: Provenance, was: Path, now: Path
) -> list[FileVerdict]:
    """The same, of an output whose last digits go by what computed them elsewhere: a file that
    differs is the same where the adapter is within TOLERANCE, and all else in it is equal."""
    told = f"built with {visible(provenance.outcome.algebra)}; here it is {algebra_name()}"
    apart = _apart(was, now)
    if not apart <= TOLERANCE:
        return [replace(x, details=(*x.details, told)) if not x.holds else x for x in verdicts]
    within = f"within {TOLERANCE:g} of its norm ({apart:.1g}): {told}"
    same = {name for name in provenance.subjects if name.endswith(SUFFIXES)}
    if _but_for_digits(provenance) == _but_for_digits(read_provenance(now)):
        same.add(own_name(was, PROVENANCE))
    return [
        FileVerdict(x.what, "same", (within,)) if not x.holds and x.what in same else x
        for x in verdicts
    ]


def _but_for_digits(provenance: Provenance) -> Provenance:
    """A provenance without what the last digits of the tensors change in it."""
    losses = {
        key: Loss(round(loss.total, _DIGITS), {s: round(x, _DIGITS) for s, x in loss.sites.items()})
        for key, loss in provenance.outcome.losses.items()
    }
    outcome = replace(provenance.outcome, algebra="", losses=losses, rounding=0.0)
    others = {name: x for name, x in provenance.subjects.items() if name.endswith(".json")}
    return replace(provenance, outcome=outcome, subjects=others)


def _apart(was: Path, now: Path) -> float:
    """‖Δ − Δ′‖ of two adapters, relative to ‖Δ′‖; infinite where anything else in them differs."""
    graph = Graph()
    try:
        if not _alike(read_adapter(was), read_adapter(now)):
            return math.inf
        right, left = (leaf(graph, str(place), read_adapter(place), None) for place in (was, now))
        signs = (Fraction(1), left), (Fraction(-1), right)
        nodes = [combination(graph, left.type, list(signs)), left]
        squares = [0.0, 0.0]
        with reading(graph) as reader:
            for site in left.shapes:
                for index, part in enumerate(reader.parts(nodes, site)):
                    squares[index] += 0.0 if part is None else part.norm() ** 2
    except (Fault, PemError, KeyError):
        return math.inf
    return math.sqrt(squares[0] / squares[1]) if squares[1] else math.inf


def _alike(was: Adapter, now: Adapter) -> bool:
    """Whether two adapters differ in the numbers of their factors at most."""
    tensors, metadata = [], []
    for adapter in (was, now):
        digests = tensor_digests(adapter.weights)
        heads = {key: digests[key] for key in adapter.layout.heads}
        entries = {key: (x.dtype, x.shape) for key, x in adapter.header.entries.items()}
        tensors.append((entries, heads, adapter.scales))
        metadata.append(metadata_of(adapter.weights))
    return tensors[0] == tensors[1] and metadata[0] == metadata[1]


def _lock(provenance: Provenance, folder: Path) -> Lock:
    """What the inputs are held to."""
    lock = Lock(
        folder.resolve(), tool=provenance.tool, language=provenance.language, name=PROVENANCE,
        partial=True, again="build it again with `pem build`",
    )  # fmt: skip
    for material in provenance.materials:
        if not material.source:
            lock.imports[material.name] = material.digest
            if material.uri.startswith(SCHEME):
                recipe = read_hub_recipe(material.uri)
                lock.published[material.name] = recipe._replace(name=material.name)
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
        if was.suffix in SUFFIXES:
            details = tuple(changed_parts(name, tensor_digests(now), tensor_digests(was)))
        elif was.suffix == ".json" and not name.endswith(PROVENANCE):
            before, after = (json.loads(path.read_bytes()) for path in (now, was))
            details = tuple(changed_parts(name, before, after))
    return FileVerdict(what, "differs", details)
