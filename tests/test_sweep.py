"""One recipe at many values of a param, and the options of a build that change no byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Done, lora, pem, recipe
from support.outputs import contents
from support.reads import counted_reads

import pemlang

TEXT = """adapter a = "a"
adapter b = "b"
param w: number in 0..1 = 0.5
save w ⊗ a ⊕ (1 - w) ⊗ b to "out/x{w}"
save w * a + b to "out/y{w}" with rank=4
"""
FACTORS = TEXT.split("save w *", maxsplit=1)[0]
SCARCE = pemlang.BuildOptions(memory=1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    return tmp_path


def swept(folder: Path, name: str, *values: str, text: str = TEXT) -> pemlang.PemError:
    """What is wrong with a sweep."""
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, text)).build(sweep=pemlang.Sweep(name, values))
    return wrong.value


def build(folder: Path, *words: str, text: str = TEXT) -> Done:
    return pem("build", recipe(folder, text), *words)


def test_a_sweep_gives_what_builds_one_by_one_give(folder: Path) -> None:
    path = recipe(folder, TEXT)
    values = ("0", "0.25", "1")
    result = pemlang.load(path).build(folder / "swept", sweep=pemlang.Sweep("w", values))
    for value in values:
        pemlang.load(path, {"w": value}).build(folder / "single")
    assert [built.path.name for built in result.outputs] == [
        name for value in values for name in (f"x{value}", f"y{value}")
    ]
    assert contents(folder / "swept") == contents(folder / "single")


def test_a_sweep_reads_its_inputs_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pemlang.pipeline.jobs.verify", lambda *_: [])
    done = counted_reads(monkeypatch)
    values = tuple(str(i / 10) for i in range(11))
    pemlang.load(recipe(folder, FACTORS)).build(sweep=pemlang.Sweep("w", values))
    elements = 4 * (12 * 4 + 4 * 16)
    for name in "ab":
        assert sum(size for read, _, size in done if read == name) == 4 * elements


def test_what_is_wrong_at_one_value_names_it(folder: Path) -> None:
    [diagnostic] = swept(folder, "w", "0.5", "2").diagnostics
    assert (diagnostic.code, diagnostic.notes[-1]) == ("PEM0214", "at w = 2")
    assert not (folder / "out").exists()


def test_what_is_warned_of_names_the_value(folder: Path) -> None:
    sweep = pemlang.Sweep("w", ("0.5", "1", "0.75"))
    result = pemlang.load(recipe(folder, TEXT)).build(sweep=sweep)
    [cut] = [warning for warning in result.warnings if warning.code == "PEM0702"]
    assert cut.notes[-2:] == ("at w = 0.5", "and at 2 other values")


def test_a_truncation_is_told_once_and_in_a_line_for_each_value(folder: Path) -> None:
    done = pem("build", recipe(folder, TEXT), "--sweep", "w=0:1:0.1")
    assert done.err.count("PEM0702") == 1
    lines = done.out.splitlines()
    assert len(lines) == 22
    assert sum("truncation took" in line for line in lines) == 10  # nothing is cut at w = 0


def test_values_that_share_a_place_are_refused(folder: Path) -> None:
    text = TEXT.split("save", maxsplit=1)[0] + 'save w * a to "out/x"\n'
    wrong = swept(folder, "w", "0.5", "1", text=text)
    assert [diagnostic.code for diagnostic in wrong.diagnostics] == ["PEM0347"]
    assert not (folder / "out").exists()


def test_a_place_inside_another_value_s_is_refused(folder: Path) -> None:
    text = 'adapter a = "a"\nparam p: string = "s"\nsave a to "out/{p}"\n'
    wrong = swept(folder, "p", "s/t", "s", text=text)
    assert [diagnostic.code for diagnostic in wrong.diagnostics] == ["PEM0347"]


def test_an_unknown_param_is_named(folder: Path) -> None:
    assert swept(folder, "v", "1").diagnostics[0].code == "PEM0211"


# --- the command line ----------------------------------------------------------------------


def test_the_command_line_sweeps(folder: Path) -> None:
    words = ("--sweep", "w=0:1:0.1", "--threads", "2", "--memory", "64MB")
    done = build(folder, *words, text=FACTORS)
    assert done.code == 0, done
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == sorted(["x0", "x1", *(f"x0.{i}" for i in range(1, 10))])


@pytest.mark.parametrize(
    "words",
    [
        ["--sweep", "w"],
        ["--sweep", "w=0:1"],
        ["--sweep", "w=0:1:0"],
        ["--sweep", "w=1:0:0.1"],
        ["--sweep", "w=0:1:0.0000001"],
        ["--sweep", "w=0.5,0.5"],
        ["--sweep", "w=0.5,"],
        ["--sweep", "=0:1:0.1"],
        ["--sweep", "w=0:1:0.5", "--set", "w=1"],
        ["--memory", "much"],
        ["--memory", "12XB"],
        ["--memory", "-1MB"],
        ["--threads", "0"],
    ],
)
def test_words_that_mean_nothing_are_refused(folder: Path, words: list[str]) -> None:
    done = build(folder, *words)
    assert done.code == 2
    assert "Traceback" not in done.text
    assert not (folder / "out").exists()


def test_too_little_memory_is_told_before_anything_is_written(folder: Path) -> None:
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, TEXT)).build(options=SCARCE)
    assert [diagnostic.code for diagnostic in wrong.value.diagnostics] == ["PEM0521"]
    assert not (folder / "out").exists()


def test_the_amount_that_the_message_names_is_enough(folder: Path) -> None:
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, TEXT)).build(options=SCARCE)
    _, option, amount = str(wrong.value.diagnostics[0].help).rpartition("--memory ")
    done = build(folder, option.strip(), amount)
    assert done.code == 0, done


def test_kernels_are_shown_and_nothing_is_written(folder: Path) -> None:
    done = build(folder, "--dump-kernels", "--threads", "3")
    assert done.code == 0
    assert "8 tensors in 1 span" in done.out
    assert "fma f32" in done.out and "core_svd f64" in done.out
    assert "on 3 threads" in done.out
    assert not (folder / "out").exists()


def test_kernels_for_a_gpu_are_shown_without_one(folder: Path) -> None:
    done = build(folder, "--dump-kernels", "--device", "cuda")
    assert done.code == 0
    assert "@triton.jit" in done.out and "def kernel(" in done.out


def test_a_gpu_that_is_not_there_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    options = pemlang.BuildOptions(device="cuda")
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, TEXT)).build(options=options)
    assert [diagnostic.code for diagnostic in wrong.value.diagnostics] == ["PEM0522"]
    assert not (folder / "out").exists()


def test_a_gpu_that_is_not_there_is_no_matter_where_nothing_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    loaded = pemlang.load(recipe(folder, TEXT + "assert norm(a) > 0\n"))
    loaded.build()
    built = loaded.build(options=pemlang.BuildOptions(device="cuda"))
    assert all(output.was_there for output in built.outputs)


def test_a_sweep_needs_a_value() -> None:
    with pytest.raises(ValueError, match="needs a value"):
        pemlang.Sweep("weight", ())
