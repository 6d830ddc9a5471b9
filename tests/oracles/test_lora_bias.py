"""`lora_bias`: the bias on B changes the bias of its module, through every operator
that adds; written so that PEFT reads it, and baked as PEFT merges it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.numpy import load_file
from support import build, config_of, error, pem, tensors_of
from support.peft_made import apart, bert, composed, declared, llama, loaded, made, output, together
from torch import nn

import pemlang

# PEFT takes its own biases for factors of which ZeRO-3 kept a part.
pytestmark = pytest.mark.filterwarnings("ignore:Adapter .* have invalid shape")

QUERY = "bert.encoder.layer.0.attention.self.query"
TARGETS = ["query", "value"]


def bias_config(**fields: object) -> LoraConfig:
    return LoraConfig(
        **{"r": 4, "lora_alpha": 6, "lora_bias": True, "target_modules": TARGETS, **fields}
    )


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return bert()


@pytest.fixture(scope="module")
def pair(base: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters with biases of unlike ranks and scales, and one without."""
    folder = tmp_path_factory.mktemp("pair")
    configs = {
        "a": bias_config(),
        "b": bias_config(r=2, lora_alpha=3, use_rslora=True, alpha_pattern={"value": 5}),
        "plain": bias_config(lora_bias=False),
    }
    return {name: made(base, folder / name, x, i) for i, (name, x) in enumerate(configs.items())}


def biases(model: PeftModel) -> dict[str, torch.Tensor]:
    """s·bias of each module."""
    return {
        name: module.lora_B["default"].bias.detach().double() * module.scaling["default"]
        for name, module in model.base_model.model.named_modules()
        if getattr(module, "lora_bias", {}).get("default")
    }


@pytest.mark.parametrize("options", ["", "reader=peft", "rank=32"])
def test_a_sum_is_both_at_once(
    base: nn.Module, pair: dict[str, Path], tmp_path: Path, options: str
) -> None:
    both = {name: pair[name] for name in "ab"}
    weights = {"a": 0.5, "b": -2.0}
    out = composed(tmp_path, both, "0.5 * a - 2 * b", options)
    assert config_of(out)["lora_bias"] is True
    wanted = output(together(base, both, weights))
    assert apart(output(base), wanted) > 1e-2
    assert apart(output(loaded(base, out)), wanted) < 1e-5


def test_one_without_a_bias_is_joined(
    base: nn.Module, pair: dict[str, Path], tmp_path: Path
) -> None:
    both = {name: pair[name] for name in ("a", "plain")}
    refused = error(tmp_path, declared(both) + 'save a + plain to "out"')
    assert (refused.code, refused.help) == ("PEM0306", "join(a, plain)")
    out = composed(tmp_path, both, "join(a, plain)")
    assert apart(output(loaded(base, out)), output(together(base, both))) < 1e-5


def test_modules_without_one_get_zeros(
    base: nn.Module, pair: dict[str, Path], tmp_path: Path
) -> None:
    both = {name: pair[name] for name in ("a", "plain")}
    out = composed(tmp_path, both, 'join(a["*.query"], plain["*.value"])')
    own = biases(loaded(base, out))
    first = biases(loaded(base, pair["a"]))
    assert len(own) == 6
    for name, bias in own.items():
        wanted = first[name] if name.endswith("query") else torch.zeros(32).double()
        assert torch.allclose(bias, wanted, atol=1e-6), name


def test_biases_alone_have_loras_of_zeros(
    base: nn.Module, pair: dict[str, Path], tmp_path: Path
) -> None:
    x = 'per { "*.bias": 1, else: 0 } * a'
    out = composed(tmp_path, {"a": pair["a"]}, x)
    model, first = loaded(base, out), biases(loaded(base, pair["a"]))
    for name, bias in biases(model).items():
        assert torch.allclose(bias, first[name], atol=1e-6)
        assert not model.get_submodule(f"base_model.model.{name}").get_delta_weight("default").any()


def test_parameterwise(base: nn.Module, tmp_path: Path) -> None:
    """⊕ adds B's bias to B's bias, ⊖ turns it with B, and λ⊗ scales both."""
    ab = {n: made(base, tmp_path / n, bias_config(), i) for i, n in enumerate("ab")}
    out = composed(tmp_path, ab, "0.5 ⊗ a ⊖ b")
    a, b, new = (tensors_of(x) for x in (*ab.values(), out))
    scales = [config_of(x)["lora_alpha"] / config_of(x)["r"] for x in (out, ab["a"])]
    for key, x in new.items():
        ratio = scales[1] / scales[0] if "lora_B" in key else 1
        sign = 1 if "lora_A" in key else -1
        np.testing.assert_allclose(x, ratio * (0.5 * a[key] + sign * b[key]), atol=1e-6)


