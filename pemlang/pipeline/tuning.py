"""Tune: the values of a recipe's params that are best by a metric of what it builds."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import field, replace
from fractions import Fraction
from pathlib import Path

from pemlang.artifact.place import is_one_file
from pemlang.artifact.write import params_text
from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.values import Params
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Diagnostic, Fault, PemError, listed, placed, visible
from pemlang.disk import temporary
from pemlang.inputs.identities import identified
from pemlang.inputs.resolver import DiskResolver
from pemlang.pipeline.build import BuildOptions, build_checked
from pemlang.pipeline.checking import identified_with
from pemlang.pipeline.making import no_tick
from pemlang.pipeline.metric import Metric, MetricRuns, metric_of
from pemlang.pipeline.refusals import saves_nothing
from pemlang.pipeline.samplers import SAMPLERS, Sampler, SamplingContext
from pemlang.pipeline.study import (
    PRUNED,
    Objective,
    Study,
    StudySettings,
    Trial,
    best_of,
    open_study,
)
from pemlang.pipeline.sweep import SweepPoint
from pemlang.pipeline.tuning_space import axes_of, space_of, start_of, whole_values
from pemlang.source import Source

AT_ONCE = 4 << 30
"""Bytes of outputs that are built in one go, from one read of their inputs, where their values do
not depend on each other."""

ENOUGH = 4
"""Trials before, of which the first metric says what is usual."""

_NOT_WHOLE = ("PEM0312", "PEM0326")
_AT_OTHER_VALUES = {"PEM0213", "PEM0501"}
"""A param has no value, or an assertion fails: what is wrong at some values alone."""


@dataclass(frozen=True)
class TuningOptions:
    """What to tune by, and how.

    Attributes:
        metric: what measures an output: a command with `{output}` where its path goes, or
            `package.module:function`, called with that path.
        objectives: which of the numbers it gives are to be best.
        study: the file that the trials are in; it is taken up where it is there.
        trials: how many there are to be, those in the study among them.
        sampler, seed: what chooses values.
        jobs: how many metrics run at a time.
        seconds: how long a metric may take.
        first_metric: a quick one, larger or smaller as the objective is: where it is worse than
            the median of the trials before, the metric is spared.
        only: the output that is measured, by its path as written; the only one there is when empty.
        choices: the values to try of some params, in the place of their range.
        build: how outputs are built.

    Raises:
        ValueError: there is no objective, or no such sampler.
    """

    metric: str
    objectives: tuple[Objective, ...]
    study: str | os.PathLike[str]
    trials: int = 20
    sampler: str = "tpe"
    seed: int = 0
    jobs: int = 1
    seconds: float = 3600
    first_metric: str = ""
    only: str = ""
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    build: BuildOptions = BuildOptions()

    def __post_init__(self) -> None:
        if not self.objectives:
            raise ValueError("a tuning needs an objective")
        if self.sampler not in SAMPLERS:
            names = ", ".join(SAMPLERS)
            raise ValueError(f"there is no sampler {self.sampler!r}: take one of {names}")


@dataclass(frozen=True)
class Tuned:
    """What is known after a tuning.

    Attributes:
        study: its file.
        metric: what measured.
        objectives: what was to be best.
        trials: all of them.
        best: by one objective, the best trial; by several, those than which none is better in
            all: the Pareto front. Nothing where no trial has numbers.
        fixed: the values of the params that were not tuned.
        given: those of them that were given.
        messages: why trials of this run failed.
    """

    study: Path
    metric: str
    objectives: tuple[Objective, ...]
    trials: tuple[Trial, ...]
    best: tuple[Trial, ...]
    fixed: Mapping[str, str]
    given: Mapping[str, str]
    messages: tuple[Diagnostic, ...]


Watching = Callable[[Trial, int], None]
"""Told of a trial that is over, and how many there are to be."""


def tune(
    path: Path,
    source: Source,
    params: Params,
    options: TuningOptions,
    watch: Watching = lambda trial, trials: None,
) -> Tuned:
    """Find the values of a recipe's params that are best by a metric.

    Args:
        path, source: the recipe.
        params: values for the params that are not tuned.
        options: what to tune by.
        watch: told of each trial once it is over.

    Raises:
        PemError: everything wrong with the recipe, PEM0901 to PEM0906 with what is asked of it,
            PEM0512 and PEM0920 to PEM0923 with the study. A trial that fails raises nothing.
    """
    with placed(None):
        metrics = _metrics(options)
    source = replace(source, memory={})  # checked for each trial, parsed once
    subject = _TunedRecipe(DiskResolver(), path, source, params)
    one_each = {name: values[0] for name, values in options.choices.items()}
    declared = subject.begun({**one_each, **params})
    axes, refused = axes_of(declared, params, options.choices)
    checked = subject.begun({**params, **start_of(declared, axes)})
    subject.output = _index_of(checked, options.only)
    space = space_of(checked, checked.outputs[subject.output], axes, refused, options.choices)
    start = start_of(declared, space)
    checked = subject.begun({**params, **start})
    sampler = SAMPLERS[options.sampler]
    settings = StudySettings(
        checked.outputs[0].path if options.only else "",
        options.metric,
        options.first_metric,
        options.objectives,
        options.sampler,
        options.seed,
        space,
        {name: text for name, text in params_text(checked).items() if name not in space},
    )
    with placed(None):
        sampler.hold(space, options.objectives)
    with placed(None), temporary("tune") as scratch, open_study(Path(options.study)) as study:
        study.begin(settings)
        tuning = _Tuning(study, subject, settings, start, options, metrics, scratch, watch)
        tuning.run(sampler)
        study.hold_there()
        return Tuned(
            study.path,
            options.metric,
            options.objectives,
            tuple(study.trials),
            tuple(best_of(study.trials, options.objectives)),
            settings.fixed,
            {name: settings.fixed[name] for name in params},
            tuple(tuning.messages),
        )


def _metrics(options: TuningOptions) -> list[Metric]:
    """The first metric, if there is one, and the metric."""
    names = [objective.name for objective in options.objectives]
    metrics = [metric_of(options.metric, names, options.seconds)]
    if options.first_metric:
        _hold_one(options.objectives)
        metrics.insert(0, metric_of(options.first_metric, names, options.seconds))
    return metrics


@dataclass
class _TunedRecipe:
    """What is tuned: a recipe, and which of its outputs."""

    resolver: DiskResolver
    path: Path
    source: Source
    params: Params
    output: int | None = None

    def begun(self, values: Params) -> Checked:
        """The recipe at values that it may refuse; raises PemError for what is wrong with it at
        others too."""
        checked = check(self.path, self.source, self.resolver, values)
        wrong = {x.code for x in checked.diagnostics if x.severity == "error"}
        if wrong - _AT_OTHER_VALUES:
            raise PemError(checked.diagnostics)
        return self._alone(checked if wrong else identified(checked, self.resolver))

    def at(self, values: Mapping[str, str], root: Path | None = None) -> Checked:
        """The recipe at some values, with that output alone; raises PemError."""
        settings = {**self.params, **values}
        checked = identified_with(self.resolver, self.path, self.source, settings, root)
        return self._alone(checked, root)

    def _alone(self, checked: Checked, root: Path | None = None) -> Checked:
        """The recipe with the one output, once it is known which."""
        if self.output is None:
            return checked
        output = checked.outputs[self.output]
        if root is not None:
            output = replace(output, target=root / _plain_name(output.target))
        return replace(checked, outputs=[output])


def _plain_name(target: Path) -> str:
    """What an output is called where a metric finds it: a shell may read the path, and what a
    recipe calls it may be `$(…)`."""
    return f"output{target.suffix if is_one_file(target) else ''}"


def _hold_one(objectives: Sequence[Objective]) -> None:
    if len(objectives) > 1:
        raise Fault(
            "PEM0904",
            "a first metric spares trials by one objective, and there are "
            f"{listed(x.name for x in objectives)}",
            "leave out --first-metric, or all objectives but one",
        )


def _index_of(checked: Checked, path: str) -> int:
    """Which output is measured; raises PemError PEM0906 where that is not clear."""
    paths = [output.path for output in checked.outputs]
    if not paths:
        raise PemError([saves_nothing(checked)])
    if path in paths:
        return paths.index(path)
    if not path and len(paths) == 1:
        return 0
    fault = Fault(
        "PEM0906",
        f"the recipe saves nothing to {visible(path)}"
        if path
        else f"the recipe saves {len(paths)} outputs, and a metric measures one",
        f"name one of them: --only {' or --only '.join(map(visible, paths[:8]))}",
    )
    raise PemError([fault.at(None)])


@dataclass(frozen=True)
class _Candidate:
    """A trial whose output is built."""

    trial: Trial
    output: Path


class _Tuning:
    """A tuning on its way."""

    def __init__(
        self,
        study: Study,
        subject: _TunedRecipe,
        settings: StudySettings,
        start: Mapping[str, str],
        options: TuningOptions,
        metrics: Sequence[Metric],
        scratch: Path,
        watch: Watching,
    ) -> None:
        self._study, self._settings, self._start, self._options = study, settings, start, options
        *self._first, self._metric = metrics
        self._subject, self._scratch, self._watch = subject, scratch, watch
        self._build = replace(options.build, lasting=False)  # measured, and removed
        self._values: dict[str, Fraction] = {}  # of measures, by the keys of nodes
        self._at_once = options.jobs  # until it is known how large an output is
        self._runs = MetricRuns()
        self.messages: list[Diagnostic] = []

    def run(self, sampler: Sampler) -> None:
        """Have all trials, those of the study that are not over first; what failed is tried
        again."""
        study = self._study
        self._hold_meaning()
        study.write([replace(x, code="", message="") for x in study.trials if x.is_failed])
        try:
            while batch := self._open() or self._proposed(sampler):
                self._have(batch)
        finally:
            self._runs.end()

    def _hold_meaning(self) -> None:
        """Raise PEM0923 unless the values in the study mean what they meant."""
        for trial in self._study.trials:
            if trial.is_measured and self._hash_at(trial) != trial.hash:
                at = _at(trial)
                raise Fault(
                    "PEM0923",
                    f"the recipe or an adapter has changed since trial {trial.number} of the "
                    f"study {visible(self._study.path)}: it means something else {at}",
                    "begin another study: --study FILE",
                )

    def _hash_at(self, trial: Trial) -> str:
        try:
            checked = self._subject.at(trial.settings)
        except PemError:
            return ""
        return checked.hash(checked.outputs[0])

    def _open(self) -> list[Trial]:
        return [trial for trial in self._study.trials if not trial.is_over][: self._at_once]

    def _proposed(self, sampler: Sampler) -> list[Trial]:
        """New trials, written down; none where there are enough, or nothing is left to try."""
        done = self._study.trials
        left = self._options.trials - len(done)
        if left <= 0:
            return []
        options = self._options
        ctx = SamplingContext(
            self._settings.space, self._start, options.objectives, done, left, options.jobs,
            options.seed,
        )  # fmt: skip
        values = sampler.propose(ctx)[: self._at_once]
        trials = [Trial(number, settings) for number, settings in enumerate(values, len(done) + 1)]
        self._study.write(trials)
        return trials

    def _have(self, batch: Sequence[Trial]) -> None:
        """Have some trials that do not depend on each other: build them all, then measure."""
        measured = {x.hash: x for x in self._study.trials if x.hash and x.is_over}
        to_build: dict[str, tuple[Trial, Checked]] = {}
        again: list[Trial] = []
        for trial in batch:
            try:
                checked = self._subject.at(trial.settings, self._place(trial))
            except PemError as error:
                self._fail(trial, error)
                continue
            hashed = replace(trial, hash=checked.hash(checked.outputs[0]))
            if hashed.hash in measured or hashed.hash in to_build:
                again.append(hashed)
            else:
                to_build[hashed.hash] = hashed, checked
        worth_it = self._worth_it(self._built([*to_build.values()]))
        for candidate, numbers in self._measured(self._metric, worth_it):
            self._over(replace(candidate.trial, numbers=numbers))
        measured = {x.hash: x for x in self._study.trials if x.hash and x.is_over}
        for trial in again:
            same = measured[trial.hash]
            self._over(replace(same, number=trial.number, settings=trial.settings))

    # --- what becomes of a trial ------------------------------------------------------------------

    def _over(self, trial: Trial) -> None:
        self._study.write([trial])
        shutil.rmtree(self._place(trial), ignore_errors=True)
        self._watch(trial, self._options.trials)

    def _fail(self, trial: Trial, error: PemError) -> None:
        told = next(x for x in error.diagnostics if x.severity == "error")
        whole = whole_values(self._settings.space, trial.settings, told.message)
        if told.code in _NOT_WHOLE and whole:
            told = replace(told, help=f"try whole numbers: {whole}")
        self.messages.append(
            replace(
                told, severity="warning", notes=(*told.notes, f"trial {trial.number}, {_at(trial)}")
            )
        )
        self._over(replace(trial, code=told.code, message=told.message))

    def _place(self, trial: Trial) -> Path:
        return self._scratch / str(trial.number)

    # --- builds and metrics -----------------------------------------------------------------------

    def _built(self, jobs: Sequence[tuple[Trial, Checked]]) -> list[_Candidate]:
        """What could be built of some trials: in one go, or each by itself where that fails."""
        if not jobs:
            return []
        points = [SweepPoint(trial.settings) for trial, _ in jobs]
        try:
            result = build_checked([x for _, x in jobs], points, no_tick, self._build, self._values)
        except PemError as error:
            if len(jobs) == 1:
                self._fail(jobs[0][0], error)
                return []
            return [built for job in jobs for built in self._built([job])]
        size = max(built.size for built in result.outputs)
        self._at_once = max(self._options.jobs, AT_ONCE // max(1, size))
        return [
            _Candidate(trial, built.path)
            for (trial, _), built in zip(jobs, result.outputs, strict=True)
        ]

    def _worth_it(self, candidates: Sequence[_Candidate]) -> Sequence[_Candidate]:
        """Those of some trials that the first metric does not say to be worse than usual."""
        if not self._first:
            return candidates
        [objective], [metric] = self._options.objectives, self._first
        candidates = [
            replace(x, trial=replace(x.trial, first=numbers[objective.name]))
            for x, numbers in self._measured(metric, candidates)
        ]
        trials = [*self._study.trials, *(candidate.trial for candidate in candidates)]
        firsts = [(x.number, x.first) for x in trials if x.first is not None]
        return [x for x in candidates if not self._spared(x.trial, firsts)]

    def _spared(self, trial: Trial, firsts: Sequence[tuple[int, float]]) -> bool:
        """Whether what the first metric gave is worse than the median of the trials before, so that
        a trial is over."""
        before = [first for number, first in firsts if number < trial.number]
        if trial.first is None or len(before) < ENOUGH:
            return False
        sign = 1 if self._options.objectives[0].larger else -1
        if sign * trial.first >= sign * statistics.median(before):
            return False
        self._over(replace(trial, code=PRUNED))
        return True

    def _measured(
        self, metric: Metric, candidates: Sequence[_Candidate]
    ) -> Iterator[tuple[_Candidate, Mapping[str, float]]]:
        """The numbers of each, as they come; one that fails is over."""
        with ThreadPoolExecutor(self._options.jobs) as pool:
            try:
                running = {pool.submit(self._runs.measure, metric, x.output): x for x in candidates}
                for future in as_completed(running):
                    try:
                        yield running[future], future.result()
                    except Fault as fault:
                        told = fault.at(None)
                        if metric in self._first:
                            told = replace(told, notes=(*told.notes, "it is the first metric"))
                        self._fail(running[future].trial, PemError([told]))
            except BaseException:
                self._runs.end()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _at(trial: Trial) -> str:
    values = ", ".join(f"{visible(x)} = {visible(y)}" for x, y in trial.settings.items())
    return f"at {values}"
