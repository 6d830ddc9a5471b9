"""The language server: what an editor asks, and where it is answered."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer
from pygls.protocol import json_rpc

from pemlang.diagnostics import Diagnostic, Fault, PemError, Report, render
from pemlang.lsp.analysis import Analysis
from pemlang.lsp.checker import RecipeChecker
from pemlang.lsp.completion import completions
from pemlang.lsp.cursor import CursorPlace, cursor_at
from pemlang.lsp.hints import code_lenses, inlay_hints
from pemlang.lsp.hover import adapter_at, hover_at
from pemlang.lsp.messages import fixes, for_editor
from pemlang.lsp.names import BoundName, Occurrence
from pemlang.lsp.norms import NormMeter
from pemlang.lsp.open_files import OpenFiles, path_of
from pemlang.lsp.places import TextPlaces
from pemlang.lsp.renaming import UsesOfName, hold_free, hold_renamable, uses_of
from pemlang.lsp.signatures import signature_help
from pemlang.lsp.tokens import LEGEND, coloured, encoded
from pemlang.source import Source, Span
from pemlang.syntax.format import formatted
from pemlang.version import __version__

PAUSE = 0.01
"""Seconds without a key after which a recipe is checked."""

PATIENCE = 0.3
"""Seconds that completion waits for a check; then it goes by the one before."""

_log = logging.getLogger(__name__)


class RecipeServer(LanguageServer):
    """Recipes in an editor.

    Args:
        folder: where samples of tests are drawn.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__("pem", __version__, types.TextDocumentSyncKind.Full)
        self.files = OpenFiles()
        self.checker = RecipeChecker(self.files, folder, self._hub_answered)
        self.norms = NormMeter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._told: dict[Path, dict[Path, list[Diagnostic]]] = {}
        self._shown: dict[Path, types.PublishDiagnosticsParams] = {}
        self._telling: set[asyncio.Task[None]] = set()

    # --- what an editor does --------------------------------------------------------------

    def take(self, uri: str, text: str, version: int) -> None:
        """A text is another."""
        self.norms.put_off()
        path = self.files.put(uri, text, version)
        self.checker.changed(path)
        self.tell_soon(path)

    def reread(self, ask: bool) -> None:
        """Files on the disk may be others; `ask` says that the hub may be asked too."""
        self.checker.changed_on_disk(ask)
        self.tell_soon(None)

    def close(self, uri: str) -> None:
        """A recipe is closed: its file counts again, and nothing is told of it."""
        path = self.files.close(uri)
        self.checker.closed(path)
        for other in (path, *self._told.pop(path, {})):
            self._show(other)
        self.tell_soon(None)

    # --- what is wrong --------------------------------------------------------------------

    def tell_soon(self, first: Path | None) -> None:
        """Tell what is wrong once no key has been pressed for a moment; of one file first."""
        self._loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(PAUSE, self._start_telling, first)

    def _start_telling(self, first: Path | None) -> None:
        task = asyncio.ensure_future(self._tell(first))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, first: Path | None) -> None:
        for path in sorted(self.files, key=lambda path: path != first):
            try:
                analysis = await self.checker.analysis(path)
            except Exception:  # a mistake of ours costs one answer, and not the server
                _log.exception("a check of %s failed", path.name)
                continue
            if analysis is None:
                continue
            before = self._told.get(path, {})
            self._told[path] = analysis.told(frozenset(self.files))
            self._show(path, self.files.version(path))
            for other in {**before, **self._told[path]}:
                if other not in self.files:
                    self._show(other)

    def _show(self, path: Path, version: int | None = None) -> None:
        """Show what is wrong with a file, at a version of its text where it is open."""
        report, source = Report(), None
        for told in self._told.values():
            for diagnostic in told.get(path, ()):
                report.add(diagnostic)
                source = diagnostic.span.source if diagnostic.span else source
        text = self.files.text(path) if path in self.files else source.text if source else ""
        converted = for_editor(report, self.places(text))
        shown = types.PublishDiagnosticsParams(self.files.uri(path), converted, version)
        if self._shown.get(path) != shown:
            self._shown[path] = shown
            self.text_document_publish_diagnostics(shown)

    def _hub_answered(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.reread, False)

    # --- what is asked --------------------------------------------------------------------

    def places(self, text: str) -> TextPlaces:
        """The places of a text, as this editor counts them."""
        encoding = self.workspace.position_encoding or types.PositionEncodingKind.Utf16
        return TextPlaces(text, encoding)

    async def known(self, uri: str) -> tuple[Analysis, TextPlaces] | None:
        """What is known of a recipe as it stands now; None of one that is none."""
        analysis = await self.checker.analysis(path_of(uri))
        if analysis is None or analysis.source is None:
            return None
        return analysis, self.places(analysis.source.text)

    async def roughly_known(self, uri: str) -> Analysis | None:
        """What is known of a recipe, by an earlier text where a check takes long."""
        path = path_of(uri)
        asked = asyncio.ensure_future(self.checker.analysis(path))
        done, _ = await asyncio.wait([asked], timeout=PATIENCE)
        last = self.checker.last(path)
        return await asked if done or last is None else last

    def cursor(self, uri: str, position: types.Position) -> tuple[CursorPlace, TextPlaces]:
        """What stands before a place of a buffer."""
        path = path_of(uri)
        text = self.files.text(path) if path in self.files else ""
        places = self.places(text)
        return cursor_at(text, places.offset(position)), places

    async def named(self, uri: str, position: types.Position) -> tuple[Analysis, Occurrence] | None:
        """The name at a place."""
        known = await self.known(uri)
        if known is None:
            return None
        analysis, places = known
        occurrence = analysis.names[analysis.path].at(places.offset(position))
        return None if occurrence is None else (analysis, occurrence)

    async def norm_at(self, analysis: Analysis, offset: int) -> float | None:
        """The norm of the adapter that is named at a place, where it is known soon."""
        adapter = adapter_at(analysis, offset)
        if adapter is None or analysis.checked is None:
            return None
        return await self.norms.norm(analysis.checked.graph, adapter)

    async def uses(self, bound: BoundName) -> UsesOfName:
        """Where a name stands, in all open recipes and folders."""
        analyses = [await self.checker.analysis(path) for path in self.files]
        right = [analysis for analysis in analyses if analysis is not None]
        return await asyncio.to_thread(uses_of, bound, right, self.files, self.folders)

    @property
    def folders(self) -> list[Path]:
        """The folders that are open in the editor."""
        return [path_of(uri) for uri in self.workspace.folders]

    def locations(self, spans: Iterable[tuple[Path, Span]]) -> Iterator[types.Location]:
        """Places of files."""
        places: dict[Source, TextPlaces] = {}
        for path, span in spans:
            if span.source not in places:
                places[span.source] = self.places(span.source.text)
            yield types.Location(self.files.uri(path), places[span.source].range_of(span))


