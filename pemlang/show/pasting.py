"""Which help is a text to be put in the place of what is marked, and which says what to do."""

from __future__ import annotations

import re

_SENTENCE = re.compile(r"[a-z][a-z'-]*[,:]? ([a-z(]|[`\"'\d+*⊕\\-])")
_PIECE = re.compile(
    r"[\w.]+ ?[=(\[⊕⊖⊗*/+]"
    r"|with \w+=|in \S+\.\.|layers \d|language \d|import |base \w+ = |adapter \w+ = |model \w+ = "
    r'|let \w+( = |:)|param \w+: |def \w+\(|save .+ to "|assert |print '
)
MEANT = re.compile(r"did you mean (`(?P<name>.*)`|(?P<text>\".*\"))\?")


def is_sentence(help: str) -> bool:
    """Whether it says in words what to do: it begins with two, and is no piece of a recipe."""
    return _SENTENCE.match(help) is not None and _PIECE.match(help) is None


def pasteable(help: str) -> str | None:
    """What a help shows to be put in the place of what is marked; None where it shows nothing."""
    meant = MEANT.fullmatch(help)
    if meant is not None:
        return meant["name"] or meant["text"]
    return None if is_sentence(help) else help
