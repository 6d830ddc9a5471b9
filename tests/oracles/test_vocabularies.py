"""Models of other tokens: `m[like b]` and `join` of models, held to mergekit's tokenizer_source and
to a reference in float64, token by token; and what transformers loads of an output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from mergekit.architecture.base import ConfiguredModelArchitecture, ConfiguredModuleArchitecture
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from support import build, error, pem
from tokenizers import Tokenizer, models, pre_tokenizers

for _architecture in (ConfiguredModuleArchitecture, ConfiguredModelArchitecture):
    names = {"torch": torch, "PretrainedConfig": transformers.PretrainedConfig}
    _architecture.model_rebuild(_types_namespace=names)

WORDS = [f"w{number}" for number in range(20)]
EMBEDDING = "model.embed_tokens.weight"
TOKENS = {
    "base": ([*WORDS, "<unk>"], ["<s>"]),
    "chat": ([*WORDS[::-1], "<unk>"], ["<s>", "<user>", "<both>"]),
    "code": ([*WORDS[:15], "def", "<unk>"], ["<s>", "<both>", "<fill>"]),
}
"""The words that a tokenizer's model knows, and the tokens added to it."""

Rows = NDArray[np.float64]


def _model(at: Path, words: Sequence[str], added: Sequence[str], tied: bool, seed: int) -> None:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=len(words) + len(added), tie_word_embeddings=tied,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(at)
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.add_tokens(list(added), special_tokens=True)
    fast.save_pretrained(at)


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied"])
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and two models with tokens of their own in another order."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, (words, added)) in enumerate(TOKENS.items()):
        _model(folder / name, words, added, request.param, seed)
    return folder


