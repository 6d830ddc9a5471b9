"""Messages about adapters of mlx-lm."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from support.messages.case import MADE, Diagnostics, text_checked
from support.mlx_made import BROKEN, WEIGHTS, mlx_lora


def of_broken(name: str, root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    """What a check says of an adapter that is broken."""
    mlx_lora(root / "mlx" / name, 1, **BROKEN[name][1])
    return text_checked(root, f'adapter x = "mlx/{name}"\n')


def of_no_tensors(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    (mlx_lora(root / "mlx/none", 1) / WEIGHTS).unlink()
    return text_checked(root, 'adapter x = "mlx/none"\n')


for _name in ("DoRA", "whole weights", "experts", "no scale", "another rank", "a weight",
              "half a site", "nothing", "whole numbers"):  # fmt: skip
    MADE[f"{BROKEN[_name][0]}-mlx-{_name.replace(' ', '-')}"] = partial(of_broken, _name)
MADE["PEM0410-mlx-no-tensors"] = of_no_tensors
