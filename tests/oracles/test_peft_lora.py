"""Sums of LoRAs that PEFT made, loaded by PEFT: the same logits as PEFT's own combinations."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from support import PREFIX, build, config_of, delta, tensors_of
from support.peft_made import (
    Weight,
    apart,
    composed,
    declared,
    loaded,
    made,
    merged,
    named,
    output,
    together,
)
from torch import nn

TOLERANCE = 1e-5

SUMS = {
    "a + b": {"a": 1.0, "b": 1.0},
    "a - b": {"a": 1.0, "b": -1.0},
    "-a": {"a": -1.0},
    "0.3 * a + 0.7 * b - 1.5 * c": {"a": 0.3, "b": 0.7, "c": -1.5},
    "2 * (a - b) / 4": {"a": 0.5, "b": -0.5},
    "a + a": {"a": 2.0},
    "(a + b) - b": {"a": 1.0},
    "a + b + c - 0 * b - c / 3": {"a": 1.0, "b": 1.0, "c": 2 / 3},
    "join(a, b)": {"a": 1.0, "b": 1.0},
}


def same_logits(base: nn.Module, ours: Path, wanted: nn.Module) -> None:
    """The output of a recipe says what a model says, which is not what the base says."""
    assert apart(output(wanted), output(base)) > 1e-3
    assert apart(output(loaded(base, ours)), output(wanted)) < TOLERANCE


@pytest.mark.parametrize("expression", SUMS)
def test_a_sum_equals_its_adapters_active_at_once(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path, expression: str
) -> None:
    wanted = together(bert, trio, SUMS[expression])
    same_logits(bert, composed(tmp_path, trio, expression), wanted)


@pytest.mark.parametrize("expression", SUMS)
def test_a_sum_equals_pefts_cat(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path, expression: str
) -> None:
    wanted = merged(bert, trio, SUMS[expression], combination_type="cat")
    same_logits(bert, composed(tmp_path, trio, expression), wanted)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 0.7), (1.5, -0.4), (-0.2, -2.0), (0.0, 1.0)])
def test_peft_linear_is_pefts_linear(
    bert: nn.Module, tmp_path: Path, weights: tuple[float, float]
) -> None:
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["query", "value"])
    pair = lora_pair(bert, tmp_path, config, copy.deepcopy(config))
    wanted = merged(bert, pair, dict(zip("ab", weights, strict=True)), combination_type="linear")
    expression = f"peft_linear([a, b], weights=[{weights[0]}, {weights[1]}])"
    same_logits(bert, composed(tmp_path, pair, expression), wanted)


def test_a_difference_with_itself_is_a_zero_adapter_that_loads(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path
) -> None:
    result = build(tmp_path, declared(trio) + 'save a - a to "out"')
    ours = loaded(bert, tmp_path / "out")
    assert torch.equal(output(ours), output(bert))
    assert [warning.code for warning in result.warnings] == ["PEM0703"]


def test_twice_an_adapter_keeps_its_rank(trio: dict[str, Path], tmp_path: Path) -> None:
    out = composed(tmp_path, trio, "a + a")
    assert (config_of(out)["r"], config_of(out)["rank_pattern"]) == (4, {})
    a, twice = delta(trio["a"]), delta(out)
    assert all((twice[site] == 2 * a[site]).all() for site in a)


def test_ranks_of_a_sum_add(trio: dict[str, Path], tmp_path: Path) -> None:
    assert config_of(composed(tmp_path, trio, "a + b + c"))["r"] == 14


def lora_pair(
    base: nn.Module, folder: Path, first: LoraConfig, second: LoraConfig
) -> dict[str, Path]:
    configs = {"a": first, "b": second}
    return {
        name: made(base, folder / name, config, seed)
        for seed, (name, config) in enumerate(configs.items())
    }


RSLORA = (
    LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=["query", "value"]),
    LoraConfig(r=2, lora_alpha=3, use_rslora=True, target_modules=["query", "value"]),
)
MIXED = (
    LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=["query", "value"]),
    LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"]),
)
PATTERNS = (
    LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["query", "value"],
        rank_pattern={"layer.1.attention.self.query": 2, "value": 3},
        alpha_pattern={"layer.2.attention.self.value": 5, r"layer\.0\..*": 11},
    ),
    LoraConfig(
        r=3,
        lora_alpha=7.5,
        use_rslora=True,
        target_modules=["query", "value"],
        rank_pattern={r"encoder\.layer\.[12]\..*query": 6},
        alpha_pattern={"query": 2},
    ),
)
ALWAYS_ONE = (
    LoraConfig(r=1, lora_alpha=1, target_modules=["key"]),
    LoraConfig(r=32, lora_alpha=1, target_modules=["key"]),
)


@pytest.mark.parametrize("configs", [RSLORA, MIXED, PATTERNS, ALWAYS_ONE])
@pytest.mark.parametrize("weights", [{"a": 1.0, "b": 1.0}, {"a": 0.3, "b": -1.25}, {"b": 0.1}])
def test_scales_and_ranks_of_every_kind(
    bert: nn.Module,
    tmp_path: Path,
    configs: tuple[LoraConfig, LoraConfig],
    weights: dict[str, float],
) -> None:
    pair = lora_pair(bert, tmp_path / "in", *configs)
    expression = " + ".join(f"{weight} * {name}" for name, weight in weights.items())
    out = composed(tmp_path, pair, expression)
    same_logits(bert, out, together(bert, pair, weights))


class Twins(nn.Module):
    """Modules whose names end in one another's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(nn.Linear(6, 6) for _ in range(12))
        self.sub = nn.Module()
        self.sub.layer = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.sub.fc = nn.Linear(6, 6)
        self.fc = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in (*self.layer, *self.sub.layer, self.sub.fc, self.fc):
            x = x + torch.tanh(part(x))
        return x


