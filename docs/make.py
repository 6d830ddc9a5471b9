"""Writes the pages that are made from the code: `make docs`."""

from __future__ import annotations

from pathlib import Path

from pemlang.show import codes, operators

HERE = Path(__file__).parent

for name, page in {"errors": codes, "operators": operators}.items():
    (HERE / f"{name}.md").write_text(page.as_markdown(), encoding="utf-8")
