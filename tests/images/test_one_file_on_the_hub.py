"""LoRAs in one file on the hub, against a server that speaks its download protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from support import Done, lora, pem, recipe
from support.gguf_made import gguf_deltas, gguf_lora
from support.hub_server import Hub, serving
from support.image_loras import ENDS, factors, image_deltas, image_lora
from support.outputs import WEIGHTS

SITES = dict.fromkeys((f"lora_unet_mid_block_to_{x}" for x in "qkv"), ((64,), (48,)))
DOTTED = dict.fromkeys((f"unet.mid_block.to_{x}" for x in "qkv"), ((64,), (48,)))
REFERENCE = "hf://org/styles/flat/ink.safetensors"
TEXT = 'adapter x = "{reference}"\nsave 0.5 * x to "out/z.safetensors"\n'


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with a repository of files, and one of an adapter of PEFT."""
    styles = tmp_path / "styles"
    image_lora(styles / "flat/ink.safetensors", factors(SITES, 1))
    image_lora(styles / "wash.safetensors", factors(DOTTED, 2), None, ENDS["peft"])
    image_lora(styles / "other.safetensors", factors({"x.0": ((2000,), (2000,))}, 3, 64))
    model = gguf.GGUFWriter(styles / "model.gguf", "llama")
    model.add_type("model")
    model.add_tensor("blk.0.attn_q.weight", np.ones((800, 800), np.float32))
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()
    lora(tmp_path / "peft", 1)
    with serving({"org/styles": {"main": styles}, "org/peft": {"main": tmp_path / "peft"}}) as made:
        yield made


def run(hub: Hub, folder: Path, *words: str | Path, **env: str) -> Done:
    return pem(*words, process=True, **hub.env(folder / "cache") | env)


def made(folder: Path, reference: str) -> Path:
    return recipe(folder, TEXT.format(reference=reference))


def test_it_is_built_and_needs_no_network_again(hub: Hub, tmp_path: Path) -> None:
    path = made(tmp_path, REFERENCE)
    assert run(hub, tmp_path, "check", path) == Done(0, "", "")
    assert run(hub, tmp_path, "build", path).code == 0
    before = image_deltas(tmp_path / "styles/flat/ink.safetensors")
    after = image_deltas(tmp_path / "out/z.safetensors")
    for site, delta in before.items():
        np.testing.assert_allclose(after[site], 0.5 * delta, atol=1e-6)
    hub.sent.clear()
    again = run(hub, tmp_path, "build", "--force", path, HF_HUB_OFFLINE="1")
    assert (again.code, again.err, hub.sent) == (0, "", [])


def test_its_lock_and_provenance_say_the_commit(hub: Hub, tmp_path: Path) -> None:
    path = made(tmp_path, f"{REFERENCE}@main")
    assert run(hub, tmp_path, "build", path).code == 0
    styles = tmp_path / "styles"
    commit = hub.commit(styles)
    built = json.loads((tmp_path / "out/z.safetensors.provenance.json").read_text())
    [uri, *_] = [x["uri"] for x in built["predicate"]["buildDefinition"]["resolvedDependencies"]]
    assert uri == f"hf://org/styles/flat@{commit}/ink.safetensors"
    assert run(hub, tmp_path, "verify", tmp_path / "out/z.safetensors", "--rebuild").code == 0
    assert run(hub, tmp_path, "lock", path).code == 0
    assert commit in (tmp_path / "pem.lock").read_text()
    image_lora(styles / "new/ink.safetensors", factors(SITES, 9))  # the branch moves
    (styles / "wash.safetensors").write_bytes(b"")
    hub.repos["org/styles"] = {"main": styles / "new"}
    assert run(hub, tmp_path, "check", path, "--locked").code == 0
    done = run(hub, tmp_path, "build", path, "--locked", "--force", HF_HUB_OFFLINE="1")
    assert (done.code, done.err) == (0, "")


