"""A folder of adapters, open in an editor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import lora
from support.editor import Editor


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    root = tmp_path_factory.mktemp("open").resolve()
    lora(root / "a", 1)
    lora(root / "b", 2)
    lora(root / "runs" / "final", 3, rank=2)
    opened = Editor(root)
    yield opened
    opened.close()
