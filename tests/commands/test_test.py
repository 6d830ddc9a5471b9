"""`pem test`, and `print`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from safetensors.numpy import load_file
from support import build, codes, pem, recipe
from support.adapters import lora
from support.processes import with_imports

import pemlang
from pemlang.check import Sample
from pemlang.inputs import SampleResolver
from pemlang.syntax import parse, read_source

LIBRARY = """
def soup(xs: [adapter], ws: [number]) -> adapter = sum([w * x for w, x in zip(ws, xs)])
test "a soup is a weighted sum" {
    let a = sample(lora(rank=4, sites=["*.q_proj", "*.v_proj"], layers=2, seed=1))
    let b = sample(lora(rank=2, seed=2))
    assert same(soup([a, b], [1, 2]), a + 2 * b)
    assert distance(soup([a, a], [0.3, 0.7]), a) < 1e-6
    print norm(a)
    print soup([a, b], [0.5, 2])
}
test "it is not its own half" {
    let a = sample(ia3)
    assert same(soup([a], [1]), 0.5 * a)
    assert norm(a) < 0
}
"""


def test_what_passes_and_what_does_not(tmp_path: Path) -> None:
    done = pem("test", recipe(tmp_path, LIBRARY))
    assert done.code == 1
    first, *_, last = done.out.strip().split("\n")
    assert first.endswith("recipe.pem .F")
    assert last.startswith("1 failed, 1 passed in ")
    for line in (
        "  soup([a, b], [0.5, 2]) is 0.5·a + 2·b: LoRA, rank 6, 4 sites",
        "   = note: soup([a], [1]) is a",
        "   = note: 0.5 * a is 0.5·a",
    ):
        assert f"\n{line}\n" in done.out
    assert done.out.count("error[PEM0501]") == 2
    assert pem("test", tmp_path, "-k", "Soup").code == 0


def test_a_sample_is_what_its_numbers_say(tmp_path: Path) -> None:
    """The norms that a test prints are those of the files, by another reader."""
    wanted = Sample("lora", rank=3, sites=("*.q", "head"), layers=2, seed=5)
    [(place, _)] = SampleResolver(tmp_path).sample(wanted)
    tensors = load_file(Path(place) / "adapter_model.safetensors")
    sites = {key.split(".lora_")[0] for key in tensors}
    assert sites == {
        f"base_model.model.{x}" for x in ("model.layers.0.q", "model.layers.1.q", "head")
    }
    squares = [
        np.sum((2 * tensors[f"{x}.lora_B.weight"] @ tensors[f"{x}.lora_A.weight"]) ** 2)
        for x in sites
    ]
    text = 'test "norm" { print norm(sample(lora(rank=3, sites=["*.q", "head"], seed=5))) }'
    [outcome] = pemlang.load(recipe(tmp_path, text)).test()
    [line] = outcome.printed
    assert float(line.rpartition(" is ")[2]) == pytest.approx(
        float(np.sqrt(sum(squares))), rel=1e-5
    )


@pytest.mark.parametrize("kind", ["lora", "ia3", "dense"])
def test_a_seed_decides_a_sample(kind: str, tmp_path: Path) -> None:
    text = (
        f'test "drawn" {{\n    let x = sample({kind}(seed=1))\n    let y = sample({kind}(seed=1))\n'
        f"    assert same(x, y)\n    assert distance(x, sample({kind}(seed=2))) > 0.1\n}}\n"
    )
    [outcome] = pemlang.load(recipe(tmp_path, text)).test()
    assert outcome.wrong == []


def test_json_and_junit_say_the_same(tmp_path: Path) -> None:
    path = recipe(tmp_path, LIBRARY.replace("a soup", "a <soup> & more"))
    told = json.loads(pem("test", path, "--format", "json").out)
    suites = ElementTree.fromstring(pem("test", path, "--format", "junit").out)
    assert (told["passed"], told["failed"]) == (1, 1)
    assert suites.attrib["tests"] == "2"
    cases = suites.findall(".//testcase")
    assert [case.attrib["name"] for case in cases] == [test["name"] for test in told["tests"]]
    assert [case.find("failure") is None for case in cases] == [x["passed"] for x in told["tests"]]


def test_junit_is_xml_whatever_a_test_is_called(tmp_path: Path) -> None:
    odd = "a\ufffe\uffff ]]> & <b>"
    path = recipe(tmp_path, f'test "{odd}" {{ print "{odd}" assert 1 > 2 else "{odd}" }}\n')
    suites = ElementTree.fromstring(pem("test", path, "--format", "junit").out)
    [case] = suites.findall(".//testcase")
    assert case.attrib["name"] == "a\\ufffe\\uffff ]]> & <b>"


def test_a_file_that_is_wrong_keeps_no_other_from_being_tested(tmp_path: Path) -> None:
    recipe(tmp_path, "let x = y\n", "wrong.pem")
    recipe(tmp_path, LIBRARY, "right.pem")
    done = pem("test", tmp_path)
    assert done.code == 1
    assert "wrong.pem E" in done.out
    assert "1 failed, 1 file wrong, 1 passed" in done.out


def test_no_torch_is_imported(tmp_path: Path) -> None:
    recipe(tmp_path, LIBRARY)
    done = with_imports("test", ".", folder=tmp_path, of=("torch", "peft", "numpy"))
    assert "1 failed, 1 passed" in done.out
    assert done.err.splitlines()[-1] == "['numpy']"


def test_nothing_drawn_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "drawn"))
    (tmp_path / "drawn").mkdir()
    assert pem("test", recipe(tmp_path, LIBRARY), "-k", "soup").code == 0
    assert list((tmp_path / "drawn").iterdir()) == []


def test_tests_and_names_in_them_are_no_part_of_a_build(tmp_path: Path) -> None:
    lora(tmp_path / "a")
    text = 'adapter a = "a"\ntest "wrong" { let b = nothing assert 1 == 2 }\nsave a to "out/a"\n'
    assert codes(tmp_path, text) == []
    assert build(tmp_path, text).printed == ()


def test_what_a_recipe_prints(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    text = (
        'adapter a = "a"\nadapter b = "b"\nlet x = a + b\nprint x\nprint norm(x) > 1\n'
        'print [1, 2.5]\nprint "so"\nsave x to "out/x"\n'
    )
    printed = (
        "x is 1·a + 1·b: LoRA, rank 8, 4 sites",
        "norm(x) > 1 is true",
        "[1, 2.5]",
        '"so" is so',
    )
    assert build(tmp_path, text).printed == printed
    done = pem("build", tmp_path / "recipe.pem")
    assert done.out.startswith("\n".join(printed))
    assert json.loads(pem("build", tmp_path / "recipe.pem", "--format", "json").out)["printed"] == [
        *printed
    ]


def test_a_print_of_a_sweep_says_of_which_value_it_is(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    text = 'adapter a = "a"\nparam w: number = 1\nprint 2 * w\nsave w * a to "out/{w}"\n'
    done = pem("build", recipe(tmp_path, text), "--sweep", "w=0.5,1")
    assert done.out.startswith("2 * w is 1 at w = 0.5\n2 * w is 2 at w = 1\n")


def notes_of(folder: Path, text: str) -> list[tuple[str, ...]]:
    """What is told of the parts of each assertion of a test that does not hold."""
    [outcome] = pemlang.load(recipe(folder, text)).test()
    return [told.notes for told in outcome.wrong]


def test_the_parts_of_an_assertion_are_those_that_decide_it(tmp_path: Path) -> None:
    """What is not looked at may have no value; nothing that is told twice is told."""
    text = """
