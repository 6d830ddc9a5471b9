"""What a build computes, for a person: `pem build --dump-kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pemlang.diagnostics import visible
from pemlang.execute.local import working_memory
from pemlang.kernels.program import Piece, Program, slot
from pemlang.kernels.triton import runs_on_gpu, triton_source
from pemlang.lower.plan import Plan, Sink, Span
from pemlang.pipeline.forecast import bytes_read
from pemlang.tensorfiles.reader import Source


def kernels_as_text(plan: Plan, outputs: Sequence[str], threads: int, triton: bool = False) -> str:
    """Every program of a plan with what stands in its slots, and what running them takes.

    Args:
        plan: of a build.
        outputs: what each output is called.
        threads: that would run it.
        triton: show the source of the kernels for a GPU too.
    """
    blocks, order = [], {id(program): program for program in _programs(plan)}
    for number, program in enumerate(order.values(), 1):
        spans = [span for span in plan.spans if span.program is program]
        sites = [piece for piece in plan.sites if piece.program is program]
        head = _of_spans(spans) if spans else _of_sites(sites)
        first = spans[0].pieces[0][0] if spans else sites[0]
        lines = [f"kernel {number}: {head}", *_slots(plan, outputs, first, spans, sites), ""]
        lines += [f"  {line}" for line in str(program).splitlines()]
        if triton and spans and runs_on_gpu(program):
            lines += ["", *(f"    {line}".rstrip() for line in triton_source(program).splitlines())]
        blocks.append("\n".join(lines))
    for copy in plan.copies:
        tensor = plan.outputs[copy.output].layout.tensors[copy.tensor]
        blocks.append(f"copy: {visible(tensor.key)} to {visible(outputs[copy.output])}")
    memory = working_memory(plan, threads)
    read, written = bytes_read(plan), sum(one.size for one in plan.outputs)
    many = f"{threads} thread{'s' * (threads != 1)}"
    blocks.append(
        f"reads {read / 1e6:.4g} MB, writes {written / 1e6:.4g} MB, works in at most "
        f"{memory / 1e6:.4g} MB on {many}"
    )
    return "\n\n".join(blocks)


def _programs(plan: Plan) -> list[Program]:
    return [span.program for span in plan.spans] + [piece.program for piece in plan.sites]


def _of_spans(spans: Sequence[Span]) -> str:
    tensors = sum(len(span.pieces) for span in spans)
    elements = sum(span.count for span in spans)
    return (
        f"elementwise, {_many(tensors, 'tensor')} in {_many(len(spans), 'span')}, "
        f"{elements:,} elements each side"
    )


def _of_sites(sites: Sequence[Piece]) -> str:
    return f"whole matrices, {_many(len(sites), 'site')}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _slots(
    plan: Plan,
    outputs: Sequence[str],
    first: Piece,
    spans: Sequence[Span],
    sites: Sequence[Piece],
) -> list[str]:
    """What the first place of a kernel has in its slots."""
    lines = []
    for index, what in enumerate(first.inputs):
        assert isinstance(what, Source)
        lines.append(f"  in{index} = {visible(what.key)} of {visible(_near(what.file.parent))}")
    lines += [f"  c{index} = {number!r}" for index, number in enumerate(first.consts)]
    stored = [i for i in first.program.instrs if i.op == "store"]
    for instr in stored:
        sink = first.outputs[slot(instr.attrs[0])]
        assert isinstance(sink, Sink)
        key, where = plan.tensor(sink).key, outputs[sink.output]
        lines.append(f"  {instr.attrs[0]} = {visible(key)} of {visible(where)}")
    places = len(spans) or len(sites)
    numbers = {span.consts for span in spans} | {piece.consts for piece in sites}
    if places > 1:
        lines.append(f"  here at the first of {places} places")
    if len(numbers) > 1:
        lines.append(f"  {len(numbers)} sets of constants in all")
    return lines


def _near(path: Path) -> str:
    """A path as seen from the current folder, where it lies inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
