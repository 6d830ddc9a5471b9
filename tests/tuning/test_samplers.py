"""What chooses values: drawn functions, spaces of all kinds, and what is known from before."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

import pytest

from pemlang.pipeline import SAMPLERS, Choices, Interval, Objective, SamplingContext, Trial, best_of

ONE = {"w": Interval(Fraction(0), Fraction(1))}
TWO = {**ONE, "v": Interval(Fraction(-2), Fraction(6))}
KINDS = {**ONE, "yes": Choices(("false", "true")), "r": Choices(("4", "8", "16"), ordered=True)}
LARGE = (Objective("s", larger=True),)

Score = Callable[[Mapping[str, str]], float | None]


def run(
    name: str,
    space: Mapping[str, Interval | Choices],
    score: Score,
    trials: int,
    at_once: int = 1,
    seed: int = 0,
    objectives: Sequence[Objective] = LARGE,
) -> list[Trial]:
    """A tuning without recipes. Where there is no score a trial fails."""
    start = {name: axis.at(0.5) for name, axis in space.items()}
    done: list[Trial] = []
    while len(done) < trials:
        left = trials - len(done)
        ctx = SamplingContext(space, start, objectives, done, left, at_once, seed)
        proposed = SAMPLERS[name].propose(ctx)
        if not proposed:
            break
        assert len(proposed) <= left
        for values in proposed:
            assert all(space[x].holds(value) for x, value in values.items())
            numbers = {"s": number} if (number := score(values)) is not None else {}
            done.append(
                Trial(len(done), values, numbers=numbers, code="" if numbers else "PEM0910")
            )
    return done


def bell(centre: float) -> Score:
    """A function of `w` whose maximum is at some place."""
    return lambda values: math.exp(-(((float(values["w"]) - centre) / 0.2) ** 2))


def test_tpe_is_mostly_as_good_as_the_grid() -> None:
    draw, wins = random.Random(2), 0
    for _ in range(20):
        score = bell(draw.random())
        best = max(trial.numbers["s"] for trial in run("tpe", ONE, score, 11))
        wins += best >= max(trial.numbers["s"] for trial in run("grid", ONE, score, 11))
    assert wins >= 11


_FIRST = """
import sys, threading
from fractions import Fraction
from pemlang.pipeline import SAMPLERS, Interval, SamplingContext, Objective
space, left = {"w": Interval(Fraction(0), Fraction(1))}, int(sys.argv[1])
objectives = (Objective("s", larger=True),)
SAMPLERS["tpe"].propose(SamplingContext(space, {"w": "0.5"}, objectives, (), left, 1, 0))
for thread in threading.enumerate():
    thread is threading.main_thread() or thread.join()
