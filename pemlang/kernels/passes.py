"""The passes of an elementwise program over its tensors: one for each statistic that rests on
another, and a last one that writes."""

from __future__ import annotations

from pemlang.kernels.program import Program


def passes(program: Program) -> int:
    """How often the inputs are read: once more for each statistic that rests on another."""
    return max(_levels(program)) + 1


def statistics(program: Program, turn: int) -> list[int]:
    """The `reduce` steps whose values a pass gives; none in the last one."""
    levels = _levels(program)
    return [
        number
        for number, step in enumerate(program.steps)
        if step.ends_scan and levels[number] == turn + 1
    ]


def steps_of(program: Program, turn: int) -> list[int]:
    """The steps a pass needs, back to the statistics that are known by then."""
    steps = program.steps
    goals = statistics(program, turn)
    if turn == passes(program) - 1:
        goals = [number for number, step in enumerate(steps) if step.is_result]
    needed, pending = set(goals), list(goals)
    while pending:
        number = pending.pop()
        if steps[number].ends_scan and number not in goals:
            continue
        for arg in steps[number].args:
            if arg not in needed:
                needed.add(arg)
                pending.append(arg)
    return sorted(needed)


def _levels(program: Program) -> list[int]:
    """The first pass in which each step can be done."""
    levels: list[int] = []
    for step in program.steps:
        after = max((levels[arg] for arg in step.args), default=0)
        levels.append(after + step.ends_scan)
    return levels
