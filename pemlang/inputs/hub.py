"""Adapters and models on the Hugging Face hub, `hf://org/name/folder@revision`, and LoRAs in one
file, `hf://org/name/file.safetensors@revision` or `.gguf`, through the cache of huggingface_hub.

A check fetches what describes one and the headers of its tensors only, when it is not cached; of
one in one file all of it, for its α lie between its tensors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from types import ModuleType
from urllib.parse import unquote

from pemlang.check.published import HUB, PublishedRecipe
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.adapter import Adapter
from pemlang.formats.gguf import METHOD
from pemlang.formats.reading import MAX_LOOKED_AT, in_order, read_as
from pemlang.formats.record import FORMATS, Format, formats_of
from pemlang.formats.transformers import (
    BESIDE,
    CONFIG,
    SINGLE,
    TRANSFORMERS,
    WEIGHTS,
    shards_of,
)
from pemlang.formats.vocabulary import TOKENS
from pemlang.syntax.files import MAX_BYTES, read_bytes, too_large
from pemlang.syntax.files import SUFFIX as RECIPE
from pemlang.tensorfiles.container import SUFFIXES
from pemlang.tensorfiles.gguf import SUFFIX as GGUF
from pemlang.tensorfiles.safetensors import Header, TensorEntry, read_header

SCHEME = HUB
HUB_NAME = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+")
_REFERENCE = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?P<folder>(?:/[\w.-]+)*)(?:@(?P<revision>[\w./-]+))?"
)
_RECIPE = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?/(?P<file>(?:[\w.-]+/)*[\w.-]+)\.pem"
)
_WEB = re.compile(r"https?://(?P<host>[^/]*)/?(?P<rest>.*)|(?:huggingface\.co|hf\.co)/(?P<bare>.+)")
_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_SHOWS_FILES = ("tree", "blob", "resolve", "raw")
_STARTS_WITHIN = 65_536
"""Bytes of a GGUF file within which it says of what kind it is."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.")


@dataclass(frozen=True)
class HubReference:
    """A folder of a repository, empty for its top, and a revision: a commit, a tag or a branch;
    None is the main branch. With a name, that file in the folder."""

    repo: str
    folder: str
    revision: str | None
    name: str = ""

    def at(self, commit: str | None) -> str:
        """The same place at a commit, as a recipe writes it."""
        place = "/".join(filter(None, (SCHEME + self.repo, self.folder, self.name)))
        return place if commit is None else f"{place}@{commit}"

    def folder_at(self, commit: str | None) -> str:
        """The folder at a commit, as a recipe writes it."""
        return replace(self, name="").at(commit)

    def file(self, name: str) -> str:
        """A file of the folder, as the hub calls it."""
        return f"{self.folder}/{name}" if self.folder else name

    def commit(self, directory: Path) -> str:
        """The commit of the folder's place in the cache, which is below one of that name."""
        return (directory, *directory.parents)[len(Path(self.folder).parts)].name


def parse_reference(text: str) -> HubReference:
    """The reference in `hf://org/name/folder@revision`; raises PEM0440 when it is none."""
    match = _REFERENCE.fullmatch(text)
    if match is None or ".." in text or "." in match["folder"].split("/"):
        raise Fault(
            "PEM0440",
            f"{visible(text, 80)!r} is not a hub reference",
            'write it as "hf://org/name@revision", or "hf://org/name/folder@revision"',
        )
    folder, name = match["folder"].removeprefix("/"), ""
    if folder.endswith(SUFFIXES):
        folder, _, name = folder.rpartition("/")
    return HubReference(match["repo"], folder, match["revision"], name)


def hold_no_address(text: str) -> None:
    """Raise PEM0443 for the address of a web page, with the reference that it stands for where it
    is one of the hub."""
    match = _WEB.fullmatch(text)
    if match is None:
        return
    rest = match["rest"] if match["bare"] is None else match["bare"]
    is_of_hub = match["bare"] is not None or match["host"].casefold() in _HOSTS
    page = re.split("[?#]", rest)[0]
    reference = _reference_of(page) if is_of_hub else None
    give = "its path" if page.endswith(RECIPE) else "the folder that it is in"
    raise Fault(
        "PEM0443",
        f"{visible(text, 80)!r} is the address of a web page",
        f'write it as "{reference}"' if reference else f"fetch what is there, and give {give}",
    )


