"""examples/methods: one recipe with every merge method there is, which builds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from support import delta

import pemlang
from pemlang.ops import linear, parameters
from pemlang.ops.merge import KINDS

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.filterwarnings("ignore::pemlang.diagnostics.PemWarning")
def test_the_recipe_has_every_method_and_builds(tmp_path: Path) -> None:
    for name in ("quickstart", "methods"):
        left_out = shutil.ignore_patterns("out", "__pycache__")
        shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=left_out)
    path = tmp_path / "methods" / "methods.pem"
    called = set(re.findall(r"^save (\w+)\(", path.read_text(), re.MULTILINE))
    anywhere = {name for name, kind in KINDS.items() if not any(kind.statistics)}
    assert called == {*anywhere, *(op.name for op in linear.OPERATORS), parameters.PEFT_LINEAR.name}
    outputs = pemlang.load(path).build().outputs
    assert len(outputs) == path.read_text().count("\nsave ")
    assert all(any(x.any() for x in delta(output.path).values()) for output in outputs)
