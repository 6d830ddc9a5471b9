"""The calls of linear algebra that a cut of `+` to a rank consists of, and nothing else.

    python low_rank_calls.py RANK TOGETHER LAYERS

For each site of a 7B model the factors of adapters of TOGETHER columns in all lie in memory, in
float64, and are cut to RANK. A thread for each processor takes sites; each call runs on one.
Prints the seconds as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np

rank, together, layers = map(int, sys.argv[1:])
SHAPES = [(11008, 4096)] * 2 + [(4096, 11008)] + [(4096, 4096)] * 4
random = np.random.default_rng(0)
factors = {
    (out, in_): (random.standard_normal((together, in_)), random.standard_normal((out, together)))
    for out, in_ in SHAPES
}


def cut(shape: tuple[int, int]) -> None:
    """One site."""
    a, b = factors[shape]
    left, right = np.linalg.cholesky(b.T @ b), np.linalg.cholesky(a @ a.T)
    u, _, vt = np.linalg.svd(left.T @ right)
    b @ (np.linalg.inv(left).T @ u[:, :rank])
    (vt[:rank] @ np.linalg.inv(right)) @ a


began = time.perf_counter()
with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
    list(pool.map(cut, SHAPES * layers))
print(json.dumps({"work": time.perf_counter() - began}))
