"""The passes of an elementwise program over its tensors: those that find the numbers which rest on
all of a tensor, one after the other, and a last one that writes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from pemlang.kernels.histogram import STATE
from pemlang.kernels.program import Program
from pemlang.kernels.steps.elements import Load
from pemlang.kernels.steps.scans import ScanStep


@lru_cache(maxsize=4096)
def scans(program: Program) -> tuple[tuple[int, ...], ...]:
    """The steps whose values each pass but the last finds. Those that repeat share a pass where
    they read something in common, and no more is read than they need. In the order of the program,
    as a number often needs the one before and what that has read."""
    pending = {number for number, step in enumerate(program.steps) if isinstance(step, ScanStep)}
    needed = {number: pending & set(behind(program, [number])) - {number} for number in pending}
    passes: list[tuple[int, ...]] = []
    while pending:
        ready = sorted(number for number in pending if pending.isdisjoint(needed[number]))
        repeating = [number for number in ready if program.steps[number].repeats]
        if repeating:
            first, *others = (_inputs(program, behind(program, [number])) for number in repeating)
            ready = repeating[:1]
            ready += [n for n, read in zip(repeating[1:], others, strict=True) if read & first]
        passes.append(tuple(ready))
        pending.difference_update(passes[-1])
    return tuple(passes)


def passes(program: Program) -> int:
    """How often the inputs are read."""
    return len(scans(program)) + 1


@lru_cache(maxsize=4096)
def steps_of(program: Program, turn: int) -> tuple[int, ...]:
    """The steps that a pass needs, back to the numbers that are known by then."""
    found = scans(program)
    if turn < len(found):
        return behind(program, found[turn])
    return behind(program, [n for n, step in enumerate(program.steps) if step.is_result])


def repeats(program: Program, turn: int) -> bool:
    """Whether a pass may have to be done again."""
    return turn < len(scans(program)) and any(
        program.steps[number].repeats for number in scans(program)[turn]
    )


def numbers_kept(program: Program) -> int:
    """How many numbers of eight bytes are kept while passes run: one for each step, and what is
    known of those that repeat."""
    return len(program.steps) + STATE * sum(step.repeats for step in program.steps)


@lru_cache(maxsize=4096)
def reads_of(program: Program, turn: int) -> tuple[int, ...]:
    """The input slots that a pass reads."""
    return tuple(sorted(_inputs(program, steps_of(program, turn))))


def kinds(program: Program, turn: int) -> dict[int, str]:
    """How what a pass finds in parts of a tensor is put together, by place; what is not told is
    summed up."""
    if turn == passes(program) - 1:
        return {}
    steps = [program.steps[number] for number in scans(program)[turn]]
    return {i: step.how for i, step in enumerate(steps) if isinstance(step, ScanStep)}


def behind(program: Program, goals: Collection[int]) -> tuple[int, ...]:
    """Some steps and those that they rest on, back to the numbers over whole tensors."""
    needed, pending = set(goals), list(goals)
    while pending:
        number = pending.pop()
        if program.steps[number].ends_scan and number not in goals:
            continue
        for arg in program.steps[number].args:
            if arg not in needed:
                needed.add(arg)
                pending.append(arg)
    return tuple(sorted(needed))


def _inputs(program: Program, numbers: Iterable[int]) -> set[int]:
    """The input slots that some steps read."""
    steps = (program.steps[number] for number in numbers)
    return {step.input for step in steps if isinstance(step, Load)}


@lru_cache(maxsize=4096)
def uniform(program: Program) -> frozenset[int]:
    """The steps whose value is the same for all elements."""
    same: set[int] = set()
    for number, step in enumerate(program.steps):
        if step.uniform or (step.args and _all(step.args, same) and not step.whole):
            same.add(number)
    return frozenset(same)


def _all(args: Iterable[int], same: Collection[int]) -> bool:
    return all(arg in same for arg in args)
