"""Whole modules saved beside an adapter (`modules_to_save`): kept where a sum has a meaning, an
error with a way out where it has none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file
from support import PREFIX, build, codes, config_of, error, save, tensors_of
from support.peft_made import IDS, apart, composed, declared, loaded, made, output, together
from torch import Tensor, nn

TOLERANCE = 1e-5
HEADS = {f"{PREFIX}classifier.{name}" for name in ("weight", "bias")}
CLASSIFIER = LoraConfig(r=3, task_type="SEQ_CLS", target_modules=["query", "value"])
HEADLESS = LoraConfig(r=3, target_modules=["query", "value"])


def head(seed: int) -> Callable[[PeftModel], None]:
    """A training that moves the classifier somewhere."""

    def train(model: PeftModel) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator)

    return train


@pytest.fixture(scope="module")
def made_once(bert: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`a` and `equal` with one head, `other` with another, `none` without."""
    folder = tmp_path_factory.mktemp("heads")
    return {
        "a": made(bert, folder / "a", CLASSIFIER, 1, train=head(1)),
        "equal": made(bert, folder / "equal", CLASSIFIER, 2, train=head(1)),
        "other": made(bert, folder / "other", CLASSIFIER, 3, train=head(2)),
        "none": made(bert, folder / "none", HEADLESS, 4),
    }


def with_head(base: nn.Module, directory: Path) -> nn.Module:
    """A base whose classifier is an adapter's."""
    model = copy.deepcopy(base)
    tensors = tensors_of(directory)
    for name in ("weight", "bias"):
        getattr(model.classifier, name).data = tensors[f"{PREFIX}classifier.{name}"]
    return model


def bare(directory: Path, folder: Path) -> Path:
    """An adapter without its heads."""
    tensors = {key: t for key, t in tensors_of(directory).items() if key not in HEADS}
    config = config_of(directory) | {"modules_to_save": None, "task_type": None}
    return save(folder / directory.name, tensors, config)


def reference(base: nn.Module, heads: Path, weights: dict[Path, float], folder: Path) -> Tensor:
    """What the base says with one adapter's head and several adapters active."""
    adapters = {path.name: bare(path, folder) for path in weights}
    named = {path.name: weight for path, weight in weights.items()}
    return output(together(with_head(base, heads), adapters, named))


def test_equal_heads_pass_through(
    bert: nn.Module, made_once: dict[str, Path], tmp_path: Path
) -> None:
    out = composed(tmp_path, made_once, "a - 0.5 * equal")
    ours = output(loaded(bert, out))
    a, equal = made_once["a"], made_once["equal"]
    wanted = reference(bert, a, {a: 1.0, equal: -0.5}, tmp_path / "bare")
    assert apart(wanted, output(together(bert, {"x": bare(a, tmp_path / "x")}))) > 1e-1
    assert apart(ours, wanted) < TOLERANCE
    assert config_of(out)["modules_to_save"] == ["classifier", "score"]
    assert config_of(out)["task_type"] == "SEQ_CLS"


@pytest.mark.parametrize(
    ("expression", "code", "help_", "keeps"),
    [
        (
            "a + other",
            "PEM0505",
            "choose whose to keep, with heads=NAME, or say heads=mean or heads=none",
            "other",
        ),
        ("a + none", "PEM0346", "say whose to keep: with heads=a", "a"),
        ("none - a", "PEM0346", "say whose to keep: with heads=a", "a"),
        ("a + equal + none", "PEM0346", "say whose to keep: with heads=", "equal"),
    ],
)
def test_heads_that_differ_are_an_error_that_says_what_to_write(
    bert: nn.Module,
    made_once: dict[str, Path],
    tmp_path: Path,
    expression: str,
    code: str,
    help_: str,
    keeps: str,
) -> None:
    refusal = error(tmp_path, declared(made_once) + f'save {expression} to "out"')
    assert refusal.code == code
    assert (refusal.help or "").startswith(help_)
    assert not (tmp_path / "out").exists()
    out = composed(tmp_path, made_once, expression, f"heads={keeps}")
    weights = {"a": 1.0} | ({"none": 1.0} if "none" in expression else {"other": 1.0})
    weights |= {"equal": 1.0} if "equal" in expression else {}
    weights["a"] = -1.0 if "- a" in expression else 1.0
    wanted = reference(
        bert,
        made_once[keeps],
        {made_once[name]: weight for name, weight in weights.items()},
        tmp_path / "bare",
    )
    assert apart(output(loaded(bert, out)), wanted) < TOLERANCE


def test_different_heads_are_found_from_headers_where_they_can_be(
    made_once: dict[str, Path], tmp_path: Path
) -> None:
    text = declared(made_once)
    assert codes(tmp_path, text + 'save a + none to "out"') == ["PEM0346"]
    assert codes(tmp_path, text + 'save a + other to "out"') == []  # the values tell, in a build


@pytest.mark.parametrize(
    ("chosen", "code"), [("none", "PEM0342"), ("a + equal", "PEM0342"), ("nobody", "PEM0206")]
)
def test_heads_are_those_of_an_adapter_that_has_them(
    made_once: dict[str, Path], tmp_path: Path, chosen: str, code: str
) -> None:
    text = declared(made_once) + f'save a + none to "out" with heads={chosen}'
    assert error(tmp_path, text).code == code


