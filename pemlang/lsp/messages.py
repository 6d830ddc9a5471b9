"""Diagnostics as an editor takes them, and help that it can paste."""

from __future__ import annotations

from collections.abc import Iterable

from lsprotocol import types

from pemlang.diagnostics import Diagnostic, in_lines
from pemlang.lsp.analysis import Analysis
from pemlang.lsp.open_files import NOT_ASKED
from pemlang.lsp.places import TextPlaces
from pemlang.show.pasting import pasteable
from pemlang.source import Span

_SEVERITIES = {
    "error": types.DiagnosticSeverity.Error,
    "warning": types.DiagnosticSeverity.Warning,
}
CERTIFICATE = "PEM0103"
"""The code of what is no recipe and has the extension of one: an editor is told nothing of it."""


def for_editor(diagnostics: Iterable[Diagnostic], places: TextPlaces) -> list[types.Diagnostic]:
    """Diagnostics of one file."""
    return [_for_editor(x, places) for x in diagnostics if x.code != CERTIFICATE]


def _for_editor(diagnostic: Diagnostic, places: TextPlaces) -> types.Diagnostic:
    span = diagnostic.span
    severity = _SEVERITIES[diagnostic.severity]
    if diagnostic.code == NOT_ASKED:
        severity = types.DiagnosticSeverity.Information
    return types.Diagnostic(
        places.range(0, 0) if span is None else places.range_of(span),
        in_lines(diagnostic),
        severity,
        code=diagnostic.code,
        source="pem",
    )


def fixes(
    analysis: Analysis, places: TextPlaces, uri: str, start: int, end: int
) -> list[types.CodeAction]:
    """The help of what is wrong between two places, where it is a text to be pasted."""
    actions = []
    for diagnostic in analysis.diagnostics:
        span, text = diagnostic.span, pasteable(diagnostic.help or "")
        if span is None or not text or not _meets(analysis, span, start, end):
            continue
        edit = types.TextEdit(places.range_of(span), text)
        title = text if len(text) <= 60 else f"{text[:57]}…"
        actions.append(
            types.CodeAction(
                f"write {' '.join(title.split())}",
                types.CodeActionKind.QuickFix,
                [_for_editor(diagnostic, places)],
                is_preferred=True,
                edit=types.WorkspaceEdit({uri: [edit]}),
            )
        )
    return actions


def _meets(analysis: Analysis, span: Span, start: int, end: int) -> bool:
    return span.source is analysis.source and span.start <= end and span.end >= start
