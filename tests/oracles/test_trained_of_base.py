"""Biases and rows of tokens that PEFT trains of the base itself: put in their places on `b + x`,
kept in a copy, and told wherever else they would have to be added or scaled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from support import build, codes, config_of, error, pem, tensors_of
from support.peft_made import IDS, bert, llama, loaded, made
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

DECLARED = 'base b = "base"\nadapter x on b = "x"\n'
BIASES: dict[str, Any] = {"target_modules": ["query"], "bias": "all"}
ROWS = ("token_adapter", "modules_to_save")


def tied() -> nn.Module:
    """A language model whose output layer is its embedding."""
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, initializer_range=0.2,
        tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def moved(model: PeftModel) -> None:
    """A training that moves biases, rows of tokens and heads."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or any(part in name for part in ROWS):
            parameter.data += 0.2 * torch.randn_like(parameter)


@dataclass(frozen=True)
class Case:
    """A base, a config, and how many tensors of the base that changes."""

    base: Callable[[], nn.Module]
    config: LoraConfig
    changed: int


CASES = {
    "all": Case(bert, LoraConfig(r=3, **BIASES), 30),
    "lora_only": Case(
        bert, LoraConfig(r=3, target_modules=["query", "classifier"], bias="lora_only"), 8
    ),
    "biases beside a head": Case(
        bert, LoraConfig(r=3, **BIASES, modules_to_save=["classifier"]), 31
    ),
    "biases of a DoRA": Case(bert, LoraConfig(r=3, **BIASES, use_dora=True), 30),
    "rows": Case(
        llama,
        LoraConfig(target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [7, 0, 39]}),
        3,
    ),
    "a list": Case(
        llama, LoraConfig(target_modules=["q_proj"], trainable_token_indices=[1, 39]), 3
    ),
    "tied": Case(tied, LoraConfig(target_modules=["q_proj"], trainable_token_indices=[0, 5]), 3),
    "tied, and both said": Case(
        tied,
        LoraConfig(
            target_modules=["q_proj"],
            trainable_token_indices={"embed_tokens": [0, 5], "lm_head": [0, 5]},
        ),
        3,
    ),
    "rows of two modules": Case(
        llama,
        LoraConfig(
            target_modules=["q_proj"],
            trainable_token_indices={"embed_tokens": [1, 5], "lm_head": [2]},
        ),
        4,
    ),
    "both": Case(
        bert,
        LoraConfig(
            **BIASES,
            trainable_token_indices={"word_embeddings": [1, 5], "position_embeddings": [0]},
        ),
        32,
    ),
}


def stocked(folder: Path, case: Case) -> dict[str, Tensor]:
    """A base and an adapter of it in a folder; what PEFT merges the two to."""
    base = case.base()
    base.save_pretrained(folder / "base")
    made(base, folder / "x", case.config, 1, train=moved)
    model = PeftModel.from_pretrained(copy.deepcopy(base), str(folder / "x"))
    return dict(model.merge_and_unload().state_dict())


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_on_its_base_they_take_the_place_of_its_own(case: Case, tmp_path: Path) -> None:
    wanted, old = stocked(tmp_path, case), case.base().state_dict()
    build(tmp_path, f'{DECLARED}save b + x to "out"\nsave b + 0.5 * ((b + x) - b) to "half"')
    ours, half = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "half"))
    for key, tensor in ours.items():
        assert torch.allclose(tensor, wanted[key], rtol=0, atol=1e-6), key
        assert torch.allclose(half[key], (wanted[key] + old[key]) / 2, rtol=0, atol=1e-6), key
    different = [key for key, tensor in ours.items() if not torch.equal(tensor, old[key])]
    assert len(different) == case.changed
    # What is put in place is put there as it is.
    for key in different:
        if key.endswith("bias"):
            assert torch.equal(ours[key], wanted[key]), key


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_copy_has_them(case: Case, tmp_path: Path) -> None:
    stocked(tmp_path, case)
    build(tmp_path, f'{DECLARED}save x to "copy"')
    models = [
        PeftModel.from_pretrained(case.base(), str(tmp_path / name)).eval()
        for name in ("x", "copy")
    ]
    theirs, ours = (model(input_ids=IDS).logits for model in models)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not torch.allclose(ours, case.base()(input_ids=IDS).logits, atol=1e-2)
    assert config_of(tmp_path / "copy")["bias"] == case.config.bias
    if not case.config.modules_to_save:  # of which PEFT saves biases twice
        assert set(tensors_of(tmp_path / "copy")) == set(tensors_of(tmp_path / "x"))
        loaded(case.base(), tmp_path / "copy")


