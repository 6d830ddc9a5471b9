"""A recipe at a git revision, and of the working tree as far as it is there: an adapter is taken
the first way that leads to one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.published import PublishedRecipe
from pemlang.check.values import Spelling
from pemlang.diagnostics import Fault, visible
from pemlang.disk import is_dir, is_file, lfs_pointer, sha256
from pemlang.formats import formats_of, read_adapter
from pemlang.formats.adapter import Adapter
from pemlang.formats.identity import used_digest
from pemlang.inputs.hub import SCHEME
from pemlang.inputs.lock import NAME, Lock, read_lock
from pemlang.inputs.locked import from_lock, published_by
from pemlang.inputs.resolver import DiskResolver, Resolver, local, published_now
from pemlang.resources import resource

IdentifiedAdapter = tuple[Mapping[str, str], Adapter]
"""The digests of an adapter's files, and what it is."""

AdapterLookup = Callable[[str, Path], IdentifiedAdapter | None]
"""A way to an adapter by its path as written and the folder that path starts from; None where it
does not lead to one."""

_DESCRIPTIONS = {record.described_in for record in formats_of("adapter") if record.texts}


class FirstFoundResolver(Resolver):
    """Takes an adapter the first of some ways that leads to one, else from the working tree.

    Attributes:
        published: gives published recipes.
        here: gives the folder of the working tree that a folder of the recipe stands for.
    """

    def __init__(
        self,
        lookups: Sequence[AdapterLookup],
        published: Callable[[str, str | None], PublishedRecipe],
        here: Callable[[Path], Path] = lambda folder: folder,
    ) -> None:
        self._lookups, self._here, self._usual = lookups, here, DiskResolver()
        self._published = published
        self._seen: dict[tuple[str, Path], IdentifiedAdapter] = {}

    def adapter(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver."""
        if (path, directory) not in self._seen:
            adapters = (look_up(path, directory) for look_up in self._lookups)
            first = next(filter(None, adapters), None)
            self._seen[path, directory] = first or self._in_working_tree(path, directory)
        _, adapter = self._seen[path, directory]
        return str(adapter.place), adapter

    def published(self, name: str, version: str | None = None) -> PublishedRecipe:
        """See Resolver."""
        return self._published(name, version)

    def _in_working_tree(self, path: str, directory: Path) -> IdentifiedAdapter:
        here = self._here(directory)
        _, adapter = self._usual.adapter(path, here)
        spelling = Spelling(path, here, None)
        return self._usual.whole(adapter, spelling).digests, adapter

    def model(self, path: str, directory: Path) -> tuple[str, Adapter]:
        """See Resolver. What lies in the working tree comes first: models are not kept in git."""
        try:
            return super().model(path, self._here(directory))
        except Fault:
            models = (look_up(path, directory) for look_up in self._lookups)
            first = next(filter(None, models), None)
            if first is None:
                raise
            self._seen[path, directory] = first
            return str(first[1].directory), first[1]

    def content(self, adapter: Adapter, spelling: Spelling) -> str:
        """See Resolver."""
        seen = self._seen.get((spelling.path, spelling.directory))
        return used_digest(adapter, adapter.digests if seen is None else seen[0])


class WorkingTree:
    """Ways to the adapters of a recipe in a folder."""

    def __init__(self, directory: Path) -> None:
        self._lock: Lock | None = None
        if is_file(directory / NAME):
            self._lock = read_lock(directory)

    def on_disk(self, path: str, directory: Path) -> IdentifiedAdapter | None:
        """The adapter where the recipe says, if its tensors are there."""
        if path.startswith(SCHEME):
            return None
        place = local(path, directory)
        whole = any(record.detect(place).whole for record in formats_of("adapter"))
        return _whole(place) if whole else None

    def published(self, name: str, version: str | None = None) -> PublishedRecipe:
        """A published recipe: of a library as it is installed, else as the lock has it."""
        if not name.startswith(SCHEME):
            try:
                return published_now(name)
            except Fault:
                if self._lock is None or name not in self._lock.published:
                    raise
        return self.locked_recipe(name, version)

    def locked_recipe(self, name: str, version: str | None = None) -> PublishedRecipe:
        """A published recipe as the lock has it; as it is now where that has none."""
        return published_by(self._lock, name, version)

    def locked(self, path: str, directory: Path) -> IdentifiedAdapter | None:
        """The adapter as the lock has it."""
        lock = self._lock
        if lock is None or lock.source(path, directory) not in lock.adapters:
            return None
        return lock.find(path, directory).files, from_lock(lock, path, directory)


def _whole(place: Path) -> IdentifiedAdapter:
    adapter = read_adapter(place)
    return adapter.digests, adapter


class Revision:
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
        name = os.path.normpath(here)
        if name not in self._blobs:
            raise _unknown(f"there is no {visible(name)} in {self._commit[:12]}")
        if not name.endswith(".pem"):
            self._extract([name])
        return self.at / name

    def hold(self, checked: Checked) -> None:
        """Raise PEM0820 where a recipe imports what is outside the repository: the revision says
        nothing of it."""
        for path in checked.files.trees:
            recipe = checked.files.published.get(path)
            if recipe is not None:
                if not path.is_relative_to(self.at):
                    self.notes.append(
                        f"{visible(recipe.name, 80)} is not in {NAME} of the revision: that of "
                        f"{visible(recipe.of, 80)} stands for it"
                    )
                continue
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

    def adapter(self, path: str, directory: Path) -> IdentifiedAdapter | None:
        """An adapter that the revision has; one that git does not keep is what lies there now."""
        if path.startswith(SCHEME) or Path(path).is_absolute():
            return None
        folder = os.path.normpath(f"{os.path.relpath(directory, self.at)}/{path}")
        place = (self._top / folder).resolve()
        files = self._kept(folder) or self._kept(os.path.relpath(place, self._top.resolve()))
        if files:
            self._extract(files)
            for name in files:
                self._fill(name)
            place = self.at / files[0]
            place = place if files == [folder] else place.parent
        elif is_dir(place) or is_file(place):
            self.notes.append(
                f"{visible(folder)} is not in git and not in {NAME} of the revision: what lies "
                "there now stands for it"
            )
        else:
            return None
        return _whole(place)

    def _kept(self, folder: str) -> list[str]:
        """The files of an adapter that the revision has."""
        if folder in self._blobs:
            return [folder]
        files = [name for name in self._blobs if (name.rpartition("/")[0] or ".") == folder]
        return files if any(Path(name).name in _DESCRIPTIONS for name in files) else []

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
                answer = git.stdout.readline().split()
                if len(answer) != 3:
                    raise _unknown(
                        f"git does not have {visible(path)} at {self._commit[:12]}",
                        "fetch the whole history: git fetch --refetch",
                    )
                rest = int(answer[2])
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
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        why = f"git: {lines[-1].removeprefix('fatal: ')}" if lines else f"{what} is no revision"
        raise _unknown(visible(why)) from None
    return done.stdout


def _unknown(why: str, help: str = "") -> Fault:
    usual = (
        "name a file as git does, REVISION:PATH, with its path from the top of the repository: "
        "main:recipes/merge.pem"
    )
    return Fault("PEM0820", why, help or usual)
