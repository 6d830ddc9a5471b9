"""Findings as commands of a GitHub workflow, which shows them beside the lines of a change."""

from __future__ import annotations

from pemlang.diagnostics import in_lines, visible
from pemlang.show.findings import Finding


def command(finding: Finding) -> str:
    """One finding as a line for the standard output of a workflow's step."""
    diagnostic, place = finding.diagnostic, finding.place
    (line, column), (end_line, end_column) = place.start, place.end
    properties = {"file": place.file, "line": line, "endLine": end_line, "title": diagnostic.code}
    # GitHub knows columns of one line only.
    if line == end_line:
        properties |= {"col": column, "endColumn": end_column}
    shown = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    return f"::{diagnostic.severity} {shown}::{_data(in_lines(diagnostic))}"


def _data(text: str) -> str:
    lines = (visible(line, 1 << 16) for line in text.split("\n"))  # a file may have any name
    return "\n".join(lines).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
