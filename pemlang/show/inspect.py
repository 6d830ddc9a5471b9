"""What is in an adapter, a model or a file, for a person: `pem inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pemlang.compare.contents import Contents, TensorRow
from pemlang.compare.summary import AdapterSummary, PatternRow
from pemlang.dataclass import dataclass

_BARS = " ▏▎▍▌▋▊▉█"
_WIDTH = 24


def bar(share: float) -> str:
    """A bar of a share from 0 to 1, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * _WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BARS[rest] if rest else "")


@dataclass(frozen=True)
class InspectJson:
    """`pem inspect`: facts by label; of an adapter its sites by pattern, and the norm of Δ by layer
    (empty for what is in none); of the study of a tuning its best trials, as its config; of
    anything else its config, and its tensors by pattern."""

    facts: Mapping[str, str]
    config: Mapping[str, str]
    sites: Sequence[PatternRow]
    layers: Mapping[str, float]
    tensors: Sequence[TensorRow]


def as_json(seen: AdapterSummary | Contents) -> InspectJson:
    """The summary as plain values."""
    if isinstance(seen, Contents):
        return InspectJson(dict(seen.facts), dict(seen.config), [], {}, seen.tensors)
    return InspectJson(dict(seen.facts), {}, seen.rows, seen.layers, [])


def as_text(seen: AdapterSummary | Contents) -> str:
    """The summary as lines for a terminal."""
    lines = list(_pairs(seen.facts))
    if isinstance(seen, Contents):
        lines += ["", *_pairs(seen.config)] if seen.config else []
        rows = [(row.pattern, str(row.count), row.layout) for row in seen.tensors]
        lines += ["", *_table(("tensors", "n", "each"), rows)] if rows else []
        return "\n".join(lines)
    head = ("sites", "n", "layers", "shape", "rank", "scale", "norm")
    table = [
        (row.pattern, str(row.count), row.layers, row.shape, row.rank, row.scale, f"{row.norm:.4g}")
        for row in seen.rows
    ]
    top = max(seen.layers.values(), default=0.0) or 1.0
    label = max(len(name) for name in seen.layers) if seen.layers else 1
    lines += ["", *_table(head, table), "", "norm of Δ by layer"]
    for name, norm in seen.layers.items():
        lines.append(f"{name or '–':>{max(label, 1)}}  {bar(norm / top):<{_WIDTH}}  {norm:.4g}")
    return "\n".join(lines)


def _pairs(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(label) for label, _ in pairs)
    for label, value in pairs:
        yield f"{label:<{width}}  {value}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(cells[i]) for cells in [head, *rows]) for i in range(len(head))]
    for cells in [head, *rows]:
        yield "  ".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip()
