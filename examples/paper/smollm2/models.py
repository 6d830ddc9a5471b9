"""SmolLM2 with modules on it: training, and measuring with plain PEFT and transformers.

An example is where its answer begins, and its text, which ends with the answer: training lowers the
loss of the answer alone, token by token.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path

import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from settings import QUICKSTART
from table import load
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from train import Method, fit
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from smollm2.settings import BASE, Module, module_directory

if (MODELS := str(QUICKSTART.parent / "models")) not in sys.path:
    sys.path.append(MODELS)
from tune import base as packaged

Example = tuple[int, str]
"""Where the answer begins, and the text that ends with it."""

BATCH = 32  # of what is measured
KEPT = 4000  # texts whose states are kept
NOT_COUNTED = -100  # labels that a loss leaves out
FIRST = 21  # the first of the layers that modules are on, of 30
ON = rf".*\.layers\.({'|'.join(map(str, range(FIRST, 30)))})\."


@cache
def base() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model without a module, frozen, and its tokenizer."""
    model, tokenizer = packaged()
    model.config.use_cache = False
    return model.requires_grad_(False).eval(), tokenizer


# --- states, and losses of answers ----------------------------------------------------------------


@contextmanager
def layers(model: PreTrainedModel, some: slice, norm: torch.nn.Module) -> Iterator[None]:
    """Let a model run through some of its layers alone."""
    whole = model.model.layers, model.model.norm
    model.model.layers, model.model.norm = whole[0][some], norm
    try:
        yield
    finally:
        model.model.layers, model.model.norm = whole


