"""Files of tensors: headers, bounded readers, digests, dtypes, and references to tensors."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    dtypes="DTYPES FLOATS decoded stored_dtype",
    reader="TensorReader",
    reference="TensorRef",
    safetensors="MAX_HEADER TensorEntry read_header read_numbers",
    digests="file_digest take_digests",
    gguf="read_gguf",
    pickled="read_pickled_header",
)
