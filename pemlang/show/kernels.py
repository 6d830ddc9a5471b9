"""What a build computes, for a person: `pem build --dump-kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pemlang.diagnostics import visible
from pemlang.execute.crew import most_memory
from pemlang.execute.executor import DEFAULTS
from pemlang.graph.formula import count
from pemlang.kernels.plan import FusedLoop, Plan, SiteCall, TensorSink
from pemlang.kernels.triton import runs_on_gpu, triton_source
from pemlang.pipeline.forecast import bytes_read, programs_of


def kernels_as_text(plan: Plan, outputs: Sequence[str], threads: int, triton: bool = False) -> str:
    """Every program of a plan with what stands in its slots, and what running them takes.

    Args:
        plan: of a build.
        outputs: what each output is called.
        threads: that would run it.
        triton: show the source of the kernels for a GPU too.
    """
    blocks, programs = [], {id(program): program for program in programs_of(plan)}
    for number, program in enumerate(programs.values(), 1):
        loops = [loop for loop in plan.loops if loop.program is program]
        sites = [call for call in plan.sites if call.program is program]
        head = _of_loops(loops) if loops else f"whole matrices, {count(len(sites), 'site')}"
        lines = [f"kernel {number}: {head}", *_slots(plan, outputs, loops, sites), ""]
        lines += [f"  {line}" for line in str(program).splitlines()]
        if triton and loops and runs_on_gpu(program):
            lines += ["", *(f"    {line}".rstrip() for line in triton_source(program).splitlines())]
        blocks.append("\n".join(lines))
    for copy in plan.copies:
        tensor = plan.outputs[copy.output].tensors[copy.tensor]
        blocks.append(f"copy: {visible(tensor.key)} to {visible(outputs[copy.output])}")
    return "\n\n".join([*blocks, _work(plan, threads)])


def _work(plan: Plan, threads: int) -> str:
    memory = most_memory(plan, replace(DEFAULTS, threads=threads))
    read, written = bytes_read(plan), sum(file.size for file in plan.outputs)
    return (
        f"reads {read / 1e6:.4g} MB, writes {written / 1e6:.4g} MB, works in at most "
        f"{memory / 1e6:.4g} MB on {count(threads, 'thread')}"
    )


def _of_loops(loops: Sequence[FusedLoop]) -> str:
    tensors = sum(len(loop.calls) for loop in loops)
    elements = sum(loop.count for loop in loops)
    return (
        f"elementwise, {count(tensors, 'tensor')} in {count(len(loops), 'span')}, "
        f"{elements:,} elements each side"
    )


def _slots(
    plan: Plan, outputs: Sequence[str], loops: Sequence[FusedLoop], sites: Sequence[SiteCall]
) -> list[str]:
    """What the first place of a kernel has in its slots."""
    first = loops[0].calls[0][0] if loops else sites[0]
    lines = []
    for slot, reference in enumerate(first.inputs):
        where = visible(_near(reference.file.parent))
        lines.append(f"  in{slot} = {visible(reference.key)} of {where}")
    lines += [f"  c{slot} = {number!r}" for slot, number in enumerate(first.constants)]
    for slot, sink in enumerate(first.outputs):
        if isinstance(sink, TensorSink):
            key, where = plan.place(sink).key, outputs[sink.output]
            lines.append(f"  out{slot} = {visible(key)} of {visible(where)}")
    places = len(loops) or len(sites)
    calls = [call for loop in loops for call, _ in loop.calls] + list(sites)
    constants = {call.constants for call in calls}
    if places > 1:
        lines.append(f"  here at the first of {places} places")
    if len(constants) > 1:
        lines.append(f"  {len(constants)} sets of constants in all")
    return lines


def _near(path: Path) -> str:
    """A path as seen from the current folder, where it lies inside."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
