"""What a name or a path of a recipe stands for: on disk, on the hub, in the lock."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    lock="MAX_BYTES parse_lock write_lock",
    locked="LockResolver",
    samples="SampleResolver",
)
