"""Adapters and models on the Hugging Face hub, `hf://org/name@revision`, through the cache of
huggingface_hub.

A check fetches what describes one and the headers of its tensors only, when it is not cached.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import Adapter
from pemlang.formats.record import Format, formats_of, read_as
from pemlang.formats.transformers import (
    BESIDE,
    CONFIG,
    INDEX,
    SINGLE,
    TRANSFORMERS,
    shards_of,
)
from pemlang.tensorfiles.safetensors import Header, TensorEntry, read_header

SCHEME = "hf://"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_REFERENCE = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubReference:
    """A repository and a revision: a commit, a tag or a branch; None is the main branch."""

    repo: str
    revision: str | None


def parse_reference(text: str) -> HubReference:
    """The reference in `hf://org/name@revision`; raises PEM0440 when it is none."""
    match = _REFERENCE.fullmatch(text)
    if match is None or ".." in text:
        raise Fault(
            "PEM0440",
            f"{visible(text, 80)!r} is not a hub reference",
            'write it as "hf://org/name@revision"',
        )
    return HubReference(match["repo"], match["revision"])


def read_hub_adapter(text: str, whole: bool) -> Adapter:
    """An adapter on the hub.

    Args:
        text: `hf://org/name@revision`.
        whole: fetch the tensors too, for a build; else the header is enough.

    Raises:
        Fault: PEM0440 not a reference, PEM0441 not found, refused or out of reach,
            PEM0442 huggingface_hub is not installed; and what read_adapter raises.
    """
    reference = parse_reference(text)
    hub = _library()
    with _telling(text):
        record, directory = _described(hub, reference)
        # A branch may move between two requests: the rest comes from the commit of the first.
        commit = directory.name
        if (directory / record.weights).exists():
            return read_as(record, directory)
        pickled = record.pickled
        try:
            if not whole:
                header = _header(hub, reference.repo, record.weights, commit)
                return record.of_header(directory, header)
            hub.hf_hub_download(reference.repo, record.weights, revision=commit)
        except hub.errors.EntryNotFoundError:
            if not pickled:
                raise
            hub.hf_hub_download(reference.repo, pickled, revision=commit)
        except (Fault, hub.errors.HfHubHTTPError):
            raise
        except Exception:  # no answer: a pickle in the cache will do
            if not pickled or not (directory / pickled).exists():
                raise
        return read_as(record, directory)


def is_hub_adapter(text: str) -> bool:
    """Whether a repository on the hub holds an adapter; raises as read_hub_adapter."""
    hub = _library()
    with _telling(text):
        try:
            _described(hub, parse_reference(text))
        except hub.errors.EntryNotFoundError:
            return False
    return True


def read_hub_model(text: str, whole: bool) -> Adapter:
    """A model on the hub.

    Args, Raises: as read_hub_adapter.
    """
    reference = parse_reference(text)
    hub = _library()
    with _telling(text):
        directory = _snapshot(hub, reference, CONFIG)
        fetch = partial(hub.hf_hub_download, reference.repo, revision=directory.name)
        sharded = _fetched_if_there(hub, reference.repo, directory, INDEX)
        names = shards_of(directory / INDEX) if sharded else [SINGLE]
        if not whole:
            headers = {
                directory / name: read_header(directory / name)
                if (directory / name).exists()
                else _header(hub, reference.repo, name, directory.name)
                for name in names
            }
            return TRANSFORMERS.of_headers(directory, headers)
        for name in names:
            fetch(name)
        for name in BESIDE:
            _fetched_if_there(hub, reference.repo, directory, name)
        return read_as(TRANSFORMERS, directory)


def _fetched_if_there(hub: Any, repo: str, directory: Path, name: str) -> bool:
    """Fetch a file that a repository may have, at the commit of a snapshot in the cache; whether it
    has it. That no answer came is no answer: only what the hub says of it counts, or has said."""
    known = hub.try_to_load_from_cache(repo, name, revision=directory.name)
    if known is not None:
        return isinstance(known, str)
    try:
        hub.hf_hub_download(repo, name, revision=directory.name)
    except hub.errors.LocalEntryNotFoundError:
        raise
    except hub.errors.EntryNotFoundError:
        return False
    return True


def _described(hub: Any, reference: HubReference) -> tuple[Format, Path]:
    """The first format whose description the repository has, and the snapshot in the cache that
    holds it."""
    missing = []
    for record in formats_of("adapter"):
        try:
            return record, _snapshot(hub, reference, record.described_in)
        except hub.errors.EntryNotFoundError as error:
            missing.append(error)
    raise missing[0]


def _snapshot(hub: Any, reference: HubReference, name: str) -> Path:
    """The snapshot in the cache that holds a file, fetched if need be.

    The library tries a hub that does not answer for most of a minute: ask once before, and go by
    the cache when there is no answer.
    """
    ask = {"repo_id": reference.repo, "filename": name, "revision": reference.revision}
    cached = hub.try_to_load_from_cache(**ask)
    if not (isinstance(cached, str) and _COMMIT.fullmatch(reference.revision or "")):
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(**ask))
            cached = hub.hf_hub_download(**ask)
        except hub.errors.HfHubHTTPError:
            raise
        except Exception:  # no answer, in the words of the library's HTTP client
            if not isinstance(cached, str):
                raise
    return Path(cached).parent


def _header(hub: Any, repo: str, name: str, commit: str) -> Header:
    """The header of a file of tensors, fetched without them."""
    header = hub.HfApi().parse_safetensors_file_metadata(repo, name, revision=commit)
    entries = {
        name: TensorEntry(info.dtype, tuple(info.shape), *info.data_offsets)
        for name, info in header.tensors.items()
    }
    return Header(entries, 0)


def _library() -> Any:
    # The library would draw bars into a pipe and warn about a missing token.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        import huggingface_hub
        import huggingface_hub.errors
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