def _reference_of(page: str) -> str | None:
    """The reference that a page of the hub is about: `org/name`, `org/name/tree/main/folder`."""
    parts = [unquote(part) for part in page.split("/") if part]
    org, name, shows, revision, *folder = (*parts, "", "", "", "")
    if (shows and shows not in _SHOWS_FILES) or org in ("datasets", "spaces"):
        return None
    folder = [part for part in folder if part]
    if shows and page.endswith(RECIPE):
        text = f"{SCHEME}{org}/{name}@{'/'.join([revision, *folder])}"
        return text if _recipe_named(text) else None
    if shows in _SHOWS_FILES[1:] and not _may_be_one(PurePosixPath(page)):
        folder = folder[:-1]  # the last is a file
    place = "/".join([org, name, *folder])
    text = f"{SCHEME}{place}" + (f"@{revision}" if revision else "")
    try:
        parse_reference(text)
    except Fault:
        return None
    return text


def read_hub_adapter(text: str, whole: bool) -> Adapter:
    """An adapter on the hub.

    Args:
        text: `hf://org/name/folder@revision`, or that of a file.
        whole: fetch the tensors too, for a build; else the header is enough.

    Raises:
        Fault: PEM0440 not a reference, PEM0441 not found, refused or out of reach,
            PEM0442 huggingface_hub is not installed; and what read_adapter raises.
    """
    reference = parse_reference(text)
    hub = _library()
    with _telling(text):
        if reference.name:
            return _in_one_file(hub, reference)
        try:
            record, directory = _described(hub, reference)
        except hub.errors.LocalEntryNotFoundError:
            raise
        except hub.errors.EntryNotFoundError:
            _tell_below(hub, reference)
            raise
        # A branch may move between two requests: the rest comes from the commit of the first.
        commit = reference.commit(directory)
        fetch = partial(hub.hf_hub_download, reference.repo, revision=commit)
        if (directory / record.weights).exists():
            return read_as(record, directory, alone=True)
        pickled = record.pickled
        try:
            if not whole:
                header = _header(hub, reference, record.weights, commit)
                return record.of_header(directory, header)
            fetch(reference.file(record.weights))
        except hub.errors.EntryNotFoundError:
            if not pickled:
                raise
            fetch(reference.file(pickled))
        except (Fault, hub.errors.HfHubHTTPError):
            raise
        except Exception:  # no answer: a pickle in the cache will do
            if not pickled or not (directory / pickled).exists():
                raise
        return read_as(record, directory, alone=True)


def _in_one_file(hub: ModuleType, reference: HubReference) -> Adapter:
    """An adapter in one file; its header is asked for first, for a model's file may be large."""
    suffix = PurePosixPath(reference.name).suffix
    records = [x for x in formats_of("adapter") if x.one_file and x.suffix == suffix]
    file = reference.file(reference.name)
    cached = hub.try_to_load_from_cache(reference.repo, file, revision=reference.revision)
    if not isinstance(cached, str) and not _seems_one(hub, reference, records):
        raise _no_lora(reference)
    place = _snapshot(hub, reference, reference.name) / reference.name
    record = next((record for record in records if record.detect(place).fits), None)
    if record is None:
        raise _no_lora(reference)
    return read_as(record, place, alone=True)


def _seems_one(hub: ModuleType, reference: HubReference, records: Sequence[Format]) -> bool:
    """Whether the start of a file says that it is an adapter in one of some formats."""
    if reference.name.endswith(GGUF):
        return METHOD.encode() in _start(hub, reference)
    names = _header(hub, reference, reference.name, reference.revision).entries
    return any(name.startswith(record.starts) for record in records for name in names)


def _start(hub: ModuleType, reference: HubReference) -> bytes:
    """The first bytes of a file."""
    file = reference.file(reference.name)
    url = hub.hf_hub_url(reference.repo, file, revision=reference.revision)
    headers = {**hub.utils.build_hf_headers(), "range": f"bytes=0-{_STARTS_WITHIN - 1}"}
    answer = hub.utils.get_session().get(url, headers=headers)
    hub.utils.hf_raise_for_status(answer)
    return bytes(answer.content)


def _no_lora(reference: HubReference) -> Fault:
    """PEM0410 of a file of other tensors; of one of an adapter's or a model's its folder is what to
    give."""
    names = listed([record.name for record in formats_of("adapter") if record.one_file])
    return Fault(
        "PEM0410",
        f"{visible(reference.name)} of {visible(reference.repo)} is no LoRA in one file",
        f"give one by the names of {names}, or the folder of an adapter"
        if _may_be_one(PurePosixPath(reference.name))
        else f'"{reference.folder_at(reference.revision)}"',
    )


