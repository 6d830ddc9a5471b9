"""Files of very many parts are read, or refused, in a time that grows with their length."""

from __future__ import annotations

import json
import struct
import time
from contextlib import suppress
from pathlib import Path

from pemlang.diagnostics import Fault
from pemlang.formats import read_adapter

SECONDS = 5.0  # each took several times as long when something was counted anew for every part


def seconds(place: Path) -> float:
    start = time.process_time()
    with suppress(Fault):
        read_adapter(place)
    return time.process_time() - start


def test_arrays_in_a_gguf_file(tmp_path: Path) -> None:
    count = (1 << 16) - 1
    keys = [f"k{number}".encode() for number in range(count)]
    arrays = [struct.pack("<Q", len(k)) + k + struct.pack("<IIQ", 9, 4, 0) for k in keys]
    start = b"GGUF" + struct.pack("<IQQ", 3, 0, count)
    (tmp_path / "x.gguf").write_bytes(start + b"".join(arrays) + bytes(32))
    assert seconds(tmp_path / "x.gguf") < SECONDS


def test_keys_in_a_config_of_mlx(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(40_000)]
    parameters = {"rank": 1, "scale": 1.0, "keys": names}
    config = {"fine_tune_type": "lora", "lora_parameters": parameters}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    keys = [f"layers.0.{name}.lora_{end}" for name in names for end in "ab"]
    header = {
        key: {"dtype": "F32", "shape": [1, 1], "data_offsets": [4 * n, 4 * n + 4]}
        for n, key in enumerate(keys)
    }
    raw = json.dumps(header).encode()
    place = tmp_path / "adapters.safetensors"
    place.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(4 * len(keys)))
    assert seconds(tmp_path) < SECONDS
