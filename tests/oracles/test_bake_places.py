"""Where the modules of an adapter lie in a checkpoint: prefixes, renamings, heads, ties; and what a
bake keeps of the model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support import PREFIX, build, codes, error
from support.peft_made import made
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 16, "initializer_range": 0.2,
}  # fmt: skip
LORA = LoraConfig(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"])
GAINS = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
RECIPE = 'base b = "base"\nadapter x on b = "x"\n'
SAVE = 'save b + x to "out"\n'


def llama(**other: Any) -> LlamaForCausalLM:
    torch.manual_seed(2)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2, **other)).eval()


def merged(model: nn.Module, *adapters: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model that PEFT merges adapters into, one after the other."""
    for adapter in adapters:
        whole = PeftModel.from_pretrained(copy.deepcopy(model), str(adapter))
        model = whole.merge_and_unload()  # type: ignore[operator]
    return dict(model.state_dict())


def out(folder: Path, name: str = "out") -> dict[str, torch.Tensor]:
    return load_file(folder / name / "model.safetensors")


def hold(ours: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], prefix: str = "") -> None:
    """Tensors are equal, under one prefix more in the second."""
    assert ours
    for name, tensor in ours.items():
        assert torch.allclose(tensor, wanted[prefix + name], rtol=0, atol=1e-6), name


# --- names -----------------------------------------------------------------------------------


def test_a_checkpoint_without_the_prefix_of_the_adapter(tmp_path: Path) -> None:
    model = llama()
    model.model.save_pretrained(tmp_path / "base")
    made(model, tmp_path / "x", LORA, seed=1)
    build(tmp_path, RECIPE + SAVE)
    hold(out(tmp_path), merged(model, tmp_path / "x"), "model.")
    assert isinstance(AutoModel.from_pretrained(tmp_path / "out"), LlamaModel)


def test_a_checkpoint_with_a_prefix_that_the_adapter_lacks(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path / "base")
    made(model.model, tmp_path / "x", LORA, seed=1)
    build(tmp_path, RECIPE + SAVE)
    wanted = {f"model.{name}": x for name, x in merged(model.model, tmp_path / "x").items()}
    hold(out(tmp_path), wanted | {"lm_head.weight": model.lm_head.weight.detach()})


RENAMED: dict[str, Callable[[str], str]] = {
    "from before 4.52": lambda name: name.replace("model.language_model.", "language_model.model."),
    "compiled": lambda name: f"_orig_mod.{name}",
}


@pytest.mark.parametrize("names", RENAMED)
def test_adapters_of_older_names_find_their_place(names: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    sizes = {name: SIZES[name] for name in ("hidden_size", "num_attention_heads")}
    seen = transformers.CLIPVisionConfig(**sizes, num_hidden_layers=1, image_size=16, patch_size=8)
    text = LlamaConfig(**SIZES, num_key_value_heads=2)
    config = transformers.LlavaConfig(vision_config=seen, text_config=text)
    model = transformers.LlavaForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "base")
    language = LoraConfig(r=3, target_modules=r".*language_model.*\.(q_proj|v_proj)")
    made(model, tmp_path / "x", language, seed=1)
    build(tmp_path, RECIPE + SAVE)
    rename = RENAMED[names]
    tensors = load_file(tmp_path / "x" / "adapter_model.safetensors")
    renamed = {PREFIX + rename(key.removeprefix(PREFIX)): x for key, x in tensors.items()}
    assert set(renamed) != set(tensors)
    save_file(renamed, tmp_path / "x" / "adapter_model.safetensors")
    build(tmp_path, RECIPE + 'save b + x to "again"\n')
    hold(out(tmp_path, "again"), out(tmp_path))


