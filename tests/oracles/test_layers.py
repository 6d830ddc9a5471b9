"""Every kind of layer PEFT adapts: sums, ⊕ and truncation, loaded back by PEFT."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from support import PREFIX, build, config_of, delta, error, tensors_of
from support.outputs import CONFIG
from support.peft_made import apart, composed, declared, loaded, made, merged, output, together
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

TOLERANCE = 1e-5


class Wrapped(nn.Module):
    """A layer inside a model, and something after it."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.part(x))


@dataclass(frozen=True)
class Layer:
    """A kind of layer: how one is made, its input, and the (out, in) of its Δ as a matrix."""

    make: Callable[[], nn.Module]
    x: Callable[[], Tensor]
    shape: tuple[int, int]
    transposed: bool = False

    @property
    def base(self) -> nn.Module:
        torch.manual_seed(7)
        return Wrapped(self.make()).eval()


LAYERS = {
    "linear": Layer(lambda: nn.Linear(6, 9), lambda: torch.randn(4, 6), (9, 6)),
    "embedding": Layer(
        lambda: nn.Embedding(11, 8), lambda: torch.tensor([[0, 3, 3], [10, 7, 1]]), (8, 11)
    ),
    "conv1d": Layer(lambda: nn.Conv1d(3, 7, 3, padding=1), lambda: torch.randn(2, 3, 9), (7, 9)),
    "conv2d": Layer(
        lambda: nn.Conv2d(3, 8, (3, 2), stride=2, padding=1),
        lambda: torch.randn(2, 3, 6, 7),
        (8, 18),
    ),
    "conv2d 1×1": Layer(lambda: nn.Conv2d(6, 5, 1), lambda: torch.randn(2, 6, 3, 3), (5, 6)),
    "conv3d": Layer(lambda: nn.Conv3d(2, 6, 2), lambda: torch.randn(1, 2, 4, 3, 3), (6, 16)),
    "gpt-2": Layer(lambda: Conv1D(9, 6), lambda: torch.randn(4, 6), (9, 6), transposed=True),
}
each_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=list(LAYERS))


def pair_on(layer: Layer, folder: Path, **other: int) -> dict[str, Path]:
    """Two adapters of a layer: of rank 3 and scale 2, unless the second is told otherwise."""
    sizes = {"a": {"r": 3, "lora_alpha": 6}, "b": {"r": 3, "lora_alpha": 6, **other}}
    return {
        name: made(
            layer.base,
            folder / name,
            LoraConfig(target_modules=["part"], fan_in_fan_out=layer.transposed, **size),
            seed,
        )
        for seed, (name, size) in enumerate(sizes.items())
    }


def matrix(directory: Path) -> NDArray[np.float64]:
    """Δ at the one site of an adapter as a matrix (out, in·kernel)."""
    tensors, config = tensors_of(directory), config_of(directory)
    [a] = [t for key, t in tensors.items() if "_A" in key]
    [b] = [t for key, t in tensors.items() if "_B" in key]
    rank = a.shape[0]
    product = b.double().reshape(-1, rank) @ a.double().reshape(rank, -1)
    return (config["lora_alpha"] / rank * product).numpy()


@each_layer
def test_a_sum_equals_both_adapters_active(layer: Layer, tmp_path: Path) -> None:
    pair, x = pair_on(layer, tmp_path, r=2, lora_alpha=5), layer.x()
    ours = loaded(layer.base, composed(tmp_path, pair, "a - 0.7 * b"))
    wanted = output(together(layer.base, pair, {"a": 1.0, "b": -0.7}), x)
    assert apart(wanted, output(layer.base, x)) > 1e-2
    assert apart(output(ours, x), wanted) < TOLERANCE


@each_layer
def test_parameter_addition_equals_pefts_linear(layer: Layer, tmp_path: Path) -> None:
    pair, x = pair_on(layer, tmp_path), layer.x()
    ours = loaded(layer.base, composed(tmp_path, pair, "0.5 ⊗ a ⊕ b"))
    wanted = merged(layer.base, pair, {"a": 0.25, "b": 1.0}, combination_type="linear")
    assert apart(output(ours, x), output(wanted, x)) < TOLERANCE


