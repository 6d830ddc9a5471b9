"""Text of recipes, written for a person who has not written one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Mapping
from itertools import chain, count

from pemlang.diagnostics import Fault, visible
from pemlang.source import Source
from pemlang.syntax.files import ON_THE_COMMAND_LINE
from pemlang.syntax.format import formatted
from pemlang.syntax.tree import KEYWORDS
from pemlang.version import LANGUAGE

_NAME = re.compile(r"[^\W\d][\w\u0300-\u036f]*")
_MEANING_MORE = str.maketrans({"\\": r"\\", '"': r"\"", "{": "{{", "}": "}}"})


def quoted(text: str) -> str:
    """A text as a string of a recipe; raises Fault PEM0111 for one with characters that are not
    seen."""
    if not text.isprintable():
        raise Fault(
            "PEM0111",
            f"`{visible(text)}` has characters that no recipe shows",
            "give it another name: it is that of a folder, or of the base in an adapter's config",
        )
    return f'"{text.translate(_MEANING_MORE)}"'


def is_name(text: str) -> bool:
    """Whether a recipe may call something this."""
    return _NAME.fullmatch(text) is not None and text not in KEYWORDS


def name_like(text: str, taken: Container[str]) -> str:
    """A name of the language that is as near to a text as one can be, and is not taken."""
    letters = re.sub(r"[^\w\u0300-\u036f]+", "_", unicodedata.normalize("NFC", text)).strip("_")
    name = letters if _NAME.fullmatch(letters) else f"x{letters}"
    numbered = (f"{name}_{number}" for number in count(2))
    return next(word for word in chain([name], numbered) if is_name(word) and word not in taken)


def one_off_text(expression: str, inputs: Mapping[str, tuple[str, str]], to: str) -> str:
    """The recipe that an expression over some adapters and models stands for, in the one layout.

    Args:
        expression: as on the right of `save`.
        inputs: the names in it: `adapter` or `model`, and the place.
        to: where it is saved.

    Raises:
        PemError: it does not parse.
        Fault: as quoted.
    """
    lines = [f"language {LANGUAGE}", ""]
    lines += [f"{kind} {name} = {quoted(place)}" for name, (kind, place) in inputs.items()]
    # In brackets nothing of it is taken for the place to save to, or hides that.
    value = " ".join(expression.splitlines()) + "\n" * ("#" in expression)
    lines += ["", f"save ({value}) to {quoted(to)}", ""]
    return formatted(Source(ON_THE_COMMAND_LINE, "\n".join(lines)))
