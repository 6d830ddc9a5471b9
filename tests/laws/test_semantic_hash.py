"""The semantic hash: the same for what means the same, another for anything that matters, and a
promise of the bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import build, lora, recipe
from support.laws.drawing import IA3, LORA, adapters, refactored
from support.laws.expressions import Tree, Writer
from support.laws.pool import ALL, LAWS, Pool, declared
from support.laws.reference import Reference

import pemlang

FILES = ("adapter_model.safetensors", "adapter_config.json")


def outcome(pool: Pool, text: str, name: str) -> tuple[str, bytes, bytes]:
    """The semantic hash of x, and the bytes of its files."""
    path, built = pool.built(text + f'save x to "{name}"\n')
    weights, config = ((path / file).read_bytes() for file in FILES)
    return built.semantic_hash, weights, config


# --- refactorings --------------------------------------------------------------------------


@settings(LAWS, max_examples=30)
@given(st.sampled_from([LORA, IA3]).flatmap(adapters), st.data(), st.booleans())
def test_a_refactoring_keeps_the_hash_and_the_bytes(
    pool: Pool, tree: Tree, data: st.DataObject, ascii: bool
) -> None:
    other = Writer(ascii, {"a": "α", "t": "tiny"}).recipe(data.draw(refactored(tree)))
    spaced = other.replace("\ndef", "\n\n## a function\n  def").replace("\nlet", "  # so\nlet")
    first = outcome(pool, Writer().recipe(tree), "one")
    unused = 'language 1\nadapter wide = "d"\nadapter gain = "k"\n'
    assert outcome(pool, unused + spaced, "two") == first


def test_another_layout_keeps_the_hash_and_the_bytes(pool: Pool) -> None:
    library = declared("abr") + "def mixed(x: adapter, by: number) -> adapter = by * x + b\n"
    recipe(pool.folder / "deep", library.replace('= "', '= "../'), "library.pem")
    layouts = [
        "let x = 0.5 * a + b - r",
        "param w: number = 0.5\nlet x = w * a + b - r",
        "let h = 1 / 4\nlet x = h * (2 * a - 4 * r) + b",
        "def f(y: adapter, by: number = 0.5) -> adapter = by * y\nlet x = f(a) + b - f(by=1, y=r)",
        "let x = a / 2 - (r - b)",
        "let x: lora(dtype=f32) = a - a / 2 + b - r",
    ]
    texts = [declared("abr") + text for text in layouts]
    texts += [
        'import "deep/library.pem" as lib\nlet x = lib.mixed(lib.a, 0.5) - lib.r',
        'import "deep/library.pem" (mixed, a, r)\nlet x = mixed(a, by=0.5) - r',
        'adapter far = "elsewhere/a"\n' + declared("br") + "let x = far / 2 + b - r",
    ]
    first, *others = [outcome(pool, text + "\n", f"out{n}") for n, text in enumerate(texts)]
    assert all(other == first for other in others)


def test_a_value_has_its_base_from_its_adapters_alone(tmp_path: Path) -> None:
    """Not from what the recipe said before, nor from what cancelled out."""
    lora(tmp_path / "a", 0)
    lora(tmp_path / "other", 1, base_model_name_or_path="other/base")
    lora(tmp_path / "none", 2, base_model_name_or_path=...)
    text = declared(["a", "other", "none"])
    for value in ("0 * a", "2 * none", "2 * (none - none)"):
        built = [
            build(tmp_path, f'{text}{before}\nsave {value} to "out"').outputs[0].semantic_hash
            for before in ("", "let k = 0 * other", "let k = 2 * (none + a) - 2 * a")
        ]
        assert len(set(built)) == 1, value
    zero = f'{text}let k = 0 * other\nsave a + 0 * a to "out"\n'
    assert not pemlang.load(recipe(tmp_path, zero)).check()


def test_a_rank_option_is_a_compress(pool: Pool) -> None:
    text = declared("ab") + "let x = a + b\n"
    option = pool.built(text + 'save x to "one" with rank=3')
    call = pool.built(text + 'save compress(x, rank=3) to "two"')
    enough = pool.built(text + 'save x to "three" with rank=4')
    assert option[1].semantic_hash == call[1].semantic_hash
    assert enough[1].semantic_hash == pool.hash(text + 'save x to "four"')
    for file in FILES:
        assert (option[0] / file).read_bytes() == (call[0] / file).read_bytes()


# --- changes -------------------------------------------------------------------------------


@settings(LAWS, max_examples=30)
@given(adapters(LORA, ALL), adapters(LORA, ALL))
def test_what_does_another_thing_has_another_hash(
    pool: Pool, dense: Reference, x: Tree, y: Tree
) -> None:
    xs, ys = dense.delta(x), dense.delta(y)
    apart = any(
        (abs(xs[s].value - ys[s].value) > 1e-3 * (xs[s].size + ys[s].size)).any() for s in ALL
    )
    assume(apart)
    hashes = {pool.hash(Writer().recipe(tree) + 'save x to "out"') for tree in (x, y)}
    assert len(hashes) == 2


BASE = 'adapter a = "a"\nadapter b = "b"\nsave {} to "out"{}\n'
CHANGES = {
    "a weight": BASE.format("0.51 * a + b", ""),
    "a sign": BASE.format("0.5 * a - b", ""),
    "an adapter": BASE.format("0.5 * a + a", ""),
    "a family": BASE.format("0.5 * a ⊕ b", ""),
    "a schedule": BASE.format("ramp(0.5, 0.6) * a + b", ""),
    "a selection": BASE.format('(0.5 * a + b)["*.query"]', ""),
    "a layer": BASE.format("(0.5 * a + b)[layers 0]", ""),
    "padding": BASE.format("pad(0.5 * a + b, rank=9)", ""),
    "a dtype": BASE.format("0.5 * a + b", " with dtype=bf16"),
    "a rank": BASE.format("0.5 * a + b", " with rank=3"),
    "another rank": BASE.format("0.5 * a + b", " with rank=2"),
    "an energy": BASE.format("0.5 * a + b", " with energy=0.5"),
    "heads": BASE.format("0.5 * a + b", " with heads=a"),
    "other heads": BASE.format("0.5 * a + b", " with heads=b"),
    "a measure": BASE.format("norm(a) * a + b", ""),
    "the base": 'base m = ["m", "some/base"]\n'
    + BASE.format("0.5 * a + b", "").replace(' = "', ' on m = "'),
}
UNCHANGED = BASE.format("0.5 * a + b", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters with the same heads."""
    folder = tmp_path_factory.mktemp("hashes")
    head = {"base_model.model.classifier.weight": torch.ones(2, 3)}
    for seed, name in enumerate("ab"):
        lora(folder / name, seed, extra=head, modules_to_save=["classifier"])
    return folder


