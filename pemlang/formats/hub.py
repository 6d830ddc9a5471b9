"""Adapters on the Hugging Face hub, `hf://org/name@revision`, through huggingface_hub's cache.

A check fetches the config and the header of the tensors only, when the adapter is not cached.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import Adapter, assemble, read_adapter
from pemlang.formats.config import read_config
from pemlang.formats.safetensors import Entry, Header

SCHEME = "hf://"
FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_REFERENCE = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubReference:
    """A repository and a revision: a commit, a tag or a branch; None is the main branch."""

    repo: str
    revision: str | None


def parse_reference(text: str) -> HubReference:
    """The reference in `hf://org/name@revision`; raises PEM0440 when it is none."""
    found = _REFERENCE.fullmatch(text)
    if found is None or ".." in text:
        raise Fault(
            "PEM0440",
            f"{visible(text, 80)!r} is not a hub reference",
            '"hf://org/name@revision"',
        )
    return HubReference(found["repo"], found["revision"])


def read_hub_adapter(text: str, whole: bool) -> Adapter:
    """An adapter on the hub.

    Args:
        text: `hf://org/name@revision`.
        whole: fetch the tensors too, for a build; else the config and the header are enough.

    Raises:
        Fault: PEM0440 not a reference, PEM0441 not found, refused or out of reach,
            PEM0442 huggingface_hub is not installed; and what read_adapter raises.
    """
    reference = parse_reference(text)
    hub = _library()
    with _telling(text):
        cached = _cached(hub, reference)
        if cached is not None:
            return read_adapter(cached)
        names = _names(hub, reference)
        if whole or FILES[1] not in names:
            wanted = [FILES[0], FILES[1] if FILES[1] in names else FILES[2]]
            return read_adapter(_fetch(hub, reference, wanted))
        directory = _fetch(hub, reference, [FILES[0]])
        metadata = hub.HfApi().parse_safetensors_file_metadata(
            reference.repo, FILES[1], revision=reference.revision
        )
        entries = {
            name: Entry(info.dtype, tuple(info.shape), *info.data_offsets)
            for name, info in metadata.tensors.items()
        }
        config = read_config(directory)
        return assemble(directory, directory / FILES[1], config, Header(entries, 0))


def _library() -> Any:
    # The library would draw bars into a pipe and warn about a missing token.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        import huggingface_hub
    except ImportError:
        raise Fault(
            "PEM0442", "hf:// needs the package huggingface_hub", 'pip install "pemlang[hub]"'
        ) from None
    return huggingface_hub


@contextmanager
def _telling(text: str) -> Iterator[None]:
    """Whatever goes wrong on the way to the hub, in one coded sentence."""
    try:
        yield
    except Fault:
        raise
    except Exception as error:  # the library raises its HTTP client's errors as they come
        why = next((line for line in str(error).splitlines() if line.strip()), "no answer")
        raise Fault(
            "PEM0441",
            f"cannot fetch {visible(text, 80)}: {type(error).__name__}: {visible(why)}",
            "check the name, the revision, your access and the network",
        ) from None


def _names(hub: Any, reference: HubReference) -> set[str]:
    info = hub.HfApi().model_info(reference.repo, revision=reference.revision)
    return {sibling.rfilename for sibling in info.siblings or ()}


def _cached(hub: Any, reference: HubReference) -> Path | None:
    """The snapshot in the cache, when it is pinned to a commit and whole."""
    if reference.revision is None or not re.fullmatch(r"[0-9a-f]{40}", reference.revision):
        return None
    find: Callable[..., Any] = hub.try_to_load_from_cache
    paths = [find(reference.repo, name, revision=reference.revision) for name in FILES]
    found = [Path(path) for path in paths if isinstance(path, str)]
    return found[0].parent if len(found) > 1 and found[0].name == FILES[0] else None


def _fetch(hub: Any, reference: HubReference, names: list[str]) -> Path:
    for name in names:
        path = hub.hf_hub_download(reference.repo, name, revision=reference.revision)
    return Path(path).parent
