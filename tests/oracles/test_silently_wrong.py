"""What PEFT 0.21.2 does silently wrong when it merges: there, and here right or an error."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, KasaConfig, LoraConfig, PeftModel, get_peft_model
from support import PREFIX, build, codes, config_of, error, gains, lora, save, tensors_of
from support.peft_made import apart, composed, declared, loaded, made, merged, output, with_adapters
from torch import Tensor, nn

QUERY = ["query", "value"]
SITE = "bert.encoder.layer.0.attention.self.query"


def lost(base: nn.Module, adapter: Path) -> float:
    """How far PEFT's merge of one adapter alone, at weight 1, is from that adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = output(with_adapters(base, {"a": adapter}))
        return apart(output(merged(base, {"a": adapter}, {"a": 1.0})), alone)


def refused(folder: Path, **adapters: Path) -> str:
    """The code of the one error that a recipe of these adapters gives, before it is built."""
    [code] = codes(folder, declared(adapters) + f'save 2 * {next(iter(adapters))} to "out"')
    return code


def test_the_yardstick(bert: nn.Module, trio: dict[str, Path]) -> None:
    """Of a plain LoRA, PEFT's merge alone is that LoRA."""
    assert lost(bert, trio["a"]) < 1e-5


def test_rslora_is_not_made_larger_by_the_root_of_the_rank(bert: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=QUERY)
    pair = {name: made(bert, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    theirs = merged(bert, pair, {"a": 1.0, "b": 1.0}, combination_type="cat")
    layer = theirs.base_model.model.get_submodule(SITE)
    true = layer.get_delta_weight("a") + layer.get_delta_weight("b")
    assert torch.allclose(layer.get_delta_weight("merged"), true * 8**0.5, atol=1e-5)
    ours = loaded(bert, composed(tmp_path, pair, "a + b")).base_model.model.get_submodule(SITE)
    assert torch.allclose(ours.get_delta_weight("default"), true, atol=1e-5)


def test_dora(bert: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=4, use_dora=True, target_modules=QUERY)
    a = made(bert, tmp_path / "a", config, 0)
    assert lost(bert, a) > 1e-2
    assert refused(tmp_path, a=a) == "PEM0369"


def test_dora_that_the_config_denies(bert: nn.Module, tmp_path: Path) -> None:
    a = made(bert, tmp_path / "a", LoraConfig(r=4, use_dora=True, target_modules=QUERY), 0)
    denied = save(tmp_path / "b", tensors_of(a), config_of(a) | {"use_dora": False})
    assert refused(tmp_path, b=denied) == "PEM0415"
    assert refused(tmp_path, c=lora(tmp_path / "c", use_dora=True)) == "PEM0415"


def test_kasa(bert: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=4, kasa_config=KasaConfig(), target_modules=QUERY)
    a = made(bert, tmp_path / "a", config, 0)
    assert lost(bert, a) > 1e-2
    assert refused(tmp_path, a=a) == "PEM0421"


def test_lora_bias(bert: nn.Module, tmp_path: Path) -> None:
    a = made(bert, tmp_path / "a", LoraConfig(r=4, lora_bias=True, target_modules=QUERY), 0)
    assert lost(bert, a) > 1e-2
    wanted = output(with_adapters(bert, {"a": a}))
    out = composed(tmp_path, {"a": a}, "2 * a - a / 2 - a / 2")
    assert apart(output(with_adapters(bert, {"out": out})), wanted) < 1e-5


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases(bert: nn.Module, tmp_path: Path, bias: Any) -> None:
    config = LoraConfig(r=4, bias=bias, target_modules=QUERY)
    pair = {name: made(bert, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    with pytest.raises(ValueError, match="supports only 1 adapter with bias"):
        with_adapters(bert, pair)
    assert refused(tmp_path, a=pair["a"]) == "PEM0369"
    assert codes(tmp_path, declared(pair) + 'save a + b to "out"') == ["PEM0369"]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_heads_of_one_adapter_only(bert: nn.Module, tmp_path: Path, order: str) -> None:
    def train(model: PeftModel) -> None:
        model.classifier.modules_to_save["default"].weight.data += 1

    head = LoraConfig(r=2, modules_to_save=["classifier"], target_modules=QUERY)
    pair = {
        "a": made(bert, tmp_path / "a", head, 0, train=train),
        "b": made(bert, tmp_path / "b", LoraConfig(r=2, target_modules=QUERY), 1),
    }
    theirs = merged(bert, pair, dict.fromkeys(order, 1.0), combination_type="cat")
    trained = tensors_of(pair["a"])[f"{PREFIX}classifier.weight"]
    kept = theirs.classifier.modules_to_save
    weight = kept["merged"].weight if "merged" in kept else theirs.classifier.original_module.weight
    assert torch.equal(weight, bert.classifier.weight)
    text = declared(pair) + f'save {" + ".join(order)} to "out"'
    assert codes(tmp_path, text) == ["PEM0346"]
    build(tmp_path, f"{text} with heads=a")
    assert torch.equal(tensors_of(tmp_path / "out")[f"{PREFIX}classifier.weight"], trained)


def test_trained_tokens(bert: nn.Module, tmp_path: Path) -> None:
    def train(model: PeftModel) -> None:
        for name, parameter in model.named_parameters():
            if "trainable_tokens_delta" in name:
                parameter.data = torch.randn_like(parameter)

    config = LoraConfig(
        r=2, target_modules=QUERY, trainable_token_indices={"word_embeddings": [5, 9]}
    )
    a = made(bert, tmp_path / "a", config, 0, train=train)
    assert lost(bert, a) > 1e-2
    assert refused(tmp_path, a=a) == "PEM0369"


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_an_initialisation_that_changed_the_base(
    bert: nn.Module, tmp_path: Path, init: Any
) -> None:
    a = made(bert, tmp_path / "a", LoraConfig(r=2, init_lora_weights=init, target_modules=QUERY), 0)
    theirs = with_adapters(bert, {"a": a}).base_model.model.get_submodule(SITE)
    assert not torch.allclose(theirs.get_base_layer().weight, bert.get_submodule(SITE).weight)
    assert refused(tmp_path, a=a) == "PEM0422"


@pytest.mark.parametrize("init", ["corda", "lora_ga", "loftq", "PiSSA", "something new", 1])
def test_an_initialisation_that_may_have(tmp_path: Path, init: object) -> None:
    assert refused(tmp_path, a=lora(tmp_path / "a", init_lora_weights=init)) == "PEM0422"


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "mica"])
def test_an_initialisation_that_did_not(bert: nn.Module, tmp_path: Path, init: Any) -> None:
    a = made(bert, tmp_path / "a", LoraConfig(r=2, init_lora_weights=init, target_modules=QUERY), 0)
    theirs = output(with_adapters(bert, {"a": a}))
    assert apart(output(loaded(bert, composed(tmp_path, {"a": a}, "(a + a) / 2"))), theirs) < 1e-5


@pytest.mark.filterwarnings("ignore:.* changes the base weights")
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_the_ways_out_of_a_changed_base(
    bert: nn.Module, tmp_path: Path, init: Any, rslora: bool
) -> None:
    """PEFT's conversion is a plain LoRA, and what the trained one is less the initial one."""
    start, a, trained = tmp_path / "start", tmp_path / "a", tmp_path / "trained"
    config = LoraConfig(r=2, init_lora_weights=init, use_rslora=rslora, target_modules=QUERY)
    model = get_peft_model(copy.deepcopy(bert), config).eval()
    config.init_lora_weights = True
    model.save_pretrained(str(start))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.2 * torch.randn_like(parameter)
    wanted = output(model)
    model.save_pretrained(str(trained))
    config.init_lora_weights = init
    model.save_pretrained(str(a), path_initial_model_for_weight_conversion=str(start))
    assert apart(wanted, output(bert)) > 1e-2
    assert apart(output(loaded(bert, composed(tmp_path, {"a": a}, "a"))), wanted) < 1e-5
    both = {"trained": trained, "start": start}
    assert apart(output(loaded(bert, composed(tmp_path, both, "trained - start"))), wanted) < 1e-5


def test_rank_patterns_with_parameter_addition(bert: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=QUERY, rank_pattern={"query": 2})
    pair = {name: made(bert, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    theirs = merged(bert, pair, {"a": 1.0, "b": 1.0}, combination_type="linear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.save_pretrained(str(tmp_path / "theirs"), selected_adapters=["merged"])
    with pytest.raises(RuntimeError, match="size mismatch"):
        with_adapters(bert, {"theirs": tmp_path / "theirs" / "merged"})
    ours = loaded(bert, composed(tmp_path, pair, "a ⊕ b"))
    assert apart(output(ours), output(theirs)) < 1e-5


def test_ia3_of_partly_shared_modules(bert: nn.Module, tmp_path: Path) -> None:
    configs = {
        "a": IA3Config(target_modules=["key", "value"], feedforward_modules=[]),
        "b": IA3Config(target_modules=["query", "value"], feedforward_modules=[]),
    }
    pair = {name: made(bert, tmp_path / name, configs[name], 0) for name in "ab"}
    key, value = (f"bert.encoder.layer.0.attention.self.{name}" for name in ("key", "value"))
    theirs = merged(bert, pair, {"a": 0.5, "b": 0.5}).base_model.model.get_submodule(key)
    a, b = gains(pair["a"]), gains(pair["b"])
    assert np.allclose(theirs.ia3_l["merged"].detach(), 0.5 * a[key])
    ours = gains(composed(tmp_path, pair, "join(0.5 * a, 0.5 * b)"))
    assert np.allclose(ours[key], 0.5 * a[key] + 0.5)
    assert np.allclose(ours[value], 0.5 * a[value] + 0.5 * b[value])
    assert codes(tmp_path, declared(pair) + 'save 0.5 * a + 0.5 * b to "out"') == ["PEM0306"]


def test_a_weight_that_is_missing(bert: nn.Module, trio: dict[str, Path], tmp_path: Path) -> None:
    theirs = with_adapters(bert, trio)
    theirs.add_weighted_adapter(["a", "b"], [1.0], "short", combination_type="cat")
    theirs.set_adapter("short")
    assert apart(output(theirs), output(with_adapters(bert, {"a": trio["a"]}))) < 1e-5
    text = declared(trio) + (
        "def mix(x: adapter, y: adapter, u: number, v: number) -> adapter = u * x + v * y\n"
        'save mix(a, b, 1) to "out"'
    )
    assert codes(tmp_path, text) == ["PEM0318"]


def test_an_output_that_is_there_already(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path
) -> None:
    theirs = merged(bert, trio, {"a": 1.0, "b": 1.0}, combination_type="cat")
    before = output(theirs)
    theirs.add_weighted_adapter(["a", "b"], [1.0, -9.0], "merged", combination_type="cat")
    assert torch.equal(output(theirs), before)
    first = tensors_of(composed(tmp_path, trio, "a + b"))
    second = tensors_of(composed(tmp_path, trio, "a - 9 * b"))
    assert any(not torch.equal(first[key], second[key]) for key in first)
    twice = declared(trio) + 'save a + b to "out"\nsave a - 9 * b to "out"'
    assert codes(tmp_path, twice) == ["PEM0344"]


def test_a_rank_above_the_matrix(bert: nn.Module, trio: dict[str, Path], tmp_path: Path) -> None:
    theirs = with_adapters(bert, trio)
    theirs.add_weighted_adapter(
        ["a", "b"], [1.0, 1.0], "wide", svd_rank=40, svd_full_matrices=False
    )
    layer = theirs.base_model.model.get_submodule(SITE)
    assert theirs.peft_config["wide"].r == 40
    assert layer.lora_A["wide"].weight.shape[0] == 32
    text = declared(trio) + 'save a + b to "out" with rank=40'
    assert codes(tmp_path, text) == ["PEM0310"]


def test_truncation_of_a_one_dimensional_convolution(tmp_path: Path) -> None:
    torch.manual_seed(11)
    base = nn.Sequential(nn.Conv1d(4, 6, 3)).eval()
    config = LoraConfig(r=2, target_modules=["0"])
    pair = {name: made(base, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    weights, x = {"a": 1.0, "b": 1.0}, torch.randn(2, 4, 8)
    with pytest.raises(RuntimeError):
        output(merged(base, pair, weights, combination_type="svd", svd_rank=3), x)
    ours = output(loaded(base, composed(tmp_path, pair, "a + b", "rank=4")), x)
    assert apart(ours, output(merged(base, pair, weights, combination_type="cat"), x)) < 1e-5


def test_dare_that_drops_everything(bert: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=QUERY)
    pair = {name: made(bert, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    weights = {"a": 1.0, "b": 1.0}
    theirs = merged(bert, pair, weights, combination_type="dare_linear", density=0.0)
    layer = theirs.base_model.model.get_submodule(SITE)
    assert layer.get_delta_weight("merged").isnan().all()
    assert codes(tmp_path, declared(pair) + 'save dare([a, b], density=0) to "out"') == ["PEM0326"]


class Experts(nn.Module):
    """Experts whose weights are one stacked parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("eoi,bi->bo", self.weight, x)


def test_stacked_experts(tmp_path: Path) -> None:
    base = nn.ModuleDict({"experts": Experts()})
    config = LoraConfig(r=2, target_modules=[], target_parameters=["experts.weight"])
    a = made(base, tmp_path / "a", config, 0)
    with pytest.raises(ValueError, match=r"does not support targeting nn\.Parameter"):
        merged(base, {"a": a}, {"a": 1.0})
    [built] = build(tmp_path, 'adapter a = "a"\nsave 2 * a to "out"\n').outputs
    once, twice = (loaded(base, x).merge_and_unload().experts.weight for x in (a, built.path))
    assert torch.allclose(twice - base.experts.weight, 2 * (once - base.experts.weight), atol=1e-5)


def test_replicated_layers(llama: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], layer_replication=[(0, 2), (1, 2)])
    assert refused(tmp_path, a=made(llama, tmp_path / "a", config, 0)) == "PEM0421"


@pytest.mark.parametrize(
    "field",
    [
        {"alora_invocation_tokens": [7]},
        {"alora_invocation_tokens": []},
        {"arrow_config": {"top_k": 2}},
        {"use_bdlora": {"nblocks": 2}},
        {"use_qalora": True},
        {"monteclora_config": {"num_samples": 4}},
        {"velora_config": {"scale": 1}},
        {"ensure_weight_tying": True},
    ],
)
def test_features_that_change_what_a_lora_is(tmp_path: Path, field: dict[str, Any]) -> None:
    assert refused(tmp_path, a=lora(tmp_path / "a", **field)) == "PEM0421"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_that_are_not_finite(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path, bad: float, dtype: torch.dtype
) -> None:
    tensors = {key: tensor.to(dtype) for key, tensor in tensors_of(trio["a"]).items()}
    tensors[f"{PREFIX}{SITE}.lora_A.weight"][2, 3] = bad
    broken = {"a": save(tmp_path / "a", tensors, config_of(trio["a"])), "b": trio["b"]}
    theirs = merged(bert, broken, {"a": 1.0, "b": 1.0}, combination_type="cat")
    layer = theirs.base_model.model.get_submodule(SITE)
    assert not layer.get_delta_weight("merged").isfinite().all()
    refusal = error(tmp_path, declared(broken) + 'save a + b to "out"')
    assert refusal.code == "PEM0502"
    assert SITE in refusal.message
    assert not (tmp_path / "out").exists()


def test_a_result_too_large_for_its_dtype(trio: dict[str, Path], tmp_path: Path) -> None:
    text = declared(trio) + 'save 1e6 * a to "out" with dtype=f16'
    assert error(tmp_path, text).code == "PEM0503"
    assert not (tmp_path / "out").exists()
