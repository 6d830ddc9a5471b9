"""Libraries for tests: as pip installs them, laid out by hand, and by pip itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

from support.command import Done

HALF = """
## Half of an adapter.
def half(x: adapter) -> adapter = 0.5 * x
"""
TWICE = HALF.replace("0.5", "2")


def installed(
    site: Path,
    files: dict[str, str],
    name: str = "house",
    version: str = "1.0",
    distribution: str = "house-merges",
    package: str = "house_recipes",
) -> Path:
    """A library in a folder of the path, as a wheel is unpacked there; gives the folder of its
    recipes."""
    about = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    for old in site.glob(f"{distribution.replace('-', '_')}-*.dist-info"):
        old.rename(site / f"old{old.stat().st_ino}")
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    )
    (about / "entry_points.txt").write_text(f"[pemlang.libraries]\n{name} = {package}\n")
    for file, text in files.items():
        place = site.joinpath(*package.split(".")) / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return site.joinpath(*package.split("."))


def edited(site: Path, project: Path, name: str = "house") -> None:
    """A library as pip leaves it that is being worked on, in the folder of its project."""
    installed(site, {}, name=name, package=name)
    [about] = site.glob("*.dist-info")
    origin = {"url": project.resolve().as_uri(), "dir_info": {"editable": True}}
    (about / "direct_url.json").write_text(json.dumps(origin))


@dataclass
class Environment:
    """A Python environment of its own, which sees what the tests run with."""

    root: Path

    @property
    def python(self) -> str:
        return str(self.root / "bin" / "python")

    def pem(self, *words: str | Path, folder: Path) -> Done:
        """Run `pem` there."""
        done = subprocess.run(
            [self.python, "-P", "-m", "pemlang", *map(str, words)],
            cwd=folder, capture_output=True, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def pip(self, *words: str | Path) -> None:
        """Run pip for it, without a network."""
        command = [sys.executable, "-m", "pip", "--python", self.python, *map(str, words)]
        done = subprocess.run(command, capture_output=True, check=False, env=_OFFLINE)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


_OFFLINE = {**os.environ, "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def environment(root: Path) -> Environment:
    """A new environment."""
    venv.create(root, symlinks=True)
    [site] = root.glob("lib/*/site-packages")
    here = sysconfig.get_path("purelib")
    (site / "shared.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    return Environment(root)


def wheel(project: Path, wheels: Path) -> None:
    """Make a wheel of a project, by pip."""
    command = [
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
        "--wheel-dir", str(wheels), str(project),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, env=_OFFLINE)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
