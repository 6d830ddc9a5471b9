"""A recipe with the values that a tuning found as its defaults, where a reviewer sees them: each
below a comment that says by what."""

from __future__ import annotations

from pathlib import Path

from pemlang.check.check import check
from pemlang.check.checked import Checked
from pemlang.check.params import DeclaredParam, setting
from pemlang.check.values import Params
from pemlang.diagnostics import Fault, PemError, placed, visible
from pemlang.inputs.resolver import DiskResolver
from pemlang.pipeline.checking import identified_with
from pemlang.pipeline.study import Trial
from pemlang.pipeline.tuning import Tuned
from pemlang.source import Source
from pemlang.syntax.files import decoded
from pemlang.syntax.format import formatted
from pemlang.syntax.remarks import MARK, Remark
from pemlang.syntax.written import quoted


def with_defaults(path: Path, source: Source, params: Params, tuned: Tuned, trial: Trial) -> str:
    """The text of a recipe whose defaults are the values of a trial, in the one layout.

    Args:
        path, source, params: as they were tuned.
        tuned, trial: what was found, and which of it.

    Raises:
        PemError: PEM0925 the recipe at its defaults would not be what was measured.
    """
    checked = check(path, source, DiskResolver(), {**params, **trial.settings})
    values = {**tuned.fixed, **trial.settings}
    text = source.text
    with placed(None):
        for name, declared in reversed(list(checked.declared.items())):
            if name in values:  # it may be newer than the trial
                remark = _remark(name, tuned, trial) if name in trial.settings else ""
                text = _with_default(text, declared, name, values[name], remark)
        new = formatted(Source(source.name, text, source.directory))
        _hold_meaning(path, source, new, trial)
    return new


def _with_default(text: str, declared: DeclaredParam, name: str, value: str, remark: str) -> str:
    statement = declared.statement
    start, default = statement.span.start, statement.default
    if declared.default != setting(value, declared.kind, name):
        written = quoted(value) if declared.kind == "string" else value
        if default is None:
            text = f"{text[: statement.span.end]} = {written}{text[statement.span.end :]}"
        else:
            text = text[: default.span.start] + written + text[default.span.end :]
    if not remark:
        return text
    before = text[:start].split("\n")
    above = before[:-1]
    if above and above[-1].strip().startswith(MARK.strip()):
        del above[-1]
    return "\n".join([*above, remark, before[-1]]) + text[start:]


def _remark(name: str, tuned: Tuned, trial: Trial) -> str:
    numbers = ", ".join(f"{x.name} = {trial.numbers[x.name]:.6g}" for x in tuned.objectives)
    gives = f"{numbers} by `{visible(tuned.metric, 300)}` in {visible(tuned.study.name, 100)}"
    return Remark(trial.settings[name], gives).line(name)


def _hold_meaning(path: Path, source: Source, text: str, trial: Trial) -> None:
    try:
        new = decoded(text.encode(), source.name, source.directory)
        checked: Checked = identified_with(DiskResolver(), path, new, {})
        hashes = {checked.hash(output) for output in checked.outputs}
    except PemError:
        hashes = set()
    if trial.hash not in hashes:
        raise Fault(
            "PEM0925",
            f"{visible(source.name)} with these defaults would not be what trial {trial.number} "
            "measured",
            "write them by hand, and see what `pem plan` says of it",
        )
