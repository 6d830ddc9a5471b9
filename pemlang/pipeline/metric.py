"""What a metric says of an output: a command, or a function of Python in a process of its own. It
may fail, hang, print what is no number or print for ever; what it has started ends with it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.pipeline.study import finite
from pemlang.tensorfiles.jsons import parse_json

OUTPUT = "{output}"
MAX_PRINTED = 16 << 20  # bytes
_KEPT = 64 << 10  # bytes at the end of what it prints, among which its numbers are
_AFTERWARDS = 1.0  # seconds in which what was printed arrives, once its process has ended
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_OF_SHELLS = re.compile(r"(?<!\S)(?:\|\|?|&&?|;|\d?>>?\S*|<\S*)(?!\S)|;(?!\S)")
"""A word of a command, outside of quotes, that is a pipe, a redirection or an end to a shell."""
_LEADER = ("/bin/sh", "-c", "read _; kill -KILL 0")
"""Leads the group of processes that a metric is in. It ends all of them, itself among them, once
nobody holds the other end of its input, as when this process was killed."""


@dataclass(frozen=True)
class Metric:
    """What measures an output.

    Attributes:
        text: as it was given.
        words: the command, with `{output}` where the path of the output goes.
        names: of the numbers that it has to give; a single one need not be named.
        seconds: how long it may take.
    """

    text: str
    words: tuple[str, ...]
    names: tuple[str, ...]
    seconds: float


def metric_of(text: str, names: Sequence[str], seconds: float) -> Metric:
    """A metric by its text: a command, or `package.module:function`; raises PEM0903 for what is
    neither."""
    if _FUNCTION.fullmatch(text.strip()):
        if ".py:" in text:
            message = f"the metric {visible(text, 80)!r} names a file, and a function has a module"
            raise Fault("PEM0903", message, f"write {visible(text.replace('.py:', ':'), 80)}")
        words = (sys.executable, "-m", "pemlang.pipeline.metric_function", text.strip(), OUTPUT)
        return Metric(text, words, tuple(names), seconds)
    try:
        parts = tuple(shlex.split(text))
    except ValueError as error:
        raise Fault(
            "PEM0903", f"the metric is no command: {error}".lower(), "close the quotes in it"
        ) from None
    if not any(OUTPUT in part for part in parts[1:]):
        raise Fault(
            "PEM0903",
            f"the metric {visible(text, 80)!r} does not say where the output goes",
            f'say where its path goes, as in "python score.py {OUTPUT}"; or name a function, as in '
            "score:accuracy",
        )
    _hold_for_no_shell(text)
    if shutil.which(parts[0]) is None:
        program, by_shell = visible(parts[0], 80), visible(f"sh -c {shlex.quote(text)}", 300)
        is_there = Path(parts[0]).is_file()
        raise Fault(
            "PEM0903",
            f"the metric begins with {program!r}, which is no program"
            + (" but a file" if is_there else ""),
            _named_runner(text, parts[0])
            if is_there
            else f"check the path; for a shell: {by_shell}",
        )
    return Metric(text, parts, tuple(names), seconds)


def _hold_for_no_shell(text: str) -> None:
    """Raise PEM0903 for a command that only a shell would understand."""
    sign = _OF_SHELLS.search(_QUOTED.sub("_", text))
    if sign is not None:
        raise Fault(
            "PEM0903",
            f"{sign[0]!r} in the metric is for a shell, and none runs it",
            f"let one run it: {visible(f'sh -c {shlex.quote(text)}', 300)}",
        )


def _named_runner(text: str, script: str) -> str:
    runner = "python" if script.endswith(".py") else "bash"
    return f"say what runs it: {visible(f'{runner} {text}', 300)}"


class MetricRuns:
    """Metrics at work, any number at a time."""

    def __init__(self) -> None:
        self._groups: set[_ProcessGroup] = set()
        self._guard = threading.Lock()
        self._ended = False

    def end(self) -> None:
        """End all that are at work, and let no other begin."""
        with self._guard:
            self._ended = True
            for group in self._groups:
                group.end()

    def measure(self, metric: Metric, output: Path) -> Mapping[str, float]:
        """What a metric says of an output.

        Raises:
            Fault: PEM0910 it failed, PEM0911 it gave no number, PEM0912 it took too long, PEM0913
                it printed too much.
        """
        group = _ProcessGroup()
        try:
            with self._guard:
                self._groups.add(group)
                process = group.start(metric, output)
                if self._ended:
                    group.end()
            return _measured(metric, process, group)
        finally:
            with self._guard:
                group.end()
                self._groups.discard(group)
            group.wait()


class _ProcessGroup:
    """The processes of a metric, and one that leads them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = subprocess.Popen(
            _LEADER, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            process_group=0,
        )  # fmt: skip

    def start(self, metric: Metric, output: Path) -> subprocess.Popen[bytes]:
        """Start the metric; raises Fault PEM0910."""
        words = [word.replace(OUTPUT, str(output)) for word in metric.words]
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                process_group=self._leader.pid,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            why = visible(getattr(error, "strerror", None) or error)
            message = f"the metric cannot be started: {visible(words[0], 80)}: {why}"
            raise Fault("PEM0910", message, _named_runner(metric.text, words[0])) from None
        return self._process

    def end(self) -> None:
        """End all of them, and what they have started in groups of their own."""
        if self._process is not None and self._process.poll() is None:
            for started in _started_by(self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(started, signal.SIGKILL)
            self._process.kill()
        if self._leader.returncode is None:  # its number is no one else's before it was waited for
            with suppress(ProcessLookupError):
                os.killpg(self._leader.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the leader, once all have been ended."""
        self._leader.wait()
        if self._leader.stdin is not None:
            self._leader.stdin.close()


def _started_by(process: int) -> list[int]:
    """The processes that one has started, and those that they have, where Linux tells."""
    started = [process]
    for each in started:
        with suppress(OSError):
            for thread in Path(f"/proc/{each}/task").iterdir():
                started += map(int, (thread / "children").read_text().split())
    return started[1:]


def _measured(
    metric: Metric, process: subprocess.Popen[bytes], group: _ProcessGroup
) -> Mapping[str, float]:
    assert process.stdout is not None
    assert process.stderr is not None
    printed, noise = (
        _PrintedText(stream, group.end) for stream in (process.stdout, process.stderr)
    )
    late = False
    try:
        process.wait(metric.seconds)
    except subprocess.TimeoutExpired:
        late = True
    group.end()  # whatever it has left at work
    process.wait()
    for stream in (printed, noise):
        stream.join(_AFTERWARDS)
    notes = noise.last_line()
    if printed.is_too_much or noise.is_too_much:
        raise Fault(
            "PEM0913",
            f"the metric printed more than {MAX_PRINTED >> 20} MiB, and was ended",
            "let it print its numbers, and little else",
        )
    if late:
        raise Fault(
            "PEM0912",
            f"the metric was not done after {metric.seconds:g} s, and was ended",
            "give it more time, --timeout SECONDS, or less to do",
            notes,
        )
    if process.returncode != 0:
        raise Fault(
            "PEM0910", f"the metric {_ending(process.returncode)}", _by_itself(metric), notes
        )
    try:
        return numbers_of(printed.end(), metric.names)
    except Fault as fault:
        raise Fault(fault.code, fault.message, fault.help, notes) from None


def _by_itself(metric: Metric) -> str:
    """How to see what a metric does."""
    on = "on an output of `pem build`"
    if not _FUNCTION.fullmatch(metric.text.strip()):
        return f"run the command by itself {on}"
    module, _, name = metric.text.strip().partition(":")
    return f"""call it {on}: python -c "import {module}; print({module}.{name}('…'))\""""


def _ending(code: int) -> str:
    if code > 0:
        return f"failed, with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


class _PrintedText(threading.Thread):
    """Reads what a process prints to its end, and keeps the end of it.

    Attributes:
        is_too_much: whether it printed more than anyone reads.
    """

    def __init__(self, stream: IO[bytes], stop: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._stream, self._stop = stream, stop
        self._kept, self._is_cut = bytearray(), False
        self.is_too_much = False
        self.start()

    def run(self) -> None:
        size = 0
        with self._stream:
            while text := os.read(self._stream.fileno(), 1 << 16):
                size += len(text)
                self._is_cut = size > _KEPT
                self._kept += text
                del self._kept[:-_KEPT]
                if size > MAX_PRINTED:
                    self.is_too_much = True
                    self._stop()
                    return

    def end(self) -> bytes:
        """The last bytes, behind an ellipsis where there were others: a number is none by its end
        alone."""
        return b"\xe2\x80\xa6" * self._is_cut + bytes(self._kept)

    def last_line(self) -> tuple[str, ...]:
        """The last line that says anything, as a note."""
        lines = self.end().decode(errors="replace").split("\n")
        return tuple(visible(line.strip()) for line in lines if line.strip())[-1:]


def numbers_of(printed: bytes, names: Sequence[str]) -> dict[str, float]:
    """The numbers that a metric printed: on its last line, or as JSON.

    Args:
        printed: the end of its output.
        names: of the numbers that are wanted.

    Raises:
        Fault: PEM0911 there are none, or others, or one that is NaN or infinite.
    """
    lines = [line for line in printed.splitlines() if line.strip()]
    if not lines:
        raise _no_number("it printed nothing", names)
    last = f"its last line is {visible(lines[-1].decode(errors='replace').strip(), 80)!r}"
    readings: tuple[Callable[[], object], ...] = (
        lambda: parse_json(lines[-1]), lambda: float(lines[-1]), lambda: parse_json(printed),
    )  # fmt: skip
    for reading in readings:
        with suppress(ValueError):
            return _by_name(reading(), names, last)
    raise _no_number(last, names)


def _by_name(value: object, names: Sequence[str], last: str) -> dict[str, float]:
    values = value if isinstance(value, dict) else {names[0]: value}
    if value is not values and len(names) > 1:
        raise _no_number(last, names)
    missing = [name for name in names if name not in values]
    if missing:
        raise _without(missing, values, names)
    numbers = {}
    for name in names:
        try:
            numbers[name] = finite(values[name])
        except TypeError:
            shown = visible(values[name], 80)
            raise _no_number(f"its {visible(name)} is {shown!r}", names) from None
        except (ValueError, OverflowError):
            raise Fault(
                "PEM0911",
                f"the metric gave {visible(name)} = {visible(values[name], 40)}, which is no "
                "finite number",
                "give a number for each output, a very bad one where it is of no use",
            ) from None
    return numbers


def _without(missing: Sequence[str], values: Mapping[str, object], names: Sequence[str]) -> Fault:
    """PEM0911 of JSON that lacks numbers: others that it has may be those that are meant."""
    others = [x for x, y in values.items() if type(y) in (int, float) and x not in names]
    if not others:
        return _no_number(f"its JSON has no {listed(missing)}", names)
    return Fault(
        "PEM0911",
        f"the metric gave no {listed(missing)}: its JSON has {listed(others)}",
        f"say which of them is to be best, as in --maximize {visible(others[0], 40)}",
    )


def _no_number(what: str, names: Sequence[str]) -> Fault:
    shown = ", ".join(f'"{visible(name)}": 0.87' for name in names)
    wanted = f"JSON as its last line, {{{shown}}}"
    return Fault(
        "PEM0911",
        f"the metric gave no number: {what}",
        f"let it print the number as its last line, or {wanted}"
        if len(names) == 1
        else f"let it print {wanted}",
    )