def test_a_cut_keeps_biases(base: nn.Module, pair: dict[str, Path], tmp_path: Path) -> None:
    first = biases(loaded(base, pair["a"]))
    for expression in ("compress(a, rank=2)", "compress(a, energy=0.5)", "pad(a, rank=6)"):
        own = biases(loaded(base, composed(tmp_path, pair, expression)))
        for name, bias in first.items():
            assert torch.allclose(own[name], bias, rtol=1e-6, atol=0), (expression, name)


def test_ties_elects_each_entry(base: nn.Module, pair: dict[str, Path], tmp_path: Path) -> None:
    """A bias is trimmed, elected and summed as any tensor: by hand at one module."""
    both = {name: pair[name] for name in "ab"}
    out = composed(tmp_path, both, "ties([a, b], density=0.5, rank=32)")
    xs = np.stack([biases(loaded(base, x))[QUERY].numpy() for x in both.values()])
    for x in xs:
        x[np.abs(x) < np.sort(np.abs(x))[len(x) // 2]] = 0
    elected = np.sign(xs.sum(axis=0))
    kept = np.where(np.sign(xs) == elected, xs, 0)
    wanted = kept.sum(axis=0) / np.maximum(1, (kept != 0).sum(axis=0))
    np.testing.assert_allclose(biases(loaded(base, out))[QUERY], wanted, atol=1e-6)


def test_the_norm_counts_them(base: nn.Module, pair: dict[str, Path], tmp_path: Path) -> None:
    model = loaded(base, pair["a"])
    square = sum(float((x**2).sum()) for x in biases(model).values())
    for module in model.modules():
        if hasattr(module, "get_delta_weight"):
            square += float((module.get_delta_weight("default").double() ** 2).sum())
    head = declared({"a": pair["a"]})
    near = f"norm(a) > {0.99999 * square**0.5} and norm(a) < {1.00001 * square**0.5}"
    (tmp_path / "r.pem").write_text(f'{head}assert {near}\nsave a to "out"')
    assert pem("build", tmp_path / "r.pem").code == 0


def test_baked_as_peft_merges(base: nn.Module, pair: dict[str, Path], tmp_path: Path) -> None:
    base.save_pretrained(tmp_path / "base")
    model = PeftModel.from_pretrained(copy.deepcopy(base), str(pair["a"]))
    wanted = model.merge_and_unload().state_dict()
    recipe = f'base z = "base"\nmodel b on z = "base"\nadapter a on z = "{pair["a"]}"\n'
    [built] = build(tmp_path, recipe + 'save b + a to "merged"').outputs
    moved = 0
    for key, x in load_file(built.path / "model.safetensors").items():
        np.testing.assert_allclose(x, wanted[key], atol=1e-6)
        moved += "query.bias" in key and bool(np.abs(x).sum())
    assert moved == 3


def test_a_base_without_that_bias(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    made(llama(), tmp_path / "a", bias_config(target_modules=["q_proj"]), 0)
    recipe = 'base z = "base"\nmodel b on z = "base"\nadapter a on z = "a"\nsave b + a to "out"'
    refused = error(tmp_path, recipe)
    assert refused.code == "PEM0338"
    assert "q_proj.bias" in refused.message


def test_on_a_live_model(base: nn.Module, pair: dict[str, Path]) -> None:
    """Put onto a model beside what it has, zeros for biases too."""
    model = PeftModel.from_pretrained(copy.deepcopy(base), str(pair["a"])).eval()
    both = {name: pair[name] for name in ("a", "plain")}
    text = declared(both) + 'let z = join(a["*.query"], plain["*.value"])\n'
    (pair["a"].parent / "live.pem").write_text(text)
    pemlang.apply(model, pair["a"].parent / "live.pem", "z")
    model.set_adapter("z")
    for name, module in model.base_model.model.named_modules():
        if getattr(module, "lora_bias", {}).get("z"):
            given = module.lora_B["default"].bias * module.scaling["default"]
            wanted = given if name.endswith("query") else torch.zeros(32)
            own = module.lora_B["z"].bias * module.scaling["z"]
            assert torch.allclose(own, wanted, atol=1e-6), name
