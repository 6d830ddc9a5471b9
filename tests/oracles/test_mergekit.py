"""mergekit's own merge functions on the same tensors: the Δ of some adapters, as weights over a
base of zeros. Random masks are one draw on both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mergekit.common import ImmutableMap
from mergekit.merge_methods.generalized_task_arithmetic import (
    ConsensusMethod,
    GeneralizedTaskArithmeticMerge,
    GTATask,
)
from mergekit.merge_methods.karcher import karcher_merge_tensors
from mergekit.merge_methods.linear import LinearMergeTask
from mergekit.merge_methods.model_stock import ModelStockMergeTask
from mergekit.merge_methods.multislerp import multislerp
from mergekit.merge_methods.nearswap import nearswap_merge
from mergekit.merge_methods.nuslerp import nuslerp
from mergekit.merge_methods.sce import sce_merge
from mergekit.merge_methods.slerp import slerp
from mergekit.sparsify import RescaleNorm, SparsificationMethod
from numpy.typing import NDArray
from support import build, delta, lora

from pemlang.kernels import drawn

pytestmark = pytest.mark.filterwarnings("ignore::pemlang.PemWarning")

TOLERANCE = 1e-5
SITES = {"layers.0.q": (12, 20), "layers.1.q": (8, 24)}
WEIGHTS = [1.0, 0.7, 0.4]
SAID = "[a, b, c], weights=[1, 0.7, 0.4]"
DENSITIES = [0.7, 0.5, 0.3]

Tensors = list[torch.Tensor]


def draws(count: int) -> NDArray[np.uint32]:
    return drawn((7, 0), 0, count)


@pytest.fixture(autouse=True)
def one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """What mergekit draws, and what is drawn here, depend on the size of a tensor alone."""

    def bernoulli(p: torch.Tensor) -> torch.Tensor:
        numbers = torch.from_numpy(draws(p.numel()).astype(np.float64) / 2**32)
        return (numbers.reshape(p.shape) < p.double()).to(p.dtype)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    monkeypatch.setattr(
        "pemlang.kernels.entries.Entries.draw", lambda e, index: e._builder.draw(e.xs[index], 7, 0)
    )


def gta(
    tensors: Tensors,
    sparse: str | None,
    consensus: str | None,
    normalize: bool,
    rescale: bool,
    **params: float | list[float],
) -> torch.Tensor:
    """mergekit's task arithmetic with a way to sparsify and a way to agree; a list has a value for
    each model."""
    method = GeneralizedTaskArithmeticMerge(
        consensus_method=consensus and ConsensusMethod(consensus),
        sparsification_method=sparse and SparsificationMethod(sparse),
        default_normalize=normalize,
        default_rescale=rescale,
        method_name="x",
        method_pretty_name=None,
        method_reference_url=None,
    )
    each = {}
    for i, weight in enumerate(WEIGHTS):
        own = {key: value[i] if isinstance(value, list) else value for key, value in params.items()}
        each[f"m{i}"] = ImmutableMap({"weight": weight, **own})
    task = GTATask.model_construct(
        method=method,
        tensors=None,
        base_model="base",
        tensor_parameters=ImmutableMap(each),
        int8_mask=False,
        normalize=normalize,
        lambda_=0.5,
        rescale_norm=RescaleNorm.l1 if rescale else None,
        weight_info=SimpleNamespace(name="w", is_embed=False),
    )
    named = {"base": torch.zeros_like(tensors[0])}
    named |= {f"m{i}": tensor.clone() for i, tensor in enumerate(tensors)}
    merged: torch.Tensor = task.execute(named)
    return merged


def linear(tensors: Tensors) -> torch.Tensor:
    names = [f"m{i}" for i in range(len(tensors))]
    task = LinearMergeTask.model_construct(
        gather_tensors=None,
        tensor_parameters=ImmutableMap(
            {n: ImmutableMap({"weight": w}) for n, w in zip(names, WEIGHTS, strict=True)}
        ),
        normalize=True,
        weight_info=SimpleNamespace(name="w", is_embed=False),
    )
    merged: torch.Tensor = task.execute(dict(zip(names, tensors, strict=True)))
    return merged


def model_stock(tensors: Tensors) -> torch.Tensor:
    task = ModelStockMergeTask.model_construct(
        gather_tensors=None,
        base_model="base",
        weight_info=SimpleNamespace(name="w", is_embed=False, optional=False),
        filter_wise=False,
    )
    named = {"base": torch.zeros_like(tensors[0])}
    named |= {f"m{i}": tensor for i, tensor in enumerate(tensors)}
    merged: torch.Tensor = task.execute(named)
    return merged


def each(method: str, *settings: str) -> str:
    """What SAID says, of adapters that a method makes sparse by a density of their own."""
    more = "".join(f", {setting}" for setting in settings)
    sparse = (f"{method}([{x}], density={d}{more})" for x, d in zip("abc", DENSITIES, strict=True))
    return SAID.replace("a, b, c", ", ".join(sparse))


CASES: dict[str, tuple[str, Callable[[Tensors], Any]]] = {
    "linear": (f"linear({SAID})", linear),
    "slerp": ("slerp(a, b, t=0.3)", lambda t: slerp(0.3, t[0], t[1])),
    "nuslerp": (
        "nuslerp(a, b, weights=[1, 0.7])",
        lambda t: nuslerp(0.7 / 1.7, t[0], t[1], flatten=True),
    ),
    "multislerp": (f"multislerp({SAID})", lambda t: multislerp(t, WEIGHTS)),
    "karcher": (
        "karcher([a, b, c])",
        lambda t: karcher_merge_tensors(t, [1 / 3] * 3),
    ),
    "karcher, 3 rounds": (
        "karcher([a, b, c], rounds=3)",
        lambda t: karcher_merge_tensors(t, [1 / 3] * 3, max_iter=3),
    ),
    "task_arithmetic": (
        f"task_arithmetic({SAID}, scale=0.5)",
        lambda t: gta(t, None, None, False, False),
    ),
    "ties": (
        f"ties({SAID}, density=0.4, normalize=weights, scale=0.5)",
        lambda t: gta(t, "magnitude", "sum", True, False, density=0.4),
    ),
    "ties, count": (
        f"ties({SAID}, density=0.4, elect=frequency, normalize=weights, scale=0.5)",
        lambda t: gta(t, "magnitude", "count", True, False, density=0.4),
    ),
    "ties, a density each": (
        f"ties({each('magnitude_prune')}, density=1, normalize=weights, scale=0.5)",
        lambda t: gta(t, "magnitude", "sum", True, False, density=DENSITIES),
    ),
    "dare_ties, a density each": (
        f"ties({each('dare', 'rescale=l1')}, density=1, normalize=off, scale=0.5)",
        lambda t: gta(t, "random", "sum", False, True, density=DENSITIES),
    ),
    "breadcrumbs, a density each": (
        f"task_arithmetic({each('breadcrumbs', 'gamma=0.1')}, scale=0.5)",
        lambda t: gta(t, "magnitude_outliers", None, False, False, density=DENSITIES, gamma=0.1),
    ),
    "dare_linear": (
        f"dare_linear({SAID}, density=0.5, rescale=l1, scale=0.5)",
        lambda t: gta(t, "random", None, False, True, density=0.5),
    ),
    "dare_ties": (
        f"dare_ties({SAID}, density=0.5, rescale=l1, normalize=off, scale=0.5)",
        lambda t: gta(t, "random", "sum", False, True, density=0.5),
    ),
    "della_linear": (
        f"della_linear({SAID}, density=0.5, epsilon=0.2, rescale=l1, scale=0.5)",
        lambda t: gta(t, "della_magprune", None, False, True, density=0.5, epsilon=0.2),
    ),
    "della": (
        f"della_ties({SAID}, density=0.5, epsilon=0.2, rescale=l1, normalize=weights, scale=0.5)",
        lambda t: gta(t, "della_magprune", "sum", True, True, density=0.5, epsilon=0.2),
    ),
    "breadcrumbs": (
        f"breadcrumbs({SAID}, density=0.6, gamma=0.1, scale=0.5)",
        lambda t: gta(t, "magnitude_outliers", None, False, False, density=0.6, gamma=0.1),
    ),
    "breadcrumbs_ties": (
        f"breadcrumbs_ties({SAID}, density=0.6, gamma=0.1, normalize=off, scale=0.5)",
        lambda t: gta(t, "magnitude_outliers", "sum", False, False, density=0.6, gamma=0.1),
    ),
    "model_stock": ("model_stock([a, b, c])", model_stock),
    "sce": (
        "sce([a, b, c], density=0.4)",
        lambda t: sce_merge(t, torch.zeros_like(t[0]), select_topk=0.4),
    ),
    "sce, all": ("sce([a, b, c])", lambda t: sce_merge(t, torch.zeros_like(t[0]))),
    "nearswap": ("nearswap(a, b, t=2)", lambda t: nearswap_merge([t[1]], t[0], 2.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_method_is_mergekit_s(tmp_path: Path, name: str) -> None:
    expression, theirs = CASES[name]
    for seed, at in enumerate("abc"):
        lora(tmp_path / at, seed, SITES, rank=2 + seed)
    head = "".join(f'adapter {at} = "{at}"\n' for at in "abc")
    [built] = build(
        tmp_path, f'{head}save {expression} to "out" with rank=full, dtype=f32\n'
    ).outputs
    dense = [delta(tmp_path / at) for at in "abc"]
    for site, ours in delta(built.path).items():
        tensors = [torch.from_numpy(x[site]).float() for x in dense]
        wanted = theirs(tensors).double().numpy()
        assert np.linalg.norm(ours - wanted) <= TOLERANCE * np.linalg.norm(wanted)
