"""Digests of inputs: remembered from one process to the next, and never of another content."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from blake3 import blake3

from pemlang.tensorfiles import file_digest, take_digests

DIGESTS = "pemlang.tensorfiles.digests"


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file worth remembering, last changed a while ago."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(f"{DIGESTS}.SETTLED", 0)
    monkeypatch.setattr(f"{DIGESTS}.WORTH_REMEMBERING", 1 << 12)
    monkeypatch.setattr(f"{DIGESTS}._DigestCache._loaded", None)
    path = tmp_path / "large"
    path.write_bytes(b"x" * (1 << 12))
    return path


def forget(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Start as a new process does; the list takes the files that are read."""
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return blake3(path.read_bytes()).hexdigest()

    monkeypatch.setattr(f"{DIGESTS}._HERE", {})
    monkeypatch.setattr(f"{DIGESTS}._DigestCache._loaded", None)
    monkeypatch.setattr(f"{DIGESTS}._digest", counted)
    return read


def test_a_digest_is_remembered(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_digest(large)
    read = forget(monkeypatch)
    assert file_digest(large) == first
    assert read == []


def test_a_file_with_its_date_put_back_is_read_again(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = file_digest(large)
    stat = large.stat()
    time.sleep(0.05)
    with large.open("r+b") as file:
        file.write(b"y")
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert large.stat().st_mtime_ns == stat.st_mtime_ns
    read = forget(monkeypatch)
    assert file_digest(large) != first
    assert read == [large]


def test_a_file_changed_a_moment_ago_is_not_remembered(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{DIGESTS}.SETTLED", 10**18)
    file_digest(large)
    read = forget(monkeypatch)
    file_digest(large)
    assert read == [large]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 1}', "\x00" * 100])
def test_a_damaged_memory_is_no_matter(
    large: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    first = file_digest(large)
    (large.parent / "cache" / "pemlang" / "digests.json").write_text(damage)
    read = forget(monkeypatch)
    assert file_digest(large) == first
    assert read == [large]


def test_a_cache_that_cannot_be_written_is_no_matter(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (large.parent / "cache").write_text("a file where the folder would be")
    first = file_digest(large)
    forget(monkeypatch)
    assert file_digest(large) == first


@pytest.mark.parametrize("threads", [1, 3])
def test_a_digest_that_cannot_be_taken_is_none(
    large: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Whichever thread lacks the memory for it."""

    def fail(path: Path) -> str:
        raise MemoryError

    monkeypatch.setattr(f"{DIGESTS}._digest", fail)
    paths = [large, *(large.with_name(f"{number}") for number in range(3))]
    for path in paths[1:]:
        path.write_bytes(b"y" * (1 << 12))
    with pytest.raises(MemoryError):
        take_digests(paths, threads)
