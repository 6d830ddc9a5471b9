"""Digests of the files of an output, down to what it holds, so that a change can be named."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import blake3

from pemlang.artifact.provenance import Subject
from pemlang.disk import open_plain
from pemlang.tensorfiles.container import SUFFIXES, header_of
from pemlang.tensorfiles.jsons import parse_json

if TYPE_CHECKING:
    from hashlib import _Hash as Hasher

MAX_JSON = 256 << 10
"""Bytes of a JSON file whose fields are told apart: a config, and no vocabulary."""

_PIECE = 1 << 20


def subject(path: Path) -> Subject:
    """A file of an output: a tensors' file by its tensors, a JSON file by its fields.

    The two digests of a large file are taken side by side, in the time that the disk takes.

    Raises:
        OSError: it cannot be read.
        Fault: PEM0412 a tensors' file that is damaged.
    """
    if path.suffix in SUFFIXES:
        with ThreadPoolExecutor(2) as pool:
            sha256 = pool.submit(_hashed, path, hashlib.sha256())
            mine = pool.submit(_hashed, path, blake3.blake3())
            parts = tensor_digests(path)
            return Subject(sha256.result(), mine.result(), parts)
    fields = _fields(path) if path.suffix == ".json" else {}
    return Subject(_hashed(path, hashlib.sha256()), _hashed(path, blake3.blake3()), fields)


def copied(path: Path) -> Subject:
    """A file that an output has as an input had it, whatever is in it; raises OSError."""
    try:
        return subject(path)
    except ValueError:
        return Subject(_hashed(path, hashlib.sha256()), _hashed(path, blake3.blake3()))


def _fields(path: Path) -> dict[str, object]:
    """The fields of a JSON object, none of a large one; raises ValueError for a file that is no
    object."""
    with open_plain(path) as file:
        data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        return {}
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _hashed(path: Path, hasher: Hasher | blake3.blake3) -> str:
    buffer = memoryview(bytearray(_PIECE))
    with open_plain(path) as file:
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            hasher.update(buffer[:count])
    return str(hasher.hexdigest())


def tensor_digests(path: Path) -> dict[str, str]:
    """BLAKE3 of each tensor of a file by its key, dtype and shape included.

    Raises:
        Fault: PEM0411, PEM0412 for a file that is no whole file of tensors.
    """
    header, digests = header_of(path), {}
    buffer = memoryview(bytearray(_PIECE))
    with open_plain(path) as file:
        for key, entry in sorted(header.entries.items()):
            hasher = blake3.blake3(f"{entry.dtype} {list(entry.shape)}\n".encode())
            file.seek(header.data_start + entry.start)
            rest = entry.end - entry.start
            while rest and (count := file.readinto(buffer[: min(rest, _PIECE)])):  # type: ignore[attr-defined]
                hasher.update(buffer[:count])
                rest -= count
            digests[key] = hasher.hexdigest()
    return digests
