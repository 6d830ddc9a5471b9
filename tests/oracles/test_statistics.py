"""Statistics collected from live PEFT models, and the merges that go by them."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from support import PREFIX, codes, config_of, delta, gains, peft_made, tensors_of
from support.peft_made import IDS, composed, loaded
from torch import nn

import pemlang
from pemlang.ops import FUNCTIONS

LABELS = torch.tensor([0, 1])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
BATCHES = [
    {"input_ids": IDS[i : i + 1], "attention_mask": MASK[i : i + 1], "labels": LABELS[i : i + 1]}
    for i in range(2)
]


@pytest.fixture(scope="module")
def pair(bert: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRAs with statistics, of other sentences each."""
    folder = tmp_path_factory.mktemp("collected")
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["query", "intermediate.dense"])
    adapters = {}
    for seed, name in enumerate("ab"):
        path = peft_made.made(bert, folder / name, config, seed)
        turned = [{**b, "input_ids": (b["input_ids"] + 7 * seed) % 40} for b in BATCHES]
        pemlang.collect_statistics(loaded(bert, path), turned, path)
        adapters[name] = path
    return adapters


def test_statistics_are_what_they_say(bert: nn.Module, pair: dict[str, Path]) -> None:
    """Gram matrices from the inputs of each module, gradients by backward of each example."""
    model = PeftModel.from_pretrained(copy.deepcopy(bert), str(pair["a"]), is_trainable=True).eval()
    inputs: dict[str, list[torch.Tensor]] = {}
    squares: dict[str, torch.Tensor] = {}
    for name, module in model.base_model.model.named_modules():
        if name.endswith(("query", "intermediate.dense")):
            module.register_forward_hook(
                lambda _, args, out, name=name: inputs.setdefault(name, []).append(args[0])
            )
    for batch in BATCHES:
        model.zero_grad()
        model(**batch).loss.backward()
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                assert parameter.grad is not None
                squares[name] = squares.get(name, 0) + parameter.grad.double() ** 2 / 2
    collected = load_file(pair["a"] / "statistics.safetensors")
    for site, xs in inputs.items():
        kept = torch.cat([x[m.bool()] for x, m in zip(xs, MASK[:, None], strict=True)]).double()
        assert torch.allclose(
            collected[f"{site}.gram"].double(), kept.T @ kept / len(kept), atol=1e-5
        )
        for factor in "AB":
            wanted = squares[f"{PREFIX}{site}.lora_{factor}.default.weight"]
            assert torch.allclose(collected[f"{site}.fisher_{factor}"].double(), wanted, rtol=1e-4)
    assert len(collected) == 3 * len(inputs)


def test_regmean_is_its_reference(pair: dict[str, Path], tmp_path: Path) -> None:
    out = composed(tmp_path, pair, "regmean([a, b], weights=[1, 0.5])", "dtype=f64")
    stats = [load_file(pair[n] / "statistics.safetensors") for n in "ab"]
    a, b = delta(pair["a"]), delta(pair["b"])
    reference = FUNCTIONS["regmean"].reference
    assert reference is not None
    for site, ours in delta(out).items():
        grams = [s[f"{site}.gram"].double().numpy() for s in stats]
        # A few tokens do not fill a space: what is off the diagonal, scaled, keeps it solvable.
        wanted = reference([a[site], b[site]], grams, [1, 0.5], 0.9)
        assert np.allclose(ours, wanted, atol=1e-5 * abs(wanted).max())


def test_regmean_comes_nearest_to_each_adapter_on_its_inputs(
    pair: dict[str, Path], tmp_path: Path
) -> None:
    out = delta(composed(tmp_path, pair, "regmean([a, b], off_diagonal=1)", "dtype=f64"))
    stats = [load_file(pair[n] / "statistics.safetensors") for n in "ab"]
    xs = [delta(pair[n]) for n in "ab"]

    def apart(x: dict[str, np.ndarray], site: str) -> float:
        gaps = [x[site] - own[site] for own in xs]
        grams = [s[f"{site}.gram"].double().numpy() for s in stats]
        return sum(float(np.trace(g @ m @ g.T)) for g, m in zip(gaps, grams, strict=True))

    mean = {site: (xs[0][site] + xs[1][site]) / 2 for site in out}
    for site in out:
        assert apart(out, site) <= apart(mean, site) * (1 + 1e-6)


