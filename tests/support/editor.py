"""An editor as the language server sees one: a client that talks to `pem lsp` in a process."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.protocol import default_converter
from pytest_lsp import LanguageClient, client_capabilities

MARK = "|"
"""Where the cursor stands in a text."""

Answer = TypeVar("Answer")
SLOWEST = 300.0


class Editor:
    """An editor with a folder open.

    Args:
        folder: what is open in it; files are named from there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.versions: dict[str, int] = {}
        self.shown: dict[str, tuple[int | None, list[types.Diagnostic]]] = {}
        self.asked: list[asyncio.Future[Any]] = []
        self.loop = asyncio.new_event_loop()
        self.client = LanguageClient(converter_factory=default_converter)

        @self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)
        def published(params: types.PublishDiagnosticsParams) -> None:
            self.shown[params.uri] = params.version, list(params.diagnostics)

        @self.client.feature(types.WINDOW_SHOW_MESSAGE)
        def complained(params: types.ShowMessageParams) -> None:
            raise AssertionError(params.message)

        self.wait(self._started())

    def wait(self, answer: Awaitable[Answer]) -> Answer:
        return self.loop.run_until_complete(asyncio.wait_for(answer, SLOWEST))

    def close(self) -> None:
        self.wait(self.client.shutdown_session())
        self.wait(self.client.stop())
        self.loop.close()

    # --- texts ----------------------------------------------------------------------------

    def uri(self, name: str) -> str:
        return (self.folder / name).as_uri()

    def write(self, text: str, name: str = "recipe.pem") -> types.Position:
        """Have a text in a buffer; gives where the cursor is."""
        before, _, after = text.partition(MARK)
        text = before + after
        if name not in self.versions:
            self.versions[name] = 1
            item = types.TextDocumentItem(self.uri(name), "pem", 1, text)
            self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        else:
            self.versions[name] += 1
            number = types.VersionedTextDocumentIdentifier(self.versions[name], self.uri(name))
            change = types.TextDocumentContentChangeWholeDocument(text)
            self.client.text_document_did_change(
                types.DidChangeTextDocumentParams(number, [change])
            )
        line = before.split("\n")[-1]
        return types.Position(before.count("\n"), len(line.encode("utf-16-le")) // 2)

    def save(self, name: str = "recipe.pem") -> None:
        self.client.text_document_did_save(types.DidSaveTextDocumentParams(self.at(name)))

    def leave(self, name: str = "recipe.pem") -> None:
        """Close a buffer."""
        del self.versions[name]
        self.client.text_document_did_close(types.DidCloseTextDocumentParams(self.at(name)))

    def at(self, name: str) -> types.TextDocumentIdentifier:
        return types.TextDocumentIdentifier(self.uri(name))

    # --- what is wrong --------------------------------------------------------------------

    def diagnostics(self, name: str = "recipe.pem") -> list[types.Diagnostic]:
        """What is told of the text that is in a buffer now."""
        wanted = self.versions[name]
        self.until(lambda: self.shown.get(self.uri(name), (0, []))[0] == wanted)
        return self.shown[self.uri(name)][1]

    def codes(self, name: str = "recipe.pem") -> list[str]:
        return [str(x.code) for x in self.diagnostics(name)]

    def told(self, name: str = "recipe.pem") -> list[str]:
        """The codes that were told of a file last."""
        return [str(x.code) for x in self.shown.get(self.uri(name), (0, []))[1]]

    def until(self, reached: Callable[[], bool]) -> float:
        """Wait until something has come; gives the seconds it took."""

        async def waited() -> float:
            began = time.perf_counter()
            while not reached():
                await asyncio.sleep(0.001)
            return time.perf_counter() - began

        return self.wait(waited())

    # --- what is asked --------------------------------------------------------------------

    def ask(self, method: str, params: Any) -> Any:
        """What a request gives; raises what the server answers instead."""
        return self.wait(self.client.protocol.send_request_async(method, params))

    def ask_later(self, method: str, params: Any) -> None:
        """Ask, and go on: `answered` waits."""
        asked = self.client.protocol.send_request_async(method, params)
        self.asked.append(asyncio.ensure_future(asked, loop=self.loop))

    def answered(self) -> None:
        """Wait for the answers to all that was asked."""
        if self.asked:
            self.wait(asyncio.wait(self.asked))
        self.asked.clear()

    def place(
        self, kind: type, method: str, text: str, name: str = "recipe.pem", **more: Any
    ) -> Any:
        """What a request about the cursor gives, once a text is in the buffer."""
        position = self.write(text, name)
        return self.ask(method, kind(text_document=self.at(name), position=position, **more))

    def hover(self, text: str, name: str = "recipe.pem") -> str:
        """What is told of the place of the cursor; empty where nothing is."""
        told = self.place(types.HoverParams, types.TEXT_DOCUMENT_HOVER, text, name)
        return "" if told is None else str(told.contents.value)

    def completed(self, text: str, name: str = "recipe.pem") -> dict[str, types.CompletionItem]:
        """What may stand at the cursor."""
        items = self.place(types.CompletionParams, types.TEXT_DOCUMENT_COMPLETION, text, name)
        return {item.label: item for item in items}

    def signature(self, text: str) -> tuple[str, str | None]:
        """The signature of the call around the cursor, and the parameter that is written."""
        told = self.place(types.SignatureHelpParams, types.TEXT_DOCUMENT_SIGNATURE_HELP, text)
        if told is None:
            return "", None
        [only] = told.signatures
        active = told.active_parameter
        return only.label, None if active is None else only.parameters[active].label

    def places(
        self, method: str, text: str, name: str = "recipe.pem"
    ) -> list[tuple[str, str, int]]:
        """File, text and line of each place that is given of the cursor's name."""
        kind: type = types.DefinitionParams
        more: dict[str, Any] = {}
        if method == types.TEXT_DOCUMENT_REFERENCES:
            kind, more = types.ReferenceParams, {"context": types.ReferenceContext(True)}
        told = self.place(kind, method, text, name, **more) or []
        found = []
        for place in told if isinstance(told, list | tuple) else [told]:
            file = Path(place.uri.removeprefix("file://"))
            texts = {self.folder / name: text.replace(MARK, "")}
            lines = (texts.get(file) or file.read_text(encoding="utf-8")).split("\n")
            row = place.range.start.line
            word = lines[row][place.range.start.character : place.range.end.character]
            found.append((file.name, word, row + 1))
        return found

    # --- its own part ---------------------------------------------------------------------

    async def _started(self) -> None:
        command = [sys.executable, "-m", "pemlang", "lsp"]
        await self.client.start_io(*command, cwd=self.folder, env=dict(os.environ))
        started = await self.client.initialize_session(
            types.InitializeParams(
                capabilities=client_capabilities("visual-studio-code"),
                workspace_folders=[types.WorkspaceFolder(self.folder.as_uri(), "open")],
            )
        )
        self.capabilities = started.capabilities


def applied(text: str, edits: list[types.TextEdit]) -> str:
    """A text with edits made, of characters that are one unit each."""
    lines = text.split("\n")
    starts = [sum(len(line) + 1 for line in lines[:i]) for i in range(len(lines) + 1)]

    def offset(place: types.Position) -> int:
        return min(len(text), starts[place.line] + place.character)

    for edit in sorted(edits, key=lambda x: offset(x.range.start), reverse=True):
        start, end = offset(edit.range.start), offset(edit.range.end)
        text = text[:start] + edit.new_text + text[end:]
    return text