@pytest.fixture(autouse=True)
def working_directory(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(three)
    LoaderCache().loaders.clear()


def tokens_of(at: Path) -> dict[str, int]:
    numbers: dict[str, int] = transformers.AutoTokenizer.from_pretrained(at).get_vocab()
    return numbers


def by_token(at: Path, key: str = EMBEDDING) -> dict[str, Rows]:
    """The rows of a tensor of a model by token, as transformers reads its tokenizer."""
    rows = load_file(at / "model.safetensors")[key].double().numpy()
    return {token: rows[number] for token, number in tokens_of(at).items()}


MERGED = """
merge_method: task_arithmetic
base_model: base
models:
  - model: chat
    parameters: {{weight: 0.5}}
  - model: code
    parameters: {{weight: 0.25}}
dtype: float32
tokenizer_source: {source}
"""
TWO = """
merge_method: linear
models:
  - model: chat
    parameters: {{weight: 0.5}}
  - model: code
    parameters: {{weight: 0.5}}
dtype: float32
tokenizer_source: {source}
"""


# Without a base_model, which model is the base of a tokenizer changes with the hashes of mergekit's
# process; a union has the same rows whichever it is.
@pytest.mark.parametrize(
    ("text", "source"),
    [(MERGED, "union"), (MERGED, "base"), (MERGED, "chat"), (TWO, "union"), (TWO, "chat")],
)
def test_a_configuration_gives_what_mergekit_gives(text: str, source: str, tmp_path: Path) -> None:
    (tmp_path / "merge.yml").write_text(text.format(source=source))
    options = MergeOptions(copy_tokenizer=True, quiet=True, write_model_card=False)
    configuration = MergeConfiguration.model_validate(yaml.safe_load(text.format(source=source)))
    run_merge(configuration, str(tmp_path / "theirs"), options)
    for command, file in (("convert", "merge.yml"), ("check", "merge.pem"), ("build", "merge.pem")):
        done = pem(command, tmp_path / file)
        assert done.code == 0, done.text
    out = tmp_path / "out" / "merge"
    theirs, ours = (load_file(at / "model.safetensors") for at in (tmp_path / "theirs", out))
    assert theirs.keys() == ours.keys()
    for key, tensor in theirs.items():
        if EMBEDDING in key or "lm_head" in key:
            rows, others = by_token(tmp_path / "theirs", key), by_token(out, key)
            assert rows.keys() == others.keys()
            assert all(np.allclose(rows[t], others[t], atol=1e-6) for t in rows), key
        else:
            assert torch.allclose(tensor, ours[key], atol=1e-6), key
    read = [transformers.AutoTokenizer.from_pretrained(at) for at in (tmp_path / "theirs", out)]
    for words in ("w3 <user> def w19 <fill>", "w1 nothing <s> <both>"):
        said = [x.convert_ids_to_tokens(x(words)["input_ids"]) for x in read]
        assert said[0] == said[1]
    loaded, told = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    assert loaded.config.vocab_size == ours[EMBEDDING].shape[0]


def _reference(numbers: dict[str, int], sources: Sequence[dict[str, Rows]]) -> dict[str, Rows]:
    """The row of each token: of the first source if it has it, else the mean of those that do."""
    made = {}
    for token in numbers:
        have = [source[token] for source in sources if token in source]
        made[token] = have[0] if token in sources[0] else np.mean(have, axis=0)
    return made


def declared(three: Path) -> str:
    return "".join(f'model {x.replace("base", "b")} = "{three / x}"\n' for x in TOKENS)


def test_tokens_of_all_and_of_one(three: Path, tmp_path: Path) -> None:
    """In the language itself: every row of every token, as a reference has it."""
    text = f"""{declared(three)}
let all = join(b, chat, code)
save all to "all"
save chat[like b] to "like"
save all + 0.5 * (chat[like all] - all) to "moved"
save mean([code[like all], chat[like all]]) to "between" with shard="2kB", dtype=f32
"""
    done = build(tmp_path, text)
    assert len(done.outputs) == 4
    base, chat, code = (by_token(three / name) for name in TOKENS)
    everything = _reference({t: 0 for x in (base, chat, code) for t in x}, [base, chat, code])
    rows = by_token(tmp_path / "all")
    assert rows.keys() == everything.keys()
    assert all(np.allclose(rows[token], everything[token], atol=1e-7) for token in rows)
    assert tokens_of(three / "base").items() <= tokens_of(tmp_path / "all").items()
    like = by_token(tmp_path / "like")
    assert like.keys() == base.keys()
    assert all(np.array_equal(like[t], chat.get(t, base[t])) for t in like)
    moved = by_token(tmp_path / "moved")
    for token, row in moved.items():
        wanted = 0.5 * everything[token] + 0.5 * chat.get(token, everything[token])
        assert np.allclose(row, wanted, atol=1e-6)
    said = json.loads((tmp_path / "between" / "config.json").read_text())
    assert said["vocab_size"] == len(everything)


def test_what_is_said_of_other_tokens_is_pasted(three: Path, tmp_path: Path) -> None:
    wrong = error(tmp_path, f'{declared(three)}save b + 0.5 * (code - b) to "out"\n')
    assert wrong.code == "PEM0307" and wrong.help == "code[like b] - b"
    text = f'{declared(three)}save b + 0.5 * ({wrong.help}) to "out"\n'
    out = build(tmp_path, text).outputs[0].path
    assert by_token(out).keys() == by_token(three / "base").keys()


def test_like_itself_and_joined_with_itself_are_the_same(three: Path, tmp_path: Path) -> None:
    text = f'{declared(three)}save b[like b] to "a"\nsave join(b, b) to "c"\nsave b to "d"\n'
    hashes = {output.semantic_hash for output in build(tmp_path, text).outputs}
    assert len(hashes) == 1


def _tuned(name: str, seed: int, train: list[str]) -> None:
    """A LoRA of a model, on its tokens too, beside it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(name)
    config = LoraConfig(r=2, target_modules=train, init_lora_weights=False)
    torch.manual_seed(seed)
    get_peft_model(model, config).save_pretrained(f"{name}-lora", save_embedding_layers=False)


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_adapters_of_other_tokens_add_by_token_through_their_models(tmp_path: Path) -> None:
    """What PEM0307 says to write where two LoRAs on an embedding have other rows."""
    for seed, name in enumerate(("chat", "code")):
        _tuned(name, seed, ["embed_tokens", "q_proj"])
    declared = 'base b = ["chat", "code"]\n' + "".join(
        f'model {m} on b = "{name}"\nadapter {x} on b = "{name}-lora"\n'
        for m, x, name in (("m", "x", "chat"), ("n", "y", "code"))
    )
    sum_of_both = error(Path(), f'{declared}save x + y to "{tmp_path.name}"\n')
    assert sum_of_both.code == "PEM0307" and sum_of_both.help is not None
    written = sum_of_both.help.rpartition(": ")[2]
    if "lm_head.weight" not in load_file("code/model.safetensors"):  # PEFT changes one of the two
        assert error(Path(), f'{declared}save {written} to "tied"\n').code == "PEM0339"
        return
    build(Path(), f'{declared}save {written} to "out-by-token"\n')
    alone = {}
    for name in ("chat", "code"):
        model = transformers.AutoModelForCausalLM.from_pretrained(name)
        merged = PeftModel.from_pretrained(model, f"{name}-lora").merge_and_unload()
        before, after = load_file(f"{name}/model.safetensors")[EMBEDDING], merged.state_dict()
        rows = (after[EMBEDDING] - before).double().numpy()
        alone[name] = {token: rows[number] for token, number in tokens_of(Path(name)).items()}
    own, built = by_token(Path("code")), by_token(Path("out-by-token"))
    assert built.keys() == own.keys()
    for token, row in built.items():
        wanted = own[token] + alone["code"][token] + alone["chat"].get(token, 0.0)
        np.testing.assert_allclose(row, wanted, atol=1e-5)