@each_layer
@pytest.mark.parametrize("rank", [1, 4])
def test_truncation_is_the_best_of_its_rank(layer: Layer, tmp_path: Path, rank: int) -> None:
    pair = pair_on(layer, tmp_path, r=2, lora_alpha=5)
    [built] = build(
        tmp_path, declared(pair) + f'save a + b to "out" with rank={rank}, dtype=f64'
    ).outputs
    whole = matrix(pair["a"]) + matrix(pair["b"])
    assert whole.shape == layer.shape
    u, values, vt = np.linalg.svd(whole, full_matrices=False)
    wanted = (u[:, :rank] * values[:rank]) @ vt[:rank]
    assert np.linalg.norm(matrix(built.path) - wanted) <= 1e-6 * np.linalg.norm(whole)
    assert built.loss is not None
    lost = np.linalg.norm(values[rank:]) / np.linalg.norm(values)
    assert built.loss.total == pytest.approx(lost, rel=1e-6)


@each_layer
def test_a_truncated_adapter_does_what_its_matrix_says(layer: Layer, tmp_path: Path) -> None:
    """What PEFT makes of the output's files is the Δ of the test above."""
    pair = pair_on(layer, tmp_path)
    model = loaded(layer.base, composed(tmp_path, pair, "a + b", "rank=2"))
    [part] = [m for m in model.modules() if isinstance(m, LoraLayer)]
    change = part.get_delta_weight("default").detach()
    if "embedding" in type(part).__name__.lower() or layer.transposed:
        change = change.T
    assert np.allclose(change.reshape(layer.shape), matrix(tmp_path / "out"), atol=TOLERANCE)


@each_layer
def test_a_rank_above_the_matrix_is_an_error(layer: Layer, tmp_path: Path) -> None:
    pair, least = pair_on(layer, tmp_path), min(layer.shape)
    save = 'save a + b to "out" with rank='
    assert build(tmp_path, f"{declared(pair)}{save}{least}").outputs[0].rank == min(6, least)
    refusal = error(tmp_path, f"{declared(pair)}{save}{least + 1}")
    assert (refusal.code, refusal.help) == ("PEM0310", f"{save}{least}")


@pytest.mark.parametrize("not_said", ["", "a", "b"])
def test_gpt2_whatever_the_configs_say_of_fan_in_fan_out(tmp_path: Path, not_said: str) -> None:
    torch.manual_seed(8)
    config = GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3
    )
    base = GPT2LMHeadModel(config).eval()
    lora = LoraConfig(
        r=3, task_type="CAUSAL_LM", fan_in_fan_out=True, target_modules=["c_attn", "c_proj"]
    )
    pair = {name: made(base, tmp_path / name, lora, seed) for seed, name in enumerate("ab")}
    for name in not_said:
        config = config_of(pair[name]) | {"fan_in_fan_out": False}
        (pair[name] / CONFIG).write_text(json.dumps(config))
    out = composed(tmp_path, pair, "a - 0.7 * b")
    assert config_of(out)["fan_in_fan_out"] is True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says that it takes the field from the module
        wanted = output(together(base, pair, {"a": 1.0, "b": -0.7}))
    assert apart(output(loaded(base, out)), wanted) < TOLERANCE


def test_the_embedding_of_a_language_model(llama: nn.Module, tmp_path: Path) -> None:
    lora = LoraConfig(r=3, task_type="CAUSAL_LM", target_modules=["embed_tokens", "q_proj"])
    pair = {name: made(llama, tmp_path / name, lora, seed) for seed, name in enumerate("ab")}
    out = composed(tmp_path, pair, "a - 0.7 * b", "rank=5")
    assert f"{PREFIX}model.embed_tokens.lora_embedding_A" in tensors_of(out)
    full = composed(tmp_path / "full", pair, "a - 0.7 * b")
    wanted = output(together(llama, pair, {"a": 1.0, "b": -0.7}))
    assert apart(output(loaded(llama, full)), wanted) < TOLERANCE
    assert apart(output(loaded(llama, out)), wanted) > 1e-4


