"""The command line, run by tests: in this process, or in one of its own."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from pemlang.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All that it wrote, its output first."""
        return self.out + self.err


def pem(
    *words: str | Path,
    folder: Path | None = None,
    input: str | bytes | None = None,
    process: bool = False,
    **env: str,
) -> Done:
    """Run `pem`.

    Args:
        words: of the command line.
        folder: where; here when not given.
        input: on standard input.
        process: in a process of its own: slower by its start, and what a shell would see. In this
            one a traceback is an exception.
        env: more of the environment.
    """
    args, data = list(map(str, words)), input.encode() if isinstance(input, str) else input
    if process:
        done = subprocess.run(
            command(*args), cwd=folder, input=data, env={**os.environ, **env}, capture_output=True,
            check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())
    out, err = _stream(), _stream()
    handler = signal.getsignal(signal.SIGTERM)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr("pemlang.cli.main.for_one_command", lambda: None)
        patch.setattr(sys, "stdin", _stream(data or b""))
        stack.enter_context(chdir(folder or Path.cwd()))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        stack.callback(signal.signal, signal.SIGTERM, handler)
        try:
            main(args)
        except SystemExit as end:
            assert isinstance(end.code, int)
            return Done(end.code, _written(out), _written(err))


def command(*words: str) -> list[str]:
    """The command line of a process that is `pem`."""
    return [sys.executable, "-m", "pemlang", *words]


def _stream(data: bytes = b"") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="", write_through=True)


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
