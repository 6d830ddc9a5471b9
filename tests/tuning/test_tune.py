"""`pem tune`: the values that are best, by metrics of real outputs."""

from __future__ import annotations

import json
import re
import time
from itertools import product
from pathlib import Path

import pytest
from support import Done, pem
from support.processes import on_a_terminal
from support.tuning import BEST, DISTANCE, TEXT, calls, script, stocked

import pemlang
from pemlang.pipeline import Objective

LEAST = ("--minimize", "distance")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stocked(tmp_path)
    return tmp_path


def tune(folder: Path, metric: str, *words: str, **env: str) -> Done:
    return pem("tune", "recipe.pem", "--metric", metric, *words, folder=folder, **env)


def told(done: Done) -> dict[str, object]:
    """The JSON of a command."""
    return json.loads(done.out)  # type: ignore[no-any-return]


def test_eleven_trials_find_a_weight_as_good_as_the_grid_of_eleven(folder: Path) -> None:
    words = (*LEAST, "--trials", "11", "--format", "json")
    best = {}
    for sampler in ("grid", "tpe"):
        study = f"{sampler}.study"
        options = ("--sampler", sampler, "--study", study)
        found = told(tune(folder, DISTANCE, *words, *options))
        assert len(found["trials"]) == 11
        [number] = found["best"]
        best[sampler] = found["trials"][number - 1]
    assert best["grid"]["settings"] == {"w": "0.4"}
    assert best["tpe"]["numbers"]["distance"] <= best["grid"]["numbers"]["distance"]
    assert abs(float(best["tpe"]["settings"]["w"]) - BEST) <= 0.03


def test_a_function_is_a_metric(folder: Path) -> None:
    words = ("--sampler", "grid", "--trials", "3", "--format", "json")
    by_function = tune(folder, "distance:distance", *LEAST, *words, PYTHONPATH=str(folder))
    by_command = tune(folder, DISTANCE, *LEAST, *words, "--study", "other.study")
    assert told(by_function)["trials"] == told(by_command)["trials"]


def test_what_is_shown(folder: Path) -> None:
    metric = script(folder, 'echo "$w"')
    done = tune(folder, metric, "--maximize", "score", "--sampler", "grid", "--trials", "3")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "trial    w  score",
        "    3    1      1",
        "    2  0.5    0.5",
        "    1    0      0",
        "3 trials; they stay in recipe.study",
        "pem build recipe.pem --set w=1",
    ]
    assert not (folder / "out").exists()
    words = ("--maximize", "score", "--sampler", "grid", "--study", "other.study")
    lines = tune(folder, metric, *words, "--trials", "11").out.splitlines()
    assert len(lines) == 13
    assert lines[-2] == "11 trials, the best 10 shown; they stay in other.study"


def test_what_is_least_is_shown_first_with_all_that_builds_it(folder: Path) -> None:
    stocked(folder, TEXT.replace("save w", "param v: number in 1..2 = 1\nsave v * w"))
    words = ("--minimize", "score", "--sampler", "grid", "--trials", "3", "--set", "v=2")
    done = tune(folder, script(folder, 'echo "$w"'), *words)
    assert [line.split() for line in done.out.splitlines()[1:4]] == [
        ["1", "0", "0"], ["2", "0.5", "0.5"], ["3", "1", "1"],
    ]  # fmt: skip
    assert done.out.splitlines()[-1] == "pem build recipe.pem --set v=2 --set w=0"


def test_a_range_of_one_number_has_that(folder: Path) -> None:
    stocked(folder, TEXT.replace("0..1 = 0.5", "1..1 = 1"))
    for sampler in ("grid", "tpe"):
        words = ("--sampler", sampler, "--trials", "7", "--study", f"{sampler}.study")
        done = tune(folder, script(folder, "echo 1"), "--maximize", "s", *words)
        assert (done.code, done.out.splitlines()[1].split()) == (0, ["1", "1", "1"])


