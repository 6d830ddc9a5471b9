"""Models and adapters made by PEFT itself, and PEFT's own ways to combine them: the oracles."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from support import build, config_of

Weight = float | Callable[[str], float]
"""How much of an adapter is meant: everywhere, or by the name of a module."""

IDS = torch.tensor([[1, 5, 7, 2, 9, 30, 3], [4, 8, 6, 11, 0, 39, 21]])


def bert() -> nn.Module:
    """A classifier of three layers whose logits feel a change in any of them."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=16, initializer_range=0.2,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def llama() -> nn.Module:
    """A language model of two layers."""
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48, max_position_embeddings=16,
        initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def made(
    base: nn.Module,
    directory: Path,
    config: LoraConfig | IA3Config,
    seed: int,
    dtype: torch.dtype = torch.float32,
    train: Callable[[PeftModel], None] = lambda model: None,
) -> Path:
    """An adapter as PEFT saves it after a training: every parameter of it moved at random.

    `train` may do more to the model before it is saved.
    """
    torch.manual_seed(100 + seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(copy.deepcopy(base), copy.deepcopy(config))
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("lora_", "ia3_l", "hada_", "lokr_")):
                moved = parameter.data + 0.2 * torch.randn_like(parameter)
                parameter.data = moved.to(dtype)
        train(model)
        model.save_pretrained(str(directory), save_embedding_layers=False)
    return directory


def loaded(base: nn.Module, directory: Path) -> PeftModel:
    """The adapter of a directory on a copy of a base, by PEFT. Any warning is an error, and the
    file holds what the model wants and nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)
        if config_of(directory).get("target_parameters"):
            # PEFT says so of every pattern for a parameter, and goes by it all the same.
            warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys")
        if config_of(directory).get("lora_bias"):  # it can be loaded, and not merged
            warnings.filterwarnings("ignore", "`lora_bias=True` was passed but the targeted layer")
        model = PeftModel.from_pretrained(copy.deepcopy(base), str(directory))
    tensors = load_file(directory / "adapter_model.safetensors")
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    assert set(wanted) == {key for key in tensors if ".base_layer.weight" not in key}
    assert not set_peft_model_state_dict(model, tensors).unexpected_keys
    return model.eval()


def together(
    base: nn.Module, adapters: Mapping[str, Path], weights: Mapping[str, Weight] | None = None
) -> PeftModel:
    """LoRAs all active at once on a copy of a base, each scaled by its weight."""
    model = with_adapters(base, adapters)
    for name, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            for adapter in set(module.scaling) & set(weights or {}):
                weight = (weights or {})[adapter]
                module.scaling[adapter] *= weight(name) if callable(weight) else weight
    model.base_model.set_adapter(list(weights or adapters))
    return model


def with_adapters(base: nn.Module, adapters: Mapping[str, Path]) -> PeftModel:
    """Adapters loaded side by side on a copy of a base."""
    (first, path), *others = adapters.items()
    model = PeftModel.from_pretrained(copy.deepcopy(base), str(path), adapter_name=first)
    for name, path in others:
        model.load_adapter(str(path), adapter_name=name)
    return model.eval()


def merged(
    base: nn.Module, adapters: Mapping[str, Path], weights: Mapping[str, float], **options: Any
) -> PeftModel:
    """PEFT's add_weighted_adapter of adapters on a copy of a base, made active."""
    model = with_adapters(base, adapters)
    model.add_weighted_adapter(list(weights), list(weights.values()), "merged", **options)
    model.set_adapter("merged")
    return model.eval()


def output(model: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
    """What a model says of some inputs; logits of a transformer."""
    with torch.no_grad():
        answer = model(*(inputs or (IDS,)))
    return answer.logits if hasattr(answer, "logits") else answer


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference of two outputs."""
    return float((first - second).abs().max())


def declared(adapters: Mapping[str, Path]) -> str:
    """The head of a recipe over some adapters."""
    lines = [f'adapter {name} = "{path}"' for name, path in adapters.items()]
    return "\n".join(["language 1", *lines, ""])


def composed(
    folder: Path, adapters: Mapping[str, Path], expression: str, options: str = ""
) -> Path:
    """The directory that a recipe saves an expression to."""
    save = f'save {expression} to "out"' + (f" with {options}" if options else "")
    [built] = build(folder, declared(adapters) + save).outputs
    return built.path


def named(pattern: str, yes: float, no: float) -> Callable[[str], float]:
    """A weight by module name: one number where a pattern is found, another elsewhere."""
    return lambda name: yes if re.search(pattern, name) else no