def test_experts_that_a_checkpoint_keeps_apart(tmp_path: Path) -> None:
    """An adapter from when experts were modules: transformers 5 reads such checkpoints still."""
    experts = {f"mlp.experts.{n}.{x}": (16, 32) for n in range(2) for x in ("up_proj", "gate_proj")}
    weights = {f"model.layers.0.{name}.weight": torch.randn(s) for name, s in experts.items()}
    (tmp_path / "base").mkdir()
    save_file(weights, tmp_path / "base" / "model.safetensors")
    torch.manual_seed(3)
    factors = {
        f"{PREFIX}model.layers.0.{name}.lora_{factor}.weight": torch.randn(shape)
        for name in experts
        for factor, shape in (("A", (2, 32)), ("B", (16, 2)))
    }
    (tmp_path / "x").mkdir()
    targets = ["up_proj", "gate_proj"]
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": targets}
    (tmp_path / "x" / "adapter_config.json").write_text(json.dumps(config))
    save_file(factors, tmp_path / "x" / "adapter_model.safetensors")
    build(tmp_path, RECIPE + SAVE)
    for name, tensor in out(tmp_path).items():
        at = PREFIX + name.removesuffix(".weight")
        a, b = factors[f"{at}.lora_A.weight"], factors[f"{at}.lora_B.weight"]
        assert torch.allclose(tensor, weights[name] + 3 * b @ a, rtol=0, atol=1e-6)


# --- what is kept ----------------------------------------------------------------------------


