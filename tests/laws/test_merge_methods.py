"""Merge methods against the float64 references of their records, on drawn adapters; and what holds
of all of them: permutations, scaling, an adapter with itself, density 1, zero, dtypes, shapes."""

from __future__ import annotations

import warnings
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from numpy.typing import NDArray
from safetensors.torch import save_file
from support import build, delta, gains, ia3, lora, tensors_of
from support.calls import adapters_of
from support.laws.pool import LAWS, Pool, declared
from support.laws.reference import Reference

from pemlang import PemWarning
from pemlang.kernels import MergeKernel, drawn
from pemlang.ops import FUNCTIONS, METHODS, Operator, every_operator

EVERY = [op for op in every_operator() if op.name in METHODS]
# Those that go by statistics are held to all this in tests/oracles/test_statistics.py.
PLAIN = [op for op in EVERY if METHODS[op.name].statistics is None]
REFERRED = [op for op in PLAIN if op.reference is not None]
DRAWN = {op.name for op in PLAIN if any(p.name == "seed" for p in op.signatures[0].params)}
ELEMENTWISE = [op for op in PLAIN if any(p.name == "over" for p in op.signatures[0].params)]
WORLDS = [
    (op, lora)
    for op in PLAIN
    for lora in (True, False)
    if lora or not (METHODS[op.name].needs_factors or METHODS[op.name].needs_matrices)
]
IDS = [f"{op.name}{'' if lora else ' (IA3)'}" for op, lora in WORLDS]

pytestmark = pytest.mark.filterwarnings("ignore::pemlang.diagnostics.PemWarning")

VALUES = {
    "density": ["0.3", "0.5", "1"],
    "gamma": ["0", "0.05", "0.2"],
    "epsilon": ["0.1"],
    "scale": ["1", "0.5", "-2"],
    "elect": ["total", "frequency"],
    "normalize": ["count", "weights", "off"],
    "t": ["0.25", "0.5", "0.75"],
    "by": ["0", "0.5", "1"],
    "rounds": ["10", "50"],
    "tolerance": ["1e-5"],
    "common": ["0.5", "0.8", "1"],
    "units": ["2", "3"],
    "seed": ["0", "7"],
    "rescale": ["density", "l1", "off"],
    "along": ["tensor", "rows", "columns"],
    "threshold": ["1e-5", "0.5", "0"],
    "r": ["0.1", "2"],
    "alpha": ["0.2", "5"],
    "ridge": ["0.01", "1"],
}
CHOICES = {"model_stock": {"along": ["tensor", "rows"]}}
NOT_BY_SIZE = {"lora_lego", "arcee_fusion"}
"""Clusters of A and s·B, and softmaxes of rows, do not scale as Δ does."""
WEIGHTS = ["1", "0.5", "2", "0.25"]


def params_of(op: Operator) -> list[str]:
    return [p.name for p in op.signatures[0].params if p.name not in ("xs", "x", "y")]


def many(op: Operator) -> bool:
    return any(p.name == "xs" for p in op.signatures[0].params)


def called(op: Operator, names: list[str], given_: dict[str, Any]) -> str:
    """The call of a method as a recipe writes it."""
    args = [adapters_of(op.name, names)]
    args += [
        f"{k}=[{', '.join(v)}]" if isinstance(v, list) else f"{k}={v}" for k, v in given_.items()
    ]
    return f"{op.name}({', '.join(args)})"


def least(op: Operator, count: int = 2, density: str = "0.5") -> dict[str, Any]:
    """A value for each parameter that has to be given."""
    values = {p: VALUES[p][0] for p in params_of(op) if p in ("t", "units")}
    if "density" in params_of(op):
        values["density"] = density
    if op.name == "nuslerp":
        values["weights"] = ["1"] * count
    return values


# --- the references of the records ---------------------------------------------------------


@pytest.mark.parametrize("op", REFERRED, ids=lambda op: op.name)
@settings(LAWS, max_examples=12)
@given(st.data())
def test_a_method_is_its_reference(
    pool: Pool, dense: Reference, op: Operator, data: DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pemlang.ops.lowrank.drawn", lambda key, first, count: drawn((7, 0), 0, count)
        )
        draw = "pemlang.kernels.entries.Entries.draw"
        patch.setattr(draw, lambda e, index: e._builder.draw(e.xs[index], 7, 0))
        held_to_its_reference(pool, dense, op, data)


