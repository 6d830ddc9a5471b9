"""Recipes that would go on for ever, or tell without an end, by what loops, choices, tests and
imports can be made to do: each ends, with what is wrong with it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from support import pem, recipe

MANY = ", ".join(["1"] * 60)
TWICE = "".join(
    f"def f{n}(x: number) -> number = sum([f{n - 1}(x), f{n - 1}(x)])\n" for n in range(1, 40)
)
LISTS = ", ".join(f"[{MANY}]" for _ in range(6))

HOSTILE: dict[str, tuple[str, str]] = {
    "loops in loops": (
        f"let ns = [{MANY}]\nlet x = {'[len(' * 20}ns"
        f"{''.join(f') for n{i} in ns]' for i in range(20))}\n",
        "PEM0333",
    ),
    "sums of sums": (f"def f0(x: number) -> number = x\n{TWICE}let x = f39(1)\n", "PEM0333"),
    "long zips in a loop": (
        f"let ns = [{MANY}]\nlet x = [sum([a + b + c + d + e + f "
        f"for a, b, c, d, e, f in zip({LISTS})]) for n in ns]\n"
        "let y = [sum([n * m for n in ns]) for m in [k for k in x]]\n"
        "let z = [sum([sum([n * m for n in ns]) for m in ns]) for k in ns]\n",
        "PEM0333",
    ),
    "choices in choices": ("let x = " + "if true then 1 else " * 500 + "2\n", "PEM0109"),
    "choices within the other": (
        f"let x = {'if true then ' * 500}1{' else 2' * 500}\n", "PEM0109",
    ),
    "items of items": ("let xs = [1]\nlet y = xs" + "[0]" * 500 + "\n", "PEM0109"),
    "params without an end": (
        f"def f({', '.join(f'x{i}: number in 0..1 = 0' for i in range(2000))}) -> number = 1\n"
        + "".join(f"let y{i} = f()\n" for i in range(1500)),
        "PEM0333",
    ),
    "a long list, printed over and over": (
        f"let ns = [{', '.join(['1'] * 5000)}]\n" + "print ns\n" * 5000, "PEM0333",
    ),
    "a condition that doubles": (
        "param p: bool = true\nlet c0 = p and p\n"
        + "".join(f"let c{i} = c{i - 1} and c{i - 1}\n" for i in range(1, 60)),
        "PEM0333",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_it_ends_with_what_is_wrong(what: str, tmp_path: Path) -> None:
    text, code = HOSTILE[what]
    path = recipe(tmp_path, text)
    in_a_test = recipe(tmp_path, f'{text}test "t" {{ assert true }}\n', "tested.pem")
    for words in (("check", path), ("test", in_a_test)):
        began = time.process_time()
        done = pem(*words)
        assert time.process_time() - began < 20
        assert (done.code, f"error[{code}]" in done.text) == (1, True), done.text[:500]
        assert "Traceback" not in done.text


def test_the_same_within_a_test(tmp_path: Path) -> None:
    """One test that goes too far keeps none of the others from being run."""
    text = f"def f0(x: number) -> number = x\n{TWICE}"
    text += 'test "far" { print f39(1) print [f39(n) for n in [1, 2]] }\n'
    text += 'test "right" { assert f3(1) == 8 }\n'
    done = pem("test", recipe(tmp_path, text))
    assert done.out.startswith(f"{tmp_path / 'recipe.pem'} F.")
    assert done.out.count("error[PEM0333]") == 2


def test_many_tests_are_run(tmp_path: Path) -> None:
    text = "".join(
        f'test "t{n}" {{ assert sum([k for k in [{n}, 1]]) > 0 }}\n' for n in range(3000)
    )
    done = pem("test", recipe(tmp_path, text))
    assert (done.code, "3000 passed" in done.out) == (0, True)


def test_files_that_import_each_other(tmp_path: Path) -> None:
    """In a ring, and in a row that is too long: told, whatever they hand on."""
    for n in range(3):
        recipe(
            tmp_path, f'export import "ring{(n + 1) % 3}.pem" (x)\nlet y{n} = 1\n', f"ring{n}.pem"
        )
    done = pem("check", tmp_path / "ring0.pem")
    assert (done.code, "error[PEM0204]" in done.err) == (1, True), done.err
    for n in range(300):
        recipe(tmp_path, f'export import "row{n + 1}.pem" (x)\n', f"row{n}.pem")
    recipe(tmp_path, "let x = 1\n", "row300.pem")
    done = pem("check", tmp_path / "row0.pem")
    assert done.code == 1 and "error[" in done.err and "Traceback" not in done.err
