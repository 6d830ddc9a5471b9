"""LoRA of PEFT on the parameters of experts, on models of transformers."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from support import PREFIX, build, config_of, error, lora, pem, recipe, tensors_of
from support.peft_made import apart, loaded, made, output
from torch import nn
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    PreTrainedModel,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 16, "pad_token_id": 0,
    "eos_token_id": 1, "initializer_range": 0.2, "num_experts_per_tok": 2,
}  # fmt: skip
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def qwen(width: int = 12) -> PreTrainedModel:
    """Experts (out, in)."""
    torch.manual_seed(7)
    config = Qwen3MoeConfig(
        **SIZES, intermediate_size=24, moe_intermediate_size=width, num_experts=3
    )
    return Qwen3MoeForCausalLM(config).eval()


def gpt_oss(width: int = 12) -> PreTrainedModel:
    """Experts (in, out)."""
    torch.manual_seed(8)
    config = GptOssConfig(**SIZES, intermediate_size=width, num_local_experts=3)
    return GptOssForCausalLM(config).eval()


MODELS: dict[str, Callable[[], PreTrainedModel]] = {"qwen": qwen, "gpt_oss": gpt_oss}


def on_experts(parameters: list[str] = BOTH, **config: object) -> LoraConfig:
    return LoraConfig(
        **{"r": 2, "lora_alpha": 3, "target_modules": ["q_proj"], **config},
        target_parameters=parameters,
    )


def deltas(base: nn.Module, directory: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight, by PEFT."""
    return changes(base, loaded(base, directory))


def changes(base: nn.Module, model: PeftModel) -> dict[str, torch.Tensor]:
    merged = model.merge_and_unload().state_dict()
    return {name: x - base.state_dict()[name] for name, x in merged.items()}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(
    "config",
    [
        on_experts(),
        on_experts(use_rslora=True, rank_pattern={"gate_up_proj": 3}, alpha_pattern={"q_proj": 7}),
        on_experts(["experts.down_proj"], target_modules=[]),
        on_experts(["gate_up_proj"], target_modules=[]),
    ],
    ids=["both", "rsLoRA, patterns", "one", "short"],
)
def test_sums_are_those_of_what_peft_adds(
    tmp_path: Path, model: Callable[[], PreTrainedModel], config: LoraConfig
) -> None:
    base = model()
    first = made(base, tmp_path / "a", config, 1)
    second = made(
        base,
        tmp_path / "b",
        on_experts(config.target_parameters, r=3, target_modules=config.target_modules),
        2,
    )
    text = 'adapter a = "a"\nadapter b = "b"\nsave 0.5 * a - b to "out" with dtype=f32\n'
    [built] = build(tmp_path, text).outputs
    ours, a, b = (deltas(base, x) for x in (built.path, first, second))
    assert any("experts" in name and x.abs().max() > 0.01 for name, x in a.items())
    for name, x in ours.items():
        assert (x - (0.5 * a[name] - b[name])).abs().max() < 1e-5, name


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_bake_is_what_peft_merges(
    tmp_path: Path, model: Callable[..., PreTrainedModel], square: bool
) -> None:
    """Also where nothing but the model tells what is in and what is out."""
    base = model(8 if square and model is qwen else 16 if square else 12)
    adapter = made(base, tmp_path / "a", on_experts(), 1)
    base.save_pretrained(tmp_path / "base", save_original_format=False)
    text = 'model m = "base"\nadapter a = "a"\nsave m + a to "out"\n'
    [built] = build(tmp_path, text).outputs
    baked = type(base).from_pretrained(built.path).eval()
    wanted = output(loaded(base, adapter).merge_and_unload())
    assert apart(wanted, output(base)) > 0.01
    assert apart(wanted, output(baked)) < 1e-4


