"""What is in an adapter, for a person: `pem inspect`."""

from __future__ import annotations

from pemlang.compare.summary import AdapterSummary

_BARS = " ▏▎▍▌▋▊▉█"
_WIDTH = 24


def bar(share: float) -> str:
    """A bar of a share from 0 to 1, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * _WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BARS[rest] if rest else "")


def as_text(summary: AdapterSummary) -> str:
    """The summary as lines for a terminal."""
    width = max(len(label) for label, _ in summary.facts)
    lines = [f"{label:<{width}}  {value}" for label, value in summary.facts]
    head = ("sites", "n", "layers", "shape", "rank", "scale", "norm")
    table = [
        (row.pattern, str(row.count), row.layers, row.shape, row.rank, row.scale, f"{row.norm:.4g}")
        for row in summary.rows
    ]
    widths = [max(len(cells[i]) for cells in [head, *table]) for i in range(len(head))]
    lines.append("")
    for cells in [head, *table]:
        lines.append("  ".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip())
    top = max(summary.layers.values(), default=0.0) or 1.0
    label = max(len(name) for name in summary.layers) if summary.layers else 1
    lines += ["", "norm of Δ by layer"]
    for name, norm in summary.layers.items():
        lines.append(f"{name or '–':>{max(label, 1)}}  {bar(norm / top):<{_WIDTH}}  {norm:.4g}")
    return "\n".join(lines)
