"""A recipe and every file it imports, read and parsed, in the order they are needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

from pemlang.diagnostics import Fault, Report, nearest, visible
from pemlang.resources import resource
from pemlang.source import Source
from pemlang.syntax import tree as t
from pemlang.syntax.files import read_source
from pemlang.syntax.parser import parse
from pemlang.tensorfiles.disk import is_file

MAX_FILES = 200


@dataclass
class Program:
    """Attributes:
    main: the file being built.
    trees: every file by its path.
    imports: each import statement to the path of the file it names.
    needs: every file to the files it imports.
    """

    main: Path
    trees: dict[Path, t.File] = field(default_factory=dict)
    imports: dict[t.Import, Path] = field(default_factory=dict)
    needs: dict[Path, set[Path]] = field(default_factory=dict)

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


def load_program(path: Path, source: Source, report: Report) -> Program:
    """Read a recipe's imports, theirs, and so on.

    Reports PEM0203 a module that is not there, PEM0204 a cycle, PEM0205 a path that may not be
    imported, and what reading and parsing say.
    """
    program = Program(path)
    program.needs[path] = set()
    pending = [(path, source)]
    while pending:
        here, text = pending.pop()
        program.trees[here] = parse(text, report)
        for statement in program.trees[here].statements:
            if not isinstance(statement, t.Import):
                continue
            try:
                found, name = _target(statement, text)
                if found not in program.trees and all(found != other for other, _ in pending):
                    if len(program.trees) + len(pending) >= MAX_FILES:
                        message = f"more than {MAX_FILES} files are imported"
                        raise Fault("PEM0205", message, "put several into one file")
                    pending.append((found, read_source(found, name)))
                _connect(program, found, here)
                program.imports[statement] = found
            except Fault as fault:
                report.add(fault.at(statement.span))
    return program


def _connect(program: Program, imported: Path, importer: Path) -> None:
    if program.reaches(imported, importer):
        if imported == importer:
            raise Fault("PEM0204", "this file imports itself", "remove the import")
        raise Fault(
            "PEM0204",
            f"{visible(imported.name)} imports {visible(importer.name)} in turn: a cycle",
            "move what both need into a third file",
        )
    program.needs.setdefault(imported, set())
    program.needs[importer].add(imported)


def _target(statement: t.Import, source: Source) -> tuple[Path, str]:
    """The file an import names, and what messages call it."""
    if isinstance(statement.module, tuple):
        return _std(statement.module)
    parts = statement.module.parts
    if len(parts) != 1 or not isinstance(parts[0], str):
        raise Fault("PEM0205", "the path of an import is plain text", 'import "file.pem" as name')
    text = parts[0]
    path = Path(text)
    if path.is_absolute() or path.suffix != ".pem" or "\0" in text:
        raise Fault(
            "PEM0205",
            f"{visible(text)!r} is not a relative path of a .pem file",
            'import "house/schedules.pem" as house',
        )
    try:
        found = (source.directory / path).resolve()
    except (OSError, RuntimeError):
        found = source.directory / path
    if not is_file(found):
        raise Fault(
            "PEM0203",
            f"there is no file {visible(text)}",
            "paths are relative to the file that names them",
        )
    name = str(Path(source.name).parent / path)
    return found, name


def _std(module: tuple[str, ...]) -> tuple[Path, str]:
    shown = ".".join(module)
    folder = resource("stdlib")
    names = sorted(f"std.{path.stem}" for path in folder.glob("*.pem"))
    if shown not in names:
        close = nearest(shown, names)
        raise Fault(
            "PEM0203",
            f"there is no module `{visible(shown, 60)}`",
            f"did you mean `{close}`?" if close else f"the library has {', '.join(names)}",
        )
    return folder / f"{module[1]}.pem", f"{shown} (stdlib)"
