"""Models on the hub, against a server that speaks its download protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import pem, recipe
from support.hub_server import Hub, serving
from support.models import away, model, weights_of

TEXT = """base b = "b"
model m on b = "hf://org/m"
model n on b = "hf://org/n@main"
save n + 0.5 * (m - b) to "out"
"""
SHAPES = {f"model.layers.{n}.mlp.up_proj.weight": (512, 512) for n in range(9)}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A base here, and two fine-tunes on the hub, one of them in shards."""
    model(tmp_path / "b", shapes=SHAPES)
    model(tmp_path / "m", 1, SHAPES)
    model(tmp_path / "n", 2, SHAPES, shards=3)
    repos = {f"org/{name}": {"main": tmp_path / name} for name in "mn"}
    with serving(repos) as hub:
        yield hub


def test_a_check_fetches_headers_and_a_build_the_shards(hub: Hub, tmp_path: Path) -> None:
    path, env = recipe(tmp_path, TEXT), hub.env(tmp_path / "cache")
    assert pem("check", path, process=True, **env).text == ""
    whole = sum(file.stat().st_size for file in (tmp_path / "n").glob("*.safetensors"))
    fetched = sum(size for _, name, size in hub.sent if name.endswith(".safetensors"))
    assert 0 < fetched < whole / 4
    done = pem("build", path, process=True, **env)
    assert done.code == 0, done.text
    b, m, n = (weights_of(tmp_path / name) for name in "bmn")
    wanted = {key: n[key] + 0.5 * (m[key] - b[key]) for key in b}
    assert away(weights_of(tmp_path / "out"), wanted) < 1e-6
    assert (tmp_path / "out" / "tokenizer.json").exists()
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3


def test_a_built_model_needs_no_network_again(hub: Hub, tmp_path: Path) -> None:
    """What the hub has not, such as a chat template, is remembered too."""
    path, env = recipe(tmp_path, TEXT), hub.env(tmp_path / "cache")
    assert pem("build", path, process=True, **env).code == 0
    hub.sent.clear()
    again = pem("build", "--force", path, process=True, **env | {"HF_HUB_OFFLINE": "1"})
    assert (again.code, again.err, hub.sent) == (0, "", [])
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_no_answer_is_not_taken_for_a_file_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    """A model of which some files are in the cache is not built without its tokenizer."""
    path, env = recipe(tmp_path, TEXT), hub.env(tmp_path / "cache")
    assert pem("build", path, process=True, **env).code == 0
    for name in ("tokenizer.json", "chat_template.jinja"):
        for cached in (tmp_path / "cache").rglob(name):
            cached.unlink()
    done = pem("build", "--force", path, process=True, **env | {"HF_HUB_OFFLINE": "1"})
    assert done.code == 1 and "PEM0441" in done.err


def test_a_model_that_the_hub_does_not_have_is_said(hub: Hub, tmp_path: Path) -> None:
    text = 'model x = "hf://org/nope"\n'
    done = pem("check", recipe(tmp_path, text), process=True, **hub.env(tmp_path / "cache"))
    assert "PEM0441" in done.text
