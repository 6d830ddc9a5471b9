"""A lone signal at any moment of a build ends it soon, with its code and without a traceback, and
leaves the output whole or not there. PEM_ROUNDS says how often."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support import command, lora, pem, recipe

ROUNDS = int(os.environ.get("PEM_ROUNDS", "12"))
SIZE = 256 * int(os.environ.get("PEM_SCALE", "1"))
SOON = 2.5 if "PEM_ROUNDS" in os.environ else 5.0  # on a machine that does nothing else, or much
START = 0.1
"""Seconds until Python has come to code of ours: before, an interrupt is its own to tell of."""
SITES = {f"layers.{i}.q_proj": (SIZE, SIZE) for i in range(40)}
TEXT = (
    'adapter a = "a"\nadapter b = "b"\nsave a + b to "out/x"\nsave a - b to "out/y" with rank=8\n'
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    for seed, name in enumerate("ab"):
        lora(folder / name, seed, SITES, rank=32)
    recipe(folder, TEXT)
    return folder


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_build(sent: signal.Signals, large: Path) -> None:
    draw = random.Random(sent)
    words = command("build", str(large / "recipe.pem"), "--force")
    start = time.monotonic()
    subprocess.run(words, check=True, capture_output=True, env=surroundings(large))
    took = time.monotonic() - start
    wrong = []
    for _ in range(ROUNDS):
        delay = START + draw.random() * took
        run = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=surroundings(large),
        )  # fmt: skip
        time.sleep(delay)
        run.send_signal(sent)
        asked = time.monotonic()
        try:
            _, told = run.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            run.kill()
            wrong.append((delay, "it hung", run.communicate()[1]))
            continue
        if time.monotonic() - asked > SOON:
            wrong.append((delay, f"it took {time.monotonic() - asked:.1f} s", told))
        if run.returncode not in (0, -sent, 128 + sent) or "Traceback" in told:
            wrong.append((delay, f"it ended with {run.returncode}", told))
        left = sorted(path.name for path in (large / "out").iterdir())
        if left != ["x", "y"]:
            wrong.append((delay, f"it left {left}", told))
    assert not wrong
    assert pem("verify", large / "out/x").code == pem("verify", large / "out/y").code == 0


def surroundings(folder: Path) -> dict[str, str]:
    """The environment, with a cache of its own: part of what is interrupted is compiling."""
    return {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
