"""One function of several items at a time, each in a process of its own, so that one which crashes
or hangs takes no other with it."""

from __future__ import annotations

import signal
import tempfile
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pemlang.disk import temporary

Task = TypeVar("Task")
TaskResult = TypeVar("TaskResult")

_ENDS = (signal.SIGINT, signal.SIGTERM)


class Died(NamedTuple):
    """A process ended before it had a result: its exit code, or the signal that killed it as a
    negative number."""

    code: int


def side_by_side(
    function: Callable[[Task], TaskResult], items: Sequence[Task], most: int
) -> Generator[tuple[int, TaskResult | Died], None, None]:
    """What a function gives for each item, with the item's number, as soon as it is there. The
    processes are forked: what is imported before is imported in all of them, and one takes some
    milliseconds to start. Those at work end as the iterator is closed, and what they put into
    temporary files is removed.

    Args:
        function: gives what can be pickled.
        items: what it is called with.
        most: how many processes are at work at once.
    """
    at_work: dict[Connection, tuple[int, ForkProcess]] = {}
    waiting = iter(enumerate(items))
    with temporary("processes") as folder:
        try:
            while True:
                while len(at_work) < most and (following := next(waiting, None)) is not None:
                    number, item = following
                    receiving, process = _started(function, item, folder)
                    at_work[receiving] = number, process
                if not at_work:
                    return
                for ready in wait(list(at_work)):
                    assert isinstance(ready, Connection)
                    number, process = at_work[ready]
                    result = _received(ready, process)
                    del at_work[ready]
                    yield number, result
        finally:
            for receiving, (_, process) in at_work.items():
                process.kill()
                process.join()
                receiving.close()


def _started(
    function: Callable[[Task], TaskResult], item: Task, folder: Path
) -> tuple[Connection, ForkProcess]:
    """A process that sends what a function gives, and where that arrives."""
    context = get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(function, item, sending, folder), daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # it has our ways of ending at first
    try:
        with warnings.catch_warnings():  # of our other threads, which hold no lock
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sending.close()
    return receiving, process


def _work(
    function: Callable[[Task], TaskResult], item: Task, sending: Connection, folder: Path
) -> None:
    signal.set_wakeup_fd(-1)  # this would tell the process that started it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that one ends all of them
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
    tempfile.tempdir = str(folder)
    with suppress(BrokenPipeError):
        sending.send(function(item))


def _received(receiving: Connection, process: ForkProcess) -> Any:
    """What a process has sent, or how it died. It is ours: its pickles are no stranger's."""
    with receiving:
        try:
            result = receiving.recv()
        except (EOFError, OSError):
            process.join()
            return Died(process.exitcode or 0)
    process.join()
    return result
