"""Adapters on the Hugging Face hub, `hf://org/name@revision`, through huggingface_hub's cache.

A check fetches the config and the header of the tensors only, when the adapter is not cached.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemlang.diagnostics import Fault, visible
from pemlang.formats.adapter import Adapter
from pemlang.formats.peft import PEFT, assemble
from pemlang.formats.peft_config import read_config
from pemlang.formats.peft_names import CONFIG, PICKLED, WEIGHTS
from pemlang.tensorfiles.safetensors import Header, TensorEntry

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
            '"hf://org/name@revision"',
        )
    return HubReference(match["repo"], match["revision"])


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
        directory = _config(hub, reference)
        # A branch may move between two requests: the rest comes from the commit of the config.
        commit = directory.name
        if (directory / WEIGHTS).exists():
            return PEFT.read(directory)
        try:
            if not whole:
                return _from_header(hub, reference, directory, commit)
            hub.hf_hub_download(reference.repo, WEIGHTS, revision=commit)
        except hub.errors.EntryNotFoundError:
            hub.hf_hub_download(reference.repo, PICKLED, revision=commit)
        except (Fault, hub.errors.HfHubHTTPError):
            raise
        except Exception:  # no answer: a pickle in the cache will do
            if not (directory / PICKLED).exists():
                raise
        return PEFT.read(directory)


def _config(hub: Any, reference: HubReference) -> Path:
    """The snapshot in the cache that holds the config, fetched if need be.

    The library tries a hub that does not answer for most of a minute: ask once before, and go by
    the cache when there is no answer.
    """
    ask = {"repo_id": reference.repo, "filename": CONFIG, "revision": reference.revision}
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


def _from_header(hub: Any, reference: HubReference, directory: Path, commit: str) -> Adapter:
    """The adapter from its config and the header of its tensors, fetched without them."""
    header = hub.HfApi().parse_safetensors_file_metadata(reference.repo, WEIGHTS, revision=commit)
    entries = {
        name: TensorEntry(info.dtype, tuple(info.shape), *info.data_offsets)
        for name, info in header.tensors.items()
    }
    return assemble(directory, directory / WEIGHTS, read_config(directory), Header(entries, 0))


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
