"""What models answer: each is given a question that no fine-tune has seen.

python say.py trained/pirate out/both
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTION = "What is a good breakfast?"


def answer(directory: Path, question: str = QUESTION, tokens: int = 60) -> str:
    """The likeliest answer of a model, token by token."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**prompt, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}\n    " + answer(Path(name)).replace("\n", "\n    "), flush=True)
