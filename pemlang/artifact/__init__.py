"""What an output is on disk: staged, written, described, verified and signed."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    provenance="read_provenance",
    write="Built",
)
