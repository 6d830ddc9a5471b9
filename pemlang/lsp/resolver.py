"""What paths stand for while a recipe is written: what was read is kept until its files change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

from pemlang.check.published import PublishedRecipe
from pemlang.check.values import Sample
from pemlang.diagnostics import Fault
from pemlang.formats.adapter import Adapter
from pemlang.inputs.hub import SCHEME, parse_reference
from pemlang.inputs.samples import SampleResolver
from pemlang.lsp.open_files import OpenFiles, not_known_yet
from pemlang.source import Source
from pemlang.tensorfiles.digests import identity

MOST_ASKED_AT_ONCE = 4
"""Questions that the hub is asked side by side, however many references a recipe has."""


class EditorResolver(SampleResolver):
    """Adapters and models as DiskResolver reaches them, recipes as they stand in the editor.

    The hub is asked in the background, and only once a recipe is opened or saved: half a name is
    none of its business. But for `forget` and `may_ask`, it is for the thread that checks.

    Args:
        folder: where samples are drawn.
        files: the open recipes.
        arrived: called, from another thread, when the hub has answered.
    """

    def __init__(self, folder: Path, files: OpenFiles, arrived: Callable[[], None]) -> None:
        super().__init__(folder)
        self._files, self._arrived = files, arrived
        self._models: dict[str, tuple[str, Adapter]] = {}
        self._samples: dict[Sample, Sequence[tuple[str, Adapter]]] = {}
        self._answers: dict[tuple[str, bool], tuple[str, Adapter] | Fault] = {}
        self._asked: set[tuple[str, bool]] = set()
        self._questions: SimpleQueue[tuple[str, bool]] = SimpleQueue()
        self._askers: list[threading.Thread] = []
        self._to_forget = False
        self.may_ask = False

    def refresh(self) -> None:
        """Forget what has changed on the disk since it was read, and what `forget` names."""
        if self._to_forget:
            self._to_forget = False
            self._seen.clear()
            self._models.clear()
            for key, answer in tuple(self._answers.items()):
                if isinstance(answer, Fault):
                    del self._answers[key]
        seen = tuple(self._seen.items())  # to which what the hub sends is added meanwhile
        self._seen = {place: x for place, x in seen if _is_as_it_was(x)}
        self._models = {key: x for key, x in self._models.items() if _is_as_it_was(x[1])}

    def forget(self) -> None:
        """Have the next check know nothing but what the hub has sent."""
        self._to_forget = True

    def recipe(self, path: Path, name: str) -> Source:
        """See check.values.Inputs."""
        return self._files.recipe(path, name)

    def published(self, name: str, version: str | None = None) -> PublishedRecipe:
        """See check.values.Inputs; raises PEM0385 for one on the hub."""
        return self._files.published(name, version)

    def adapter(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver; raises PEM0385 for one on the hub that has not come yet."""
        if path.startswith(SCHEME):
            return self._from_hub(path, is_model=False)
        return super().adapter(path, directory)

    def model(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver; raises as adapter."""
        if path.startswith(SCHEME):
            return self._from_hub(path, is_model=True)
        key = str(directory / path)
        if key not in self._models:
            self._models[key] = super().model(path, directory)
        return self._models[key]

    def sample(self, sample: Sample) -> Sequence[tuple[str, Adapter]]:
        """See check.values.Inputs."""
        if sample not in self._samples:
            self._samples[sample] = super().sample(sample)
        return self._samples[sample]

    def _from_hub(self, path: str, is_model: bool) -> tuple[str, Adapter]:
        key = (path, is_model)
        answer = self._answers.get(key)
        if isinstance(answer, Fault):
            raise answer
        if answer is not None:
            return answer
        parse_reference(path)
        if self.may_ask and key not in self._asked:
            self._asked.add(key)
            self._questions.put(key)
            self._askers = [asker for asker in self._askers if asker.is_alive()]
            if len(self._askers) < MOST_ASKED_AT_ONCE:
                self._askers.append(threading.Thread(target=self._ask, daemon=True))
                self._askers[-1].start()
        asked = key in self._asked
        waiting = "wait until the hub has answered"
        raise not_known_yet(path, waiting if asked else "save the recipe, and the hub is asked")

    def _ask(self) -> None:
        """Put one question after another to the hub."""
        while True:
            path, is_model = self._questions.get()
            reach = super().model if is_model else super().adapter
            try:
                self._answers[path, is_model] = reach(path, Path())
            except Fault as fault:
                self._answers[path, is_model] = fault
            self._asked.discard((path, is_model))
            self._arrived()


def _is_as_it_was(adapter: Adapter) -> bool:
    """Whether the files that were read of an adapter are what they were, and no more are there."""
    now = {}
    for file in adapter.format.readable(adapter.place):
        try:
            now[file] = identity(file)
        except OSError:
            continue
    return now == dict(adapter.seen)
