"""Heads that differ: their mean, or none, where the recipe says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import PREFIX, config_of, error, lora, pem, recipe, tensors_of
from support.peft_made import composed, declared

HEAD = f"{PREFIX}classifier.weight"


def headed(folder: Path, dtype: torch.dtype, count: int) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    return {
        name: lora(
            folder / name,
            seed,
            extra={HEAD: torch.as_tensor(rng.normal(size=(3, 700_001))).to(dtype)},
            modules_to_save=["classifier"],
        )
        for seed, name in enumerate("xyz"[:count])
    }


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_mean_is_rounded_once(tmp_path: Path, dtype: torch.dtype, count: int) -> None:
    adapters = headed(tmp_path, dtype, count)
    adapters["bare"] = lora(tmp_path / "bare", 9)
    text = declared(adapters) + f'save {" + ".join(adapters)} to "out" with heads=mean\n'
    assert pem("build", recipe(tmp_path, text)).code == 0
    ours = tensors_of(tmp_path / "out")[HEAD]
    heads = torch.stack([tensors_of(adapters[name])[HEAD].double() for name in "xyz"[:count]])
    assert ours.dtype == dtype and torch.equal(ours, (heads.sum(0) / count).to(dtype))
    assert config_of(tmp_path / "out")["modules_to_save"] == ["classifier"]


def test_none_keeps_none(tmp_path: Path) -> None:
    out = composed(tmp_path, headed(tmp_path, torch.float32, 2), "x + y", "heads=none")
    assert HEAD not in tensors_of(out) and config_of(out)["modules_to_save"] is None


def test_a_mean_that_is_none(tmp_path: Path) -> None:
    """Heads of unlike shapes, of whole numbers, or with a NaN."""
    x = headed(tmp_path, torch.float32, 1)["x"]
    others = {
        "PEM0346": {HEAD: np.ones((2, 2), "f4")},
        "PEM0502": {HEAD: np.full((3, 700_001), np.nan, "f4")},
    }
    for code, extra in others.items():
        y = lora(tmp_path / code, 5, extra=extra, modules_to_save=["classifier"])
        text = declared({"x": x, "y": y}) + 'save x + y to "out" with heads=mean'
        assert error(tmp_path, text).code == code
    extra = {HEAD: np.ones((3, 4), "i4")}
    y = lora(tmp_path / "whole", 5, extra=extra, modules_to_save=["classifier"])
    text = declared({"y": y}) + 'save y to "out" with heads=mean'
    assert error(tmp_path, text).code == "PEM0346"
