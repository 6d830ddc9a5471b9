"""Messages about libraries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support import pem
from support import recipe as write_recipe
from support.libraries import HALF, TWICE, installed
from support.messages.case import Diagnostics, made, text_checked, told
from support.messages.from_records import checked_by_lock

USES = "import house.merges as merges\n"


def site_of(root: Path, patch: pytest.MonkeyPatch, files: dict[str, str]) -> Path:
    """A folder on the path where a library is installed with these files."""
    site = root / "site"
    shutil.rmtree(site, ignore_errors=True)
    installed(site, files)
    patch.syspath_prepend(site)
    return site


def used(root: Path, patch: pytest.MonkeyPatch, text: str) -> Diagnostics:
    """What is said of a recipe that imports `house.merges`, of this text."""
    site_of(root, patch, {"merges.pem": text})
    return text_checked(root, USES)


def locked(root: Path, text: str) -> Path:
    """A recipe once it is locked."""
    path = write_recipe(root / "of_library", text, "made.pem")
    path.with_name("pem.lock").unlink(missing_ok=True)
    assert pem("lock", path).code == 0
    return path


@made
def PEM0203_recipe(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site_of(root, patch, {"merges.pem": HALF, "soups/even.pem": HALF})
    return [
        told
        for name in ("house.merge", "house", "mouse.merges")
        for told in text_checked(root, f"import {name} as merges\n")
    ]


@made
def PEM0390_package(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site_of(root, patch, {})
    return text_checked(root, USES)


@made
def PEM0390_twice(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site = site_of(root, patch, {"merges.pem": HALF})
    installed(site, {"merges.pem": HALF}, distribution="mouse", package="mouse")
    return text_checked(root, USES)


@made
def PEM0390_link(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site = site_of(root, patch, {"other.pem": HALF})
    write_recipe(root, HALF, "outside.pem")
    (site / "house_recipes/merges.pem").symlink_to(root / "outside.pem")
    return text_checked(root, USES)


@made
def PEM0390_file(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site_of(root, patch, {"pem.pem": HALF})
    return text_checked(root, "import house.pem as merges\n")


@made
def PEM0390_damaged(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site = site_of(root, patch, {"merges.pem": HALF})
    [about] = site.glob("*.dist-info")
    (about / "entry_points.txt").write_bytes(b"[pemlang.libraries]\nhouse = \xff\n")
    return text_checked(root, USES)


@made
def PEM0391_outside(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return used(root, patch, 'import "../other/soups.pem" as soups\n')


@made
def PEM0391_dot(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return used(root, patch, 'import "soups.2.pem" as soups\n')


@made
def PEM0391_adapter(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return used(root, patch, 'adapter a = "adapters/a"\n')


@made
def PEM0393_other(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site_of(root, patch, {"merges.pem": HALF})
    path = locked(root, "import house.merges (half)\n")
    return told("lock", "--upgrade", "hose", path)


@made
def PEM0393_none(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return told("lock", "--upgrade", "house", locked(root, "let x = 1\n"))


@made
def PEM0802_upgrade(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site_of(root, patch, {"merges.pem": HALF})
    path = locked(root, "import house.merges (half)\n")
    write_recipe(path.parent, "let one = 1\n", "one.pem")
    write_recipe(path.parent, 'import house.merges (half)\nimport "one.pem" (one)\n', path.name)
    return told("lock", "--upgrade", "house", path)


@made
def PEM0803_library(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    site = site_of(root, patch, {"merges.pem": HALF})
    path = locked(root, "import house.merges (half)\n")
    installed(site, {"merges.pem": TWICE}, version="2.0")
    return checked_by_lock(path)
