"""The files that tensors are written to, and outputs of one file are: safetensors and GGUF."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pemlang.diagnostics import Fault, visible
from pemlang.tensorfiles import gguf, safetensors
from pemlang.tensorfiles.dtypes import DTYPES
from pemlang.tensorfiles.gguf import Scalar, new_gguf_header, read_gguf
from pemlang.tensorfiles.safetensors import Header, TensorEntry, new_header, read_header

SUFFIXES = (safetensors.SUFFIX, gguf.SUFFIX)
"""What the names of such files end in."""

_OF_TORCH = "format"
"""What safetensors files say to torch."""


def without_suffix(name: str) -> str:
    """The name of a file, or its path, without what says what it is."""
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(suffix)


def header_of(path: Path) -> Header:
    """The header of a file of tensors; raises as read_header, and as floats_of."""
    if path.suffix != gguf.SUFFIX:
        return read_header(path)
    return floats_of(read_gguf(path))


def floats_of(told: gguf.GgufHeader) -> Header:
    """The header of a GGUF file; raises Fault PEM0419 for a quantised tensor."""
    entries = {}
    for name, tensor in told.tensors.items():
        if tensor.dtype not in DTYPES:
            raise Fault(
                "PEM0419",
                f"{visible(name)} is quantised, {tensor.dtype}",
                "convert the adapter again from what it was trained as, with --outtype f16",
            )
        end = tensor.start + (tensor.size or 0)
        entries[name] = TensorEntry(tensor.dtype, tensor.shape, tensor.start, end)
    return Header(entries, told.data_start)


def metadata_of(path: Path) -> dict[str, str]:
    """What a file of tensors says of itself in texts; raises as header_of."""
    if path.suffix != gguf.SUFFIX:
        return safetensors.read_metadata(path)
    return {key: x for key, x in read_gguf(path).fields.items() if isinstance(x, str)}


def new_start(
    name: str,
    tensors: Iterable[tuple[str, str, tuple[int, ...]]],
    metadata: Mapping[str, Scalar],
) -> tuple[bytes, list[int], int]:
    """The start of a file of some name; see new_header and new_gguf_header."""
    if name.endswith(gguf.SUFFIX):
        fields = {key: value for key, value in metadata.items() if key != _OF_TORCH}
        return new_gguf_header(tensors, fields)
    return new_header(tensors, {key: str(value) for key, value in metadata.items()})
