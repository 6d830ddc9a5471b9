"""Findings as SARIF 2.1.0, which code scanning services read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from pemlang.diagnostics import in_lines
from pemlang.show.codes import Entry, catalogue
from pemlang.show.findings import Finding, Place
from pemlang.version import __version__

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)


def log(findings: Sequence[Finding]) -> dict[str, object]:
    """One log of one run, ready for json.dumps. It describes the codes that were found."""
    used = {finding.diagnostic.code for finding in findings}
    rules = [_rule(code, entry) for code, entry in catalogue().items() if code in used]
    driver = {"name": "pemlang", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding) for finding in findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str, entry: Entry) -> dict[str, object]:
    first, _, _ = entry.text.partition("\n\n")
    return {
        "id": code,
        "shortDescription": {"text": entry.title},
        "fullDescription": {"text": " ".join(first.split())},
        "help": {"text": entry.text, "markdown": entry.text},
    }


def _result(finding: Finding) -> dict[str, object]:
    diagnostic = finding.diagnostic
    return {
        "ruleId": diagnostic.code,
        "level": diagnostic.severity,
        "message": {"text": _plain(in_lines(diagnostic))},
        "locations": [{"physicalLocation": _location(finding.place)}],
    }


def _plain(text: str) -> str:
    """A text in which nothing is read as a link, which `[words](address)` is in a SARIF message."""
    return re.sub(r"\](?=\()", r"\\]", text)


def _location(place: Place) -> dict[str, object]:
    (line, column), (end_line, end_column) = place.start, place.end
    path = Path(place.file)
    uri = path.as_uri() if path.is_absolute() else quote(os.fsencode(place.file))
    return {
        "artifactLocation": {"uri": uri},
        "region": {
            "startLine": line,
            "startColumn": column,
            "endLine": end_line,
            "endColumn": end_column,
        },
    }
