"""Help is a promise: what it shows, put in the place of what is marked, checks, and keeps every
operand, setting and weight. Uses of every operator are drawn from its record, and made wrong."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support import recipe
from support.calls import ALIKE, APART, DECLARED, OPERATORS, Drawn, drawn, stock
from support.messages.sentences import is_sentence

import pemlang

ROUNDS = 12
"""How often each operator is drawn with each mistake."""

Mistake = Callable[[Drawn, random.Random], tuple[str, str] | None]
"""A use made wrong, and the piece of it that is wrong; None for one that cannot be made so."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("help")
    stock(folder)
    return folder


# --- mistakes ------------------------------------------------------------------------------


def _with_others(use: Drawn, rng: random.Random, others: Sequence[str]) -> tuple[str, str] | None:
    """The use with one or two other adapters."""
    if len(use.operands) < 2 or use.by_statistics or not use.operands[1].endswith("b"):
        return None
    operands = list(use.operands)
    for index in rng.sample(range(len(operands)), rng.choice([1, min(2, len(operands) - 1)])):
        operands[index] = operands[index].replace(ALIKE[index], rng.choice(others))
    return use.of(*operands).text, ""


def other_modules(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    return None if use.name == "join" else _with_others(use, rng, APART["sites"])


def other_factors(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    return _with_others(use, rng, APART["factors"]) if use.over_factors else None


def other_modules_and_factors(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    return None if use.name == "join" else _with_others(use, rng, APART["both"])


MISTAKES: dict[str, Mistake] = {
    mistake.__name__: mistake
    for mistake in (other_modules, other_factors, other_modules_and_factors)
}


# --- and what help makes of them -------------------------------------------------------------


def wrong_uses(mistake: Mistake) -> Iterator[tuple[str, str]]:
    """Uses of every operator that can be made wrong so, and the pieces that are wrong."""
    rng = random.Random(mistake.__name__)
    for operator in OPERATORS:
        for _ in range(ROUNDS):
            use = drawn(operator, rng)
            wrong = mistake(use, rng)
            if wrong is not None:
                yield wrong


def checked(folder: Path, texts: Sequence[str]) -> tuple[str, list[list[pemlang.Diagnostic]]]:
    """A recipe of these expressions, and what is said of each."""
    lines = [f"let x{number} = {text}\n" for number, text in enumerate(texts)]
    text = DECLARED + "".join(lines)
    path = recipe(folder, text)
    starts = [len(DECLARED) + sum(map(len, lines[:number])) for number in range(len(lines))]
    said: list[list[pemlang.Diagnostic]] = [[] for _ in lines]
    for diagnostic in pemlang.load(path).check():
        assert diagnostic.span is not None
        [line] = [
            n for n, at in enumerate(starts) if at <= diagnostic.span.start < at + len(lines[n])
        ]
        said[line].append(diagnostic)
    return text, said


def pasted(text: str, diagnostic: pemlang.Diagnostic) -> str:
    """The expression with the help in the place of what is marked."""
    assert diagnostic.span is not None and diagnostic.help is not None
    source, start, end = diagnostic.span.source, diagnostic.span.start, diagnostic.span.end
    begin = source.text.rindex("let ", 0, start + 1)
    begin = source.text.index("= ", begin) + 2
    line_end = source.text.index("\n", end)
    return source.text[begin:start] + diagnostic.help + source.text[end:line_end]


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[\w.]+", text))


@pytest.mark.parametrize("name", MISTAKES)
def test_pasted_help_checks_and_keeps_everything(folder: Path, name: str) -> None:
    uses = list(wrong_uses(MISTAKES[name]))
    assert len(uses) >= ROUNDS // 3
    failed: list[object] = []
    for start in range(0, len(uses), 100):
        batch = uses[start : start + 100]
        _, said = checked(folder, [text for text, _ in batch])
        mended = []
        for (text, piece), about in zip(batch, said, strict=True):
            if len(about) != 1 or about[0].help is None or is_sentence(about[0].help):
                failed.append((text, [(d.code, d.message, d.help) for d in about]))
            else:
                mended.append((text, piece, pasted(text, about[0])))
        _, again = checked(folder, [new for *_, new in mended])
        for (old, piece, new), about in zip(mended, again, strict=True):
            lost = words(old) - words(piece) - words(new)
            if about or lost:
                failed.append((old, new, [(d.code, d.message) for d in about], lost))
    assert failed[:5] == [], len(failed)
