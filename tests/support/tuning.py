"""Recipes to tune, and metrics that know what is best: scripts that read the tensors of an output
by safetensors and NumPy."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

from support.adapters import lora
from support.command import Done, pem
from support.recipes import recipe

TEXT = """# found by hand, so far
adapter a = "a"
adapter b = "b"

## How much of a.
param w: number in 0..1 = 0.5  # between the two

save w * a + (1 - w) * b to "out/x"
"""

BEST = 0.37
"""The weight at which DISTANCE is least: that of the target it measures from."""

_DISTANCE = '''
import json, sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

here = Path(__file__).parent

def delta(directory):
    config = json.loads((directory / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    tensors = load_file(directory / "adapter_model.safetensors")
    ends = [key.removesuffix(".lora_A.weight") for key in sorted(tensors) if "lora_A" in key]
    return np.concatenate([
        (scale * tensors[end + ".lora_B.weight"] @ tensors[end + ".lora_A.weight"]).ravel()
        for end in ends
    ])

def distance(output):
    """How far an adapter is from 0.37 a + 0.63 b, and how large it is."""
    a, b, x = delta(here / "a"), delta(here / "b"), delta(Path(output))
    far = np.linalg.norm(x - (0.37 * a + 0.63 * b))
    return {"distance": far, "norm": np.linalg.norm(x)}

if __name__ == "__main__":
    print("a line that is no number")
    print(json.dumps({key: float(value) for key, value in distance(sys.argv[1]).items()}))
'''

DISTANCE = f"{sys.executable} distance.py {{output}}"
WEIGHT = 'grep -o \'"w": "[^"]*"\' {output}/provenance.json'


def stocked(folder: Path, text: str = TEXT) -> Path:
    """A recipe over two adapters, beside the script of DISTANCE."""
    lora(folder / "a", 1)
    lora(folder / "b", 2)
    (folder / "distance.py").write_text(_DISTANCE)
    return recipe(folder, text)


def script(folder: Path, body: str, name: str = "metric.sh") -> str:
    """A metric that is a script of the shell: `$1` is the output, `$here` the folder; each call
    leaves a line with its weight in `calls`."""
    (folder / name).write_text(
        f"""here={folder}
w=$(sed -n 's/.*"w": "\\(.*\\)".*/\\1/p' "$1/provenance.json" | tail -1)
echo "$w" >> "$here/calls"
{body}
"""
    )
    return f"sh {folder / name} {{output}}"


def killing(folder: Path, at: int, then: str = "") -> Done:
    """Tune by grid in a process that is killed outright by its metric, at the n-th call: the best
    has w = 1."""
    body = f"""if [ "$(wc -l < $here/calls)" -eq {at} ]; then
  echo $$ > $here/metric-pid; kill -KILL $PPID; {then or "true"}
fi
echo "$w\""""
    return tuned(folder, script(folder, body), process=True)


def tuned(folder: Path, metric: str, *words: str, **more: Any) -> Done:
    """Tune by grid, eleven trials."""
    options = ("--maximize", "s", "--sampler", "grid", "--trials", "11")
    return pem(
        "tune", "recipe.pem", "--metric", metric, *options, *words, folder=folder, **more
    )  # fmt: skip


def calls(folder: Path) -> list[str]:
    """The weights at which a script was called."""
    path = folder / "calls"
    return path.read_text().split() if path.exists() else []


def rows(study: Path) -> list[tuple[object, ...]]:
    """The trials in a study, as SQLite has them."""
    with sqlite3.connect(study) as connection:
        found = connection.execute("SELECT * FROM trials ORDER BY number").fetchall()
    connection.close()
    return found
