"""examples/methods: one recipe with every merge method there is, which builds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support import delta

import pemlang
from pemlang.ops import METHODS, SECTIONS

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.filterwarnings("ignore::pemlang.PemWarning")
def test_the_recipe_has_every_method_and_builds(tmp_path: Path) -> None:
    for name in ("quickstart", "methods"):
        left_out = shutil.ignore_patterns("out", "__pycache__")
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=left_out)
    path = tmp_path / "methods" / "methods.pem"
    called = set(re.findall(r"^save (\w+)\(", path.read_text(), re.MULTILINE))
    [sums] = [section.operators for section in SECTIONS if section.title == "Weighted sums"]
    anywhere = {name for name, method in METHODS.items() if method.statistics is None}
    assert called == {*anywhere, *(operator.name for operator in sums), "peft_linear"}
    outputs = pemlang.load(path).build().outputs
    assert len(outputs) == path.read_text().count("\nsave ")
    assert all(any(x.any() for x in delta(output.path).values()) for output in outputs)
