"""Digests of the files of an output, down to what it holds, so that a change can be named."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blake3

from pemlang.artifact.provenance import Subject
from pemlang.formats.peft_config import MAX_CONFIG
from pemlang.tensorfiles.disk import open_plain
from pemlang.tensorfiles.jsons import parse_json
from pemlang.tensorfiles.safetensors import read_header

_PIECE = 1 << 20


def subject(path: Path) -> Subject:
    """A file of an output: a tensors' file by its tensors, a config by its fields.

    The two digests of a large file are taken side by side, in the time that the disk takes.

    Raises:
        OSError: it cannot be read.
        Fault: PEM0412 a tensors' file that is damaged.
    """
    if path.suffix == ".safetensors":
        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(_hashed, path, hashlib.sha256())
            two = pool.submit(_hashed, path, blake3.blake3())
            parts: dict[str, Any] = tensor_digests(path)
            return Subject(one.result(), two.result(), parts)
    sha256, mine = (_hashed(path, hasher) for hasher in (hashlib.sha256(), blake3.blake3()))
    return Subject(sha256, mine, _fields(path) if path.suffix == ".json" else {})


def _fields(path: Path) -> dict[str, Any]:
    """The fields of a JSON object; raises ValueError for a file that is none."""
    with open_plain(path) as file:
        found = parse_json(file.read(MAX_CONFIG))
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _hashed(path: Path, hasher: Any) -> str:
    buffer = memoryview(bytearray(_PIECE))
    with open_plain(path) as file:
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            hasher.update(buffer[:count])
    return str(hasher.hexdigest())


def tensor_digests(path: Path) -> dict[str, str]:
    """BLAKE3 of each tensor of a file by its key, dtype and shape included.

    Raises:
        Fault: PEM0411, PEM0412 for a file that is no whole safetensors file.
    """
    header, found = read_header(path), {}
    buffer = memoryview(bytearray(_PIECE))
    with open_plain(path) as file:
        for key, entry in sorted(header.entries.items()):
            hasher = blake3.blake3(f"{entry.dtype} {list(entry.shape)}\n".encode())
            file.seek(header.data_start + entry.start)
            rest = entry.end - entry.start
            while rest and (count := file.readinto(buffer[: min(rest, _PIECE)])):  # type: ignore[attr-defined]
                hasher.update(buffer[:count])
                rest -= count
            found[key] = hasher.hexdigest()
    return found