def test_progress_is_told_on_a_terminal_alone(folder: Path) -> None:
    metric = script(folder, 'test "$w" != 1 && echo "$w"')
    words = ("--metric", metric, "--maximize", "score", "--sampler", "grid", "--trials", "3")
    lines = on_a_terminal("tune", "recipe.pem", *words, folder=folder).out.splitlines()
    assert lines[0] == "trial 1 of 3  w = 0  score = 0  (best 0)"
    assert lines[1] == "trial 2 of 3  w = 0.5  score = 0.5  (best 0.5)"
    assert lines[2].startswith("trial 3 of 3  w = 1  PEM0910: the metric failed, with exit code 1")


def test_several_objectives_give_the_pareto_front(folder: Path) -> None:
    words = ("--maximize", "norm", *LEAST, "--sampler", "grid", "--trials", "9")
    done = tune(folder, DISTANCE, *words, "--format", "json", "--plot", "front.svg")
    found = told(done)
    points = {
        x["number"]: (x["numbers"]["norm"], -x["numbers"]["distance"]) for x in found["trials"]
    }
    beaten = {
        one for one, other in product(points, points)
        if points[one] != points[other] and all(map(float.__le__, points[one], points[other]))
    }  # fmt: skip
    assert 1 < len(found["best"]) < 9
    assert set(found["best"]) == set(points) - beaten
    drawn = (folder / "front.svg").read_text()
    assert drawn.count('class="best"') == len(found["best"])
    assert drawn.count("<circle") == 9
    [line] = re.findall('<polyline class="front" points="(.*?)"', drawn)
    dots = re.findall('<circle class="best" cx="(.*?)" cy="(.*?)"', drawn)
    assert sorted(line.split()) == sorted(map(",".join, dots))
    shown = tune(folder, DISTANCE, *words).out.splitlines()
    assert shown[-1] == f"9 trials, a front of {len(found['best'])}; they stay in recipe.study"
    assert [int(line.split()[0]) for line in shown[1:-1]] == found["best"]


def test_a_picture_over_the_trials_where_more_than_a_number_is_tuned(folder: Path) -> None:
    stocked(folder, TEXT.replace("save w * a", "param yes: bool = true\nsave w * (if yes then a "
    "else b)"))  # fmt: skip
    words = ("--maximize", "s", "--sampler", "grid", "--trials", "4", "--plot", "x.svg")
    assert tune(folder, script(folder, 'echo "$w"'), *words).code == 0
    drawn = (folder / "x.svg").read_text()
    assert "<title>s over trial</title>" in drawn
    assert [float(x) for x in re.findall('cx="([0-9.]+)"', drawn)] == sorted(
        float(x) for x in re.findall('cx="([0-9.]+)"', drawn)
    )


@pytest.mark.parametrize("numbers", ["-1.7e308 1.7e308", "0 5e-324", "1e300 1e300", "1 1"])
def test_a_picture_of_any_numbers(folder: Path, numbers: str) -> None:
    """What lies between them may be more than the largest float, or less than the least."""
    first, second = numbers.split()
    metric = script(folder, f'if [ "$w" = 0 ]; then echo {first}; else echo {second}; fi')
    words = ("--maximize", "s", "--sampler", "grid", "--trials", "2", "--plot", "x.svg")
    assert tune(folder, metric, *words).code == 0
    drawn = (folder / "x.svg").read_text()
    assert drawn.count("<circle") == 2 and "nan" not in drawn and "inf" not in drawn


def test_params_of_all_kinds(folder: Path) -> None:
    text = TEXT.replace("save w * a", 'param yes: bool = false\nparam name: string = "x"\n'
    "param r: number in 1..8 = 8\nlet y = if yes then a else b\nsave w * y"
    ).replace('"out/x"', '"out/{name}" with rank=r')  # fmt: skip
    stocked(folder, text)
    metric = script(folder, 'echo "$w"')
    words = ("--maximize", "s", "--sampler", "grid", "--trials", "12", "--format", "json")
    found = told(tune(folder, metric, *words, "--values", "r=2,8", "--set", "name=z"))
    tried = [tuple(x["settings"].values()) for x in found["trials"]]
    assert tried == list(product(("0", "0.5", "1"), ("false", "true"), ("2", "8")))
    assert all(x["numbers"] for x in found["trials"])
    by_range = tune(folder, metric, *words[:2], "--set", "name=z", "--study", "range.study")
    assert (
        "not a whole number" in by_range.err and "whole numbers: --values r=1:8:1" in by_range.err
    )
    by_tpe = told(tune(folder, metric, *words[:2], *words[4:], "--values", "r=2,8", "--values",
                       "name=p,q", "--study", "tpe.study"))  # fmt: skip
    assert len(by_tpe["trials"]) == 12
    assert {x["settings"]["name"] for x in by_tpe["trials"]} == {"p", "q"}


