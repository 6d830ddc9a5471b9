"""(IA)³ that PEFT made, combined, loaded by PEFT: the logits of the same vectors set by hand."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from peft import IA3Config
from support import PREFIX, build, config_of, error, gains, tensors_of
from support.peft_made import apart, composed, declared, loaded, made, output
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

TOLERANCE = 1e-5
BERT = {"target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]}
LLAMA = {
    "target_modules": ["k_proj", "v_proj", "down_proj"],
    "feedforward_modules": ["down_proj"],
    "task_type": "CAUSAL_LM",
}


def by_hand(
    base: nn.Module, vectors: Mapping[str, Tensor], feeds_forward: Callable[[str], object]
) -> nn.Module:
    """A base whose modules scale their outputs by l, or their inputs where they feed forward."""
    model = copy.deepcopy(base)
    for name, vector in vectors.items():
        module = model.get_submodule(name)
        if feeds_forward(name):
            module.register_forward_pre_hook(lambda _, args, by=vector: (args[0] * by, *args[1:]))
        else:
            flat = vector.flatten() if vector.dim() == 2 else vector
            module.register_forward_hook(lambda _, args, out, by=flat: out * by)
    return model


def combined(parts: Mapping[Path, float]) -> dict[str, Tensor]:
    """1 + Σ c·(l − 1) at every site of any of the adapters; where one has no site, its l is 1."""
    totals: dict[str, Tensor] = {}
    for path, weight in parts.items():
        for site, vector in gains(path).items():
            term = weight * (torch.from_numpy(vector) - 1)
            totals[site] = totals.get(site, torch.zeros_like(term)) + term
    return {site: (1 + total).float() for site, total in totals.items()}


def same_logits(base: nn.Module, ours: Path, wanted: nn.Module, *inputs: Tensor) -> None:
    assert apart(output(wanted, *inputs), output(base, *inputs)) > 1e-3
    assert apart(output(loaded(base, ours), *inputs), output(wanted, *inputs)) < TOLERANCE


SUMS = {
    "a": {"a": 1.0},
    "-a": {"a": -1.0},
    "a + b": {"a": 1.0, "b": 1.0},
    "a - b": {"a": 1.0, "b": -1.0},
    "0.3 * a + 0.7 * b": {"a": 0.3, "b": 0.7},
    "0.3 ⊗ a ⊕ 0.7 ⊗ b": {"a": 0.3, "b": 0.7},
    "a + a": {"a": 2.0},
}


@pytest.mark.parametrize("expression", SUMS)
def test_bert(bert: nn.Module, tmp_path: Path, expression: str) -> None:
    pair = {name: made(bert, tmp_path / name, IA3Config(**BERT), seed)
            for seed, name in enumerate("ab")}  # fmt: skip
    out = composed(tmp_path, pair, expression)
    vectors = combined({pair[name]: weight for name, weight in SUMS[expression].items()})
    same_logits(bert, out, by_hand(bert, vectors, re.compile("output.dense").search))


def test_llama(llama: nn.Module, tmp_path: Path) -> None:
    pair = {name: made(llama, tmp_path / name, IA3Config(**LLAMA), seed)
            for seed, name in enumerate("ab")}  # fmt: skip
    out = composed(tmp_path, pair, "a - 0.4 * b")
    vectors = combined({pair["a"]: 1, pair["b"]: -0.4})
    same_logits(llama, out, by_hand(llama, vectors, re.compile("down_proj").search))
    assert config_of(out)["task_type"] == "CAUSAL_LM"


def test_negation_is_two_minus_l(bert: nn.Module, tmp_path: Path) -> None:
    a = made(bert, tmp_path / "a", IA3Config(**BERT), 0)
    negated, source = tensors_of(composed(tmp_path, {"a": a}, "-a")), tensors_of(a)
    assert all(torch.equal(negated[key], 2 - source[key]) for key in source)


def test_a_zero_is_the_identity(bert: nn.Module, tmp_path: Path) -> None:
    a = made(bert, tmp_path / "a", IA3Config(**BERT), 0)
    ours = loaded(bert, composed(tmp_path, {"a": a}, "a - a"))
    assert torch.equal(output(ours), output(bert))


@pytest.mark.parametrize("expression", ["join(a, 0.5 * b)", "a[layers 0..1]", 'a["*.key"]'])
def test_a_missing_site_is_the_identity(bert: nn.Module, tmp_path: Path, expression: str) -> None:
    pair = {
        "a": made(bert, tmp_path / "a", IA3Config(**BERT), 0),
        "b": made(bert, tmp_path / "b", IA3Config(target_modules=["query", "value"],
                                                  feedforward_modules=[]), 1),
    }  # fmt: skip
    out = composed(tmp_path, pair, expression)
    vectors = combined({pair["a"]: 1, pair["b"]: 0.5} if "b" in expression else {pair["a"]: 1})
    kept = {
        site: vector
        for site, vector in vectors.items()
        if not (("layers" in expression and "layer.2" in site)
                or ("key" in expression and "key" not in site))
    }  # fmt: skip
    assert gains(out).keys() == kept.keys()
    same_logits(bert, out, by_hand(bert, kept, re.compile("output.dense").search))


def test_different_modules_do_not_add(bert: nn.Module, tmp_path: Path) -> None:
    pair = {
        "a": made(bert, tmp_path / "a", IA3Config(**BERT), 0),
        "b": made(bert, tmp_path / "b", IA3Config(target_modules=["query", "value"],
                                                  feedforward_modules=[]), 1),
    }  # fmt: skip
    refusal = error(tmp_path, declared(pair) + 'save a + b to "out"')
    assert (refusal.code, refusal.help) == ("PEM0306", "join(a, b)")


class Convolutions(nn.Module):
    """Convolutions of an image and of a volume, two of each."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv2d(3, 5, 3, padding=1)
        self.flat_in = nn.Conv2d(5, 3, 1)
        self.deep = nn.Conv3d(1, 4, 3, padding=1)
        self.deep_in = nn.Conv3d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.flat_in(torch.tanh(self.flat(x)))
        return self.deep_in(torch.tanh(self.deep(flat[:, None]))).flatten(1)


