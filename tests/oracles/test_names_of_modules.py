"""One module, several names: what PEFT and transformers make of them, and what a recipe makes of
them."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from support import PREFIX, build, codes, config_of, error, lora
from support.peft_made import apart, bert, llama, loaded, made, output, together
from torch import nn
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

ATTENTION = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"])
WEIGHTS = "adapter_model.safetensors"


def gemma3() -> nn.Module:
    torch.manual_seed(3)
    text = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40, "sliding_window": 8,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
    }  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config).eval()


def qwen2_vl() -> nn.Module:
    torch.manual_seed(4)
    text = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 40,
        "num_attention_heads": 2, "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
    config = Qwen2VLConfig(text_config=text, vision_config=vision)
    return Qwen2VLForConditionalGeneration(config).eval()


def vit() -> nn.Module:
    torch.manual_seed(5)
    config = ViTConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        image_size=8, patch_size=4,
    )  # fmt: skip
    return ViTForImageClassification(config).eval()


def rewritten(directory: Path, to: Path, name: Callable[[str], str], **config: object) -> Path:
    """An adapter whose tensors have other names."""
    shutil.copytree(directory, to)
    tensors = load_file(directory / WEIGHTS)
    new = {name(key): tensor for key, tensor in tensors.items()}
    assert new.keys() != tensors.keys()
    save_file(new, to / WEIGHTS)
    fields = {**config_of(directory), **config}
    (to / "adapter_config.json").write_text(json.dumps(fields))
    return to


def by(*changes: tuple[str, str]) -> Callable[[str], str]:
    def name(key: str) -> str:
        for old, new in changes:
            if old in key:
                return key.replace(old, new, 1)
        return key

    return name


OLD_GEMMA = by(
    (f"{PREFIX}model.language_model.", f"{PREFIX}language_model.model."),
    (f"{PREFIX}model.vision_tower.", f"{PREFIX}vision_tower.vision_model."),
)
OLD_QWEN = by(
    (f"{PREFIX}model.language_model.", f"{PREFIX}model."),
    (f"{PREFIX}model.visual.", f"{PREFIX}visual."),
)


def read_by_peft(base: nn.Module, directory: Path) -> dict[str, torch.Tensor]:
    """The factors that PEFT has once it has loaded an adapter onto a base."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(copy.deepcopy(base), str(directory))
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)


@pytest.mark.parametrize(
    ("base", "config", "old", "converts"),
    [
        (gemma3, ATTENTION, OLD_GEMMA, True),
        (qwen2_vl, LoraConfig(r=2, target_modules=["q_proj", "v_proj", "qkv"]), OLD_QWEN, False),
        (
            gemma3,
            IA3Config(target_modules=["k_proj", "fc2"], feedforward_modules=["fc2"]),
            OLD_GEMMA,
            False,
        ),
    ],
    ids=["gemma3", "qwen2-vl", "ia3"],
)
def test_older_names_become_those_that_transformers_has(
    tmp_path: Path,
    base: Callable[[], nn.Module],
    config: LoraConfig | IA3Config,
    old: Callable[[str], str],
    converts: bool,
) -> None:
    """By names="transformers-5" an older adapter has the names of the model. PEFT converts some as
    it loads them, to the same; of others it loads nothing, and says so in a warning."""
    model = base()
    new = made(model, tmp_path / "new", config, 1)
    older = rewritten(new, tmp_path / "older", old)
    wanted = load_file(new / WEIGHTS)
    assert same(read_by_peft(model, older), wanted) == converts
    text = f'adapter a = "{older}" with names="transformers-5"\nsave a to "out"'
    [built] = build(tmp_path, text).outputs
    assert load_file(built.path / WEIGHTS).keys() == wanted.keys()
    ours = get_peft_model_state_dict(loaded(model, built.path), save_embedding_layers=False)
    if isinstance(config, IA3Config):
        assert same(ours, wanted)
        return
    for site in {key.rpartition(".lora_")[0] for key in wanted}:
        delta, mine = (
            x[f"{site}.lora_B.weight"] @ x[f"{site}.lora_A.weight"] for x in (wanted, ours)
        )
        assert torch.allclose(delta * (config.lora_alpha / config.r), mine * scale(built.path))


