"""The decomposition of what models differ in: as good as an exact one in float64, whatever the
singular values are like."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pemlang.kernels import PRECISE, truncated_svd

Dense = NDArray[np.floating]
K = 24


def matrix(kind: str, shape: tuple[int, int]) -> Dense:
    rng = np.random.default_rng(1)
    least = min(shape)
    u, v = (np.linalg.qr(rng.standard_normal((n, least)))[0] for n in shape)
    few = rng.standard_normal((shape[0], 8)) @ rng.standard_normal((8, shape[1]))
    sizes = {
        "slow": np.arange(1.0, least + 1) ** -0.3,
        "fast": np.arange(1.0, least + 1) ** -2,
        "steps": np.repeat([8.0, 4, 2, 1, 0.5], -(-least // 5))[:least],
        "equal": np.ones(least),
    }
    noise = rng.standard_normal(shape)
    whole = {
        "noise": noise,
        "a few that stand out": few + noise,
        "a few that stand out far": 1e4 * few + noise,
        "small numbers": 1e-9 * noise,
        "numbers of any size": noise * np.exp(6 * rng.standard_normal(shape)),
        "rows of zeros": noise * (rng.random((shape[0], 1)) < 0.1),
    }
    return np.asarray((u * sizes[kind]) @ v.T if kind in sizes else whole[kind], dtype="f4")


@pytest.mark.parametrize("shape", [(540, 600), (300, 210)])
@pytest.mark.parametrize(
    "kind",
    [
        "noise",
        "a few that stand out",
        "a few that stand out far",
        "small numbers",
        "numbers of any size",
        "rows of zeros",
        "slow",
        "fast",
        "steps",
        "equal",
    ],
)
def test_the_residual_is_the_least_possible(kind: str, shape: tuple[int, int]) -> None:
    x = matrix(kind, shape)
    wide = x.astype("f8")
    u, values, vt = truncated_svd(x, K, float(np.sum(wide**2)))
    best = np.linalg.svd(wide, compute_uv=False)
    least = np.linalg.norm(best[K:])
    lost = np.linalg.norm(wide - (u * values) @ vt.astype("f8"))
    rounding = 2e-6 * best[0]  # of factors in float32
    assert lost <= np.hypot(least * (1 + 2 * PRECISE), rounding)
    assert np.allclose(values, best[:K], rtol=1e-3, atol=1e-6 * best[0])
    assert np.allclose(vt @ vt.T, np.eye(K), atol=1e-4)


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e18])
def test_no_size_of_numbers_is_lost(size: float) -> None:
    """Their squares have no room in float32."""
    x = matrix("slow", (300, 210))
    u, values, vt = truncated_svd(x, K, float(np.sum(x.astype("f8") ** 2)))
    scaled = (x.astype("f8") * size).astype("f4")
    with np.errstate(over="ignore"):
        left, sizes, right = truncated_svd(scaled, K, float(np.sum(scaled.astype("f8") ** 2)))
    assert np.allclose(sizes / size, values, rtol=1e-4)
    ours, wanted = (left * sizes) @ right / size, (u * values) @ vt
    assert np.linalg.norm(ours - wanted) <= 0.02 * np.linalg.norm(wanted)
