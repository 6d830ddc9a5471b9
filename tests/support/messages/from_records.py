"""Messages about locks, provenance, signatures and git, and about what is compared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pemlang
from pemlang import BuildOptions
from support import edit, lora, pem
from support import recipe as write_recipe
from support.messages.case import Diagnostics, made, raised, told
from support.models import model

TEXT = 'adapter a = "kept"\nsave a to "out/a"\n'
USES_LIBRARY = 'import "library/parts.pem" (part)\nadapter a = "kept"\nsave part * a to "out/a"\n'


def lockable(root: Path, text: str = TEXT) -> Path:
    """A recipe in a folder of its own, with an adapter and a file to import."""
    folder = root / "locked"
    shutil.rmtree(folder, ignore_errors=True)
    lora(folder / "kept")
    write_recipe(folder / "library", "let part = 0.5\n", "parts.pem")
    return write_recipe(folder, text, "made.pem")


def locked(path: Path) -> Path:
    """A recipe once its lock is written anew; gives the lock."""
    lock = path.with_name("pem.lock")
    lock.unlink(missing_ok=True)
    assert pem("lock", path).code == 0
    return lock


def checked_by_lock(path: Path) -> Diagnostics:
    """What a check that goes by the lock says."""
    try:
        return pemlang.load(path).check(locked=True)
    except pemlang.PemError as error:
        return error.diagnostics


def built_by_lock(path: Path) -> Diagnostics:
    """What a build that is held to the lock raises."""
    recipe = pemlang.load(path)
    return raised(lambda: recipe.build(options=BuildOptions(lock=recipe.lock_beside())))


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A recipe once its lock was written and edited."""
    lock = locked(path)
    content = json.loads(lock.read_text())
    change(content)
    lock.write_text(json.dumps(content))
    return path


def built(root: Path) -> Path:
    """The directory of the one output of a recipe in a folder of its own."""
    [output] = pemlang.load(lockable(root)).build().outputs
    return output.path


# --- locks -----------------------------------------------------------------------------------


@made
def PEM0801_none(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return checked_by_lock(lockable(root))


@made
def PEM0801_unreadable(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = lockable(root)
    in_conflict = "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> main\n"
    path.with_name("pem.lock").write_text(in_conflict)
    changes: tuple[Callable[[dict[str, Any]], object], ...] = (
        lambda lock: lock.update(lock=2),
        lambda lock: lock.pop("imports"),
        lambda lock: lock["recipes"].update({"made.pem": ["kept"]}),
        lambda lock: lock["imports"].update({"a.pem": 7}),
        lambda lock: lock["adapters"]["kept"].update(files={}),
        lambda lock: lock["adapters"]["kept"].update(tensors={"x": "F32 [-1]"}),
    )
    diagnostics = list(checked_by_lock(path))
    for change in changes:
        diagnostics += checked_by_lock(edited(path, change))
    return tuple(diagnostics)


@made
def PEM0802_adapter(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = lockable(root)
    locked(path)
    path.write_text('adapter a = "other"\nsave a to "out/a"\n')
    return checked_by_lock(path)


@made
def PEM0802_import(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = lockable(root)
    locked(path)
    path.write_text(USES_LIBRARY)
    return checked_by_lock(path)


@made
def PEM0803_adapter(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = lockable(root)
    locked(path)
    lora(root / "locked" / "kept", 9)
    return built_by_lock(path)


@made
def PEM0803_import(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = lockable(root, USES_LIBRARY)
    locked(path)
    (root / "locked" / "library" / "parts.pem").write_text("let part = 0.25\n")
    return built_by_lock(path)


@made
def PEM0804_version(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return built_by_lock(edited(lockable(root), lambda lock: lock.update(pemlang="0.0.1")))


@made
def PEM0805_tensors(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setattr("pemlang.inputs.lock.MAX_TENSORS", 3)
    path = lockable(root)
    said = told("lock", path)
    assert not path.with_name("pem.lock").exists()
    return said


# --- provenance and signatures ---------------------------------------------------------------


@made
def PEM0810_unreadable(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    output = built(root)
    provenance = output / "provenance.json"
    none = told("verify", root / "locked" / "kept")
    provenance.write_text('{"_type": "https://in-toto.io/Statement/v1"}')
    other = told("verify", output)
    provenance.unlink()
    provenance.mkdir()
    return (*none, *other, *told("verify", output))


@made
def PEM0810_other_output(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    output = built(root)

    def moved(statement: Any) -> None:
        asked = statement["predicate"]["buildDefinition"]["externalParameters"]
        asked["output"] = "out/b"

    edit(output, moved)
    return told("verify", "--rebuild", "--from", root / "locked", output)


@made
def PEM0811_moved(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return told("verify", "--rebuild", built(root).rename(root / "locked" / "elsewhere"))


def signed(root: Path) -> Diagnostics:
    """What signing with a key that is none says."""
    key = root / "key.pem"
    key.write_text("no key")
    try:
        return told("sign", "--key", key, built(root))
    finally:
        key.unlink()


@made
def PEM0812_not_installed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.setitem(sys.modules, "model_signing.signing", None)
    patch.setitem(sys.modules, "model_signing", None)
    return signed(root)


@made
def PEM0813_no_key(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    """Whatever the library says of a key."""

    class Library:
        def __getattr__(self, name: str) -> Any:
            raise ValueError("Unable to load PEM file.\x1b[31m\nSee the manual.")

    patch.setattr("pemlang.artifact.sign._library", lambda part: Library())
    return signed(root)


# --- comparisons -----------------------------------------------------------------------------


@made
def PEM0304_compared(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return told("diff", "adapters/a", "adapters/ia3")


@made
def PEM0304_model(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    model(root / "models/b")
    return told("diff", "models/b", "adapters/a")


@made
def PEM0503_compared(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    large = lockable(root).with_name("large")
    return told("diff", lora(large, 1, alpha=1e308), "adapters/a")


@made
def PEM0820_unknown(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    folder = lockable(root).parent
    patch.chdir(folder)
    patch.setenv("GIT_CEILING_DIRECTORIES", str(root))
    diagnostics = list(told("diff", "HEAD:made.pem", "made.pem"))
    who = ("-c", "user.name=x", "-c", "user.email=x")
    for words in (["init", "-q"], ["add", "made.pem"], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *words], check=True)
    for place in ("nowhere:made.pem", "-x:made.pem", "HEAD:absent.pem"):
        diagnostics += told("diff", "--", place, "made.pem")
    patch.setenv("PATH", str(root))
    diagnostics += told("diff", "HEAD:made.pem", "made.pem")
    commit = re.compile(r"[0-9a-f]{12}\b")
    return tuple(replace(d, message=commit.sub("0123456789ab", d.message)) for d in diagnostics)


@made
def PEM0821_no_repository(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    patch.chdir(root)
    patch.setenv("GIT_DIR", "nowhere")
    outside = told("git_setup")
    patch.setenv("PATH", str(root))
    return (*outside, *told("git_setup"))