def test_a_shell_can_read_the_path_whatever_the_recipe_calls_the_output(folder: Path) -> None:
    stocked(folder, TEXT.replace("out/x", "out/my $(touch run; echo) {w}"))
    metric = "sh -c 'test -d {output} && du -s {output} | cut -f1'"
    words = ("--minimize", "size", "--trials", "3", "--format", "json")
    assert all(x["numbers"] for x in told(tune(folder, metric, *words))["trials"])
    assert not (folder / "run").exists()


def test_params_that_change_nothing_in_what_is_measured_stay_as_they_are(folder: Path) -> None:
    text = TEXT.replace("save", "param far: number = 2\nparam name: string\nlet y = far * b\nsave")
    stocked(folder, text.replace("out/x", "out/{name}") + 'save w * y to "out/y"\n')
    metric = script(folder, 'echo "$w"')
    words = ("--maximize", "s", "--trials", "3", "--set", "name=z", "--write")
    by_one = tune(folder, metric, *words, "--only", "out/z")
    assert by_one.out.splitlines()[0].split() == ["trial", "w", "s"]
    assert "param far: number = 2\n" in (folder / "recipe.pem").read_text()
    by_other = tune(folder, metric, *words, "--only", "out/y", "--study", "y.study")
    assert "`far: number in 0..4`; or try some values: --values far=2,… or keep one" in by_other.err


def test_options_of_python_are_held(folder: Path) -> None:
    large = (Objective("s", larger=True),)
    with pytest.raises(ValueError, match="needs an objective"):
        pemlang.TuningOptions("echo {output}", (), "x.study")
    with pytest.raises(ValueError, match="no sampler 'random': take one of tpe, grid, cmaes"):
        pemlang.TuningOptions("echo {output}", large, "x.study", sampler="random")
    metric = script(folder, 'echo "$w"')
    options = pemlang.TuningOptions(metric, large, str(folder / "x.study"), 2, "grid")
    assert pemlang.load(folder / "recipe.pem").tune(options).study == folder / "x.study"


def test_a_first_metric_spares_the_other(folder: Path) -> None:
    first = script(folder, 'echo "$w"', "first.sh").replace("calls", "first-calls")
    (folder / "first.sh").write_text((folder / "first.sh").read_text().replace("/calls", "/firsts"))
    metric = script(folder, 'echo "$w"')
    words = ("--minimize", "s", "--sampler", "grid", "--trials", "11", "--first-metric", first)
    done = tune(folder, metric, *words, "--format", "json")
    found = told(done)
    measured = {x["settings"]["w"] for x in found["trials"] if x["numbers"]}
    assert measured == {"0", "0.1", "0.2", "0.3"}  # those with fewer than four before them
    assert sorted(calls(folder)) == sorted(measured)
    assert {x["code"] for x in found["trials"]} == {"", "pruned"}
    assert "11 trials, 7 spared;" in tune(folder, metric, *words).out
    (folder / "recipe.study").unlink()
    options = ("tune", "recipe.pem", "--metric", metric, *words)
    lines = on_a_terminal(*options, folder=folder).out.splitlines()
    assert "trial 5 of 11  w = 0.4  spared, the first metric gives 0.4  (best 0)" in lines


def test_what_fails_is_told_and_the_study_goes_on(folder: Path) -> None:
    metric = script(
        folder,
        """case "$w" in
0) echo none ;;
0.2) sleep 60 ;;
0.4) exit 3 ;;
0.6) yes ;;
0.8) echo nan ;;
*) echo "$w" ;;
esac""",
    )
    words = ("--maximize", "s", "--sampler", "grid", "--trials", "11", "--timeout", "1.5")
    done = tune(folder, metric, *words)
    assert done.code == 0
    for code in ("PEM0910", "PEM0911", "PEM0912", "PEM0913"):
        assert f"warning[{code}]" in done.err
    assert "11 trials, 5 failed;" in done.out
    assert "pem build recipe.pem --set w=1" in done.out
    script(folder, 'echo "$w"')
    (folder / "calls").unlink()
    again = tune(folder, metric, *words)  # what failed is tried again, and nothing else
    assert (again.code, again.err) == (0, "")
    assert sorted(calls(folder)) == ["0", "0.2", "0.4", "0.6", "0.8"]


