"""Hold the first site of two adapters to each other: the same change, up to bf16.

python same.py ONE OTHER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from tensors import deltas

(_, one), (_, other) = (next(deltas(Path(directory))) for directory in sys.argv[1:])
apart = float(np.linalg.norm(one - other) / np.linalg.norm(other))
if not apart < 0.01:
    sys.exit(f"{sys.argv[1]} and {sys.argv[2]} differ by {apart:.2%}")
