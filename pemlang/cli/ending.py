"""How a command ends before its time: asked to by a signal, or as what is around it gives way."""

from __future__ import annotations

import codecs
import errno
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from pemlang.diagnostics import Fault, visible

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PATIENCE = 1.5
"""Seconds that what is at work has to end by itself, once a signal asks for it."""

MOVING = 10.0
"""Seconds more that an output has that is on its way to its place."""

_INTERRUPTED = "Interrupted; what was not finished was not written."
_STAYED = "Finished files stay for `pem build --resume`, or for `pem clean` to remove."

_asked: list[int] = []


def was_asked() -> bool:
    """Whether a signal asked this process to end."""
    return bool(_asked)


def interrupted() -> str:
    """What to say where a signal ended a command."""
    staging = sys.modules.get("pemlang.artifact.staging")  # importing it could wait for ever
    return f"{_INTERRUPTED} {_STAYED}" if staging is not None and staging.stayed() else _INTERRUPTED


def exit_code_of_signal() -> int:
    """The exit code of a process that a signal asked to end."""
    return 128 + (_asked[0] if _asked else signal.SIGINT)


def listen() -> None:
    """From here on a signal to end raises KeyboardInterrupt, so that nothing half-made is left;
    and where that does not end the process in time, as in a library that waits for another thread,
    it is ended from outside of all that."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _ask)
    sys.unraisablehook = _tell_unraisable
    threading.Thread(target=_watch, args=(reading,), daemon=True).start()


def _ask(number: int, _: FrameType | None) -> None:
    _asked.append(number)
    if len(_asked) == 1:
        raise KeyboardInterrupt


def _tell_unraisable(told: UnraisableHookArgs) -> None:
    """A signal that arrives where nothing can be raised is no mistake to tell of."""
    if not issubclass(told.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(told)


def _watch(reading: int) -> None:
    number = 0
    while number not in (signal.SIGINT, signal.SIGTERM):  # others are no order to end
        number = os.read(reading, 1)[0]
    time.sleep(PATIENCE)
    staging = sys.modules.get("pemlang.artifact.staging")
    if staging is not None:
        staging.clear_all(MOVING)
    with suppress(OSError):
        os.write(2, f"{interrupted()}\n".encode())
    os._exit(128 + number)


def leave(code: object) -> NoReturn:
    """End the process, waiting for no thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 1)


def make_writable() -> None:
    """Let the standard streams take all that is written to them: characters that their encoding
    has not are escaped as JSON has them, and one that is closed takes it and keeps nothing."""
    codecs.register_error("pemlang", _escaped)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="pemlang")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    text = "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    return text, error.end


def around(error: BaseException) -> Fault | None:
    """What gave way around a command, in words; None of what is no such thing."""
    if isinstance(error, MemoryError):
        why = "there is no more memory"
    elif isinstance(error, SystemError):
        why = f"Python failed, as it may where memory is short: {visible(error)}"
    elif isinstance(error, RuntimeError) and "start new thread" in str(error):
        why = "it may start no more threads"
    elif isinstance(error, ImportError):
        why = f"a part of it cannot be loaded: {visible(error)}"
    elif isinstance(error, OSError):
        name = f" ({visible(error.filename)})" if error.filename else ""
        why = f"{visible(error.strerror or error)}{name}"
        if error.errno == errno.ENOENT and not _has_folder():
            why = "the folder that it was started in is not there any more"
    else:
        return None
    return Fault("PEM0530", f"pem cannot go on: {why}", "make room for it, and run it again")


def _has_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True
