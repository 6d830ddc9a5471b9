"""`pem ops`: what is said of each operator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import pem, recipe
from support.calls import ALIKE, DECLARED, stock

import pemlang
from pemlang.ops import FUNCTIONS, every_operator
from pemlang.show import operators


def test_the_example_of_every_operator_checks(tmp_path: Path) -> None:
    stock(tmp_path)
    of_adapters = [x for x in every_operator() if x.signatures[0].returns != "model"]
    examples = [operators.example(operator) for operator in of_adapters]
    lines = [f"let x{n} = {text}\n" for n, text in enumerate(examples)]
    text = "".join([DECLARED, *lines, f'save {ALIKE[0]} to "out"\n'])
    assert pemlang.load(recipe(tmp_path, text)).check() == ()


def test_pem_ops_says_what_every_setting_means() -> None:
    """And what it is where it is not given: λ of a formula is `scale`."""
    for operator in every_operator():
        text = operators.as_text(operator)
        assert f"\n  Example: {operators.example(operator)}\n" in f"{text}\n"
        for param in operator.signatures[0].params if not operator.symbols else ():
            if not {"adapter", "[adapter]", "model"} & set(param.kinds) or param.name == "like":
                meaning = re.search(rf"^  {param.name}: (.*)$", text, re.MULTILINE)
                assert meaning and len(meaning[1].split()) > 3, (operator.name, param.name)
                if not param.required and param.name not in ("rank", "energy"):
                    assert "not given" in meaning[1], (operator.name, param.name)
    ties = operators.as_text(FUNCTIONS["ties"])
    assert "scale: what the result is multiplied by, λ; 1 where it is not given" in ties


@pytest.mark.parametrize(("typed", "symbol"), [(".+", "⊕"), (".-", "⊖"), (".*", "⊗")])
def test_an_operator_goes_by_what_is_typed_for_it(typed: str, symbol: str) -> None:
    done = pem("ops", typed)
    assert (done.code, done.text) == (0, pem("ops", symbol).text)


def test_words_of_other_tools_are_answered_by_ops() -> None:
    assert "compress(a + b, rank=16)" in pem("ops", "svd").err
    assert "import std.paper (unlearn)" in pem("ops", "unlearn").err
