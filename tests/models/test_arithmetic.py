"""Whole weights: points and vectors, held to the same arithmetic on float64 arrays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from support import build, codes
from support.calls import adapters_of
from support.models import DECLARED, away, weights_of

from pemlang.ops import DENSITY, FUNCTIONS, METHODS, SEED

CLOSE = 1e-6


def saved(folder: Path, expression: str, options: str = "") -> Path:
    """What an expression builds."""
    [built] = build(folder, f'{DECLARED}save {expression} to "out"{options}\n').outputs
    return built.path


def test_task_arithmetic(folder: Path) -> None:
    b, m, n = (weights_of(folder / name) for name in "bmn")
    out = saved(folder, "b + 0.5 * (m - b) - 0.25 * (n - b)")
    wanted = {k: b[k] + 0.5 * (m[k] - b[k]) - 0.25 * (n[k] - b[k]) for k in b}
    assert away(weights_of(out), wanted) < CLOSE


def settings_of(name: str, **given: object) -> dict[str, object]:
    """The settings of a method as its reference takes them."""
    usual = {
        param.name: param.default
        if isinstance(param.default, str)
        else float(Fraction(str(param.default)))
        for param in FUNCTIONS[name].signatures[0].params
        if isinstance(param.default, str | Fraction) and param.name not in ("over", "seed")
    }
    return {"weights": [1.0, 1.0], **usual, **given}


ONE_TENSOR = [n for n, x in METHODS.items() if not x.needs_factors and not x.statistics]
DRAWN = [n for n in ONE_TENSOR if SEED in FUNCTIONS[n].signatures[0].params]
GIVEN = {"slerp": {"t": 0.25}, "nuslerp": {"weights": [1, 3]}, "nearswap": {"t": 0.05}}


@pytest.mark.parametrize("name", [n for n in ONE_TENSOR if n not in DRAWN])
def test_every_method_on_one_tensor_merges_task_vectors(folder: Path, name: str) -> None:
    """By the reference of its record, tensor by tensor."""
    b, m, n = (weights_of(folder / name) for name in "bmn")
    params = FUNCTIONS[name].signatures[0].params
    given = GIVEN.get(name, {"density": 0.5} if DENSITY in params else {})
    text = "".join(f", {key}={value}" for key, value in given.items())
    operands = adapters_of(name, ["m - b", "n - b"])
    out = weights_of(saved(folder, f"b + {name}({operands}{text})"))
    reference = FUNCTIONS[name].reference
    assert reference is not None
    for key, base in b.items():
        xs = [np.atleast_1d(m[key] - base), np.atleast_1d(n[key] - base)]
        wanted = reference(xs, **settings_of(name, **given))
        assert np.abs(out[key] - base - np.reshape(wanted, base.shape)).max() < CLOSE, key


@pytest.mark.parametrize("name", DRAWN)
def test_every_method_that_draws_keeps_all_at_a_density_of_one(folder: Path, name: str) -> None:
    whole = weights_of(saved(folder, f"b + {name}([m - b, n - b], density=1)"))
    without = {
        "dare": "task_arithmetic([m - b, n - b])",
        "della": "task_arithmetic([m - b, n - b])",
    }
    kept = weights_of(saved(folder, f"b + {without.get(name, 'ties([m - b, n - b], density=1)')}"))
    assert away(whole, kept) < CLOSE


def test_a_draw_keeps_about_its_share_and_each_tensor_has_its_own(folder: Path) -> None:
    out, b = weights_of(saved(folder, "b + dare([m - b], density=0.3)")), weights_of(folder / "b")
    kept = {key: np.count_nonzero(np.abs(out[key] - b[key]) > 1e-7) / b[key].size for key in b}
    share = sum(kept[key] * b[key].size for key in b) / sum(x.size for x in b.values())
    assert 0.25 < share < 0.35
    names = ["model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"]
    masks = [np.abs(out[name] - b[name]) > 1e-7 for name in names]
    assert (masks[0] != masks[1]).any()


def test_models_are_points(folder: Path) -> None:
    m, n = weights_of(folder / "m"), weights_of(folder / "n")
    mean = weights_of(saved(folder, "mean([m, n])"))
    assert away(mean, {k: (m[k] + n[k]) / 2 for k in m}) < CLOSE
    linear = weights_of(saved(folder, "linear([m, n], weights=[1, 3])"))
    assert away(linear, {k: (m[k] + 3 * n[k]) / 4 for k in m}) < CLOSE
    lerp = weights_of(saved(folder, 'lerp(m, n, t=per { "*.layers.1.*": 0.25, else: 1 })'))
    by = {k: 0.25 if ".layers.1." in k else 1 for k in m}
    assert away(lerp, {k: (1 - by[k]) * m[k] + by[k] * n[k] for k in m}) < CLOSE
    slerp = weights_of(saved(folder, "slerp(m, n, t=0.3)"))
    reference = FUNCTIONS["slerp"].reference
    assert reference is not None
    wanted = {k: np.reshape(reference([m[k], n[k]], weights=[1, 1], t=0.3), m[k].shape) for k in m}
    assert away(slerp, wanted) < CLOSE
    assert codes(
        folder, f'{DECLARED}save linear([m, n], weights=[1, 3], normalize=false) to "o"'
    ) == ["PEM0303"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("b + (m - b)", "m"),
        ("b + (m - b) - (m - b)", "b"),
        ("(b + 0.5 * (m - b)) + 0.5 * (n - b)", "b + (0.5 * (m - b) + 0.5 * (n - b))"),
        ("b + ((b + 0.5 * (m - b)) - b)", "b + 0.5 * (m - b)"),
        ("mean([m])", "m"),
        ("lerp(m, n, t=1)", "n"),
        ("mean([m, n])", "lerp(m, n, t=0.5)"),
        ("b + 2 * (m - b) / 4", "b + 0.5 * (m - b)"),
    ],
)
def test_what_means_the_same_is_the_same(folder: Path, one: str, other: str) -> None:
    hashes = []
    for expression in (one, other):
        [built] = build(folder, f'{DECLARED}save {expression} to "out"\n').outputs
        hashes.append(built.semantic_hash)
    assert hashes[0] == hashes[1]


def test_a_selection_leaves_the_rest_as_it_is(folder: Path) -> None:
    b, m = weights_of(folder / "b"), weights_of(folder / "m")
    out = weights_of(saved(folder, 'b + (m - b)["*_proj.weight"][layers 1..1]'))
    changed = {k for k in b if (out[k] != b[k]).any()}
    assert changed == {k for k in b if ".1." in k and k.endswith("_proj.weight")}
    assert all(np.abs(out[k] - m[k]).max() < CLOSE for k in changed)
