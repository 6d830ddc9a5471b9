"""What a build says when the dtype of a file is too coarse for its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import build, gains, ia3, lora, tensors_of


@pytest.mark.parametrize(("weight", "codes"), [("1", []), ("0.01", ["PEM0704"])])
def test_gains_in_bf16(tmp_path: Path, weight: str, codes: list[str]) -> None:
    """l is close to 1 and kept to three digits; what counts is l − 1."""
    ia3(tmp_path / "a", 1, dtype=torch.bfloat16)
    result = build(tmp_path, f'adapter a = "a"\nsave {weight} * a to "out/x"\n')
    assert [warning.code for warning in result.warnings] == codes
    exact, kept = gains(tmp_path / "a"), gains(tmp_path / "out/x")
    lost = sum(((float(weight) * (exact[s] - 1) - (kept[s] - 1)) ** 2).sum() for s in exact)
    norm = sum(((float(weight) * (exact[s] - 1)) ** 2).sum() for s in exact)
    share = (lost / norm) ** 0.5
    assert (share > 0.01) == bool(codes)
    if codes:
        assert f"by {share:.1%}" in result.warnings[0].message


def test_small_factors_in_f16(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    tensors = tensors_of(tmp_path / "a")
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    text = 'adapter a = "a"\nsave {} * a to "out/x" with dtype=f16\n'
    assert build(tmp_path, text.format("1")).warnings == ()
    [warning] = build(tmp_path, text.format("0.000001")).warnings
    assert warning.code == "PEM0704"


def test_bf16_of_a_lora_is_fine_enough(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    text = 'adapter a = "a"\nsave 0.001 * a to "out/x" with dtype=bf16\n'
    assert build(tmp_path, text).warnings == ()
