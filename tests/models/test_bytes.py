"""The bytes that a plan says are read, and the least of them, held to the reads of the build."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import build, lora, pem, recipe
from support.models import DECLARED, SHAPES, model
from support.reads import counted_reads

import pemlang

LARGE = {"model.layers.0.up_proj.weight": (600, 600)}
"""A tensor that no block has room for in three inputs and an output."""

ONCE = [
    "b + 0.5 * (m - b)",
    "b + 0.5 * (m - b) - 0.3 * (n - b)",
    'b + ties([m - b, n - b], density=0.3)["*.q_proj.*"]',
    "slerp(m, n, t=0.3)",
    "b + a",
]
TWICE = [
    "b + ties([m - b, n - b], density=0.3)",
    "b + norm(m - b) * (n - b)",
    'compress((m - b)["*_proj.weight"], energy=0.9)',
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    for tuned, name in enumerate("bmn"):
        model(folder / name, tuned, {**SHAPES, **LARGE})
    sites = {"model.layers.0.self_attn.q_proj": (12, 12)}
    lora(folder / "a", 1, sites, base_model_name_or_path=...)
    return folder


def distinct(reads: list[tuple[str, int, int]]) -> int:
    """How many bytes some reads are of, each byte counted once."""
    total, last = 0, ("", 0)
    for file, start, size in sorted(reads):
        end = start + size
        first = max(start, last[1]) if file == last[0] else start
        total += max(0, end - first)
        last = (file, max(end, last[1]) if file == last[0] else end)
    return total


@pytest.mark.parametrize("expression", ONCE + TWICE)
def test_a_plan_says_what_is_read_and_the_least(
    expression: str, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'{DECLARED}adapter a = "a"\nsave {expression} to "out"\n'
    loaded = pemlang.load(recipe(stored, text))
    forecast, reads = loaded.plan(), counted_reads(monkeypatch)
    loaded.build()
    read = sum(size for *_, size in reads)
    # A sample says where the k-th largest is looked for.
    assert forecast.read <= read <= (1.02 if "ties" in expression else 1) * forecast.read
    assert forecast.least_read == distinct(reads)
    assert (forecast.read > forecast.least_read) == (expression in TWICE)


def test_what_is_kept_as_it_is_counts(folder: Path) -> None:
    """Whole numbers too, and the weights of tensors that are not changed."""
    [output] = build(folder, f'{DECLARED}save b + (m - b)["*.norm.*"] to "out"\n').outputs
    forecast = pemlang.load(folder / "recipe.pem").plan()
    assert (forecast.read, forecast.least_read) == (0, 0)  # it is up to date
    recipe(folder, (folder / "recipe.pem").read_text().replace('"out"', '"other"'))
    forecast = pemlang.load(folder / "recipe.pem").plan()
    changed = 2 * 12 * 4
    header = 8 + int.from_bytes((output.path / "model.safetensors").read_bytes()[:8], "little")
    assert forecast.least_read == forecast.read == output.size - header + changed


def test_both_are_shown(stored: Path) -> None:
    recipe(stored, f'{DECLARED}save {TWICE[0]} to "out"\n')
    shown = pem("plan", stored / "recipe.pem").out
    assert "reads 13 MB, writes 1.45 MB (any program at least 4.34 MB and 1.45 MB)" in shown
