"""Every combination type of PEFT's add_weighted_adapter against the method of the same name, from
the same adapters to the same Δ. Random masks are one draw on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from support import Dense, delta, peft_made
from support.peft_made import composed, merged
from torch import nn

from pemlang.kernels import drawn

pytestmark = pytest.mark.filterwarnings("ignore::pemlang.PemWarning")

TOLERANCE = 1e-5
WEIGHTS = {"a": 1.0, "b": -0.7, "c": 0.4}
SAID = "[a, b, c], weights=[1, -0.7, 0.4]"
DENSITY = 0.5


@pytest.fixture(scope="module")
def like(bert: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three LoRAs of one rank and one scale."""
    folder = tmp_path_factory.mktemp("like")
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["query", "value", "intermediate.dense"])
    return {
        name: peft_made.made(bert, folder / name, config, seed) for seed, name in enumerate("abc")
    }


def draws(count: int) -> NDArray[np.uint32]:
    return drawn((7, 0), 0, count)


@pytest.fixture
def one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PEFT draws, and what is drawn here, depend on the size of a tensor alone."""

    def bernoulli(p: torch.Tensor) -> torch.Tensor:
        numbers = torch.from_numpy(draws(p.numel()).astype(np.float64) / 2**32)
        return (numbers.reshape(p.shape) < p).to(p.dtype)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    monkeypatch.setattr(
        "pemlang.kernels.entries.Entries.draw", lambda e, index: e._builder.draw(e.xs[index], 7, 0)
    )


def theirs(model: nn.Module) -> Dense:
    """Δ of PEFT's merge at each module."""
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("merged")
        .detach()
        .double()
        .numpy()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def same(ours: Dense, wanted: Dense) -> None:
    assert ours.keys() == wanted.keys()
    for site, change in ours.items():
        size = np.linalg.norm(wanted[site])
        assert np.linalg.norm(change - wanted[site]) <= TOLERANCE * size


BY_FACTORS = {
    "linear": f"peft_linear({SAID})",
    "ties": f"ties({SAID}, density={DENSITY}, over=factors)",
    "magnitude_prune": f"magnitude_prune({SAID}, density={DENSITY}, over=factors)",
    "dare_linear": f"dare_linear({SAID}, density={DENSITY}, over=factors)",
    "dare_ties": f"dare_ties({SAID}, density={DENSITY}, over=factors)",
}
BY_DELTA = {
    "cat": f"linear({SAID}, normalize=false)",
    "svd": f"compress(linear({SAID}, normalize=false), rank=5)",
    "ties_svd": f"ties({SAID}, density={DENSITY}, rank=5)",
    "magnitude_prune_svd": f"magnitude_prune({SAID}, density={DENSITY}, rank=5)",
    "dare_linear_svd": f"dare_linear({SAID}, density={DENSITY}, rank=5)",
    "dare_ties_svd": f"dare_ties({SAID}, density={DENSITY}, rank=5)",
}


@pytest.mark.usefixtures("one_draw")
@pytest.mark.parametrize("sign", ["total", "frequency"])
@pytest.mark.parametrize("kind", [*BY_FACTORS, *BY_DELTA])
def test_a_combination_type_is_the_method_of_its_name(
    bert: nn.Module,
    trio: dict[str, Path],
    like: dict[str, Path],
    tmp_path: Path,
    kind: str,
    sign: str,
) -> None:
    adapters, ours = (like, BY_FACTORS[kind]) if kind in BY_FACTORS else (trio, BY_DELTA[kind])
    if sign == "frequency":
        if "ties" not in kind:
            pytest.skip("it elects no sign")
        ours = ours[:-1] + ", elect=frequency)"
    rank = {"svd_rank": 5} if kind.endswith("svd") else {}
    model = merged(
        bert,
        adapters,
        WEIGHTS,
        combination_type=kind,
        density=DENSITY,
        majority_sign_method=sign,
        **rank,
    )
    same(delta(composed(tmp_path, adapters, ours, "dtype=f32")), theirs(model))


class Layers(nn.Module):
    """An embedding, a convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.conv = nn.Conv2d(3, 6, 3)
        self.linear = nn.Linear(12, 8)

    def forward(self, ids: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.linear(self.embed(ids)).mean() + self.conv(image).mean()


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("ties", "ties([a, b], density=0.5, over=factors)"),
        ("ties_svd", "ties([a, b], density=0.5, rank=3)"),
        ("magnitude_prune_svd", "magnitude_prune([a, b], density=0.5, rank=3)"),
    ],
)
def test_embeddings_and_convolutions(tmp_path: Path, kind: str, call: str) -> None:
    torch.manual_seed(5)
    base = Layers()
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["embed", "conv", "linear"])
    pair = {n: peft_made.made(base, tmp_path / n, config, seed) for seed, n in enumerate("ab")}
    rank = {"svd_rank": 3} if kind.endswith("svd") else {}
    model = merged(base, pair, {"a": 1.0, "b": 1.0}, combination_type=kind, density=0.5, **rank)
    ours = peft_made.loaded(base, composed(tmp_path, pair, call, "dtype=f32"))
    wanted = theirs(model)
    for name, module in ours.named_modules():
        if isinstance(module, LoraLayer):
            site = name.removeprefix("base_model.model.")
            change = module.get_delta_weight("default").detach().double().numpy()
            size = np.linalg.norm(wanted[site])
            assert np.linalg.norm(change - wanted[site]) <= TOLERANCE * size
