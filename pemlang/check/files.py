"""A recipe and every file it imports, read and parsed, in the order they are needed."""

from __future__ import annotations

import re
from dataclasses import field, replace
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath

from pemlang.check.published import HUB, WEB, PublishedRecipe, beside
from pemlang.check.values import ImportedTexts
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, Report, nearest, visible
from pemlang.disk import is_file
from pemlang.resources import resource
from pemlang.source import Source
from pemlang.syntax import tree as t
from pemlang.syntax.files import SUFFIX, decoded, leads_elsewhere
from pemlang.syntax.parser import parse

STD = "std."
"""What the names of modules of the standard library begin with."""

MAX_FILES = 200
MAX_TEXT = 1 << 20  # characters of all files together: a second of parsing for each 100,000


@dataclass(eq=False)
class RecipeFiles:
    """Attributes:
    trees: every file by its path.
    imports: each import statement to the path of the file it names.
    needs: every file to the files it imports.
    published: those of libraries and of the hub, by their paths.
    """

    trees: dict[Path, t.RecipeFile] = field(default_factory=dict)
    imports: dict[t.Import, Path] = field(default_factory=dict)
    needs: dict[Path, set[Path]] = field(default_factory=dict)
    published: dict[Path, PublishedRecipe] = field(default_factory=dict)

    def order(self) -> list[Path]:
        """Imported files before those that import them, in an order that depends on paths alone."""
        ordered = {path: sorted(self.needs[path]) for path in sorted(self.needs)}
        return list(TopologicalSorter(ordered).static_order())

    def reaches(self, importer: Path, imported: Path) -> bool:
        """Whether a file imports another, or is it, by any way."""
        seen, pending = {importer}, [importer]
        while pending:
            new = self.needs.get(pending.pop(), set()) - seen
            seen |= new
            pending += new
        return imported in seen


def load_files(path: Path, source: Source, report: Report, inputs: ImportedTexts) -> RecipeFiles:
    """Read a recipe's imports, theirs, and so on.

    Args:
        path, source: the recipe.
        report: told what is wrong.
        inputs: gives the texts of imported files, and published recipes.

    Reports PEM0203 a module that is not there, PEM0204 a cycle, PEM0205 a path that may not be
    imported, what reading and parsing say, and what `inputs` says of published recipes.
    """
    files = RecipeFiles()
    files.needs[path] = set()
    pending, size = [(path, source)], len(source.text)
    while pending:
        here, text = pending.pop()
        files.trees[here] = parse(text, report)
        for statement in files.trees[here].statements:
            if not isinstance(statement, t.Import):
                continue
            try:
                target, name = _target(files, here, statement, text, inputs)
                if target not in files.trees and all(target != other for other, _ in pending):
                    if len(files.trees) + len(pending) >= MAX_FILES:
                        message = f"more than {MAX_FILES} files are imported"
                        raise Fault("PEM0205", message, "put several into one file")
                    published = files.published.get(target)
                    imported = (
                        inputs.recipe(target, name)
                        if published is None
                        else decoded(published.data, name, target.parent)
                    )
                    size += len(imported.text)
                    if size > MAX_TEXT:
                        message = f"its imports are more than {MAX_TEXT >> 20} MiB of text"
                        raise Fault("PEM0205", message, "give it fewer imports, or smaller files")
                    pending.append((target, replace(imported, memory=text.memory)))
                _connect(files, target, here)
                files.imports[statement] = target
            except Fault as fault:
                report.add(fault.at(statement.span))
    return files


def _connect(files: RecipeFiles, imported: Path, importer: Path) -> None:
    if files.reaches(imported, importer):
        if imported == importer:
            raise Fault("PEM0204", "this file imports itself", "remove the import")
        raise Fault(
            "PEM0204",
            f"{visible(imported.name)} imports {visible(importer.name)} in turn: a cycle",
            "move what both need into a third file",
        )
    files.needs.setdefault(imported, set())
    files.needs[importer].add(imported)


def _target(
    files: RecipeFiles, importer: Path, statement: t.Import, source: Source, inputs: ImportedTexts
) -> tuple[Path, str]:
    """The file an import names, and what messages call it; one that is published is added."""
    if isinstance(statement.module, tuple):
        if statement.module[0] == "std":
            name = ".".join(statement.module)
            return std_module(name), f"{name} (stdlib)"
        try:
            return _published(files, inputs.published(".".join(statement.module)))
        except Fault as fault:
            fault.help = _by_its_path(statement, statement.module, source) or fault.help
            raise
    parts = statement.module.parts
    if len(parts) != 1 or not isinstance(parts[0], str):
        help = 'write the path out, as in import "file.pem" as name'
        raise Fault("PEM0205", "the path of an import is plain text", help)
    text = parts[0]
    if text.startswith((HUB, *WEB)):
        return _published(files, inputs.published(text))
    path = Path(text)
    if path.is_absolute() or path.suffix != SUFFIX or "\0" in text:
        raise Fault(
            "PEM0205",
            f"{visible(text)!r} is not a relative path of a .pem file",
            'write a path, as in import "house/schedules.pem" as house',
        )
    within = files.published.get(importer)
    if within is not None:
        return _published(files, inputs.published(beside(within.name, text), within.version))
    try:
        elsewhere = leads_elsewhere(source.directory / path)
        target = (source.directory / path).resolve()
    except (OSError, RuntimeError):
        elsewhere, target = False, source.directory / path
    if elsewhere:
        raise Fault(
            "PEM0205",
            f"{visible(text)} is a link to what is no {SUFFIX} file",
            "name the file itself",
        )
    if not is_file(target):
        raise Fault(
            "PEM0203",
            f"there is no file {visible(text)}",
            "check the path: it is relative to the file that names it",
        )
    name = str(Path(source.name).parent / path)
    return target, name


def _by_its_path(statement: t.Import, module: tuple[str, ...], source: Source) -> str | None:
    """An import that names a file beside the recipe with dots, as Python does, by its path."""
    parts = module[:-1] if module[-1] == SUFFIX.removeprefix(".") else module
    path = PurePosixPath(*parts).with_suffix(SUFFIX)
    if not parts or not is_file(source.directory / path):
        return None
    written = r"\s*\.\s*".join(map(re.escape, module))
    return re.sub(written, f'"{path}"', statement.span.text, count=1)


def _published(files: RecipeFiles, recipe: PublishedRecipe) -> tuple[Path, str]:
    place = recipe.path
    if files.published.get(place, recipe).name != recipe.name:
        place /= recipe.name  # two names of one text are two recipes, as they are to a lock
    kept = files.published.setdefault(place, recipe)
    return place, f"{kept.name} ({kept.of})"


def std_modules() -> list[str]:
    """The names of the modules of the standard library."""
    return sorted(f"{STD}{path.stem}" for path in resource("stdlib").glob("*.pem"))


def std_module(name: str) -> Path:
    """The file of one of them; raises PEM0203."""
    names = std_modules()
    if name not in names:
        part = name.removeprefix(STD).removesuffix(SUFFIX)
        close = nearest(part, [x.removeprefix(STD) for x in names])
        raise Fault(
            "PEM0203",
            f"there is no module `{visible(name, 60)}`",
            f"name one that there is: {f'{STD}{close}' if close else ', '.join(names)}",
        )
    return resource("stdlib") / f"{name.removeprefix(STD)}.pem"
