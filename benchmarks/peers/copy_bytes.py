"""Read files and write as many bytes as one of them holds: what any merge must do at least.

    python copy_bytes.py OUT IN...

Prints seconds, as JSON: `work` for the copy, `flush` for the disk.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

out, *inputs = sys.argv[1:]
buffer = memoryview(bytearray(1 << 20))
began = time.perf_counter()
with Path(out).open("wb", buffering=0) as written:
    for name in inputs:
        with Path(name).open("rb", buffering=0) as read:
            while count := read.readinto(buffer):
                if name == inputs[0]:
                    written.write(buffer[:count])
    copied = time.perf_counter()
    os.fsync(written.fileno())
flushed = time.perf_counter()
print(json.dumps({"work": copied - began, "flush": flushed - copied}))
