"""What is read and written of image models, held to what diffusers makes of the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from safetensors.numpy import save_file
from support import pem, recipe
from support.image_loras import (
    ENDS,
    as_diffusers_loads,
    factors,
    image_deltas,
    image_lora,
    loaded_deltas,
    small_unet,
    unet_sites,
)

from pemlang.formats import read_adapter

SITES = unet_sites()


def kohya(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"


def named(names: str) -> dict[str, str]:
    """The sites of the small UNet by the names of a format."""
    return {site: kohya(site) if names == "kohya" else f"unet.{site}" for site in SITES}


def made(path: Path, names: str, seed: int, ends: str, alphas: object, rank: int) -> None:
    called = named(names)
    sites = {called[site]: shape for site, shape in SITES.items()}
    said = alphas if names == "kohya" else None
    image_lora(path, factors(sites, seed, rank), said, ENDS[ends])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "ends"), [("kohya", "kohya"), ("diffusers", "peft"), ("diffusers", "older")]
)
@pytest.mark.parametrize("value", ["0.7 * x", "x - 2 * y", "compress(x + y, energy=0.9)"])
def test_diffusers_loads_what_is_written(tmp_path: Path, names: str, ends: str, value: str) -> None:
    called = named(names)
    alphas = {site: 1.0 + index for index, site in enumerate(called.values())}
    x, y, z = (tmp_path / name for name in ("x.safetensors", "y.safetensors", "out/z.safetensors"))
    made(x, names, 1, ends, alphas, 4)
    made(y, names, 2, ends, None, 2)
    text = 'adapter x = "x.safetensors"\nadapter y = "y.safetensors"\n'
    assert pem("build", recipe(tmp_path, f'{text}save {value} to "out/z.safetensors"\n')).code == 0
    before = [image_deltas(path, ENDS[ends]) for path in (x, y)]
    loaded, plain = (
        as_diffusers_loads(z),
        image_deltas(z, ENDS["kohya" if names == "kohya" else "peft"]),
    )
    assert loaded.keys() == SITES.keys()
    for site, delta in loaded.items():
        first, second = (deltas[called[site]] for deltas in before)
        wanted = {"0": 0.7 * first, "x": first - 2 * second, "c": first + second}[value[0]]
        if value[0] == "c":
            u, s, v = np.linalg.svd(wanted, full_matrices=False)
            kept = np.linalg.matrix_rank(delta)
            assert kept < 6
            wanted = u[:, :kept] * s[:kept] @ v[:kept]
        for found in (delta, plain[called[site]]):
            np.testing.assert_allclose(found, wanted, atol=2e-6 * np.abs(wanted).max())


def test_diffusers_own_older_files_are_read(tmp_path: Path) -> None:
    """The keys of attention processors, and of text encoders, as diffusers itself converts them."""
    from diffusers.utils.state_dict_utils import (
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    random = np.random.default_rng(3)
    block = "unet.mid_block.attentions.0.transformer_blocks.0"
    layer = "text_encoder.text_model.encoder.layers.0.self_attn"
    older = {f"{block}.attn1.processor.to_{x}_lora": f"{block}.attn1.to_{x}" for x in "qkv"}
    older |= {f"{block}.attn1.processor.to_out_lora": f"{block}.attn1.to_out.0"}
    older |= {f"{layer}.to_{x}_lora": f"{layer}.{x}_proj" for x in "qkv"}
    older |= {f"{layer}.to_out_lora": f"{layer}.out_proj"}
    state = {}
    for name in older:
        state[f"{name}.down.weight"] = random.normal(size=(2, 6)).astype("f4")
        state[f"{name}.up.weight"] = random.normal(size=(8, 2)).astype("f4")
    save_file(state, tmp_path / "x.safetensors")
    adapter = read_adapter(tmp_path / "x.safetensors")
    assert (adapter.format.name, set(adapter.layout.shapes)) == ("diffusers", set(older.values()))
    unet = {key: x for key, x in state.items() if key.startswith("unet")}
    text = {key: x for key, x in state.items() if key.startswith("text")}
    theirs = convert_unet_state_dict_to_peft(unet) | convert_state_dict_to_peft(text)
    for site, (down, up) in adapter.layout.factors.items():
        assert theirs[f"{site}.lora_A.weight"] is state[down]
        assert theirs[f"{site}.lora_B.weight"] is state[up]


@pytest.mark.parametrize("rslora", [False, True])
def test_the_config_that_diffusers_saves_says_the_scale(tmp_path: Path, rslora: bool) -> None:
    from diffusers.loaders import StableDiffusionLoraLoaderMixin
    from peft import LoraConfig, get_peft_model_state_dict

    unet = UNet2DConditionModel.from_config(small_unet().config)
    config = LoraConfig(
        r=4, lora_alpha=7, target_modules=["to_q", "to_k"], rank_pattern={"attn1.to_q": 2},
        alpha_pattern={"attn2.to_k": 3}, use_rslora=rslora, init_lora_weights=False,
    )  # fmt: skip
    unet.add_adapter(config, "x")
    StableDiffusionLoraLoaderMixin.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(unet, adapter_name="x"),
        unet_lora_adapter_metadata=unet.peft_config["x"].to_dict(),
    )
    [file] = tmp_path.iterdir()
    wanted = loaded_deltas(unet)
    text = f'adapter x = "{file.name}"\nsave 1 * x to "out/z.safetensors"\n'
    assert pem("build", recipe(tmp_path, text)).code == 0
    found = as_diffusers_loads(tmp_path / "out/z.safetensors")
    assert found.keys() == wanted.keys()
    for site, delta in wanted.items():
        np.testing.assert_allclose(found[site], delta, atol=1e-6 * np.abs(delta).max())


def test_a_file_of_diffusers_is_saved_with_kohyas_names(tmp_path: Path) -> None:
    made(tmp_path / "x.safetensors", "diffusers", 1, "peft", None, 4)
    text = 'adapter x = "x.safetensors"\nsave 3 * x to "out/z.safetensors" with format=kohya\n'
    assert pem("build", recipe(tmp_path, text)).code == 0
    x, z = (as_diffusers_loads(tmp_path / name) for name in ("x.safetensors", "out/z.safetensors"))
    assert image_deltas(tmp_path / "out/z.safetensors").keys() == set(map(kohya, SITES))
    for site, delta in x.items():
        np.testing.assert_allclose(z[site], 3 * delta, atol=1e-5)
