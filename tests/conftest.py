"""Its place puts tests/ on the path, so that every test file can import support."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write the expected messages anew, to be reviewed"
    )
    parser.addoption(
        "--screenshots", action="store_true", help="write the pictures of docs/images anew"
    )


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered between builds is kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def heard() -> Iterator[None]:
    """What is started hears an interrupt, where these tests run in the background too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the adapters and models of shelf.py, and files to import."""
    from support import shelf

    root = tmp_path_factory.mktemp("stocked").resolve()
    shelf.stock(root)
    return root
