"""Every case of a message: the recipes of tests/messages, and what no recipe can show."""

from __future__ import annotations

from pathlib import Path

import support.messages.from_editor
import support.messages.from_files
import support.messages.from_formats
import support.messages.from_gguf
import support.messages.from_layers
import support.messages.from_libraries
import support.messages.from_mergekit
import support.messages.from_mlx
import support.messages.from_models
import support.messages.from_records
import support.messages.from_texts
import support.messages.from_tuning  # noqa: F401  # each makes its own cases known
from support.messages.case import MADE, Case, CaseRuns, Diagnostics, read_case

__all__ = ["CASES", "HERE", "Case", "CaseRuns", "Diagnostics"]

HERE = Path(__file__).parents[2] / "messages"
"""Where the recipes are, and the texts."""

CASES = {path.stem: read_case(path) for path in sorted(HERE.glob("*.pem"))}
CASES |= {name: Case(name) for name in MADE}