def _may_be_one(path: PurePosixPath) -> bool:
    """Whether a file of a repository may be an adapter in one file, by its name."""
    parts = {record.weights for record in FORMATS.values()}
    return path.suffix in SUFFIXES and path.name not in parts and not _SHARD.search(path.name)


def read_hub_recipe(name: str, commit: str | None = None) -> PublishedRecipe:
    """A recipe on the hub.

    Args:
        name: `hf://org/name@revision/folder/file.pem`; without a revision, of the main branch.
        commit: what the revision stands for, where that is known.

    Raises:
        Fault: PEM0101 it is larger than a recipe may be, PEM0392 not such a name, PEM0441 not
            found, refused or out of reach, PEM0442 huggingface_hub is not installed, PEM0443 the
            address of a web page.
    """
    hold_no_address(name)
    match = _recipe_named(name)
    if match is None:
        raise Fault(
            "PEM0392",
            f"{visible(name, 80)!r} is not a recipe on the hub",
            'write it as in import "hf://org/name@revision/file.pem" as name',
        )
    folder, _, stem = match["file"].rpartition("/")
    reference = HubReference(match["repo"], folder, commit or match["revision"], f"{stem}.pem")
    hub = _library()
    with _telling(name):
        directory = _snapshot(hub, reference, reference.name, MAX_BYTES)
    path = directory / reference.name
    return PublishedRecipe(name, path, read_bytes(path, name), reference.commit(directory))


def _recipe_named(name: str) -> re.Match[str] | None:
    """The parts of the name of a recipe on the hub; None where it is no such name."""
    match = _RECIPE.fullmatch(name)
    is_plain = match is not None and ".." not in name and "." not in match["file"].split("/")
    return match if is_plain else None


def pinned_reference(recipe: PublishedRecipe) -> str:
    """The name of a published recipe; of one on the hub at its commit."""
    match = _recipe_named(recipe.name)
    if match is None:
        return recipe.name
    return f"{SCHEME}{match['repo']}@{recipe.version}/{match['file']}.pem"


def is_hub_adapter(text: str) -> bool:
    """Whether a repository on the hub holds an adapter; raises as read_hub_adapter."""
    reference = parse_reference(text)
    if reference.name:
        return True
    hub = _library()
    with _telling(text):
        try:
            _described(hub, reference)
        except hub.errors.EntryNotFoundError:
            return False
    return True


def read_hub_model(text: str, whole: bool) -> Adapter:
    """A model on the hub.

    Args, Raises: as read_hub_adapter; and PEM0430 for one of its files.
    """
    reference = parse_reference(text)
    if reference.name:
        why = f"{visible(text, 80)} is a file: the folder of a model is what to give"
        raise Fault("PEM0430", why, f'"{reference.folder_at(reference.revision)}"')
    hub = _library()
    with _telling(text):
        directory = _snapshot(hub, reference, CONFIG)
        commit = reference.commit(directory)
        fetch = partial(hub.hf_hub_download, reference.repo, revision=commit)
        names = _weights_of(hub, reference, directory)
        for name in TOKENS:  # a check may ask which token a row is of
            if _fetched_if_there(hub, reference, commit, name):
                break
        if not whole and not names[0].endswith(".bin"):
            headers = {
                directory / name: read_header(directory / name)
                if (directory / name).exists()
                else _header(hub, reference, name, commit)
                for name in names
            }
            return TRANSFORMERS.of_headers(directory, headers)
        for name in names:
            fetch(reference.file(name))  # a pickle has no header that could be fetched alone
        for name in BESIDE:
            _fetched_if_there(hub, reference, commit, name)
        return read_as(TRANSFORMERS, directory)


def _weights_of(hub: ModuleType, reference: HubReference, directory: Path) -> list[str]:
    """The names of the files of a model's tensors; its index is fetched where it has one."""
    commit = reference.commit(directory)
    for single, index in WEIGHTS.items():
        if _fetched_if_there(hub, reference, commit, index):
            return shards_of(directory / index)
        if _is_there(hub, reference, commit, single):
            return [single]
    return [SINGLE]


