"""`pem tune --write`: what is best becomes the recipe's own, where a reviewer sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import pem
from support.tuning import TEXT, rows, script, stocked, tuned

import pemlang
from pemlang.syntax import decoded, formatted


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stocked(tmp_path)
    return tmp_path


def text(folder: Path) -> str:
    return (folder / "recipe.pem").read_text()


def remark(folder: Path, w: str, score: str, study: str = "recipe.study") -> str:
    return (
        f"# pem tune: w = {w} gives s = {score} by `sh {folder}/metric.sh {{output}}` in {study}\n"
    )


def test_the_default_is_what_was_best_and_all_else_is_as_it_was(folder: Path) -> None:
    metric = script(folder, 'echo "$w"')
    done = tuned(folder, metric, "--write")
    assert done.out.splitlines()[-1] == "wrote recipe.pem"
    assert text(folder) == TEXT.replace("param w", remark(folder, "1", "1") + "param w").replace(
        "= 0.5  #", "= 1  #"
    )
    assert pem("fmt", "--check", "recipe.pem", folder=folder).code == 0


def test_a_second_time_takes_the_place_of_the_first(folder: Path) -> None:
    assert tuned(folder, script(folder, 'echo "$w"'), "--write").code == 0
    again = tuned(folder, script(folder, 'echo "-$w"'), "--write", "--study", "other.study")
    assert again.code == 0
    words = remark(folder, "0", "0", "other.study")
    assert text(folder) == TEXT.replace("param w", words + "param w").replace("= 0.5  #", "= 0  #")
    before = text(folder)
    assert (
        tuned(folder, script(folder, 'echo "-$w"'), "--write", "--study", "other.study").code == 0
    )
    assert text(folder) == before


def test_a_recipe_in_another_layout_is_laid_out(folder: Path) -> None:
    ugly = TEXT.replace(" + ", "+").replace("adapter a", "adapter  a")
    (folder / "recipe.pem").write_text(ugly)
    assert tuned(folder, script(folder, 'echo "$w"'), "--write").code == 0
    laid_out = formatted(decoded(ugly.encode(), "x.pem", folder))
    assert [x for x in text(folder).splitlines() if "param w" not in x and "pem tune" not in x] == [
        x for x in laid_out.splitlines() if "param w" not in x
    ]


def test_params_of_all_kinds_are_written_those_that_were_set_too(folder: Path) -> None:
    before = TEXT.replace(
        "save w * a",
        "param yes: bool = false\nparam name: string\nparam by: number in -1..1\n"
        "let y = if yes then a else b\nsave by * w * y",
    ).replace('"out/x"', '"out/{name}"')
    stocked(folder, before)
    metric = script(folder, 'grep -q \'"yes": "true"\' "$1/provenance.json" && echo "$w" || echo 0')
    words = ("--set", "by=-0.5", "--values", 'name=p "q",r', "--write")
    assert tuned(folder, metric, *words).code == 0
    lines = text(folder).splitlines()
    assert "param yes: bool = true" in lines
    assert 'param name: string = "p \\"q\\""' in lines
    assert "param by: number in -1..1 = -0.5" in lines
    assert "param w: number in 0..1 = 1  # between the two" in lines
    assert text(folder).count("# pem tune: ") == 3
    hashes = {x.semantic_hash for x in pemlang.load(folder / "recipe.pem").plan().outputs}
    assert hashes == {row[2] for row in rows(folder / "recipe.study") if row[4] == '{"s": 1.0}'}


def test_a_trial_of_a_front_is_chosen(folder: Path) -> None:
    metric = script(folder, 'echo "{\\"s\\": $w, \\"t\\": $w}"')
    words = ("--minimize", "t", "--write")
    assert tuned(folder, metric, *words, "--trial", "4").code == 0
    assert "w = 0.3 gives s = 0.3, t = 0.3 by" in text(folder)
    script(folder, 'test "$w" != 1 && echo "{\\"s\\": $w, \\"t\\": $w}"')
    for number in ("11", "12"):  # one that failed, and none
        done = tuned(folder, metric, *words, "--trial", number, "--study", "other.study")
        said = f"There is no trial {number} that was measured"
        assert (done.code, said in done.err) == (2, True)


def test_a_link_to_a_recipe_stays_one(folder: Path) -> None:
    (folder / "recipe.pem").rename(folder / "real.pem")
    (folder / "recipe.pem").symlink_to("real.pem")
    assert tuned(folder, script(folder, 'echo "$w"'), "--write").code == 0
    assert (folder / "recipe.pem").is_symlink()
    assert "# pem tune: w = 1" in (folder / "real.pem").read_text()


def test_the_output_says_by_what_it_was_tuned_and_only_at_that_value(folder: Path) -> None:
    assert tuned(folder, script(folder, 'echo "$w"'), "--write").code == 0
    assert pem("build", "recipe.pem", folder=folder).code == 0
    gives = remark(folder, "1", "1").partition(" gives ")[2].strip()
    shown = pem("explain-output", "out/x", folder=folder).out
    assert f"tuned     w = 1 gives {gives}\n" in shown
    told = json.loads(pem("explain-output", "out/x", "--format", "json", folder=folder).out)
    assert told["tuned"] == {"w": gives}
    assert pem("verify", "out/x", "--rebuild", folder=folder).code == 0
    assert pem("build", "recipe.pem", "--set", "w=0.4", folder=folder).code == 0
    other = json.loads(pem("explain-output", "out/x", "--format", "json", folder=folder).out)
    assert other["tuned"] == {}


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        ("echo '# mine' >> $here/recipe.pem", ""),
        ("sed -i 's/w \\* a/w * b/' $here/recipe.pem", "PEM0925"),
        ("echo 'let x =' >> $here/recipe.pem", "PEM0108"),
        ("rm -f $here/recipe.pem", "PEM0100"),
        ("sed -i 's/^save/param more: number = 1\\nsave/' $here/recipe.pem", ""),
        ("sed -i 's/w: n/v: n/; s/w \\*/v */; s/- w/- v/' $here/recipe.pem", "PEM0925"),
        ("sed -i 's/number in 0..1 = 0.5/bool = true/' $here/recipe.pem", "PEM0212"),
    ],
)
def test_what_is_edited_meanwhile_is_kept(folder: Path, edit: str, code: str) -> None:
    done = tuned(folder, script(folder, f'test $w != 1 || {edit}; echo "$w"'), "--write")
    assert (done.code, f"error[{code}]" in done.err) == (int(bool(code)), bool(code))
    path = folder / "recipe.pem"
    now = path.read_text() if path.exists() else ""
    assert ("# pem tune" in now) == (not code)
    assert ("# mine" in now or "more" in now) == (not code)


def test_words_of_a_metric_stay_in_their_comment(folder: Path) -> None:
    script(folder, 'echo "$w"')
    metric = f"sh {folder}/metric.sh {{output}} 'x\nsave a to \"evil\"\u202e\x1b[31m'"
    assert tuned(folder, metric, "--write").code == 0
    assert text(folder).count("\n") == TEXT.count("\n") + 1
    assert "\\u000asave a to" in text(folder)
    assert pem("check", "recipe.pem", folder=folder).code == 0
