"""What chooses the values of a tuning, a record each. What is tried next follows from what is
known and from nothing else, so that a study that goes on after a kill is the one that it would have
been."""

from __future__ import annotations

import importlib
import importlib.util
import math
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain, islice, product
from typing import TYPE_CHECKING, NamedTuple

from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.lazy import numpy as np
from pemlang.pipeline.study import Objective, Trial
from pemlang.pipeline.tuning_space import Choices, Interval, Space

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.distributions import BaseDistribution


class SamplingContext(NamedTuple):
    """What a sampler goes by.

    Attributes:
        space: what each param may be.
        start: the values that the recipe has by itself.
        objectives: what is to be best.
        trials: those before, each of them over.
        left: how many more there may be.
        at_once: how many are wanted although none of them is known before the others.
        seed: of what is drawn.
    """

    space: Space
    start: Mapping[str, str]
    objectives: Sequence[Objective]
    trials: Sequence[Trial]
    left: int
    at_once: int
    seed: int


Values = Mapping[str, str]
"""The values of one trial."""


@dataclass(frozen=True)
class Sampler:
    """A way of choosing values.

    Attributes:
        name: as it is asked for.
        propose: the values to try next; none where all have been tried.
        packages: what it needs to be installed.
        refusal: why it can do nothing with a space and objectives; empty where it can.
    """

    name: str
    propose: Callable[[SamplingContext], list[Values]]
    packages: tuple[str, ...] = ()
    refusal: Callable[[Space, Sequence[Objective]], str] = lambda space, objectives: ""

    def hold(self, space: Space, objectives: Sequence[Objective]) -> None:
        """Raise PEM0904 where it cannot do what is asked, PEM0905 where a package is missing."""
        why = self.refusal(space, objectives)
        if why:
            raise Fault("PEM0904", f"the sampler {self.name} {why}", "take --sampler tpe")
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise Fault(
                "PEM0905",
                f"the sampler {self.name} needs the package {missing[0]}",
                'pip install "pemlang[tune]", or take --sampler grid',
            )


# --- grid -----------------------------------------------------------------------------------------


def _grid(ctx: SamplingContext) -> list[Values]:
    """As many points at equal distances as there are to be trials, at the most."""
    tried = {tuple(trial.settings[name] for name in ctx.space) for trial in ctx.trials}
    choices = [axis for axis in ctx.space.values() if isinstance(axis, Choices)]
    ranges = len(ctx.space) - len(choices)
    room = (ctx.left + len(tried)) / math.prod(len(axis.values) for axis in choices)
    each = max(2, math.floor(room ** (1 / ranges) + 1e-9)) if ranges else 1
    points = product(*(axis.spread(each) for axis in ctx.space.values()))
    new = islice((point for point in points if point not in tried), ctx.left)
    return [dict(zip(ctx.space, point, strict=True)) for point in new]


# --- TPE ------------------------------------------------------------------------------------------

START = 5
"""Trials of TPE that are spread out before it has anything to go by; twice the params, if more."""


