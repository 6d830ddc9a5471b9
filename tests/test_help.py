"""Help is a promise: what it shows, put in the place of what is marked, checks, and keeps every
operand, setting and weight. Uses of every operator are drawn from its record, and made wrong."""

from __future__ import annotations

import random
import re
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import pytest
from support import ia3, lora, recipe
from support.calls import ALIKE, APART, DECLARED, OPERATORS, SITES, Drawn, drawn, stock

import pemlang
from pemlang.ops import FUNCTIONS, Parameter
from pemlang.show import is_sentence, pasteable

MIGRATING = Path(__file__).parents[1] / "docs" / "migrating.md"
SETTINGS = {
    "majority_sign_method": ("elect", "ties([a, b], density=0.5", "frequency"),
    "lambda": ("scale", "ties([a, b], density=0.5", "0.5"),
    "weight": ("weights", "ties([a, b], density=0.5", "[1, 2]"),
    "select_topk": ("density", "sce([a, b]", "0.5"),
    "max_iter": ("rounds", "karcher([a, b]", "9"),
    "tol": ("tolerance", "karcher([a, b]", "0.1"),
}
"""Settings of the same tables: what they are here, and a call that takes them."""

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


def _having(use: Drawn, name: str, value: str) -> tuple[str, str]:
    return use.having(**{name: value}).text, value


def _params(use: Drawn, which: Callable[[Parameter], object]) -> list[Parameter]:
    """Some of the settings of a call."""
    return [p for p in use.operator.signatures[0].params if p.name in use.settings and which(p)]