def test_measures_and_selections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = qwen()
    for name, seed in (("a", 1), ("b", 2)):
        made(base, tmp_path / name, on_experts(), seed)
    monkeypatch.chdir(tmp_path)
    both = 'adapter a = "a"\nadapter b = "b"\n'
    a, b = (torch.cat([x.ravel() for x in deltas(base, tmp_path / x).values()]) for x in "ab")
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=0).item()
    path = recipe(
        tmp_path,
        f"{both}assert norm(a - b) > {0.999 * (a - b).norm()}\n"
        f"assert norm(a - b) < {1.001 * (a - b).norm()}\n"
        f"assert cosine(a, b) > {cosine - 1e-4}\nassert cosine(a, b) < {cosine + 1e-4}\n"
        'save join(a["*.down_proj"], b["*.q_proj"]) to "out"\n',
    )
    assert pem("lock", path).code == 0
    assert pem("build", path, "--locked").code == 0
    assert pem("verify", "out", "--rebuild").code == 0
    ours, first, second = (deltas(base, tmp_path / x) for x in ("out", "a", "b"))
    for name, x in ours.items():
        of_a, of_b = "down_proj" in name, "q_proj" in name
        assert (x - of_a * first[name] - of_b * second[name]).abs().max() < 1e-5, name
    assert "3 experts of 24×16" in pem("inspect", "a").out
    diff = json.loads(pem("diff", "a", "b", "--format", "json").out)
    assert diff["total"]["change"] == pytest.approx((b - a).norm().item(), rel=1e-4)
    assert pem("report", path, "--output", "report.html").code == 0


def test_the_operators_of_the_paper_act_on_a_and_b(tmp_path: Path) -> None:
    """At modules and at experts; pad and rescale keep what is done, and bring two together."""
    base = qwen()
    for seed, (name, rank) in enumerate({"a": 2, "b": 2, "c": 3}.items()):
        made(base, tmp_path / name, on_experts(r=rank), seed)
    declared = 'adapter a = "a"\nadapter b = "b"\nadapter c = "c"\n'
    text = f'{declared}save 0.5 ⊗ a ⊖ b to "out" with dtype=f64\n'
    built = build(tmp_path, text)
    out, a, b = (tensors_of(tmp_path / name) for name in ("out", "a", "b"))
    assert out.keys() == a.keys()
    scale = 1.5 / (config_of(tmp_path / "out")["lora_alpha"] / 2)
    for key, x in out.items():
        wanted = 0.5 * a[key] + b[key] if "lora_A" in key else scale * (0.5 * a[key] - b[key])
        assert (x - wanted).abs().max() < 1e-6, key
    [apart_ones] = built.warnings
    assert (apart_ones.code, apart_ones.help) == ("PEM0701", "0.5 * a - b")
    refused = error(tmp_path, f'{declared}save a ⊕ c to "out"\n')
    assert (refused.code, refused.help) == ("PEM0308", "pad(a, rank=3) ⊕ rescale(c, like=a)")
    build(
        tmp_path,
        f'{declared}save {refused.help} to "sum"\nsave rescale(pad(a, rank=9), like=c) to "same"\n',
    )
    before, after = deltas(base, tmp_path / "a"), deltas(base, tmp_path / "same")
    assert all((after[name] - x).abs().max() < 1e-6 for name, x in before.items())


