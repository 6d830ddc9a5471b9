"""model + adapter against PEFT's merge_and_unload: every tensor, and the logits of what
transformers loads again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import IA3Config, LoraConfig, PeftModel
from support import build
from support.peft_made import made
from torch import Tensor, nn

TOLERANCE = 1e-6
IDS = torch.tensor([[1, 5, 7, 2, 9, 30, 3], [4, 8, 6, 11, 0, 39, 21]])
PIXELS = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 48, "initializer_range": 0.2}  # fmt: skip
TEXT = {"vocab_size": 40, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1}
GROUPED = {**SIZES, **TEXT, "num_key_value_heads": 2}
SEEN = {**SIZES, "image_size": 16, "patch_size": 8}


@dataclass(frozen=True)
class Architecture:
    """A kind of model: how one is made, what it is given, and what adapters of it target."""

    make: Callable[[], nn.Module]
    inputs: Mapping[str, Tensor]
    targets: list[str]
    gains: list[str]
    inward: list[str]
    other: dict[str, Any] = field(default_factory=dict)


def _qwen_moe() -> nn.Module:
    return transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(
            **GROUPED,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=24,
        )
    )


def _gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=40,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=16,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def _t5() -> nn.Module:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=40,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
        )
    )


def _clip() -> nn.Module:
    text = {**SIZES, **TEXT, "pad_token_id": 2}
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=SEEN, projection_dim=16)
    )


def _llava() -> nn.Module:
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config=transformers.CLIPVisionConfig(**SEEN),
            text_config=transformers.LlamaConfig(**GROUPED),
        )
    )


def _qwen_vl() -> nn.Module:
    text = {**GROUPED, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
    seen = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "patch_size": 4}
    return transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(text_config=text, vision_config=seen)
    )


ATTENTION, IDS_ONLY = ["q_proj", "v_proj"], {"input_ids": IDS}
BERT = transformers.BertConfig(**SIZES, **TEXT)
ARCHITECTURES = {
    "llama": Architecture(
        lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED)),
        IDS_ONLY,
        [*ATTENTION, "down_proj", "embed_tokens", "lm_head"],
        ["k_proj", "v_proj", "down_proj"],
        ["down_proj"],
    ),
    "qwen-moe": Architecture(
        _qwen_moe,
        IDS_ONLY,
        [*ATTENTION, "shared_expert.up_proj", "shared_expert.down_proj"],
        ["k_proj", "v_proj", "shared_expert.down_proj"],
        ["shared_expert.down_proj"],
    ),
    "gpt-2": Architecture(
        _gpt2,
        IDS_ONLY,
        ["c_attn", "c_proj", "c_fc", "wpe"],
        ["c_attn", "attn.c_proj", "mlp.c_proj"],
        ["mlp.c_proj"],
        {"fan_in_fan_out": True},
    ),
    "bert": Architecture(
        lambda: transformers.BertForSequenceClassification(BERT),
        IDS_ONLY,
        ["query", "value", "output.dense", "word_embeddings"],
        ["key", "value", "output.dense"],
        ["output.dense"],
        {"modules_to_save": ["classifier"]},
    ),
    "t5": Architecture(
        _t5,
        {"input_ids": IDS, "decoder_input_ids": IDS},
        ["q", "v", "wo"],
        ["k", "v", "wo"],
        ["wo"],
    ),
    "vit": Architecture(
        lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**SEEN)),
        {"pixel_values": PIXELS},
        ["q_proj", "fc2", "projection"],
        ["k_proj", "v_proj", "fc2", "projection"],
        ["fc2"],
        {"modules_to_save": ["classifier"]},
    ),
    "clip": Architecture(
        _clip,
        {"input_ids": IDS, "pixel_values": PIXELS},
        [*ATTENTION, "fc1", "patch_embedding", "visual_projection", "token_embedding"],
        ["k_proj", "v_proj", "fc2"],
        ["fc2"],
    ),
    "llava": Architecture(
        _llava,
        IDS_ONLY,
        [*ATTENTION, "linear_1", "lm_head"],
        ["k_proj", "v_proj", "down_proj"],
        ["down_proj"],
    ),
    "qwen2-vl": Architecture(
        _qwen_vl,
        IDS_ONLY,
        [*ATTENTION, "attn.proj", "fc1", "lm_head"],
        ["k_proj", "v_proj", "down_proj", "fc2"],
        ["down_proj", "fc2"],
    ),
}  # fmt: skip

LORA: dict[str, dict[str, Any]] = {
    "lora": {"r": 3, "lora_alpha": 6},
    "rslora": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "dora": {"r": 3, "lora_alpha": 6, "use_dora": True},
    "patterns": {"r": 3, "rank_pattern": {r".*\.0\..*": 2}, "alpha_pattern": {r".*\.1\..*": 5}},
}


def _adapter(of: Architecture, method: str) -> LoraConfig | IA3Config:
    if method == "ia3":
        return IA3Config(target_modules=of.gains, feedforward_modules=of.inward, **of.other)
    return LoraConfig(target_modules=of.targets, **LORA[method], **of.other)


def _moved_heads(model: PeftModel) -> None:
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)


def bases(folder: Path, make: Callable[[], nn.Module]) -> nn.Module:
    """A model whose biases are not zero, saved."""
    torch.manual_seed(5)
    model = make().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder / "base")
    return model


def merged(model: nn.Module, adapter: Path) -> nn.Module:
    """What PEFT makes of the two."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = PeftModel.from_pretrained(copy.deepcopy(model), str(adapter))
        return whole.merge_and_unload().eval()  # type: ignore[operator]


def reloaded(model: nn.Module, directory: Path) -> nn.Module:
    """What transformers loads, with no key missing and none too many."""
    new, seen = type(model).from_pretrained(directory, output_loading_info=True)
    assert not any(seen[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return new.eval()


def logits(model: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [x for x in model(**inputs).to_tuple() if isinstance(x, Tensor)]


RECIPE = 'base b = "base"\nadapter x on b = "x"\nsave b + x to "out"\n'


@pytest.mark.parametrize("method", [*LORA, "ia3"])
@pytest.mark.parametrize("of", ARCHITECTURES.values(), ids=list(ARCHITECTURES))
def test_a_bake_equals_pefts_merge_and_unload(
    of: Architecture, method: str, tmp_path: Path
) -> None:
    model = bases(tmp_path, of.make)
    made(model, tmp_path / "x", _adapter(of, method), seed=3, train=_moved_heads)
    build(tmp_path, RECIPE)
    wanted, ours = merged(model, tmp_path / "x"), reloaded(model, tmp_path / "out")
    tensors = wanted.state_dict()
    assert set(ours.state_dict()) == set(tensors)
    changed = 0
    for name, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, tensors[name], rtol=0, atol=TOLERANCE), name
        changed += not torch.equal(tensor, model.state_dict()[name])
    assert changed >= 4
    for new, old in zip(logits(ours, of.inputs), logits(wanted, of.inputs), strict=True):
        assert torch.allclose(new, old, rtol=1e-5, atol=1e-5)