def test_every_change_that_matters_changes_the_hash(folder: Path) -> None:
    texts = {"nothing": UNCHANGED, **CHANGES}
    hashes = {name: build(folder, text).outputs[0].semantic_hash for name, text in texts.items()}
    assert len(set(hashes.values())) == len(hashes), hashes


@pytest.mark.parametrize("file", FILES)
def test_the_content_of_an_adapter_is_in_the_hash(folder: Path, tmp_path: Path, file: str) -> None:
    for name in "ab":
        shutil.copytree(folder / name, tmp_path / name)
    before = build(tmp_path, UNCHANGED).outputs[0].semantic_hash
    changed = bytearray((tmp_path / "b" / file).read_bytes())
    if file == "adapter_config.json":
        changed = json.dumps(json.loads(changed) | {"lora_alpha": 9}).encode()
    else:
        changed[-1] ^= 1
    (tmp_path / "b" / file).write_bytes(changed)
    assert build(tmp_path, UNCHANGED).outputs[0].semantic_hash != before


# --- the machine ---------------------------------------------------------------------------

MACHINES = (
    {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
)
# Large enough that OpenBLAS would share the work, and round otherwise, on two threads.
WIDE = {f"layers.{n}.{name}": (512, 512) for n, name in enumerate(["query", "value"])}


def test_neither_the_hash_seed_nor_the_threads_are_in_the_bytes(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        lora(tmp_path / name, seed, WIDE, 100 + seed, dtype=torch.float64)
    text = (
        declared("abc") + 'let x = cosine(a, b) * a + ramp(1, 0.3) * b - c["*.query", "*.value"]\n'
    )
    text += 'save x to "x"\nsave x to "cut" with rank=40\nsave x to "kept" with energy=0.9\n'
    script = "import sys, pemlang; pemlang.load(sys.argv[1]).build(sys.argv[2])"
    written = []
    for number, machine in enumerate(MACHINES):
        out = tmp_path / f"out{number}"
        command = [sys.executable, "-c", script, str(recipe(tmp_path, text)), str(out)]
        subprocess.run(command, env={**os.environ, **machine}, check=True)
        names = [Path(output) / file for output in ("x", "cut", "kept") for file in FILES]
        written.append([(out / name).read_bytes() for name in names])
    assert written[0] == written[1]
