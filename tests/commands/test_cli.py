"""The command line: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support import Done, build, ia3, lora, pem, recipe
from support.processes import on_a_terminal, with_imports

import pemlang
from pemlang.cli import common
from pemlang.cli.main import PLUMBING, command_names, importing

TEXT = (
    'adapter a = "a"\nadapter b = "b"\nparam w: number in 0..1 = 0.5\nsave w * a + b to "out/x"\n'
)
WRONG = 'adapter a = "a"\nlet x = b\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    recipe(tmp_path, TEXT)
    recipe(tmp_path, WRONG, "wrong.pem")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["build", "--help"], 0),
        (["check", "recipe.pem"], 0),
        (["check", "wrong.pem"], 1),
        (["build", "wrong.pem"], 1),
        (["check", "nowhere.pem"], 1),
        (["fmt", "--check", "recipe.pem"], 0),
        (["fmt", "wrong.pem", "nowhere.pem"], 1),
        (["fmt"], 2),
        (["inspect", "a"], 0),
        (["inspect", "nowhere"], 1),
        (["ops"], 0),
        (["ops", "mean"], 0),
        (["ops", "-"], 0),
        (["ops", "meen"], 2),
        (["explain"], 0),
        (["explain", "PEM0306"], 0),
        (["explain", "306"], 0),
        (["explain", "PEM9999"], 2),
        ([], 0),
        (["help"], 0),
        (["help", "build"], 0),
        (["help", "buidl"], 2),
        (["-V"], 0),
        (["-v"], 0),
        (["recipe.pem"], 2),
        (["check", "."], 1),
        (["check", "a"], 1),
        (["buidl", "recipe.pem"], 2),
        (["build"], 2),
        (["build", "recipe.pem", "--se", "w=1"], 2),
        (["build", "recipe.pem", "--set", "w"], 2),
        (["build", "recipe.pem", "--set", "v=1"], 2),
        (["build", "recipe.pem", "--set", "w=7"], 1),
        (["check", "recipe.pem", "--format", "xml"], 2),
        (["check", "recipe.pem", "extra"], 1),
        (["check", "recipe.pem", "wrong.pem"], 1),
        (["check", "recipe.pem", "recipe.pem"], 0),
        (["check", "wrong.pem", "--set", "w=1"], 2),
        (["inspect", "a", "extra"], 2),
    ],
)
def test_exit_codes(folder: Path, words: list[str], code: int) -> None:
    done = pem(*words, folder=folder)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert done.text or words[0] in ("check", "fmt")


def test_pem_alone_says_where_to_start(folder: Path) -> None:
    shown = pem(folder=folder).out
    for command in re.findall(r"`?pem ([a-z-]+) ", shown):
        assert command in (*command_names(), "composes", "help"), command
    assert "pem help" in shown


def test_a_recipe_or_a_folder_in_place_of_a_command_is_told_the_command(folder: Path) -> None:
    assert "To build it: pem build recipe.pem." in pem("recipe.pem", folder=folder).err
    assert "To build it: pem build 'my recipe.pem'." in pem("my recipe.pem", folder=folder).err
    assert "To see what is in a folder: pem inspect a." in pem("a", folder=folder).err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("build --dry-run recipe.pem", "pem plan RECIPE"),
        ("build -n recipe.pem", "pem plan RECIPE"),
        ("build recipe.pem -o out", "--out DIR"),
        ("build recipe.pem --output=out", "--out DIR"),
        ("version", "pem --version"),
        ("merge a b", "pem build RECIPE"),
    ],
)
def test_words_of_other_tools_are_answered_by_what_to_write(
    folder: Path, words: str, told: str
) -> None:
    done = pem(*words.split(), folder=folder)
    assert (done.code, told in done.err) == (2, True), done


def test_help_is_a_word_too(folder: Path) -> None:
    assert pem("help", folder=folder) == pem("--help", folder=folder)
    assert pem("help", "help", folder=folder) == pem("--help", folder=folder)
    assert pem("help", "build", folder=folder) == pem("build", "--help", folder=folder)


def test_every_usual_way_to_ask_for_the_version(folder: Path) -> None:
    shown = pem("--version", folder=folder).out
    assert shown == f"pem {pemlang.__version__}\n"
    assert {pem(word, folder=folder).out for word in ("-V", "-v")} == {shown}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["check", "recipe.pem"], 0),
        (["build", "wrong.pem"], 1),
        (["build", "recipe.pem", "--set", "v=1"], 2),
        (["buidl", "recipe.pem"], 2),
    ],
)
def test_a_process_ends_as_the_command_does(folder: Path, words: list[str], code: int) -> None:
    done = pem(*words, folder=folder, process=True)
    assert done == pem(*words, folder=folder)
    assert done.code == code


def test_help_fits_a_screen_and_says_whole_sentences(folder: Path) -> None:
    shown = pem("--help", folder=folder).out.splitlines()
    commands = [line for line in shown[shown.index("Commands:") + 1 : -1] if line]
    hidden = {*PLUMBING, "completion", "git-setup", "lsp", "clean", "sign"}
    assert len(shown) <= 24
    assert {line.split()[0] for line in commands} == set(command_names()) - hidden
    assert all(line.endswith(".") and not line.endswith("...") for line in commands), commands


def test_plumbing_has_help_though_none_lists_it(folder: Path) -> None:
    for name in PLUMBING:
        assert name not in pem("--help", folder=folder).out
        assert "Git runs it" in pem(name, "--help", folder=folder).out


def test_a_check_that_finds_nothing_is_silent_in_a_pipe(folder: Path) -> None:
    done = pem("check", "recipe.pem", folder=folder)
    assert (done.out, done.err) == ("", "")


def test_a_build_says_what_it_made_and_nothing_else(folder: Path) -> None:
    done = pem("build", "recipe.pem", "--set", "w=1", folder=folder)
    assert done.out.startswith("out/x  LoRA, rank 8, 4 sites, ")
    assert done.out.count("\n") == 1
    assert done.err == ""


def test_a_home_that_the_shell_leaves_is_written_out(folder: Path) -> None:
    home = {"HOME": str(folder)}
    for words in (
        ["build", "recipe.pem", "--out=~/there"],
        ["build", "-e", "2 * x", "x=~/a", "--to=~/there/y"],
        ["init", "~/a", "-o~/there/new.pem"],
        ["inspect", "~/there/out/x"],
    ):
        assert pem(*words, folder=folder, **home).code == 0, words
    assert {path.name for path in (folder / "there").iterdir()} == {"out", "y", "new.pem"}
    assert not (folder / "~").exists()
    assert pem("inspect", "~nobody-of-that-name", folder=folder).code == 1


def test_a_home_in_a_recipe_is_explained(folder: Path) -> None:
    recipe(folder, 'adapter a = "~/a"\nsave a to "out/x"\n', "home.pem")
    done = pem("check", "home.pem", folder=folder, HOME=str(folder))
    assert (done.code, f'help: write the path out: "{folder}/a"' in done.err) == (1, True)
    lora(folder / "~/a")
    assert pem("check", "home.pem", folder=folder) == Done(0, "", "")


@pytest.mark.parametrize(
    ("taken", "done", "total", "told"),
    [
        (0.5, 1, 10, ""),
        (10, 0, 10, ""),
        (10, 10, 10, ""),
        (10, 1, 10, ", 90 s left"),
        (60, 1, 10, ", 9 min left"),
        (3600, 1, 3, ", 2 h 0 min left"),
    ],
)
def test_a_bar_says_how_long_the_rest_takes(taken: float, done: int, total: int, told: str) -> None:
    assert common.time_left(taken, done, total) == told


def test_a_bar_shows_the_time_left_beside_what_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = iter([0.0, 0.0, 10.0, 30.0])
    monkeypatch.setattr(common, "time", SimpleNamespace(monotonic=lambda: next(moments)))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = common.Bar()
    for done in (0, 1, 3):
        bar("out/x", done, 4)
    _, first, second = capsys.readouterr().err.split("\r")
    assert first.endswith(" 25%  out/x, 30 s left")
    assert second.endswith(" 75%  out/x, 10 s left")


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("lock recipe.pem", "pem.lock"),
        ("report recipe.pem", "report.html"),
        ("report -o there.html a b", "there.html"),
        ("graph recipe.pem -o graph.svg --format svg", "graph.svg"),
        ("init a b", "merge.pem"),
    ],
)
def test_what_is_written_is_said(folder: Path, command: str, file: str) -> None:
    done = pem(*command.split(), folder=folder)
    assert (done.code, done.out.splitlines()[0]) == (0, file)
    assert (folder / file).is_file()


@pytest.mark.parametrize("form", ["text", "json", "markdown", "html"])
def test_the_exit_code_of_a_diff_says_whether_anything_changed(folder: Path, form: str) -> None:
    other = recipe(folder, TEXT.replace("w * a + b", "w * a - b"), "other.pem")
    for old, new in ((folder / "a", folder / "b"), (folder / "recipe.pem", other)):
        for exit_code, place, code in (
            ([], new, 0),
            (["--exit-code"], new, 1),
            (["--exit-code"], old, 0),
        ):
            done = pem("diff", *exit_code, "--format", form, old, place, folder=folder)
            assert (done.code, done.err) == (code, "")
            assert done.out


def test_the_exit_code_of_a_diff_tells_a_change_from_a_mistake(folder: Path) -> None:
    recipe(folder, "save nothing to", "wrong.pem")
    for old, new in (("recipe.pem", "wrong.pem"), ("recipe.pem", "none.pem"), ("a", "recipe.pem")):
        done = pem("diff", "--exit-code", old, new, folder=folder)
        assert (done.code, done.err != "") == (2, True)
    assert pem("diff", "recipe.pem", "wrong.pem", folder=folder).code == 1


def test_out_writes_elsewhere(folder: Path) -> None:
    assert pem("build", "recipe.pem", "--out", "there", folder=folder).code == 0
    assert (folder / "there/out/x/adapter_config.json").is_file()
    assert not (folder / "out").exists()


def test_messages_as_json(folder: Path) -> None:
    done = pem("check", "wrong.pem", "--format", "json", folder=folder)
    [message] = json.loads(done.out)["messages"]
    assert (done.code, done.err) == (1, "")
    assert (message["code"], message["severity"], message["file"]) == (
        "PEM0206",
        "error",
        "wrong.pem",
    )
    assert message["start"] == {"line": 2, "column": 9, "offset": 24}
    assert message["end"] == {"line": 2, "column": 10, "offset": 25}
    right = json.loads(pem("check", "recipe.pem", "--format", "json", folder=folder).out)
    assert right == {"recipes": ["recipe.pem"], "messages": []}


def test_colour_is_for_terminals(folder: Path) -> None:
    assert "\x1b[31;1merror" in on_a_terminal("check", "wrong.pem", folder=folder).out
    assert "\x1b[" not in on_a_terminal("check", "wrong.pem", folder=folder, NO_COLOR="1").out
    assert "\x1b[" not in pem("check", "wrong.pem", folder=folder).err
    assert "recipe.pem is right." in on_a_terminal("check", "recipe.pem", folder=folder).out


def test_a_long_build_shows_its_progress_on_a_terminal(folder: Path) -> None:
    sites = {f"layers.{i}.q_proj": (512, 512) for i in range(30)}
    lora(folder / "a", 1, sites, rank=256)
    lora(folder / "b", 2, sites, rank=256)
    recipe(folder, TEXT.replace('"out/x"', '"out/x" with rank=32'))
    shown = on_a_terminal("build", "recipe.pem", folder=folder).out
    assert "%  out/x" in shown
    assert "█" in shown
    assert "█" not in pem("build", "recipe.pem", folder=folder).err


def test_a_reader_that_leaves_is_no_mistake(folder: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m pemlang explain | head -n 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("PEM0")
    assert done.stderr == ""


def test_a_misspelt_command_is_told_the_nearest(folder: Path) -> None:
    assert "Did you mean `pem build`?" in pem("buidl", folder=folder).err


def test_inspect_shows_what_is_in_an_adapter(folder: Path) -> None:
    sites = {f"layers.{i}.{name}": (12, 16) for i in range(3) for name in ("q_proj", "v_proj")}
    lora(folder / "c", 1, sites, rank=4, alpha=8)
    shown = pem("inspect", "c", folder=folder).out
    for line in (
        "method      LoRA",
        "sites       6",
        "rank        4",
        "scale       2",
        "dtype       f32",
    ):
        assert line in shown
    assert "layers.*.q_proj  3  0–2     linear 12×16  4     2" in shown
    assert shown.count("█") > 20


def test_inspect_of_ia3(folder: Path) -> None:
    ia3(folder / "i", 1)
    shown = pem("inspect", "i", folder=folder).out
    assert "(IA)³" in shown
    assert "layer.*.down" in shown


def test_inspect_measures_what_was_built(folder: Path) -> None:
    [built] = build(folder, TEXT).outputs
    shown = pem("inspect", str(built.path), folder=folder).out
    assert "rank        8" in shown


def test_a_check_of_200_adapters_reads_no_tensor_and_imports_no_torch(tmp_path: Path) -> None:
    """224 sites each, as a 7B model has; the tensors' bytes are holes in the files."""
    sites = {f"layers.{i // 7}.proj{i % 7}": (64, 64) for i in range(224)}
    first = lora(tmp_path / "a0", 0, sites, rank=16)
    for i in range(1, 200):
        (tmp_path / f"a{i}").mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            os.link(first / name, tmp_path / f"a{i}" / name)
    text = "".join(f'adapter a{i}: lora(rank=16) = "a{i}"\n' for i in range(200))
    text += "save (" + " + ".join(f"0.{i + 1:03} * a{i}" for i in range(200)) + ') to "x"\n'
    text += "save (" + " ⊕ ".join(f"0.{i + 1:03} ⊗ a{i}" for i in range(200)) + ') to "y"\n'
    recipe(tmp_path, text)
    done = with_imports("check", "recipe.pem", folder=tmp_path, of=("torch", "numpy", "peft"))
    assert (done.code, done.out, done.err) == (0, "", "[]\n")


