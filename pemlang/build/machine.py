"""What the machine has: processors and memory that this process may use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

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
