"""Running commands, and what they took."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec

KEEP_NOTHING = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True)
class Sample:
    """One run of a process.

    Attributes:
        seconds: from its start to its end.
        processor_seconds: on all processors.
        megabytes: its maximum resident set.
        said: the JSON it printed, or nothing.
    """

    seconds: float
    processor_seconds: float
    megabytes: float
    said: Mapping[str, float] = field(default_factory=dict)


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> Sample:
    """Run a command to its end; raises RuntimeError with what it said where it fails."""
    # Python keeps what it compiles, as it does for a user.
    usual = {name: value for name, value in os.environ.items() if name != KEEP_NOTHING}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=usual | dict(env or {})
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said.decode(errors='replace')}")
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    spoken = json.loads(last) if _is_json(last) else {}
    return Sample(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6, spoken)


def _is_json(text: str) -> bool:
    return text.startswith("{") and text.endswith("}")


Asked = ParamSpec("Asked")


def cached(
    files: Sequence[Path],
    measure: Callable[Asked, Sample],
    *args: Asked.args,
    **more: Asked.kwargs,
) -> Sample:
    """What is measured while some files are in the page cache: a system takes pages of large ones
    back between two runs, and the next would be as slow as the disk."""
    block = bytearray(1 << 20)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(block):
                pass
    os.sync()
    return measure(*args, **more)


def in_turn(
    name: str, times: int, *sides: Callable[[], float | Sequence[float]]
) -> list[list[float]]:
    """Measure several sides one after the other, as often as asked; each gives one number or
    several, and there is one list for each number.

    So both sides of a ratio meet the same machine: a shared one is quick and slow by turns.
    """
    found: list[list[float]] = []
    for turn in range(times):
        print(f"  {name}: {turn + 1} of {times}", file=sys.stderr, flush=True)
        numbers: list[float] = []
        for side in sides:
            os.sync()  # what was written before does not go to the disk while this is measured
            one = side()
            numbers += [one] if isinstance(one, float) else one
        found = found or [[] for _ in numbers]
        for kept, number in zip(found, numbers, strict=True):
            kept.append(number)
    return found


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def shown(values: Sequence[float], unit: str = "s") -> str:
    """A median with the least and the most."""
    low, high = min(values), max(values)
    return f"{median(values):.3g} {unit} ({low:.3g} to {high:.3g})"