def test_heads_where_no_adapter_has_any(made_once: dict[str, Path], tmp_path: Path) -> None:
    """heads=b is neither ignored nor a riddle: help says to leave it out, or who has heads."""
    bare = declared({"none": made_once["none"]}) + 'save none to "out" with heads=none'
    assert (error(tmp_path, bare).help or "").startswith("leave heads= out")
    some = declared(made_once) + 'save a to "out" with heads=none'
    assert (error(tmp_path, some).help or "").startswith("choose one that has them: a, ")


def test_heads_stay_with_a_truncation_a_selection_and_a_dtype(
    bert: nn.Module, made_once: dict[str, Path], tmp_path: Path
) -> None:
    out = composed(tmp_path, made_once, '(a + equal)["*.query"]', "rank=2, dtype=bf16")
    built, source = tensors_of(out), tensors_of(made_once["a"])
    assert all(torch.equal(built[key], source[key]) for key in HEADS)
    assert {t.dtype for key, t in built.items() if key not in HEADS} == {torch.bfloat16}
    loaded(bert, out)


def test_a_site_inside_a_head_is_an_error(
    bert: nn.Module, made_once: dict[str, Path], tmp_path: Path
) -> None:
    """PEFT adapts no module that it saves whole: such a Δ would be lost on loading."""
    inside = LoraConfig(r=1, target_modules=["query", "classifier"])
    pair = {"a": made_once["a"], "b": made(bert, tmp_path / "b", inside, 5)}
    text = declared(pair) + 'save join(a, {}) to "out" with heads=a'
    refusal = error(tmp_path, text.format("b"))
    assert refusal.code == "PEM0346"
    assert "classifier" in refusal.message
    build(tmp_path, text.format('b["*.query"]'))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_head_that_is_not_finite_is_an_error(
    made_once: dict[str, Path], tmp_path: Path, bad: float
) -> None:
    tensors = tensors_of(made_once["a"])
    tensors[f"{PREFIX}classifier.bias"][1] = bad
    broken = save(tmp_path / "broken", tensors, config_of(made_once["a"]))
    refusal = error(tmp_path, declared({"a": broken}) + 'save 2 * a to "out"')
    assert refusal.code == "PEM0502"
    assert "classifier.bias" in refusal.message


EMBEDDED = LoraConfig(r=3, task_type="CAUSAL_LM", target_modules=["embed_tokens", "q_proj"])


def embedded(llama: nn.Module, directory: Path, seed: int, config: LoraConfig) -> Path:
    """An adapter saved with the rows of its embedding, which grew and were trained."""
    made(llama, directory, config, seed)
    rows = torch.randn(40, 32, generator=torch.Generator().manual_seed(6))
    targeted = "embed_tokens" in (config.target_modules or ())
    name = "embed_tokens.base_layer.weight" if targeted else "embed_tokens.weight"
    tensors = tensors_of(directory) | {f"{PREFIX}model.{name}": rows}
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def language_model(llama: nn.Module, rows: Tensor) -> nn.Module:
    model = copy.deepcopy(llama)
    model.model.embed_tokens.weight.data = rows
    return model


@pytest.mark.parametrize("expression", ["a - b", 'a["*.q_proj"] - b["*.q_proj"]'])
def test_rows_of_the_embedding_saved_with_an_adapter(
    llama: nn.Module, tmp_path: Path, expression: str
) -> None:
    pair = {name: embedded(llama, tmp_path / name, seed, EMBEDDED)
            for seed, name in enumerate("ab")}  # fmt: skip
    model = PeftModel.from_pretrained(
        copy.deepcopy(llama), str(composed(tmp_path, pair, expression))
    )
    rows = tensors_of(pair["a"])[f"{PREFIX}model.embed_tokens.base_layer.weight"]
    weights = {"a": lambda name: float("q_proj" in name or expression == "a - b"),
               "b": lambda name: -float("q_proj" in name or expression == "a - b")}  # fmt: skip
    wanted = output(together(language_model(llama, rows), pair, weights))
    assert apart(wanted, output(llama)) > 1e-1
    assert apart(output(model.eval()), wanted) < TOLERANCE


def test_rows_of_an_embedding_that_only_the_other_adapter_changes(
    llama: nn.Module, tmp_path: Path
) -> None:
    """One adapter saves whole rows, the other a Δ of them: PEFT then calls the rows otherwise."""
    resized = LoraConfig(r=3, task_type="CAUSAL_LM", target_modules=["q_proj"])
    pair = {
        "a": embedded(llama, tmp_path / "a", 0, resized),
        "b": made(llama, tmp_path / "b", EMBEDDED, 1),
    }
    out = composed(tmp_path, pair, "join(a, b)", "heads=a")
    model = PeftModel.from_pretrained(copy.deepcopy(llama), str(out)).eval()
    rows = tensors_of(pair["a"])[f"{PREFIX}model.embed_tokens.weight"]
    wanted = output(together(language_model(llama, rows), pair))
    assert apart(output(model, IDS), wanted) < TOLERANCE
