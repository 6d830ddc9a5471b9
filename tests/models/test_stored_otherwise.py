"""Models that are not stored as floats in safetensors: pickles are read, codes are refused."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support import build, error, pem, recipe
from support.hub_server import serving
from support.models import DECLARED, away, model, weights_of
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from pemlang.formats import QUANTISATIONS

SAVE = f'{DECLARED}save n + 0.5 * (m - b) to "out"\n'
WIDE = {f"model.layers.{n}.mlp.up_proj.weight": (64, 64) for n in range(9)}


def pickled(directory: Path) -> Path:
    """A model, its files of tensors as torch saves them."""
    names = {}
    for file in list(directory.glob("*.safetensors")):
        tensors = load_file(file)
        name = f"pytorch_{file.stem}.bin"
        torch.save(tensors, directory / name)
        file.unlink()
        names |= dict.fromkeys(tensors, name)
    index = directory / "model.safetensors.index.json"
    if index.exists():
        index.unlink()
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    return directory


def test_pickles_give_the_bytes_that_safetensors_give(folder: Path) -> None:
    """One file, and shards: the output is safetensors, with an index of its own."""
    out = build(folder, SAVE).outputs[0].path
    wanted = {file.name: load_file(file) for file in out.glob("*.safetensors")}
    for name in "bmn":
        pickled(folder / name)
    again = build(folder, SAVE.replace('"out"', '"again"')).outputs[0].path
    made = {file.name: load_file(file) for file in again.glob("*.safetensors")}
    assert made.keys() == wanted.keys() and len(made) == 3
    for name, tensors in wanted.items():
        assert made[name].keys() == tensors.keys()
        assert all(torch.equal(made[name][key], x) for key, x in tensors.items())
    index = json.loads((again / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == made.keys()
    assert not list(again.glob("*.bin*"))
    assert "12 tensors" in pem("inspect", "n", folder=folder).out


def test_a_pickled_model_is_locked_and_compared(folder: Path) -> None:
    pickled(folder / "n")
    recipe(folder, SAVE)
    assert pem("lock", "recipe.pem", folder=folder).code == 0
    assert pem("build", "--locked", "recipe.pem", folder=folder).code == 0
    shard = folder / "n" / "pytorch_model-00002-of-00003.bin"
    tensors = torch.load(shard, weights_only=True)
    tensors[next(iter(tensors))].flatten()[0] += 1
    torch.save(tensors, shard)
    assert "PEM0803" in pem("build", "--locked", "recipe.pem", folder=folder).err
    assert pem("verify", "out", folder=folder).code == 1


def test_a_pickle_that_runs_something_is_not_run(folder: Path) -> None:
    class Harm:
        def __reduce__(self) -> object:
            return Path.mkdir, (folder / "harm",)

    pickled(folder / "m")
    torch.save({"x": Harm()}, folder / "m" / "pytorch_model.bin")
    assert error(folder, SAVE).code == "PEM0413"
    assert not (folder / "harm").exists() and not (folder / "out").exists()


def test_tied_weights_in_a_pickle_are_loaded_tied(tmp_path: Path) -> None:
    """A state_dict that torch saves has both names of a tied tensor, on one storage."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    llamas = {}
    for name in "bm":
        llamas[name] = LlamaForCausalLM(config)
        config.save_pretrained(tmp_path / name)
        torch.save(llamas[name].state_dict(), tmp_path / name / "pytorch_model.bin")
    text = 'base b = "b"\nmodel m on b = "m"\nsave b + 0.5 * (m - b) to "out"\n'
    out = build(tmp_path, text).outputs[0].path
    loaded, told = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not told["missing_keys"] and not told["mismatched_keys"]
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    states = [llamas[name].state_dict() for name in "bm"]
    for key, value in loaded.state_dict().items():
        assert torch.allclose(value, (states[0][key] + states[1][key]) / 2, atol=1e-6), key


