"""A change of a recipe as git shows one, and what it means below."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from pemlang.check.checked import Checked
from pemlang.compare.recipes import compare_recipes
from pemlang.compare.sides import working_side
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, PemError, Report, listed, visible
from pemlang.inputs.imports import imports_of
from pemlang.show.recipe_diff import as_text
from pemlang.source import Source
from pemlang.syntax.files import is_certificate, read_source
from pemlang.syntax.parser import parse

NONE = "/dev/null"  # what git calls a file that is not there
BINARY = b"Binary files differ\n"
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Change:
    """What git tells an external diff of a file.

    Attributes:
        path: from the top of the repository.
        old_file, new_file: where each side can be read; /dev/null where it is not.
        old_hex, new_hex: their object names; zeros for a file of the work tree.
        old_mode, new_mode: such as 100644.
        new_path: what the file is called now, where it was renamed.
        rename_lines: git's own lines about a rename.
    """

    path: str
    old_file: str
    old_hex: str
    old_mode: str
    new_file: str
    new_hex: str
    new_mode: str
    new_path: str = ""
    rename_lines: str = ""


def header(change: Change, hunks: bytes) -> list[str]:
    """The lines above the hunks, as `git apply` reads them."""
    old, new = quoted(f"a/{change.path}"), quoted(f"b/{change.new_path or change.path}")
    lines = [f"diff --git {old} {new}", *_modes(change)]
    index = f"index {change.old_hex[:12]}..{change.new_hex[:12]}"
    same = f" {change.new_mode}" if change.old_mode == change.new_mode else ""
    lines += change.rename_lines.splitlines() or [index + same]
    if not hunks or hunks == BINARY:
        return lines
    sides = (("---", old, change.old_file), ("+++", new, change.new_file))
    return lines + [
        f"{mark} {NONE if file == NONE else _ended(name)}" for mark, name, file in sides
    ]


def _modes(change: Change) -> list[str]:
    if change.old_file == NONE:
        return [f"new file mode {change.new_mode}"]
    if change.new_file == NONE:
        return [f"deleted file mode {change.old_mode}"]
    if change.old_mode != change.new_mode and not change.rename_lines:
        return [f"old mode {change.old_mode}", f"new mode {change.new_mode}"]
    return []


def _ended(name: str) -> str:
    return name + "\t" * (" " in name)  # the tab says where a name that has spaces ends


def quoted(name: str) -> str:
    """A file name as git writes it: in quotes where a character is not plain."""
    shown = "".join(map(_escaped, name.encode(errors="surrogateescape")))
    return name if shown == name else f'"{shown}"'


def _escaped(byte: int) -> str:
    if byte in b'"\\':
        return f"\\{chr(byte)}"
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"


def hunks(change: Change, colour: bool) -> bytes:
    """The lines that changed, by git itself, from the first hunk on."""
    command = [
        "git", "--no-pager", "diff", "--no-index", "--no-ext-diff", "--no-textconv",
        f"--color={'always' if colour else 'never'}", "--", change.old_file, change.new_file,
    ]  # fmt: skip
    lines = subprocess.run(command, capture_output=True, check=False).stdout.splitlines(True)
    plain = (_COLOUR.sub(b"", line) for line in lines)
    for i, line in enumerate(plain):
        if line.startswith(b"Binary files"):
            return BINARY
        if line.startswith(b"@@"):
            return b"".join(lines[i:])
    return b""


def meaning(change: Change) -> list[str]:
    """What the change means, a line each; or why that cannot be said."""
    sides = {"old": change.old_file, "new": change.new_file}
    files = {side: Path(file) for side, file in sides.items() if file != NONE}
    for side, file in files.items():
        if is_certificate(file):
            return ["# a certificate or key, not a recipe"]
        wrong = _unreadable(file)
        if wrong is not None:
            return [f"# what this means cannot be told: the {side} recipe {wrong}"]
    try:
        lines = _meaning(files.get("old"), files.get("new"), change.new_path or change.path)
    except (PemError, Fault) as error:
        first = error.diagnostics[0] if isinstance(error, PemError) else error
        return [f"# what this means cannot be told: {visible(first.message, 400)} ({first.code})"]
    return [f"# {line}" for line in lines]


def _meaning(old: Path | None, new: Path | None, path: str) -> list[str]:
    """What changed between two states of one recipe, as lines for a terminal.

    Args:
        old, new: files that hold its text; None where there is none.
        path: where the recipe is in the working tree, whose imports, adapters and lock both have.

    Raises:
        Fault, PemError: as `opened`.
    """
    before, after = (_side(file, path) for file in (old, new))
    lines = as_text(compare_recipes(before, after, (path, path))).splitlines()
    imports = {name for checked in (before, after) if checked for name in imports_of(checked)}
    files = sorted(name for name in imports if not name.startswith("std."))
    if files:
        lines.append(f"with {listed(files)} on both sides as it is now")
    return lines


def _side(file: Path | None, path: str) -> Checked | None:
    if file is None:
        return None
    place = Path(path).resolve()
    return working_side(
        path, place, Source(path, read_source(file, path).text, place.parent), {}
    ).checked


def _unreadable(file: Path) -> str | None:
    """What is wrong with a recipe that does not parse."""
    report = Report()
    try:
        parse(read_source(file, "recipe"), report)
    except Fault as fault:
        return f"cannot be read ({fault.code})"
    for wrong in report:
        if wrong.severity == "error" and wrong.span is not None:
            line, _ = wrong.span.source.position(wrong.span.start)
            return f"does not parse: line {line}, {wrong.message} ({wrong.code})"
    return None