def scale(directory: Path) -> float:
    config = config_of(directory)
    return float(config["lora_alpha"] / config["r"])


def test_old_and_new_names_of_gemma_3_in_one_sum(tmp_path: Path) -> None:
    """The sum is refused with the declaration that mends it, and so is the `join` that would make
    an adapter of which half is lost; mended, it is both adapters at once."""
    base = gemma3()
    new = {
        name: made(base, tmp_path / name, ATTENTION, seed) for name, seed in (("a", 1), ("b", 2))
    }
    rewritten(new["a"], tmp_path / "older", OLD_GEMMA)
    declared = 'adapter older = "older"\nadapter b = "b"\n'
    refused = error(tmp_path, declared + 'save older + b to "out"')
    assert refused.code == "PEM0306"
    assert refused.help is not None
    mended = refused.help.partition("declare it so: ")[2]
    assert mended == 'adapter older = "older" with names="transformers-5"'
    assert codes(tmp_path, declared + 'save join(older, b) to "out"') == ["PEM0364"]
    [built] = build(tmp_path, f'{mended}\nadapter b = "b"\nsave older + b to "out"').outputs
    both, ours = together(base, new), loaded(base, built.path)
    ids = torch.tensor([[1, 5, 7, 2, 9, 30]])
    wanted = output(both, ids)
    assert apart(output(ours, ids), wanted) < 1e-5
    assert apart(output(base, ids), wanted) > 1e-3


def test_new_names_of_gemma_3_made_old(tmp_path: Path) -> None:
    """Those that transformers 4 had, with a `vision_model` in the tower: PEFT loads all of it."""
    base = gemma3()
    modules = LoraConfig(r=3, target_modules=["q_proj", "fc1", "patch_embedding"])
    new = made(base, tmp_path / "new", modules, 1)
    old = rewritten(new, tmp_path / "old", OLD_GEMMA)
    text = f'adapter a = "{new}" with names="transformers-4"\nsave a to "out"'
    [built] = build(tmp_path, text).outputs
    assert load_file(built.path / WEIGHTS).keys() == load_file(old / WEIGHTS).keys()
    read = read_by_peft(base, built.path)
    assert same(read, load_file(new / WEIGHTS))


def test_what_a_join_of_two_names_would_have_lost(tmp_path: Path) -> None:
    """PEFT takes both names for one module and keeps one of the two: why `join` is refused."""
    base = gemma3()
    a, b = (made(base, tmp_path / name, ATTENTION, seed) for name, seed in (("a", 1), ("b", 2)))
    both = tmp_path / "both"
    shutil.copytree(a, both)
    older = {OLD_GEMMA(key): x for key, x in load_file(a / WEIGHTS).items()}
    save_file({**older, **load_file(b / WEIGHTS)}, both / WEIGHTS)
    read = read_by_peft(base, both)
    kept = [
        key for key in read if any(read[key].equal(load_file(x / WEIGHTS)[key]) for x in (a, b))
    ]
    assert len(kept) == len(read) == len(load_file(a / WEIGHTS))


def test_newer_names_of_vit(tmp_path: Path) -> None:
    base = vit()
    new = made(base, tmp_path / "new", ATTENTION, 1)
    older = rewritten(
        new,
        tmp_path / "older",
        lambda key: (
            key.replace(".layers.", ".encoder.layer.")
            .replace("attention.q_proj", "attention.attention.query")
            .replace("attention.v_proj", "attention.attention.value")
        ),
        target_modules=["query", "value"],
    )
    text = f'adapter a = "{older}" with names="transformers-5"\nsave a to "out"'
    [built] = build(tmp_path, text).outputs
    assert load_file(built.path / WEIGHTS).keys() == load_file(new / WEIGHTS).keys()
    loaded(base, built.path)
    assert build(
        tmp_path,
        f'adapter a = "{built.path}" with names="transformers-4"\nsave a to "back"',
    ).outputs
    assert load_file(tmp_path / "back" / WEIGHTS).keys() == load_file(older / WEIGHTS).keys()


