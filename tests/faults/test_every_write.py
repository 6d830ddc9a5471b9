"""Every call of a build that changes a file goes wrong once, or is its last: outputs are what they
were, or what they were to be, whole; and the next build makes them and leaves nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import build, lora, recipe
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


def outputs(folder: Path) -> Path:
    """A folder with two outputs, and a recipe of others in their place."""
    for seed, name in enumerate("ab"):
        lora(folder / name, seed, SITES, rank=2)
    build(folder, f'{DECLARED}save a + b to "out/x"\nsave a - b to "out/y"\n')
    return recipe(folder, f'{DECLARED}save a - 0.5 * b to "out/x"\nsave 2 * a + b to "out/y"\n')


def shards(folder: Path) -> Path:
    """A recipe of a model in shards."""
    for tuned, name in enumerate("bm"):
        model(folder / name, tuned)
    (folder / "out").mkdir()
    merge = 'base b = "b"\nmodel m on b = "m"\nsave b + 0.5 * (m - b) to "out/x"'
    return recipe(folder, f'{merge} with shard="2kB"\n')


@pytest.mark.parametrize("how", ["fail", "kill"])
@pytest.mark.parametrize(
    "what", ["replaced", "replaced in turn", "new", "refreshed", "shards", "shards gone on with"]
)
def test_nothing_is_lost_at_any_call(how: str, what: str, shim: Path, tmp_path: Path) -> None:
    in_shards = what.startswith("shards")
    path = shards(tmp_path) if in_shards else outputs(tmp_path)
    if what == "new":
        text = path.read_text().replace("out/x", "out/u").replace("out/y", "out/z")
        path = recipe(tmp_path, text)
    if what == "refreshed":
        path = recipe(
            tmp_path, f'{DECLARED}let s = a + b\nsave s to "out/x"\nsave a - b to "out/y"\n'
        )
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
