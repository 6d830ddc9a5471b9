"""How two models differ, tensor by tensor, a block of numbers at a time: a model of any size takes
no more memory than a small one."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pemlang.compare.changes import DeltaChange, Fact, PairNumbers, total_change
from pemlang.compare.contents import dtypes_text
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.execute.machine import default_threads
from pemlang.execute.site import not_finite
from pemlang.failures import TooLarge
from pemlang.formats.transformers import CONFIG, StoredModel, config_of
from pemlang.graph.formula import size_text
from pemlang.lazy import numpy as np
from pemlang.pipeline.making import Tick
from pemlang.pipeline.reading import measurable, reading_files
from pemlang.tensorfiles.digests import file_digest
from pemlang.tensorfiles.dtypes import DTYPES, FLOATS, Array, Bits, decoded, stored_dtype
from pemlang.tensorfiles.reader import TensorReader
from pemlang.tensorfiles.safetensors import TensorEntry

BLOCK = 1 << 16
"""Numbers of a tensor that are looked at together."""
_LONGEST = 120  # characters of a value of a config
_MOST_FIELDS = 100  # of two configs that differ
_DEEPEST = 8  # configs inside each other whose fields are told apart

TensorState = Literal["same", "changed", "added", "removed", "incomparable"]
FileState = Literal["same", "changed", "added", "removed"]


@dataclass(frozen=True)
class TensorChange:
    """A tensor of either model.

    Attributes:
        name: as untrusted as the file it comes from.
        state: `same` where all its numbers and its dtype are; `incomparable` where the shapes
            differ.
        measured: what changed; a tensor that one of the two lacks is zero there.
        largest: the largest change of a number; None where the two cannot be subtracted.
        dtypes, shapes: of old and of new; None where it is not.
    """

    name: str
    state: TensorState
    measured: DeltaChange
    largest: float | None
    dtypes: tuple[str | None, str | None]
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]


@dataclass(frozen=True)
class FileChange:
    """A file beside the tensors, such as one of the tokenizer; old and new are its size, empty
    where it is not."""

    name: str
    state: FileState
    old: str
    new: str


@dataclass(frozen=True)
class ModelComparison:
    """Attributes:
    old, new: the places, as given.
    total: over all tensors but the incomparable ones.
    facts: what headers say of both, changed or not; and the fields of the configs that changed.
    files, tensors: all of them, changed or not, by name.
    """

    old: str
    new: str
    total: DeltaChange
    facts: tuple[Fact, ...]
    files: tuple[FileChange, ...]
    tensors: tuple[TensorChange, ...]

    @property
    def same(self) -> bool:
        """Whether nothing changed: no number, no dtype, no field, no file."""
        return (
            all(tensor.state == "same" for tensor in self.tensors)
            and all(file.state == "same" for file in self.files)
            and all(fact.old == fact.new for fact in self.facts)
        )


def compare_models(
    old: str, before: StoredModel, new: str, after: StoredModel, tick: Tick
) -> ModelComparison:
    """Two models, read and measured.

    Args:
        old, new: their places, as given.
        before, after: their headers.
        tick: told of progress.

    Raises:
        Fault: PEM0411 a file that cannot be read, PEM0412 one that changed meanwhile, PEM0502 a
            tensor holds NaN or infinity, PEM0503 a number too large to measure.
    """
    names = sorted({*before.header.entries, *after.header.entries})
    changes, numbers = [], []
    with reading_files() as files, ThreadPoolExecutor(default_threads()) as pool:
        both = _SideBySide(files, before, after)
        for done, (change, of_pair) in enumerate(pool.map(both.change, names)):
            tick(f"comparing {change.name}", done, len(names))
            changes.append(change)
            numbers += [of_pair] if change.state != "incomparable" else []
        files.unchanged()
    with measurable("what all tensors come to"):
        total = total_change(numbers)
    facts = (*_header_facts(before, after), *_config_facts(before, after))
    return ModelComparison(old, new, total, facts, tuple(_files(before, after)), tuple(changes))


# --- tensors ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _SideBySide:
    """Two models whose tensors are read side by side, by any thread."""

    files: TensorReader
    before: StoredModel
    after: StoredModel

    def change(self, name: str) -> tuple[TensorChange, PairNumbers]:
        """What became of a tensor; raises as compare_models."""
        old, new = (model.header.entries.get(name) for model in (self.before, self.after))
        largest: float | None
        with measurable(name):
            if old is not None and new is not None and old.shape != new.shape:
                before, after = self._measured(name, old, None), self._measured(name, None, new)
                numbers = PairNumbers(before[0].old, after[0].new, math.nan, math.nan)
                measured = DeltaChange(numbers.old, numbers.new, None, None, None)
                largest = None
            else:
                numbers, largest = self._measured(name, old, new)
                measured = numbers.measured
        dtypes = (old.dtype if old else None, new.dtype if new else None)
        shapes = (old.shape if old else None, new.shape if new else None)
        state = _state(old, new, largest)
        return TensorChange(name, state, measured, largest, dtypes, shapes), numbers

    def _measured(
        self, name: str, old: TensorEntry | None, new: TensorEntry | None
    ) -> tuple[PairNumbers, float]:
        """The numbers of a tensor of equal shapes, and the largest change of one; None is zero, and
        one of two at most."""
        some = old or new
        assert some is not None
        count, largest = math.prod(some.shape), 0.0
        squares = [0.0, 0.0, 0.0, 0.0]
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
            (left, x), (right, y) = (
                self._block(model, name, entry, start, size)
                for model, entry in ((self.before, old), (self.after, new))
            )
            change = y - x
            largest = max(largest, float(change.max()), -float(change.min()))
            if not largest and some.dtype not in FLOATS and old and new and old.dtype == new.dtype:
                largest = float((left != right).any())  # float64 rounds those above 2⁵³
            pairs = ((x, x), (y, y), (change, change), (x, y))
            squares = [so_far + float(a @ b) for so_far, (a, b) in zip(squares, pairs, strict=True)]
        if not math.isfinite(sum(map(abs, squares)) + largest):
            raise TooLarge(None)
        before, after, moved, inner = squares
        return PairNumbers(before**0.5, after**0.5, moved**0.5, inner), largest

    def _block(
        self, model: StoredModel, name: str, entry: TensorEntry | None, start: int, size: int
    ) -> tuple[Bits, Array]:
        """Some numbers of a tensor, as they are stored and in float64."""
        if entry is None:
            zeros = np.zeros(size)
            return zeros, zeros
        reference = model.reference(name)
        raw: Bits = np.empty(size, stored_dtype(entry.dtype))
        self.files.read(reference.file, reference.start + start * DTYPES[entry.dtype].size, raw)
        numbers = decoded(raw, entry.dtype, "F64")
        if entry.dtype in FLOATS and not np.isfinite(numbers).all():
            raise not_finite(reference, numbers)
        return raw, numbers


def _state(old: TensorEntry | None, new: TensorEntry | None, largest: float | None) -> TensorState:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if old.shape != new.shape:
        return "incomparable"
    return "changed" if largest or old.dtype != new.dtype else "same"


# --- headers, configs and files -------------------------------------------------------------------


def _header_facts(before: StoredModel, after: StoredModel) -> Iterator[Fact]:
    for (label, old), (_, new) in zip(_told(before), _told(after), strict=True):
        yield Fact(label, old, new)


def _told(model: StoredModel) -> Iterator[tuple[str, str]]:
    """What the headers of a model say: label and value."""
    entries = model.header.entries
    yield "tensors", f"{len(entries):,}"
    yield "parameters", f"{sum(math.prod(entry.shape) for entry in entries.values()):,}"
    yield "dtype", dtypes_text(entries)


def _config_facts(before: StoredModel, after: StoredModel) -> Iterator[Fact]:
    """The fields of two configs that differ, those of a config inside one by their path."""
    fields = _differing(config_of(before.directory), config_of(after.directory))
    for path, (old, new) in sorted(fields.items())[:_MOST_FIELDS]:
        was, now = visible(old, _LONGEST), visible(new, _LONGEST)
        yield Fact(f"{CONFIG} {path}", was, f"{now}, different further on" if was == now else now)
    if len(fields) > _MOST_FIELDS:
        yield Fact(CONFIG, "", f"{len(fields) - _MOST_FIELDS:,} more fields that differ")


def _differing(
    old: Mapping[str, object], new: Mapping[str, object], path: str = "", depth: int = _DEEPEST
) -> dict[str, tuple[str, str]]:
    """The fields that differ by path, as JSON on each side; `none` where there is no such field."""
    fields: dict[str, tuple[str, str]] = {}
    for key in {*old, *new}:
        first, second = old.get(key), new.get(key)
        if depth and isinstance(first, dict) and isinstance(second, dict):
            fields |= _differing(first, second, f"{path}{key}.", depth - 1)
            continue
        was, now = (
            json.dumps(side[key], sort_keys=True) if key in side else "none" for side in (old, new)
        )
        if was != now:
            fields[path + key] = (was, now)
    return fields


def _files(before: StoredModel, after: StoredModel) -> Iterator[FileChange]:
    old, new = ({path.name: path for path in model.beside} for model in (before, after))
    for name in sorted({*old, *new} - {CONFIG}):
        was, now = old.get(name), new.get(name)
        state: FileState
        if was is None or now is None:
            state = "added" if was is None else "removed"
        else:
            state = "same" if file_digest(was) == file_digest(now) else "changed"
        sizes = ("" if path is None else size_text(path.stat().st_size) for path in (was, now))
        yield FileChange(name, state, *sizes)
