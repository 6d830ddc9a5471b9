"""What a fine-tune adds to its base, as a LoRA of full rank, and baked back: the fine-tune. PEFT
loads the LoRA, and merges it to the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support import build

GROUPED = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS: dict[str, Callable[[], transformers.PreTrainedModel]] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED)),
    "tied": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True)
    ),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=24, n_layer=2, n_head=2)
    ),
}
DECLARED = 'base b = "base"\nmodel m on b = "tuned"\nlet x = m - b\n'


@pytest.fixture(params=MODELS)
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A base and a fine-tune of all that it has."""
    torch.manual_seed(0)
    model = MODELS[request.param]()
    model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "tuned")
    return tmp_path


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def matrices(folder: Path) -> dict[str, int]:
    """The matrices that a LoRA may change, and the rank that each has room for. An embedding that
    is the output layer too is one for neither."""
    tied = json.loads((folder / "base" / "config.json").read_text())["tie_word_embeddings"]
    embedding = ("embed_tokens.weight", "wte.weight") if tied else ()
    tensors = weights(folder / "base").items()
    return {n: min(x.shape) for n, x in tensors if x.dim() == 2 and not n.endswith(embedding)}


def selected(names: Iterable[str]) -> str:
    """What a fine-tune adds to some tensors."""
    return "x[" + ", ".join(f'"{name}"' for name in names) + "]"


def whole(folder: Path) -> str:
    """All matrices as a LoRA, each of its full rank."""
    ranks = matrices(folder)
    joined = ""
    for rank in set(ranks.values()):
        part = f"compress({selected(n for n, room in ranks.items() if room == rank)}, rank={rank})"
        joined = f"join({joined}, {part})" if joined else part
    return f'{DECLARED}save {joined} to "lora"\n'


def hold(made: dict[str, torch.Tensor], folder: Path) -> None:
    tuned, base = weights(folder / "tuned"), weights(folder / "base")
    assert made.keys() == tuned.keys()
    for name, x in tuned.items():
        # As m - b is in float32, and b + (m - b): a rounding of each.
        rounding = torch.finfo(torch.float32).eps * (base[name].abs() + x.abs()).max()
        assert (made[name] - x).abs().max() <= 2 * rounding, name


def test_a_fine_tune_comes_back(folder: Path) -> None:
    build(folder, whole(folder))
    others = selected(weights(folder / "base").keys() - matrices(folder).keys())
    build(folder, f'{DECLARED}adapter lora on b = "lora"\nsave b + lora + {others} to "back"\n')
    hold(weights(folder / "back"), folder)
    transformers.AutoModelForCausalLM.from_pretrained(folder / "back")


def test_peft_merges_it_to_the_fine_tune(folder: Path) -> None:
    build(folder, whole(folder))
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    merged = peft.PeftModel.from_pretrained(base, folder / "lora").merge_and_unload().state_dict()
    tuned = weights(folder / "tuned")
    for name in matrices(folder):
        assert torch.allclose(merged[name], tuned[name], rtol=0, atol=1e-6), name