def test_the_dtype_is_that_of_the_model_and_rounded_once(tmp_path: Path) -> None:
    model = llama()
    made(model, tmp_path / "x", LORA, seed=1)
    model = model.to(torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    build(tmp_path, RECIPE + SAVE)
    wanted = merged(model.float(), tmp_path / "x")
    for name, tensor in out(tmp_path).items():
        assert tensor.dtype == torch.bfloat16
        exact = wanted[name]
        assert ((tensor.float() - exact).abs() <= exact.abs() * 2**-8).all(), name


def test_shards_keep_their_tensors(tmp_path: Path) -> None:
    model = llama()
    model.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    made(model, tmp_path / "x", LORA, seed=1)
    build(tmp_path, RECIPE + SAVE)
    shards = sorted(x.name for x in (tmp_path / "base").glob("*.safetensors"))
    assert len(shards) > 2
    assert sorted(x.name for x in (tmp_path / "out").glob("*.safetensors")) == shards
    hold(dict(LlamaForCausalLM.from_pretrained(tmp_path / "out").state_dict()),
         merged(model, tmp_path / "x"))  # fmt: skip


# --- algebra ---------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[LlamaForCausalLM, Path]:
    model = llama()
    model.save_pretrained(tmp_path / "base")
    made(model, tmp_path / "x", LORA, seed=1)
    made(model, tmp_path / "y", LoraConfig(r=2, target_modules=["q_proj", "o_proj"]), seed=2)
    made(model, tmp_path / "g", GAINS, seed=3)
    return model, tmp_path


DECLARED = RECIPE + 'adapter y on b = "y"\nadapter g on b = "g"\n'


def test_adapters_are_baked_one_after_the_other(
    pair: tuple[LlamaForCausalLM, Path],
) -> None:
    model, folder = pair
    build(folder, DECLARED + 'save b + x + y + g to "out"\n')
    hold(out(folder), merged(model, folder / "x", folder / "y", folder / "g"))


def test_gains_scale_what_was_baked_before_them(pair: tuple[LlamaForCausalLM, Path]) -> None:
    model, folder = pair
    made(model, folder / "g", IA3Config(target_modules=["q_proj"], feedforward_modules=[]), seed=3)
    build(folder, DECLARED + 'save b + x + g to "out"\nsave b + g + x to "other"\n')
    hold(out(folder), merged(model, folder / "x", folder / "g"))
    hold(out(folder, "other"), merged(model, folder / "g", folder / "x"))


def test_equal_bakes_have_one_meaning(pair: tuple[LlamaForCausalLM, Path]) -> None:
    _, folder = pair
    sums = ["b + x + 0.5 * x", "b + 1.5 * x", "b + (2 * x - 0.5 * x)"]
    saves = "".join(f'save {text} to "out{n}"\n' for n, text in enumerate(sums))
    built = build(folder, DECLARED + saves).outputs
    assert len({x.semantic_hash for x in built}) == 1
    build(folder, DECLARED + 'save b + x - x to "none"\n')
    hold(out(folder, "none"), load_file(folder / "base" / "model.safetensors"))


def test_what_is_baked_may_be_any_expression(pair: tuple[LlamaForCausalLM, Path]) -> None:
    model, folder = pair
    text = (
        'save compress(x, rank=1) to "small"\nsave b - 0.5 * compress(x, rank=1) to "out"\n'
        'model m on b = "out"\nsave b + 0.5 * (m - b) + x to "on"\n'
    )
    first, second = text.split("model", 1)
    build(folder, DECLARED + first)
    small = merged(model, folder / "small")
    own = model.state_dict()
    hold(out(folder), {name: 1.5 * own[name] - 0.5 * small[name] for name in own})
    build(folder, DECLARED + "model" + second)
    lora = merged(model, folder / "x")
    hold(out(folder, "on"), {n: lora[n] + 0.25 * (own[n] - small[n]) for n in own})


EXPRESSIONS = [
    "dare([x, z], density=0.5, seed=3, rank=4)",
    "ties([x, z], density=0.5, rank=3)",
    "mean([x, z])",
    "x ⊕ 0.5 ⊗ z",
    "ramp(1.0, 0.2) * x + steps([1, 0]) * z",
    "compress(x + z, energy=0.8)",
    "norm(x) / norm(z) * z",
    'x["*.q_proj"]',
    "join(x, y)",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
@pytest.mark.filterwarnings("ignore")
def test_a_bake_is_what_peft_makes_of_the_saved_adapter(
    text: str, pair: tuple[LlamaForCausalLM, Path]
) -> None:
    """Numbers that are drawn or differ by site go by the adapter's names in both."""
    model, folder = pair
    made(model, folder / "z", LORA, seed=9)
    declared = DECLARED + 'adapter z on b = "z"\n'
    build(folder, f'{declared}save {text} to "saved"\nsave b + ({text}) to "out"\n')
    hold(out(folder), merged(model, folder / "saved"))


# --- heads and ties --------------------------------------------------------------------------


def test_a_head_takes_the_dtype_of_the_model(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = BertForSequenceClassification(BertConfig(**SIZES)).eval()
    config = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"])
    made(model, tmp_path / "x", config, seed=1, train=_moved)
    model.half().save_pretrained(tmp_path / "base")
    build(tmp_path, RECIPE + SAVE)
    head = load_file(tmp_path / "x" / "adapter_model.safetensors")[f"{PREFIX}classifier.weight"]
    assert torch.equal(out(tmp_path)["classifier.weight"], head.half())
    assert not torch.equal(head.half(), model.classifier.weight)


def _moved(model: PeftModel) -> None:
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data += 0.3 * torch.randn_like(parameter)


def test_a_sum_without_an_adapter_is_without_its_heads(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = BertForSequenceClassification(BertConfig(**SIZES)).eval()
    model.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"])
    made(model, tmp_path / "x", config, seed=1, train=_moved)
    made(model, tmp_path / "y", LoraConfig(r=2, target_modules=["query"]), seed=2)
    sums = ["b + x - x + y", "b + y + x - x", "b + y"]
    saves = "".join(f'save {text} to "out{n}"\n' for n, text in enumerate(sums))
    build(tmp_path, RECIPE + 'adapter y on b = "y"\n' + saves)
    for n in range(len(sums)):
        hold(out(tmp_path, f"out{n}"), merged(model, tmp_path / "y"))


@pytest.mark.parametrize("order", ["b + 0.5 * (m - b) + x", "b + x + 0.5 * (m - b)"])
@pytest.mark.parametrize("place", ["embed_tokens", "lm_head"])
def test_what_an_adapter_has_whole_is_changed_by_no_other(
    tmp_path: Path, place: str, order: str
) -> None:
    """A copy of the base's embedding, or a head, would undo what another adds to it, or not, by
    the order of the two. Where the other leaves it alone, both orders are PEFT's."""
    models = {"base": llama(), "tuned": llama()}
    for parameter in models["tuned"].parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    config = LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"])
    if place == "lm_head":
        config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    made(models["base"], tmp_path / "x", config, seed=1)
    rows = models["base"].model.embed_tokens.weight
    if place == "embed_tokens":
        tensors = load_file(tmp_path / "x" / "adapter_model.safetensors")
        tensors[f"{PREFIX}model.embed_tokens.base_layer.weight"] = rows.detach().clone()
        save_file(tensors, tmp_path / "x" / "adapter_model.safetensors")
    recipe = RECIPE + 'model m on b = "tuned"\n'
    refusal = error(tmp_path, f'{recipe}save {order} to "out"\n')
    assert refusal.code == "PEM0346"
    assert place in refusal.message
    told = ["PEM0711"] if place == "embed_tokens" else []  # a head is meant to take its place
    assert codes(tmp_path, f'{recipe}save m + x to "out"\n') == told
    assert codes(tmp_path, RECIPE + SAVE) == []

    apart = order.replace("(m - b)", '(m - b)["*.layers.*"]')
    build(tmp_path, f'{recipe}save {apart} to "out"\n')
    base, tuned = (dict(model.state_dict()) for model in models.values())
    wanted = merged(models["base"], tmp_path / "x")
    for name in wanted:
        if ".layers." in name:
            wanted[name] = wanted[name] + 0.5 * (tuned[name] - base[name])
    hold(out(tmp_path), wanted)


def test_an_embedding_that_was_given_more_rows(tmp_path: Path) -> None:
    """The adapter holds the rows that its base had: those of the model are replaced."""
    model = llama()
    model.save_pretrained(tmp_path / "small")
    model.resize_token_embeddings(44)
    model.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"])
    whole = get_peft_model(copy.deepcopy(model), config)
    for name, parameter in whole.named_parameters():
        if "lora_" in name or "embed_tokens.base_layer" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    whole.save_pretrained(tmp_path / "x", save_embedding_layers=True)
    build(tmp_path, RECIPE + SAVE)
    hold(out(tmp_path), dict(whole.merge_and_unload().state_dict()))
    smaller = RECIPE.replace('"base"', '"small"') + SAVE
    assert error(tmp_path, smaller).code == "PEM0307"


def test_a_checkpoint_without_the_head_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = BertForSequenceClassification(BertConfig(**SIZES)).eval()
    model.bert.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["query"], modules_to_save=["classifier"])
    made(model, tmp_path / "x", config, seed=1)
    refusal = error(tmp_path, RECIPE + SAVE)
    assert refusal.code == "PEM0338"
    assert not (tmp_path / "out").exists()


TIED = {
    "embedding of GPT-2": (lambda: GPT2LMHeadModel(_GPT2), ["wte"], []),
    "output of Llama": (lambda: llama(tie_word_embeddings=True), ["lm_head"], []),
    "embedding of BERT": (lambda: BertForMaskedLM(BertConfig(**SIZES)), ["word_embeddings"], []),
    "embedding of T5": (lambda: T5ForConditionalGeneration(_T5), ["shared"], []),
    "head of Llama": (lambda: llama(tie_word_embeddings=True), ["q_proj"], ["embed_tokens"]),
}
_T5 = T5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4)
_GPT2 = GPT2Config(vocab_size=40, n_embd=32, n_layer=1, n_head=4, n_positions=16)


@pytest.mark.parametrize("what", TIED)
@pytest.mark.filterwarnings("ignore")
def test_a_tied_layer_is_refused(what: str, tmp_path: Path) -> None:
    """PEFT merges into the tensor of both: the model does something else then."""
    make, targets, heads = TIED[what]
    model = make().eval()
    model.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=targets, modules_to_save=heads or None)
    whole = get_peft_model(copy.deepcopy(model), config)
    whole.save_pretrained(tmp_path / "x")
    assert error(tmp_path, RECIPE + SAVE).code == "PEM0339"


def test_only_what_has_no_place_is_listed(tmp_path: Path) -> None:
    model = llama()
    model.model.save_pretrained(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
    made(model, tmp_path / "x", config, seed=1)
    refusal = error(tmp_path, RECIPE + SAVE)
    assert refusal.code == "PEM0338"
    assert refusal.message.endswith("1 of the 3 tensors that the adapter changes: lm_head.weight")


def test_a_tied_model_stays_tied(tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "base")
    made(model, tmp_path / "x", LORA, seed=1)
    build(tmp_path, RECIPE + SAVE)
    assert "lm_head.weight" not in out(tmp_path)
    new = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert new.lm_head.weight is new.model.embed_tokens.weight
