"""`pem convert`: configurations of the kinds that mergekit's examples show, converted, checked and
built, give the tensors that mergekit gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
import yaml
from mergekit.architecture.base import ConfiguredModelArchitecture, ConfiguredModuleArchitecture
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from support import pem

pytestmark = [
    pytest.mark.filterwarnings("ignore::pemlang.PemWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

LAYERS = 4
MODELS = ("base-7b", "chat-7b", "code-7b", "math-7b")
SHAPE = transformers.LlamaConfig(
    hidden_size=128,
    intermediate_size=192,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=160,
    tie_word_embeddings=False,
)

for _architecture in (ConfiguredModuleArchitecture, ConfiguredModelArchitecture):
    names = {"torch": torch, "PretrainedConfig": transformers.PretrainedConfig}
    _architecture.model_rebuild(_types_namespace=names)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a base and three models tuned from it."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(SHAPE)
    weights = {key: tensor.clone() for key, tensor in base.state_dict().items()}
    for name in MODELS:
        base.save_pretrained(folder / name)
        base.load_state_dict({k: w + 0.02 * torch.randn_like(w) for k, w in weights.items()})
    return folder


@pytest.fixture(autouse=True)
def working_directory(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    LoaderCache().loaders.clear()


def by_mergekit(text: str, out: Path) -> dict[str, torch.Tensor]:
    configuration = MergeConfiguration.model_validate(yaml.safe_load(text))
    options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
    run_merge(configuration, str(out), options)
    return load_file(out / "model.safetensors")


def by_pem(text: str, folder: Path) -> dict[str, torch.Tensor]:
    """What the converted recipe builds; it lies in another folder than the models."""
    (folder / "merge.yml").write_text(text)
    recipe = folder / "merge.pem"
    for command in ("convert", "check", "build"):
        result = pem(command, folder / "merge.yml" if command == "convert" else recipe)
        assert result.code == 0, result
    return load_file(folder / "out/merge/model.safetensors")


FINE_TUNES = """
models:
  - model: chat-7b
    parameters: {weight: 1.0}
  - model: code-7b
    parameters: {weight: 0.5}
"""

CONFIGURATIONS = {
    "linear": FINE_TUNES + "merge_method: linear\ndtype: float32",
    "linear, all alike": """
models:
  - model: chat-7b
  - model: code-7b
  - model: math-7b
merge_method: linear
parameters:
  weight: 1
""",
    "linear with a gradient": """
models:
  - model: chat-7b
    parameters:
      weight: [1, 0.2, 0.4]
  - model: code-7b
    parameters:
      weight: 0.5
merge_method: linear
""",
    "task_arithmetic": FINE_TUNES + "merge_method: task_arithmetic\nbase_model: base-7b",
    "task_arithmetic, scaled and normalised": FINE_TUNES
    + "merge_method: task_arithmetic\nbase_model: base-7b\n"
    + "parameters: {lambda: 0.8, normalize: true}",
    "task_arithmetic, one taken away": """
merge_method: task_arithmetic
base_model: base-7b
models:
  - model: base-7b
  - model: chat-7b
    parameters: {weight: 0.9}
  - model: code-7b
    parameters: {weight: -0.4}
""",
    "ties with densities and gradients": """
models:
  - model: base-7b
    # no parameters necessary for base model
  - model: chat-7b
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: code-7b
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: base-7b
parameters:
  normalize: true
  int8_mask: false
dtype: float32
""",
    "ties, not normalised": FINE_TUNES
    + "merge_method: ties\nbase_model: base-7b\n"
    + "parameters: {density: 0.4, normalize: false, lambda: 1.5}",
    "ties with a density that varies": FINE_TUNES
    + "merge_method: ties\nbase_model: base-7b\n"
    + "parameters: {density: [1, 0.5, 0.2]}",
    "dare_ties, all kept": FINE_TUNES
    + "merge_method: dare_ties\nbase_model: base-7b\nparameters: {density: 1.0}",
    "dare_linear, all kept": FINE_TUNES
    + "merge_method: dare_linear\nbase_model: base-7b\nparameters: {density: 1.0}",
    "della, all kept": FINE_TUNES
    + "merge_method: della\nbase_model: base-7b\nparameters: {density: 1.0, epsilon: 0.1}",
    "breadcrumbs": FINE_TUNES
    + "merge_method: breadcrumbs\nbase_model: base-7b\nparameters: {density: 0.6, gamma: 0.05}",
    "breadcrumbs_ties": FINE_TUNES
    + "merge_method: breadcrumbs_ties\nbase_model: base-7b\n"
    + "parameters: {density: 0.7, gamma: 0.02}",
    "slerp with filters and gradients": """
slices:
  - sources:
      - model: chat-7b
        layer_range: [0, 4]
      - model: code-7b
        layer_range: [0, 4]
merge_method: slerp
base_model: chat-7b
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
dtype: float32
""",
    "slerp with a gradient over what lies in layers and outside": """
models: [{model: chat-7b}, {model: code-7b}]
merge_method: slerp
base_model: chat-7b
parameters:
  t: [{filter: norm, value: [0.2, 0.8]}, {value: 0.5}]
