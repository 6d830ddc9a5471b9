"""Laws of models and what is added to them: both sides are one output, of one hash and the same
bytes; and what is not the same has another hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import build, ia3, lora
from support.models import DECLARED, model, weights_of

SITES = {f"model.layers.{i}.self_attn.q_proj": (12, 12) for i in range(2)}
TEXT = DECLARED.replace('"b"', '["b", "some/base"]', 1) + "".join(
    f'adapter {name} on b = "{name}"\n' for name in "acg"
)
SAME = [
    ("m + (n - m)", "n"),
    ("mean([m, m])", "m"),
    ("b + ((m + 0.5 * (n - b)) - m)", "b + 0.5 * (n - b)"),
    ("m + (n - b) - (n - b)", "m"),
    ("b + (m - b) + (n - m)", "n"),
    ("lerp(m, n, t=0)", "m"),
    ("b + 0 * (m - b)", "b"),
    ("b + a + c", "b + c + a"),
    ("b + (a + c)", "b + a + c"),
    ("b + a - a", "b"),
    ("b + a + 0.5 * (m - b)", "b + 0.5 * (m - b) + a"),
    ("b + a + (m - b)", "m + a"),
    ("b + a + 0.5 * (m - b) + c", "b + (a + c) + 0.5 * (m - b)"),
    ("b + 0.5 * (m - b) + a + 0.5 * (m - b)", "m + a"),
    ("b + a + 0.5 * (m - b) - a", "b + 0.5 * (m - b)"),
]
OTHER = [
    ("mean([m, n])", "mean([m, b])"),
    ("mean([m, n])", "mean([n, m])"),
    ("m + (n - b)", "n"),
    ("b + a", "b + c"),
    ("b + g + 0.5 * (m - b)", "b + 0.5 * (m - b) + g"),
]
"""A gain scales what was added before it, and not what is added after; and a mean has all but its
numbers from the first of its models."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("points")
    for seed, name in enumerate("bmn"):
        model(folder / name, seed)
    for seed, name in enumerate("ac", 1):
        lora(folder / name, seed, SITES)
    ia3(folder / "g", 3, dict.fromkeys(SITES, 12), {})
    return folder


def both(shelf: Path, one: str, other: str) -> tuple[set[str], set[bytes]]:
    """The hashes and the tensors of two expressions."""
    text = TEXT + f'save {one} to "out/one"\nsave {other} to "out/other"\n'
    outputs = build(shelf, text).outputs
    files = {(built.path / "model.safetensors").read_bytes() for built in outputs}
    return {built.semantic_hash for built in outputs}, files


@pytest.mark.parametrize(("one", "other"), SAME, ids=[one for one, _ in SAME])
def test_what_means_the_same_is_one_output(shelf: Path, one: str, other: str) -> None:
    hashes, files = both(shelf, one, other)
    assert (len(hashes), len(files)) == (1, 1)


@pytest.mark.parametrize(("one", "other"), OTHER, ids=[one for one, _ in OTHER])
def test_what_differs_has_another_hash(shelf: Path, one: str, other: str) -> None:
    hashes, files = both(shelf, one, other)
    assert (len(hashes), len(files)) == (2, 2)


def test_what_is_added_in_another_order_is_what_it_says(shelf: Path) -> None:
    """Against float64 sums of what each part is by itself."""
    text = TEXT + "".join(
        f'save {value} to "out/{name}"\n'
        for name, value in {"a": "b + a", "all": "b + a + 0.5 * (m - b)"}.items()
    )
    with_a, both_of = (weights_of(built.path) for built in build(shelf, text).outputs)
    b, m = weights_of(shelf / "b"), weights_of(shelf / "m")
    for key, base in b.items():
        wanted = with_a[key] + 0.5 * (m[key] - base)
        assert np.abs(both_of[key] - wanted).max() < 1e-6, key
