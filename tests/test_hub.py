"""Adapters on the hub, against a server that speaks its download protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support import Done, delta, lora, pem, recipe, tensors_of
from support.hub_server import Hub, serving
from support.outputs import WEIGHTS, provenance

BIG = {f"layers.{i}.q_proj": (256, 256) for i in range(20)}


@dataclass
class World:
    """A hub with some adapters, and a user with an empty cache."""

    hub: Hub
    folder: Path
    source: Path

    def pem(self, command: str, text: str, **env: str) -> Done:
        """Run a command on a recipe: in a process, for the library reads its environment once."""
        return pem(command, recipe(self.folder, text), process=True, **self.env | env)

    @property
    def env(self) -> dict[str, str]:
        return self.hub.env(self.folder / "cache")

    @property
    def built(self) -> Path:
        return self.folder / "out/x"

    def is_the_sum(self) -> bool:
        """Whether what was built is a + b."""
        total, a, b = delta(self.built), delta(self.source / "a"), delta(self.source / "b")
        return all(abs(total[site] - a[site] - b[site]).max() < 1e-5 for site in BIG)


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
ALONE = 'adapter a = "{reference}"\nsave a to "out/x"'


def test_a_check_fetches_the_header_and_not_the_tensors(world: World) -> None:
    assert world.pem("check", SUM.format(b="b")) == Done(0, "", "")
    size = (world.source / "a" / WEIGHTS).stat().st_size
    assert 0 < world.hub.bytes_of(WEIGHTS) <= 2 * 100_001 < size


@pytest.mark.parametrize(("holds", "fetched"), [("same(x, x)", False), ("norm(b) > 0", True)])
def test_a_test_fetches_what_it_measures_alone(world: World, holds: str, fetched: bool) -> None:
    text = 'adapter a = "hf://org/a"\nadapter b = "hf://org/b"\n'
    text += f'test "drawn" {{\n    let x = sample(lora)\n    assert {holds}\n}}\n'
    assert world.pem("test", text).code == 0
    size = (world.source / "a" / WEIGHTS).stat().st_size
    assert (world.hub.bytes_of(WEIGHTS) > size) is fetched
    assert world.hub.bytes_of(WEIGHTS) < 2 * size


def test_a_build_of_hub_adapters_is_that_of_the_directories(world: World) -> None:
    done = world.pem("build", SUM.format(b="b"))
    assert (done.code, done.err) == (0, "")
    assert world.is_the_sum()


def test_a_pickled_adapter_on_the_hub(world: World) -> None:
    assert world.pem("check", SUM.format(b="pickled")).code == 0
    assert world.pem("build", SUM.format(b="pickled")).code == 0
    assert world.is_the_sum()


def test_a_cached_pickle_does_not_stand_in_for_the_tensors(world: World) -> None:
    """A repository with both is read as a directory with both is, whatever is in the cache."""
    both = shutil.copytree(world.source / "a", world.source / "both")
    torch.save(tensors_of(world.source / "b"), both / "adapter_model.bin")
    world.hub.repos["org/both"] = {"main": both}
    fetch = "import huggingface_hub as h\nfor name in ('adapter_config.json', 'adapter_model.bin'):"
    subprocess.run(
        [sys.executable, "-c", fetch + "\n    h.hf_hub_download('org/both', name)"],
        env=os.environ | world.env,
        check=True,
        capture_output=True,
    )
    assert world.pem("build", ALONE.format(reference="hf://org/both")).code == 0
    built, wanted = delta(world.built), delta(world.source / "a")
    assert all((built[site] == wanted[site]).all() for site in BIG)


def test_damaged_tensors_on_the_hub_are_told(world: World) -> None:
    weights = world.source / "a" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    done = world.pem("build", ALONE.format(reference="hf://org/a"))
    assert (done.code, "error[PEM0412]" in done.err) == (1, True)


def test_a_revision_is_the_one_named(world: World) -> None:
    text = 'adapter a: lora(rank={r}) = "hf://org/a@{revision}"\nsave a to "out/x"'
    commit = world.hub.commit(world.source / "old")
    for revision, rank in (("main", 16), ("v1", 8), (commit, 8)):
        assert world.pem("build", text.format(r=rank, revision=revision)).code == 0
    assert delta(world.built).keys() == BIG.keys()


def test_a_built_adapter_needs_no_network_again(world: World) -> None:
    text = SUM.format(b="b")
    assert world.pem("build", text).code == 0
    first = (world.built / WEIGHTS).read_bytes()
    world.hub.sent.clear()
    done = world.pem("build", text, HF_HUB_OFFLINE="1")
    assert (done.code, done.err) == (0, "")
    assert (world.built / WEIGHTS).read_bytes() == first
    assert world.hub.sent == []


def test_a_pinned_adapter_in_the_cache_is_not_asked_for(world: World) -> None:
    commit = world.hub.commit(world.source / "a")
    text = ALONE.format(reference=f"hf://org/a@{commit}")
    assert world.pem("build", text).code == 0
    world.hub.sent.clear()
    assert world.pem("build", text).code == 0
    assert world.hub.sent == []


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("hf://org/nowhere", "PEM0441"),
        ("hf://org/a@nothing", "PEM0441"),
        ("hf://org/empty", "PEM0441"),
        ("hf://org/a/nowhere", "PEM0441"),
        ("hf://org", "PEM0440"),
        ("hf://org/a@../../x", "PEM0440"),
        ("hf://org/a/b/../c", "PEM0440"),
        ("hf://org/a//b", "PEM0440"),
    ],
)
def test_what_cannot_be_fetched_is_said(world: World, reference: str, code: str) -> None:
    done = world.pem("build", ALONE.format(reference=reference))
    assert (done.code, f"error[{code}]" in done.err) == (1, True)
    assert "Traceback" not in done.err
    assert not (world.folder / "out").exists()


def test_no_hub_at_all(world: World) -> None:
    done = world.pem("check", SUM.format(b="b"), HF_ENDPOINT="http://127.0.0.1:1")
    assert (done.code, "error[PEM0441]" in done.err) == (1, True)
    assert "Traceback" not in done.err


def test_an_adapter_in_a_folder_of_a_repository(world: World) -> None:
    """Built from the folder; its lock and its provenance say the commit, and hold without the
    branch."""
    shutil.copytree(world.source / "a", world.source / "run" / "checkpoint-500" / "chat")
    world.hub.repos["org/run"] = {"main": world.source / "run"}
    text = ALONE.format(reference="hf://org/run/checkpoint-500/chat@main")
    assert world.pem("check", text) == Done(0, "", "")
    assert world.pem("build", text).code == 0
    built, wanted = delta(world.built), delta(world.source / "a")
    assert all((built[site] == wanted[site]).all() for site in BIG)
    commit = world.hub.commit(world.source / "run")
    [uri, *_] = [
        x["uri"]
        for x in provenance(world.built)["predicate"]["buildDefinition"]["resolvedDependencies"]
    ]
    assert uri.startswith(f"hf://org/run/checkpoint-500/chat@{commit}/")
    inside = {"process": True, **world.env}
    path = world.folder / "recipe.pem"
    assert pem("lock", path, **inside).code == 0
    assert commit in (world.folder / "pem.lock").read_text()
    assert pem("build", path, "--locked", "--force", **inside).code == 0
    assert pem("verify", world.built, "--rebuild", **inside).code == 0


def test_what_else_is_in_the_cache_is_no_part_of_an_adapter(world: World) -> None:
    """Another program may have fetched the config of a model beside it, here and not elsewhere."""
    config = {"architectures": ["LlamaForCausalLM"], "num_attention_heads": 4}
    (world.source / "a" / "config.json").write_text(json.dumps(config))
    text = ALONE.format(reference="hf://org/a")
    assert world.pem("lock", text).code == 0
    assert world.pem("build", text).code == 0
    before = provenance(world.built)
    [snapshot] = (world.folder / "cache").rglob("snapshots/*")
    shutil.copy(world.source / "a" / "config.json", snapshot)
    done = pem(
        "build", "--locked", "--force", world.folder / "recipe.pem", process=True, **world.env
    )
    assert done.code == 0, done.err
    assert provenance(world.built) == before


def test_the_folders_of_a_repository_that_hold_adapters_are_named(world: World) -> None:
    for step in (1000, 500):
        shutil.copytree(world.source / "a", world.source / "run" / f"checkpoint-{step}")
    world.hub.repos["org/run"] = {"main": world.source / "run"}
    said = world.pem("check", ALONE.format(reference="hf://org/run")).err
    assert "error[PEM0441]" in said
    assert "hf://org/run/checkpoint-500, hf://org/run/checkpoint-1000" in said
