"""What of the inputs is read while a build runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pemlang.execute import Kernel, Stream
from pemlang.tensorfiles import TensorReader


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Each read from here on, in native calls too: the folder of the file, the first byte, and how
    many there are."""
    done: list[tuple[str, int, int]] = []
    names: dict[int, str] = {}
    handle, read, stream = TensorReader.handle, TensorReader.read, Kernel.stream

    def named(self: TensorReader, file: Path) -> int:
        names[handle(self, file)] = file.parent.name
        return handle(self, file)

    def alone(self: TensorReader, file: Path, start: int, out: Any) -> None:
        done.append((file.parent.name, start, out.nbytes))
        read(self, file, start, out)

    def streamed(self: Kernel, blocks: Stream, constants: Any, files: Sequence[int]) -> Any:
        inputs = np.reshape(files, (-1, 3)).tolist()[: len(self.inputs())]
        for first, size, *_ in blocks.blocks:
            for file, start, width in inputs:
                done.append((names[file], start + first * width, size * width))
        return stream(self, blocks, constants, files)

    monkeypatch.setattr(TensorReader, "handle", named)
    monkeypatch.setattr(TensorReader, "read", alone)
    monkeypatch.setattr(Kernel, "stream", streamed)
    return done
