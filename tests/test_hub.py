"""Adapters on the hub, against a server that speaks its download protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hub_server import Hub, serving
from support import delta, lora, recipe, tensors_of

WEIGHTS = "adapter_model.safetensors"
BIG = {f"layers.{i}.q_proj": (256, 256) for i in range(20)}


@dataclass
class World:
    """A hub with some adapters, and a user with an empty cache."""

    hub: Hub
    folder: Path
    source: Path

    def pem(self, command: str, text: str, **env: str) -> subprocess.CompletedProcess[str]:
        path = recipe(self.folder, text)
        environment = os.environ | {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "cache"),
            "HF_HUB_OFFLINE": "0",
        }
        return subprocess.run(
            [sys.executable, "-m", "pemlang", command, str(path)],
            env=environment | env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    source = tmp_path / "source"
    lora(source / "a", 1, BIG, rank=16)
    lora(source / "b", 2, BIG, rank=16)
    lora(source / "old", 3, BIG, rank=8)
    pickled = shutil.copytree(source / "b", source / "pickled")
    torch.save(tensors_of(source / "b"), pickled / "adapter_model.bin")
    (pickled / WEIGHTS).unlink()
    repos = {
        "org/a": {"main": source / "a", "v1": source / "old"},
        "org/b": {"main": source / "b"},
        "org/pickled": {"main": pickled},
        "org/empty": {"main": source},
    }
    with serving(repos) as hub:
        yield World(hub, tmp_path / "home", source)


SUM = 'adapter a = "hf://org/a"\nadapter b = "hf://org/{b}"\nsave a + b to "out/x"'


def test_a_check_fetches_the_header_and_not_the_tensors(world: World) -> None:
    done = world.pem("check", SUM.format(b="b"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    size = (world.source / "a" / WEIGHTS).stat().st_size
    assert 0 < world.hub.bytes_of(WEIGHTS) <= 2 * 100_001 < size


def test_a_build_of_hub_adapters_is_that_of_the_directories(world: World) -> None:
    done = world.pem("build", SUM.format(b="b"))
    assert (done.returncode, done.stderr) == (0, "")
    found = delta(world.folder / "out/x")
    one, two = delta(world.source / "a"), delta(world.source / "b")
    assert all(abs(found[site] - one[site] - two[site]).max() < 1e-5 for site in BIG)


def test_a_pickled_adapter_on_the_hub(world: World) -> None:
    assert world.pem("check", SUM.format(b="pickled")).returncode == 0
    assert world.pem("build", SUM.format(b="pickled")).returncode == 0
    found = delta(world.folder / "out/x")
    one, two = delta(world.source / "a"), delta(world.source / "b")
    assert all(abs(found[site] - one[site] - two[site]).max() < 1e-5 for site in BIG)


def test_a_cached_pickle_does_not_stand_in_for_the_tensors(world: World) -> None:
    """A repository with both is read as a directory with both is, whatever is in the cache."""
    both = shutil.copytree(world.source / "a", world.source / "both")
    torch.save(tensors_of(world.source / "b"), both / "adapter_model.bin")
    world.hub.repos["org/both"] = {"main": both}
    fetch = "import huggingface_hub as h\nfor name in ('adapter_config.json', 'adapter_model.bin'):"
    subprocess.run(
        [sys.executable, "-c", fetch + "\n    h.hf_hub_download('org/both', name)"],
        env=os.environ
        | {"HF_ENDPOINT": world.hub.url, "HF_HOME": str(world.folder / "cache")}
        | {"HF_HUB_OFFLINE": "0"},
        check=True,
        capture_output=True,
    )
    text = 'adapter a = "hf://org/both"\nsave a to "out/x"'
    assert world.pem("build", text).returncode == 0
    found, wanted = delta(world.folder / "out/x"), delta(world.source / "a")
    assert all((found[site] == wanted[site]).all() for site in BIG)


def test_damaged_tensors_on_the_hub_are_told(world: World) -> None:
    weights = world.source / "a" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    done = world.pem("build", 'adapter a = "hf://org/a"\nsave a to "out/x"')
    assert (done.returncode, "error[PEM0412]" in done.stderr) == (1, True)


def test_a_revision_is_the_one_named(world: World) -> None:
    text = 'adapter a: lora(rank={r}) = "hf://org/a@{revision}"\nsave a to "out/x"'
    commit = world.hub.commit(world.source / "old")
    for revision, rank in (("main", 16), ("v1", 8), (commit, 8)):
        assert world.pem("build", text.format(r=rank, revision=revision)).returncode == 0
    assert delta(world.folder / "out/x").keys() == BIG.keys()


def test_a_built_adapter_needs_no_network_again(world: World) -> None:
    text = SUM.format(b="b")
    assert world.pem("build", text).returncode == 0
    first = (world.folder / "out/x" / WEIGHTS).read_bytes()
    world.hub.sent.clear()
    done = world.pem("build", text, HF_HUB_OFFLINE="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert (world.folder / "out/x" / WEIGHTS).read_bytes() == first
    assert world.hub.sent == []


def test_a_pinned_adapter_in_the_cache_is_not_asked_for(world: World) -> None:
    commit = world.hub.commit(world.source / "a")
    text = f'adapter a = "hf://org/a@{commit}"\nsave a to "out/x"'
    assert world.pem("build", text).returncode == 0
    world.hub.sent.clear()
    assert world.pem("build", text).returncode == 0
    assert world.hub.sent == []


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("hf://org/nowhere", "PEM0441"),
        ("hf://org/a@nothing", "PEM0441"),
        ("hf://org/empty", "PEM0441"),
        ("hf://org", "PEM0440"),
        ("hf://org/a@../../x", "PEM0440"),
        ("hf://org/a/b/c", "PEM0440"),
    ],
)
def test_what_cannot_be_fetched_is_said(world: World, reference: str, code: str) -> None:
    done = world.pem("build", f'adapter a = "{reference}"\nsave a to "out/x"')
    assert done.returncode == 1
    assert f"error[{code}]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (world.folder / "out").exists()


def test_no_hub_at_all(world: World) -> None:
    done = world.pem("check", SUM.format(b="b"), HF_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "error[PEM0441]" in done.stderr
    assert "Traceback" not in done.stderr
