"""What a build would do, for a person: `pem plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pemlang.diagnostics import visible
from pemlang.graph.formula import count, size_text
from pemlang.markup import cell, code, markdown
from pemlang.pipeline.forecast import Forecast, Outlook
from pemlang.show.page import Column, facts, table

HASH = 12  # characters of a digest that are worth a look


def as_text(plan: Outlook) -> str:
    """The plan as lines for a terminal."""
    blocks = [_table("adapters", _inputs(plan))]
    if plan.bindings:
        rows = [(one.name, one.type, f"= {one.value}") for one in plan.bindings]
        blocks.append(_table("names", rows))
    lines = ["outputs"] + ["  none"] * (not plan.outputs)
    for one in plan.outputs:
        lines.append(f"  {visible(one.path)}  {_state(one)}")
        lines += [f"      {visible(one.label, 80)} = {one.value}", f"      {_facts(one)}"]
    blocks.append("\n".join(lines))
    if plan.measured:
        listed = "\n".join(f"  {text}" for text in plan.measured)
        blocks.append(f"measured from weights first\n{listed}")
    return "\n\n".join([*blocks, _work(plan)])


def as_markdown(plan: Outlook) -> str:
    """The plan for a pull request."""
    rows = ["| output | | is | by algebra | |", "|---|---|---|---|---|"]
    for one in plan.outputs:
        told = (cell(one.path), markdown(_state(one)), cell(one.label), cell(one.value))
        rows.append(f"| {' | '.join(told)} | {markdown(_facts(one))} |")
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


def as_html(plan: Outlook) -> str:
    """The plan as a part of a page."""
    outputs = [
        [one.path, _state(one), one.dtype.lower(), size_text(one.size), one.semantic_hash or ""]
        for one in plan.outputs
    ]
    columns = [
        Column("output", "code"), Column("state"), Column("dtype"), Column("size"),
        Column("semantic hash", "code"),
    ]  # fmt: skip
    found = [("work", _work(plan)), *(("measured first", text) for text in plan.measured)]
    return table(columns, outputs) + facts(found)


def as_json(plan: Outlook) -> dict[str, Any]:
    """The plan as plain values."""
    found = asdict(plan)
    found["warnings"] = [one.as_json() for one in plan.warnings]
    return found


def _inputs(plan: Outlook) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            visible(one.name, 60),
            one.type,
            size_text(one.size),
            one.content[:HASH] if one.content else "not here yet",
            visible(one.path) + ("" if one.used else "  (not used)"),
        )
        for one in plan.inputs
    ]


def _state(one: Forecast) -> str:
    return "up to date" if one.stays else f"to build: {one.why}"


def _facts(one: Forecast) -> str:
    facts = [one.type + (" at most" if one.at_most else ""), one.dtype.lower()]
    facts.append(size_text(one.size) + (" at most" if one.at_most else ""))
    facts.append(f"hash {one.semantic_hash[:HASH]}" if one.semantic_hash else "hash not known yet")
    return ", ".join(facts)


def _work(plan: Outlook) -> str:
    todo = [one for one in plan.outputs if not one.stays]
    if not plan.outputs:
        return "nothing to build: the recipe saves nothing"
    if not todo:
        return "nothing to build: every output is up to date"
    programs, places = plan.kernels
    return (
        f"reads {size_text(plan.read)}, writes {size_text(plan.written)}, about "
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
