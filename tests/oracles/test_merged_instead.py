"""What is refused because it needs its base, and the way that the message names: merged by PEFT,
and taken as what that changes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from support import error, pem
from support.peft_made import llama, made

CONFIGS = {
    "a bias on B": LoraConfig(r=2, lora_bias=True, target_modules=["q_proj"]),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_what_it_changes_is_the_merged_model_without_its_base(
    config: LoraConfig, tmp_path: Path
) -> None:
    base = llama()
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if config.lora_bias:
        for layer in base.model.layers:
            layer.self_attn.q_proj.bias = torch.nn.Parameter(torch.ones(32))
        base.config.attention_bias = True
    made(base, tmp_path / "x", config, 0)
    refused = error(tmp_path, 'adapter x = "x"\nsave x to "out"')
    assert refused.code == "PEM0421"
    assert refused.help is not None and "m - b" in refused.help
    base.save_pretrained(tmp_path / "base")
    model = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "x"))
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    (tmp_path / "r.pem").write_text(
        'base z = "base"\nmodel b on z = "base"\nmodel m on z = "merged"\n'
        'save b + 0.5 * (m - b) to "half" with dtype=f32\n'
    )
    done = pem("build", tmp_path / "r.pem")
    assert done.code == 0, done.text
    old, new, half = (
        load_file(tmp_path / name / "model.safetensors") for name in ("base", "merged", "half")
    )
    assert any(not torch.equal(old[key], new[key]) for key in old)
    for key, tensor in half.items():
        assert torch.allclose(tensor, (old[key] + new[key]) / 2, atol=1e-6), key