def test_two_revisions_of_a_file_are_two_adapters_in_a_lock(hub: Hub, tmp_path: Path) -> None:
    image_lora(tmp_path / "older/flat/ink.safetensors", factors(SITES, 7))
    (tmp_path / "older/note").write_text("older")
    hub.repos["org/styles"]["v1"] = tmp_path / "older"
    text = f'adapter x = "{REFERENCE}"\nadapter y = "{REFERENCE}@v1"\n'
    path = recipe(tmp_path, f'{text}save x - y to "out/z.safetensors"\n')
    assert run(hub, tmp_path, "lock", path).code == 0
    planned = [run(hub, tmp_path, "plan", path, *more).out for more in ([], ["--locked"])]
    assert planned[0] == planned[1]
    assert run(hub, tmp_path, "build", path, "--locked").code == 0
    old = image_deltas(tmp_path / "older/flat/ink.safetensors")
    new = image_deltas(tmp_path / "styles/flat/ink.safetensors")
    for site, delta in image_deltas(tmp_path / "out/z.safetensors").items():
        np.testing.assert_allclose(delta, new[site] - old[site], atol=1e-4)


def test_one_of_llama_cpp(hub: Hub, tmp_path: Path) -> None:
    gguf_lora(tmp_path / "styles/llama/chat.gguf", 1)
    text = 'adapter x = "hf://org/styles/llama/chat.gguf"\nsave 0.5 * x to "out/z.gguf"\n'
    path = recipe(tmp_path, text)
    assert run(hub, tmp_path, "check", path) == Done(0, "", "")
    assert run(hub, tmp_path, "build", path).code == 0
    before = gguf_deltas(tmp_path / "styles/llama/chat.gguf")
    for site, delta in gguf_deltas(tmp_path / "out/z.gguf").items():
        np.testing.assert_allclose(delta, 0.5 * before[site], atol=1e-6)


def test_both_are_summed_by_the_names_of_one(hub: Hub, tmp_path: Path) -> None:
    text = f'adapter x = "{REFERENCE}"\n'
    text += 'adapter y = "hf://org/styles/wash.safetensors" with names=x\n'
    path = recipe(tmp_path, f'{text}save x + y to "out/z.safetensors"\n')
    assert run(hub, tmp_path, "build", path).code == 0
    assert image_deltas(tmp_path / "out/z.safetensors").keys() == SITES.keys()


def test_it_is_converted_by_the_names_of_another(hub: Hub, tmp_path: Path) -> None:
    words = ["hf://org/styles/wash.safetensors", str(tmp_path / "z.safetensors"), "--to", "kohya"]
    assert run(hub, tmp_path, "convert", *words, "--like", REFERENCE).code == 0
    assert image_deltas(tmp_path / "z.safetensors").keys() == SITES.keys()


@pytest.mark.parametrize(
    ("reference", "code", "told"),
    [
        ("hf://org/styles/other.safetensors", "PEM0410", "no LoRA in one file"),
        ("hf://org/styles/model.gguf", "PEM0410", "no LoRA in one file"),
        (f"hf://org/peft/{WEIGHTS}@main", "PEM0410", '"hf://org/peft@main"'),
        ("hf://org/styles/none.safetensors", "PEM0441", "none.safetensors"),
        ("hf://org/styles", "PEM0441", "hf://org/styles/flat/ink.safetensors"),
        ("https://huggingface.co/org/styles/blob/main/flat/ink.safetensors", "PEM0443",
         f'"{REFERENCE}@main"'),
        (f"https://huggingface.co/org/peft/blob/main/{WEIGHTS}", "PEM0443", '"hf://org/peft@main"'),
    ],
)  # fmt: skip
def test_what_is_none_is_told(
    reference: str, code: str, told: str, hub: Hub, tmp_path: Path
) -> None:
    done = run(hub, tmp_path, "check", made(tmp_path, reference))
    assert (done.code, code in done.err, told in done.err) == (1, True, True), done.err
    for name in ("other.safetensors", "model.gguf"):  # megabytes: their starts alone
        assert hub.bytes_of(name) < 300_000