class Attention(nn.Module):
    """An nn.MultiheadAttention, which PEFT adapts as two layers in one."""

    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.mha(x, x, x)[0]


def attentions(base: nn.Module, folder: Path, **spec: object) -> dict[str, Path]:
    specs = {"a": spec, "b": {"lora_alpha": 5}}
    return {
        name: made(base, folder / name, LoraConfig(r=3, target_modules=["mha"], **part), seed)  # type: ignore[arg-type]
        for seed, (name, part) in enumerate(specs.items())
    }


@pytest.mark.parametrize(
    ("spec", "expression", "weights"),
    [
        ({"lora_alpha": 6}, "a - 0.7 * b", {"a": 1.0, "b": -0.7}),
        ({"alpha_pattern": {"mha": 11}}, "a - 0.7 * b", {"a": 1.0, "b": -0.7}),
        ({"rank_pattern": {"mha": 2}}, "a - 0.7 * b", {"a": 1.0, "b": -0.7}),
        ({"rank_pattern": {"mha": 2}}, "a[like b]", {"a": 1.0}),
    ],
)
def test_multihead_attention(
    tmp_path: Path, spec: dict[str, object], expression: str, weights: dict[str, float]
) -> None:
    torch.manual_seed(9)
    base, x = Attention().eval(), torch.randn(2, 5, 8)
    pair = attentions(base, tmp_path, **spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT merges such a layer's adapters one after another
        wanted = output(together(base, pair, weights), x)
    assert apart(wanted, output(base, x)) > 1e-2
    out = composed(tmp_path, pair, expression)
    assert apart(output(loaded(base, out), x), wanted) < TOLERANCE


def test_a_multihead_attention_has_one_rank(tmp_path: Path) -> None:
    pair = attentions(Attention(), tmp_path)
    out = composed(tmp_path, pair, 'join(a, per { "mha": 1, else: 0 } * b)')
    ours, a, b = (delta(path) for path in (out, pair["a"], pair["b"]))
    assert len(ours) == 2 and config_of(out)["r"] == 6
    for site, matrix in ours.items():
        assert abs(matrix - (a[site] + b[site] * site.endswith("mha"))).max() < TOLERANCE
    loaded(Attention(), out)


def test_a_grouped_convolution_is_an_error(tmp_path: Path) -> None:
    base = Wrapped(nn.Conv2d(4, 6, 3, groups=2))
    a = made(base, tmp_path / "a", LoraConfig(r=2, target_modules=["part"]), 0)
    refusal = error(tmp_path, declared({"a": a}) + 'save 2 * a to "out"')
    assert refusal.code == "PEM0421"
    assert "grouped convolution" in refusal.message


def test_kinds_of_layer_side_by_side(tmp_path: Path) -> None:
    """One adapter of a linear layer, an embedding and a convolution."""
    torch.manual_seed(10)
    base = nn.ModuleDict({"e": nn.Embedding(9, 6), "f": nn.Linear(6, 6), "c": nn.Conv1d(6, 4, 2)})
    base.forward = lambda x: base["c"](base["f"](base["e"](x)).mT)  # type: ignore[method-assign]
    base.eval()
    config = LoraConfig(r=2, target_modules=["e", "f", "c"], rank_pattern={"c": 3})
    pair = {name: made(base, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    out = composed(tmp_path, pair, 'a + per { "e": 0, else: -1 } * b')
    x = torch.tensor([[1, 2, 8, 0]])
    wanted = together(base, pair, {"a": 1.0, "b": lambda name: 0.0 if name == "e" else -1.0})
    assert apart(output(loaded(base, out), x), output(wanted, x)) < TOLERANCE
    assert math.prod(tensors_of(out)[f"{PREFIX}e.lora_embedding_A"].shape) == 2 * 9
