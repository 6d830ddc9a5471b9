"""`pemlang.apply` on live PEFT models and `Recipe.evaluate`: what a build and a load would give."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from support import PREFIX, config_of, recipe, save, tensors_of
from support.peft_made import apart, declared, loaded, made, output, together
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import pemlang

QUERY = ["query", "value"]
LETS = """
let mixed = a - 0.5 * b
let cut = compress(a + b, rank=3)
let part = 2 * a["*.query"]
let number = 3
save mixed to "mixed"
save cut to "cut"
save part to "part"
"""


def on(base: nn.Module, adapter: Path, name: str = "default") -> PeftModel:
    """A live model with one adapter."""
    return PeftModel.from_pretrained(copy.deepcopy(base), str(adapter), adapter_name=name)


@pytest.fixture
def made_recipe(trio: dict[str, Path], tmp_path: Path) -> pemlang.Recipe:
    return pemlang.load(recipe(tmp_path, declared(trio) + LETS))


@pytest.mark.filterwarnings("ignore:.*truncation loses")
@pytest.mark.parametrize("name", ["mixed", "cut", "part"])
def test_evaluate_gives_the_tensors_of_a_build(
    made_recipe: pemlang.Recipe, tmp_path: Path, name: str
) -> None:
    made_recipe.build()
    built, evaluated = tensors_of(tmp_path / name), made_recipe.evaluate(name)
    assert evaluated.keys() == built.keys()
    assert all(torch.equal(evaluated[key], built[key]) for key in built)
    assert all(evaluated[key].dtype == built[key].dtype for key in built)


def test_evaluate_a_declared_adapter(made_recipe: pemlang.Recipe, trio: dict[str, Path]) -> None:
    evaluated, source = made_recipe.evaluate("c"), tensors_of(trio["c"])
    assert all(torch.equal(evaluated[key], source[key]) for key in source)


@pytest.mark.filterwarnings("ignore:.*truncation loses")
@pytest.mark.parametrize("name", ["mixed", "cut", "part"])
def test_apply_gives_what_a_load_gives(
    bert: nn.Module,
    trio: dict[str, Path],
    made_recipe: pemlang.Recipe,
    tmp_path: Path,
    name: str,
) -> None:
    made_recipe.build()
    model = on(bert, trio["c"])
    before = output(model.eval())
    pemlang.apply(model, made_recipe, name)
    assert model.active_adapters == [name]
    wanted = output(loaded(bert, tmp_path / name))
    assert apart(wanted, before) > 1e-2
    assert torch.equal(output(model.eval()), wanted)
    model.set_adapter("default")
    assert torch.equal(output(model), before)


def test_apply_takes_a_path_and_a_name(
    bert: nn.Module, trio: dict[str, Path], made_recipe: pemlang.Recipe, tmp_path: Path
) -> None:
    model = on(bert, trio["c"])
    pemlang.apply(model, tmp_path / "recipe.pem", "mixed", adapter_name="mine")
    wanted = output(together(bert, trio, {"a": 1.0, "b": -0.5}))
    assert model.active_adapters == ["mine"]
    assert apart(output(model.eval()), wanted) < 1e-5


@pytest.mark.parametrize("others", [0, 1])
def test_apply_replaces_an_adapter_of_that_name(
    bert: nn.Module, trio: dict[str, Path], made_recipe: pemlang.Recipe, others: int
) -> None:
    """With another rank, whether it is active or not, and whether it is the only one or not."""
    model = on(bert, trio["c"], "mixed")
    if others:
        model.load_adapter(str(trio["b"]), "other")
    for name, weights in (("mixed", {"a": 1.0, "b": -0.5}), ("part", None)):
        pemlang.apply(model, made_recipe, name, adapter_name="mixed")
        if weights:
            wanted = output(together(bert, trio, weights))
            assert apart(output(model.eval()), wanted) < 1e-5
    keys = set(get_peft_model_state_dict(model, adapter_name="mixed"))
    assert keys == set(made_recipe.evaluate("part"))
    assert set(model.peft_config) == {"mixed", *["other"][:others]}


@pytest.mark.parametrize("name", ["a", "lora", "lora_A", "weight", "base_layer", "query"])
def test_names_that_occur_in_keys(
    bert: nn.Module, trio: dict[str, Path], made_recipe: pemlang.Recipe, name: str
) -> None:
    model = on(bert, trio["c"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of some of these names itself
        pemlang.apply(model, made_recipe, "mixed", adapter_name=name)
    wanted = output(together(bert, trio, {"a": 1.0, "b": -0.5}))
    assert apart(output(model.eval()), wanted) < 1e-5


def refused(model: PeftModel, loaded_recipe: pemlang.Recipe, name: str) -> str:
    """The code of the error that applying gives; it leaves the model as it was."""
    before, active, adapters = output(model.eval()), model.active_adapters, set(model.peft_config)
    with pytest.raises(pemlang.PemError) as caught:
        pemlang.apply(model, loaded_recipe, name)
    assert torch.equal(output(model), before)
    assert (model.active_adapters, set(model.peft_config)) == (active, adapters)
    [diagnostic] = caught.value.diagnostics
    return diagnostic.code


def test_a_name_that_is_no_adapter(
    bert: nn.Module, trio: dict[str, Path], made_recipe: pemlang.Recipe
) -> None:
    model = on(bert, trio["c"])
    assert refused(model, made_recipe, "nothing") == "PEM0206"
    assert refused(model, made_recipe, "number") == "PEM0301"
    with pytest.raises(pemlang.PemError):
        made_recipe.evaluate("number")


@pytest.mark.parametrize("called", ["default", "mixed"])
def test_another_model(
    llama: nn.Module, made_recipe: pemlang.Recipe, tmp_path: Path, called: str
) -> None:
    other = made(llama, tmp_path / "other", LoraConfig(target_modules=["q_proj"]), 0)
    assert refused(on(llama, other, called), made_recipe, "mixed") == "PEM0520"


def test_a_model_of_another_width(made_recipe: pemlang.Recipe) -> None:
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48,
    )  # fmt: skip
    small = BertForSequenceClassification(config)
    model = get_peft_model(small, LoraConfig(target_modules=QUERY), adapter_name="mixed")
    assert refused(model, made_recipe, "mixed") == "PEM0520"


@pytest.mark.parametrize(
    "config",
    [
        IA3Config(target_modules=["key"], feedforward_modules=[]),
        PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
    ],
)
def test_a_model_of_another_method(
    bert: nn.Module, made_recipe: pemlang.Recipe, config: IA3Config | PromptTuningConfig
) -> None:
    model = get_peft_model(copy.deepcopy(bert), config)
    assert refused(model, made_recipe, "mixed") == "PEM0520"


def test_ia3(bert: nn.Module, tmp_path: Path) -> None:
    config = IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"])
    pair = {name: made(bert, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    text = declared(pair) + 'let both = a - 0.5 * b\nsave both to "out"'
    loaded_recipe = pemlang.load(recipe(tmp_path, text))
    loaded_recipe.build()
    model = on(bert, pair["a"])
    pemlang.apply(model, loaded_recipe, "both")
    assert torch.equal(output(model.eval()), output(loaded(bert, tmp_path / "out")))


def test_heads(bert: nn.Module, tmp_path: Path) -> None:
    def train(model: PeftModel) -> None:
        model.classifier.modules_to_save["default"].weight.data += torch.ones(2, 32)

    config = LoraConfig(r=2, task_type="SEQ_CLS", target_modules=QUERY)
    a = made(bert, tmp_path / "a", config, 0, train=train)
    loaded_recipe = pemlang.load(
        recipe(tmp_path, declared({"a": a}) + 'let less = a / 2\nsave less to "out"')
    )
    loaded_recipe.build()
    model = get_peft_model(copy.deepcopy(bert), LoraConfig(r=2, task_type="SEQ_CLS"))
    before = output(model.eval())
    pemlang.apply(model, loaded_recipe, "less")
    wanted = output(loaded(bert, tmp_path / "out"))
    assert apart(wanted, before) > 1e-2
    assert torch.equal(output(model.eval()), wanted)
    model.set_adapter("default")
    assert torch.equal(output(model), before)


@pytest.mark.parametrize("name", ["half", "training", "layer.0"])
def test_a_name_that_torch_does_not_take(
    bert: nn.Module, trio: dict[str, Path], made_recipe: pemlang.Recipe, name: str
) -> None:
    model = on(bert, trio["c"])
    with pytest.raises(pemlang.PemError, match="PEM0520") as caught:
        pemlang.apply(model, made_recipe, "mixed", adapter_name=name)
    assert "adapter_name" in (caught.value.diagnostics[0].help or "")
    assert set(model.peft_config) == {"default"}


def test_rows_that_every_adapter_shares(llama: nn.Module, tmp_path: Path) -> None:
    """Whole rows of an embedding are the base's: other rows would change every adapter."""
    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["embed_tokens", "q_proj"])
    a = made(llama, tmp_path / "a", config, 0)
    key = f"{PREFIX}model.embed_tokens.base_layer.weight"
    rows = {"equal": llama.model.embed_tokens.weight.data, "other": torch.randn(40, 32)}
    adapters = {
        name: save(tmp_path / name, tensors_of(a) | {key: tensor}, config_of(a))
        for name, tensor in rows.items()
    }
    loaded_recipe = pemlang.load(recipe(tmp_path, declared(adapters)))
    model = get_peft_model(copy.deepcopy(llama), LoraConfig(target_modules=["k_proj"]))
    assert refused(model, loaded_recipe, "other") == "PEM0520"
    pemlang.apply(model, loaded_recipe, "equal")
    assert apart(output(model.eval()), output(loaded(llama, a))) < 1e-6
