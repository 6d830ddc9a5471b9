"""Messages about tunings: their metrics, samplers and studies."""

from __future__ import annotations

import importlib.util
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import pemlang
from pemlang.pipeline import Objective
from support import recipe
from support.messages.case import Diagnostics, made, raised, told

TEXT = 'param w: number in 0..1 = 0.5\nadapter a = "adapters/a"\nsave w * a to "out/x"\n'
ONE = "sh -c 'echo 1' {output}"
LARGE = (Objective("score", larger=True),)


def tuned(root: Path, text: str = TEXT, metric: str = ONE, **more: Any) -> Diagnostics:
    """What a tuning of two trials says; its study goes."""
    params = more.pop("params", {})
    fields = {"trials": 2, "sampler": "grid", "study": root / "made.study"} | more
    options = pemlang.TuningOptions(metric, fields.pop("objectives", LARGE), **fields)
    opened = pemlang.load(recipe(root, text, "made.pem"), params)
    try:
        return opened.tune(options).messages
    except pemlang.PemError as error:
        return error.diagnostics
    finally:
        if "study" not in more:
            (root / "made.study").unlink(missing_ok=True)


@made
def PEM0901_no_range(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(
        root,
        'param name: string = "x"\nparam v: number = 1\n'
        + TEXT.replace("w * a", 'w * v * (if name == "x" then a else 2 * a)'),
    )


@made
def PEM0902_no_param(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, 'adapter a = "adapters/a"\nsave 2 * a to "out/x"\n')


@made
def PEM0902_all_set(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, params={"w": "0.3"})


@made
def PEM0902_elsewhere(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, TEXT.replace("w * a", "a").replace("out/x", "out/{w}"))


@made
def PEM0903_no_output(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="python score.py")


@made
def PEM0903_quotes(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="sh -c 'echo 1 {output}")


@made
def PEM0903_no_program(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    (root / "score.py").write_text("print(1)")
    missing = tuned(root, metric="X=1 no-such-command {output}")
    script = tuned(root, metric=f"{root / 'score.py'} {{output}}")
    (root / "score.py").unlink()
    return missing + script


@made
def PEM0903_shell(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="python score.py {output} 2>/dev/null | tail -1")


@made
def PEM0903_module(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="score.py:accuracy")


@made
def PEM0904_one_param(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, sampler="cmaes")


@made
def PEM0904_choices(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    text = "param yes: bool = true\n" + TEXT.replace("w * a", "if yes then w * a else a")
    return tuned(root, text, sampler="cmaes")


@made
def PEM0904_objectives(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    both = (*LARGE, Objective("size", larger=False))
    by_sampler = tuned(root, sampler="cmaes", objectives=both)
    return by_sampler + tuned(root, objectives=both, first_metric=ONE)


@made
def PEM0905_not_installed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    find = importlib.util.find_spec
    patch.setattr(importlib.util, "find_spec", lambda x: None if x == "optuna" else find(x))
    return tuned(root, sampler="tpe")


@made
def PEM0906_several(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    text = TEXT + 'save a to "out/y"\n'
    return tuned(root, text) + tuned(root, text, only="out/z")


@made
def PEM0910_failed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    exited = tuned(root, metric="sh -c 'echo no data here >&2; exit 3' {output}")
    killed = tuned(root, metric="sh -c 'kill -SEGV $$' {output}")
    return exited + killed + tuned(root, metric="sh -c 'kill -40 $$' {output}")


@made
def PEM0910_cannot_start(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    script = root / "metric"
    script.write_text("echo 1")
    script.chmod(0o755)
    told = tuned(root, metric=f"{script} {{output}}")
    script.unlink()
    return told


@made
def PEM0910_function(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="no_such_module:accuracy", trials=1)


@made
def PEM0910_first(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, first_metric="false {output}", trials=1)


@made
def PEM0911_nothing(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="true {output}")


@made
def PEM0911_words(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    both = (*LARGE, Objective("size", larger=False))
    no_name = tuned(root, metric="sh -c 'echo {}' {output}")
    no_number = tuned(root, metric="""sh -c 'echo "{\\"score\\": \\"high\\"}"' {output}""")
    one_of_two = tuned(root, objectives=both)
    return tuned(root, metric="sh -c 'echo good' {output}") + no_name + no_number + one_of_two


@made
def PEM0911_others(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    script = 'echo no head >&2; echo "{\\"accuracy\\": 1, \\"size\\": 2}"'
    return tuned(root, metric=f"sh -c '{script}' {{output}}", trials=1)


@made
def PEM0911_nan(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="sh -c 'echo nan' {output}")


@made
def PEM0912_hangs(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="sh -c 'echo at batch 7 >&2; sleep 60' {output}", seconds=0.2)


@made
def PEM0913_endless(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return tuned(root, metric="sh -c 'yes' {output}")


@made
def PEM0512_study(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    connect = sqlite3.connect

    def small(*args: Any, **more: Any) -> sqlite3.Connection:
        connection = connect(*args, **more)
        connection.execute("PRAGMA max_page_count = 2")
        return connection

    patch.setattr(sqlite3, "connect", small)
    return tuned(root)


@made
def PEM0920_no_study(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = root / "other.study"
    path.write_text("not a study, and longer than a header of SQLite, which has a hundred bytes")
    text = tuned(root, study=path)
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE trials (number)")
    connection.close()
    table = tuned(root, study=path)
    path.unlink()
    return text + table + tuned(root, study=root) + tuned(root, study=root / "none" / "x.study")


@made
def PEM0921_other(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = root / "other.study"
    tuned(root, study=path)
    fewer = (Objective("loss", larger=False),)
    told = tuned(root, study=path, metric="sh -c 'echo 2' {output}", objectives=fewer)
    path.unlink()
    return told


@made
def PEM0922_at_work(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = root / "other.study"
    tuned(root, study=path)
    with sqlite3.connect(path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        told = tuned(root, study=path)
    connection.close()
    path.unlink()
    return told


@made
def PEM0923_changed(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    path = root / "other.study"
    tuned(root, study=path)
    told = tuned(root, TEXT.replace("w * a", "2 * w * a"), study=path)
    path.unlink()
    return told


@made
def PEM0924_none(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    words = ("--maximize", "score", "--trials", "2", "--sampler", "grid", "--study", "x.study")
    place = recipe(root, TEXT, "made.pem")
    said = told("tune", place.name, "--metric", "false {output}", *words)
    (root / "x.study").unlink()
    return tuple(diagnostic for diagnostic in said if diagnostic.severity == "error")


@made
def PEM0925_edited(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    opened = pemlang.load(recipe(root, TEXT, "made.pem"))
    path = root / "other.study"
    done = opened.tune(pemlang.TuningOptions(ONE, LARGE, path, trials=2, sampler="grid"))
    path.unlink()
    edited = pemlang.load(recipe(root, TEXT.replace("w * a", "3 * w * a"), "made.pem"))
    return raised(lambda: edited.with_defaults(done, done.trials[1]))
