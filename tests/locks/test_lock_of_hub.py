"""Adapters of the hub in pem.lock: a branch stands for the commit it had, which needs no network
again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from support import Done, lora, pem, recipe, tensors_of
from support.hub_server import serving
from support.outputs import PROVENANCE, WEIGHTS


def test_a_branch_is_pinned_and_needs_no_network_again(tmp_path: Path) -> None:
    old, new = lora(tmp_path / "source/old", 1), lora(tmp_path / "source/new", 2)
    home, cache = tmp_path / "home", tmp_path / "cache"
    recipe(home, 'adapter a = "hf://org/a"\nsave a to "out/x"\n')
    with serving({"org/a": {"main": old}}) as hub:

        def run(*words: str, **env: str) -> Done:
            return pem(*words, folder=home, process=True, **hub.env(cache) | env)

        assert run("lock", "recipe.pem").code == 0
        locked = json.loads((home / "pem.lock").read_text())
        commit = hub.commit(old)
        assert locked["adapters"]["hf://org/a"]["revision"] == commit
        # The branch moves; what was locked is still there by its commit.
        hub.repos["org/a"] = {"main": new, "old": old}
        shutil.rmtree(cache)
        assert run("build", "--locked", "recipe.pem").code == 0
        assert all(map(torch.equal, tensors_of(home / "out/x").values(), tensors_of(old).values()))
        hub.sent.clear()
        again = run("build", "--locked", "--force", "recipe.pem", HF_HUB_OFFLINE="1")
        assert (again.code, again.err, hub.sent) == (0, "", [])
        assert run("verify", "--rebuild", "out/x", HF_HUB_OFFLINE="1").code == 0
        statement = (home / "out/x" / PROVENANCE).read_text()
        assert f"hf://org/a@{commit}/{WEIGHTS}" in statement
        shutil.rmtree(cache)
        assert run("check", "--locked", "recipe.pem").code == 0
        assert run("plan", "--locked", "recipe.pem", "--format", "json").code == 0
        assert hub.sent == []
        # Without the lock the branch counts.
        assert run("build", "recipe.pem").code == 0
        assert all(map(torch.equal, tensors_of(home / "out/x").values(), tensors_of(new).values()))
