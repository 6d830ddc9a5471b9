"""`pem diff` of adapters, against dense Δ in float64 that is formed here from the files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from support import PREFIX, Dense, config_of, ia3, lora, pem, save, tensors_of
from support.comparing import compared_of, shown_of

from pemlang.compare import compare

LINEAR, CONV, EMBEDDING = "layers.0.q_proj", "layers.0.conv", "wte"


def mixed(
    at: Path, seed: int, rank: int = 3, alpha: float = 6, dtype: str = "f4", **config: Any
) -> Path:
    """A LoRA with a Linear, a Conv2d and an Embedding site."""
    rng = np.random.default_rng(seed)
    shapes = {
        f"{LINEAR}.lora_A.weight": (rank, 10),
        f"{LINEAR}.lora_B.weight": (7, rank),
        f"{CONV}.lora_A.weight": (rank, 4, 3, 2),
        f"{CONV}.lora_B.weight": (8, rank, 1, 1),
        f"{EMBEDDING}.lora_embedding_A": (rank, 30),
        f"{EMBEDDING}.lora_embedding_B": (6, rank),
    }
    tensors = {PREFIX + key: rng.normal(size=shape).astype(dtype) for key, shape in shapes.items()}
    fields = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": ["q_proj", "conv", "wte"],
        "base_model_name_or_path": "some/base",
    }
    return save(at, tensors, fields | config)


def dense(at: Path) -> Dense:
    """Δ as matrices, or l − 1, from the tensors."""
    tensors = {
        key.removeprefix(PREFIX): value.astype(np.float64)
        for key, value in load_file(at / "adapter_model.safetensors").items()
    }
    config, matrices = config_of(at), {}
    for key, a in tensors.items():
        if key.endswith(".ia3_l"):
            matrices[key.removesuffix(".ia3_l")] = a - 1
        elif "_A" in key:
            b = tensors[key.replace("_A", "_B")]
            flat = b.reshape(len(b), -1) @ a.reshape(len(a), -1)
            site = re.sub(r"\.lora_(embedding_)?A(\.weight)?$", "", key)
            matrices[site] = config["lora_alpha"] / len(a) * flat
    return matrices


def cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.sum(x * y) / (np.linalg.norm(x) * np.linalg.norm(y)))


def by_site(changes: Any) -> dict[str, Any]:
    return {site.site: site for site in changes.sites}


def near(value: float) -> Any:
    return pytest.approx(value, rel=1e-9)


def check(old: Path, new: Path) -> Any:
    """All numbers of a comparison of adapters with the same sites, against dense ones."""
    changes = compared_of(old, new)
    before, after = dense(old), dense(new)
    sites = by_site(changes)
    assert sites.keys() == before.keys() == after.keys()
    pairs = {site: (before[site], after[site]) for site in before}
    flat = [np.concatenate([x[site].ravel() for site in before]) for x in (before, after)]
    for measured, x, y in [
        *((sites[site].measured, *pair) for site, pair in pairs.items()),
        (changes.total, *flat),
    ]:
        assert measured.old == near(float(np.linalg.norm(x)))
        assert measured.new == near(float(np.linalg.norm(y)))
        assert measured.change == near(float(np.linalg.norm(y - x)))
        assert measured.relative == near(float(np.linalg.norm(y - x) / np.linalg.norm(x)))
        assert measured.cosine == near(cosine(x, y))
    for site, pair in pairs.items():
        for values, x in zip(sites[site].spectra, pair, strict=True):
            wanted = np.linalg.svd(x, compute_uv=False)[: len(values)] if len(values) else []
            np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-12 * np.abs(x).max())
    return changes


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("ranks", [(3, 3), (2, 5), (5, 2), (9, 8)])
def test_loras_of_any_rank_and_scale(tmp_path: Path, ranks: tuple[int, int], dtype: str) -> None:
    old = mixed(tmp_path / "old", 1, ranks[0], alpha=6, dtype=dtype)
    new = mixed(tmp_path / "new", 2, ranks[1], alpha=16, dtype=dtype)
    changes = check(old, new)
    assert {site.state for site in changes.sites} == {"changed"}
    assert by_site(changes)[LINEAR].ranks == list(ranks)
    assert by_site(changes)[LINEAR].scales == [6 / ranks[0], 16 / ranks[1]]
    assert len(by_site(changes)[LINEAR].spectra[0]) == min(ranks[0], 7)
    shown = {fact.label: (fact.old, fact.new) for fact in changes.facts if fact.old != fact.new}
    assert ("rank" in shown) == (ranks[0] != ranks[1])
    assert "scale" in shown


def test_gains(tmp_path: Path) -> None:
    changes = check(ia3(tmp_path / "old", 1), ia3(tmp_path / "new", 2))
    assert all(site.spectra == [[], []] for site in changes.sites)
    assert all(site.ranks == [None, None] for site in changes.sites)


def test_identical_adapters(tmp_path: Path) -> None:
    for make in (mixed, ia3):
        old, new = make(tmp_path / make.__name__, 1), make(tmp_path / f"{make.__name__}2", 1)
        changes = compared_of(old, new)
        assert changes.same
        for measured in (changes.total, *(site.measured for site in changes.sites)):
            assert (measured.change, measured.relative, measured.cosine) == (0.0, 0.0, 1.0)
        assert "4 same" in shown_of(old, new) or "3 same" in shown_of(old, new)


@pytest.mark.parametrize("factor", ["A", "B", "AB"])
@pytest.mark.parametrize("size", [1e-7, 1e-11])
def test_tiny_differences_keep_their_digits(tmp_path: Path, factor: str, size: float) -> None:
    """Against Δ in longdouble: float64 would lose the digits that are tested."""
    rng = np.random.default_rng(3)
    old = mixed(tmp_path / "old", 1, dtype="f8")
    tensors = {key: value.numpy() for key, value in tensors_of(old).items()}
    moved = {
        key: x + size * rng.normal(size=x.shape) * any(f"_{name}" in key for name in factor)
        for key, x in tensors.items()
    }
    new = save(tmp_path / "new", moved, config_of(old))
    measured = by_site(compared_of(old, new))[LINEAR].measured

    def delta(x: dict[str, NDArray[np.float64]]) -> NDArray[Any]:
        b, a = (x[f"{PREFIX}{LINEAR}.lora_{f}.weight"].astype(np.longdouble) for f in "BA")
        return 2 * b @ a

    change = float(np.sqrt(np.sum((delta(moved) - delta(tensors)) ** 2)))
    assert measured.change == pytest.approx(change, rel=1e-15 / size)
    assert measured.cosine == pytest.approx(1, abs=1e-12)


def test_one_function_of_other_factors(tmp_path: Path) -> None:
    """Zero rows, and a scale moved into B, change nothing; factors mixed among each other, no
    more than float64 rounds."""
    old = mixed(tmp_path / "old", 1, rank=2, alpha=4, dtype="f8")
    tensors = {key: value.numpy() for key, value in tensors_of(old).items()}

    def with_zeros(key: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        axis = 0 if "_A" in key else 1
        twice = x if "_A" in key else 4 * x
        return np.concatenate([twice, np.zeros_like(x)], axis)

    wide = save(
        tmp_path / "wide",
        {key: with_zeros(key, x) for key, x in tensors.items()},
        config_of(old) | {"r": 4, "lora_alpha": 2},
    )
    changes = compared_of(old, wide)
    assert {site.state for site in changes.sites} == {"same"}
    assert not changes.same
    assert changes.total.change == 0

    turn = np.array([[1.0, 2.0], [0.5, -1.0]])
    turned = {
        key: np.einsum("ij,j...->i...", turn, x)
        if "_A" in key
        else np.einsum("oj...,ji->oi...", x, np.linalg.inv(turn))
        for key, x in tensors.items()
    }
    changes = compared_of(old, save(tmp_path / "turned", turned, config_of(old)))
    assert changes.total.relative < 1e-14
    assert changes.total.cosine == pytest.approx(1, abs=1e-14)


def test_added_and_removed_sites_are_zero_elsewhere(tmp_path: Path) -> None:
    old = lora(tmp_path / "old", 1, {"layer.0.q": (5, 6), "layer.1.q": (5, 6)}, rank=2)
    new = lora(tmp_path / "new", 2, {"layer.1.q": (5, 6), "layer.2.q": (7, 6)}, rank=2)
    changes = compared_of(old, new)
    before, after = dense(old), dense(new)
    removed, changed, added = changes.sites
    assert (removed.state, changed.state, added.state) == ("removed", "changed", "added")
    assert removed.measured.change == near(float(np.linalg.norm(before["layer.0.q"])))
    assert (removed.measured.new, removed.measured.relative) == (0.0, near(1))
    assert added.measured.change == near(float(np.linalg.norm(after["layer.2.q"])))
    assert (added.measured.old, added.measured.relative) == (0.0, None)
    assert added.measured.cosine is None
    assert (added.ranks, added.spectra[0]) == ([None, 2], [])
    np.testing.assert_allclose(
        added.spectra[1], np.linalg.svd(after["layer.2.q"], compute_uv=False)[:2]
    )
    norms = [site.measured.change for site in changes.sites]
    assert changes.total.change == near(float(np.linalg.norm(norms)))
    between = np.sum(before["layer.1.q"] * after["layer.1.q"])
    assert changes.total.cosine == near(float(between) / (changes.total.old * changes.total.new))
    assert re.search(r"layer\.2\.q +added .* new ", shown_of(old, new))


def test_a_zero_adapter(tmp_path: Path) -> None:
    new = mixed(tmp_path / "new", 1)
    nothing = {k: x * ("_A" in k) for k, x in tensors_of(new).items()}
    zero = save(tmp_path / "zero", nothing, config_of(new))
    changes = compared_of(zero, new)
    assert (changes.total.old, changes.total.relative, changes.total.cosine) == (0.0, None, None)
    assert "old is zero" in shown_of(zero, new)
    back = compared_of(new, zero).total
    assert (back.new, back.relative, back.cosine) == (0.0, near(1), None)
    both = compared_of(zero, zero)
    assert both.same and (both.total.relative, both.total.cosine) == (0.0, None)


@pytest.mark.parametrize("swap", [False, True])
def test_one_far_smaller_than_the_other(tmp_path: Path, swap: bool) -> None:
    large = mixed(tmp_path / "large", 1, 3, dtype="f8")
    tensors = tensors_of(mixed(tmp_path / "other", 2, 4, dtype="f8"))
    small = save(
        tmp_path / "small",
        {key: x * (1e-20 if "_B" in key else 1) for key, x in tensors.items()},
        config_of(tmp_path / "other"),
    )
    check(*((small, large) if swap else (large, small)))


def test_sites_of_two_shapes_are_left_out_of_the_total(tmp_path: Path) -> None:
    old = lora(tmp_path / "old", 1, {"layer.0.q": (5, 6), "layer.1.q": (5, 6)}, rank=2)
    new = lora(tmp_path / "new", 2, {"layer.0.q": (5, 6), "layer.1.q": (5, 8)}, rank=2)
    changes = compared_of(old, new)
    fine, apart = changes.sites
    assert (apart.state, apart.note) == ("incomparable", "linear 5×6 against linear 5×8")
    assert apart.measured.change is None
    assert apart.measured.new == near(float(np.linalg.norm(dense(new)["layer.1.q"])))
    assert changes.total == fine.measured
    assert "without 1 incomparable" in shown_of(old, new)
    old, new = lora(tmp_path / "o", 1, {"q": (5, 6)}), lora(tmp_path / "n", 1, {"q": (5, 8)})
    assert compared_of(old, new).total.change is None
    assert "no site can be compared" in shown_of(old, new)


def test_kernels_of_one_size_and_two_shapes(tmp_path: Path) -> None:
    def conv(at: Path, kernel: tuple[int, int]) -> Path:
        tensors = {
            f"{PREFIX}conv.lora_A.weight": np.ones((2, 4, *kernel), "f4"),
            f"{PREFIX}conv.lora_B.weight": np.ones((5, 2, 1, 1), "f4"),
        }
        return save(at, tensors, {"peft_type": "LORA", "r": 2, "lora_alpha": 2})

    changes = compared_of(conv(tmp_path / "a", (3, 1)), conv(tmp_path / "b", (1, 3)))
    assert changes.sites[0].note == "conv2d 5×12 with A of [4, 3, 1] against [4, 1, 3]"


# --- facts and heads ----------------------------------------------------------------------------


def test_facts_that_changed(tmp_path: Path) -> None:
    old = mixed(tmp_path / "old", 1)
    new = mixed(
        tmp_path / "new", 1, 4, 8, "f2", base_model_name_or_path="an/other", fan_in_fan_out=True
    )
    changed = {f.label: (f.old, f.new) for f in compared_of(old, new).facts if f.old != f.new}
    assert changed == {
        "base": ("some/base", "an/other"),
        "rank": ("3", "4"),
        "dtype": ("f32", "f16"),
        "parameters": ("255", "340"),
        "fan_in_fan_out": ("no", "yes"),
    }


def test_ranks_that_changed_places_are_told(tmp_path: Path) -> None:
    sites = {"layer.0.q": (5, 6), "layer.1.q": (5, 6)}
    old = lora(tmp_path / "old", 1, sites, rank={"layer.0.q": 2, "layer.1.q": 3})
    new = lora(tmp_path / "new", 1, sites, rank={"layer.0.q": 3, "layer.1.q": 2})
    facts = {fact.label: fact for fact in compared_of(old, new).facts}
    assert facts["rank"].new == "2 at 1 site, 3 at 1 site (not the same at 2 sites)"


def test_heads_are_compared_by_their_bytes(tmp_path: Path) -> None:
    def heads(moved: float, *more: str) -> dict[str, Any]:
        score, other = torch.ones(2, 3), torch.ones(2, 3)
        other[1, 2] = moved
        tensors = {f"{PREFIX}score.weight": score, f"{PREFIX}other.weight": other}
        return tensors | {f"{PREFIX}{key}": torch.zeros(4) for key in more}

    old = lora(tmp_path / "old", 1, extra=heads(1, "gone.bias"))
    new = lora(tmp_path / "new", 1, extra=heads(1.0000001, "fresh.bias"))
    changes = compared_of(old, new)
    assert [(head.key, head.state) for head in changes.heads] == [
        (f"{PREFIX}fresh.bias", "added"),
        (f"{PREFIX}gone.bias", "removed"),
        (f"{PREFIX}other.weight", "changed"),
        (f"{PREFIX}score.weight", "same"),
    ]
    assert not changes.same and {site.state for site in changes.sites} == {"same"}
    text = shown_of(old, new)
    assert "f32 [2, 3] → f32 [2, 3], other numbers" in text
    assert "none → f32 [4]" in text and "score" not in text


def test_what_is_saved_whole_is_called_what_it_is(tmp_path: Path) -> None:
    keys = {
        f"{PREFIX}{LINEAR}.bias": "bias",
        f"{PREFIX}model.embed_tokens.base_layer.weight": "base's own",
        f"{PREFIX}model.shared.token_adapter.trainable_tokens_delta": "rows",
        f"{PREFIX}score.weight": "head",
    }
    sites = {LINEAR: (5, 6), "model.embed_tokens": (9, 6)}
    for seed, name in enumerate(("old", "new")):
        torch.manual_seed(seed)
        sizes = [(5,), (9, 6), (2, 6), (2, 6)]
        lora(
            tmp_path / name, 1, sites, bias="all", modules_to_save=["score"],
            trainable_token_indices={"shared": [1, 4]},
            extra={key: torch.randn(size) for key, size in zip(keys, sizes, strict=True)},
        )  # fmt: skip
    changes = compared_of(tmp_path / "old", tmp_path / "new")
    assert {head.key: head.kind for head in changes.heads} == keys
    text = shown_of(tmp_path / "old", tmp_path / "new")
    assert re.findall(r"^(.+?) base_model", text, re.M) == ["bias", "base's own", "rows", "head"]


def test_a_field_of_the_config_that_changed_is_no_same(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1, task_type="CAUSAL_LM")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    config = tmp_path / "b/adapter_config.json"
    config.write_text(config.read_text().replace("CAUSAL_LM", "SEQ_CLS"))
    changes = compared_of(tmp_path / "a", tmp_path / "b")
    assert not changes.same
    assert ("task_type", '"CAUSAL_LM"', '"SEQ_CLS"') in [
        (fact.label, fact.old, fact.new) for fact in changes.facts
    ]


# --- what goes wrong ----------------------------------------------------------------------------


def refused(old: Path, new: Path) -> tuple[str, str]:
    """The code and the message of why two adapters are not compared."""
    done = pem("diff", old, new, "--format", "json")
    [message] = json.loads(done.out)["messages"]
    assert (done.code, done.err, message["severity"]) == (1, "", "error")
    return message["code"], message["message"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite(tmp_path: Path, bad: float) -> None:
    old = mixed(tmp_path / "old", 1)
    tensors = tensors_of(old)
    tensors[f"{PREFIX}{CONV}.lora_B.weight"][1, 1] = bad
    code, message = refused(old, save(tmp_path / "new", tensors, config_of(old)))
    assert code == "PEM0502"
    assert "new" in message


def test_what_is_too_large_to_measure(tmp_path: Path) -> None:
    old = mixed(tmp_path / "old", 1, dtype="f8")
    large = {key: 1e200 * value for key, value in tensors_of(old).items()}
    code, _ = refused(old, save(tmp_path / "new", large, config_of(old)))
    assert code == "PEM0503"


def test_two_methods(tmp_path: Path) -> None:
    code, message = refused(mixed(tmp_path / "a", 1), ia3(tmp_path / "b", 1))
    assert code == "PEM0304"
    assert "is LoRA and" in message


def test_no_adapter(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _ = refused(mixed(tmp_path / "a", 1), tmp_path / "empty")
    assert code == "PEM0410"
    with pytest.raises(Exception, match="nowhere") as caught:
        compare(str(tmp_path / "a"), str(tmp_path / "nowhere"))
    assert getattr(caught.value, "code", None) == "PEM0410"