def held_to_its_reference(pool: Pool, dense: Reference, op: Operator, data: DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abdpr"), min_size=2, max_size=3, unique=True))
    names = names if many(op) else names[:2]
    chosen: dict[str, Any] = {}
    for name in params_of(op):
        if name == "weights":
            chosen[name] = [data.draw(st.sampled_from(WEIGHTS)) for _ in names]
        elif name not in ("over", "rank"):
            values_of = {**VALUES, **CHOICES.get(op.name, {})}
            chosen[name] = data.draw(st.sampled_from(values_of[name]))
    path, _ = pool.built(
        declared(names) + f'save {called(op, names, chosen)} to "out" with rank=full, dtype=f64\n'
    )
    values = {k: as_number(v) for k, v in chosen.items()}
    values.setdefault("weights", [1.0] * len(names))
    for site, merged in delta(path).items():
        if op.acts_on == "factors":
            pairs = [dense.pair_of(name)[site] for name in names]
            xs = [(p.a.value, p.scale * p.b.value) for p in pairs]
        else:
            xs = [dense.dense_of(name)[site].value for name in names]
        if op.name in DRAWN:
            draws = drawn((7, 0), 0, merged.size).reshape(merged.shape) / 2**32
            values["draws"] = [draws] * len(names)
        assert op.reference is not None
        if op.name == "lora_lego":  # its first cluster depends on the canonical order
            values["draw"] = int(drawn((7, 0), 0, 8)[0])
            orders = [op.reference(list(order), **values) for order in permutations(xs)]
            assert any(np.allclose(merged, wanted, rtol=1e-5, atol=2e-5) for wanted in orders)
            continue
        wanted = op.reference(xs, **values)
        assert np.allclose(merged, wanted, rtol=1e-5, atol=2e-5 * max(1, np.abs(wanted).max()))


def as_number(value: Any) -> Any:
    """What a recipe writes as numbers; words stay."""
    if isinstance(value, list):
        return [float(x) for x in value]
    return float(value) if value[0] in "-0123456789" else value


@pytest.mark.parametrize(
    "op", [op for op in ELEMENTWISE if op.name not in DRAWN], ids=lambda op: op.name
)
def test_over_factors_a_method_is_its_reference_on_a_and_on_b(tmp_path: Path, op: Operator) -> None:
    """With PEFT's weights: √|w| on both, and the sign of w on A."""
    weighted = "weights" in params_of(op)
    chosen = {**least(op), **({"weights": ["2", "-0.5"]} if weighted else {}), "over": "factors"}
    got = factors(pair(tmp_path, op, chosen))
    a, b = (factors(tmp_path / name) for name in "ab")
    values = {p.name: as_number(p.default if isinstance(p.default, str) else str(float(p.default)))
             for p in op.signatures[0].params if p.default not in (..., None)}  # fmt: skip
    values |= {k: as_number(v) for k, v in chosen.items()}
    for site, new in got.items():
        for index, sign in enumerate((-1.0, 1.0)):
            xs = [x[site][index] for x in (a, b)]
            values["weights"] = [2**0.5, sign * 0.5**0.5]
            assert op.reference is not None
            wanted = op.reference(xs, **values)
            assert np.allclose(new[index], wanted, atol=1e-5)


def pair(folder: Path, op: Operator, settings: dict[str, Any], lora_too: bool = True) -> Path:
    """Two adapters merged by a method."""
    for seed, name in enumerate("ab"):
        if not (folder / name).exists():
            (lora if lora_too else ia3)(folder / name, seed)
    call = called(op, ["a", "b"], settings)
    text = f'{declared("ab")}save {call} to "out" with rank=full, dtype=f32\n'
    [path] = quiet(folder, text)
    return path


def quiet(folder: Path, text: str) -> list[Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PemWarning)
        return [output.path for output in build(folder, text).outputs]


def factors(path: Path) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    tensors = {k: v.double().numpy() for k, v in tensors_of(path).items()}
    return {
        k.removesuffix(".lora_A.weight"): (v, tensors[k.replace("lora_A", "lora_B")])
        for k, v in tensors.items()
        if k.endswith("lora_A.weight")
    }


# --- what holds of all of them -------------------------------------------------------------


def changes(path: Path) -> dict[str, NDArray[np.float64]]:
    vectors = gains(path)
    return {site: gain - 1 for site, gain in vectors.items()} if vectors else delta(path)


def both(folder: Path, lora_too: bool, *texts: str) -> list[dict[str, NDArray[np.float64]]]:
    """What several expressions over a, b and c do."""
    for seed, name in enumerate("abc"):
        (lora if lora_too else ia3)(folder / name, seed)
    saves = "".join(
        f'save {x} to "out{i}" with rank=full, dtype=f32\n' for i, x in enumerate(texts)
    )
    return [changes(path) for path in quiet(folder, declared("abc") + saves)]


def close(got: Any, wanted: Any, tolerance: float = 2e-5) -> None:
    assert got.keys() == wanted.keys()
    for site in got:
        size = max(1.0, float(np.abs(wanted[site]).max()))
        assert np.abs(got[site] - wanted[site]).max() <= tolerance * size


@pytest.mark.parametrize(("op", "lora_too"), WORLDS, ids=IDS)
def test_the_order_of_adapters_is_no_matter(tmp_path: Path, op: Operator, lora_too: bool) -> None:
    if METHODS[op.name].ordered:
        pytest.skip("its adapters have different parts")
    chosen = least(op, 3)
    first, second = both(
        tmp_path, lora_too, called(op, ["a", "b", "c"], chosen), called(op, ["c", "a", "b"], chosen)
    )
    assert all((first[site] == second[site]).all() for site in first)


@pytest.mark.parametrize(("op", "lora_too"), WORLDS, ids=IDS)
def test_scaled_adapters_give_a_scaled_merge(tmp_path: Path, op: Operator, lora_too: bool) -> None:
    chosen = least(op)
    more = {**chosen, "t": "0.5"} if op.name == "nearswap" else chosen
    twice, once = both(
        tmp_path, lora_too, called(op, ["2 * a", "2 * b"], more), called(op, ["a", "b"], chosen)
    )
    if op.name not in NOT_BY_SIZE:
        close(twice, {site: 2 * x for site, x in once.items()}, 1e-4)


@pytest.mark.parametrize("op", PLAIN, ids=lambda op: op.name)
def test_small_adapters_are_merged_as_large_ones(tmp_path: Path, op: Operator) -> None:
    """No size counts as zero: a site that an adapter changes little is merged by the same rule."""
    if op.name in NOT_BY_SIZE:
        pytest.skip("what it goes by does not scale as Δ does")
    chosen, by = least(op), "1e-6"
    more = {**chosen, "t": "0.25e-6"} if op.name == "nearswap" else chosen
    if "threshold" in params_of(op):
        more = {**chosen, "threshold": "1e-11"}
    small, large = both(
        tmp_path,
        True,
        called(op, [f"{by} * a", f"{by} * b"], more),
        called(op, ["a", "b"], chosen),
    )
    close({site: 1e6 * x for site, x in small.items()}, large, 1e-4)


@pytest.mark.parametrize(("op", "lora_too"), WORLDS, ids=IDS)
def test_an_adapter_merged_with_itself(tmp_path: Path, op: Operator, lora_too: bool) -> None:
    """The direction stays; methods that take a mean keep the length too."""
    chosen = least(op, density="1")
    if op.name == "lora_lego":
        chosen["units"] = "4"
    merged, x = both(tmp_path, lora_too, called(op, ["a", "a"], chosen), "a")
    if op.name in ("iso_c", "iso_cts"):
        return  # the singular values change: laws of their own
    sums = op.name in ("magnitude_prune", "dare", "della", "breadcrumbs")
    close(merged, {site: (2 if sums else 1) * v for site, v in x.items()}, 1e-4)


@pytest.mark.parametrize(("op", "lora_too"), WORLDS, ids=IDS)
def test_zero_adapters_give_zero(tmp_path: Path, op: Operator, lora_too: bool) -> None:
    chosen = least(op)
    zero, half, other = both(
        tmp_path,
        lora_too,
        called(op, ["0 * a", "0 * b"], chosen),
        called(op, ["a", "0 * b"], chosen),
        called(op, ["a", "0 * a"], chosen),
    )
    assert all((x == 0).all() for x in zero.values())
    assert all(np.isfinite(x).all() for x in [*half.values(), *other.values()])


@pytest.mark.parametrize("op", PLAIN, ids=lambda op: op.name)
def test_a_site_that_no_adapter_has_trained_stays_zero(tmp_path: Path, op: Operator) -> None:
    """Its B is zero in every file."""
    for seed, name in enumerate("ab"):
        made = lora(tmp_path / name, seed)
        untrained = {key: 0 * x for key, x in tensors_of(made).items() if ".0." in key}
        save_file({**tensors_of(made), **untrained}, made / "adapter_model.safetensors")
    text = declared("ab") + f'save {called(op, ["a", "b"], least(op))} to "merged" with rank=full\n'
    [merged] = [changes(path) for path in quiet(tmp_path, text)]
    assert all((x == 0).all() == (".0." in site) for site, x in merged.items())


@pytest.mark.parametrize(("op", "lora_too"), WORLDS, ids=IDS)
def test_the_dtype_of_the_file_rounds_once(tmp_path: Path, op: Operator, lora_too: bool) -> None:
    for seed, name in enumerate("ab"):
        (lora if lora_too else ia3)(tmp_path / name, seed)
    text = called(op, ["a", "b"], least(op))
    saves = "".join(
        f'save {text} to "{d}" with rank=full, dtype={d}\n' for d in ("f64", "f32", "bf16")
    )
    wide, single, half = [changes(p) for p in quiet(tmp_path, declared("ab") + saves)]
    close(single, wide, 1e-5)
    close(half, wide, 5e-2)


SHAPES = {"q": (1, 16), "k": (16, 1), "v": (5, 3)}


@pytest.mark.parametrize("op", PLAIN, ids=lambda op: op.name)
@pytest.mark.parametrize("only", [None, "q"])
def test_thin_sites_and_one_site(tmp_path: Path, op: Operator, only: str | None) -> None:
    """Of a shape (1, n), (n, 1), and of rank one."""
    sites = {f"layers.0.{k}": v for k, v in SHAPES.items() if only in (None, k)}
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed, sites, rank=1)
    call = called(op, ["a", "b"], least(op))
    text = f'{declared("ab")}save {call} to "out" with rank=full, dtype=f32\n'
    [path] = quiet(tmp_path, text)
    merged = delta(path)
    assert merged.keys() == sites.keys()
    assert all(np.isfinite(x).all() for x in merged.values())


