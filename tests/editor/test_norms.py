"""The norm of an adapter, in what is told of its name."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from support import Dense, delta, gains, ia3, lora, recipe
from support.base_shelf import dora
from support.editor import Editor

import pemlang
from pemlang.graph import AdapterNode
from pemlang.lsp import MOST_BYTES, NormMeter

FILES = 'adapter a = "a"\nadapter b = "b"\nadapter i = "i"\nadapter d = "d"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path.resolve()
    lora(root / "a", 1)
    lora(root / "b", 2)
    ia3(root / "i", 3)
    dora(root / "d")
    return root


def told(editor: Editor, line: str) -> tuple[str, float] | None:
    """The norm that is told at the cursor, and of what; a slow machine may take a second look."""
    for _ in range(20):
        found = re.search(r"`norm\((.*)\)` is (.*)", editor.hover(f"{FILES}{line}\n"))
        if found:
            return found[1], float(found[2])
    return None


def size(dense: Dense) -> float:
    return float(np.sqrt(sum(np.sum(x**2) for x in dense.values())))


def test_norms_are_those_of_the_dense_adapters(folder: Path) -> None:
    a, b = delta(folder / "a"), delta(folder / "b")
    mixed = {site: 0.5 * a[site] - 2 * b[site] for site in a}
    editor = Editor(folder)
    for line, name, norm in [
        ("let x = |a", "a", size(a)),
        ("let |x = 0.5 * a - 2 * b", "x", size(mixed)),
        ("let |x = a / norm(a)", "x", 1.0),
        ("let x = 0.5 * |i", "i", size({site: x - 1 for site, x in gains(folder / "i").items()})),
    ]:
        shown = told(editor, line)
        assert shown is not None and shown[0] == name
        assert shown[1] == pytest.approx(norm, rel=1e-5)
    editor.close()


def test_what_is_told_is_what_a_recipe_measures(folder: Path) -> None:
    editor = Editor(folder)
    for value in ("a", "a .+ b", "0.3 * a + (a .- b)", 'a["*.query"]', "ramp(1, 0) * a"):
        shown = told(editor, f"let |x = {value}")
        text = f"{FILES}let x = {value}\n"
        measured = pemlang.load(recipe(folder, text, "measured.pem")).measure("norm(x)")
        assert shown is not None and shown[1] == pytest.approx(measured, rel=1e-5)
    editor.close()


def test_it_is_measured_anew_once_its_file_is_another(folder: Path) -> None:
    editor = Editor(folder)
    before = told(editor, "let x = |a")
    lora(folder / "a", 7)
    after = told(editor, "let x = |a")
    assert before is not None and after is not None and before != after
    assert after[1] == pytest.approx(size(delta(folder / "a")), rel=1e-5)
    editor.close()


def test_of_what_has_no_norm_of_its_own_none_is_told(folder: Path) -> None:
    editor = Editor(folder)
    for line in ("let x = |d", "let |x = ties([a, b], density=0.5)", "let |n = norm(a)"):
        assert "is" not in editor.hover(f"{FILES}{line}\n").split()
    tensors = folder / "a" / "adapter_model.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-4:] = np.float32("nan").tobytes()
    tensors.write_bytes(content)
    assert "adapter a" in editor.hover(f"{FILES}let x = |a\n")
    assert told(editor, "let x = |a") is None
    editor.close()


def test_a_file_that_changed_since_the_check_is_not_measured(folder: Path) -> None:
    checked = pemlang.load(recipe(folder, FILES)).checked()
    adapter, meter = checked.names["a"], NormMeter()
    assert isinstance(adapter, AdapterNode)
    lora(folder / "a", 7)
    assert asyncio.run(meter.norm(checked.graph, adapter)) is None
    meter.stop()


def test_of_large_tensors_none_is_told(folder: Path) -> None:
    """A file of zeros that takes no place on the disk; measured, its norm would be 0."""
    width = MOST_BYTES // 4
    file = lora(folder / "a", 1, {"q": (4, 8)}, rank=1) / "adapter_model.safetensors"
    prefix, tensors, at = "base_model.model.q.lora_", {}, 0
    for name, shape in (("A", (1, width)), ("B", (4, 1))):
        end = at + 4 * math.prod(shape)
        told_of = {"dtype": "F32", "shape": shape, "data_offsets": (at, end)}
        tensors[f"{prefix}{name}.weight"], at = told_of, end
    header = json.dumps(tensors).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(file, 8 + len(header) + at)
    editor = Editor(folder)
    assert "LoRA, rank 1, 1 site" in editor.hover(f"{FILES}let x = |a\n")
    assert told(editor, "let x = |a") is None
    editor.close()
