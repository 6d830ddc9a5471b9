"""adapter_config.json: read as PEFT reads it, written so that PEFT reads what was meant."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from support import build, codes, config_of, delta, error, lora, save, tensors_of
from support.peft_made import apart, composed, declared, loaded, made, output, with_adapters
from torch import Tensor, nn

import pemlang

# What PEFT 0.3 wrote.
OLD = {
    "base_model_name_or_path": None,
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_alpha": 8,
    "lora_dropout": 0.05,
    "merge_weights": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 4,
    "target_modules": ["query", "value", "intermediate.dense"],
    "task_type": None,
}


def with_config(adapter: Path, folder: Path, **fields: Any) -> Path:
    """The tensors of an adapter under another config; a field given as ... is left out."""
    return save(folder, tensors_of(adapter), config_of(adapter) | fields)


@pytest.mark.parametrize(
    "fields",
    [
        OLD,
        {"peft_type": "LORA", "r": 4, "target_modules": OLD["target_modules"]},
        OLD | {"exclude_modules": None, "rank_pattern": None, "alpha_pattern": None},
    ],
)
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_few_fields_mean_what_they_mean_to_peft(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path, fields: dict[str, Any]
) -> None:
    old = save(tmp_path / "old", tensors_of(trio["a"]), fields)
    full = {field: value for field, value in fields.items() if "pattern" not in field}
    read = save(tmp_path / "read", tensors_of(trio["a"]), full)
    theirs = output(with_adapters(bert, {"x": read}))
    assert apart(output(loaded(bert, composed(tmp_path, {"a": old}, "2 * a / 2"))), theirs) < 1e-5


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"lora_alpha": None}, "PEM0414"),
        ({"lora_alpha": "16"}, "PEM0414"),
        ({"lora_alpha": float("nan")}, "PEM0414"),
        ({"lora_alpha": True}, "PEM0414"),
        ({"use_rslora": 1}, "PEM0414"),
        ({"r": 8}, "PEM0415"),
        ({"r": ...}, "PEM0415"),
        ({"rank_pattern": {"query": 3}}, "PEM0415"),
        ({"rank_pattern": {"layer.9": 3}}, None),
        ({"target_modules": ["query", "value"]}, "PEM0415"),
        ({"target_modules": ["query", 1]}, "PEM0414"),
        ({"exclude_modules": {"query": 1}}, "PEM0414"),
        ({"target_modules": ["ery", "value", "intermediate.dense"]}, "PEM0415"),
        ({"exclude_modules": ["layer.0.attention.self.query"]}, "PEM0415"),
        ({"exclude_modules": ["key"]}, None),
        ({"kasa_config": {}}, "PEM0421"),
        ({"use_bdlora": {}}, "PEM0421"),
        ({"lora_scale": 2.0}, "PEM0423"),
        ({"use_rs_lora": True}, "PEM0423"),
        ({"lora_scale": 0, "use_rs_lora": False, "new_config": None}, None),
        ({"rank_pattern": {"(a+)+b": 2}}, None),
        ({"rank_pattern": {"(query": 4}}, "PEM0424"),
    ],
)
def test_fields_that_config_and_tensors_cannot_both_mean(
    trio: dict[str, Path], tmp_path: Path, fields: dict[str, Any], code: str | None
) -> None:
    a = with_config(trio["a"], tmp_path / "a", **fields)
    assert codes(tmp_path, declared({"a": a}) + 'save a to "out"') == [code] * (code is not None)


def test_peft_ignores_tensors_of_modules_that_are_not_targeted(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path
) -> None:
    """Why a file that holds more than its config targets is an error here."""
    less = with_config(trio["a"], tmp_path / "less", target_modules=["query"])
    theirs = output(with_adapters(bert, {"a": less}))
    assert apart(theirs, output(with_adapters(bert, {"a": trio["a"]}))) > 1e-2
    refusal = error(tmp_path, declared({"a": less}) + 'save a to "out"')
    assert "target_modules" in refusal.message


class Many(nn.Module):
    """Many modules, for many pairs of a rank and an α."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(nn.Linear(14, 14, bias=False) for _ in range(60))

    def forward(self, x: Tensor) -> Tensor:
        return sum(layer(x) for layer in self.layer)  # type: ignore[return-value]


def scalings(model: PeftModel) -> dict[str, float]:
    return {
        name: module.scaling["default"]
        for name, module in model.base_model.model.named_modules()
        if isinstance(module, LoraLayer)
    }


@pytest.mark.parametrize("rslora", [False, True])
def test_a_scale_is_kept_to_the_last_bit(tmp_path: Path, rslora: bool) -> None:
    base, rng = Many(), np.random.default_rng(0)
    alphas = rng.uniform(0.01, 40, 60)
    config = LoraConfig(
        r=1,
        use_rslora=rslora,
        target_modules=r"layer\.\d+",
        rank_pattern={f"layer.{i}": 1 + i % 7 for i in range(60)},
        alpha_pattern={f"layer.{i}": float(alphas[i]) for i in range(60)},
    )
    pair = {name: made(base, tmp_path / name, config, seed) for seed, name in enumerate("ab")}
    wanted = scalings(with_default(base, pair["a"]))
    assert len(set(wanted.values())) == 60
    if rslora:  # α/r is not always able to be α′/√r
        wanted = pytest.approx(wanted, rel=3e-16, abs=0)
    for expression in ("a", "a ⊕ b", "a + b", "a - 3 * b"):
        out = composed(tmp_path, pair, expression, "reader=peft")
        assert scalings(loaded(base, out)) == wanted
    source = tensors_of(pair["a"])
    out = composed(tmp_path, pair, "a", "reader=peft")
    assert all(t.equal(source[k]) for k, t in tensors_of(out).items())