@pytest.fixture(scope="module")
def twins() -> nn.Module:
    torch.manual_seed(3)
    return Twins().eval()


X = torch.linspace(-1, 1, 30).reshape(5, 6)
EVERYWHERE = r"(sub\.)?(layer\.\d+|fc)"


@pytest.fixture(scope="module")
def ambiguous(twins: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters whose patterns name modules that other names end in."""
    first = LoraConfig(
        r=2,
        lora_alpha=4,
        target_modules=EVERYWHERE,
        rank_pattern={"^layer.1": 3, "sub.layer.1": 1, "layer.11": 5, "^fc": 4},
        alpha_pattern={"sub.fc": 3, "fc": 1, "^layer.1": 9, "sub.layer.1": 6},
    )
    second = LoraConfig(
        r=3,
        lora_alpha=2,
        target_modules=EVERYWHERE,
        rank_pattern={"sub.fc": 1, "^layer.0": 6},
        alpha_pattern={"^fc": 8, "1": 0.7},
    )
    return lora_pair(twins, tmp_path_factory.mktemp("twins"), first, second)


@pytest.mark.parametrize(
    ("expression", "weights"),
    [
        ("a", {"a": 1.0}),
        ("a + b", {"a": 1.0, "b": 1.0}),
        ("b - 0.7 * a", {"a": -0.7, "b": 1.0}),
        ('a["fc", "layer.1", "layer.11"]', {"a": named(r"^(fc|layer\.1|layer\.11)$", 1, 0)}),
        ('join(a["sub.fc"], b["layer.*"])',
         {"a": named("^sub.fc$", 1, 0), "b": named("^layer", 1, 0)}),
        ('a + per { "fc": 2, "layer.1": 0, else: -1 } * b',
         {"a": 1.0, "b": lambda name: {"fc": 2, "layer.1": 0}.get(name, -1)}),
    ],
)  # fmt: skip
def test_names_that_end_in_one_another(
    twins: nn.Module,
    ambiguous: dict[str, Path],
    tmp_path: Path,
    expression: str,
    weights: dict[str, Weight],
) -> None:
    ours = loaded(twins, composed(tmp_path, ambiguous, expression))
    wanted = output(together(twins, ambiguous, weights), X)
    assert apart(wanted, output(twins, X)) > 1e-3
    assert apart(output(ours, X), wanted) < TOLERANCE


@pytest.mark.parametrize(
    ("expression", "weights"),
    [
        ("a[layers 0..0]", {"a": named(r"layer\.0\.", 1, 0)}),
        ('a["*.query"]', {"a": named("query", 1, 0)}),
        ("ramp(1, 0) * a", {"a": lambda name: 1 - int(name.split(".")[3]) / 2}),
        ("a - ramp(0.2, 1) * b",
         {"a": 1.0, "b": lambda name: -(0.2 + 0.4 * int(name.split(".")[3]))}),
        ("steps([1, -1]) * c", {"c": named(r"layer\.2", -1, 1)}),
        ('per { "*.query": 0.5, "*.layer.1.*": 2, else: 0 } * a',
         {"a": lambda name: 0.5 if "query" in name else 2 * ("layer.1." in name)}),
        ('join(a["*.query"], 0.5 * b["*.value"])',
         {"a": named("query", 1, 0), "b": named("value", 0.5, 0)}),
        ('a + b[like a] - join(c["*.query"], 0 * a)',
         {"a": 1.0, "b": 1.0, "c": named("query", -1, 0)}),
    ],
)  # fmt: skip
def test_schedules_and_selections(
    bert: nn.Module,
    trio: dict[str, Path],
    tmp_path: Path,
    expression: str,
    weights: dict[str, Weight],
) -> None:
    same_logits(bert, composed(tmp_path, trio, expression), together(bert, trio, weights))


def test_only_selected_modules_are_written(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path
) -> None:
    model = loaded(bert, composed(tmp_path, trio, "a[layers 1..2]"))
    assert {site.split(".")[3] for site in adapted(model)} == {"1", "2"}


def adapted(model: PeftModel) -> set[str]:
    return set(model.base_model.targeted_module_names)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs(bert: nn.Module, tmp_path: Path, dtype: torch.dtype) -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"])
    pair = {
        name: made(bert, tmp_path / name, config, seed, dtype) for seed, name in enumerate("ab")
    }
    wide = composed(tmp_path / "wide", pair, "a - 0.3 * b", "dtype=f32")
    wanted = together(bert, pair, {"a": 1.0, "b": -0.3})
    same_logits(bert, wide, wanted)
    built = tensors_of(composed(tmp_path / "same", pair, "a - 0.3 * b"))
    a, b = (load_file(pair[name] / "adapter_model.safetensors") for name in "ab")
    weight = torch.tensor(-0.3, dtype=torch.float32)
    for key, tensor in built.items():
        other = b[key] if "lora_A" in key else (weight * b[key].float()).to(dtype)
        parts = {tuple(part.flatten().tolist()) for part in (a[key], other)}
        axis = 0 if "lora_A" in key else 1
        assert tensor.dtype == dtype
        assert {tuple(part.flatten().tolist()) for part in tensor.chunk(2, axis)} == parts


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("f64", torch.float64), ("f32", torch.float32), ("f16", torch.float16),
     ("bf16", torch.bfloat16)],
)  # fmt: skip
def test_a_dtype_rounds_once_to_nearest_even(
    trio: dict[str, Path], tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    built = tensors_of(composed(tmp_path, trio, "a", f"dtype={name}"))
    source = tensors_of(trio["a"])
    assert all(torch.equal(built[key], source[key].to(dtype)) for key in source)
    assert {tensor.dtype for tensor in built.values()} == {dtype}


def test_float64_inputs_stay_float64(bert: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["query"])
    pair = {
        name: made(bert, tmp_path / name, config, seed, torch.float64)
        for seed, name in enumerate("ab")
    }
    out = composed(tmp_path, pair, "a + 0.1 * b / 3")
    assert {tensor.dtype for tensor in tensors_of(out).values()} == {torch.float64}
    a, b, built = delta(pair["a"]), delta(pair["b"]), delta(out)
    for site, ours in built.items():
        wanted = a[site] + 0.1 * b[site] / 3
        assert abs(ours - wanted).max() < 1e-14


def test_a_bin_file_gives_what_its_safetensors_gives(
    bert: nn.Module, trio: dict[str, Path], tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "adapter_config.json").write_bytes((trio["a"] / "adapter_config.json").read_bytes())
    torch.save(tensors_of(trio["a"]), old / "adapter_model.bin")
    new = composed(tmp_path / "one", trio, "a - 0.3 * b")
    from_bin = composed(tmp_path / "other", {**trio, "a": old}, "a - 0.3 * b")
    assert config_of(new) == config_of(from_bin)
    ours, theirs = delta(new), delta(from_bin)
    assert all(abs(ours[site] - theirs[site]).max() < 1e-12 for site in theirs)
    same_logits(bert, new, loaded(bert, from_bin))


def test_transformers_loads_it_too(bert: nn.Module, trio: dict[str, Path], tmp_path: Path) -> None:
    model = copy.deepcopy(bert)
    model.load_adapter(str(composed(tmp_path, trio, "a - 0.3 * b")))
    assert apart(output(model), output(together(bert, trio, {"a": 1.0, "b": -0.3}))) < TOLERANCE


def test_a_llama(llama: nn.Module, tmp_path: Path) -> None:
    config = LoraConfig(r=4, task_type="CAUSAL_LM", target_modules="all-linear")
    pair = lora_pair(llama, tmp_path, config, LoraConfig(**config.to_dict()))
    out = composed(tmp_path, pair, "a - 0.5 * b")
    assert config_of(out)["task_type"] == "CAUSAL_LM"
    same_logits(llama, out, together(llama, pair, {"a": 1.0, "b": -0.5}))


@pytest.mark.parametrize(
    "spec",
    [
        {"target_modules": ["query", "key"], "layers_to_transform": [0, 2]},
        {"target_modules": ["query"], "layers_to_transform": 1, "layers_pattern": "layer"},
        {"target_modules": ["query", "dense"], "exclude_modules": ["output.dense"]},
        {"target_modules": r".*\.layer\.[02]\..*\.(query|dense)", "exclude_modules": ".*output.*"},
    ],
)
def test_ways_to_choose_modules(bert: nn.Module, tmp_path: Path, spec: dict[str, object]) -> None:
    config = LoraConfig(r=4, **spec)  # type: ignore[arg-type]
    plain = LoraConfig(r=2, target_modules=["query", "key", "dense"])
    pair = lora_pair(bert, tmp_path, config, plain)
    sites = {key.removeprefix(PREFIX).rsplit(".", 2)[0] for key in tensors_of(pair["a"])}
    like_a: dict[str, Weight] = {"a": 1.0, "b": lambda site: float(site in sites)}
    for expression, weights in (("2 * a", {"a": 2.0}), ("a + b[like a]", like_a)):
        model = loaded(bert, composed(tmp_path, pair, expression))
        assert adapted(model) == sites
        assert apart(output(model), output(together(bert, pair, weights))) < TOLERANCE
