"""A folder of adapters, open in an editor; the parser that editors colour by."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import lora
from support.editor import Editor
from support.editor_files import EDITORS


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    root = tmp_path_factory.mktemp("open").resolve()
    lora(root / "a", 1)
    lora(root / "b", 2)
    lora(root / "runs" / "final", 3, rank=2)
    opened = Editor(root)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def parser_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parser of editors/tree-sitter, compiled."""
    cc = shutil.which("cc")
    if cc is None:
        pytest.skip("there is no C compiler")
    library, source = tmp_path_factory.mktemp("parser") / "pem.so", EDITORS / "tree-sitter" / "src"
    words = [cc, "-shared", "-fPIC", f"-I{source}", source / "parser.c", "-o", library]
    subprocess.run(words, check=True)
    return library
