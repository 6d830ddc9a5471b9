"""What runs a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from pemlang.dataclass import dataclass
from pemlang.execute.elementwise import BLOCK
from pemlang.execute.machine import default_budget, default_threads
from pemlang.execute.result import ExecutionResult, Target
from pemlang.kernels.plan import Plan
from pemlang.tensorfiles.reader import TensorReader

TURN = 8
"""Blocks that a thread takes at a time."""

Progress = Callable[[int, int], None]
"""Told of the parts of the work that are done, and of all of them."""


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class ExecutionOptions:
    """How to run a plan, none of which changes a byte of what it writes but `block`.

    Attributes:
        threads: at most so many at work; as many as there are processors when None.
        memory: bytes of working memory; half of the machine's when None.
        block: the most elements of a block.
        turn: blocks that a thread takes at a time.
    """

    threads: int | None = None
    memory: int | None = None
    block: int = BLOCK
    turn: int = TURN

    @property
    def most_threads(self) -> int:
        """How many threads at most."""
        return default_threads() if self.threads is None else self.threads

    @property
    def budget(self) -> int:
        """Bytes of working memory."""
        return default_budget() if self.memory is None else self.memory


DEFAULTS = ExecutionOptions()


class Executor(Protocol):
    """Runs plans: on this machine's processors, on a GPU, or elsewhere."""

    def execute(
        self,
        plan: Plan,
        reader: TensorReader,
        targets: Sequence[Target] = (),
        progress: Progress = no_progress,
    ) -> ExecutionResult:
        """Make all outputs of a plan.

        Args:
            plan: what to do.
            reader: where inputs are read from.
            targets: take the outputs' bytes, in the plan's order; headers are written here too.
            progress: told of it, from this thread.

        Returns:
            What was seen, and what went wrong with an output.

        Raises:
            MemoryTooSmall: there is not enough for one thread.
        """
