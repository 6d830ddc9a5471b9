"""What `pem diff` says of two texts of a recipe in one folder, or of two adapters."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support.command import pem
from support.recipes import recipe

DECLARED = "".join(f'adapter {name} = "{name}"\n' for name in "abchijk")
SUM = """\
adapter a = "adapters/a"
adapter b = "adapters/b"
let safe = a - 0.6 * b
save safe to "out/x"
"""


def shown(folder: Path, old: str, new: str, form: str = "text") -> str:
    """What is shown of two texts, which declare what they need or all of DECLARED."""
    for name, text in (("old.pem", old), ("new.pem", new)):
        declares = text.startswith(("adapter ", "base ", "import "))
        recipe(folder, text if declares else DECLARED + text, name)
    return shown_of(folder / "old.pem", folder / "new.pem", form)


def shown_of(old: Path, new: Path, form: str = "text") -> str:
    """What is shown of two recipes or adapters."""
    done = pem("diff", old, new, "--format", form)
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def compared(folder: Path, old: str, new: str) -> Any:
    """All that is found between two texts, as JSON has it, its keys as attributes."""
    return _parsed(shown(folder, old, new, "json"))


def compared_of(old: Path, new: Path) -> Any:
    """All that is found between two recipes or adapters, as JSON has it, its keys as
    attributes."""
    return _parsed(shown_of(old, new, "json"))


def _parsed(text: str) -> Any:
    return json.loads(text, object_hook=lambda pairs: SimpleNamespace(**pairs))


def phrases(folder: Path, old: str, new: str) -> list[str]:
    """The phrases for the one output of two texts, values of which are saved as x."""
    [change] = compared(folder, _saved(old), _saved(new)).outputs
    told: list[str] = change.changes
    return told


def _saved(text: str) -> str:
    if "save " in text:
        return text
    value, with_, options = text.partition(" with ")
    return f'let x = {value}\nsave x to "out"{with_}{options}'