def test_convolutions(tmp_path: Path) -> None:
    torch.manual_seed(4)
    base = Convolutions().eval()
    config = IA3Config(
        target_modules=["flat", "flat_in", "deep", "deep_in"],
        feedforward_modules=["flat_in", "deep_in"],
    )
    pair = {name: made(base, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    out = composed(tmp_path, pair, "a - 0.5 * b")
    image = torch.randn(2, 3, 6, 5)
    vectors = combined({pair["a"]: 1, pair["b"]: -0.5})
    same_logits(base, out, by_hand(base, vectors, re.compile("_in").search), image)


def test_gpt2_stores_its_weights_transposed(tmp_path: Path) -> None:
    torch.manual_seed(6)
    config = GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2,
                        initializer_range=0.3)  # fmt: skip
    base = GPT2LMHeadModel(config).eval()
    ia3 = IA3Config(
        target_modules=["c_attn", "mlp.c_proj"],
        feedforward_modules=["mlp.c_proj"],
        fan_in_fan_out=True,
    )
    pair = {name: made(base, tmp_path / name, ia3, seed) for seed, name in enumerate("ab")}
    out = composed(tmp_path, pair, "a - 0.5 * b")
    vectors = combined({pair["a"]: 1, pair["b"]: -0.5})
    same_logits(base, out, by_hand(base, vectors, re.compile("c_proj").search))


class Names(nn.Module):
    """Modules whose names end in one another's, with and without a dot between."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(5, 6)
        self.out_proj = nn.Linear(6, 5)
        self.sub = nn.Module()
        self.sub.proj = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.sub.proj(torch.tanh(self.out_proj(torch.tanh(self.proj(x)))))


@pytest.fixture(scope="module")
def names() -> nn.Module:
    torch.manual_seed(5)
    return Names().eval()


@pytest.mark.parametrize(
    ("feedforward", "inputs"),
    [(["proj"], {"proj", "out_proj", "sub.proj"}), ("proj", {"proj"}), ([], set())],
)
@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("2 * a", {"proj", "out_proj", "sub.proj"}),
        ('2 * a["proj", "out_proj"]', {"proj", "out_proj"}),
        ('join(2 * a["sub.proj"], 2 * a["out_proj"])', {"sub.proj", "out_proj"}),
    ],
)
def test_names_that_end_in_one_another(
    names: nn.Module,
    tmp_path: Path,
    feedforward: str | list[str],
    inputs: set[str],
    expression: str,
    kept: set[str],
) -> None:
    config = IA3Config(target_modules=["proj", "out_proj"], feedforward_modules=feedforward)
    a = made(names, tmp_path / "a", config, 0)
    out = composed(tmp_path, {"a": a}, expression)
    vectors = {site: vector for site, vector in combined({a: 2}).items() if site in kept}
    same_logits(names, out, by_hand(names, vectors, inputs.__contains__), torch.randn(3, 5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_once(bert: nn.Module, tmp_path: Path, dtype: torch.dtype) -> None:
    pair = {name: made(bert, tmp_path / name, IA3Config(**BERT), seed, dtype)
            for seed, name in enumerate("ab")}  # fmt: skip
    built = tensors_of(composed(tmp_path, pair, "0.3 * a - 0.7 * b"))
    a, b = (tensors_of(path) for path in pair.values())
    for key, tensor in built.items():
        exact = 1 + 0.3 * (a[key].double() - 1) - 0.7 * (b[key].double() - 1)
        assert torch.equal(tensor, exact.to(dtype))


def test_lora_and_ia3_do_not_mix(bert: nn.Module, trio: dict[str, Path], tmp_path: Path) -> None:
    mixed = {"a": trio["a"], "b": made(bert, tmp_path / "b", IA3Config(**BERT), 0)}
    assert error(tmp_path, declared(mixed) + 'save join(a, b) to "out"').code == "PEM0304"


def test_a_selection_of_outputs_only_has_no_feedforward_modules(
    bert: nn.Module, tmp_path: Path
) -> None:
    a = made(bert, tmp_path / "a", IA3Config(**BERT), 0)
    [built] = build(tmp_path, declared({"a": a}) + 'save a["*.value"] to "out"').outputs
    assert config_of(built.path)["feedforward_modules"] == []
    assert all(key.startswith(PREFIX) and "value" in key for key in tensors_of(built.path))
