"""`pem tune`: the values of params that are best by a metric."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pemlang.cli.common import (
    GivenPath,
    importing,
    recipe_options,
    refuse_to_replace,
    say,
    write_whole,
)
from pemlang.cli.recipes import replace_recipe
from pemlang.cli.values import Memory, SweepOf
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault, PemError, showable, visible

if TYPE_CHECKING:
    from pemlang.pipeline.study import Trial
    from pemlang.pipeline.sweep import Sweep
    from pemlang.pipeline.tuning import Tuned, TuningOptions, Watching

MAX_JOBS = 64
_NAME = re.compile(r"[^\W\d][\w.-]{0,99}")
"""What a number of a metric may be called."""


def _names(ctx: click.Context, param: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _NAME.fullmatch(name):
            raise click.BadParameter(f"`{visible(name, 40)}` is no name, such as accuracy")
    return names


def _seconds(ctx: click.Context, param: click.Parameter, seconds: float) -> float:
    if math.isnan(seconds):  # which click holds to be in any range
        raise click.BadParameter("nan is no time, such as 60")
    return seconds


@click.command()
@click.option(
    "--metric",
    required=True,
    metavar="COMMAND",
    help='What measures an output: "python score.py {output}", whose last line is a number, or '
    "JSON of several; or a function, score:accuracy, called with the path.",
)
@click.option("--maximize", multiple=True, metavar="NAME", callback=_names, help="The larger this "
    "number of the metric, the better; may be repeated.")  # fmt: skip
@click.option("--minimize", multiple=True, metavar="NAME", callback=_names, help="The smaller, the "
    "better. With several numbers the Pareto front is what is best.")  # fmt: skip
@click.option(
    "--first-metric",
    default="",
    metavar="COMMAND",
    help="A quick one: where it is worse than the median of the trials before, --metric is spared.",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 10_000),
    default=20,
    metavar="N",
    help="Until there are N trials; 20 by default.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, 10_000_000, min_open=True),
    default=3600,
    callback=_seconds,
    metavar="SECONDS",
    help="End a metric after that long; an hour by default.",
)
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "grid", "cmaes"]),
    default="tpe",
    help="What chooses values. All but grid need pemlang[tune].",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, metavar="N", help="What it draws by."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, MAX_JOBS),
    default=1,
    metavar="N",
    help="Run N metrics at a time. Outputs are built before that, within --memory.",
)
@click.option(
    "--values",
    type=SweepOf(),
    multiple=True,
    metavar="NAME=…",
    help="Try these values of a param, as --sweep has them: r=4,8,16.",
)
@click.option("--only", default="", metavar="PATH", help="Which output to measure, of several.")
@click.option("--memory", type=Memory(), metavar="AMOUNT", help="Build in at most so much memory.")
@click.option(
    "--study",
    type=GivenPath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the trials are kept, in SQLite; beside the recipe by default.",
)
@click.option(
    "--plot",
    type=GivenPath(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw the trials as an SVG.",
)
@click.option(
    "--write",
    is_flag=True,
    help="Make the best values the defaults of the recipe.",
)
@click.option(
    "--trial", type=click.IntRange(1), metavar="N", help="With --write: those of this trial."
)
@recipe_options("text", "json")
def tune(
    recipe: str,
    settings: dict[str, str],
    form: str,
    metric: str,
    maximize: tuple[str, ...],
    minimize: tuple[str, ...],
    first_metric: str,
    trials: int,
    timeout: float,
    sampler: str,
    seed: int,
    jobs: int,
    values: tuple[Sweep, ...],
    only: str,
    memory: int | None,
    study: Path | None,
    plot: Path | None,
    write: bool,
    trial: int | None,
) -> int:
    """Find the values of params that are best by a metric.

    Tries values in the ranges that its params have, builds, and measures. What is known stays in
    the study: the same command goes on after a kill, and tries again what failed.
    """
    with importing():
        from pemlang.execute.elementwise import get_ready

        get_ready()  # while all else is imported
        from pemlang.pipeline.build import BuildOptions
        from pemlang.pipeline.study import Objective, beside
        from pemlang.pipeline.tuning import TuningOptions

    objectives = (
        *(Objective(name, larger=True) for name in maximize),
        *(Objective(name, larger=False) for name in minimize),
    )
    choices = {sweep.name: tuple(map(str, sweep.values)) for sweep in values}
    wanted = _Wanted(form, plot, write, trial)
    _hold_usage([x.name for x in objectives], settings, choices, len(values), wanted)
    options = TuningOptions(
        metric,
        objectives,
        study or beside(Path(recipe)),
        trials=trials,
        sampler=sampler,
        seed=seed,
        jobs=jobs,
        seconds=timeout,
        first_metric=first_metric,
        only=only,
        choices=choices,
        build=BuildOptions(memory=memory),
    )
    return _tuned(recipe, settings, options, wanted)


@dataclass(frozen=True)
class _Wanted:
    """What is to become of what is found: see the options of the same names."""

    form: str
    plot: Path | None
    write: bool
    trial: int | None


def _hold_usage(
    names: Sequence[str],
    settings: Mapping[str, str],
    choices: Mapping[str, Sequence[str]],
    given: int,
    wanted: _Wanted,
) -> None:
    """Hold options to go together."""
    if not names:
        raise click.UsageError(
            "Say what is best: --maximize NAME, or --minimize NAME, of a number that the metric "
            "gives. Where it gives one alone the name is yours."
        )
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise click.UsageError(f"`{twice[0]}` is an objective twice.")
    both = [name for name in choices if name in settings]
    if both:
        raise click.UsageError(f"`{visible(both[0])}` is both in --set and in --values.")
    if given > len(choices):
        raise click.UsageError("--values is given twice for one param.")
    if wanted.trial is not None and not wanted.write:
        raise click.UsageError("--trial says which values --write takes, and there is no --write.")
    if wanted.write and len(names) > 1 and wanted.trial is None:
        raise click.UsageError(
            "None is best by several objectives: say which trial --write takes, with --trial N."
        )


def _tuned(recipe: str, settings: dict[str, str], options: TuningOptions, wanted: _Wanted) -> int:
    from pemlang.api import load
    from pemlang.pipeline.sweep import told_once
    from pemlang.show.scatter import SVG_START, trials_as_svg
    from pemlang.show.tuning import as_json, as_text, no_numbers

    if wanted.plot is not None:
        refuse_to_replace(wanted.plot, SVG_START)
    try:
        tuned = load(recipe, settings).tune(options, _progress(options))
        if wanted.write and tuned.best:
            now = load(recipe, settings)  # it may have been edited meanwhile
            text = now.with_defaults(tuned, _chosen(tuned, wanted.trial))
            replace_recipe(Path(os.path.realpath(recipe)), text, recipe)
    except PemError as error:
        return say(error.diagnostics, wanted.form)
    except Fault as fault:
        return say([fault.at(None)], wanted.form)
    messages = [*tuned.messages, *([] if tuned.best else [no_numbers(tuned).at(None)])]
    if wanted.plot is not None:
        write_whole(wanted.plot, trials_as_svg(tuned), len(SVG_START))
    written = recipe if wanted.write and tuned.best else None
    if wanted.form == "json":
        return say(messages, "json", as_json(tuned, written))
    code = say(told_once(messages), "text")
    for line in as_text(tuned):
        click.echo(line)
    if written is not None:
        click.echo(f"wrote {visible(written, 4096)}")
    elif len(tuned.best) == 1 and (command := showable(_build_line(recipe, tuned))):
        click.echo(command)
    return code


def _progress(options: TuningOptions) -> Watching:
    """Tells of each trial in a line, on a terminal."""
    from pemlang.pipeline.study import best_of
    from pemlang.show.tuning import progress_line

    over: list[Trial] = []

    def watch(trial: Trial, trials: int) -> None:
        over.append(trial)
        if sys.stderr.isatty():
            best = best_of(over, options.objectives)
            click.echo(progress_line(trial, trials, options.objectives, best), err=True)

    return watch


def _chosen(tuned: Tuned, number: int | None) -> Trial:
    """The trial whose values are written."""
    if number is None:
        return tuned.best[0]
    chosen = [trial for trial in tuned.trials if trial.number == number and trial.numbers]
    if not chosen:
        raise click.UsageError(f"There is no trial {number} that was measured.")
    return chosen[0]


def _build_line(recipe: str, tuned: Tuned) -> str:
    """The command that builds what is best."""
    settings = {**tuned.given, **tuned.best[0].settings}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return shlex.join(["pem", "build", recipe, *words])
