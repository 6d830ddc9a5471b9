"""What a build refuses: a coded error, no traceback, nothing written."""

from __future__ import annotations

from pathlib import Path

from support.command import pem

WEIGHTS = "adapter_model.safetensors"


def refused(folder: Path, code: str, name: str = "recipe.pem") -> str:
    """That a build says this code alone and writes nothing; what it says."""
    before = sorted(folder.rglob("*"))
    done = pem("build", name, folder=folder)
    assert done.code == 1
    assert done.out == ""
    assert done.err.count("error[") == 1
    assert f"error[{code}]" in done.err
    assert sorted(folder.rglob("*")) == before
    return done.err