def test_fisher_is_its_reference(pair: dict[str, Path], tmp_path: Path) -> None:
    out = tensors_of(composed(tmp_path, pair, "fisher([a, b], weights=[1, 0.5])", "dtype=f64"))
    stats = [load_file(pair[n] / "statistics.safetensors") for n in "ab"]
    factors = [tensors_of(pair[n]) for n in "ab"]
    reference = FUNCTIONS["fisher"].reference
    assert reference is not None
    for key, ours in out.items():
        site, factor, _ = key.removeprefix(PREFIX).rsplit(".", 2)
        fishers = [s[f"{site}.fisher_{factor[-1]}"].double().numpy() for s in stats]
        xs = [f[key].double().numpy() for f in factors]
        assert np.allclose(ours.numpy(), reference(xs, fishers, [1, 0.5]), atol=1e-6)


def test_fisher_of_gains(bert: nn.Module, tmp_path: Path) -> None:
    config = IA3Config(target_modules=["key", "output.dense"], feedforward_modules=["output.dense"])
    pair = {}
    for seed, name in enumerate("ab"):
        pair[name] = peft_made.made(bert, tmp_path / name, config, seed)
        pemlang.collect_statistics(loaded(bert, pair[name]), BATCHES, pair[name])
    out = gains(composed(tmp_path / "r", pair, "fisher([a, b])", "dtype=f64"))
    stats = [load_file(pair[n] / "statistics.safetensors") for n in "ab"]
    both = [gains(pair[n]) for n in "ab"]
    for site, ours in out.items():
        f = [s[f"{site}.fisher_l"].double().numpy() for s in stats]
        x, y = (g[site] for g in both)
        total = f[0] + f[1]
        even = (x + y) / 2
        wanted = np.where(total > 0, (f[0] * x + f[1] * y) / np.where(total > 0, total, 1), even)
        assert np.allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_laws(pair: dict[str, Path], tmp_path: Path, method: str) -> None:
    """Of one adapter, of an adapter with itself, and in any order."""
    a = delta(pair["a"])
    texts = (f"{method}([a])", f"{method}([a, a])", f"{method}([a, b])", f"{method}([b, a])")
    alone, twice, in_order, turned = (
        delta(composed(tmp_path / str(i), pair, text, "dtype=f32")) for i, text in enumerate(texts)
    )
    for site, x in a.items():
        assert np.allclose(alone[site], x, atol=1e-4 * abs(x).max())
        assert np.allclose(twice[site], x, atol=1e-4 * abs(x).max())
        assert (in_order[site] == turned[site]).all()


def test_statistics_are_part_of_the_content(pair: dict[str, Path], tmp_path: Path) -> None:
    """Other statistics, another hash; and a merge that reads them takes the new ones."""
    copies = {n: Path(shutil.copytree(p, tmp_path / n)) for n, p in pair.items()}
    text = "".join(f'adapter {n} = "{p}"\n' for n, p in copies.items())
    (tmp_path / "r.pem").write_text(text + 'save regmean([a, b]) to "out"\n')
    first = pemlang.load(tmp_path / "r.pem").build().outputs[0].semantic_hash
    place = copies["a"] / "statistics.safetensors"
    save_file({k: v * 2 for k, v in load_file(place).items()}, place)
    assert pemlang.load(tmp_path / "r.pem").build().outputs[0].semantic_hash != first


def test_what_is_missing_is_said(pair: dict[str, Path], tmp_path: Path) -> None:
    head = "".join(f'adapter {n} = "{p}"\n' for n, p in pair.items())
    assert codes(tmp_path, head + "let x = regmean([a, 2 * b])") == ["PEM0327"]
    assert config_of(pair["a"])["r"] == 4


def test_nothing_to_collect_from(bert: nn.Module, pair: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no batch"):
        pemlang.collect_statistics(loaded(bert, pair["a"]), [], tmp_path)
    ids = torch.ones((1, 4), dtype=torch.long)
    with pytest.raises(ValueError, match="is a mapping"):
        pemlang.collect_statistics(loaded(bert, pair["a"]), [ids], tmp_path)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="need labels"):
        pemlang.collect_statistics(loaded(bert, pair["a"]), [{"input_ids": ids}], tmp_path)
    assert not list(tmp_path.iterdir())
