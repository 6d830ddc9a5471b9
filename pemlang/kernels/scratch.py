"""The working memory of a thread that runs an elementwise program, beside its blocks: a table of
pointers to it."""

from __future__ import annotations

from pemlang.kernels.histogram import SIZE
from pemlang.kernels.llvm_text import WIDTH
from pemlang.kernels.program import Program
from pemlang.kernels.steps.places import RowPlace

KEYS, FIRST_PLACES = 1, 5
"""Which pointer is which, beside that to the histograms: numbers to sort, as many again, twice
orders of them, and a piece for what each `place` of the program found."""


def scratch_sizes(program: Program, elements: int) -> list[int]:
    """Bytes of each piece.

    Args:
        program: what is run.
        elements: the most at a time.
    """
    places = [step for step in program.steps if isinstance(step, RowPlace)]
    many = elements + WIDTH if places else 0
    keys = many * (8 if any(step.source == "F64" for step in places) else 4)
    histograms = sum(step.repeats for step in program.steps)
    return [SIZE * histograms, keys, keys, 4 * many, 4 * many, *[4 * many for _ in places]]
