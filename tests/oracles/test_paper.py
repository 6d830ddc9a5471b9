"""The paper's operators and its four settings, against its formulas written on the tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from support import build, config_of, ia3, lora, tensors_of
from support.peft_made import apart, composed, declared, loaded, made, merged, output
from torch import Tensor, nn

Formula = Callable[..., Tensor]


@pytest.fixture
def loras(tmp_path: Path) -> dict[str, Path]:
    return {name: lora(tmp_path / name, seed, rank=4) for seed, name in enumerate("abc")}


@pytest.fixture
def vectors(tmp_path: Path) -> dict[str, Path]:
    return {name: ia3(tmp_path / name, seed) for seed, name in enumerate("abc")}


def f32(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float32)


# For each expression what the paper says of A and of B, in float32, one operation at a time.
EXACT: dict[str, tuple[Formula, Formula]] = {
    "a ⊕ b": (lambda a, b, c: a + b, lambda a, b, c: a + b),
    "a ⊖ b": (lambda a, b, c: a + b, lambda a, b, c: a - b),
    "⊖a": (lambda a, b, c: a, lambda a, b, c: -a),
    "⊖(⊖a)": (lambda a, b, c: a, lambda a, b, c: a),
    "0.3 ⊗ a": (lambda a, b, c: f32(0.3) * a, lambda a, b, c: f32(0.3) * a),
    "-1 ⊗ a": (lambda a, b, c: -a, lambda a, b, c: -a),
    "-1 ⊗ ⊖a": (lambda a, b, c: -a, lambda a, b, c: a),
    "a ⊕ -1 ⊗ ⊖b": (lambda a, b, c: a - b, lambda a, b, c: a + b),
    "⊖a ⊕ b": (lambda a, b, c: a + b, lambda a, b, c: b - a),
    "0.3 ⊗ a ⊕ (1 - 0.3) ⊗ b": (
        lambda a, b, c: f32(0.3) * a + f32(0.7) * b,
        lambda a, b, c: f32(0.3) * a + f32(0.7) * b,
    ),
}


@pytest.mark.parametrize("expression", EXACT)
def test_operators_on_lora_bit_for_bit(
    tmp_path: Path, loras: dict[str, Path], expression: str
) -> None:
    out = composed(tmp_path, loras, expression)
    sources = [tensors_of(path) for path in loras.values()]
    on_a, on_b = EXACT[expression]
    for key, tensor in tensors_of(out).items():
        formula = on_a if "lora_A" in key else on_b
        assert torch.equal(tensor, formula(*(source[key] for source in sources)))
    assert (config_of(out)["r"], config_of(out)["lora_alpha"]) == (4, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_once(tmp_path: Path, dtype: torch.dtype) -> None:
    pair = {name: lora(tmp_path / name, seed, dtype=dtype) for seed, name in enumerate("ab")}
    a, b = (tensors_of(path) for path in pair.values())
    for key, tensor in tensors_of(composed(tmp_path, pair, "0.3 ⊗ a ⊕ b")).items():
        wanted = f32(0.3) * a[key].float() + b[key].float()
        assert torch.equal(tensor, wanted.to(dtype))


# What the paper says of an (IA)³ vector l, in terms of g = l − 1.
GAINS: dict[str, Formula] = {
    "a ⊕ b": lambda a, b, c: a + b,
    "a ⊖ b": lambda a, b, c: a - b,
    "⊖a": lambda a, b, c: -a,
    "-a": lambda a, b, c: -a,
    "a + b": lambda a, b, c: a + b,
    "0.3 ⊗ a ⊕ (1 - 0.3) ⊗ b": lambda a, b, c: 0.3 * a + 0.7 * b,
    "0.3 * a + 0.7 * b - 2 * c": lambda a, b, c: 0.3 * a + 0.7 * b - 2 * c,
}


def same_gains(out: Path, vectors: dict[str, Path], formula: Formula) -> None:
    sources = [tensors_of(path) for path in vectors.values()]
    for key, tensor in tensors_of(out).items():
        wanted = 1 + formula(*(source[key].double() - 1 for source in sources))
        assert torch.allclose(tensor, wanted.float(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("expression", GAINS)
def test_operators_on_ia3(tmp_path: Path, vectors: dict[str, Path], expression: str) -> None:
    same_gains(composed(tmp_path, vectors, expression), vectors, GAINS[expression])


def test_negated_ia3_is_two_minus_l(tmp_path: Path, vectors: dict[str, Path]) -> None:
    negated, source = tensors_of(composed(tmp_path, vectors, "⊖a")), tensors_of(vectors["a"])
    assert all(torch.equal(tensor, 2 - source[key]) for key, tensor in negated.items())


# The settings of sections 4.1 to 4.5: the call, then A, B and g.
SETTINGS: dict[str, tuple[Formula, Formula, Formula]] = {
    "merge(a, b, weight=0.3)": (
        lambda a, b, c: 0.3 * a + 0.7 * b,
        lambda a, b, c: 0.3 * a + 0.7 * b,
        lambda a, b, c: 0.3 * a + 0.7 * b,
    ),
    "merge(a, b)": (
        lambda a, b, c: (a + b) / 2,
        lambda a, b, c: (a + b) / 2,
        lambda a, b, c: (a + b) / 2,
    ),
    "transfer(a, b, c, weight=0.3)": (
        lambda a, b, c: 0.3 * a + 0.7 * (b + c),
        lambda a, b, c: 0.3 * a + 0.7 * (b - c),
        lambda a, b, c: 0.3 * a + 0.7 * (b - c),
    ),
    "detoxify(a, b, weight=0.4)": (
        lambda a, b, c: a + 0.4 * (a + b),
        lambda a, b, c: a + 0.4 * (a - b),
        lambda a, b, c: a + 0.4 * (a - b),
    ),
}


def call(folder: Path, adapters: dict[str, Path], expression: str) -> Path:
    """The output of a call of a function of stdlib/paper.pem."""
    name = expression.split("(", maxsplit=1)[0]
    head = declared(adapters) + f"import std.paper ({name})\n"
    [built] = build(folder, head + f'save {expression} to "out"').outputs
    return built.path


@pytest.mark.parametrize("expression", SETTINGS)
def test_settings_on_lora(tmp_path: Path, loras: dict[str, Path], expression: str) -> None:
    out = call(tmp_path, loras, expression)
    sources = [tensors_of(path) for path in loras.values()]
    for key, tensor in tensors_of(out).items():
        formula = SETTINGS[expression][0 if "lora_A" in key else 1]
        wanted = formula(*(source[key].double() for source in sources))
        assert torch.allclose(tensor.double(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("expression", SETTINGS)
def test_settings_on_ia3(tmp_path: Path, vectors: dict[str, Path], expression: str) -> None:
    same_gains(call(tmp_path, vectors, expression), vectors, SETTINGS[expression][2])


@pytest.mark.parametrize(("call_", "weight"), [("unlearn(a)", 1), ("unlearn(a, weight=0.5)", 0.5)])
def test_unlearning(
    tmp_path: Path,
    loras: dict[str, Path],
    vectors: dict[str, Path],
    call_: str,
    weight: float,
) -> None:
    """⊖a does −Δ, and half of it is undone at weight one half."""
    out, source = tensors_of(call(tmp_path / "lora", loras, call_)), tensors_of(loras["a"])
    for key in (key for key in source if "lora_A" in key):
        other = key.replace("lora_A", "lora_B")
        done = out[other].double() @ out[key].double()
        wanted = -weight * (source[other].double() @ source[key].double())
        assert torch.allclose(done, wanted, rtol=0, atol=1e-6)
    same_gains(call(tmp_path / "ia3", vectors, call_), vectors, lambda a, b, c: -weight * a)


@pytest.mark.parametrize(
    ("paper", "ascii_"),
    [
        ("a ⊕ b", "a .+ b"),
        ("a ⊖ b", "a .- b"),
        ("⊖a", ".-a"),
        ("0.3 ⊗ a ⊕ (1 - 0.3) ⊗ (b ⊖ c)", "0.3 .* a .+ (1 - 0.3) .* (b .- c)"),
    ],
)
def test_ascii_spellings_are_the_same_operators(
    tmp_path: Path, loras: dict[str, Path], paper: str, ascii_: str
) -> None:
    build(tmp_path, declared(loras) + f'save {paper} to "one"\nsave {ascii_} to "other"')
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(
    ("expression", "weights"),
    [("a ⊕ b", {"a": 1.0, "b": 1.0}), ("0.5 ⊗ a ⊕ 0.2 ⊗ b", {"a": 0.25, "b": 0.04})],
)
def test_addition_is_pefts_linear(
    bert: nn.Module, tmp_path: Path, expression: str, weights: dict[str, float]
) -> None:
    """PEFT's `linear` takes the root of a weight to A and to B, and so has ⊕'s cross terms."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "dense"])
    pair = {name: made(bert, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    ours = output(loaded(bert, composed(tmp_path, pair, expression)))
    wanted = output(merged(bert, pair, weights, combination_type="linear"))
    exact = output(merged(bert, pair, weights, combination_type="cat"))
    assert apart(wanted, exact) > 1e-2
    assert apart(ours, wanted) < 1e-5
