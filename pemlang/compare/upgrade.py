"""A lock in which a library is taken anew, and what that changes in the recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.check.published import HUB, is_published
from pemlang.check.values import Params
from pemlang.compare.recipes import RecipeComparison, compare_recipes
from pemlang.diagnostics import Fault, PemError, Report, listed, nearest, placed, visible
from pemlang.disk import is_file
from pemlang.inputs.lock import Lock, read_lock
from pemlang.inputs.locked import LockResolver, hold_version
from pemlang.pipeline.checking import identified_with
from pemlang.pipeline.lock import imports_locked
from pemlang.source import Source
from pemlang.syntax import tree as t
from pemlang.syntax.files import read_source
from pemlang.syntax.parser import parse


def upgraded(
    path: Path, source: Source, params: Params, library: str
) -> tuple[Lock, RecipeComparison]:
    """What a recipe becomes with a library as it is now and all else as its lock has it. No adapter
    need be there.

    Args:
        path, source, params: the recipe.
        library: its name, or `hf://org/name` of a repository.

    Returns:
        The lock of the recipe, with the library as it is now, and what changed.

    Raises:
        PemError: PEM0393 the lock has none of the name, PEM0801 there is no lock, PEM0804 another
            version made it, and everything wrong with the recipe as it was and as it is to be.
    """
    with placed(None):
        lock = read_lock(source.directory)
        hold_version(lock)
        names = [name for name in lock.published if _is_of(name, library)]
        if not names:
            raise _no_library(lock, library)
    less = replace(
        lock,
        imports={name: digest for name, digest in lock.imports.items() if name not in names},
        published={name: recipe for name, recipe in lock.published.items() if name not in names},
        partial=True,
    )
    before = identified_with(LockResolver(lock), path, source, params)
    # Of other libraries the text is the lock's, whatever is installed.
    held = replace(less, published={})
    after = identified_with(LockResolver(less), path, source, params, lock=held)
    new = imports_locked(after)
    sources = new.recipes[path.resolve().name]["adapters"] = _sources(lock, after)
    new.adapters = {source: lock.adapters[source] for source in sources}
    for name in new.imports:
        if name not in lock.imports and not is_published(name):
            fault = Fault("PEM0802", f"{visible(name)} is not in {lock.name}", lock.again)
            raise PemError([fault.at(None)])
    sides = (_of(before, library), _of(after, library))
    return new, compare_recipes(before, after, sides)


def users(recipe: Path, library: str) -> list[Path]:
    """The recipes beside one that by their lock import a library, that one first: they have one
    text of it.

    Raises:
        PemError: PEM0801 there is no lock.
    """
    lies = recipe.resolve() if recipe.is_symlink() and is_file(recipe) else recipe
    with placed(None):
        made_of = read_lock(lies.parent).recipes
    others = [
        lies.parent / name
        for name, parts in sorted(made_of.items())
        if name not in ("", lies.name) and name == Path(name).name
        if any(_is_of(imported, library) for imported in parts["imports"])
    ]
    return [recipe, *filter(is_file, others)]


def settings_of_each(recipes: Sequence[str], settings: Mapping[str, str]) -> list[dict[str, str]]:
    """The settings of each of some recipes that are taken together: those of its own params, and
    those of nobody's, which its check refuses.

    Raises:
        PemError: a recipe cannot be read.
    """
    with placed(None):
        own = [_params(read_source(Path(recipe))) for recipe in recipes]
    known = set[str]().union(*own)
    return [
        {name: value for name, value in settings.items() if name in params or name not in known}
        for params in own
    ]


def _params(source: Source) -> set[str]:
    """The names of a recipe's params; what is wrong with it, its check says."""
    statements = parse(source, Report()).statements
    return {statement.name.name for statement in statements if isinstance(statement, t.Param)}


def _is_of(name: str, library: str) -> bool:
    """Whether a published recipe is of a library or repository."""
    ends = ("@", "/") if library.startswith(HUB) else (".",)
    return any(name.startswith(library + end) for end in ends)


def _sources(lock: Lock, checked: Checked) -> list[str]:
    spelt = (spelling for spellings in checked.spellings.values() for spelling in spellings)
    return sorted({lock.source(spelling.path, spelling.directory) for spelling in spelt})


def _of(checked: Checked, library: str) -> str:
    """What a side is called: the version of the library."""
    recipes = checked.files.published.values()
    versions = dict.fromkeys(recipe.of for recipe in recipes if _is_of(recipe.name, library))
    return ", ".join(versions) or f"without {library}"


def _no_library(lock: Lock, library: str) -> Fault:
    at = len("hf://org/name".split("/"))
    there = sorted(
        {
            "/".join(name.split("/")[:at]).partition("@")[0]
            if name.startswith(HUB)
            else name.partition(".")[0]
            for name in lock.published
        }
    )
    close = nearest(library, there)
    help = "run `pem lock` once the recipe imports one: it has none"
    if there:
        help = f"name one that there is: {close or listed(there, 8)}"
    return Fault("PEM0393", f"{lock.name} has no library {visible(library, 80)!r}", help)
