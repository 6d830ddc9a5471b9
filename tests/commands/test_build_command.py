"""`pem build` of several recipes, and of an expression on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import delta, lora, pem, recipe, tensors_of

from pemlang.syntax import formatted, read_source

DECLARED = 'adapter a = "a"\nadapter b = "b"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    return tmp_path


def of_expression(folder: Path, expression: str, *words: str) -> str:
    """The recipe that is shown for an expression, which builds."""
    done = pem("build", "-e", expression, *words, folder=folder)
    assert (done.code, done.err) == (0, "")
    written, result = done.out.rsplit("\n\n", 1)
    assert result.count("\n") == 1
    return f"{written}\n"


# --- several recipes -------------------------------------------------------------------------


def test_several_recipes_are_built_in_turn(folder: Path) -> None:
    recipe(folder, DECLARED + 'save a + b to "out/x"\n', "x.pem")
    recipe(folder / "deep", 'adapter a = "../a"\nsave -a to "out/y"\n', "y.pem")
    done = pem("build", "x.pem", "deep/y.pem", "x.pem", folder=folder)
    assert [line.split()[0] for line in done.out.splitlines()] == ["out/x", "deep/out/y"]
    assert (folder / "deep/out/y/adapter_config.json").is_file()


def test_one_wrong_recipe_of_several_is_told_and_keeps_no_other_from_being_built(
    folder: Path,
) -> None:
    recipe(folder, DECLARED + 'save a + c to "out/x"\n', "x.pem")
    recipe(folder, DECLARED + 'save a + b to "out/y"\n', "y.pem")
    done = pem("build", "x.pem", "nowhere.pem", "y.pem", folder=folder)
    assert done.code == 1
    assert done.out.startswith("out/y ")
    assert "PEM0206" in done.err
    assert "PEM0100" in done.err
    assert not (folder / "out/x").exists()


@pytest.mark.parametrize(
    ("other", "code"),
    [("out/x", "PEM0344"), ("out/X", "PEM0344"), ("out/x/deep", "PEM0344"), ("out", "PEM0510")],
)
def test_no_recipe_takes_the_place_of_what_another_has_just_saved(
    folder: Path, other: str, code: str
) -> None:
    recipe(folder, DECLARED + 'save a + b to "out/x"\n', "x.pem")
    recipe(folder, DECLARED + f'save a - b to "{other}"\n', "y.pem")
    done = pem("build", "x.pem", "y.pem", folder=folder)
    assert done.code == 1
    assert code in done.err
    assert " --> y.pem:3:1" in done.err
    [only] = (folder / "out").iterdir()
    assert only.name == "x"
    assert pem("verify", "out/x", folder=folder).code == 0


# --- an expression ---------------------------------------------------------------------------


def test_an_expression_builds_as_the_recipe_that_is_shown_for_it(folder: Path) -> None:
    shown = of_expression(folder, "0.5*a\n+b", "a=a", "b=b", "--to", "out/x")
    expected = 'language 1\n\nadapter a = "a"\nadapter b = "b"\n\nsave 0.5 * a + b to "out/x"\n'
    assert shown == expected
    sum_of_both = {
        site: 0.5 * d + delta(folder / "b")[site] for site, d in delta(folder / "a").items()
    }
    for site, d in delta(folder / "out/x").items():
        assert np.allclose(d, sum_of_both[site])
    first = (folder / "out/x/adapter_model.safetensors").read_bytes()
    again = recipe(folder, shown, "again.pem")
    assert formatted(read_source(again)) == shown
    assert pem("build", "again.pem", "--force", folder=folder).code == 0
    assert (folder / "out/x/adapter_model.safetensors").read_bytes() == first


def test_its_output_says_where_it_came_from_and_is_verified(folder: Path) -> None:
    of_expression(folder, "a - b", "a=a", "b=b", "--to", "out/x")
    assert "save a - b to" in pem("explain-output", "out/x", folder=folder).out
    done = pem("verify", "out/x", "--rebuild", folder=folder)
    assert done.code == 0
    assert "·" not in done.out
    lora(folder / "b", 3)
    assert pem("verify", "out/x", folder=folder).code == 1


def test_it_may_be_saved_anywhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    away = tmp_path_factory.mktemp("away")
    shown = of_expression(folder, "-a", "a=a", "--to", str(away / "x"))
    assert f"# pem build RECIPE --out {away}" in shown
    again = recipe(folder, shown, "again.pem")
    assert formatted(read_source(again)) == shown
    done = pem("build", "again.pem", "--out", away, folder=folder)
    assert (done.code, "up to date" in done.out) == (0, True)
    of_expression(folder / "b", "-a", "a=../a", "--to", "../out/y")
    assert tensors_of(away / "x").keys() == tensors_of(folder / "out/y").keys()
    assert "give it with --from" in pem("verify", away / "x", folder=folder).out
    assert pem("verify", away / "x", "--rebuild", "--from", ".", folder=folder).code == 0


@pytest.mark.parametrize("name", ['say "a"', "back\\slash", "{brace}", "tab\there", "#", "ü –"])
def test_names_of_folders_are_written_as_a_recipe_writes_them(folder: Path, name: str) -> None:
    if not name.isprintable():
        done = pem("build", "-e", "x", f"x={name}", "--to", "out/x", folder=folder)
        assert (done.code, "PEM0111" in done.err) == (1, True)
        return
    lora(folder / name, 4)
    shown = of_expression(folder, "x", f"x={name}", "--to", f"out/{name}")
    assert (folder / "out" / name / "adapter_config.json").is_file()
    again = recipe(folder, shown, "again.pem")
    assert pem("check", "again.pem", folder=folder).text == ""
    assert formatted(read_source(again)) == shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "a=a"], "belong together"),
        (["a", "a=a", "--to", "out/x", "b"], "`b` is not NAME=DIR"),
        (["a", "a=a", "--to", "out/x", "iff=b", "="], "`=` is not NAME=DIR"),
        (["a", "save=a", "--to", "out/x"], "`save=a` is not NAME=DIR"),
        (["a", "a\nb=a", "--to", "out/x"], r"`a\u000ab=a` is not NAME=DIR"),
        (["a", "a=a", "a=b", "--to", "out/x"], "`a` is given twice"),
    ],
)
def test_what_is_wrong_with_its_words(folder: Path, words: list[str], told: str) -> None:
    done = pem("build", "-e", *words, folder=folder)
    assert done.code == 2
    assert told in done.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("a + c", "PEM0206"),
        ("a +", "PEM0108"),
        ('a to "out/y"\nsave a', "PEM0108"),
    ],
)
def test_a_mistake_in_it_is_told_with_its_place(folder: Path, expression: str, code: str) -> None:
    done = pem("build", "-e", expression, "a=a", "--to", "out/x", folder=folder)
    assert done.code == 1
    assert code in done.err
    assert " --> -e:" in done.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("more", ['to "evil" #', 'to "evil" with rank=2 #"', ') to "evil" #'])
def test_an_expression_says_nothing_of_where_it_is_saved(folder: Path, more: str) -> None:
    done = pem("build", "-e", f"a {more}", "a=a", "--to", "out/x", folder=folder)
    assert done.code == 1
    assert not (folder / "evil").exists()


@pytest.mark.parametrize(("expression", "to"), [("a", ""), ("", "out/x"), ("a", "."), ("a", "..")])
def test_the_folder_one_is_in_is_not_replaced(folder: Path, expression: str, to: str) -> None:
    before = folder.stat().st_ino
    done = pem("build", "-e", expression, "a=a", "--to", to, folder=folder)
    assert (done.code, folder.stat().st_ino) == (2, before)


def test_a_recipe_is_built_once_however_it_is_spelt(folder: Path) -> None:
    recipe(folder, 'adapter a = "a"\nsave a to "out/once"\n', "once.pem")
    done = pem("build", "once.pem", "./once.pem", folder=folder)
    assert (done.code, done.err, done.out.count("out/once")) == (0, "", 1)


# --- help for the words of an expression -------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "words", "help"),
    [
        ("a + c", ["a=a"], "give the folder of its adapter, too: c=DIR"),
        ("zyxwvu(a)", ["a=a"], "call one that `pem ops` lists"),
        ("a", ["a=a/adapter_config.json"], "a=a"),
        ("a", ["a=org/a"], "on the hub: a=hf://org/a"),
        ('a to "y"', ["a=a"], "--to says where it is saved"),
        ("a with rank=2", ["a=a"], "a rank is said in it, compress(…, rank=8)"),
    ],
)
def test_help_for_an_expression_is_for_the_command_line(
    folder: Path, expression: str, words: list[str], help: str
) -> None:
    done = pem("build", "-e", expression, *words, "--to", "out/x", folder=folder)
    assert done.code == 1
    [told] = [line for line in done.err.splitlines() if " = help: " in line]
    assert help in told


def test_help_for_a_recipe_alone_comes_with_the_recipe_of_an_expression(folder: Path) -> None:
    for seed, name in enumerate("hg"):
        head = {"base_model.model.classifier.weight": np.full((2, 12), seed, "f4")}
        lora(folder / name, seed, extra=head, modules_to_save=["classifier"])
    done = pem("build", "-e", "h + g", "h=h", "g=g", "--to", "out/x", folder=folder)
    assert done.code == 1
    assert "with heads=" in done.err
    shown = [line.strip() for line in done.err.split("build the file\n")[1].splitlines()]
    text = "\n".join(shown[: shown.index('save h + g to "out/x"') + 1])
    recipe(folder, text + " with heads=h\n", "mended.pem")
    assert pem("build", "mended.pem", folder=folder).code == 0


@pytest.mark.parametrize("words", [["--set", "w=1"], ["--sweep", "w=0:1:1"]])
def test_an_expression_has_no_params_and_says_what_to_do(folder: Path, words: list[str]) -> None:
    done = pem("build", "-e", "w * a", "a=a", "--to", "out/x", *words, folder=folder)
    assert (done.code, "write the number into the expression" in done.err) == (2, True)


# --- values given twice ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sweep", "w=0:1:0.5", "--sweep", "w=0.2"], "a build goes over one param"),
        (["--sweep", "w=0:1:0.5", "--sweep", "v=0.2"], "for `w` and `v`"),
        (["--set", "w=1", "--set", "w=2"], "`w` is given twice"),
        (["--sweep", "w=0:1:0.5", "--set", "w=2"], "both in --set and in --sweep"),
    ],
)
def test_a_param_that_is_given_twice_is_no_silent_choice(
    folder: Path, words: list[str], told: str
) -> None:
    params = "param w: number = 1\nparam v: number = 1\n"
    text = f'adapter a = "a"\n{params}save w * v * a to "out/{{w}}"\n'
    recipe(folder, text, "x.pem")
    done = pem("build", "x.pem", *words, folder=folder)
    assert (done.code, told in " ".join(done.err.split())) == (2, True)
    assert not (folder / "out").exists()


# --- what a build takes ------------------------------------------------------------------------


def test_a_folder_or_a_dash_in_place_of_a_recipe_is_told_what_a_build_takes(folder: Path) -> None:
    recipe(folder / "deep", 'adapter a = "../a"\nsave a to "out"\n', "x.pem")
    told = {
        "deep": "give a recipe in it: deep/x.pem",
        "a": "`pem init` writes one",
        "-": "save it to a file",
    }
    for word, help in told.items():
        done = pem("build", word, folder=folder)
        assert (done.code, "PEM0100" in done.err, help in done.err) == (1, True, True), done
    assert pem("build", "deep/x.pem", folder=folder).code == 0