def _is_there(hub: ModuleType, reference: HubReference, commit: str, name: str) -> bool:
    """Whether a repository has a file at a commit, which is not fetched."""
    file = reference.file(name)
    known = hub.try_to_load_from_cache(reference.repo, file, revision=commit)
    if known is not None:
        return isinstance(known, str)
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(reference.repo, file, revision=commit))
    except hub.errors.EntryNotFoundError:
        # The cache keeps that it is not there.
        return _fetched_if_there(hub, reference, commit, name)
    return True


def _fetched_if_there(hub: ModuleType, reference: HubReference, commit: str, name: str) -> bool:
    """Fetch a file that a repository may have, at a commit whose snapshot is in the cache; whether
    it has it. That no answer came is no answer: only what the hub says of it counts, or has said.
    """
    file = reference.file(name)
    known = hub.try_to_load_from_cache(reference.repo, file, revision=commit)
    if known is not None:
        return isinstance(known, str)
    try:
        hub.hf_hub_download(reference.repo, file, revision=commit)
    except hub.errors.LocalEntryNotFoundError:
        raise
    except hub.errors.EntryNotFoundError:
        return False
    return True


def _described(hub: ModuleType, reference: HubReference) -> tuple[Format, Path]:
    """The first format whose description the repository has, and the snapshot in the cache that
    holds it."""
    missing = []
    for record in formats_of("adapter"):
        if record.one_file:
            continue
        try:
            directory = _snapshot(hub, reference, record.described_in)
        except hub.errors.EntryNotFoundError as error:
            missing.append(error)
            continue
        if record.detect(directory).fits:  # those of several formats have one name
            return record, directory
    raise missing[0]


def _tell_below(hub: ModuleType, reference: HubReference) -> None:
    """Raise PEM0441 with the adapters below a folder that holds none itself, where the hub says
    what is there."""
    records = [record for record in formats_of("adapter") if not record.one_file]
    described = tuple(dict.fromkeys(record.described_in for record in records))
    within = {"path_in_repo": reference.folder} if reference.folder else {}
    files = hub.HfApi().list_repo_tree(
        reference.repo, revision=reference.revision, recursive=True, **within
    )
    try:
        paths = [PurePosixPath(file.path) for file in islice(files, MAX_LOOKED_AT)]
    except Exception:  # what it raises of a folder or a network is of no more use
        return
    held = {str(path.parent) for path in paths if path.name in described}
    held = held or {str(path) for path in paths if _may_be_one(path)}
    if held:
        at = f"@{reference.revision}" if reference.revision else ""
        places = [f"{SCHEME}{reference.repo}/{place}{at}" for place in in_order(held)]
        raise Fault(
            "PEM0441",
            f"{visible(reference.repo)} has no adapter in {visible(reference.folder) or 'its top'}"
            f": {' or '.join(described)} is not there",
            f'"{places[0]}"'
            if len(places) == 1
            else f"give one of those in it: {listed(places, 8)}",
        )


def _snapshot(
    hub: ModuleType, reference: HubReference, name: str, at_most: int | None = None
) -> Path:
    """The snapshot in the cache that holds a file, fetched if need be. Raises PEM0101 where it has
    more bytes than it may have.

    The library tries a hub that does not answer for most of a minute: ask once before, and go by
    the cache when there is no answer.
    """
    ask = {
        "repo_id": reference.repo,
        "filename": reference.file(name),
        "revision": reference.revision,
    }
    cached = hub.try_to_load_from_cache(**ask)
    if not (isinstance(cached, str) and _COMMIT.fullmatch(reference.revision or "")):
        try:
            size = hub.get_hf_file_metadata(hub.hf_hub_url(**ask)).size
            if at_most is not None and (size or 0) > at_most:
                raise too_large(name)
            cached = hub.hf_hub_download(**ask)
        except (Fault, hub.errors.HfHubHTTPError):
            raise
        except Exception:  # no answer, in the words of the library's HTTP client
            if not isinstance(cached, str):
                raise
    return Path(cached).parent


def _header(hub: ModuleType, reference: HubReference, name: str, commit: str | None) -> Header:
    """The header of a file of tensors, fetched without them."""
    header = hub.HfApi().parse_safetensors_file_metadata(
        reference.repo, reference.file(name), revision=commit
    )
    entries = {
        name: TensorEntry(info.dtype, tuple(info.shape), *info.data_offsets)
        for name, info in header.tensors.items()
    }
    return Header(entries, 0)


def _library() -> ModuleType:
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
