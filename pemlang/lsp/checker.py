"""Checks of open recipes, in a thread of their own: one that a newer text has made useless ends
early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pemlang.lsp.analysis import Analysis, Superseded, analysed
from pemlang.lsp.open_files import OpenFiles
from pemlang.lsp.resolver import EditorResolver


class RecipeChecker:
    """Keeps what is known of each open recipe, and finds it out anew when a text has changed.

    Args:
        files: the open recipes.
        folder: where samples of tests are drawn.
        arrived: called, from another thread, when the hub has answered.
    """

    def __init__(self, files: OpenFiles, folder: Path, arrived: Callable[[], None]) -> None:
        self._files = files
        self._resolver = EditorResolver(folder, files, arrived)
        self._thread = ThreadPoolExecutor(1, "check")
        self._kept: dict[Path, Analysis] = {}
        self._fresh: set[Path] = set()
        self._running: dict[Path, tuple[asyncio.Future[Analysis], threading.Event]] = {}

    def changed(self, path: Path) -> None:
        """A text is another: what is known of it, and of all that imports it, is out of date."""
        for other in {path, *self._kept, *self._running}:
            kept = self._kept.get(other)
            if other in (path, *self._running) or kept is None or path in kept.files:
                self._outdate(other)

    def changed_on_disk(self, ask: bool) -> None:
        """Files may be others than they were; `ask` says that the hub may be asked again."""
        if ask:
            self._resolver.may_ask = True
            self._resolver.forget()
        for path in {*self._kept, *self._running}:
            self._outdate(path)

    def may_not_ask(self) -> None:
        """What is written from now on is not finished: the hub is not asked about it."""
        self._resolver.may_ask = False

    def closed(self, path: Path) -> None:
        """Forget a recipe."""
        self.changed(path)
        self._kept.pop(path, None)

    def last(self, path: Path) -> Analysis | None:
        """What was known of a recipe last, of a text that may have changed since."""
        return self._kept.get(path)

    async def analysis(self, path: Path) -> Analysis | None:
        """What is known of an open recipe as it stands now; None once it is closed."""
        while path in self._files:
            if path in self._fresh:
                return self._kept[path]
            if path not in self._running:
                self._start(path)
            future, _ = self._running[path]
            with suppress(Superseded):
                await asyncio.shield(future)
            await asyncio.sleep(0)  # it may have ended before anyone took note of that
        return None

    def stop(self) -> None:
        """End what is running."""
        for _, replaced in self._running.values():
            replaced.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _outdate(self, path: Path) -> None:
        self._fresh.discard(path)
        if path in self._running:
            self._running[path][1].set()

    def _start(self, path: Path) -> None:
        replaced = threading.Event()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, analysed, path, self._resolver, replaced)
        self._running[path] = future, replaced

        def ended(done: asyncio.Future[Analysis]) -> None:
            del self._running[path]
            if done.cancelled() or done.exception() is not None:
                return
            self._kept[path] = done.result()
            if not replaced.is_set():
                self._fresh.add(path)

        future.add_done_callback(ended)
