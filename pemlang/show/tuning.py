"""What a tuning found, for a person: `pem tune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, visible
from pemlang.graph.formula import count
from pemlang.pipeline.study import Objective, Trial, ranked
from pemlang.pipeline.tuning import Tuned

SHOWN = 10
"""Trials that anyone reads."""


@dataclass(frozen=True)
class TrialJson:
    """A trial: its values, the semantic hash of its output, and what the metrics gave; or the code
    of what failed, which is `pruned` where the first metric spared the other."""

    number: int
    settings: Mapping[str, str]
    hash: str
    first: float | None
    numbers: Mapping[str, float]
    code: str
    message: str


@dataclass(frozen=True)
class TuneJson:
    """`pem tune`: all trials of the study, the numbers of the best, several where there are several
    objectives, and the recipe's file where --write has changed it."""

    study: str
    objectives: Mapping[str, str]
    trials: Sequence[TrialJson]
    best: Sequence[int]
    written: str | None = None


def as_json(tuned: Tuned, written: str | None = None) -> TuneJson:
    """All of a tuning as plain values."""
    return TuneJson(
        study=str(tuned.study),
        objectives={x.name: x.direction for x in tuned.objectives},
        trials=[
            TrialJson(x.number, x.settings, x.hash, x.first, x.numbers, x.code, x.message)
            for x in tuned.trials
        ],
        best=[trial.number for trial in tuned.best],
        written=written,
    )


def as_text(tuned: Tuned) -> list[str]:
    """A table, line by line: the best trials by one objective, the Pareto front by several."""
    names = list(tuned.trials[0].settings)
    objectives = [objective.name for objective in tuned.objectives]
    rows = [["trial", *map(visible, names), *map(visible, objectives)]]
    trials = ranked(tuned.trials, tuned.objectives)
    if len(tuned.objectives) == 1:
        trials = trials[:SHOWN]
    for trial in trials:
        values = [visible(trial.settings[name]) for name in names]
        rows.append([str(trial.number), *values, *(f"{trial.numbers[x]:.6g}" for x in objectives)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows if len(rows) > 1]
    failed = sum(trial.is_failed for trial in tuned.trials)
    spared = sum(trial.is_pruned for trial in tuned.trials)
    facts = [count(len(tuned.trials), "trial")]
    facts += [f"{failed} failed"] * bool(failed) + [f"{spared} spared"] * bool(spared)
    if len(tuned.objectives) > 1:
        facts += [f"a front of {len(trials)}"] * bool(trials)
    elif len(trials) < len(tuned.trials) - failed - spared:
        facts.append(f"the best {len(trials)} shown")
    return [*lines, f"{', '.join(facts)}; they stay in {visible(tuned.study, 4096)}"]


def no_numbers(tuned: Tuned) -> Fault:
    """PEM0924."""
    return Fault(
        "PEM0924",
        f"none of {count(len(tuned.trials), 'trial')} gave a number that can be compared",
        "mend what failed, and run the same command: it is tried again",
    )


def progress_line(
    trial: Trial, trials: int, objectives: Sequence[Objective], best: Sequence[Trial]
) -> str:
    """What became of a trial, in a line."""
    values = ", ".join(f"{visible(x)} = {visible(y)}" for x, y in trial.settings.items())
    if trial.is_failed:
        end = f"{trial.code}: {visible(trial.message)}"
    elif trial.is_pruned:
        end = f"spared, the first metric gives {trial.first:.6g}"
    else:
        end = ", ".join(f"{visible(x.name)} = {trial.numbers[x.name]:.6g}" for x in objectives)
    told = f"trial {trial.number} of {trials}  {values}  {end}"
    if len(objectives) == 1 and best:
        name = objectives[0].name
        told += f"  (best {best[0].numbers[name]:.6g})"
    return told
