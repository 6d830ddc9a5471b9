"""mergekit's own merge functions on the same tensors: the Δ of some adapters, as weights over a
base of zeros. Random masks are one draw on both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mergekit.merge_methods.base import MergeMethod, TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import (
    ConsensusMethod,
    GeneralizedTaskArithmeticMerge,
)
from mergekit.merge_methods.registry import get
from mergekit.sparsify import SparsificationMethod
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


def run(method: MergeMethod, tensors: Tensors, base: bool, **params: Any) -> torch.Tensor:
    """What mergekit makes of some tensors, over a base of zeros or with none."""
    every = [torch.zeros_like(tensors[0])] * base + tensors
    group = TensorGroup.from_tensors([x.clone() for x in every], base_index=0 if base else None)
    [merged] = method([group], parameters=params)
    return merged


def named(name: str, base: bool = True, count: int = 3, **params: Any) -> Callable[[Tensors], Any]:
    """One of its methods, on some of the tensors."""
    return lambda tensors: run(get(name), tensors[:count], base, **params)


def between(name: str, wide: bool = False, **params: Any) -> Callable[[Tensors], Any]:
    """One of its methods from the first tensor, its base, to the second; where `wide`, in float64,
    so that no rounding decides what it selects."""

    def merged(tensors: Tensors) -> torch.Tensor:
        group = TensorGroup.from_tensors(
            [x.double() if wide else x for x in tensors[:2]], base_index=0
        )
        [result] = get(name)([group], parameters=params)
        return result

    return merged


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
    return run(method, tensors, True, weight=WEIGHTS, **{"lambda": 0.5}, **params)


def each(method: str, *settings: str) -> str:
    """What SAID says, of adapters that a method makes sparse by a density of their own."""
    more = "".join(f", {setting}" for setting in settings)
    sparse = (f"{method}([{x}], density={d}{more})" for x, d in zip("abc", DENSITIES, strict=True))
    return SAID.replace("a, b, c", ", ".join(sparse))


CASES: dict[str, tuple[str, Callable[[Tensors], Any]]] = {
    "linear": (f"linear({SAID})", named("linear", False, weight=WEIGHTS)),
    "slerp": ("slerp(a, b, t=0.3)", between("slerp", t=0.3)),
    "nuslerp": (
        "nuslerp(a, b, weights=[1, 0.7])",
        named("nuslerp", False, 2, weight=[1, 0.7]),
    ),
    "nuslerp, rows": (
        "nuslerp(a, b, weights=[1, 0.7], along=rows)",
        named("nuslerp", False, 2, weight=[1, 0.7], nuslerp_flatten=False),
    ),
    "nuslerp, columns": (
        "nuslerp(a, b, weights=[1, 0.7], along=columns)",
        named("nuslerp", True, 2, weight=[1, 0.7], nuslerp_flatten=False, nuslerp_row_wise=True),
    ),
    "multislerp": (f"multislerp({SAID})", named("multislerp", False, weight=WEIGHTS)),
    "karcher": ("karcher([a, b, c])", named("karcher", False)),
    "karcher, 3 rounds": ("karcher([a, b, c], rounds=3)", named("karcher", False, max_iter=3)),
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
    "model_stock": ("model_stock([a, b, c])", named("model_stock")),
    "model_stock, rows": (
        "model_stock([a, b, c], along=rows)",
        named("model_stock", filter_wise=True),
    ),
    "ram": ("ram([a, b, c], threshold=0.7)", named("ram", epsilon=0.7)),
    "ram, as it is": ("ram([a, b, c])", named("ram")),
    "ramplus_tl": (
        "ramplus_tl([a, b, c], r=0.5, alpha=3, threshold=0.9)",
        named("ramplus_tl", r=0.5, alpha=3.0, epsilon=0.9),
    ),
    "ramplus_tl, as it is": ("ramplus_tl([a, b, c])", named("ramplus_tl")),
    "arcee_fusion": ("arcee_fusion(a, b)", between("arcee_fusion", wide=True)),
    "sce": ("sce([a, b, c], density=0.4)", named("sce", select_topk=0.4)),
    "sce, all": ("sce([a, b, c])", named("sce")),
    "nearswap": ("nearswap(a, b, t=2)", between("nearswap", t=2.0)),
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