def test_row_spaces_are_compared_expert_by_expert(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        made(qwen(), tmp_path / name, on_experts(target_modules=[]), seed)
    a, b = (tensors_of(tmp_path / name) for name in "ab")
    shares = []
    for key in (key for key in a if "lora_A" in key):
        for rows in zip(*(x[key].double().view(3, 2, -1) for x in (a, b)), strict=True):
            left, right = (torch.linalg.qr(x.T).Q for x in rows)
            shares.append((left.T @ right).square().sum().item() / 2)
    wanted = sum(shares) / len(shares)
    text = 'adapter a = "a"\nadapter b = "b"\nlet x = init_overlap(a, b)\n'
    near = f"x > {wanted - 1e-6} and x < {wanted + 1e-6}"
    build(tmp_path, f'{text}assert {near}\nsave a to "out"\n')


def test_an_adapter_of_experts_joins_one_of_modules(tmp_path: Path) -> None:
    base = qwen()
    made(base, tmp_path / "a", on_experts(target_modules=[]), 1)
    made(base, tmp_path / "b", LoraConfig(r=3, target_modules=["v_proj"]), 2)
    text = 'adapter a = "a"\nadapter b = "b"\nsave {} to "out"\n'
    assert str(error(tmp_path, text.format("a + b")).help) == "join(a, b)"
    [built] = build(tmp_path, text.format("join(a, b)")).outputs
    ours, a, b = (deltas(base, tmp_path / x) for x in ("out", "a", "b"))
    assert all((x - a[name] - b[name]).abs().max() < 1e-5 for name, x in ours.items())
    assert config_of(built.path)["target_modules"] == ["v_proj"]


def test_experts_apart_and_in_one_parameter_in_one_sum(tmp_path: Path) -> None:
    """Refused, and so is the `join` that PEFT could not load; the way that is told is exact."""
    base, sites = qwen(), {}
    for expert in range(3):
        for name, shape in (("gate", (12, 16)), ("up", (12, 16)), ("down", (16, 12))):
            sites |= {f"model.layers.{n}.mlp.experts.{expert}.{name}_proj": shape for n in (0, 1)}
    lora(tmp_path / "apart", 1, sites, rank=dict.fromkeys(sites, 4), r=4, use_rslora=True)
    made(base, tmp_path / "in_one", on_experts(target_modules=[]), 2)
    text = 'adapter a = "apart"\nadapter b = "in_one"\nsave {} to "out"\n'
    assert error(tmp_path, text.format("a + b")).code == "PEM0306"
    assert error(tmp_path, text.format("join(b, a)")).code == "PEM0364"
    [alone] = build(tmp_path, 'adapter a = "apart"\nsave a to "alone"\n').outputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's patterns for what it stacks are its own
        stacked = PeftModel.from_pretrained(copy.deepcopy(base), str(alone.path))
        stacked.save_pretrained(str(tmp_path / "stacked"))
        text = text.replace("apart", "stacked").format("0.5 * a + b")
        [built] = build(tmp_path, text).outputs
        ours, b = (deltas(base, x) for x in (built.path, tmp_path / "in_one"))
    tensors = tensors_of(tmp_path / "apart")
    for site in sites:
        a_of, b_of = (tensors[f"{PREFIX}{site}.lora_{x}.weight"] for x in "AB")
        wanted = 0.5 * 8 / 2 * b_of @ a_of + _of_expert(b, site).numpy()
        assert abs(wanted - _of_expert(ours, site).numpy()).max() < 1e-4, site


@pytest.mark.parametrize("reader", ["", " with reader=peft"])
@pytest.mark.parametrize(
    "config",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 16}, "alpha_pattern": {"q_proj": 5}},
        {"rank_pattern": {f"layers.1.mlp.experts.2.{x}_proj": 6 for x in ("gate", "up", "down")}},
        {"alpha_pattern": {"experts.1.gate_proj": 9, "down_proj": 2}, "use_rslora": True},
    ],
    ids=["rsLoRA", "rank of its own", "rank of one expert", "unlike scales"],
)
def test_an_adapter_of_each_expert_is_stacked_rightly(
    tmp_path: Path, config: dict[str, Any], reader: str
) -> None:
    """One of transformers 4, in transformers 5. PEFT takes r and lora_alpha alone there, and with
    rsLoRA scales gate and up by another number, so that it loads our outputs, and not what they
    are made from."""
    base, gate = qwen(), (12, 16)
    experts = {
        f"model.layers.{layer}.mlp.experts.{expert}.{name}": shape
        for layer in (0, 1)
        for expert in range(3)
        for name, shape in (("gate_proj", gate), ("up_proj", gate), ("down_proj", gate[::-1]))
    }
    sites = {**experts, "model.layers.0.self_attn.q_proj": (16, 16)}
    own = config.get("rank_pattern", {})
    ranks = {x: next((r for end, r in own.items() if x.endswith(end)), 4) for x in sites}
    lora(tmp_path / "a", 1, sites, rank=ranks, **{**config, "r": 4})
    [built] = build(tmp_path, f'adapter a = "a"\nsave a to "out"{reader}\n').outputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's patterns for what it stacks are its own
        ours = changes(base, PeftModel.from_pretrained(copy.deepcopy(base), str(built.path)))
    tensors = tensors_of(tmp_path / "a")
    for site in sites:
        a, b = (tensors[f"{PREFIX}{site}.lora_{x}.weight"] for x in "AB")
        alphas = config.get("alpha_pattern", {}).items()
        alpha = next((x for end, x in alphas if site.endswith(end)), 8)
        scale = alpha / (len(a) ** 0.5 if config.get("use_rslora") else len(a))
        assert (scale * b @ a - _of_expert(ours, site)).abs().max() < 1e-4, site


def _of_expert(ours: dict[str, torch.Tensor], site: str) -> torch.Tensor:
    """What changed of a module that transformers 5 has in a parameter with others."""
    place, _, name = site.rpartition(".")
    if ".experts." not in site:
        return ours[f"{site}.weight"]
    experts, _, number = place.rpartition(".")
    if name == "down_proj":
        return ours[f"{experts}.down_proj"][int(number)]
    gate, up = ours[f"{experts}.gate_up_proj"][int(number)].chunk(2)
    return gate if name == "gate_proj" else up