LEAVINGS: dict[str, Callable[[str], str]] = {
    "compiled inside": lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod.", 1),
    "compiled around": lambda key: f"_orig_mod.{key}",
    "layers compiled": lambda key: key.replace(".layer.1.", ".layer.1._orig_mod."),
    "fsdp": lambda key: key.replace(".layer.1.", ".layer.1._fsdp_wrapped_module."),
    "checkpointed": lambda key: key.replace(".layer.1.", ".layer.1._checkpoint_wrapped_module."),
    "parallel around": lambda key: f"module.{key}",
    "wrapped twice": lambda key: PREFIX + key,
    "bare": lambda key: key.removeprefix(PREFIX),
}
BERT = LoraConfig(r=3, lora_alpha=6, target_modules=["query", "value"])


@pytest.mark.parametrize("leaving", LEAVINGS)
def test_what_trainers_leave_in_names_is_seen_through(tmp_path: Path, leaving: str) -> None:
    """PEFT loads none, or a part, of an adapter with such names, but for the last; built from it is
    the adapter by its own names."""
    base = bert()
    plain = made(base, tmp_path / "plain", BERT, 1)
    left = rewritten(plain, tmp_path / "left", LEAVINGS[leaving])
    if leaving != "bare":
        assert not same(read_by_peft(base, left), load_file(plain / WEIGHTS))
    [built] = build(tmp_path, f'adapter a = "{left}"\nsave a to "out"').outputs
    [wanted] = build(tmp_path, f'adapter a = "{plain}"\nsave a to "wanted"').outputs
    assert same(load_file(built.path / WEIGHTS), load_file(wanted.path / WEIGHTS))
    assert apart(output(loaded(base, built.path)), output(loaded(base, plain))) < 1e-5


def test_an_adapter_of_a_compiled_model(tmp_path: Path) -> None:
    """As torch.compile and PEFT make it, with full names in its config."""
    base = llama()
    sites = [f"_orig_mod.model.layers.{n}.self_attn.q_proj" for n in (0, 1)]
    compiled = torch.compile(copy.deepcopy(base))
    model = get_peft_model(compiled, LoraConfig(r=2, target_modules=sites, init_lora_weights=False))
    model.save_pretrained(str(tmp_path / "a"))
    assert all("_orig_mod." in key for key in load_file(tmp_path / "a" / WEIGHTS))
    [built] = build(tmp_path, 'adapter a = "a"\nsave a to "out"').outputs
    ours = loaded(base, built.path)
    assert apart(output(ours), output(base)) > 1e-3
    with torch.no_grad():
        wanted = model.base_model.model._orig_mod(torch.tensor([[1, 5, 7]])).logits  # type: ignore[operator, union-attr]
    assert apart(output(ours, torch.tensor([[1, 5, 7]])), wanted) < 1e-5


def test_a_module_inside_data_parallel(tmp_path: Path) -> None:
    """Refused, for a model may have a `module` of its own; by names="unwrapped" the adapter."""
    base = bert()
    plain = made(base, tmp_path / "plain", BERT, 1)
    inside = rewritten(
        plain, tmp_path / "in", lambda key: key.replace(PREFIX, f"{PREFIX}module.", 1)
    )
    refused = error(tmp_path, 'adapter a = "in"\nsave a to "out"')
    assert (refused.code, refused.help) == ("PEM0426", '"in" with names="unwrapped"')
    assert not same(read_by_peft(base, inside), load_file(plain / WEIGHTS))
    [built] = build(tmp_path, f'adapter a = {refused.help}\nsave a to "out"').outputs
    assert apart(output(loaded(base, built.path)), output(loaded(base, plain))) < 1e-5


HEADED = LoraConfig(
    r=2, target_modules=["query"], modules_to_save=["classifier"], task_type="SEQ_CLS"
)


def test_heads_and_their_config_are_renamed_too(tmp_path: Path) -> None:
    base = bert()
    plain = made(base, tmp_path / "plain", HEADED, 1)
    other = rewritten(
        plain, tmp_path / "other", lambda key: key.replace(PREFIX, f"{PREFIX}tower.", 1)
    )
    fields = config_of(other) | {
        "target_modules": r"tower\.bert\..*\.query",
        "modules_to_save": ["tower.classifier"],
    }
    (other / "adapter_config.json").write_text(json.dumps(fields))
    text = f'adapter a = "{other}" with names={{ "tower.*": "*" }}\nsave a to "out"'
    [built] = build(tmp_path, text).outputs
    assert apart(output(loaded(base, built.path)), output(loaded(base, plain))) < 1e-5
    assert config_of(built.path)["modules_to_save"] == ["classifier"]