def test_a_recipe_is_checked_from_headers_before_any_tensor_is_read(folder: Path) -> None:
    """A wrong recipe is refused even when the tensors it names would be refused too."""
    weights = folder / "a" / "adapter_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    weights.write_bytes(raw)
    assert "PEM0206" in pem("build", "wrong.pem", folder=folder).err
    assert "PEM0502" in pem("build", "recipe.pem", folder=folder).err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_end_waits_until_modules_are_imported(number: signal.Signals) -> None:
    done = []
    usual = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), importing():
            signal.raise_signal(number)
            done.append(number)
    finally:
        signal.signal(number, usual)
    assert done == [number]


def test_a_copy_of_the_base_s_weights_is_no_head(tmp_path: Path) -> None:
    """PEFT saves one beside an embedding that it adapts and that was given more rows."""
    copy = "base_model.model.embed.base_layer.weight"
    lora(tmp_path / "a", extra={copy: torch.ones(20, 16)})
    told = pem("inspect", tmp_path / "a").out
    assert re.search(r"^heads +none$", told, re.MULTILINE), told
    assert re.search(rf"^base's own +{re.escape(copy)}$", told, re.MULTILINE), told


def test_a_side_that_is_not_there_is_named(tmp_path: Path) -> None:
    lora(tmp_path / "a")
    assert "nope is not there" in pem("diff", "a", "nope", folder=tmp_path).err
