"""How many threads run a plan, and the memory that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pemlang.dataclass import dataclass
from pemlang.execute.elementwise import block_memory
from pemlang.execute.executor import ExecutionOptions
from pemlang.execute.loop import span_of
from pemlang.execute.site import bytes_at_work, bytes_beside
from pemlang.failures import MemoryTooSmall
from pemlang.kernels.plan import Plan

_STEP = 2e-5
"""Seconds that a step of a site keeps the interpreter to itself, about."""

_HELD = 0.12
"""Share of a site's native time for which the interpreter is kept as well: arrays are made, and it
is waited for after each call. Measured on 2 processors, and borne out on 16."""

_FLOPS = 4e10
"""Operations a second in native code, on one thread, about."""

_BYTES = 4e9
"""Bytes a second that one thread reads, or makes, about."""

_ENOUGH = 1 << 16
"""More threads than any machine has processors."""

COPY = 1 << 20
"""Bytes of a head that are copied at a time."""

_MEAN = 25
"""Times as many are at work where heads are averaged: of a byte a number, three in float64."""

_AT_ONCE = 2
"""Large sites that are at work at once if there are threads for them: while one is at what has no
parts, the other goes on."""

LARGE = 1 << 33
"""Bytes that more large sites than those may take at worst, unless a budget is given; usually they
take a fifth of it. A site to each thread is quickest; threads for which there is no room help."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How many threads take jobs, and how many only help with them."""

    work: int
    help: int


def phases(plan: Plan) -> list[Plan]:
    """The sites of a plan that are large enough for several threads, and all the rest after."""
    large = [call for call in plan.sites if bytes_beside(call.program)]
    if not large:
        return [plan]
    rest = [call for call in plan.sites if not bytes_beside(call.program)]
    first = replace(plan, sites=tuple(large), loops=(), copies=())
    then = replace(plan, sites=tuple(rest))
    return [first, then] if rest or plan.loops or plan.copies else [first]


def shares(plan: Plan, budget: int, options: ExecutionOptions, jobs: int) -> Shares:
    """What threads are to do; raises MemoryTooSmall where a budget has room for none.

    Args:
        plan: a phase.
        budget: bytes of memory.
        options: how many threads there are, and the blocks.
        jobs: how many there are.
    """
    one, beside = working_memory(plan, 1, options), _beside(plan)
    if one > budget:
        raise MemoryTooSmall(one, budget)
    most = options.most_threads
    work = min(most, jobs)
    if options.threads is None:
        work = min(work, useful_threads(plan))
    if beside:
        room = min(budget, LARGE) if options.memory is None else budget
        work = min(work, max(_AT_ONCE, room // one))
    work = max(1, min(work, (budget - most * beside) // max(1, one - beside)))
    return Shares(work, min(most - work, (budget - work * one) // beside) if beside else 0)


def hold_memory(plans: Sequence[Plan], options: ExecutionOptions) -> None:
    """Raise MemoryTooSmall before the first of some plans is run where one of them would."""
    for phase in (phase for plan in plans for phase in phases(plan)):
        shares(phase, options.budget, options, 1)


def most_memory(plan: Plan, options: ExecutionOptions) -> int:
    """The most bytes that running a plan takes beside the process itself on a machine like this;
    those of one thread where there is not even room for that."""

    def of(phase: Plan) -> int:
        try:
            threads = shares(phase, options.budget, options, options.most_threads)
        except MemoryTooSmall as failure:
            return failure.needed
        return working_memory(phase, threads.work, options) + threads.help * _beside(phase)

    return max(map(of, phases(plan)))


def working_memory(plan: Plan, threads: int, options: ExecutionOptions) -> int:
    """The most bytes that running a plan takes at once beside the process itself."""
    most = max((bytes_at_work(call.program) for call in plan.sites), default=0)
    copies = max((_MEAN if copy.mean else 2 for copy in plan.copies), default=0) * COPY
    # A thread keeps its blocks while it is at a site.
    return threads * (blocks_of(plan, options) + max(most, copies))


def blocks_of(plan: Plan, options: ExecutionOptions) -> int:
    """Bytes of the blocks of a thread."""
    spans = {(loop.program, span_of(loop, options.block)) for loop in plan.loops}
    return block_memory(spans)


def _beside(plan: Plan) -> int:
    """The most bytes that a thread takes which helps with a site; 0 where none can."""
    return max((bytes_beside(call.program) for call in plan.sites), default=0)


def useful_threads(plan: Plan) -> int:
    """As many threads as can be at work side by side: one in the interpreter, which no other can
    enter meanwhile, and those that are in native code. More of them would wait for each other."""
    held = alone = 0.0
    for program, count in Counter(call.program for call in plan.sites).items():
        moved = sum(step.kept(program.shapes(step)) for step in program.steps)
        native = program.flops() / _FLOPS + moved / _BYTES
        kept = 0 if bytes_beside(program) else _HELD * native
        held += count * (len(program.steps) * _STEP + kept)
        alone += count * native
    for loop in plan.loops:
        moved = loop.count * sum(map(sum, loop.program.widths))
        alone += loop.program.flops(loop.count) / _FLOPS + moved / _BYTES
    return 1 + int(min(alone / held, _ENOUGH)) if held else _ENOUGH
