"""Its place puts tests/ on the path, so that every test file can import support."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window, where one is installed. While it is open no other event loop
    runs in this thread, such as that of an editor's client."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium on this machine")
    flags = "no-sandbox disable-gpu disable-background-networking disable-component-update"
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium,
            args=[f"--{flag}" for flag in (flags + " disable-sync no-first-run").split()],
        )
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the adapters and models of shelf.py, and files to import."""
    from support import shelf

    root = tmp_path_factory.mktemp("stocked").resolve()
    shelf.stock(root)
    return root
