"""Messages about configurations of mergekit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.messages.case import Diagnostics, made, told

LINEAR = "models:\n  - model: org/chat\n    parameters: {weight: 1}\n  - model: org/code\n"


def converted(root: Path, text: str) -> Diagnostics:
    """What `pem convert` says of a configuration."""
    (root / "merge.yml").write_text(text)
    (root / "merge.pem").unlink(missing_ok=True)
    try:
        return told("convert", "merge.yml")
    finally:
        (root / "merge.yml").unlink()
        (root / "merge.pem").unlink(missing_ok=True)


@made
def PEM0830_not_installed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setitem(sys.modules, "yaml", None)
    return converted(root, LINEAR)


@made
def PEM0831_no_yaml(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return converted(root, "models:\n  - model: [org/chat\nmerge_method: ties\n")


@made
def PEM0831_twice(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return converted(root, "merge_method: ties\nmerge_method: linear\n")


@made
def PEM0831_aliases(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    doubled = "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30))
    return converted(root, f"a0: &a0 x\n{doubled}")


@made
def PEM0831_in_itself(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return converted(root, "models: &all [{model: a}, *all]\nmerge_method: linear\n")


@made
def PEM0832_misspelt(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return converted(root, LINEAR + "merge_metod: linear\n")


@made
def PEM0832_setting(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return converted(root, LINEAR + "merge_method: ties\nparameters: {desnity: 0.5}\n")


@made
def PEM0832_needed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return converted(root, LINEAR + "merge_method: linear\n")


@made
def PEM0833_union(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    three = LINEAR + "  - model: org/math\n"
    text = three + "merge_method: linear\nparameters: {weight: 1}\ntokenizer_source: union\n"
    return converted(root, text)


@made
def PEM0833_tokens_of_another(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    models = "models:\n  - model: models/few\n  - model: models/many\nmerge_method: linear\n"
    return converted(root, models + "parameters: {weight: 1}\ntokenizer_source: models/lines\n")


@made
def PEM0833_points(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    text = "merge_method: linear\nparameters:\n  weight: 1\n  normalize: false\n"
    return converted(root, LINEAR + text)


@made
def PEM0834_no_effect(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    text = "merge_method: linear\nparameters: {weight: 1, density: 0.5, int8_mask: true}\n"
    return converted(root, LINEAR + text)


@made
def PEM0832_model_twice(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return converted(root, LINEAR + "  - model: org/chat\nmerge_method: linear\n")


@made
def PEM0832_lengths(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    sources = [f"{{model: org/m{end}, layer_range: [0, {end}]}}" for end in (8, 16)]
    return converted(root, f"slices: [{{sources: [{', '.join(sources)}]}}]\nmerge_method: linear\n")


@made
def PEM0832_no_method(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return converted(root, LINEAR)
