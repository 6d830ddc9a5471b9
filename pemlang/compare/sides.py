"""The two sides of a comparison: a recipe of the working tree, or of a git revision, checked
without more of its adapters than is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.elaborate import Loaders
from pemlang.diagnostics import Fault, listed, visible
from pemlang.formats.peft import CONFIG, PICKLED, WEIGHTS, Adapter, read_adapter
from pemlang.inputs.hub import SCHEME
from pemlang.inputs.identities import Identities
from pemlang.inputs.imports import imports_of
from pemlang.inputs.load import loaders, local, model
from pemlang.inputs.lock import NAME, Lock, read_lock
from pemlang.inputs.locked import from_lock
from pemlang.modules.sites import Shapes
from pemlang.resources import resource
from pemlang.source import Source
from pemlang.syntax.files import read_source
from pemlang.tensorfiles.digests import adapter_digest
from pemlang.tensorfiles.disk import is_dir, is_file, lfs_pointer, sha256

Params = Mapping[str, str | float | bool]
Read = Callable[[str, Path], tuple[str, Adapter] | None]
"""A way to an adapter: its digest and what it is, or None where it does not lead there."""


@dataclass
class Side:
    """One side.

    Attributes:
        name: what it is called.
        checked: the recipe.
        notes: what stands for what on it.
    """

    name: str
    checked: Checked
    notes: list[str] = field(default_factory=list)


@contextmanager
def opened(place: str, params: Params) -> Iterator[Side]:
    """A side of a comparison, open as long as its files are needed.

    Args:
        place: a path, or `REVISION:PATH` with a path as git takes it there.
        params: values for the recipe's params.

    Raises:
        Fault: PEM0820 no such revision or file in it, and as read_source.
        PemError: what is wrong with the recipe.
    """
    revision, colon, path = place.partition(":")
    if not colon or is_file(Path(place)):
        found = Path(place).absolute()
        yield side(place, found, read_source(found, place), params)
        return
    with TemporaryDirectory(prefix="pem-diff-") as folder:
        tree = _Revision(revision, Path(folder))
        file = tree.file(path)
        source = read_source(file, place)
        where = Reading(source.directory)
        ways: list[Read] = [where.locked, tree.adapter]
        checked = _checked(file, source, params, ways, tree.here)
        tree.hold(checked)
        yield Side(place, checked, tree.notes)


def side(name: str, path: Path, source: Source, params: Params) -> Side:
    """A side of the working tree: its adapters as they are there, those that are not as pem.lock
    has them."""
    where = Reading(source.directory)
    return Side(name, _checked(path, source, params, [where.on_disk, where.locked]))


def file_meaning(old: Path | None, new: Path | None, path: str) -> list[str]:
    """What changed between two states of one recipe, as lines for a terminal.

    Args:
        old, new: files that hold its text; None where there is none.
        path: where the recipe is in the working tree, whose imports, adapters and lock both have.

    Raises:
        Fault, PemError: as `opened`.
    """
    from pemlang.compare.meaning import meaning
    from pemlang.show.meaning_show import as_text

    place = Path(path).resolve()
    sides: list[Checked | None] = []
    for file in (old, new):
        if file is None:
            sides.append(None)
            continue
        read = read_source(file, path)
        sides.append(side(path, place, Source(path, read.text, place.parent), {}).checked)
    lines = as_text(meaning(sides[0], sides[1], (path, path))).splitlines()
    imports = {i for one in sides if one for i in imports_of(one) if not i.startswith("std.")}
    if imports:
        lines.append(f"with {listed(sorted(imports))} on both sides as it is now")
    return lines


class Reading:
    """Ways to the adapters of a recipe in a folder."""

    def __init__(self, directory: Path) -> None:
        self._lock: Lock | None = None
        if is_file(directory / NAME):
            self._lock = read_lock(directory)

    def on_disk(self, path: str, directory: Path) -> tuple[str, Adapter] | None:
        """The adapter where the recipe says, if its tensors are there."""
        if path.startswith(SCHEME):
            return None
        place = local(path, directory)
        there = any(is_file(place / name) for name in (WEIGHTS, PICKLED))
        if not there or lfs_pointer(place / WEIGHTS) is not None:
            return None
        adapter = read_adapter(place)
        return adapter_digest(adapter), adapter

    def locked(self, path: str, directory: Path) -> tuple[str, Adapter] | None:
        """The adapter as the lock has it."""
        lock = self._lock
        if lock is None or lock.source(path, directory) not in lock.adapters:
            return None
        return lock.find(path, directory).content, from_lock(lock, path, directory)


def _checked(
    path: Path,
    source: Source,
    params: Params,
    ways: Sequence[Read],
    here: Callable[[Path], Path] = lambda folder: folder,
) -> Checked:
    """A recipe, its adapters by the first of some ways that leads to one, models from the working
    tree: `here` gives the folder there that a folder of the recipe stands for."""
    identities, usual = Identities(), loaders(whole=True, identify=adapter_digest)
    seen: dict[tuple[str, Path], tuple[str, Adapter]] = {}

    def adapter(written: str, directory: Path) -> tuple[str, Adapter]:
        if (written, directory) not in seen:
            found = next((one for way in ways if (one := way(written, directory))), None)
            if found is None:
                digest, there = usual.adapter(written, here(directory))
                found = digest.partition(" ")[0], there
            seen[written, directory] = found
        digest, there = seen[written, directory]
        return identities.of(written, directory, there.directory, digest), there

    def whole_model(written: str, directory: Path) -> tuple[str, Shapes]:
        return model(written, here(directory))

    checked = check(path, source, Loaders(adapter, whole_model, identities), params)
    checked.report.raise_errors()
    return checked


class _Revision:
    """The recipes and locks of a git revision, laid out in a folder; its adapters when asked for.

    Attributes:
        at: the folder.
        notes: what stands for what it does not have.
    """

    def __init__(self, revision: str, at: Path) -> None:
        if not revision or revision.startswith("-"):
            raise _unknown(f"{visible(repr(revision), 80)} is no revision")
        self.at = at.resolve()
        self.notes: list[str] = []
        self._top = Path(_git("rev-parse", "--show-toplevel").decode().rstrip("\n"))
        self._prefix = _git("rev-parse", "--show-prefix").decode().rstrip("\n")
        asked = f"{revision}^{{commit}}"
        self._commit = (
            _git("rev-parse", "--verify", "--quiet", asked, what=revision).decode().strip()
        )
        listed = _git("ls-tree", "-r", "-z", "--full-tree", self._commit).split(b"\0")
        self._blobs = dict(_entries(listed))
        wanted = [p for p in self._blobs if p.endswith(".pem") or Path(p).name == NAME]
        if wanted:
            self._extract(wanted)

    def file(self, path: str) -> Path:
        """A recipe of the revision, by its path from the top."""
        here = self._prefix + path if path.startswith(("./", "../")) else path
        found = os.path.normpath(here)
        if found not in self._blobs:
            raise _unknown(f"there is no {visible(found)} in {self._commit[:12]}")
        if not found.endswith(".pem"):
            self._extract([found])
        return self.at / found

    def hold(self, checked: Checked) -> None:
        """Raise PEM0820 where a recipe imports what is outside the repository: the revision says
        nothing of it."""
        for path in checked.program.trees:
            inside = path.is_relative_to(self.at) or path.parent == resource("stdlib")
            if not inside:
                raise _unknown(
                    f"{visible(path.name)} is imported from outside the repository, where "
                    f"{self._commit[:12]} has nothing",
                    "compare files that are both there",
                )

    def here(self, directory: Path) -> Path:
        """The folder of the working tree where one of the revision is."""
        return self._top / os.path.relpath(directory, self.at)

    def adapter(self, path: str, directory: Path) -> tuple[str, Adapter] | None:
        """An adapter that the revision has; one that git does not keep is what lies there now."""
        if path.startswith(SCHEME) or Path(path).is_absolute():
            return None
        folder = os.path.normpath(f"{os.path.relpath(directory, self.at)}/{path}")
        there = (self._top / folder).resolve()
        files = self._kept(folder) or self._kept(os.path.relpath(there, self._top.resolve()))
        if files:
            self._extract(files)
            for name in files:
                self._fill(name)
            there = (self.at / files[0]).parent
        elif is_dir(there):
            self.notes.append(
                f"{visible(folder)} is not in git and not in {NAME} of the revision: what lies "
                "there now stands for it"
            )
        else:
            return None
        adapter = read_adapter(there)
        return adapter_digest(adapter), adapter

    def _kept(self, folder: str) -> list[str]:
        """The files of an adapter that the revision has."""
        files = [name for name in self._blobs if (name.rpartition("/")[0] or ".") == folder]
        return files if any(Path(name).name == CONFIG for name in files) else []

    def _fill(self, name: str) -> None:
        """Put what a Git LFS pointer stands for in its place, if it lies in the working tree."""
        pointer = lfs_pointer(self.at / name)
        if pointer is None:
            return
        here = self._top / name
        if not is_file(here) or sha256(here) != pointer:
            raise _unknown(
                f"{visible(name)} is kept by Git LFS, and what it was at {self._commit[:12]} is "
                "not here",
                "check that revision out and `git lfs pull`; a pem.lock that is committed beside "
                "the recipe needs no tensors",
            )
        (self.at / name).unlink()
        (self.at / name).symlink_to(here)

    def _extract(self, paths: list[str]) -> None:
        """Write blobs below the folder, as plain files."""
        command = ["git", "cat-file", "--batch"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as git:
            assert git.stdin is not None and git.stdout is not None
            for path in paths:
                git.stdin.write(f"{self._blobs[path]}\n".encode())
                git.stdin.flush()
                told = git.stdout.readline().split()
                if len(told) != 3:
                    raise _unknown(
                        f"git does not have {visible(path)} at {self._commit[:12]}",
                        "fetch the whole history: git fetch --refetch",
                    )
                rest = int(told[2])
                target = self.at / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    while rest and (piece := git.stdout.read(min(rest, 1 << 20))):
                        file.write(piece)
                        rest -= len(piece)
                git.stdout.read(1)
            git.stdin.close()


def _entries(listed: list[bytes]) -> Iterator[tuple[str, str]]:
    """Path to blob of the plain files of `git ls-tree`."""
    for line in listed:
        if line.startswith((b"100644", b"100755")):
            about, _, path = line.partition(b"\t")
            name = os.fsdecode(path)
            # Git makes no other names, but a tree made by hand may hold any.
            if ".." not in Path(name).parts and not Path(name).is_absolute():
                yield name, about.split()[2].decode()


def _git(*words: str, what: str = "it") -> bytes:
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=True)
    except FileNotFoundError:
        raise _unknown(
            "git is not installed", "install git, or compare files that are both there"
        ) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        why = f"git: {said[-1].removeprefix('fatal: ')}" if said else f"{what} is no revision"
        raise _unknown(visible(why)) from None
    return done.stdout


def _unknown(why: str, help: str = "") -> Fault:
    usual = (
        "REVISION:PATH names a file as git does, with its path from the top of the repository: "
        "main:recipes/merge.pem"
    )
    return Fault("PEM0820", why, help or usual)
