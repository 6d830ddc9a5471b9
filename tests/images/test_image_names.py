"""Names of modules in one format's files, as those of another have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import pem, recipe
from support.image_loras import ENDS, factors, image_deltas, image_lora
from support.outputs import verified

FROM = {
    "bfl": ["double_blocks.0.img_attn.qkv", "single_blocks.3.linear1"],
    "comfyui": [
        "diffusion_model.double_blocks.0.img_attn.qkv",
        "diffusion_model.final_layer.linear",
    ],
    "diffusers": ["unet.mid_block.attentions.0.proj_in", "text_encoder.text_model.layers.0.q_proj"],
}
SDXL = ["text_encoder.layers.0.q", "text_encoder_2.layers.0.q", "unet.conv_in"]
CASES = {
    ("bfl", "comfyui"): [f"diffusion_model.{x}" for x in FROM["bfl"]],
    ("bfl", "kohya"): [
        "lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_single_blocks_3_linear1",
    ],
    ("comfyui", "bfl"): ["double_blocks.0.img_attn.qkv", "final_layer.linear"],
    ("comfyui", "kohya"): [
        "lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_final_layer_linear",
    ],
    ("diffusers", "kohya"): [
        "lora_unet_mid_block_attentions_0_proj_in", "lora_te_text_model_layers_0_q_proj",
    ],
}  # fmt: skip


def saved(folder: Path, sites: list[str], format_: str) -> tuple[dict[str, np.ndarray], Path, str]:
    """A file with some sites, and what is said of saving it in a format."""
    pairs = factors(dict.fromkeys(sites, ((8,), (6,))), 1)
    before = image_lora(folder / "x.safetensors", pairs, None, ENDS["peft"])
    text = f'adapter x = "x.safetensors"\nsave x to "out/z.safetensors" with format={format_}\n'
    return before, folder / "out/z.safetensors", pem("build", recipe(folder, text)).err


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_each_site_has_its_name(case: tuple[str, str], tmp_path: Path) -> None:
    before, output, told = saved(tmp_path, FROM[case[0]], case[1])
    assert told == ""
    after = image_deltas(output, ENDS["kohya" if case[1] == "kohya" else "peft"])
    assert sorted(after) == sorted(CASES[case])
    for site, name in zip(FROM[case[0]], CASES[case], strict=True):
        np.testing.assert_allclose(after[name], before[site], atol=1e-6)


def test_two_text_encoders_are_numbered(tmp_path: Path) -> None:
    _, output, told = saved(tmp_path, SDXL, "kohya")
    assert told == ""
    assert sorted(image_deltas(output)) == [
        "lora_te1_layers_0_q", "lora_te2_layers_0_q", "lora_unet_conv_in",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sites", [["unet.a.b", "unet.a_b"], ["transformer.a"], ["controlnet.a"]], ids=str
)
def test_what_has_no_name_of_its_own_is_refused(sites: list[str], tmp_path: Path) -> None:
    assert "PEM0354" in saved(tmp_path, sites, "kohya")[2]
    assert not (tmp_path / "out").exists()


def test_a_file_is_converted_without_a_recipe(tmp_path: Path) -> None:
    pairs = factors(dict.fromkeys(FROM["diffusers"], ((8,), (6,))), 1)
    before = image_lora(tmp_path / "x.safetensors", pairs, None, ENDS["peft"])
    words = ("convert", "x.safetensors", "out/z.safetensors", "--to", "kohya")
    assert pem(*words, folder=tmp_path).code == 0
    after = image_deltas(tmp_path / "out/z.safetensors")
    for site, name in zip(FROM["diffusers"], CASES["diffusers", "kohya"], strict=True):
        np.testing.assert_allclose(after[name], before[site], atol=1e-6)
    assert verified(tmp_path / "out/z.safetensors", "--from", tmp_path).holds


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["x.safetensors", "z.safetensors"], 2, "--to FORMAT"),
        (["x.safetensors", "--to", "kohya"], 2, "--to FORMAT"),
        (["x.safetensors", "z.safetensors", "--to", "kohya, rank=1"], 2, "is no format"),
        (["x.safetensors", "z.safetensors", "--to", "koyha"], 1, "PEM0356"),
        (["x.safetensors", "z", "--to", "kohya"], 1, "PEM0355"),
        (["x.safetensors", "z.safetensors", "--to", "bfl"], 1, "PEM0354"),
        (["y.safetensors", "z.safetensors", "--to", "kohya"], 1, "PEM0410"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_converted(words: list[str], code: int, told: str, tmp_path: Path) -> None:
    pairs = factors(dict.fromkeys(FROM["diffusers"], ((8,), (6,))), 1)
    image_lora(tmp_path / "x.safetensors", pairs, None, ENDS["peft"])
    done = pem("convert", *words, folder=tmp_path)
    assert (done.code, told in done.err) == (code, True), done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"]
