"""One recipe at many values of a param, and the options of a build that change no byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support import lora, recipe

import pemlang
from pemlang.cli.main import cli
from pemlang.pipeline.build import How
from pemlang.pipeline.sweep import Sweep
from pemlang.tensorfiles.reader import Files

TEXT = """adapter a = "a"
adapter b = "b"
param w: number in 0..1 = 0.5
save w ⊗ a ⊕ (1 - w) ⊗ b to "out/x{w}"
save w * a + b to "out/y{w}" with rank=4
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pem(folder: Path, *args: str) -> tuple[int, str]:
    made = CliRunner().invoke(cli, ["build", str(folder / "recipe.pem"), *args], obj=None)
    return (made.exit_code if made.exit_code else int(made.return_value or 0)), made.output


def test_a_sweep_gives_what_builds_one_by_one_give(folder: Path) -> None:
    path = recipe(folder, TEXT)
    values = ("0", "0.25", "1")
    made = pemlang.load(path).build(folder / "swept", sweep=Sweep("w", values))
    for value in values:
        pemlang.load(path, {"w": value}).build(folder / "single")
    assert [built.path.name for built in made.outputs] == [
        name for value in values for name in (f"x{value}", f"y{value}")
    ]
    assert files(folder / "swept") == files(folder / "single")


def test_a_sweep_reads_its_inputs_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[Path, int, int]] = []
    real = Files.read

    def counted(self: Files, file: Path, start: int, out: object) -> None:
        read.append((file, start, getattr(out, "nbytes", 0)))
        real(self, file, start, out)  # type: ignore[arg-type]

    text = TEXT.split("save w *", maxsplit=1)[0]
    path = recipe(folder, text)
    monkeypatch.setattr("pemlang.pipeline.jobs.verify", lambda *_: [])
    monkeypatch.setattr(Files, "read", counted)
    pemlang.load(path).build(sweep=Sweep("w", tuple(str(i / 10) for i in range(11))))
    sizes = {"a": 0, "b": 0}
    for file, _, size in read:
        sizes[file.parent.name] += size
    elements = 4 * (12 * 4 + 4 * 16)
    assert sizes == {"a": 4 * elements, "b": 4 * elements}


def test_what_is_wrong_at_one_value_names_it(folder: Path) -> None:
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, TEXT)).build(sweep=Sweep("w", ("0.5", "2")))
    [said] = wrong.value.diagnostics
    assert (said.code, said.notes[-1]) == ("PEM0214", "at w = 2")
    assert not (folder / "out").exists()


def test_what_is_warned_of_names_the_value(folder: Path) -> None:
    made = pemlang.load(recipe(folder, TEXT)).build(sweep=Sweep("w", ("0.5", "1")))
    cut = [said for said in made.warnings if said.code == "PEM0702"]
    assert [said.notes[-1] for said in cut] == ["at w = 0.5", "at w = 1"]


def test_values_that_share_a_place_are_refused(folder: Path) -> None:
    text = TEXT.split("save", maxsplit=1)[0] + 'save w * a to "out/x"\n'
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, text)).build(sweep=Sweep("w", ("0.5", "1")))
    assert [said.code for said in wrong.value.diagnostics] == ["PEM0347"]
    assert not (folder / "out").exists()


def test_a_place_inside_another_value_s_is_refused(folder: Path) -> None:
    text = 'adapter a = "a"\nparam p: string = "s"\nsave a to "out/{p}"\n'
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, text)).build(sweep=Sweep("p", ("s/t", "s")))
    assert [said.code for said in wrong.value.diagnostics] == ["PEM0347"]


def test_an_unknown_param_is_named(folder: Path) -> None:
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, TEXT)).build(sweep=Sweep("v", ("1",)))
    assert wrong.value.diagnostics[0].code == "PEM0211"


def test_the_command_line_sweeps(folder: Path) -> None:
    recipe(folder, TEXT.split("save w *", maxsplit=1)[0])
    code, said = pem(folder, "--sweep", "w=0:1:0.1", "--threads", "2", "--memory", "64MB")
    assert code == 0, said
    made = sorted(path.name for path in (folder / "out").iterdir())
    assert made == sorted(["x0", "x1", *(f"x0.{i}" for i in range(1, 10))])


@pytest.mark.parametrize(
    "args",
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
def test_words_that_mean_nothing_are_refused(folder: Path, args: list[str]) -> None:
    recipe(folder, TEXT)
    code, said = pem(folder, *args)
    assert code == 2
    assert "Traceback" not in said
    assert not (folder / "out").exists()


def test_too_little_memory_is_told_before_anything_is_written(folder: Path) -> None:
    path = recipe(folder, TEXT)
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(path).build(how=How(memory=1000))
    assert [said.code for said in wrong.value.diagnostics] == ["PEM0521"]
    assert not (folder / "out").exists()


def test_the_amount_that_the_message_names_is_enough(folder: Path) -> None:
    path = recipe(folder, TEXT)
    with pytest.raises(pemlang.PemError) as told:
        pemlang.load(path).build(how=How(memory=1000))
    amount = str(told.value.diagnostics[0].help).removeprefix("--memory ")
    code, said = pem(folder, "--memory", amount)
    assert code == 0, said


def test_kernels_are_shown_and_nothing_is_written(folder: Path) -> None:
    recipe(folder, TEXT)
    code, said = pem(folder, "--dump-kernels", "--threads", "3")
    assert code == 0
    assert "8 tensors in 1 span" in said
    assert "fma f32" in said and "core_svd f64" in said
    assert "on 3 threads" in said
    assert not (folder / "out").exists()


def test_kernels_for_a_gpu_are_shown_without_one(folder: Path) -> None:
    recipe(folder, TEXT)
    code, said = pem(folder, "--dump-kernels", "--device", "cuda")
    assert code == 0
    assert "@triton.jit" in said and "def kernel(" in said


def test_a_gpu_that_is_not_there_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(recipe(folder, TEXT)).build(how=How(device="cuda"))
    assert [said.code for said in wrong.value.diagnostics] == ["PEM0522"]
    assert not (folder / "out").exists()
