"""`names=` of a declaration in all that knows a recipe: hashes, comparisons, locks, provenances,
the command line; statistics, models and pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support import PREFIX, build, codes, delta, error, lora, pem, recipe, tensors_of
from support.comparing import phrases
from support.models import model, weights_of
from support.outputs import WEIGHTS

import pemlang

OLD = {f"language_model.model.layers.{n}.self_attn.q_proj": (8, 6) for n in (0, 1)}
NEW = {f"model.language_model.layers.{n}.self_attn.q_proj": (8, 6) for n in (0, 1)}
BY_NAME = 'adapter a = "old" with names="transformers-5"\n'
BY_RULE = 'adapter a = "old" with names={ "language_model.model.*": "model.language_model.*" }\n'
SUM = 'adapter b = "b"\nsave a + b to "out"\n'


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lora(tmp_path / "old", 1, OLD)
    lora(tmp_path / "b", 2, NEW)
    monkeypatch.chdir(tmp_path)


def test_a_sum_is_that_of_the_modules(tmp_path: Path) -> None:
    [built] = build(tmp_path, BY_NAME + SUM).outputs
    total, old, b = delta(built.path), delta(tmp_path / "old"), delta(tmp_path / "b")
    for before, now in zip(OLD, NEW, strict=True):
        assert np.allclose(total[now], old[before] + b[now], atol=1e-6)


def test_names_are_part_of_the_meaning_however_they_are_said(tmp_path: Path) -> None:
    hashes = []
    for text in (
        BY_NAME,
        BY_RULE,
        'adapter a = "old"\n',
        'adapter a = "old" with names={ "*": "*" }\n',
    ):
        recipe(tmp_path, text + 'save a to "out"\n')
        hashes += [x.semantic_hash for x in pemlang.load("recipe.pem").plan().outputs]
    by_name, by_rule, plain, kept = hashes
    assert by_name == by_rule != plain == kept


def test_a_comparison_says_that_names_changed(tmp_path: Path) -> None:
    save = 'save a to "out"\n'
    told = phrases(tmp_path, 'adapter a = "old"\n' + save, BY_NAME + save)
    assert told[0] == "a: other names of its modules"
    assert phrases(tmp_path, BY_NAME + save, BY_RULE + save) == []


def test_an_adapter_under_two_namings_is_two(tmp_path: Path) -> None:
    text = 'adapter x = "old"\n' + BY_NAME + 'save x to "x"\nsave a to "a"\n'
    outputs = build(tmp_path, text).outputs
    assert [set(delta(x.path)) for x in outputs] == [set(OLD), set(NEW)]


def test_a_lock_has_the_files_as_they_are(tmp_path: Path) -> None:
    path = recipe(tmp_path, BY_NAME + SUM)
    assert pem("lock", path).code == 0
    locked = (tmp_path / "pem.lock").read_text()
    assert "language_model.model.layers" in locked
    assert pem("build", path, "--locked").code == 0
    assert pem("verify", "out", "--rebuild").code == 0
    (tmp_path / "old" / WEIGHTS).unlink()
    assert pem("check", path, "--locked").code == 0
    recipe(tmp_path, BY_RULE + SUM)
    assert pem("check", path, "--locked").code == 0


def test_statistics_go_by_the_new_names(tmp_path: Path) -> None:
    def counted(sites: dict[str, tuple[int, int]], at: str) -> None:
        grams = {f"{site}.gram": torch.eye(6) * n for n, site in enumerate(sites, 2)}
        save_file(grams, tmp_path / at / "statistics.safetensors")

    counted(OLD, "old")
    counted(NEW, "b")
    plain = lora(tmp_path / "plain", 1, NEW)
    assert plain.exists()
    counted(NEW, "plain")
    merge = 'adapter b = "b"\nsave regmean([a, b]) to "{}"\n'
    build(tmp_path, BY_NAME + merge.format("x"))
    build(tmp_path, 'adapter a = "plain"\n' + merge.format("y"))
    assert all(
        np.array_equal(x, delta(tmp_path / "y")[k]) for k, x in delta(tmp_path / "x").items()
    )


def test_a_pickle_by_other_names(tmp_path: Path) -> None:
    tensors = tensors_of(tmp_path / "old")
    torch.save(
        {f"module.{key}": x for key, x in tensors.items()}, tmp_path / "old/adapter_model.bin"
    )
    (tmp_path / "old" / WEIGHTS).unlink()
    [built] = build(tmp_path, BY_NAME + 'save a to "out"\n').outputs
    keys = {f"{PREFIX}{site}.lora_{x}.weight" for site in NEW for x in "AB"}
    assert load_file(built.path / WEIGHTS).keys() == keys


def test_a_model_by_other_names(tmp_path: Path) -> None:
    """A task vector of a fine-tune that an earlier version saved in shards."""
    base = model(tmp_path / "base", 1, {f"{x}.weight": size for x, size in NEW.items()})
    older = {f"{x}.weight": size for x, size in OLD.items()}
    tuned = model(tmp_path / "tuned", 2, older, shards=2)
    declared = 'model m = "base"\nmodel t = "tuned"{}\nsave m + 0.5 * (t - m) to "out"\n'
    refused = error(tmp_path, declared.format(""))
    assert refused.code == "PEM0307"
    assert str(refused.help).endswith(': model t = "tuned" with names="transformers-5"')
    [built] = build(tmp_path, declared.format(' with names="transformers-5"')).outputs
    ours, first, second = weights_of(built.path), weights_of(base), weights_of(tuned)
    for before, now in zip(OLD, NEW, strict=True):
        wanted = 0.5 * first[f"{now}.weight"] + 0.5 * second[f"{before}.weight"]
        assert np.allclose(ours[f"{now}.weight"], wanted, atol=1e-6)


def test_names_may_be_put_together_from_params(tmp_path: Path) -> None:
    text = 'param era: string = "5"\nadapter a = "old" with names="transformers-{era}"\n' + SUM
    assert codes(tmp_path, text) == []
    assert codes(tmp_path, text, era="4") == ["PEM0361"]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ("1", "PEM0301"),
        ('["a"]', "PEM0301"),
        ("nobody", "PEM0206"),
        ('{ "{nobody}": "x" }', "PEM0206"),
        ('{ "": "x" }', "PEM0361"),
        ('{ "*": "" }', "PEM0362"),
        ('{ "*": "a\\n*" }', "PEM0362"),
        ("{}", "PEM0108"),
        ('{ "*": 1 }', "PEM0108"),
        ('{ "*": "*"', "PEM0106"),
    ],
)
def test_what_is_no_naming_is_said(tmp_path: Path, names: str, code: str) -> None:
    assert error(tmp_path, f'adapter a = "old" with names={names}\nsave a to "out"\n').code == code


def test_on_the_command_line_help_shows_the_recipe_to_write() -> None:
    said = pem("build", "-e", "a + b", "a=old", "b=b", "--to", "out").err
    assert "error[PEM0306]" in said
    assert "write this recipe to a file" in said


def test_a_first_recipe_adds_no_two_names_of_one_module() -> None:
    assert pem("init", ".").code == 0
    assert pem("check", "merge.pem").code == 0


PARTS = (("q", slice(0, 4)), ("k", slice(4, 6)), ("v", slice(6, 8)))
SPLIT = 'adapter f = "fused" with names={ "*.qkv": "*.q[0:4], *.k[4:6], *.v[6:8]" }\n'


def test_statistics_of_inputs_are_those_of_each_part(tmp_path: Path) -> None:
    """What was measured of A, which the parts share, is measured of none of them."""
    tensors = tensors_of(lora(tmp_path / "fused", 3, {"layers.0.qkv": (8, 6)}))
    a, b = (tensors[f"{PREFIX}layers.0.qkv.lora_{x}.weight"] for x in "AB")
    sites = {f"layers.0.{part}": (len(range(8)[rows]), 6) for part, rows in PARTS}
    parts = tensors_of(lora(tmp_path / "parts", 3, sites))
    lora(tmp_path / "other", 4, sites)
    for part, rows in PARTS:
        parts[f"{PREFIX}layers.0.{part}.lora_A.weight"] = a.clone()
        parts[f"{PREFIX}layers.0.{part}.lora_B.weight"] = b[rows].contiguous()
    save_file(parts, tmp_path / "parts" / WEIGHTS)
    gram = torch.diag(torch.arange(1.0, 7.0))
    measured = {site: {f"{site}.gram": gram} for site in ("layers.0.qkv", *sites)}
    measured["layers.0.qkv"] |= {"layers.0.qkv.fisher_A": a**2, "layers.0.qkv.fisher_B": b**2}
    for at, names in ("fused", ["layers.0.qkv"]), ("parts", sites), ("other", sites):
        kept = {key: x.clone() for name in names for key, x in measured[name].items()}
        save_file(kept, tmp_path / at / "statistics.safetensors")
    merge = 'adapter o = "other"\nsave {}([f, o]) to "{}"\n'
    build(tmp_path, SPLIT + merge.format("regmean", "x"))
    build(tmp_path, 'adapter f = "parts"\n' + merge.format("regmean", "y"))
    split, apart = delta(tmp_path / "x"), delta(tmp_path / "y")
    assert split.keys() == apart.keys()
    assert all(np.array_equal(split[site], apart[site]) for site in split)
    assert error(tmp_path, SPLIT + merge.format("fisher", "z")).code == "PEM0328"


def test_a_split_is_part_of_the_meaning(tmp_path: Path) -> None:
    lora(tmp_path / "fused", 3, {"layers.0.qkv": (8, 6)})
    hashes = []
    for text in (
        SPLIT,
        SPLIT.replace(", *", ",*").replace("*", "layers.0"),
        'adapter f = "fused" with names={ "*.qkv": "*.q[0:4], *.k[4:7], *.v[7:8]" }\n',
    ):
        recipe(tmp_path, text + 'save f to "out"\n')
        hashes += [x.semantic_hash for x in pemlang.load("recipe.pem").plan().outputs]
    assert hashes[0] == hashes[1] != hashes[2]
    told = phrases(tmp_path, 'adapter f = "fused"\nsave f to "x"\n', SPLIT + 'save f to "x"\n')
    assert told[0] == "f: other names of its modules"
