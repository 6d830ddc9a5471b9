"""The provenance of an output: what it states, and what is told of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from blake3 import blake3
from safetensors.torch import load_file
from support import build, pem
from support.outputs import CONFIG, PROVENANCE, TEXT, WEIGHTS, asked, provenance

import pemlang


def test_the_statement_is_one_of_in_toto(output: Path) -> None:
    statement = provenance(output)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {subject["name"]: subject for subject in statement["subject"]}
    assert subjects.keys() == {path.name for path in output.iterdir()} - {PROVENANCE}
    for name, subject in subjects.items():
        data = (output / name).read_bytes()
        assert subject["digest"] == {
            "sha256": hashlib.sha256(data).hexdigest(),
            "blake3": blake3(data).hexdigest(),
        }
    assert subjects[CONFIG]["annotations"]["parts"] == json.loads((output / CONFIG).read_text())
    tensors = load_file(output / WEIGHTS)
    assert subjects[WEIGHTS]["annotations"]["parts"] == {
        key: blake3(f"F32 {list(value.shape)}\n".encode() + value.numpy().tobytes()).hexdigest()
        for key, value in tensors.items()
    }
    assert asked(statement)["recipe"] == {"name": "recipe.pem", "text": TEXT}
    folder = output.parent.parent
    for material in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if material["uri"] != "std.paper":
            data = (folder / material["uri"]).read_bytes()
            assert material["digest"]["blake3"] == blake3(data).hexdigest()


def test_the_statement_names_no_machine_and_no_time(folder: Path, tmp_path: Path) -> None:
    build(folder, TEXT)
    first = (folder / "out/x" / PROVENANCE).read_bytes()
    assert str(tmp_path).encode() not in first
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere/deep")
    options = pemlang.BuildOptions(force=True, threads=1)
    pemlang.load(elsewhere / "recipe.pem").build(options=options)
    assert (elsewhere / "out/x" / PROVENANCE).read_bytes() == first


def test_where_an_output_came_from_is_told(output: Path) -> None:
    done = pem("explain-output", output)
    assert done.code == 0
    for wanted in ("half * a + b = 0.5·a + 1·b", "LoRA, rank 8, 4 sites", "a/adapter_config.json"):
        assert wanted in done.out
    assert all(f"  {line}" in done.out.splitlines() for line in TEXT.splitlines())
