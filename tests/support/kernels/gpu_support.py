"""Where the tests of the GPU backend run: under Triton's interpreter on any machine, and on a GPU
where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from tempfile import TemporaryDirectory

import pytest
import torch

from pemlang.execute import Gpu, module_of, open_gpu

DEVICES = [
    pytest.param("cpu", id="interpreter"),
    pytest.param(
        "cuda",
        id="gpu",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here"),
        ],
    ),
]


@contextmanager
def opened(device: str) -> Iterator[Gpu]:
    """A device. Whether Triton interprets is settled when the module of a kernel is imported, so
    none is kept from one device to the next."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setenv("XDG_CACHE_HOME", folder)
        patch.setenv("TRITON_INTERPRET", "1" if device == "cpu" else "0")
        own = cache(lambda program: module_of(program).kernel)
        patch.setattr("pemlang.execute.cuda._kernel", own)
        yield open_gpu(device)