@pytest.mark.parametrize("case", ["all", "both", "rows"])
def test_elsewhere_the_recipe_says_what_becomes_of_them(case: str, tmp_path: Path) -> None:
    stocked(tmp_path, CASES[case])
    for statement in (
        'save 0.5 * x to "out"', 'save -x to "out"', 'save x["*.0.*"] to "out"',
        'save x to "out" with rank=1', 'save b + 0.5 * x to "out"', 'save b - x to "out"',
        'save b + x["*.0.*"] to "out"',
    ):  # fmt: skip
        refused = error(tmp_path, DECLARED + statement)
        assert refused.code == "PEM0369", statement
        assert refused.help is not None and "(origin + x) - origin" in refused.help
    assert codes(tmp_path, f'{DECLARED}save x to "out" with reader=vllm') == ["PEM0367"]
    build(
        tmp_path,
        f'{DECLARED}save 0.5 * x to "none" with heads=none\nsave 0.5 * x to "whole" with heads=x',
    )
    own, none, whole = (tensors_of(tmp_path / name) for name in ("x", "none", "whole"))
    factors = {key for key in own if ".lora_" in key}
    assert set(none) == factors
    assert set(whole) == set(own)
    assert all(torch.equal(whole[key], own[key]) for key in set(own) - factors)
    assert config_of(tmp_path / "none")["bias"] == "none"


def test_rows_of_other_tokens_have_no_mean(tmp_path: Path) -> None:
    for name, tokens in (("x", [1, 5]), ("y", [5, 1]), ("z", [1, 5])):
        config = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=tokens)
        made(llama(), tmp_path / name, config, ord(name), train=moved)
    declared = "".join(f'adapter {name} = "{name}"\n' for name in "xyz")
    assert codes(tmp_path, f'{declared}save x + y to "out" with heads=mean') == ["PEM0346"]
    build(tmp_path, f'{declared}save x + z to "out" with heads=mean')
    key = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    x, z, out = (tensors_of(tmp_path / name)[key] for name in ("x", "z", "out"))
    assert torch.allclose(out, (x + z) / 2)


def test_what_another_adapter_changes_is_told(tmp_path: Path) -> None:
    stocked(tmp_path, CASES["rows"])
    made(llama(), tmp_path / "y", LoraConfig(r=2, target_modules=["embed_tokens", "up_proj"]), 2)
    declared = DECLARED + 'adapter y on b = "y"\n'
    assert codes(tmp_path, f'{declared}save b + x + y to "out"') == ["PEM0346"]
    assert codes(tmp_path, f'{declared}save b + y + x to "out"') == ["PEM0346"]
    build(tmp_path, f'{declared}save b + x + y["*.up_proj"] to "out"')


def test_rows_of_a_tied_output_layer_are_refused(tmp_path: Path) -> None:
    config = LoraConfig(target_modules=["q_proj"], trainable_token_indices={"lm_head": [0, 5]})
    stocked(tmp_path, Case(tied, config, 0))
    assert codes(tmp_path, f'{DECLARED}save b + x to "out"') == ["PEM0339"]
    stocked(tmp_path, CASES["tied, and both said"])
    llama().save_pretrained(tmp_path / "base")
    assert codes(tmp_path, f'{DECLARED}save b + x to "out"') == ["PEM0339"]


@pytest.mark.parametrize("case", ["both", "rows", "biases beside a head"])
def test_what_it_changes_of_its_base_is_a_lora_without_them(case: str, tmp_path: Path) -> None:
    wanted, old = stocked(tmp_path, CASES[case]), CASES[case].base().state_dict()
    chosen = "query" if CASES[case].base is bert else "q_proj"
    build(tmp_path, f'{DECLARED}save compress(((b + x) - b)["*{chosen}.weight"], rank=8) to "lora"')
    ours = tensors_of(tmp_path / "lora")
    assert all(".lora_" in key for key in ours)
    key = next(key for key in ours if key.endswith("lora_A.weight"))
    weight = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
    change = ours[key.replace("lora_A", "lora_B")] @ ours[key]
    assert torch.allclose(change, wanted[weight] - old[weight], atol=1e-5)


def test_other_names_and_commands(tmp_path: Path) -> None:
    stocked(tmp_path, CASES["both"])
    (tmp_path / "r.pem").write_text(
        'adapter x = "x" with names={ "bert.*": "encoder.*" }\nsave x to "renamed"\n'
    )
    for words in (["build"], ["lock"], ["build", "--locked"], ["report"], ["plan"]):
        done = pem(words[0], "r.pem", *words[1:], folder=tmp_path)
        assert done.code == 0, done.text
    tokens = config_of(tmp_path / "renamed")["trainable_token_indices"]
    assert tokens == {
        "encoder.embeddings.position_embeddings": [0],
        "encoder.embeddings.word_embeddings": [1, 5],
    }
    keys = {key.replace(".encoder.", ".bert.", 1) for key in tensors_of(tmp_path / "renamed")}
    assert keys == set(tensors_of(tmp_path / "x"))
    assert "trained     27 biases, 1 row of" in pem("inspect", "x", folder=tmp_path).out
    assert "3 sites: 3 same" in pem("diff", "x", "x", folder=tmp_path).out


def test_a_first_recipe_says_whose_are_kept(tmp_path: Path) -> None:
    for seed, name in enumerate("xy"):
        made(bert(), tmp_path / name, LoraConfig(r=2, **BIASES), seed, train=moved)
    done = pem("init", "x", "y", "-o", "first.pem", folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "with heads=x" in (tmp_path / "first.pem").read_text()