def _tpe(ctx: SamplingContext) -> list[Values]:
    """The recipe's own values, some that lie apart from each other, and then what a Tree-structured
    Parzen Estimator holds for best (Bergstra et al., 2011), by Optuna."""
    done = len(ctx.trials)
    strata = _strata(ctx.space, max(START, 2 * len(ctx.space)), ctx.seed)
    spread = chain([ctx.start], (values for values in strata if values != ctx.start))
    if first := list(islice(spread, done, done + ctx.left)):
        if ctx.left > len(first):
            _get_ready()
        return first
    study = _optuna_study(ctx)
    shares = _distributions(ctx.space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of numbers near the largest there is
        asked = [study.ask(shares).params for _ in range(min(ctx.at_once, ctx.left))]
    return [
        {name: axis.at(_share_of(axis, params[name])) for name, axis in ctx.space.items()}
        for params in asked
    ]


def _strata(space: Space, count: int, seed: int) -> Iterator[Values]:
    """Values of which each param has one in the middle of each of as many equal parts of its range:
    a Latin hypercube (McKay, Beckman and Conover, 1979)."""
    draw = random.Random(seed)
    columns = [draw.sample(range(count), count) for _ in space]
    for parts in zip(*columns, strict=True):
        yield {
            name: axis.at((part + 0.5) / count)
            for (name, axis), part in zip(space.items(), parts, strict=True)
        }


@cache
def _get_ready() -> None:
    """Have another thread import Optuna, while the first outputs are built and measured."""
    with suppress(RuntimeError):  # no more threads: then it is imported when it is needed
        threading.Thread(target=_import_optuna).start()


def _import_optuna() -> None:
    """Import it. What goes wrong does so again where it matters."""
    with suppress(Exception):
        importlib.import_module("optuna")


def _optuna_study(ctx: SamplingContext) -> OptunaStudy:
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=(ctx.seed * 1_000_003 + len(ctx.trials)) % (1 << 32),
            n_startup_trials=0,
            multivariate=len(ctx.space) > 1,
            constant_liar=ctx.at_once > 1,
        )
    study = optuna.create_study(sampler=sampler, directions=[x.direction for x in ctx.objectives])
    distributions = _distributions(ctx.space)
    for trial in ctx.trials:
        told = {0: trial.first} if trial.is_pruned and trial.first is not None else None
        study.add_trial(
            create_trial(  # one that failed is as bad as any: what is beside it is not tried next
                state=TrialState.COMPLETE if trial.numbers else TrialState.PRUNED,
                params={
                    name: _place_of(axis, trial.settings[name]) for name, axis in ctx.space.items()
                },
                distributions=distributions,
                values=[trial.numbers[x.name] for x in ctx.objectives] if trial.numbers else None,
                intermediate_values=told,
            )
        )
    return study


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    from optuna import distributions as d

    return {
        name: d.FloatDistribution(0, 1)
        if isinstance(axis, Interval)
        else d.IntDistribution(0, len(axis.values) - 1)
        if axis.ordered
        else d.CategoricalDistribution(range(len(axis.values)))
        for name, axis in space.items()
    }


def _place_of(axis: Interval | Choices, value: str) -> float:
    """What Optuna has for a value: the share of the way, or which of some it is."""
    return axis.share(value) if isinstance(axis, Interval) else axis.values.index(value)


def _share_of(axis: Interval | Choices, place: float) -> float:
    return place if isinstance(axis, Interval) else (place + 0.5) / len(axis.values)


# --- CMA-ES ---------------------------------------------------------------------------------------

SIGMA = 0.25
"""The first step of CMA-ES, as a share of each range."""

MOST = 100
"""Params for which it draws a generation in seconds: the time grows with their cube."""


def _cmaes(ctx: SamplingContext) -> list[Values]:
    """Generations about a centre that moves to where values are better: the covariance matrix
    adaptation of Hansen (arXiv 1604.00772), by the package cmaes. It begins in the middle of the
    ranges, and is led through all that was tried before, again."""
    from cmaes import CMA

    names = list(ctx.space)
    optimizer = CMA(
        mean=np.full(len(names), 0.5),
        sigma=SIGMA,
        bounds=np.array([[0.0, 1.0]] * len(names)),
        seed=ctx.seed % (1 << 32),
    )
    size, [objective] = optimizer.population_size, ctx.objectives
    sign = -1.0 if objective.larger else 1.0
    for at in range(0, len(ctx.trials), size):
        asked = [optimizer.ask() for _ in range(size)]
        generation = ctx.trials[at : at + size]
        if len(generation) < size:
            break
        losses = [sign * t.numbers[objective.name] if t.numbers else None for t in generation]
        worst = max((loss for loss in losses if loss is not None), default=0.0)
        optimizer.tell(
            [
                (
                    np.array([ctx.space[name].share(trial.settings[name]) for name in names]),
                    worst if loss is None else loss,
                )
                for trial, loss in zip(generation, losses, strict=True)
            ]
        )
    else:
        asked = [optimizer.ask() for _ in range(size)]
    new = asked[len(ctx.trials) % size :][: ctx.left]
    return [
        {name: ctx.space[name].at(float(x)) for name, x in zip(names, point, strict=True)}
        for point in new
    ]


def _not_for_cmaes(space: Space, objectives: Sequence[Objective]) -> str:
    if len(objectives) > 1:
        return "goes by one objective"
    if len(space) < 2:
        return "needs two params or more"
    if not all(isinstance(axis, Interval) for axis in space.values()):
        return "takes numbers of a range, and no choices"
    if len(space) > MOST:
        return f"takes {MOST} params at the most, and here are {len(space)}"
    return ""


SAMPLERS = {
    sampler.name: sampler
    for sampler in (
        Sampler("tpe", _tpe, ("optuna",)),
        Sampler("grid", _grid),
        Sampler("cmaes", _cmaes, ("cmaes",), _not_for_cmaes),
    )
}
"""What chooses values, by name; the first where none is asked for."""
