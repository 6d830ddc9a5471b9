"""What the machine has for this process: processors and memory, and how it is to use them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_KEPT = 1 << 26
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # as malloc.h numbers them

_CGROUP = Path("/sys/fs/cgroup/memory.max")  # what a container is held to


def default_threads() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_budget() -> int:
    """Bytes of working memory a build takes unless told otherwise: half of the machine's."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # where there is no such limit
        memory = min(memory, int(_CGROUP.read_text()))
    return memory // 2


@contextlib.contextmanager
def one_algebra_thread() -> Iterator[None]:
    """One thread in the linear algebra, inside a thread of ours: the same bytes whatever the
    machine."""
    with algebra_libraries().limit(limits=1):
        yield


@cache
def algebra_libraries() -> ThreadpoolController:
    """The libraries that NumPy computes with; NumPy is loaded."""
    # What is not loaded yet cannot be held to one. All of numpy: a part of it would not wait for
    # another thread that is loading it.
    import numpy  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def algebra_name() -> str:
    """What computes linear algebra here, and for which kind of processor: its last digits go by
    that."""
    named = [
        f"{library['internal_api']} {library['version']} {library.get('architecture', '')}".strip()
        for library in algebra_libraries().info()
        if library["user_api"] == "blas"
    ]
    return ", ".join(sorted(set(named)))


def for_one_command() -> None:
    """Make this process quick at one thing that is soon over, which a host of others should not
    be.

    It makes few cycles and keeps what it makes: looking for garbage as often as a server should
    would take a tenth of its time. And it asks for the same large arrays over and over: memory
    given back to the system between two of them would have to be cleared again, page by page.
    """
    gc.set_threshold(200_000, 50, 50)
    with contextlib.suppress(AttributeError, OSError, TypeError):  # a C library without it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _KEPT // 2)
        mallopt(_TRIM_THRESHOLD, _KEPT)
