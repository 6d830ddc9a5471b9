"""DoRA against PEFT: on its base, as a change of that, and on its own."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from support import build, codes, config_of, error, pem
from support.peft_made import IDS, llama, loaded, made
from torch import Tensor, nn

TARGETS = ["q_proj", "up_proj", "embed_tokens", "lm_head"]
DECLARED = 'base b = "base"\nadapter x on b = "x"\nadapter y on b = "y"\nadapter l on b = "l"\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base; two DoRAs of it, the second with rsLoRA; and a LoRA."""
    folder = tmp_path_factory.mktemp("dora")
    base = llama()
    base.save_pretrained(folder / "base")
    for seed, name in enumerate("xyl"):
        config = LoraConfig(
            r=3, lora_alpha=6, target_modules=TARGETS, use_dora=name != "l", use_rslora=name == "y"
        )
        made(base, folder / name, config, seed)
    return folder


def merged(base: nn.Module, *adapters: Path) -> dict[str, Tensor]:
    """A model that PEFT merges adapters into, one after the other."""
    model = copy.deepcopy(base)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    return dict(model.state_dict())


def saved(folder: Path, value: str, options: str = "") -> dict[str, Tensor]:
    """The tensors of what a recipe saves."""
    build(folder, f'{DECLARED}save {value} to "out"{options}')
    parts = sorted((folder / "out").glob("*.safetensors"))
    return {key: tensor for part in parts for key, tensor in load_file(part).items()}