def serve(folder: Path) -> None:
    """Answer an editor on standard input and output until it ends.

    Args:
        folder: where samples of tests are drawn; removed by the caller.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    logging.getLogger(json_rpc.__name__).addFilter(_is_mistake)
    server = server_in(folder)
    listen = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    talk = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what else is printed is no answer
    try:
        server.start_io(listen, talk)
    finally:
        server.checker.stop()
        server.norms.stop()


def server_in(folder: Path) -> RecipeServer:
    """A server with all that it can do."""
    server = RecipeServer(folder)
    _follow_texts(server)
    _tell_of_places(server)
    _complete(server)
    _change_texts(server)
    _find_names(server)
    return server


def _follow_texts(server: RecipeServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        server.checker.changed_on_disk(True)
        server.take(
            params.text_document.uri, params.text_document.text, params.text_document.version
        )

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        server.checker.may_not_ask()
        for change in params.content_changes:
            server.take(params.text_document.uri, change.text, params.text_document.version)

    @server.feature(types.TEXT_DOCUMENT_DID_SAVE)
    def saved(params: types.DidSaveTextDocumentParams) -> None:
        server.reread(True)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        server.close(params.text_document.uri)

    @server.feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)
    def changed_on_disk(params: types.DidChangeWatchedFilesParams) -> None:
        server.reread(False)


def _tell_of_places(server: RecipeServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_HOVER)
    async def hover(params: types.HoverParams) -> types.Hover | None:
        known = await server.known(params.text_document.uri)
        if known is None:
            return None
        analysis, places = known
        offset = places.offset(params.position)
        told = hover_at(analysis, offset, await server.norm_at(analysis, offset))
        if told is None:
            return None
        text = types.MarkupContent(types.MarkupKind.Markdown, told[0])
        return types.Hover(text, places.range_of(told[1]))

    @server.feature(types.TEXT_DOCUMENT_INLAY_HINT)
    async def hints(params: types.InlayHintParams) -> list[types.InlayHint]:
        known = await server.known(params.text_document.uri)
        if known is None:
            return []
        analysis, places = known
        start, end = places.offset(params.range.start), places.offset(params.range.end)
        return inlay_hints(analysis, places, start, end)

    @server.feature(types.TEXT_DOCUMENT_CODE_LENS)
    async def lenses(params: types.CodeLensParams) -> list[types.CodeLens]:
        known = await server.known(params.text_document.uri)
        return [] if known is None else code_lenses(*known)

    @server.feature(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, LEGEND)
    async def tokens(params: types.SemanticTokensParams) -> types.SemanticTokens:
        known = await server.known(params.text_document.uri)
        data = [] if known is None else encoded(coloured(known[0]), known[1])
        return types.SemanticTokens(data)


def _complete(server: RecipeServer) -> None:
    @server.feature(
        types.TEXT_DOCUMENT_COMPLETION,
        types.CompletionOptions(trigger_characters=list('".([{=/:')),
    )
    async def complete(params: types.CompletionParams) -> list[types.CompletionItem]:
        uri = params.text_document.uri
        cursor, places = server.cursor(uri, params.position)  # of the text that was asked about
        analysis = await server.roughly_known(uri)
        if analysis is None:
            return []
        return completions(analysis, cursor, places, path_of(uri).parent, server.files)

    @server.feature(
        types.TEXT_DOCUMENT_SIGNATURE_HELP,
        types.SignatureHelpOptions(trigger_characters=list("(,=")),
    )
    async def signature(params: types.SignatureHelpParams) -> types.SignatureHelp | None:
        cursor, _ = server.cursor(params.text_document.uri, params.position)
        analysis = await server.roughly_known(params.text_document.uri)
        return None if analysis is None else signature_help(analysis, cursor)


def _change_texts(server: RecipeServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_FORMATTING)
    async def lay_out(params: types.DocumentFormattingParams) -> list[types.TextEdit] | None:
        known = await server.known(params.text_document.uri)
        if known is None or known[0].source is None:
            return None
        try:
            text = await asyncio.to_thread(formatted, known[0].source)
        except PemError:  # what is wrong with it is shown already
            return None
        changes = text != known[0].source.text
        return [types.TextEdit(known[1].whole, text)] if changes else []

    @server.feature(
        types.TEXT_DOCUMENT_CODE_ACTION,
        types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix]),
    )
    async def mend(params: types.CodeActionParams) -> list[types.CodeAction]:
        uri = params.text_document.uri
        known = await server.known(uri)
        if known is None:
            return []
        analysis, places = known
        start, end = places.offset(params.range.start), places.offset(params.range.end)
        return fixes(analysis, places, uri, start, end)

    @server.feature(
        types.TEXT_DOCUMENT_RENAME,
        types.RenameOptions(prepare_provider=True),
    )
    async def rename(params: types.RenameParams) -> types.WorkspaceEdit | None:
        named = await server.named(params.text_document.uri, params.position)
        if named is None:
            return None
        bound = named[1].bound
        try:
            hold_renamable(bound, server.folders, server.files)
            uses = await server.uses(bound)
            await asyncio.to_thread(hold_free, params.new_name, uses)
        except Fault as fault:
            raise _refused(fault) from None
        edits: dict[str, list[types.TextEdit]] = {}
        for place in server.locations(uses):
            edits.setdefault(place.uri, []).append(types.TextEdit(place.range, params.new_name))
        return types.WorkspaceEdit(edits)

    @server.feature(types.TEXT_DOCUMENT_PREPARE_RENAME)
    async def may_rename(params: types.PrepareRenameParams) -> types.Range | None:
        named = await server.named(params.text_document.uri, params.position)
        if named is None:
            return None
        try:
            hold_renamable(named[1].bound, server.folders, server.files)
        except Fault as fault:
            raise _refused(fault) from None
        span = named[1].span
        return server.places(span.source.text).range_of(span)


def _find_names(server: RecipeServer) -> None:
    @server.feature(types.TEXT_DOCUMENT_DEFINITION)
    async def definition(params: types.DefinitionParams) -> types.Location | None:
        named = await server.named(params.text_document.uri, params.position)
        if named is None:
            return None
        bound = named[1].bound
        return next(server.locations([(bound.path, bound.span)]))

    @server.feature(types.TEXT_DOCUMENT_REFERENCES)
    async def references(params: types.ReferenceParams) -> list[types.Location]:
        named = await server.named(params.text_document.uri, params.position)
        if named is None:
            return []
        bound = named[1].bound
        wanted = params.context.include_declaration
        spans = [x for x in await server.uses(bound) if wanted or (x[0], x[1].start) != bound.place]
        return list(server.locations(spans))


def _is_mistake(record: logging.LogRecord) -> bool:
    """Whether what is logged is a mistake of ours, and no refusal, which the editor shows."""
    return not (record.exc_info and isinstance(record.exc_info[1], JsonRpcInvalidParams))


def _refused(fault: Fault) -> JsonRpcInvalidParams:
    """A refusal, in the words that an editor shows."""
    return JsonRpcInvalidParams(render(fault.at(None)))