def test_empty_tensors_of_zero_3(tmp_path: Path) -> None:
    """PEFT refuses an empty factor, and an empty head; so does a recipe, by the way out."""
    base = bert()
    plain = made(base, tmp_path / "plain", HEADED, 1)
    for ending in ("lora_B.weight", "classifier.weight"):
        tensors = load_file(plain / WEIGHTS)
        key = next(key for key in tensors if key.endswith(ending))
        empty = tmp_path / f"empty-{ending}"
        shutil.copytree(plain, empty)
        save_file({**tensors, key: torch.zeros(0)}, empty / WEIGHTS)
        with pytest.raises(RuntimeError, match="size mismatch"):
            PeftModel.from_pretrained(copy.deepcopy(base), str(empty))
        refused = error(tmp_path, f'adapter a = "{empty}"\nsave a to "out"')
        assert refused.code == "PEM0417"
        assert "stage3_gather_16bit_weights_on_model_save" in str(refused.help)


PARTS, BLOCKS = (
    "vision|image|visual|patch|language|text",
    "self_attn|attention|attn|mlp|feed_forward",
)
LINEAR = "(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
UNSLOTH = {
    "towers, or layers": rf"(?:.*?(?:{PARTS}).*?(?:{BLOCKS}).*?{LINEAR}.*?)|(?:\bmodel\.layers\."
    rf"[\d]{{1,}}\.(?:{BLOCKS})\.(?:{LINEAR}))",
    "no towers": rf".*?(?:{BLOCKS}).*?{LINEAR}.*?",
    "newer": rf"(?:.*?(?:{PARTS}).*?(?:{BLOCKS}).*?{LINEAR})|(?:\bmodel\.layers\."
    rf"[\d]{{1,}}\.(?:{BLOCKS})\.(?:{LINEAR}))",
}


@pytest.mark.parametrize("pattern", UNSLOTH.values(), ids=UNSLOTH)
@pytest.mark.parametrize("base", [llama, gemma3], ids=["llama", "gemma3"])
def test_target_modules_as_unsloth_writes_them(
    tmp_path: Path, base: Callable[[], nn.Module], pattern: str
) -> None:
    model = base()
    config = LoraConfig(r=2, lora_alpha=4, target_modules=pattern)
    adapters = {
        name: made(model, tmp_path / name, config, seed) for name, seed in (("a", 1), ("b", 2))
    }
    text = 'adapter a = "a"\nadapter b = "b"\nsave a + b to "out"'
    [built] = build(tmp_path, text).outputs
    assert config_of(built.path)["target_modules"] == pattern
    ids = torch.tensor([[1, 5, 7, 2, 9, 30]])
    wanted = output(together(model, adapters), ids)
    assert apart(output(loaded(model, built.path), ids), wanted) < 1e-4


def test_rules_are_followed_as_they_stand(tmp_path: Path) -> None:
    """Held to names worked out by hand: the first rule decides, `*` is short, the rest stays."""
    sites = {"a.x.b.x.c": (4, 4), "a.y": (4, 4), "keep.me": (4, 4)}
    lora(tmp_path / "a", sites=sites)
    text = 'adapter a = "a" with names={ "a.*x.*": "p.*q.*", "a.*": "r.*" }\nsave a to "out"'
    [built] = build(tmp_path, text).outputs
    keys = load_file(built.path / WEIGHTS)
    modules = {key.removeprefix(PREFIX).partition(".lora_")[0] for key in keys}
    assert modules == {"p.q.b.x.c", "r.y", "keep.me"}
    before = load_file(tmp_path / "a" / WEIGHTS)
    end = ".lora_A.weight"
    assert np.array_equal(keys[f"{PREFIX}r.y{end}"], before[f"{PREFIX}a.y{end}"])
