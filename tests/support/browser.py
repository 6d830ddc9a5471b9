"""A page in a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Seen:
    """A page in a browser, and everything it complained of or asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def column(self, table: str, index: int) -> list[str]:
        cells = self.page.locator(f"{table} tbody tr:visible td:nth-child({index + 1})")
        return [text.strip() for text in cells.all_inner_texts()]


def opened(browser: Any, path: Path, **how: Any) -> Seen:
    """A page, once its charts are drawn; `how` is as new_page of Playwright takes it."""
    view = {"viewport": {"width": 1360, "height": 900}} | how
    seen = Seen(browser.new_page(**view))
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.goto(path.as_uri())
    seen.page.wait_for_selector(".plot canvas")
    return seen
