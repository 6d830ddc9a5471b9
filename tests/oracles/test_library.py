"""The functions of the standard library, but for std.paper, against NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support import build, codes, lora
from support.adapters import Dense, delta
from support.peft_made import declared

Formula = Callable[[Dense, Dense, Dense], Dense]


def combined(*terms: tuple[float, Dense]) -> Dense:
    return {site: sum(c * x[site] for c, x in terms) for site in terms[0][1]}  # type: ignore[misc]


def inner(x: Dense, y: Dense) -> float:
    return float(sum(np.sum(x[site] * y[site]) for site in x))


def norm(x: Dense) -> float:
    return float(np.sqrt(inner(x, x)))


def loudness_gone(a: Dense, b: Dense, c: Dense) -> Dense:
    shares = [1 / norm(x) for x in (a, b, c)]
    return combined(*((share / sum(shares), x) for share, x in zip(shares, (a, b, c), strict=True)))


def beside(x: Dense, *keep: Dense) -> Dense:
    """What is left of x by least squares on all of Δ."""
    columns = np.stack([np.concatenate([y[site].ravel() for site in x]) for y in keep], axis=1)
    numbers, *_ = np.linalg.lstsq(columns, np.concatenate([x[site].ravel() for site in x]))
    return combined((1, x), *((-number, y) for number, y in zip(numbers, keep, strict=True)))


def by_layer(x: Dense, numbers: tuple[float, float]) -> Dense:
    return {site: numbers[int("layer.1." in site)] * part for site, part in x.items()}


def own_rows_taken(x: Dense, y: Dense) -> Dense:
    """Hu et al.: of each row of y, what is not along the bisector of the two rows."""
    taken = {}
    for site in x:
        rows = []
        for v, w in zip(x[site], y[site], strict=True):
            common = v / np.linalg.norm(v) + w / np.linalg.norm(w)
            common /= np.linalg.norm(common)
            rows.append(v - 0.5 * (w - (w @ common) * common))
        taken[site] = np.array(rows)
    return taken


ADAPTERS: dict[str, Formula] = {
    "soups.uniform([a, b, c])": lambda a, b, c: combined((1 / 3, a), (1 / 3, b), (1 / 3, c)),
    "soups.by_weights([a, b], [3, 1])": lambda a, b, c: combined((0.75, a), (0.25, b)),
    "soups.by_inverse_norm([a, b, c])": loudness_gone,
    "schedules.lines(0.4, 0.6) * a": lambda a, b, c: by_layer(a, (0.4, 1.0)),
    "schedules.lines_to_one() * a": lambda a, b, c: by_layer(a, (0.1, 1.0)),
    "soups.by_depth([a, b, c])": lambda a, b, c: by_layer(
        combined((1, a), (1, b), (1, c)), (1 / 3, 1.0)
    ),
    "soups.by_depth([a, b], 0.8)": lambda a, b, c: by_layer(combined((1, a), (1, b)), (0.5, 0.8)),
    "schedules.tent(0.3, 1) * a": lambda a, b, c: by_layer(a, (0.3, 0.3)),
    "unlearn.negation(a, b, by=0.6)": lambda a, b, c: combined((1, a), (-0.6, b)),
    "unlearn.beside(a, [b])": lambda a, b, c: beside(a, b),
    "unlearn.beside(a, [b, c])": beside,
    "unlearn.beside(a - b, [b + 3 * c, c])": lambda a, b, c: beside(
        combined((1, a), (-1, b)), b, c
    ),
    "unlearn.negation_beside(a, b, [c], 0.5)": lambda a, b, c: combined(
        (1, a), (-0.5, beside(b, c))
    ),
    "unlearn.negation_beside(a, b, [c, a])": lambda a, b, c: combined(
        (1, a), (-1, beside(b, a, c))
    ),
    "unlearn.extracted(a, b, 0.5)": lambda a, b, c: own_rows_taken(a, b),
    "unlearn.detoxify(a, b, by=0.3)": lambda a, b, c: combined((1.3, a), (-0.3, b)),
}


@pytest.fixture
def loras(tmp_path: Path) -> dict[str, Path]:
    return {name: lora(tmp_path / name, seed, rank=seed + 2) for seed, name in enumerate("abc")}


def importing(call: str, loras: dict[str, Path]) -> str:
    module = call.partition(".")[0]
    return f"{declared(loras)}import std.{module} as {module}\n"


@pytest.mark.parametrize("call", ADAPTERS)
def test_adapters(call: str, loras: dict[str, Path], tmp_path: Path) -> None:
    [output] = build(tmp_path, importing(call, loras) + f'save {call} to "out"').outputs
    wanted = ADAPTERS[call](*map(delta, loras.values()))
    for site, ours in delta(output.path).items():
        assert np.allclose(ours, wanted[site], rtol=0, atol=2e-5 * norm(wanted))


@pytest.mark.parametrize("count", [3, 4])
def test_beside_many(count: int, tmp_path: Path) -> None:
    """Adapters that are much alike: they go by what they have of their own."""
    loras = {f"k{seed}": lora(tmp_path / f"k{seed}", seed) for seed in range(count)}
    loras |= {"x": lora(tmp_path / "x", 9, rank=2)}
    near = ["k0", *(f"k0 + 0.1 * k{n}" for n in range(1, count))]
    call = f"unlearn.beside(x + k0 + k1, [{', '.join(near)}])"
    [output] = build(tmp_path, importing(call, loras) + f'save {call} to "out"').outputs
    *keep, x = map(delta, loras.values())
    wanted = beside(x, *keep)
    for site, ours in delta(output.path).items():
        assert np.allclose(ours, wanted[site], rtol=0, atol=1e-4 * norm(wanted))


@pytest.mark.parametrize("keep", ["[a, b, 2 * a - b]", "[a, a]", "[a, a + 0.0005 * b]"])
def test_beside_what_is_nothing_of_its_own(
    keep: str, loras: dict[str, Path], tmp_path: Path
) -> None:
    """Rounding alone would say along what to project."""
    text = importing("unlearn.", loras) + f'save unlearn.beside(c, {keep}) to "out"\n'
    with pytest.raises(Exception, match=r"`apart` lies outside 0\.001\.\.2|PEM0504"):
        build(tmp_path, text)
    assert not (tmp_path / "out").exists()


TRUTHS: dict[str, Callable[[Dense, Dense], float]] = {
    "review.not_alike(a, b, {})": lambda a, b: inner(a, b) / norm(a) / norm(b),
    "review.norm_within(a, 0, {})": lambda a, b: norm(a),
    "review.balanced(a, b, {})": lambda a, b: max(norm(a) / norm(b), norm(b) / norm(a)),
    "review.near(a, b, {})": lambda a, b: norm(combined((1, a), (-1, b))) / norm(b),
}
"""With a threshold each, and the number that it is held against: true above it."""


@pytest.mark.parametrize("call", TRUTHS)
def test_thresholds(call: str, loras: dict[str, Path], tmp_path: Path) -> None:
    number = TRUTHS[call](*[delta(loras[name]) for name in "ab"])
    head = importing(call, loras) + 'save a to "out"\n'
    build(tmp_path, f"{head}assert {call.format(f'{number + 0.001:.5f}')}")
    with pytest.raises(Exception, match="PEM0501"):
        build(tmp_path, f"{head}assert {call.format(f'{number - 0.001:.5f}')}")


def test_a_rank_is_enough_from_its_share_on(loras: dict[str, Path], tmp_path: Path) -> None:
    spectra = [np.linalg.svd(x, compute_uv=False) ** 2 for x in delta(loras["c"]).values()]
    share = sum(s[0] for s in spectra) / sum(s.sum() for s in spectra)
    head = importing("review.", loras) + 'save a to "out"\n'
    build(tmp_path, f"{head}assert review.rank_enough(c, 1, {share - 1e-4:.5f})")
    with pytest.raises(Exception, match="PEM0501"):
        build(tmp_path, f"{head}assert review.rank_enough(c, 1, {share + 1e-4:.5f})")


def test_parts_of_what_is_no_u_net(loras: dict[str, Path], tmp_path: Path) -> None:
    text = importing("schedules.", loras) + 'save schedules.unet(1, 1, 1) * a to "out"'
    assert codes(tmp_path, text) == ["PEM0320"]