def near(x: adapter, y: adapter, least: number = 0.9) -> bool = cosine(x, y) >= least
test "parts" {
    let a = sample(lora(seed=1))
    let none = 0 * a
    assert near(a, -1 * a) and near(a, none)
    assert not (near(a, a) or near(a, none))
    assert (norm(none) > 0 and near(a, none)) or norm(none) + norm(none) > 1
    assert [norm(none), norm(a), cosine(a, none)][0] > 0
}
"""
    assert notes_of(tmp_path, text) == [
        ("near(a, -1 * a) is false", "  cosine(x, y) is -1", "  least is 0.9"),
        (
            "(near(a, a) or near(a, none)) is true",
            "near(a, a) is true",
            "  cosine(x, y) is 1",
            "  least is 0.9",
        ),
        (
            "(norm(none) > 0 and near(a, none)) is false",
            "norm(none) > 0 is false",
            "norm(none) is 0",
            "norm(none) + norm(none) > 1 is false",
            "norm(none) + norm(none) is 0",
        ),
        ("[norm(none), norm(a), cosine(a, none)][0] is 0", "norm(none) is 0"),
    ]


def test_what_does_not_hold_is_told_in_order(tmp_path: Path) -> None:
    """What is known before weights are read, and what is measured."""
    text = (
        'test "order" {\nlet a = sample(ia3)\nassert norm(a) < 0\nassert 1 > 2\n'
        "assert norm(2 * a) < 0\nassert same(a, 2 * a)\n}\n"
    )
    [outcome] = pemlang.load(recipe(tmp_path, text)).test()
    lines = [told.span.source.position(told.span.start)[0] for told in outcome.wrong if told.span]
    assert lines == [3, 4, 5, 6]


def test_no_more_is_told_of_an_assertion_than_anyone_reads(tmp_path: Path) -> None:
    numbers = " + ".join(f"norm({n} * a)" for n in range(1, 150))
    levels = "".join(
        f"def f{n}(x: number) -> bool = f{n - 1}(x + {n}) or f{n - 1}(x)\n" for n in range(1, 10)
    )
    deep = f"{'not (' * 90}norm(a) < {numbers}{')' * 90}"
    text = (
        f"def f0(x: number) -> bool = x < 0\n{levels}"
        f'test "many" {{ let a = sample(ia3)\nassert {numbers} < 0\nassert f9(norm(a))\n'
        f"assert not ({deep})\n}}\n"
    )
    many, branches, deep_notes = notes_of(tmp_path, text)
    for notes in (many, branches):
        assert len(notes) == 13 and re.fullmatch(r"… and \d+ more", notes[-1])
    assert max(map(len, (*many, *branches, *deep_notes))) < 200


def test_a_coefficient_that_is_a_sum_stands_in_brackets(tmp_path: Path) -> None:
    text = (
        'test "sums" {\nlet a = sample(lora(seed=1))\nlet b = sample(lora(seed=2))\n'
        "print (1 - norm(a)) * a + (2 - 3 * norm(b)) * b\nprint a - norm(a + b) * b\n}\n"
    )
    [outcome] = pemlang.load(recipe(tmp_path, text)).test()
    assert [line.partition(" is ")[2].partition(":")[0] for line in outcome.printed] == [
        "(1 − 1·norm(a))·a + (2 − 3·norm(b))·b",
        "1·a − 1·norm(1·a + 1·b)·b",
    ]


RANGED = """
let most = 1
def mix(x: adapter, by: number in 0..most, least: number in -1..1 = -0.5) -> adapter = by * x
test "ranges" {
    let a = sample(ia3)
    assert same(mix(a, 1), a) and same(mix(a, 0, 1), mix(a, by=0))
    assert fails(mix(a, 1.01), "PEM0214") and fails(mix(a, by=-0.01), "PEM0214")
    assert fails([mix(a, n) for n in [0, 1, 2]], "PEM0214")
    assert distance(mix(a, cosine(a, a)), a) < 1e-6
    assert fails(mix(a, 2 * cosine(a, a)), "PEM0214") or true
}
"""


def test_an_argument_lies_in_the_range_of_its_param(tmp_path: Path) -> None:
    """Also one that is measured, once it is known."""
    [outcome] = pemlang.load(recipe(tmp_path, RANGED)).test()
    assert not outcome.wrong
    measured = 'test "measured" { let a = sample(ia3) print mix(a, 2 * cosine(a, a)) }\n'
    *_, outcome = pemlang.load(recipe(tmp_path, RANGED + measured)).test()
    [wrong] = outcome.wrong
    value, place = wrong.notes
    assert (wrong.code, value) == ("PEM0501", "2 * cosine(a, a) is 2")
    assert place.startswith("in the call of `mix` at ")
    lora(tmp_path / "a")
    recipe(tmp_path, RANGED, "ranged.pem")
    text = 'import "ranged.pem" (mix)\nadapter a = "a"\nsave mix(a, {}) to "out/a"\n'
    assert codes(tmp_path, text.format("2")) == ["PEM0214"]
    assert codes(tmp_path, text.format("2 * cosine(a, a)")) == []
    with pytest.raises(pemlang.PemError, match="PEM0501"):
        build(tmp_path, text.format("2 * cosine(a, a)"))
    assert not (tmp_path / "out").exists()
    build(tmp_path, text.format("0.5 * cosine(a, a)"))


def test_the_standard_library_by_its_name(tmp_path: Path) -> None:
    """Its parts are tested once each, whatever files of like names lie there; those are tested as
    files."""

    def tested(*words: str) -> list[str]:
        done = pem("test", *words, "--format", "json", folder=tmp_path)
        assert done.code == 0, done
        assert all(test["passed"] for test in json.loads(done.out)["tests"])
        return list(dict.fromkeys(test["file"] for test in json.loads(done.out)["tests"]))

    parts = [f"std.{file.stem}" for file in STDLIB]
    recipe(tmp_path, 'test "mine" { assert 1 < 2 }\n', "std.soups.pem")
    assert tested("std") == parts
    assert tested("std.soups.pem", "std.soups", "std.soups") == ["std.soups", "std.soups.pem"]
    names = [x["name"] for x in json.loads(pem("doc", "std", "--format", "json").out)["libraries"]]
    assert names == parts
    for slip in ("std.soup", "std.unlearn.pem"):
        done = pem("test", slip, folder=tmp_path)
        assert (done.code, "PEM0203" in done.err) == (1, True)


STDLIB = sorted((Path(__file__).parents[2] / "stdlib").glob("*.pem"))


@pytest.mark.parametrize("file", STDLIB, ids=lambda file: file.stem)
def test_every_function_of_the_library_is_tested(file: Path) -> None:
    """Each is called by a test of its own file, and all of them pass."""
    tree = parse(read_source(file, file.name), pemlang.diagnostics.Report())
    names = [x.name.name for x in of_kind(tree, "Def")]
    functions = {name for name in names if not name.startswith("_")}
    tests = of_kind(tree, "Test")
    called = {call.function.name for test in tests for call in of_kind(test, "Call")}
    assert functions <= called
    outcomes = pemlang.load(file).test()
    assert [outcome.title for outcome in outcomes if outcome.wrong] == []
    assert len(outcomes) == len(tests)


def of_kind(tree: Any, kind: str) -> list[Any]:
    """A tree and all below it, those of a kind."""
    below = [x for child in tree.children() for x in of_kind(child, kind)]
    return [tree, *below] if type(tree).__name__ == kind else below
