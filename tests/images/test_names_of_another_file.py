"""A file of kohya beside one of diffusers: which module is which, as diffusers itself says it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file
from support import pem, recipe
from support.image_loras import ENDS, factors, image_deltas, image_lora
from torch import Tensor

ATTENTION = ["attn1_to_q", "attn2_to_out_0", "ff_net_0_proj", "ff_net_2"]
RESNET = ["in_layers_2", "emb_layers_1", "out_layers_3", "skip_connection"]
BLOCKS = {
    "attention": [
        "input_blocks_4_1", "input_blocks_5_1", "input_blocks_7_1", "input_blocks_8_1",
        "middle_block_1", *(f"output_blocks_{number}_1" for number in range(6)),
    ],
    "resnet": [
        "input_blocks_1_0", "input_blocks_5_0", "middle_block_0", "middle_block_2",
        "output_blocks_0_0", "output_blocks_8_0",
    ],
}  # fmt: skip
SAMPLERS = ["input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv"]
TEXT = [
    f"lora_te{encoder}_text_model_encoder_layers_1_{module}"
    for encoder in "12"
    for module in ("self_attn_q_proj", "self_attn_out_proj", "mlp_fc1")
]
SDXL = [
    *(f"lora_unet_{x}_transformer_blocks_1_{y}" for x in BLOCKS["attention"] for y in ATTENTION),
    *(f"lora_unet_{x}_proj_in" for x in BLOCKS["attention"]),
    *(f"lora_unet_{x}_{y}" for x in BLOCKS["resnet"] for y in RESNET),
    *(f"lora_unet_{x}" for x in SAMPLERS),
    *TEXT,
]
"""Modules of SDXL as sd-scripts names them."""


def as_diffusers_names(file: Path) -> dict[str, str]:
    """What diffusers calls the modules of a file of kohya, told by their numbers."""
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
    from diffusers.utils.state_dict_utils import (
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    state, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
        str(file.parent),
        weight_name=file.name,
        unet_config=SimpleNamespace(layers_per_block=2),
    )
    parts: dict[str, dict[str, Tensor]] = {"unet": {}, "attn": {}, "mlp": {}}  # of one style each
    for key, tensor in state.items():
        part = key.partition(".")[0]
        parts["unet" if part == "unet" else "attn" if "attn" in key else "mlp"][key] = tensor
    converted = convert_unet_state_dict_to_peft(parts.pop("unet"))
    for text in parts.values():
        converted |= convert_state_dict_to_peft(text)
    by_number = {
        float(tensor.flat[0]): key.removesuffix(ENDS["kohya"][0])
        for key, tensor in load_file(file).items()
        if key.endswith(ENDS["kohya"][0])
    }
    return {
        by_number[float(tensor[0, 0])]: key.removesuffix(ENDS["peft"][0])
        for key, tensor in converted.items()
        if key.endswith(ENDS["peft"][0])
    }


@pytest.fixture
def pair(tmp_path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """A file of kohya, k, and one of diffusers, d: the names of the second by those of the first,
    and what the sum of both is by those of the first."""
    shape = ((5,), (4,))
    alphas = {name: 1.0 + number for number, name in enumerate(SDXL)}
    place = tmp_path / "k.safetensors"
    first = image_lora(place, factors(dict.fromkeys(SDXL, shape), 1), alphas)
    names = as_diffusers_names(place)
    assert names.keys() == set(SDXL)
    pairs = factors(dict.fromkeys(sorted(names.values()), shape), 2)
    second = image_lora(tmp_path / "d.safetensors", pairs, None, ENDS["peft"])
    return names, {name: first[name] + second[names[name]] for name in SDXL}


DECLARED = {
    "kohya": 'adapter k = "k.safetensors"\nadapter d = "d.safetensors" with names=k\n',
    "diffusers": 'adapter d = "d.safetensors"\nadapter k = "k.safetensors" with names=d\n',
}


@pytest.mark.parametrize("whose", DECLARED)
def test_a_sum_is_of_the_same_modules(
    whose: str, tmp_path: Path, pair: tuple[dict[str, str], dict[str, np.ndarray]]
) -> None:
    names, wanted = pair
    text = f'{DECLARED[whose]}save k + d to "out/x.safetensors"\n'
    done = pem("build", recipe(tmp_path, text))
    assert (done.code, done.err) == (0, "")
    built = image_deltas(
        tmp_path / "out/x.safetensors", ENDS["kohya" if whose == "kohya" else "peft"]
    )
    assert len(built) == len(wanted)
    for name, delta in wanted.items():
        found = built[name if whose == "kohya" else names[name]]
        np.testing.assert_allclose(found, delta, atol=1e-5 * np.abs(delta).max())


def test_a_first_recipe_gives_one_the_names_of_the_other(
    tmp_path: Path, pair: tuple[dict[str, str], dict[str, np.ndarray]]
) -> None:
    done = pem("init", "k.safetensors", "d.safetensors", folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    [first] = tmp_path.glob("*.pem")
    done = pem("build", first, "--set", "weight=0.5")
    assert (done.code, done.err) == (0, "")
    built = image_deltas(tmp_path / "out/merged.safetensors", ENDS["kohya"])
    for name, delta in pair[1].items():
        np.testing.assert_allclose(built[name], delta / 2, atol=1e-5 * np.abs(delta).max())


@pytest.mark.usefixtures("pair")
def test_help_says_the_names_and_works_when_pasted(tmp_path: Path) -> None:
    lines = ['adapter k = "k.safetensors"', 'adapter d = "d.safetensors"']
    for declared in (lines, lines[::-1]):
        text = "\n".join([*declared, 'save k + d to "out/x.safetensors"', ""])
        done = pem("check", recipe(tmp_path, text))
        told = f"help: declare it so: {declared[1]} with names={declared[0][8]}"
        assert (done.code, told in done.err) == (1, True), done.err
        mended = text.replace(declared[1], told.partition("so: ")[2])
        assert pem("check", recipe(tmp_path, mended)).code == 0


@pytest.mark.usefixtures("pair")
def test_a_file_is_converted_by_the_names_of_another(
    tmp_path: Path, pair: tuple[dict[str, str], dict[str, np.ndarray]]
) -> None:
    words = ["convert", "k.safetensors", "z.safetensors", "--to", "diffusers"]
    alone = pem(*words, folder=tmp_path)
    assert (alone.code, "names=y" in alone.err) == (1, True)
    assert pem(*words, "--like", "d.safetensors", folder=tmp_path).code == 0
    before = image_deltas(tmp_path / "k.safetensors")
    after = image_deltas(tmp_path / "z.safetensors", ENDS["peft"])
    for name, other in pair[0].items():
        np.testing.assert_allclose(after[other], before[name], rtol=1e-5, atol=1e-6)


def said_of(folder: Path, first: list[str], second: list[str]) -> str:
    """What is said of calling the modules of the second file as those of the first."""
    ends = (ENDS["kohya" if x[0].startswith("lora_") else "peft"] for x in (first, second))
    for name, sites, end in zip("xy", (first, second), ends, strict=True):
        pairs = factors(dict.fromkeys(sites, ((5,), (4,))), 1)
        image_lora(folder / f"{name}.safetensors", pairs, None, end)
    text = 'adapter x = "x.safetensors"\nadapter y = "y.safetensors" with names=x\n'
    text += 'save x + y to "out/z.safetensors"\n'
    return pem("check", recipe(folder, text)).err


def test_each_family_finds_its_names(tmp_path: Path) -> None:
    first_encoder = "text_model_encoder_layers_0_mlp_fc1"
    for first, second in [
        (f"lora_te_{first_encoder}", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "double_blocks.0.img_attn.qkv"),
        ("diffusion_model.blocks.0.to_q", "transformer.blocks.0.to_q"),
        (f"lora_te_{first_encoder}", f"lora_te1_{first_encoder}"),
    ]:
        assert said_of(tmp_path, [first], [second]) == ""
        assert said_of(tmp_path, [second], [first]) == ""


def test_what_the_other_file_lacks_is_told(tmp_path: Path) -> None:
    kohya, dotted = ["lora_unet_a_to_q", "lora_unet_a_to_k"], ["unet.a.to_q"]
    lacking = said_of(tmp_path, dotted, kohya)
    assert "PEM0354" in lacking and "lora_unet_a_to_k" in lacking
    assert "PEM0306" in said_of(tmp_path, kohya[:1], [*dotted, "unet.a.to_k"])  # they are named
    both = said_of(tmp_path, ["unet.a.to_q", "unet.a.to.q"], kohya[:1])
    assert "PEM0354" in both and "unet.a.to.q" in both
    checkpoint = said_of(tmp_path, ["lora_unet_input_blocks_4_1_proj_in"], dotted)
    assert "PEM0354" in checkpoint
