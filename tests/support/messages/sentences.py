"""Whether a help is a sentence, or a text to be put in the place of what is marked."""

from __future__ import annotations

import re

_WORD = r"[a-z][a-z'-]*"
_SENTENCE = re.compile(rf"{_WORD}[,:]? ({_WORD}|`|\"|'|\d|[x*][\[(]|⊕|−|-)")
_CODE = re.compile(
    r"^(\w+ )?[\w.]+ ?[=(\[⊕⊖⊗*/+]|^(let|with|save|base|import|param|adapter|layers|language|in) "
)


def is_sentence(help: str) -> bool:
    """Whether it says in words what to do: it begins with two, and is no piece of a recipe."""
    return _SENTENCE.match(help) is not None and _CODE.match(help) is None


_MEANT = re.compile(r"did you mean [`\"](.*)[`\"]\?")


def shown(help: str) -> str | None:
    """What a help shows to be put in the place of what is marked; None where it shows nothing."""
    meant = _MEANT.fullmatch(help)
    if meant is not None:
        return meant[1]
    return None if is_sentence(help) else help