@pytest.mark.parametrize(
    ("glob", "kept"), [("layer.[1-4]*", 44), ("layer.?", 10), ("layer.1", 1), ("layer.*", 60)]
)
def test_many_names_name_no_other(tmp_path: Path, glob: str, kept: int) -> None:
    """PEFT shortens a list of many names to endings before it matches them."""
    base = Many()
    a = made(base, tmp_path / "a", LoraConfig(r=1, target_modules=r"layer\.\d+"), 0)
    model = loaded(base, composed(tmp_path, {"a": a}, f'2 * a["{glob}"]'))
    assert len(model.base_model.targeted_module_names) == kept


def with_default(base: nn.Module, adapter: Path) -> PeftModel:
    return PeftModel.from_pretrained(copy.deepcopy(base), str(adapter))


@pytest.mark.parametrize("alpha", [0, -3, 0.1, 1e-6, 1 << 20])
def test_unusual_alphas(bert: nn.Module, tmp_path: Path, alpha: float) -> None:
    config = LoraConfig(r=3, lora_alpha=alpha, target_modules=["query"])  # type: ignore[arg-type]
    other = LoraConfig(r=2, target_modules=["query"])
    pair = {"a": made(bert, tmp_path / "a", config, 0), "b": made(bert, tmp_path / "b", other, 1)}
    for expression, weights in (("a", (1, 0)), ("2 * a - b", (2, -1)), ("a + a", (2, 0))):
        built = delta(composed(tmp_path, pair, expression))
        a, b = delta(pair["a"]), delta(pair["b"])
        for site, ours in built.items():
            wanted = weights[0] * a[site] + weights[1] * b[site]
            assert np.allclose(ours, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
        loaded(bert, tmp_path / "out")


def test_a_scale_of_zero_cannot_be_rescaled_to(tmp_path: Path) -> None:
    pair = {"a": lora(tmp_path / "a", alpha=8), "b": lora(tmp_path / "b", 1, alpha=0)}
    assert codes(tmp_path, declared(pair) + 'save rescale(a, like=b) to "out"') == ["PEM0312"]


@pytest.mark.parametrize(
    ("tasks", "kept"),
    [(("CAUSAL_LM", "CAUSAL_LM"), "CAUSAL_LM"), (("CAUSAL_LM", None), None), ((None, None), None)],
)
def test_a_task_is_kept_where_all_have_it(
    trio: dict[str, Path], tmp_path: Path, tasks: tuple[str | None, str | None], kept: str | None
) -> None:
    pair = {
        name: with_config(trio[name], tmp_path / name, task_type=task)
        for name, task in zip("ab", tasks, strict=True)
    }
    assert config_of(composed(tmp_path, pair, "a + b"))["task_type"] == kept


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_weight_too_small_for_the_dtype(
    bert: nn.Module, tmp_path: Path, dtype: torch.dtype
) -> None:
    """float16 has no numbers below 6e-8: rather an error than zeros."""
    a = {"a": made(bert, tmp_path / "a", LoraConfig(r=2, target_modules=["query"]), 0, dtype)}
    text = declared(a) + 'save 1e-8 * a to "out"'
    narrow = dtype == torch.float16
    assert [diagnostic.code for diagnostic in errors(tmp_path, text)] == ["PEM0503"] * narrow
    out = composed(tmp_path, a, "1e-8 * a", "dtype=bf16")
    for site, dense in delta(out).items():
        wanted = 1e-8 * delta(a["a"])[site]
        assert np.linalg.norm(dense - wanted) <= 1e-2 * np.linalg.norm(wanted)


def errors(folder: Path, text: str) -> list[pemlang.Diagnostic]:
    try:
        build(folder, text)
    except pemlang.PemError as wrong:
        return list(wrong.diagnostics)
    return []


def test_what_a_config_measures_is_not_part_of_the_output(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    """An adapter that only lends a number leaves no mark on dtype, heads or targets."""
    measured = lora(
        tmp_path / "m", rank=2, dtype=torch.float64, task_type="CAUSAL_LM",
        extra={"base_model.model.lm_head.weight": torch.ones(2, 2)},
    )  # fmt: skip
    adapters = {"a": trio["a"], "m": measured}
    scaled = composed(tmp_path / "m", adapters, "norm(m) * a")
    plain = composed(tmp_path / "p", {"a": trio["a"]}, "2 * a")
    assert config_of(scaled) == config_of(plain)
    norm = math.sqrt(sum(np.linalg.norm(dense) ** 2 for dense in delta(measured).values()))
    for key, tensor in tensors_of(scaled).items():
        factor = norm if "lora_B" in key else 1
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor, factor * tensors_of(trio["a"])[key], rtol=1e-6)
