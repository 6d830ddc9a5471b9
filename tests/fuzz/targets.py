"""What strangers' bytes go through: each may refuse them, in its own words, and nothing else.

`run.py` drives them with bytes that it makes; a crash that it finds becomes a file in `crashes/`,
which test_fuzz.py holds to from then on.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from support import lora

import pemlang
from pemlang.artifact import read_provenance
from pemlang.diagnostics import Fault, PemError
from pemlang.formats import PEFT, BadPattern, Pattern, read_adapter
from pemlang.inputs import LockResolver, parse_lock
from pemlang.pipeline import documented as library_of
from pemlang.show import as_text, html_pages, one_markdown
from pemlang.syntax import decoded, formatted, read_source
from pemlang.tensorfiles import read_header, read_pickled_header


@cache
def shelf() -> Path:
    """A folder with two adapters, made once a process, in memory where there is some."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="pem-fuzz-", dir=fast))
    for seed, name in enumerate("ab"):
        lora(folder / name, seed, {"layers.0.q": (4, 6), "layers.1.v": (4, 6)}, rank=2)
    return folder


def written(data: bytes, *parts: str) -> Path:
    """The bytes as a file."""
    path = shelf().joinpath(*parts)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def beside_the_rest(data: bytes, folder: str, name: str) -> None:
    """Read an adapter of which one file is the bytes."""
    if not (shelf() / folder).exists():
        lora(shelf() / folder, 1, {"layers.0.q": (4, 6)}, rank=2)
    written(data, folder, name)
    PEFT.read(shelf() / folder)


def recipe(data: bytes) -> None:
    """A recipe is checked, and told of."""
    for diagnostic in pemlang.load(written(data, "recipe.pem")).check():
        diagnostic.as_json()


def tested(data: bytes) -> None:
    """The tests of a recipe are checked, and not run."""
    pemlang.load(written(data, "recipe.pem")).test(lambda title: False)


def documented(data: bytes) -> None:
    """A recipe is told of, in every form; its functions are called with samples."""
    path = written(data, "recipe.pem")
    library = library_of(path, read_source(path, path.name), path.name)
    as_text(library)
    one_markdown([library])
    html_pages([library])


def layout(data: bytes) -> None:
    """A recipe is laid out, and laid out as that stays."""
    once = formatted(decoded(data, "recipe.pem", shelf()))
    assert formatted(decoded(once.encode(), "recipe.pem", shelf())) == once


def config(data: bytes) -> None:
    """A config beside tensors."""
    beside_the_rest(data, "config", "adapter_config.json")


def header(data: bytes) -> None:
    """A file of tensors."""
    read_header(written(data, "any.safetensors"))


def adapter(data: bytes) -> None:
    """A file of tensors beside a config."""
    beside_the_rest(data, "adapter", "adapter_model.safetensors")


def gguf(data: bytes) -> None:
    """A GGUF file."""
    read_adapter(written(data, "any.gguf"))


def statistics(data: bytes) -> None:
    """Statistics beside an adapter."""
    written(data, "a", "statistics.safetensors")
    try:
        text = b'adapter a = "a"\nlet x = regmean([a, a])\n'
        pemlang.load(written(text, "recipe.pem")).check()
    finally:
        (shelf() / "a" / "statistics.safetensors").unlink()


def pickled(data: bytes) -> None:
    """A file of tensors that is a pickle."""
    read_pickled_header(written(data, "any.bin"))


def lock(data: bytes) -> None:
    """A lock, and the adapters that it has."""
    read = parse_lock(data, shelf() / "pem.lock")
    resolver = LockResolver(read)
    for source in read.adapters:
        resolver.adapter(source, shelf())


def provenance(data: bytes) -> None:
    """The provenance of an output."""
    written(data, "output", "provenance.json")
    read_provenance(shelf() / "output")


def pattern(data: bytes) -> None:
    """A pattern of a config and a name."""
    text, _, name = data.decode(errors="replace").partition("\n")
    Pattern(text, r"(.*\.)?(%)$").match(name[:512])


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        recipe, tested, documented, layout, config, header, adapter, statistics, pickled, lock,
        provenance, pattern, gguf,
    )
}  # fmt: skip
"""By name."""

REFUSALS = (Fault, PemError, BadPattern)


def hold(name: str, data: bytes) -> None:
    """Put bytes through a target; raises whatever is no refusal."""
    try:
        TARGETS[name](data)
    except REFUSALS:
        return
