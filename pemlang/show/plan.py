"""What a build would do, for a person: `pem plan`."""

from __future__ import annotations

from collections.abc import Sequence

from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.graph.formula import count, size_text
from pemlang.markup import cell, code, markdown
from pemlang.pipeline.forecast import Binding, Forecast, InputForecast, OutputForecast
from pemlang.show.page import Column, facts, table

HASH = 12  # characters of a digest that are worth a look


@dataclass(frozen=True)
class PlanJson:
    """`pem plan`: what a build would do."""

    inputs: Sequence[InputForecast]
    bindings: Sequence[Binding]
    outputs: Sequence[OutputForecast]
    measured: Sequence[str]
    read: int
    least_read: int
    written: int
    flops: int
    memory: int
    threads: int
    kernels: tuple[int, int]
    locked: bool


def as_text(plan: Forecast) -> str:
    """The plan as lines for a terminal."""
    blocks = [_table("adapters", _inputs(plan))]
    if plan.bindings:
        rows = [(name.name, name.type, f"= {name.value}") for name in plan.bindings]
        blocks.append(_table("names", rows))
    lines = ["outputs"] + ["  none"] * (not plan.outputs)
    for output in plan.outputs:
        lines.append(f"  {visible(output.path)}  {_state(output)}")
        lines += [f"      {visible(output.label, 80)} = {output.value}", f"      {_facts(output)}"]
    blocks.append("\n".join(lines))
    if plan.measured:
        listed = "\n".join(f"  {text}" for text in plan.measured)
        blocks.append(f"measured from weights first\n{listed}")
    return "\n\n".join([*blocks, _work(plan)])


def as_markdown(plan: Forecast) -> str:
    """The plan for a pull request."""
    rows = ["| output | | is | by algebra | |", "|---|---|---|---|---|"]
    for output in plan.outputs:
        cells = (
            cell(output.path),
            markdown(_state(output)),
            cell(output.label),
            cell(output.value),
        )
        rows.append(f"| {' | '.join(cells)} | {markdown(_facts(output))} |")
    adapters = ["| adapter | type | size | content | path |", "|---|---|---|---|---|"]
    for name, type_, size, content, path in _inputs(plan):
        adapters.append(
            f"| {cell(name)} | {markdown(type_)} | {size} | {cell(content)} | {cell(path)} |"
        )
    work = _work(plan)
    last = f"{work[0].upper()}{work[1:]}.\n"
    if plan.measured:
        last = f"Measured first: {', '.join(map(code, plan.measured))}.\n\n{last}"
    return "\n".join([*rows, "", *adapters, "", last])


def as_html(plan: Forecast) -> str:
    """The plan as a part of a page."""
    outputs = [
        [
            output.path,
            _state(output),
            output.dtype.lower(),
            size_text(output.size),
            output.semantic_hash or "",
        ]
        for output in plan.outputs
    ]
    columns = [
        Column("output", "code"), Column("state"), Column("dtype"), Column("size"),
        Column("semantic hash", "code"),
    ]  # fmt: skip
    lines = [("work", _work(plan)), *(("measured first", text) for text in plan.measured)]
    return table(columns, outputs) + facts(lines)


def as_json(plan: Forecast) -> PlanJson:
    """The plan as plain values, without its warnings."""
    return PlanJson(
        inputs=plan.inputs,
        bindings=plan.bindings,
        outputs=plan.outputs,
        measured=plan.measured,
        read=plan.read,
        least_read=plan.least_read,
        written=plan.written,
        flops=plan.flops,
        memory=plan.memory,
        threads=plan.threads,
        kernels=plan.kernels,
        locked=plan.locked,
    )


def _inputs(plan: Forecast) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            visible(adapter.name, 60),
            adapter.type,
            size_text(adapter.size),
            adapter.content[:HASH] if adapter.content else "not here yet",
            visible(adapter.path) + ("" if adapter.used else "  (not used)"),
        )
        for adapter in plan.inputs
    ]


def _state(output: OutputForecast) -> str:
    return "up to date" if output.stays else f"to build: {output.why}"


def _facts(output: OutputForecast) -> str:
    facts = [output.type + (" at most" if output.at_most else ""), output.dtype.lower()]
    facts.append(size_text(output.size) + (" at most" if output.at_most else ""))
    facts.append(
        f"hash {output.semantic_hash[:HASH]}" if output.semantic_hash else "hash not known yet"
    )
    return ", ".join(facts)


def _work(plan: Forecast) -> str:
    todo = [output for output in plan.outputs if not output.stays]
    if not plan.outputs:
        return "nothing to build: the recipe saves nothing"
    if not todo:
        return "nothing to build: every output is up to date"
    programs, places = plan.kernels
    return (
        f"reads {size_text(plan.read)}, writes {size_text(plan.written)} (any program at least "
        f"{size_text(plan.least_read)} and {size_text(plan.written)}), about "
        f"{_operations(plan.flops)}; {count(programs, 'kernel')} over {count(places, 'place')}, "
        f"in at most {size_text(plan.memory)} on {count(plan.threads, 'thread')}"
    )


def _operations(flops: float) -> str:
    for unit in ("flops", "kflop", "Mflop", "Gflop"):
        if flops < 1000:
            return f"{flops:.3g} {unit}"
        flops /= 1000
    return f"{flops:.3g} Tflop"


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"{title}\n  none"
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  " + "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([title, *lines])
