"""Results as a table, for the terminal and for results.md."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from timing import median, shown

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A comparison.

    Attributes:
        what, ours: what was done, and the seconds it took.
        other, theirs: what it is held to.
        least: ours should be so many times faster, or less.
        most: ours should take at most so many times as long, or be as much.
        recipe: to profile where the target is missed.
        copied: what copying the same bytes took, where nothing can be much quicker.
        unit: of what is not seconds.
    """

    what: str
    ours: Sequence[float]
    other: str
    theirs: Sequence[float]
    least: float | None = None
    most: float | None = None
    recipe: Path | None = None
    copied: Sequence[float] = ()
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """Times as long, where that is limited; else times faster."""
        ours, theirs = median(self.ours), median(self.theirs)
        return ours / theirs if self.most is not None else theirs / ours

    @property
    def met(self) -> bool:
        if self.most is not None:
            return self.ratio <= self.most
        return self.least is None or self.ratio >= self.least

    @property
    def target(self) -> str:
        faster, long = ("faster", "long") if self.unit == "s" else ("less", "much")
        if self.most is not None:
            return f"{self.ratio:.3g}× as {long}, at most {self.most:g}×"
        least = "" if self.least is None else f", at least {self.least:g}×"
        return f"{self.ratio:.3g}× {faster}{least}"


@dataclass(frozen=True)
class Table:
    """Megabytes of several things that should be alike, or small.

    Attributes:
        what: what was measured.
        cells: each thing with its measurements.
        most: the largest median may be so many times the least.
        below: or it may be so many megabytes.
    """

    what: str
    cells: Sequence[tuple[str, Sequence[float]]]
    most: float = 1.0
    below: float | None = None

    @property
    def ratio(self) -> float:
        medians = [median(values) for _, values in self.cells]
        return max(medians) / min(medians)

    @property
    def met(self) -> bool:
        if self.below is not None:
            return max(median(values) for _, values in self.cells) < self.below
        return self.ratio <= self.most

    @property
    def target(self) -> str:
        if self.below is not None:
            return f"below {self.below:g} MB"
        return f"{self.ratio:.3g} between most and least, at most {self.most:g}"


def as_terminal(row: Row | Table) -> str:
    """A result as one line."""
    mark = "met" if row.met else "MISSED"
    if isinstance(row, Table):
        cells = ", ".join(f"{name} {median(values):.1f} MB" for name, values in row.cells)
        return f"{mark}: {row.what}: {cells}: {row.target}"
    return (
        f"{mark}: {row.what} {median(row.ours):.4g} {row.unit}, {row.other} "
        f"{median(row.theirs):.4g} {row.unit}: {row.target}"
    )


def as_markdown(rows: Sequence[Row | Table], peers: str, env: Mapping[str, str]) -> str:
    """results.md."""
    lines = ["# Benchmarks", "", *_machine(peers), ""]
    lines += [
        "Medians, with the least and the most. Ours and the peer's ran in turn, on the same files, "
        "which were in the page cache. `make bench` makes this page; the peers' scripts are in "
        "[peers/](peers). *Work* is from the first tensor read to the last byte written, planning "
        "included; *process* is all of `pem build`, from start to exit, flushed to disk.",
        "",
        "| | what | ours | against | theirs | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        mark = "✓" if row.met else "**missed**"
        if isinstance(row, Row):
            ours, theirs = shown(row.ours, row.unit), shown(row.theirs, row.unit)
            lines.append(
                f"| {mark} | {row.what} | {ours} | {row.other} | {theirs} | {row.target} |"
            )
        else:
            cells = "; ".join(f"{name}: {median(values):.1f} MB" for name, values in row.cells)
            lines.append(f"| {mark} | {row.what} | {cells} | | | {row.target} |")
    for row in rows:
        if isinstance(row, Row) and not row.met and row.recipe is not None:
            lines += ["", f"## Where the time goes: {row.what}", "", *_bound(row)]
            lines += _profile(row.recipe, env)
    return "\n".join([*lines, ""])


def _bound(row: Row) -> list[str]:
    if not row.copied:
        return []
    ratio = median(row.theirs) / median(row.copied)
    return [f"Copying the same bytes and nothing else is {ratio:.3g}× faster here.", ""]


def _machine(peers: str) -> list[str]:
    said = "import torch, peft; print(torch.__version__, peft.__version__)"
    found = subprocess.run([peers, "-c", said], capture_output=True, text=True, check=True)
    torch, peft = found.stdout.split()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    today = datetime.date.today().isoformat()
    return [
        f"{today}, {_processor()}, {cores} cores, {platform.system()}, Python "
        f"{platform.python_version()}, NumPy {version('numpy')}; torch {torch}, PEFT {peft}.",
    ]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _profile(recipe: Path, env: Mapping[str, str]) -> list[str]:
    """The calls that take most of a build's own time. What its threads do is in `acquire`."""
    command = [sys.executable, "-m", "cProfile", "-s", "tottime", str(HERE / "ours.py")]
    out = recipe.parent / "profiled"
    ran = subprocess.run(
        [*command, str(recipe), str(out)],
        capture_output=True, text=True, check=True, env=os.environ | env,
    )  # fmt: skip
    here = str(HERE.parent) + os.sep
    return ["```", *ran.stdout.replace(here, "").splitlines()[:25], "```"]
