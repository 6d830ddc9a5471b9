"""A comparison of two models, as what is to be shown and for a program."""

from __future__ import annotations

from collections.abc import Sequence

from pemlang.compare.changes import DeltaChange, Fact
from pemlang.compare.models import FileChange, ModelComparison, TensorChange
from pemlang.dataclass import dataclass
from pemlang.show.weights_diff import (
    NUMBERS,
    ChangedRow,
    WeightsDiff,
    changed_facts,
    counted,
    totals,
    worst_first,
)


@dataclass(frozen=True)
class ModelDiffJson:
    """`pem diff` of models: what changed in weights, configs and the files beside them."""

    same: bool
    old: str
    new: str
    total: DeltaChange
    facts: Sequence[Fact]
    files: Sequence[FileChange]
    tensors: Sequence[TensorChange]


def shown(c: ModelComparison) -> WeightsDiff:
    """What is to be shown of it."""
    states = [tensor.state for tensor in c.tensors]
    rows = (ChangedRow(x.name, x.state, x.measured, (_largest(x), _layouts(x))) for x in c.tensors)
    return WeightsDiff(
        c.old,
        c.new,
        counted("model", "tensor", states),
        totals(c.total, "tensor", states),
        _differences(c),
        ("tensor", "state", *NUMBERS, "largest", "dtype and shape"),
        worst_first(rows),
    )


def _differences(c: ModelComparison) -> list[tuple[str, str, str]]:
    """The facts and files that changed: label, old, new."""
    differences = changed_facts(c.facts)
    for file in c.files:
        if file.state != "same":
            also = ", other content" if file.old == file.new else ""
            differences.append((file.name, file.old or "none", (file.new or "none") + also))
    return differences


def _largest(tensor: TensorChange) -> str:
    return "–" if tensor.largest is None else f"{tensor.largest:.3g}"


def _layouts(tensor: TensorChange) -> str:
    """Dtype and shape, as they were and as they are where they differ."""
    layouts = [
        f"{dtype.lower()} {list(shape)}"
        for dtype, shape in zip(tensor.dtypes, tensor.shapes, strict=True)
        if dtype is not None and shape is not None
    ]
    return " → ".join(dict.fromkeys(layouts))


def as_json(c: ModelComparison) -> ModelDiffJson:
    """All that was found as plain values; names as the files have them."""
    return ModelDiffJson(c.same, c.old, c.new, c.total, c.facts, c.files, c.tensors)