def test_a_pickled_model_on_the_hub(tmp_path: Path) -> None:
    """Also where nothing answers any more."""
    for name, tuned, shards in (("b", 0, 1), ("m", 1, 1), ("n", 2, 3)):
        model(tmp_path / name, tuned, WIDE, shards=shards)
    b, m, n = (weights_of(tmp_path / name) for name in "bmn")
    repos = {f"org/{name}": {"main": pickled(tmp_path / name)} for name in "mn"}
    text = SAVE.replace('"m"', '"hf://org/m"').replace('"n"', '"hf://org/n"')
    path = recipe(tmp_path, text)
    with serving(repos) as hub:
        env = hub.env(tmp_path / "cache")
        assert pem("check", path, process=True, **env).text == ""
        done = pem("build", path, process=True, **env)
        assert done.code == 0, done.text
        hub.sent.clear()
        again = pem("build", "--force", path, process=True, **env | {"HF_HUB_OFFLINE": "1"})
        assert (again.code, again.err, hub.sent) == (0, "", [])
    wanted = {key: n[key] + 0.5 * (m[key] - b[key]) for key in b}
    assert away(weights_of(tmp_path / "out"), wanted) < 1e-6


I32, U8, F8 = torch.int32, torch.uint8, torch.float8_e4m3fn
CODES = {
    "fp8 with a scale for each block": {"weight": F8, "weight_scale_inv": torch.float32},
    "fp8 with a scale for each tensor or row": {"weight": F8, "weight_scale": torch.bfloat16},
    "GPTQ": {"qweight": I32, "qzeros": I32, "scales": torch.float16, "g_idx": I32},
    "AWQ": {"qweight": I32, "qzeros": I32, "scales": torch.float16},
    "bitsandbytes, in 4 bits": {
        "weight": U8, "weight.absmax": U8, "weight.quant_map": torch.float32,
        "weight.quant_state.bitsandbytes__nf4": U8,
    },
    "bitsandbytes, in 8 bits": {"weight": torch.int8, "SCB": torch.float32},
    "compressed-tensors": {"weight_packed": I32, "weight_scale": torch.bfloat16},
    "MXFP4": {"gate_up_proj_blocks": U8, "gate_up_proj_scales": U8},
    "HQQ": {"W_q": U8, "scale": torch.float16, "zero": torch.float16},
    "MLX": {"weight": torch.uint32, "scales": torch.float16, "biases": torch.float16},
    "a method it does not name": {"weight": torch.int8},
}  # fmt: skip


AS_PICKLE = [x for x in CODES if {F8, torch.uint32}.isdisjoint(CODES[x].values())]
"""Those of dtypes that torch has storages of."""


@pytest.mark.parametrize(
    ("method", "as_pickle"), [(x, False) for x in CODES] + [(x, True) for x in AS_PICKLE]
)
def test_codes_are_told_by_their_tensors(folder: Path, method: str, as_pickle: bool) -> None:
    """Whatever the config says: that of this model says nothing."""
    at = model(folder / "Tiny-7B-Instruct-GPTQ-Int4")
    tensors = load_file(at / "model.safetensors")
    module = "model.layers.0.mlp.up_proj"
    tensors |= {f"{module}.{x}": torch.ones(4, 4).to(dtype) for x, dtype in CODES[method].items()}
    save_file(tensors, at / "model.safetensors")
    if as_pickle:
        pickled(at)
    fault = error(folder, f'model o = "{at.name}"\n')
    assert fault.code == "PEM0431" and f"by {method}:" in fault.message
    assert "Tiny-7B-Instruct;" in f"{fault.help};"


def test_plain_weights_are_no_codes(folder: Path) -> None:
    """Floats of 8 bits without scales, a learned scale, and whole numbers that are no weights."""
    at = model(folder / "o", dtype=F8)
    tensors = load_file(at / "model.safetensors")
    module = "model.layers.0.mlp.up_proj"
    tensors |= {f"{module}.g_idx": torch.ones(4).int(), "position_ids": torch.ones(1, 4).long()}
    tensors |= {"head.weight": torch.ones(4, 4), "head.weight_scale": torch.ones(4)}
    save_file(tensors, at / "model.safetensors")
    assert pem("check", recipe(folder, 'model o = "o"\n')).code == 0


def test_a_way_out_is_one_that_transformers_has() -> None:
    """It takes the configs that the help names, and dequantises what it says it does."""
    for record in QUANTISATIONS:
        if "config=" in record.undone:
            name, _, setting = record.undone.partition("config=")[2].partition("(")
            config = getattr(transformers, name)
            assert setting.partition("=")[0] in inspect.signature(config).parameters, name
        elif record.undone:
            known = [x for x in record.methods if x in AUTO_QUANTIZER_MAPPING]
            assert all("_dequantize" in vars(AUTO_QUANTIZER_MAPPING[x]) for x in known)
