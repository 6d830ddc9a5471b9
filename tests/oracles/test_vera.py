"""VeRA, refused with a way out that is exact: PEFT's conversion to a LoRA of its rank."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import VeraConfig, get_peft_model, save_as_lora
from support import error
from support.peft_made import apart, bert, composed, loaded, output


@pytest.mark.filterwarnings("ignore")
def test_the_way_out_is_exact(tmp_path: Path) -> None:
    base = bert()
    config = VeraConfig(r=6, target_modules=["query", "dense"])
    model = get_peft_model(copy.deepcopy(base), config).eval()
    for name, parameter in model.named_parameters():
        if "vera_lambda" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(str(tmp_path / "x"))
    refused = error(tmp_path, 'adapter x = "x"\nsave x to "out"')
    assert refused.code == "PEM0420"
    assert refused.help is not None and refused.help.endswith("rank=6)")
    save_as_lora(str(tmp_path / "lora"), model, rank=6)
    wanted = output(model)
    assert apart(wanted, output(base)) > 1e-2
    out = composed(tmp_path, {"x": tmp_path / "lora"}, "2 * x - x")
    assert apart(output(loaded(base, out)), wanted) < 1e-4
