"""Its place puts tests/ on the path, so that every test file can import support."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write the expected messages anew, to be reviewed"
    )


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the adapters and models of shelf.py, and files to import."""
    import shelf

    root = tmp_path_factory.mktemp("stocked").resolve()
    shelf.stock(root)
    return root
