"""What a lock says of an adapter's tensors: read back as it was written, and bounded whoever wrote
it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from support import SITES, ia3, lora

from pemlang.diagnostics import Fault
from pemlang.formats import PEFT, Malformed, compact, expanded, read_adapter
from pemlang.tensorfiles import DTYPES, MAX_HEADER, TensorEntry

LAWS = settings(derandomize=True, deadline=None, database=None, max_examples=200)

# Pieces that the short form gives a meaning to, and text of any kind.
PIECES = st.sampled_from(["a", ".", "0", "7", "07", "31", "1000000", "{", "}", "{0..5}", "{{", "λ"])
NAMES = st.one_of(
    st.lists(PIECES, max_size=8).map("".join),
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.builds("m.{}.q.{}".format, st.integers(0, 40), st.sampled_from(["A", "B", "3"])),
)
SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)


def entry(dtype: str, shape: tuple[int, ...]) -> TensorEntry:
    return TensorEntry(dtype, shape, 0, 0)


ENTRIES = st.builds(entry, st.sampled_from(sorted(DTYPES)), SHAPES)


def layouts(entries: Mapping[str, TensorEntry]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What entries say, but for the places of their bytes."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in entries.items()}


@LAWS
@given(st.dictionaries(NAMES, ENTRIES, max_size=30))
def test_what_is_written_is_read_back(entries: dict[str, TensorEntry]) -> None:
    again = expanded(compact(entries))
    assert layouts(again) == layouts(entries)
    at = 0
    for _, tensor in sorted(again.items()):
        assert tensor.start == at
        at = tensor.end


def test_layers_that_are_alike_are_one_line() -> None:
    entries = {f"m.layers.{i}.q.w": entry("F32", (2,)) for i in (*range(6), 8)}
    entries["m.layers.7.q.w"] = entry("F32", (3,))
    assert compact(entries) == {
        "m.layers.{0..5,8}.q.w": "F32 [2]",
        "m.layers.{7}.q.w": "F32 [3]",
    }


def of_several_ranks(at: Path) -> Path:
    return lora(at, rank=dict(zip(SITES, (8, 4, 4, 4), strict=True)))


@pytest.mark.parametrize("make", [lora, ia3, of_several_ranks])
def test_an_adapter_is_the_same_by_its_signature(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    read = read_adapter(make(tmp_path / "a"))
    signature = read.format.signature(read)
    again = read.format.restored(signature, read.directory, read.weights.name)
    assert (again.fields, again.base, again.variant) == (read.fields, read.base, read.variant)
    assert again.fan_in_fan_out == read.fan_in_fan_out
    assert again.whole_modules == read.whole_modules
    assert (again.layout.shapes, again.layout.ranks) == (read.layout.shapes, read.layout.ranks)
    assert (again.scales, again.layout.factors) == (read.scales, read.layout.factors)
    with safe_open(read.weights, "np") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    assert {name: tensor.shape for name, tensor in again.header.entries.items()} == shapes


# --- as anyone may have written it ---------------------------------------------------------

LONG = "x" * 50_000_000
HOSTILE: dict[str, Any] = {
    "numbers of a range again and again": {
        "a." + "{" + ",".join(["0..999999"] * 9999) + "}": "F32 []"
    },
    "a million long names": {LONG + "{0..999999}": "F32 []"},
    "a range in each of many lines": {f"{i}" + "{0..999999}": "F32 []" for i in range(1000)},
    "digits without end": {"a": f"F32 [{'1' * 100_000}x]"},
    "dimensions without end": {"a": f"F32 [{', '.join(['9' * 19] * 100_000)}]"},
    "more bytes than there can be": {"a": "F64 [9999999999999999999]"},
    "bytes that add up": {f"a{i}": "F64 [900000000000000000]" for i in range(3)},
    "a name twice": {"a.{0..3}.b": "F32 []", "a.{2}.b": "F16 []"},
    "a name twice in one line": {"a.{1,1}.b": "F32 []"},
    "a dtype there is not": {"a": "F33 [1]"},
    "a shape of letters": {"a": "F32 [x]"},
    "digits of another script": {"a": "F32 [१]"},
    "a number": {"a": 7},
    "no object": ["a"],
    "nothing": None,
}


@pytest.mark.parametrize("tensors", HOSTILE.values(), ids=HOSTILE)
def test_what_no_file_can_hold_is_refused(tensors: Any) -> None:
    with pytest.raises(Malformed):
        expanded(tensors)


def test_the_names_of_a_signature_fit_into_a_header() -> None:
    assert len(expanded({"a.{0..99999}.b": "F32 []"})) == 100_000
    with pytest.raises(Malformed):
        expanded({f"{'x' * (MAX_HEADER // 100_000)}" + ".{0..99999}.b": "F32 []"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
LINES = st.dictionaries(
    NAMES | st.from_regex(r"[a-z.]*\{[0-9.,]{0,12}\}[a-z{}]*", fullmatch=True),
    st.from_regex(r"[A-Z0-9]{1,5} \[[0-9, ]{0,9}\]", fullmatch=True) | JSON,
    max_size=4,
)
CONFIGS = st.fixed_dictionaries(
    {"peft_type": st.sampled_from(["LORA", "IA3"]) | JSON}, optional={"r": JSON, "lora_alpha": JSON}
)


@LAWS
@given(
    st.fixed_dictionaries(
        {}, optional={"config": CONFIGS | JSON, "tensors": LINES | JSON, "statistics": LINES | JSON}
    )
)
def test_any_json_is_a_signature_or_is_refused(signature: dict[str, Any]) -> None:
    with suppress(Malformed, Fault):
        PEFT.restored(signature, Path("a"), "adapter_model.safetensors")
