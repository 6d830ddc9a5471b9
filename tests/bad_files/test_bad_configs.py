"""Configs of adapters that are none, are of the wrong types, or do not fit the tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import lora, pem
from support.refusals import refused

CONFIGS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "PEM0414"),
    "a list": (b"[]", "PEM0414"),
    "nested without end": (b"[" * 100_000, "PEM0414"),
    "not UTF-8": (b'{"r": "\xff"}', "PEM0414"),
    "no method": (b"{}", "PEM0420"),
    "a method that is a number": (b'{"peft_type": 3}', "PEM0414"),
    "another method": (b'{"peft_type": "VERA"}', "PEM0420"),
}
FIELDS: list[tuple[str, Any]] = [
    ("r", "8"), ("r", 0), ("r", -8), ("r", True), ("r", 8.5), ("r", [8]),
    ("lora_alpha", "16"), ("lora_alpha", True), ("lora_alpha", 1e400), ("lora_alpha", 10**400),
    ("use_rslora", "yes"), ("rank_pattern", []), ("rank_pattern", {"x": "8"}),
    ("alpha_pattern", {"x": [1]}), ("fan_in_fan_out", 1), ("modules_to_save", 5),
    ("modules_to_save", [5]), ("base_model_name_or_path", 7),
]  # fmt: skip


@pytest.mark.parametrize("what", CONFIGS)
def test_a_config_that_is_none(folder: Path, what: str) -> None:
    data, code = CONFIGS[what]
    (folder / "a" / "adapter_config.json").write_bytes(data)
    refused(folder, code)


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_field_of_the_wrong_type(folder: Path, field: str, value: Any) -> None:
    lora(folder / "a", 1, **{field: value})
    assert field in refused(folder, "PEM0414")


BROKEN = ["[", "(", "a" * 20_000, "(?:a{999}){99}", "(?=.)(?:(?:.{60000}){60000}){60000}"]


@pytest.mark.parametrize("key", [*BROKEN, "(?!b)(?:q|qq)+"])
def test_a_pattern_that_cannot_be_used(folder: Path, key: str) -> None:
    lora(folder / "a", 1, {f"model.{'q' * 60}c": (8, 8)}, rank_pattern={key: 4})
    refused(folder, "PEM0424")


@pytest.mark.parametrize(
    "key", ["(a+)+$", "(.*)*x", "a?" * 32 + "b", "b{9999}", "[[:alpha:]]", "q{e}"]
)
def test_a_pattern_that_python_would_take_for_ever_with(folder: Path, key: str) -> None:
    lora(folder / "a", 1, {f"model.{'a' * 200}": (8, 8)}, rank_pattern={key: 4})
    lora(folder / "b", 2, {f"model.{'a' * 200}": (8, 8)})
    assert pem("check", folder / "recipe.pem").code == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r".*\.0\..*query|.*value"},
        {"layers_to_transform": [0]},
        {"layers_to_transform": 0, "layers_pattern": "layer"},
        {"modules_to_save": ["layer.1.attention"]},
        {"exclude_modules": r".*\.1\.attention\.self\.query"},
    ],
)
def test_tensors_that_peft_would_ignore(folder: Path, fields: dict[str, Any]) -> None:
    lora(folder / "a", 1, **fields)
    assert "encoder.layer.1.attention.self.query" in refused(folder, "PEM0415")


def test_a_layers_pattern_that_is_a_number(folder: Path) -> None:
    lora(folder / "a", 1, layers_to_transform=0, layers_pattern=5)
    refused(folder, "PEM0415")


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r"encoder\.layer\.[01]\.attention\.self\.(query|value)"},
        {"target_modules": "All-Linear"},
        {"modules_to_save": ["classifier"]},
        {"layers_to_transform": [0, 1], "layers_pattern": ["layer"]},
        {"layers_to_transform": []},
    ],
)
def test_tensors_that_peft_takes(folder: Path, fields: dict[str, Any]) -> None:
    lora(folder / "a", 1, **fields)
    assert pem("build", "recipe.pem", folder=folder).code == 0


def test_rank_and_alpha_that_tensors_cannot_mean(folder: Path) -> None:
    lora(folder / "a", 1, r=8)
    assert "rank 4" in refused(folder, "PEM0415")
