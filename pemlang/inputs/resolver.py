"""What the paths of a recipe stand for, while one command runs.

A resolver gives what a check needs, headers alone; then, once the recipe is known to be right, the
adapters whole, and what their content is known by.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from pemlang.check.published import PublishedRecipe
from pemlang.check.values import Sample, Spelling
from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_dir, is_file
from pemlang.formats import read_adapter
from pemlang.formats.adapter import Adapter
from pemlang.formats.identity import adapter_digest
from pemlang.formats.reading import read_as
from pemlang.formats.record import formats_of
from pemlang.formats.transformers import TRANSFORMERS, is_model
from pemlang.inputs.hub import (
    HUB_NAME,
    SCHEME,
    hold_no_address,
    is_hub_adapter,
    parse_reference,
    read_hub_adapter,
    read_hub_model,
    read_hub_recipe,
)
from pemlang.source import Source
from pemlang.syntax.files import read_source
from pemlang.tensorfiles.container import SUFFIXES


def published_now(name: str, version: str | None = None) -> PublishedRecipe:
    """A published recipe as it is now, installed or on the hub; see check.values.Inputs."""
    if "://" in name:
        return read_hub_recipe(name, version)
    from pemlang.inputs.libraries import installed

    return installed(name)


class Resolver(ABC):
    """Reaches adapters and models; see check.values.Inputs."""

    def recipe(self, path: Path, name: str) -> Source:
        """The text of a file that is imported; raises Fault as read_source."""
        return read_source(path, name)

    @abstractmethod
    def adapter(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """An adapter, known by its headers, and its place; raises Fault."""

    def model(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """A model, known by its headers, and its place; raises Fault."""
        hold_no_address(path)
        remote = path.startswith(SCHEME)
        place = local("." if remote else path, directory)
        if not remote and not is_model(place):
            _hold_model(path, place)
        model = read_hub_model(path, whole=False) if remote else read_as(TRANSFORMERS, place)
        return str(model.directory), model

    def published(self, name: str, version: str | None = None) -> PublishedRecipe:
        """See check.values.Inputs."""
        return published_now(name, version)

    def sample(self, sample: Sample) -> Sequence[tuple[str, Adapter]]:
        """See check.values.Inputs: where there are no tests, nothing is drawn."""
        raise AssertionError("samples are drawn in tests alone")

    def whole(self, adapter: Adapter, spelling: Spelling) -> Adapter:
        """An adapter with its tensors at hand, fetched if need be; raises Fault."""
        return adapter

    def large_files(self, adapter: Adapter) -> list[Path]:
        """The files whose digests `content` will want, and that are worth reading side by side."""
        return []

    @abstractmethod
    def content(self, adapter: Adapter, spelling: Spelling) -> str:
        """The digest of an adapter's content; raises Fault."""


class DiskResolver(Resolver):
    """Adapters in directories and files, and on the hub."""

    def __init__(self) -> None:
        self._seen: dict[str, Adapter] = {}
        self._whole: dict[str, Adapter] = {}

    def adapter(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver."""
        hold_no_address(path)
        remote = path.startswith(SCHEME)
        place = path if remote else str(local(path, directory))
        if place not in self._seen:
            there = is_dir(Path(place)) or is_file(Path(place))
            on_the_hub = HUB_NAME.fullmatch(path) and not path.endswith(SUFFIXES)
            if not remote and on_the_hub and not there:
                raise Fault("PEM0410", f"there is no directory {visible(place)}", _on_the_hub(path))
            self._seen[place] = (
                read_hub_adapter(path, whole=False) if remote else read_adapter(Path(place), path)
            )
        adapter = self._seen[place]
        return str(adapter.place), adapter

    def whole(self, adapter: Adapter, spelling: Spelling) -> Adapter:
        """See Resolver."""
        if not spelling.path.startswith(SCHEME):
            return adapter
        # A branch may have moved since its header was read.
        reference = parse_reference(spelling.path)
        place = reference.at(reference.commit(adapter.directory))
        if place not in self._whole:
            read = read_hub_model if adapter.format.holds == "model" else read_hub_adapter
            self._whole[place] = read(place, whole=True)
        return self._whole[place]

    def large_files(self, adapter: Adapter) -> list[Path]:
        """See Resolver."""
        return [file for file in adapter.tensor_files if is_file(file)]

    def content(self, adapter: Adapter, spelling: Spelling) -> str:
        """See Resolver."""
        return adapter_digest(adapter)


def read_stored(place: str, tensors: bool = True) -> Adapter:
    """The adapter or the model in a directory or on the hub.

    Args:
        place: where it is.
        tensors: whether those of one on the hub are to be fetched, or headers will do.

    Raises:
        Fault: as read_adapter, Format.read and read_hub_adapter.
    """
    hold_no_address(place)
    if place.startswith(SCHEME):
        return (read_hub_adapter if is_hub_adapter(place) else read_hub_model)(place, tensors)
    is_adapter = any(record.detect(Path(place)).fits for record in formats_of("adapter"))
    if is_adapter or not is_model(Path(place)):
        return read_adapter(Path(place))
    return read_as(TRANSFORMERS, Path(place))


def _hold_model(path: str, place: Path) -> None:
    """Raise PEM0430 with what was meant, where a path is a file of a model, or a name on the hub;
    of others the format says what they lack."""
    if is_file(place) and is_model(place.parent):
        why = f"{visible(place)} is a file of a model: its folder is what to give"
        raise Fault("PEM0430", why, f'"{visible(Path(path).parent)}"')
    if HUB_NAME.fullmatch(path) and not is_dir(place) and not is_file(place):
        help = f'give the directory that save_pretrained wrote; on the hub: "{SCHEME}{path}"'
        raise Fault("PEM0430", f"there is no directory {visible(place)}", help)


def _on_the_hub(path: str) -> str:
    return f'give the directory that PEFT\'s save_pretrained wrote; on the hub: "{SCHEME}{path}"'


def local(path: str, directory: Path) -> Path:
    """A path of a recipe, relative to the file that names it."""
    try:
        if "\0" in path or not path:
            raise ValueError
        place = (directory / path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise Fault("PEM0410", f"{visible(path)!r} is not a path", "give a directory") from None
    if path.startswith("~") and not is_dir(place):
        meant = os.path.expanduser(path)  # noqa: PTH111
        raise Fault(
            "PEM0410",
            f"there is no directory {visible(place)}: `~` stands for no home in a recipe",
            f'write the path out: "{visible(meant)}"' if meant != path else "write the path out",
        )
    return place
