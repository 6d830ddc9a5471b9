"""Hold two merges of the same models to each other.

    python same_models.py HOW BASE M1 M2 ONE OTHER

`HOW` is what they agree in. `exact`: every weight, up to two last places of bf16. `trimmed`: all
but a few, as the peer takes differences in bf16, where many are equal at the border of a trim, and
keeps only some of those. `drawn`: what each keeps of the two fine-tunes, as their draws differ.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensors import Numbers, TensorFile

MOST_APART = {"exact": 1e-3, "trimmed": 0.05}
"""The share of the weights that may differ: by rounding in bf16 on the way, or by the border."""

SHARES_APART = 0.01


def apart(one: Numbers, other: Numbers) -> float:
    """The share of the weights that differ by more than two last places of bf16. Beside large ones
    small ones are no better known than these."""
    size = np.maximum(np.abs(other), np.abs(other).mean())
    return float((np.abs(one - other) > 2 * 2.0**-7 * size).mean())


def kept(merged: Numbers, base: Numbers, tuned: list[Numbers]) -> list[float]:
    """How much of each fine-tune is in a merge, by least squares, and the share of the weights that
    are the base's."""
    columns = np.stack([(m - base).reshape(-1) for m in tuned], 1, dtype=np.float64)
    change = (merged - base).reshape(-1).astype(np.float64)
    shares = np.linalg.solve(columns.T @ columns, columns.T @ change)
    return [*shares.tolist(), float((change == 0).mean())]


def matrices(file: TensorFile) -> Iterator[str]:
    """The names of tensors that are large enough for statistics."""
    return (name for name in file.names if file.read(name).ndim > 1)


how, *paths = sys.argv[1:]
base, *tuned, one, other = (TensorFile(Path(path) / "model.safetensors") for path in paths)
if one.names != other.names:
    sys.exit(f"{paths[-2]} and {paths[-1]} have other tensors")
if how == "drawn":
    for name in matrices(base):
        inputs = base.read(name), [file.read(name) for file in tuned]
        ours, theirs = (kept(file.read(name), *inputs) for file in (one, other))
        if not np.allclose(ours, theirs, rtol=0, atol=SHARES_APART):
            sys.exit(f"{name}: {ours} are kept, and there {theirs}")
else:
    for name in one.names:
        share = apart(one.read(name), other.read(name))
        if not share <= MOST_APART[how]:
            sys.exit(f"{name}: {share:.2%} of the weights differ")
