"""Threads without a job of their own, which take parts of what others do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from pemlang.kernels.algebra import Piece
from pemlang.lazy import numpy as np


class Stopped(Exception):
    """Nobody waits any longer for what is being computed."""


class Helpers:
    """Where those who have parts to give away and those who take them meet.

    Each part writes to a place of its own, so that it does not matter who does it.
    """

    def __init__(self) -> None:
        self._free = threading.Semaphore(0)  # how many wait for parts
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._stop = threading.Event()

    def help(self) -> None:
        """Do parts of others until there is no more to come."""
        self._free.release()
        while (work := self._asked.get()) is not None:
            work()
            self._free.release()

    def end(self, helpers: int) -> None:
        """Nothing is waited for any longer: so many that help go, and what is at work stops."""
        self._stop.set()
        for _ in range(helpers):
            self._asked.put(None)

    def each(self, do: Callable[[Piece], None], parts: Sequence[Piece]) -> None:
        """Do something with each of some parts, in this thread and in those that are free.

        Raises what `do` does, and Stopped.
        """
        left, done = iter(parts), SimpleQueue[BaseException | None]()

        def work() -> None:
            for part in left:
                if self._stop.is_set():
                    raise Stopped
                do(part)

        def helped() -> None:
            try:
                with np.errstate(**errstate):
                    work()
                done.put(None)
            except BaseException as error:  # it is raised where the work was given away
                done.put(error)

        errstate, asked = np.geterr(), 0  # each thread has its own
        while asked < len(parts) - 1 and self._free.acquire(blocking=False):
            self._asked.put(helped)
            asked += 1
        try:
            work()
        finally:
            errors = [done.get() for _ in range(asked)]
        for error in errors:
            if error is not None:
                raise error


ALONE = Helpers()
"""Nobody helps."""