""",
    "nuslerp of models": FINE_TUNES + "merge_method: nuslerp",
    "nuslerp over a base": FINE_TUNES + "merge_method: nuslerp\nbase_model: base-7b",
    "nuslerp of rows": FINE_TUNES
    + "merge_method: nuslerp\nbase_model: base-7b\nparameters: {nuslerp_flatten: false}",
    "nuslerp of columns, as its row_wise is": FINE_TUNES
    + "merge_method: nuslerp\nparameters: {nuslerp_flatten: false, nuslerp_row_wise: true}",
    "multislerp": FINE_TUNES + "merge_method: multislerp",
    "karcher": "models: [{model: chat-7b}, {model: code-7b}, {model: math-7b}]\n"
    "merge_method: karcher\nparameters: {max_iter: 5, tol: 1e-5}",
    "model_stock": "models: [{model: chat-7b}, {model: code-7b}, {model: math-7b}]\n"
    "merge_method: model_stock\nbase_model: base-7b",
    "model_stock of rows": "models: [{model: chat-7b}, {model: code-7b}, {model: math-7b}]\n"
    "merge_method: model_stock\nbase_model: base-7b\nparameters: {filter_wise: true}",
    "ram": "models: [{model: chat-7b}, {model: code-7b}, {model: math-7b}]\n"
    "merge_method: ram\nbase_model: base-7b\nparameters: {epsilon: 0.03}",
    "ramplus_tl": "models: [{model: chat-7b}, {model: code-7b}, {model: math-7b}]\n"
    "merge_method: ramplus_tl\nbase_model: base-7b\nparameters: {r: 0.3, alpha: 2, epsilon: 0.03}",
    "ramplus_tl as it is": FINE_TUNES + "merge_method: ramplus_tl\nbase_model: base-7b",
    "sce": "models: [{model: chat-7b}, {model: code-7b}, {model: math-7b}]\n"
    "merge_method: sce\nbase_model: base-7b\nparameters: {select_topk: 0.4}",
    "nearswap": "models: [{model: chat-7b}]\nmerge_method: nearswap\nbase_model: base-7b\n"
    "parameters: {t: 0.01}",
    "passthrough of layers": """
slices:
  - sources: [{model: chat-7b, layer_range: [0, 3]}]
  - sources: [{model: code-7b, layer_range: [1, 4]}]
merge_method: passthrough
dtype: float32
""",
    "slices merged with their own settings": """
slices:
  - sources:
      - {model: base-7b, layer_range: [0, 2]}
      - {model: chat-7b, layer_range: [0, 2], parameters: {weight: [0.2, 1]}}
      - {model: code-7b, layer_range: [0, 2], parameters: {weight: 0.5}}
  - sources:
      - {model: base-7b, layer_range: [2, 3]}
      - {model: chat-7b, layer_range: [2, 3], parameters: {weight: [0.2, 1]}}
      - {model: code-7b, layer_range: [2, 3], parameters: {weight: 0.25}}
merge_method: ties
base_model: base-7b
parameters: {density: 0.5}
""",
    "layers of other numbers merged": """
slices:
  - sources:
      - {model: chat-7b, layer_range: [0, 2]}
      - {model: code-7b, layer_range: [2, 4]}
merge_method: slerp
base_model: chat-7b
parameters: {t: [0.1, 0.6]}
""",
    "passthrough": "models: [{model: chat-7b}]\nmerge_method: passthrough",
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_gives_what_mergekit_gives(tmp_path: Path, name: str) -> None:
    text = CONFIGURATIONS[name]
    theirs, ours = by_mergekit(text, tmp_path / "theirs"), by_pem(text, tmp_path)
    assert ours.keys() == theirs.keys()
    for key, wanted in theirs.items():
        apart = (ours[key].double() - wanted.double()).norm() / wanted.double().norm()
        assert ours[key].dtype == wanted.dtype and float(apart) < 1e-5, key


def test_a_fusion_takes_the_entries_that_mergekit_takes(tmp_path: Path) -> None:
    """But for the few that the rounding of its divergences, in float32, decides."""
    text = "models: [{model: chat-7b}]\nmerge_method: arcee_fusion\nbase_model: base-7b\n"
    theirs, ours = by_mergekit(text, tmp_path / "theirs"), by_pem(text, tmp_path)
    for key, wanted in theirs.items():
        other = (ours[key] - wanted).abs() > 1e-6
        assert float(other.double().mean()) <= 1e-3, key


def test_an_output_of_bf16_is_mergekit_s_to_its_rounding(tmp_path: Path) -> None:
    text = CONFIGURATIONS["ties, not normalised"] + "\ndtype: float32\nout_dtype: bfloat16"
    theirs, ours = by_mergekit(text, tmp_path / "theirs"), by_pem(text, tmp_path)
    for key, wanted in theirs.items():
        assert ours[key].dtype == wanted.dtype == torch.bfloat16
        assert torch.allclose(ours[key].float(), wanted.float(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layers"), [("task_arithmetic", LAYERS), ("passthrough of layers", 6)]
)
def test_an_output_loads(tmp_path: Path, name: str, layers: int) -> None:
    by_pem(CONFIGURATIONS[name], tmp_path)
    model, told = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "out/merge", output_loading_info=True
    )
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert model.config.num_hidden_layers == layers