class States:
    """What the layers below all modules make of texts: computed once, since nothing changes it.

    Args:
        exact: whether to compute in float32 throughout. Matrix products in bf16 take two fifths
            of the time where a processor has them.
    """

    def __init__(self, exact: bool) -> None:
        self._exact = exact
        self._below: dict[str, torch.Tensor] = {}

    def precision(self) -> torch.autocast:
        """How to compute."""
        return torch.autocast("cpu", torch.bfloat16, enabled=not self._exact)

    def below(self, tokens: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """The states of some texts, given their tokens."""
        if len(self._below) > KEPT:
            self._below.clear()
        model, _ = base()
        missing = sorted(tokens.keys() - self._below, key=lambda text: len(tokens[text]))
        for at in range(0, len(missing), BATCH):
            some = [tokens[text] for text in missing[at : at + BATCH]]
            with (
                torch.no_grad(),
                self.precision(),
                layers(model, slice(FIRST), torch.nn.Identity()),
            ):
                states = model.model(pad_sequence(some, True)).last_hidden_state
            for text, ids, state in zip(missing[at:], some, states.float(), strict=False):
                self._below[text] = state[: len(ids)].clone()
        return [self._below[text] for text in tokens]

    def answers(self, examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits where a token of an answer follows, and those tokens, one after the other."""
        model, tokenizer = base()
        rows = tokenizer([text for _, text in examples], return_offsets_mapping=True)
        tokens, following = {}, []
        for (begin, text), ids, offsets in zip(
            examples, rows["input_ids"], rows["offset_mapping"], strict=True
        ):
            tokens[text] = torch.tensor(ids[:-1])
            wanted = [
                i if end > begin else NOT_COUNTED for i, (_, end) in zip(ids, offsets, strict=True)
            ]
            following.append(torch.tensor(wanted[1:]))
        states = pad_sequence(self.below(tokens), True)
        after = pad_sequence(following, True, NOT_COUNTED)
        with self.precision(), layers(model, slice(FIRST, None), model.model.norm):
            out = model.model(inputs_embeds=states).last_hidden_state
            logits = model.lm_head(out[after != NOT_COUNTED])
        return logits.float(), after[after != NOT_COUNTED]

    def loss(self, batch: list[Example]) -> torch.Tensor:
        """The mean loss of the answers' tokens, which training lowers."""
        return cross_entropy(*self.answers(batch))

    @torch.no_grad()
    def token_loss(self, examples: list[Example]) -> float:
        """The mean cross entropy of the answers' tokens, in nats."""
        total, count = 0.0, 0
        for some in by_length(examples):
            logits, following = self.answers(some)
            total += float(cross_entropy(logits, following, reduction="sum"))
            count += len(following)
        return total / count

    @torch.no_grad()
    def judged(self, examples: list[Example], words: tuple[str, str]) -> tuple[float, float]:
        """How often, in percent, the right one of two words of a token each is the likelier
        answer, and the mean cross entropy between the two."""
        _, tokenizer = base()
        tokens = torch.tensor([tokenizer.encode(word)[0] for word in words])
        right, total = 0, 0.0
        for some in by_length(examples):
            logits, following = self.answers(some)
            label = (following == tokens[1]).long()
            right += int((logits[:, tokens].argmax(-1) == label).sum())
            total += float(cross_entropy(logits[:, tokens], label, reduction="sum"))
        return 100 * right / len(examples), total / len(examples)


def by_length(examples: list[Example]) -> Iterator[list[Example]]:
    """Examples in batches, with little padding."""
    ordered = sorted(examples, key=lambda example: len(example[1]))
    for at in range(0, len(ordered), BATCH):
        yield ordered[at : at + BATCH]


# --- modules --------------------------------------------------------------------------------------


def method(name: str, epochs: int) -> Method:
    """How a module is trained, whatever it learns."""
    if name == "ia3":
        sites = rf"{ON}(self_attn\.(k_proj|v_proj)|mlp\.down_proj)"
        config = IA3Config(
            task_type="CAUSAL_LM", target_modules=sites, feedforward_modules=rf"{ON}mlp\.down_proj"
        )
        return Method(config, rate=1e-2, epochs=epochs)
    sites = rf"{ON}self_attn\.(q_proj|v_proj)"
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=sites)
    return Method(config, rate=1e-3, epochs=epochs)


@contextmanager
def with_module(directory: Path | None) -> Iterator[torch.nn.Module]:
    """The model with a module on it, or as a fine-tune has it, or as it is, to be measured."""
    model, _ = base()
    if directory is None:
        yield model
        return
    if (directory / "model.safetensors").is_file():
        with weights_of(directory):
            yield model
        return
    whole = load(directory, model).eval()
    try:
        yield whole
    finally:
        whole.unload()


def train_module(
    module: Module, name: str, seed: str, examples: list[Example], states: States
) -> None:
    """Train a module by a method and write it; a seed's modules share an initialisation."""
    how = method(name, module.epochs)
    model, _ = base()
    torch.manual_seed(int(seed))
    if module.after is None:
        peft = get_peft_model(model, how.config)
    else:
        directory = module_directory(module.after, seed, name)
        peft = PeftModel.from_pretrained(model, directory, is_trainable=True)
    fit(peft, examples, how, states.loss)
    save(peft, module_directory(module.name, seed, name))
    peft.unload().eval()


# --- fine-tunes -----------------------------------------------------------------------------------

TRAINED_LAYERS = tuple(f"model.layers.{layer}." for layer in range(FIRST, 30))
FULL_RATE = 1e-4


def fine_tune(
    module: Module, name: str, seed: str, examples: list[Example], states: States
) -> None:
    """Train all weights of the layers that modules are on, and write the model."""
    model, _ = base()
    top = model.model.layers[FIRST:]
    before = deepcopy(top.state_dict())
    torch.manual_seed(int(seed))
    fit(top.requires_grad_(True), examples, Method(None, FULL_RATE, module.epochs), states.loss)
    write_model(module_directory(module.name, seed, name))
    top.requires_grad_(False).eval().load_state_dict(before)


def write_model(directory: Path) -> None:
    """Write the model as it is, in float16, its config last."""
    model, tokenizer = base()
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: weight.half() for name, weight in model.state_dict().items()}
    del state["lm_head.weight"]  # tied to the embedding
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(directory)
    config = deepcopy(model.config)
    config.dtype = torch.float16
    config.save_pretrained(directory)


@contextmanager
def weights_of(directory: Path) -> Iterator[None]:
    """Let the model have the weights of a fine-tune, or of a composition of some."""
    model, _ = base()
    state = model.state_dict()
    weights = load_file(directory / "model.safetensors")
    top = {name: weights.pop(name) for name in state if name.startswith(TRAINED_LAYERS)}
    before = {name: state[name].clone() for name in top}
    assert all(torch.equal(weight, state[name].half()) for name, weight in weights.items())
    model.load_state_dict(top, strict=False)
    try:
        yield
    finally:
        model.load_state_dict(before, strict=False)


# --- files ----------------------------------------------------------------------------------------


def save(model: PeftModel, directory: Path) -> None:
    """Write what PEFT would, but small and the same on every machine."""
    directory.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"]
    short = torch.bfloat16 if isinstance(config, LoraConfig) else torch.float16  # gains are near 1
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    state = {key: value.to(short) for key, value in state.items()}
    save_file(state, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config.base_model_name_or_path = BASE
    config.inference_mode = True
    config.save_pretrained(directory)
