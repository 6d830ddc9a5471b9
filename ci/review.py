"""What action.yml runs: checks the recipes of a repository, and says what a pull request changes in
the modules they make, in one comment that each push brings up to date.

It needs git, the pem command, and nothing but the standard library. It fails if a recipe is wrong.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from github_api import MARK, Api, pull_request, warn, write_comment

COMMENT_LIMIT = 65_536  # characters; GitHub's
SUMMARY_LIMIT = 1_000_000  # bytes; GitHub's is 1 MiB a step
MESSAGES_SHOWN = 30
MESSAGE_LIMIT = 1_000  # characters
NAMES_SHOWN = 50
NAME_LIMIT = 200  # characters
OUTPUT_LIMIT = 4_000  # characters of what a command says went wrong
MINUTES, MOST_MINUTES = 10.0, 1e6
TIMED_OUT = 124  # as timeout(1) says it
STARTED = time.monotonic()
LOCK = "pem.lock"
TENSORS = (
    "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin",
    "statistics.safetensors",
)  # fmt: skip
EMPTY = {
    "version": "2.1.0",
    "runs": [{"tool": {"driver": {"name": "pemlang"}}, "results": []}],
}
_IMPORT = re.compile(r'^\s*import\s+"([^"\n]+)"', re.MULTILINE)
_CERTIFICATE = re.compile(rb"^[ \t]*-----BEGIN", re.MULTILINE)


@dataclass(frozen=True)
class Change:
    """What a pull request did to recipes.

    Attributes:
        base: the commit it is compared with.
        files: every path that changed, to how: A, M, D, …
        gone: the recipes that are no more.
    """

    base: str
    files: Mapping[str, str]
    gone: Sequence[str]

    def touches(self, recipe: str) -> bool:
        """Whether a recipe may mean something else than before."""
        lock = Path(recipe).with_name(LOCK).as_posix()
        named = {lock, *_with_imports(recipe)}
        return any(
            file in named or (Path(file).name in TENSORS and _is_of(file, recipe))
            for file in self.files
        )


def _is_of(file: str, recipe: str) -> bool:
    """Whether a file of an adapter is one of a recipe's, by its lock; any is, where that does not
    tell."""
    folder = Path(recipe).parent
    try:
        said = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        sources = said["recipes"][Path(recipe).name]["adapters"]
        places = {os.path.normpath(folder / source) for source in sources}
    except (OSError, ValueError, LookupError, TypeError):
        return True
    return str(Path(file).parent) in places


def main() -> int:
    """Review the repository around the current directory; gives the exit code."""
    os.chdir(_git("rev-parse", "--show-toplevel").rstrip("\n"))
    words = os.environ.get("PEM_RECIPES", "").split() or ["**/*.pem"]
    globs = [f":(glob){word}" for word in words]
    recipes = _recipes(globs)
    locked = ["--locked"] * _is_on("PEM_LOCKED")
    messages, right = _check(recipes, locked)
    change = _change(os.environ.get("PEM_BASE", ""), globs)
    sections = _sections(recipes, change, locked)
    parts = [MARK, "## pemlang", _verdict(recipes, messages)]
    if change and not sections:
        parts.append("No recipe, lock or adapter changed.")
    _summarise(_joined(parts, sections, lambda text: len(text.encode()) <= SUMMARY_LIMIT))
    number = pull_request()
    if number is not None and _is_on("PEM_COMMENT"):
        body = _joined(parts, sections, lambda text: len(text) <= COMMENT_LIMIT)
        api = Api(os.environ["GITHUB_API_URL"], os.environ.get("GITHUB_TOKEN", ""))
        fresh = bool(sections) or not right
        write_comment(api, os.environ["GITHUB_REPOSITORY"], number, body, fresh)
    return 0 if right else 1


def _is_on(name: str) -> bool:
    return os.environ.get(name, "true").strip().lower() not in ("false", "0", "no", "")


# --- what there is, and what changed --------------------------------------------------------------


def _recipes(globs: Sequence[str]) -> list[str]:
    """The recipes that git tracks; certificates, which share the extension, are none."""
    files = map(Path, _names(_git("ls-files", "-z", "--", *globs)))
    return [str(file) for file in files if file.is_file() and not _is_certificate(file)]


def _is_certificate(file: Path) -> bool:
    with file.open("rb") as opened:
        return _CERTIFICATE.search(opened.read(256 << 10)) is not None


def _change(base: str, globs: Sequence[str]) -> Change | None:
    """What changed since a commit; None without one, as on a push, or where it is not to be had."""
    if not base:
        return None
    found = _commit(base)
    if found is None:
        # A checkout of depth 1, as actions/checkout makes, has the last commit alone.
        depth = ["--quiet", "--no-tags", "--depth=1"]
        fetched = _try("git", "fetch", *depth, "--end-of-options", "origin", base)
        found = _commit("FETCH_HEAD") if fetched.returncode == 0 else None
    if found is None:
        warn(f"The base {base} is not here and cannot be fetched: nothing to compare with.")
        return None
    # Where the histories are here, what the base has got since is no part of the change.
    fork = _try("git", "merge-base", found, "HEAD").stdout.strip() or found
    gone = _git("diff", "--name-only", "--no-renames", "--diff-filter=D", "-z", fork, "--", *globs)
    return Change(fork, _since(fork), [file for file in _names(gone) if _was_recipe(fork, file)])


def _commit(name: str) -> str | None:
    done = _try("git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    return done.stdout.strip() if done.returncode == 0 else None


def _since(commit: str) -> dict[str, str]:
    words = _git("diff", "--name-status", "--no-renames", "-z", commit, "--").split("\0")
    return dict(zip(words[1::2], words[::2], strict=False))


def _was_recipe(commit: str, file: str) -> bool:
    text = _try("git", "cat-file", "blob", f"{commit}:{file}").stdout
    return _CERTIFICATE.search(text.encode(errors="surrogateescape")) is None


def _names(listed: str) -> list[str]:
    return sorted(filter(None, listed.split("\0")))


def _with_imports(recipe: str) -> set[str]:
    """A recipe and all files that it imports, as paths from the top of the repository."""
    found: set[str] = set()
    todo = [recipe]
    while todo:
        file = todo.pop()
        if file in found or file.startswith("../"):
            continue
        found.add(file)
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        beside = os.path.dirname(file)  # noqa: PTH120 - normpath is what makes a/../b one name
        todo += [os.path.normpath(os.path.join(beside, to)) for to in _IMPORT.findall(text)]  # noqa: PTH118
    return found


# --- what pem says --------------------------------------------------------------------------------


def _check(recipes: Sequence[str], locked: Sequence[str]) -> tuple[list[str], bool]:
    """Check all recipes: annotations, the SARIF file, the messages a line each, and whether none
    of them is an error."""
    if not recipes:
        _write_sarif(json.dumps(EMPTY))
        return [], True
    words = ["pem", "check", *locked, "--format"]
    sarif = _try(*words, "sarif", "--", *recipes)
    try:
        results = json.loads(sarif.stdout)["runs"][0]["results"]
    except (ValueError, LookupError):
        _write_sarif(json.dumps(EMPTY))
        return _encodable((sarif.stderr or sarif.stdout)[-OUTPUT_LIMIT:]).splitlines(), False
    _write_sarif(sarif.stdout)
    print(_try(*words, "github", "--", *recipes).stdout, end="", flush=True)
    return [_message(result) for result in results], sarif.returncode == 0


def _message(result: Mapping[str, Any]) -> str:
    place = result["locations"][0]["physicalLocation"]
    file, region = unquote(place["artifactLocation"]["uri"]), place["region"]
    at = f"{_plain(file[-NAME_LIMIT:])}:{region['startLine']}:{region['startColumn']}"
    text = result["message"]["text"][:MESSAGE_LIMIT].replace("\n", "\n    ")
    return f"{at}: {result['level']}[{result['ruleId']}]: {text}"


def _write_sarif(text: str) -> None:
    path = Path(os.environ.get("PEM_SARIF_FILE") or "pem.sarif")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _verdict(recipes: Sequence[str], messages: Sequence[str]) -> str:
    checked = "1 recipe checked" if len(recipes) == 1 else f"{len(recipes)} recipes checked"
    if not messages:
        return f"{checked}: nothing is wrong."
    more = len(messages) - MESSAGES_SHOWN
    shown = [*messages[:MESSAGES_SHOWN], *([f"… and {more} more"] if more > 0 else [])]
    return f"{checked}:\n\n{_fenced(chr(10).join(shown))}"


def _sections(
    recipes: Sequence[str], change: Change | None, locked: Sequence[str]
) -> list[tuple[str, str]]:
    """Each recipe that there is something to say of, and what: of all, where there is no change to
    look at."""
    if change is None:
        return [(recipe, _section(recipe, None, locked)) for recipe in recipes]
    found = [
        (recipe, _section(recipe, change, locked)) for recipe in recipes if change.touches(recipe)
    ]
    return found + [(file, f"### {code(file)}\n\nDeleted.") for file in change.gone]


def _section(recipe: str, change: Change | None, locked: Sequence[str]) -> str:
    parts = [f"### {code(recipe)}"]
    if change and change.files.get(recipe) == "A":
        parts.append("New.")
    elif change:
        before = f"{change.base}:{recipe}"
        parts.append(_said("pem", "diff", "--format", "markdown", "--", before, recipe))
    plan = _said("pem", "plan", *locked, "--format", "markdown", "--", recipe)
    parts.append(f"<details><summary>Plan</summary>\n\n{plan}\n\n</details>")
    return "\n\n".join(parts)


def _said(*command: str) -> str:
    """What a command says in Markdown, or what it says went wrong."""
    done = _try(*command)
    if done.returncode == 0:
        return _encodable(done.stdout.strip())
    wrong = _encodable(done.stderr.strip()[-OUTPUT_LIMIT:])
    return f"`{' '.join(command[:2])}` failed:\n\n{_fenced(wrong)}"


# --- how it is written ----------------------------------------------------------------------------


def code(text: str) -> str:
    """A file name in Markdown, as code in a fence longer than any run of backticks in it."""
    text = _plain(text if len(text) <= NAME_LIMIT else f"{text[:NAME_LIMIT]}…")
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    fence = "`" * (_longest_run(text) + 1)
    return f"{fence}{pad}{text}{pad}{fence}"


def _encodable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _fenced(text: str) -> str:
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _plain(text: str) -> str:
    """A file name with what is not printed escaped, so that it stays on its line."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _joined(
    parts: Sequence[str], sections: Sequence[tuple[str, str]], fits: Callable[[str], bool]
) -> str:
    """One text of all that fits; of the sections that do not, the names."""
    kept: list[str] = []
    left_out: list[str] = []
    for recipe, text in sections:
        names = [*left_out, *(name for name, _ in sections[len(kept) + len(left_out) + 1 :])]
        whole = "\n\n".join([*parts, *kept, text, _left_out(names)])
        if fits(whole):
            kept.append(text)
        else:
            left_out.append(recipe)
    return "\n\n".join(filter(None, [*parts, *kept, _left_out(left_out)])) + "\n"


def _left_out(recipes: Sequence[str]) -> str:
    if not recipes:
        return ""
    more = len(recipes) - NAMES_SHOWN
    names = ", ".join(map(code, recipes[:NAMES_SHOWN])) + (f" and {more} more" if more > 0 else "")
    return f"There is no room left for {names}; `pem plan` and `pem diff` show them."


def _summarise(text: str) -> None:
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


# --- running things -------------------------------------------------------------------------------


def _try(*command: str) -> subprocess.CompletedProcess[str]:
    """A command, for as long as the action has minutes left."""
    left = max(0.01, 60 * _minutes() - (time.monotonic() - STARTED))
    try:
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="surrogateescape", check=False,
            timeout=left if command[0] == "pem" else None,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        why = f"{command[0]} was ended: all of this may take {_minutes():g} minutes (`minutes`)"
        return subprocess.CompletedProcess(command, TIMED_OUT, "", f"{why}\n")


def _minutes() -> float:
    try:
        minutes = float(os.environ.get("PEM_MINUTES") or MINUTES)
    except ValueError:
        return MINUTES
    return minutes if 0 <= minutes < MOST_MINUTES else MINUTES


def _git(*words: str) -> str:
    done = _try("git", *words)
    if done.returncode:
        sys.exit(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
