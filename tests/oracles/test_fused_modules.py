"""Phi-3 has q, k and v in one module, and gate and up; Llama has each by itself. Two models of one
function, made from one another, and adapters of PEFT on both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoraConfig, PeftConfig
from support import build, delta, error, pem, recipe
from support.peft_made import apart, loaded, made, output
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 16,
    "initializer_range": 0.2, "pad_token_id": 0, "eos_token_id": 1, "rms_norm_eps": 1e-5,
}  # fmt: skip
QKV = '"*.qkv_proj": "*.q_proj[0:32], *.k_proj[32:48], *.v_proj[48:64]"'
GATE_UP = '"*.gate_up_proj": "*.gate_proj[0:48], *.up_proj[48:96]"'
SPLIT, ATTENTION = f"names={{ {GATE_UP}, {QKV} }}", f"names={{ {QKV} }}"
FUSED = ["qkv_proj", "gate_up_proj", "o_proj"]
APART = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "o_proj"]


@pytest.fixture(scope="module")
def phi() -> PreTrainedModel:
    torch.manual_seed(5)
    return Phi3ForCausalLM(Phi3Config(**SIZES)).eval()


@pytest.fixture(scope="module")
def llama(phi: nn.Module) -> PreTrainedModel:
    """The same function, in as many modules as it has parts."""
    weights = {}
    for name, weight in phi.state_dict().items():
        if "qkv_proj" in name:
            parts = zip("qkv", weight.split([32, 16, 16]), strict=True)
            weights |= {name.replace("qkv_proj", f"{part}_proj"): rows for part, rows in parts}
        elif "gate_up_proj" in name:
            parts = zip(("gate", "up"), weight.chunk(2), strict=True)
            weights |= {name.replace("gate_up", part): rows for part, rows in parts}
        else:
            weights[name] = weight
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    model.load_state_dict(weights)
    assert apart(output(phi), output(model)) < 1e-5
    return model


def on_fused(**config: object) -> LoraConfig:
    return LoraConfig(target_modules=FUSED, **{"r": 4, "lora_alpha": 6, **config})


CONFIGS: dict[str, PeftConfig] = {
    "LoRA": on_fused(),
    "rsLoRA, and ranks of their own": on_fused(
        use_rslora=True, rank_pattern={"qkv_proj": 3}, alpha_pattern={"gate_up_proj": 9}
    ),
    "DoRA": on_fused(use_dora=True),
    "LoRA with biases": on_fused(lora_bias=True),
    "IA3": IA3Config(target_modules=["qkv_proj"], feedforward_modules=[]),
    "LoHa": LoHaConfig(r=2, alpha=3, target_modules=FUSED),
    "AdaLoRA": AdaLoraConfig(
        init_r=4, target_r=2, lora_alpha=3, total_step=9, target_modules=FUSED
    ),
}


@pytest.mark.filterwarnings("ignore:Adapter .* have invalid shape")  # as in test_lora_bias
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_an_adapter_of_one_is_an_adapter_of_the_other(
    tmp_path: Path, phi: nn.Module, llama: nn.Module, config: PeftConfig
) -> None:
    directory = made(phi, tmp_path / "fused", config, 1)
    names = SPLIT if "gate_up_proj" in (config.target_modules or ()) else ATTENTION
    [built] = build(tmp_path, f'adapter f = "fused" with {names}\nsave f to "out"\n').outputs
    wanted = output(loaded(phi, directory))
    assert apart(wanted, output(phi)) > 0.05
    assert apart(wanted, output(loaded(llama, built.path))) < 1e-5


def test_a_sum_over_both(tmp_path: Path, phi: nn.Module, llama: nn.Module) -> None:
    """The help that says so, pasted, makes the sum right."""
    made(phi, tmp_path / "fused", on_fused(), 1)
    made(llama, tmp_path / "apart", LoraConfig(r=2, target_modules=APART), 2)
    save = 'adapter a = "apart"\nsave f + a to "out" with dtype=f32\n'
    refused = error(tmp_path, 'adapter f = "fused"\n' + save)
    assert refused.code == "PEM0306"
    declared = str(refused.help).partition(": ")[2]
    assert declared == f'adapter f = "fused" with {SPLIT}'
    [built] = build(tmp_path, f"{declared}\n{save}").outputs
    alone, fused, both = delta(tmp_path / "apart"), delta(tmp_path / "fused"), delta(built.path)
    assert both.keys() == alone.keys()
    layer = "model.layers.1.self_attn"
    for part, rows in (("q", slice(0, 32)), ("k", slice(32, 48)), ("v", slice(48, 64))):
        wanted = fused[f"{layer}.qkv_proj"][rows] + alone[f"{layer}.{part}_proj"]
        assert abs(both[f"{layer}.{part}_proj"] - wanted).max() < 1e-6
    assert loaded(llama, built.path).peft_config["default"].target_modules == set(APART)


@pytest.mark.parametrize("dora", [False, True])
def test_onto_a_checkpoint_that_has_the_parts(
    tmp_path: Path, phi: nn.Module, llama: PreTrainedModel, dora: bool
) -> None:
    directory = made(phi, tmp_path / "fused", on_fused(use_dora=dora), 1)
    llama.save_pretrained(tmp_path / "base")
    bake = 'model m = "base"\nsave m + f to "out"\n'
    refused = error(tmp_path, 'adapter f = "fused"\n' + bake)
    assert refused.code == "PEM0338"
    declared = str(refused.help).partition(": ")[2]
    [built] = build(tmp_path, f"{declared}\n{bake}").outputs
    baked = LlamaForCausalLM.from_pretrained(built.path).eval()
    assert apart(output(loaded(phi, directory)), output(baked)) < 1e-5


@pytest.mark.parametrize(
    ("targets", "rule"),
    [
        (["q_proj", "v_proj"], "*.q_proj[0:32], *.k_proj[32:48], *.v_proj[48:64]"),
        (["q_proj"], "*.q_proj[0:32], *.k_proj[32:48], *.v_proj[48:64]"),
        (["k_proj"], "*.q_proj[0:32], *.k_proj[32:48], *.v_proj[48:64]"),
        (["up_proj"], "*.gate_proj[0:48], *.up_proj[48:96]"),
    ],
)
def test_sizes_of_parts_that_are_not_there(
    tmp_path: Path, phi: nn.Module, llama: nn.Module, targets: list[str], rule: str
) -> None:
    made(phi, tmp_path / "fused", on_fused(), 1)
    made(llama, tmp_path / "apart", LoraConfig(r=2, target_modules=targets), 2)
    text = 'adapter f = "fused"\nadapter a = "apart"\nlet x = f + a\n'
    assert f'"{rule}"' in str(error(tmp_path, text).help)


def test_a_lock_and_a_rebuild_know_parts(
    tmp_path: Path, phi: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(phi, tmp_path / "fused", on_fused(), 1)
    monkeypatch.chdir(tmp_path)
    path = recipe(tmp_path, f'adapter f = "fused" with {SPLIT}\nsave 2 * f to "out"\n')
    assert pem("lock", path).code == 0
    assert "qkv_proj" in (tmp_path / "pem.lock").read_text()
    assert pem("build", path, "--locked").code == 0
    assert pem("verify", "out", "--rebuild").code == 0