def test_what_the_recipe_refuses_at_some_values_fails_there(folder: Path) -> None:
    stocked(folder, TEXT + 'assert norm(w * a) < 5 else "too much of it"\n')
    metric = script(folder, 'echo "$w"')
    words = ("--maximize", "s", "--sampler", "grid", "--trials", "11")
    done = tune(folder, metric, *words, "--format", "json")
    found = told(done)
    failed = [x["settings"]["w"] for x in found["trials"] if x["code"] == "PEM0501"]
    assert done.code == 0
    assert "1" in failed
    assert len(failed) + len(calls(folder)) == 11
    [message, *_] = found["messages"]
    assert (message["code"], message["severity"]) == ("PEM0501", "warning")
    assert message["notes"][-1].endswith(f"at w = {failed[0]}")


def test_where_all_fail_the_exit_code_says_so(folder: Path) -> None:
    done = tune(folder, "false {output}", "--maximize", "s", "--trials", "3")
    assert done.code == 1
    assert "error[PEM0924]: none of 3 trials gave a number" in done.err


def test_a_command_that_is_too_long_to_be_pasted_is_not_shown(folder: Path) -> None:
    params = "".join(f"param p{i}: number in 0..1 = 0\n" for i in range(200))
    total = " + ".join(f"p{i}" for i in range(200))
    stocked(folder, params + TEXT.replace("w * a", f"({total} + w) * a"))
    words = ("--maximize", "s", "--sampler", "grid", "--trials", "1")
    done = tune(folder, script(folder, "echo 1"), *words)
    assert done.code == 0
    assert done.out.splitlines()[-1] == "1 trial; they stay in recipe.study"


def test_two_metrics_at_a_time(folder: Path) -> None:
    metric = script(folder, "sleep 0.5; echo 1")
    words = ("--maximize", "s", "--sampler", "grid", "--trials", "5", "--jobs", "4")
    began = time.monotonic()
    assert tune(folder, metric, *words).code == 0
    assert time.monotonic() - began < 2.2  # one after the other would take 2.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Say what is best: --maximize NAME"),
        (("--maximize", "s", "--minimize", "s"), "`s` is an objective twice"),
        (("--maximize", "s", "--trial", "3"), "there is no --write"),
        (("--maximize", "s", "--minimize", "t", "--write"), "with --trial N"),
        (("--maximize", "s", "--set", "w=1", "--values", "w=1,2"), "both in --set and in --values"),
        (("--maximize", "s", "--values", "w=1", "--values", "w=2"), "given twice"),
        (("--maximize", "a b"), "is no name"),
        (("--maximize", "s", "--plot", "recipe.pem"), "was not written by this command"),
        (("--maximize", "s", "--plot", "none/x.svg"), "there is no folder none"),
        (("--maximize", "s", "--timeout", "nan"), "nan is no time"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, words: tuple[str, ...], said: str) -> None:
    done = tune(folder, "echo {output}", *words)
    assert done.code == 2
    assert said in done.err
    assert not (folder / "recipe.study").exists()


@pytest.mark.parametrize("name", [".", "..", "/", ""])
def test_a_folder_is_no_recipe(folder: Path, name: str) -> None:
    done = pem("tune", name, "--metric", DISTANCE, *LEAST, folder=folder)
    assert (done.code, "error[PEM0100]" in done.err) == (1, True)


def test_a_value_that_a_param_cannot_have_is_told_before_anything_is_built(folder: Path) -> None:
    done = tune(folder, "echo {output}", "--maximize", "s", "--values", "w=0.5,7")
    assert done.code == 1
    assert "error[PEM0214]: `w` is 7, outside 0..1" in done.err