def hold(ours: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    assert len(ours) > 20
    for name, tensor in ours.items():
        assert torch.allclose(tensor, wanted[name].to(tensor), rtol=0, atol=tolerance), name


@pytest.mark.parametrize("order", ["x", "y", "xy", "yx", "lx", "xl"])
def test_each_finds_what_the_one_before_has_made(folder: Path, order: str) -> None:
    hold(saved(folder, " + ".join(["b", *order])), merged(llama(), *(folder / x for x in order)))


def test_in_float64(folder: Path, tmp_path: Path) -> None:
    base = llama().double()
    base.save_pretrained(tmp_path / "base")
    for name in "xyl":
        (tmp_path / name).mkdir()
        tensors = load_file(folder / name / "adapter_model.safetensors")
        wide = {key: tensor.double() for key, tensor in tensors.items()}
        save_file(wide, tmp_path / name / "adapter_model.safetensors")
        config = (folder / name / "adapter_config.json").read_text()
        (tmp_path / name / "adapter_config.json").write_text(config)
    model = PeftModel.from_pretrained(base, str(tmp_path / "x"), autocast_adapter_dtype=False)
    wanted = dict(model.merge_and_unload().state_dict())
    assert {tensor.dtype for tensor in wanted.values()} == {torch.float64}
    hold(saved(tmp_path, "b + x"), wanted, 1e-13)


@pytest.mark.parametrize(
    ("value", "weights"),
    [
        ("b + 0.5 * ((b + x) - b)", {"x": 0.5}),
        ("b + ((b + x) - b) - 2 * ((b + y) - b)", {"x": 1, "y": -2}),
        ("b + mean([(b + x) - b, (b + y) - b, (b + l) - b])", dict.fromkeys("xyl", 1 / 3)),
    ],
)
def test_what_it_changes_composes(folder: Path, value: str, weights: dict[str, float]) -> None:
    base = dict(llama().state_dict())
    changed = {name: merged(llama(), folder / name) for name in weights}
    wanted = {
        key: weight + sum(by * (changed[name][key] - weight) for name, by in weights.items())
        for key, weight in base.items()
    }
    hold(saved(folder, value), wanted, 2e-6)


def test_what_it_changes_is_cut_to_a_lora(folder: Path) -> None:
    ours = saved(folder, 'compress(((b + x) - b)["*.q_proj.weight"], rank=32)')
    key = "model.layers.1.self_attn.q_proj"
    a, b = (ours[f"base_model.model.{key}.lora_{factor}.weight"] for factor in "AB")
    change = merged(llama(), folder / "x")[f"{key}.weight"] - llama().state_dict()[f"{key}.weight"]
    assert torch.allclose(b @ a, change, atol=1e-5)


@pytest.mark.parametrize("options", [' with shard="20KB"', " with dtype=bf16"])
def test_outputs_of_other_forms(folder: Path, options: str) -> None:
    ours = saved(folder, "b + x", options)
    wide = {key: tensor.float() for key, tensor in ours.items()}
    hold(wide, merged(llama(), folder / "x"), 0.02 if "bf16" in options else 1e-6)
    assert (len(list((folder / "out").glob("*.safetensors"))) > 1) == ("shard" in options)


def test_no_more_memory_is_taken_than_there_is(folder: Path) -> None:
    (folder / "r.pem").write_text(f'{DECLARED}save b + x to "little"')
    done = pem("build", "r.pem", "--memory", "40MB", folder=folder)
    assert done.code == 0, done.text
    hold(load_file(folder / "little" / "model.safetensors"), merged(llama(), folder / "x"))


def test_a_copy_and_a_selection_are_doras(folder: Path) -> None:
    theirs = loaded(llama(), folder / "y")(input_ids=IDS).logits
    build(folder, f'{DECLARED}save y to "copy"\nsave y["*.q_proj", "*.up_proj"] to "some"')
    assert torch.allclose(loaded(llama(), folder / "copy")(input_ids=IDS).logits, theirs, atol=1e-5)
    some = config_of(folder / "some")
    assert (some["use_dora"], some["target_modules"]) == (True, ["q_proj", "up_proj"])
    wanted = merged(llama(), folder / "y")
    kept = merged(llama(), folder / "some")
    for key, weight in llama().state_dict().items():
        chosen = "q_proj" in key or "up_proj" in key
        assert torch.allclose(kept[key], wanted[key] if chosen else weight, atol=1e-6), key


@pytest.mark.parametrize(
    "value",
    ["x + y", "x + l", "l - x", "0.5 * x", "x * 0.5", "x / 2", "-x", "b - x", "x ⊕ y", "⊖x",
     "join(x, l)", "ties([x, y], density=0.5)", "mean([x, l])", "compress(x, rank=1)",
     "pad(x, rank=9)", "rescale(l, like=x)"],
)  # fmt: skip
def test_it_composes_with_nothing(folder: Path, value: str) -> None:
    refused = error(folder, f'{DECLARED}save {value} to "out"')
    assert refused.code == "PEM0369"
    assert refused.help is not None and "(origin + x) - origin" in refused.help
    assert (
        codes(folder, f"{DECLARED}assert cosine(x, y) < 1\nassert norm(x) < 9") == ["PEM0369"] * 2
    )


def test_what_help_shows_builds(folder: Path) -> None:
    refused = error(folder, f'{DECLARED}save b + 0.5 * (x - y) + 0.1 * l to "out"')
    assert refused.help is not None
    pasted = refused.help.partition(", and write ")[2]
    assert pasted == "((origin + x) - origin) - ((origin + y) - origin)"
    build(
        folder,
        f'{DECLARED}model origin = "base"\nsave b + 0.5 * ({pasted}) to "pasted"\n'
        f'save b + 0.5 * ((b + x) - (b + y)) to "same"',
    )
    files = [folder / name / "model.safetensors" for name in ("pasted", "same")]
    hold(load_file(files[0]), load_file(files[1]))


def test_commands_that_need_no_base(folder: Path) -> None:
    assert "method      DoRA" in pem("inspect", "y", folder=folder).out
    assert "DoRA, 6 sites: 6 changed" in pem("diff", "x", "y", folder=folder).out
    assert "DoRA, 6 sites: 6 same" in pem("diff", "x", "x", folder=folder).out
    (folder / "r.pem").write_text(f'{DECLARED}save b + x to "out"\nsave y to "copy"')
    for words in (["lock"], ["build", "--locked"], ["report"], ["plan"]):
        done = pem(words[0], "r.pem", *words[1:], folder=folder)
        assert done.code == 0, done.text
    assert pem("verify", "--rebuild", "out", folder=folder).code == 0


def test_a_first_recipe_adds_no_doras(folder: Path) -> None:
    done = pem("init", "x", "y", "l", "-o", "first.pem", folder=folder)
    assert (done.code, done.err) == (0, "")
    assert pem("check", "first.pem", folder=folder).code == 0
