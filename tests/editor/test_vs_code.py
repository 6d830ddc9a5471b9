"""VS Code in a browser with the extension, where code-server and Chromium are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.editor_files import ROOT, make

IMAGES = ROOT / "docs" / "images"
SETTINGS = {
    "pem.command": [sys.executable, "-m", "pemlang", "lsp"],
    "chat.commandCenter.enabled": False,
    "editor.fontSize": 13,
    "editor.minimap.enabled": False,
    "telemetry.telemetryLevel": "off",
    "window.commandCenter": False,
    "workbench.activityBar.location": "hidden",
    "workbench.colorTheme": "Default Light Modern",
    "workbench.layoutControl.enabled": False,
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
}
TEXT = """\
language 1

import std.paper (merge)

base minilm = "sentence-transformers/all-MiniLM-L6-v2"
adapter movies: lora(rank=8) on minilm = "adapters/movies-lora"
adapter products on minilm = "adapters/products-lora"

## How much of the result is about movies.
param weight: number in 0..1 = 0.5

let both = weight * movies + (1 - weight) * products
save both to "out/both" with rank=8
save merge(movies, products, weight) to "out/paper"
save ties([movies, products], densty=0.2, rank=8) to "out/few"
"""
WAIT = 120_000  # ms


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "reviews"
    shutil.copytree(ROOT / "examples" / "quickstart" / "adapters", root / "adapters")
    (root / "merge.pem").write_text(TEXT, encoding="utf-8")
    (root / "server.pem").write_text("-----BEGIN CERTIFICATE-----\nMII\n", encoding="utf-8")
    return root


@pytest.fixture
def served(tmp_path: Path, folder: Path) -> Iterator[str]:
    """Where VS Code answers, with the folder open."""
    program = shutil.which("code-server")
    if program is None:
        pytest.skip("there is no code-server")
    make.pack(tmp_path / "pemlang.vsix")
    user, extensions = tmp_path / "user", tmp_path / "extensions"
    (user / "User").mkdir(parents=True)
    (user / "User" / "settings.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    own = [program, "--user-data-dir", user, "--extensions-dir", extensions]
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    subprocess.run(
        [*own, "--install-extension", tmp_path / "pemlang.vsix"],
        env=env, check=True, capture_output=True,
    )  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    quiet = ["--auth", "none", "--disable-telemetry", "--disable-update-check"]
    words = [*own, *quiet, "--disable-workspace-trust", "--bind-addr", address]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(words, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(600):
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0:
                        break
                time.sleep(0.1)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # what it has started outlives it
            server.wait(60)


def opened(browser: Any, address: str, file: Path) -> Any:
    """A page with a file open, and nothing beside it."""
    page = browser.new_page(viewport={"width": 1000, "height": 440}, device_scale_factor=1.5)
    page.set_default_timeout(WAIT)
    payload = json.dumps([["openFile", f"vscode-remote://{address}{file}"]])
    page.goto(f"http://{address}/?folder={file.parent}&payload={payload}")
    page.wait_for_selector(".view-lines .view-line")
    page.mouse.click(700, 400)
    page.keyboard.press("Control+b")
    return page


def hovered(page: Any, line: str, word: str) -> str:
    """What is shown while the mouse is over a word."""
    page.mouse.move(900, 380)
    page.locator(".monaco-hover:visible").wait_for(state="detached")
    page.locator(".view-line", has_text=line).get_by_text(word, exact=True).first.hover()
    shown = page.locator(".monaco-hover:visible .monaco-hover-content")
    shown.get_by_text("Loading").wait_for(state="detached")
    return plain(shown.inner_text())


def plain(text: str) -> str:
    return text.replace("\xa0", " ")


def test_a_recipe_in_vs_code(
    request: pytest.FixtureRequest, browser: Any, served: str, folder: Path
) -> None:
    page = opened(browser, served, folder / "merge.pem")
    page.wait_for_selector(".squiggly-error")
    page.locator(".codelens-decoration", has_text="0.5⊗movies ⊕ 0.5⊗products").wait_for()
    page.locator(".view-line", has_text="rank 16, 12 sites").wait_for()
    text = plain(page.locator(".view-lines").inner_text())
    assert "let both: LoRA, rank 16, 12 sites = weight" in text
    assert "adapter movies: lora(rank=8) on" in text  # a type is written there

    shown = hovered(page, "let both", "both")
    assert "LoRA, rank 16, 12 sites = 0.5·movies + 0.5·products" in shown
    assert re.search(r"norm\(both\) is 6\.\d+", shown)
    pictured(request, page, "editor")
    shown = hovered(page, "densty", "densty")
    assert "`ties` has no parameter `densty`" in shown and "did you mean `density`?" in shown
    pictured(request, page, "editor-mistake")

    page.keyboard.press("Escape")
    page.locator(".view-line", has_text="densty").get_by_text("densty", exact=True).click()
    page.keyboard.press("Control+.")
    page.locator(".action-widget", has_text="write density").wait_for()
    page.keyboard.press("Enter")
    page.locator(".view-line", has_text="density=0.2").wait_for()
    page.locator(".squiggly-error").wait_for(state="detached")

    page.keyboard.press("Control+End")
    page.keyboard.type("let soup = mea")
    page.locator(".suggest-widget .monaco-list-row", has_text="mean").first.wait_for()
    assert page.locator(".notification-list-item").count() == 0
    page.close()


def test_a_certificate_is_none_of_its_business(browser: Any, served: str, folder: Path) -> None:
    page = opened(browser, served, folder / "server.pem")
    page.locator(".statusbar-item", has_text="Plain Text").wait_for()
    page.close()


def pictured(request: pytest.FixtureRequest, page: Any, name: str) -> None:
    """Take a picture for the documents, where they are asked for."""
    if request.config.getoption("--screenshots"):
        page.screenshot(path=IMAGES / f"{name}.png")
        assert (IMAGES / f"{name}.png").stat().st_size < 250_000