def value_out_of_range(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    """Below, above, or not whole."""
    within = _params(use, lambda param: param.within)
    if not within:
        return None
    param = rng.choice(within)
    outside = [v for v in ("-2", "0", "1.5", "1e12") if Fraction(v) not in param.within]
    return _having(use, param.name, rng.choice(outside))


def misspelt_word(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    of_words = _params(use, lambda param: param.words)
    if not of_words:
        return None
    param = rng.choice(of_words)
    return _having(use, param.name, use.settings[param.name][:-1])


def misspelt_setting(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    if not use.settings:
        return None
    name = rng.choice(list(use.settings))
    wrong = name[:1] + name[2:] if len(name) > 3 else name.upper()
    return use.text.replace(f", {name}=", f", {wrong}="), wrong


def misspelt_function(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    if use.operator.symbols:
        return None
    wrong = rng.choice([use.name.upper(), use.name[:-1] + use.name[-1] * 2, use.name.title()])
    return use.text.replace(f"{use.name}(", f"{wrong}("), wrong


def weights_of_another_number(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    if "weights" not in use.settings:
        return None
    weights = use.settings["weights"][1:-1].split(", ")
    fewer = rng.random() < 0.5
    weights = weights[:-1] if fewer else [*weights, "0.9"]
    return _having(use, "weights", f"[{', '.join(weights)}]")[0], "" if fewer else "0.9"


def brackets_left_out(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    if not use.listed:
        return None
    return use.text.replace("[", "", 1).replace("]", "", 1), ""


def brackets_too_many(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    operands = ", ".join(use.operands)
    if use.operator.symbols or len(use.operands) < 2 or operands not in use.text.split("[")[0]:
        return None
    return use.text.replace(operands, f"[{operands}]"), ""


def rank_without_room(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    if "rank" not in use.settings or use.name in ("pad", "energy"):
        return None
    return _having(use, "rank", "500")


def rank_of_no_number(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    if "rank" not in use.settings:
        return None
    return _having(use, "rank", rng.choice(["2.5", "0", "-1"]))


def rank_where_there_is_none(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    over = use.settings.get("over")
    return (use.having(rank="3").text, "rank=3") if over == "factors" else None


def name_left_out(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    """An argument by position after one by name."""
    if len(use.settings) < 2 or use.operator.symbols:
        return None
    last = list(use.settings)[-1]
    if any(param.words for param in _params(use, lambda param: param.name == last)):
        return None
    free = [p.name for p in use.operator.signatures[0].params if p.name not in use.settings]
    return None if free[1:] else (use.text.replace(f"{last}=", ""), "")


def energy_out_of_range(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    return (
        _having(use, "energy", rng.choice(["90", "0", "-1"])) if "energy" in use.settings else None
    )


def text_for_an_adapter(use: Drawn, rng: random.Random) -> tuple[str, str] | None:
    name = rng.choice([name for name in ALIKE if any(o.endswith(name) for o in use.operands)])
    operands = [o.replace(name, '"s"') if o.endswith(name) else o for o in use.operands]
    return use.of(*operands).text, ""


MISTAKES: dict[str, Mistake] = {
    mistake.__name__: mistake
    for mistake in (
        other_modules, other_factors, other_modules_and_factors, value_out_of_range,
        misspelt_word, misspelt_setting, misspelt_function, weights_of_another_number,
        brackets_left_out, brackets_too_many, rank_without_room, rank_of_no_number,
        rank_where_there_is_none, name_left_out, energy_out_of_range, text_for_an_adapter,
    )
}  # fmt: skip


BY_FACTORS = ("factors", "peft_linear")
"""Words that say that factors are combined, which a note replaces."""

IN_WORDS = (
    "weights_of_another_number",
    "rank_of_no_number",
    "name_left_out",
    "energy_out_of_range",
    "text_for_an_adapter",
)
"""Those for which help may have to say in words what to do: the recipe does not tell."""


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


def checked(folder: Path, texts: Sequence[str]) -> list[list[pemlang.Diagnostic]]:
    """What is said of each of some expressions, in one recipe."""
    lines = [f"let x{number} = {text}\n" for number, text in enumerate(texts)]
    starts = [len(DECLARED), *(len(DECLARED) + n for n in accumulate(map(len, lines)))]
    said: list[list[pemlang.Diagnostic]] = [[] for _ in lines]
    text = "".join([DECLARED, *lines, f'save {ALIKE[0]} to "out"\n'])
    for diagnostic in pemlang.load(recipe(folder, text)).check():
        assert diagnostic.span is not None
        said[bisect(starts, diagnostic.span.start) - 1].append(diagnostic)
    return said


def pasted(text: str, diagnostic: pemlang.Diagnostic) -> str | None:
    """The expression with the help in the place of what is marked; None where help is in words."""
    span, new = diagnostic.span, pasteable(diagnostic.help or "")
    if span is None or new is None:
        return None
    line, column = span.source.position(span.start)
    before = span.source.line(line)[: column - 1].partition("= ")[2]
    return before + new + text[len(before) + span.end - span.start :]


def noted(diagnostic: pemlang.Diagnostic) -> list[str]:
    """What its notes show to be written instead."""
    found = (re.fullmatch(r"or combine what they do[^:]*: (.*)", n) for n in diagnostic.notes)
    return [match[1] for match in found if match]


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[\w.]+", text))


@pytest.mark.parametrize("name", MISTAKES)
def test_pasted_help_checks_and_keeps_everything(folder: Path, name: str) -> None:
    uses = list(wrong_uses(MISTAKES[name]))
    assert len(uses) >= ROUNDS // 3
    failed: list[object] = []
    for start in range(0, len(uses), 100):
        batch = uses[start : start + 100]
        said = checked(folder, [text for text, _ in batch])
        mended = []
        for (text, piece), about in zip(batch, said, strict=True):
            new = pasted(text, about[0]) if len(about) == 1 else None
            if new is not None:
                instead = [] if not name.startswith("other") else noted(about[0])
                mended += [(text, piece, each) for each in (new, *instead)]
            elif name not in IN_WORDS or not all(is_sentence(d.help or "") for d in about):
                failed.append((text, [(d.code, d.message, d.help) for d in about]))
        again = checked(folder, [new for *_, new in mended])
        for (old, piece, new), about in zip(mended, again, strict=True):
            lost = words(old) - words(piece) - words(new) - Counter(BY_FACTORS)
            if about or lost:
                failed.append((old, new, [(d.code, d.message) for d in about], lost))
    assert failed[:5] == [], len(failed)


def test_every_operator_is_made_wrong() -> None:
    """By some mistake, and thousands of times in all."""
    uses = [text for mistake in MISTAKES.values() for text, _ in wrong_uses(mistake)]
    assert len(uses) > 3000
    for operator in OPERATORS:
        name = operator.symbols[0] if operator.symbols else f"{operator.name}("
        assert any(name in text for text in uses), operator.name


def test_help_for_a_method_by_statistics_is_no_dead_end(folder: Path) -> None:
    """It takes adapters as they are declared: no selection and no pad can stand for one."""
    for text in ("regmean([a, query])", "fisher([a, query], weights=[1, 2])"):
        [[only]] = checked(folder, [text])
        assert only.code == "PEM0306"
        assert is_sentence(only.help or "") and "as they are declared" in (only.help or "")


def warned(folder: Path, texts: Sequence[str]) -> dict[int, pemlang.Diagnostic]:
    """What a build says first of factors that share no initialisation, by expression."""
    lines = [f'let x{n} = {text}\nsave x{n} to "out/{n}"\n' for n, text in enumerate(texts)]
    built = pemlang.load(recipe(folder, "".join([DECLARED, *lines]))).build()
    first = DECLARED.count("\n") + 1
    said: dict[int, pemlang.Diagnostic] = {}
    for told in built.warnings:
        if told.code == "PEM0701":
            assert told.span is not None
            said.setdefault((told.span.source.position(told.span.start)[0] - first) // 2, told)
    return said


def test_help_where_factors_share_no_initialisation_is_the_same_call_over_what_they_do(
    tmp_path: Path,
) -> None:
    """PEM0701, which only a build can tell: TIES stays TIES, with every weight, at a rank."""
    stock(tmp_path)
    for init, name in enumerate(ALIKE):
        lora(tmp_path / name, init, SITES, init=init)
    rng = random.Random(0)
    uses = [drawn(operator, rng) for operator in OPERATORS for _ in range(ROUNDS)]
    texts = [x.text for x in uses if x.over_factors and len(x.operands) > 1 and not x.by_statistics]
    said = warned(tmp_path, texts)
    assert {"ties(", "dare(", "magnitude_prune("} <= {texts[n].partition("[")[0] for n in said}
    mended = {n: pasted(texts[n], told) for n, told in said.items()}
    for n, new in mended.items():
        assert new is not None, (texts[n], said[n].help)
        assert not words(texts[n]) - words(new) - Counter(BY_FACTORS), (texts[n], new)
        assert "rank=" in new or "over=" not in texts[n], new
    assert warned(tmp_path, [new for new in mended.values() if new]) == {}


def test_what_each_method_does_is_said_where_two_are_combined(folder: Path) -> None:
    """LoRA + (IA)³: what Δ is of each, that there is no sum, and the way out."""
    ia3(folder / "gains")
    text = DECLARED + 'adapter gains = "gains"\n'
    for use in ("a + gains", "a ⊖ gains", "mean([a, gains])", "join(gains, a)"):
        [only] = pemlang.load(recipe(folder, f'{text}save {use} to "out"\n')).check()
        assert only.code == "PEM0304" and "no sum" in only.message
        assert sorted(only.notes) == [
            "(IA)³ multiplies what goes in or out of W by l",
            "LoRA adds s·B·A to W",
        ]
        assert "merge_and_unload" in (only.help or "")


def test_help_for_very_many_operands_is_made_at_once(folder: Path) -> None:
    start = time.monotonic()
    many = ", ".join(["a", "query"] * 3_000)
    [[only]] = checked(folder, [f"mean([{many}])"])
    assert only.code == "PEM0306" and is_sentence(only.help or "")
    assert time.monotonic() - start < 10


# --- words of other tools ------------------------------------------------------------------


def test_what_other_tools_call_a_method_is_answered(folder: Path) -> None:
    """Every method in the first column of the tables of docs/migrating.md that is no function here
    is answered by what is meant, and not by a function that is spelt a little like it."""
    text = MIGRATING.read_text(encoding="utf-8")
    names = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ((?:`\w+`(?:, )?)+)", text, re.M))))
    names -= {"combination_type", "merge_method", *SETTINGS}
    unknown = sorted(name for name in names if name not in FUNCTIONS)
    assert {"cat", "svd", "ties_svd"} <= set(unknown)
    said = checked(folder, [f"{name}([a, b], density=0.5)" for name in unknown])
    for name, about in zip(unknown, said, strict=True):
        assert [d.code for d in about] == ["PEM0206"] and is_sentence(about[0].help or ""), name
        assert pasteable(about[0].help or "") is None, name


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_other_tools_call_a_setting_is_answered(folder: Path, setting: str) -> None:
    name, method, value = SETTINGS[setting]
    [[only]] = checked(folder, [f"{method}, {setting}={value})"])
    assert only.help == f"did you mean `{name}`?"


# --- bases that go by several names ----------------------------------------------------------

NAMES = ["some/base", "some/base/", "Some/Base", r"C:\models\base", 'a {brace} "quoted"']


@pytest.mark.parametrize("declared", [True, False])
def test_one_line_declares_all_the_names_of_a_base(tmp_path: Path, declared: bool) -> None:
    """Adapters of one base, each of which calls it otherwise: help of any message mends all."""
    for number, name in enumerate(NAMES):
        lora(tmp_path / f"a{number}", base_model_name_or_path=name)
    on = " on b" if declared else ""
    lines = [f'adapter a{number}{on} = "a{number}"' for number in range(len(NAMES))]
    base = ['base b = "some/base"'] if declared else []
    chain = "let x = " + " + ".join(f"a{number}" for number in range(len(NAMES)))
    chain += '\nsave x to "o"'
    said = pemlang.load(recipe(tmp_path, "\n".join([*base, *lines, chain, ""]))).check()
    assert len(said) == (len(NAMES) - 1 if declared else 1)
    [line] = {(d.help or "").partition(": ")[2] for d in said}
    on_b = [text.replace(" on b", "").replace(" =", " on b =") for text in lines]
    assert pemlang.load(recipe(tmp_path, "\n".join([line, *on_b, chain, ""]))).check() == ()
