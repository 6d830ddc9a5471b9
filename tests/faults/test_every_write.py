"""Every call of a build that changes a file goes wrong once, or is its last: outputs are what they
were, or what they were to be, whole; and the next build makes them and leaves nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import build, lora, recipe
from support.image_loras import factors, image_lora
from support.models import model, stopped

HERE = Path(__file__).parent
DECLARED = 'adapter a = "a"\nadapter b = "b"\n'
SITES = {"layers.0.q": (16, 24), "layers.0.v": (16, 24)}


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("shim") / "fail_at.so"
    source = str(HERE / "fail_at.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(made), source, "-ldl"], check=True)
    return made


SAVED = 'save a + b to "out/x"\nsave a - b to "out/y"\n'
OTHERS = 'save a - 0.5 * b to "out/x"\nsave 2 * a + b to "out/y"\n'


def outputs(folder: Path) -> Path:
    """A folder with two outputs, and a recipe of others in their place."""
    for seed, name in enumerate("ab"):
        lora(folder / name, seed, SITES, rank=2)
    build(folder, DECLARED + SAVED)
    return recipe(folder, DECLARED + OTHERS)


def as_files(text: str) -> str:
    """A recipe over adapters and outputs that are one file each."""
    return re.sub(r'"(\w+|out/\w+)"', r'"\1.safetensors"', text)


def outputs_in_files(folder: Path) -> Path:
    """The same of outputs that are one file each, of which one has been signed."""
    shapes = {f"lora_unet_{site}": ((16,), (24,)) for site in ("q", "v")}
    for seed, name in enumerate("ab"):
        image_lora(folder / f"{name}.safetensors", factors(shapes, seed, rank=2))
    build(folder, as_files(DECLARED + SAVED))
    (folder / "out/x.safetensors.sig").write_text("a signature")
    return recipe(folder, as_files(DECLARED + OTHERS))


def shards(folder: Path) -> Path:
    """A recipe of a model in shards."""
    for tuned, name in enumerate("bm"):
        model(folder / name, tuned)
    (folder / "out").mkdir()
    merge = 'base b = "b"\nmodel m on b = "m"\nsave b + 0.5 * (m - b) to "out/x"'
    return recipe(folder, f'{merge} with shard="2kB"\n')


FOLDERS = ("replaced", "replaced in turn", "new", "refreshed")
FILES = tuple(f"files {what}" for what in FOLDERS)


@pytest.mark.parametrize("how", ["fail", "kill"])
@pytest.mark.parametrize("what", [*FOLDERS, *FILES, "shards", "shards gone on with"])
def test_nothing_is_lost_at_any_call(how: str, what: str, shim: Path, tmp_path: Path) -> None:
    in_shards, in_files = what.startswith("shards"), what.startswith("files")
    makes = shards if in_shards else outputs_in_files if in_files else outputs
    path, what = makes(tmp_path), what.removeprefix("files ")
    if what == "new":
        text = path.read_text().replace("out/x", "out/u").replace("out/y", "out/z")
        path = recipe(tmp_path, text)
    if what == "refreshed":
        text = f"{DECLARED}let s = a + b\n{SAVED.replace('a + b', 's')}"
        path = recipe(tmp_path, as_files(text) if in_files else text)
    if what == "shards gone on with":
        stopped(tmp_path, after=2)
    words = ["--resume"] if in_shards else []
    done = subprocess.run(
        [sys.executable, str(HERE / "fail_at.py"), str(tmp_path), str(path), how, *words],
        env={
            **os.environ,
            "LD_PRELOAD": str(shim),
            **({"NO_EXCHANGE": "1"} if what == "replaced in turn" else {}),
            "OPENBLAS_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    points, wrong = json.loads(done.stdout)
    assert not wrong
    assert points > 20
