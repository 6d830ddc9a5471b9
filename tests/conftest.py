"""Its place puts tests/ on the path, so that every test file can import support."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write the expected messages anew, to be reviewed"
    )