# --- masks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DRAWN - {"lora_lego"}))
def test_masks_depend_on_the_seed_and_the_site_alone(tmp_path: Path, name: str) -> None:
    """Not on what else is there, on the order of sites, on threads or on tiles."""
    for seed, at in enumerate("ab"):
        lora(tmp_path / at, seed)
    call = f"{name}([a, b], density=0.5, seed=3)"
    texts = [call, call.replace("seed=3", "seed=4"), f'{call}["*.1.*"]', f"{name}([a[like b], b]"]
    texts[3] += ", density=0.5, seed=3)"
    saves = "".join(f'save {x} to "o{i}" with rank=full, dtype=f32\n' for i, x in enumerate(texts))
    whole, reseeded, part, again = [delta(p) for p in quiet(tmp_path, declared("ab") + saves)]
    assert any((whole[site] != reseeded[site]).any() for site in whole)
    assert all((part[site] == whole[site]).all() for site in part)
    assert all((again[site] == whole[site]).all() for site in whole)
    [x, y, *_] = (whole[site] != 0 for site in whole)
    assert (x != y).any()


def test_dare_keeps_the_share_it_says(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, {"layers.0.q": (200, 300)})
    [path] = quiet(
        tmp_path, 'adapter a = "a"\nsave dare([a], density=0.3, rank=full) to "x" with dtype=f32\n'
    )
    kept = delta(path)["layers.0.q"]
    whole = delta(tmp_path / "a")["layers.0.q"]
    share = (np.abs(kept) > 1e-9 * np.abs(whole).max()).mean()
    assert share == pytest.approx(0.3, abs=0.01)
    at = np.abs(kept) > 1e-6
    assert np.allclose(kept[at], whole[at] / 0.3, rtol=1e-4, atol=1e-4)


# --- the records ---------------------------------------------------------------------------


@pytest.mark.parametrize("op", EVERY, ids=lambda op: op.name)
def test_a_record_lacks_nothing(op: Operator) -> None:
    assert op.summary.endswith(".") and op.formula and op.source and op.rank and op.laws
    assert op.reference is not None
    kernel = METHODS[op.name].kernel
    assert isinstance(kernel, MergeKernel) and kernel.reference is op.reference
    for name in (op.name, *op.aliases):
        assert FUNCTIONS[name] is op
    for param in op.signatures[0].params:
        numbers = param.kinds == ("number",) and param.name not in ("scale", "t", "by", "rank")
        assert param.within is not None or not numbers, f"{param.name} has no range"
        assert bool(param.words) == ("word" in param.kinds)
        if param.within is not None and not param.required:
            assert Fraction(param.default) in param.within
        if param.words and param.default not in (..., None):
            assert param.default in param.words