print("optuna" in sys.modules)
"""


@pytest.mark.parametrize(("trials", "needed"), [(5, "False"), (6, "True")])
def test_optuna_is_imported_beside_the_first_trials_where_others_follow(
    trials: int, needed: str
) -> None:
    words = [sys.executable, "-c", _FIRST, str(trials)]
    assert subprocess.check_output(words, text=True).strip() == needed


def test_tpe_keeps_away_from_where_trials_fail() -> None:
    def score(values: Mapping[str, str]) -> float | None:
        return bell(0.3)(values) if float(values["w"]) >= 0.5 else None

    for seed in range(4):
        done = run("tpe", ONE, score, 26, seed=seed)
        assert sum(bool(trial.numbers) for trial in done[6:]) >= 8
        [best] = best_of(done, LARGE)
        assert float(best.settings["w"]) <= 0.53


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_a_seed_decides_what_is_drawn(name: str) -> None:
    def first(seed: int) -> list[Mapping[str, str]]:
        return [x.settings for x in run(name, TWO, lambda values: float(values["w"]), 6, seed=seed)]

    assert first(0) == first(0) != first(1)
    done = run(name, TWO, lambda values: float(values["w"]), 13)
    start = {"w": "0.5", "v": "2"}
    drawn = [
        SAMPLERS[name].propose(SamplingContext(TWO, start, LARGE, done, 1, 1, seed))
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("larger", [True, False])
def test_cmaes_finds_a_hill(larger: bool) -> None:
    def score(values: Mapping[str, str]) -> float | None:
        if float(values["v"]) > 5:
            return None
        far = (float(values["w"]) - 0.8) ** 2 + (float(values["v"]) / 8 + 0.1) ** 2
        return -far if larger else far

    objectives = (Objective("s", larger),)
    [best] = best_of(run("cmaes", TWO, score, 90, objectives=objectives), objectives)
    assert abs(float(best.settings["w"]) - 0.8) < 0.05
    assert abs(float(best.settings["v"]) + 0.8) < 0.4


@pytest.mark.parametrize("name", ["tpe", "cmaes"])
def test_a_sampler_outlives_trials_that_failed_or_were_spared(name: str) -> None:
    done = run(name, TWO, lambda values: float(values["w"]), 8)
    done[1] = Trial(1, done[1].settings, code="PEM0910")
    done[3] = Trial(3, done[3].settings, first=0.5, code="pruned")
    start = {"w": "0.5", "v": "2"}
    assert SAMPLERS[name].propose(SamplingContext(TWO, start, LARGE, done, 3, 1, 0))
    none = [Trial(x.number, x.settings, code="PEM0910") for x in done]
    assert SAMPLERS[name].propose(SamplingContext(TWO, start, LARGE, none, 3, 1, 0))


def test_tpe_takes_params_of_all_kinds_and_many_at_once() -> None:
    done = run("tpe", KINDS, lambda values: float(values["r"]) * (values["yes"] == "true"), 60, 4)
    assert done[0].settings == {"w": "0.5", "yes": "true", "r": "8"}
    assert sum(trial.numbers["s"] == 16 for trial in done) > 16  # a sixth, 10, by chance


def test_tpe_begins_at_once_with_very_many_params() -> None:
    space = {f"p{i}": ONE["w"] for i in range(1000)}
    began = time.monotonic()
    done = run("tpe", space, lambda values: 1.0, 5)
    assert time.monotonic() - began < 20  # with all 2000 that lie apart it takes minutes
    assert len({tuple(trial.settings.values()) for trial in done}) == 5


def test_tpe_outlives_numbers_near_the_largest_there_is() -> None:
    objectives = (Objective("s", larger=True), Objective("t", larger=False))
    numbers = ({"s": 1.7e308, "t": -1.7e308}, {"s": -1.7e308, "t": 5e-324})
    done = [Trial(i, {"w": f"0.{i}", "v": f"{i}"}, numbers=numbers[i % 2]) for i in range(1, 6)] + [
        Trial(i, {"w": f"0.{i}", "v": "0"}, numbers=numbers[i % 2]) for i in range(6, 10)
    ]
    ctx = SamplingContext(TWO, {"w": "0.5", "v": "2"}, objectives, done, 3, 1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SAMPLERS["tpe"].propose(ctx)


def test_the_grid_has_both_ends_and_says_when_all_is_tried() -> None:
    done = run("grid", ONE, bell(0.3), 11)
    assert [trial.settings["w"] for trial in done] == [f"{i / 10:g}" for i in range(11)]
    assert len(run("grid", TWO, bell(0.3), 11)) == 9
    assert len(run("grid", KINDS, bell(0.3), 40)) == 36
    assert len(run("grid", {"yes": KINDS["yes"]}, lambda _: 1.0, 40)) == 2


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        ("0", "1", ["0", "0.333", "0.667", "1"]),
        ("0.84", "1", ["0.84", "0.8933", "0.9467", "1"]),
        ("-3", "300", ["-3", "98", "199", "300"]),
        ("1/3", "2/3", ["0.3334", "0.4444", "0.5556", "0.6666"]),
    ],
)
def test_values_are_decimals_that_somebody_reads(low: str, high: str, values: list[str]) -> None:
    axis = Interval(Fraction(low), Fraction(high))
    assert axis.spread(4) == values
    assert all(axis.holds(axis.at(i / 997)) for i in range(998))
    assert all(axis.share(one) < axis.share(other) for one, other in pairwise(values))


def test_the_front_is_that_of_all_pairs() -> None:
    draw = random.Random(3)
    objectives = (Objective("a", larger=True), Objective("b", larger=False))
    for _ in range(50):
        points = [(draw.randrange(6), draw.randrange(6)) for _ in range(draw.randrange(1, 15))]
        trials = [
            Trial(i, {"w": str(i)}, numbers={"a": float(a), "b": float(b)})
            for i, (a, b) in enumerate(points)
        ]
        front = {points[x.number] for x in best_of(trials, objectives)}
        assert front == {
            (a, b) for a, b in points
            if not any((x >= a and y <= b) and (x, y) != (a, b) for x, y in points)
        }  # fmt: skip
        assert len(front) == len(best_of(trials, objectives))
