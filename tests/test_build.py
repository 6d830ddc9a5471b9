"""What a build leaves on disk: whole directories, the same bytes each time, or nothing."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from safetensors import safe_open
from support import build, command, config_of, delta, error, lora, recipe, tensors_of
from support.outputs import CARD, CONFIG, DECLARED, PROVENANCE, WEIGHTS, contents

import pemlang

SUM = DECLARED + 'save a + b to "out/x"\n'
FILES = {CONFIG, WEIGHTS, CARD, PROVENANCE}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lora(tmp_path / "a", 1)
    lora(tmp_path / "b", 2)
    return tmp_path


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if not path.name.startswith(".pem")]


def start(folder: Path, text: str) -> subprocess.Popen[str]:
    """A build on its way, in a process of its own."""
    return subprocess.Popen(
        command("build", str(recipe(folder, text))),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_output_is_four_files(folder: Path) -> None:
    [built] = build(folder, SUM).outputs
    assert built.path == folder / "out/x"
    assert set(contents(built.path)) == FILES
    assert (built.method, built.sites, built.rank, built.loss) == ("lora", 4, 8, None)
    assert built.size == (built.path / WEIGHTS).stat().st_size
    assert leftovers(folder) == []


def test_files_have_the_usual_permissions(folder: Path) -> None:
    [built] = build(folder, SUM).outputs
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(built.path.stat().st_mode) == 0o777 & ~mask
    for path in built.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_build_gives_the_same_bytes_each_time_and_everywhere(folder: Path) -> None:
    text = SUM + 'save a + b to "out/y" with rank=3\n'
    build(folder, text)
    first = contents(folder / "out/x"), contents(folder / "out/y")
    options = pemlang.BuildOptions(force=True)
    again = pemlang.load(folder / "recipe.pem").build(options=options)
    assert not any(built.was_there for built in again.outputs)
    assert (contents(folder / "out/x"), contents(folder / "out/y")) == first
    pemlang.load(recipe(folder, text)).build(out=folder / "elsewhere")
    assert contents(folder / "elsewhere/out/x") == first[0]


def test_the_card_says_where_it_came_from_and_how_to_load_it(folder: Path) -> None:
    [built] = build(folder, SUM).outputs
    card = (built.path / CARD).read_text()
    for wanted in (
        "library_name: peft", "PeftModel.from_pretrained", "`a + b`", SUM.strip(),
        built.semantic_hash, "some/base",
    ):  # fmt: skip
        assert wanted in card
    for name in "ab":
        assert blake3((folder / name / WEIGHTS).read_bytes()).hexdigest() in card


def test_the_card_names_imports_and_the_source_of_heads(folder: Path) -> None:
    recipe(folder / "lib", "let half = 0.5\n", "w.pem")
    head = {"base_model.model.classifier.weight": [[1.0, 2.0]]}
    lora(folder / "lib/h", 3, extra=head, modules_to_save=["classifier"])
    text = 'import "lib/w.pem" (half)\nimport std.paper (merge)\nadapter h = "lib/h"\n'
    text = text + DECLARED + 'save half * a to "out/x" with heads=h\n'
    [built] = build(folder, text).outputs
    card = (built.path / CARD).read_text()
    digest = blake3(b"let half = 0.5\n").hexdigest()
    assert f"- `lib/w.pem`: blake3 `{digest}`" in card
    assert "- `std.paper`: blake3" in card
    assert "- `h` = `lib/h`" in card


def test_heads_of_another_base_are_refused(folder: Path) -> None:
    head = {"base_model.model.classifier.weight": [[1.0, 2.0]]}
    lora(folder / "h", 3, extra=head, modules_to_save=["classifier"], base_model_name_or_path="z")
    text = DECLARED + 'adapter h = "h"\nsave a to "out/x" with heads=h\n'
    assert error(folder, text).code == "PEM0305"


def test_a_card_is_not_written_by_names(folder: Path) -> None:
    """Names and paths of a recipe are text on its card, never markup."""
    hostile = "a](javascript:x)<img src=x onerror=y>```"
    (folder / "a").rename(folder / hostile)
    [built] = build(folder, f'adapter a = "{hostile}"\nsave a to "out/<b>x"\n').outputs
    card = (built.path / CARD).read_text()
    before, _, recipe_text = card.partition("## The recipe")
    assert "# \\<b\\>x" in before
    assert f"```` {hostile} ````" in before
    assert recipe_text.count("````text") == 1


def test_the_tensors_file_is_one_that_safetensors_reads(folder: Path) -> None:
    [built] = build(folder, SUM).outputs
    with safe_open(built.path / WEIGHTS, "pt") as file:
        metadata = file.metadata()
        assert metadata["format"] == "pt"
        assert metadata["pemlang_semantic_hash"] == built.semantic_hash
        assert metadata["pemlang_version"] == pemlang.__version__
        assert len(metadata["pemlang_inputs"].split()) == 2
        assert sorted(file.keys()) == sorted(tensors_of(built.path))


def test_nothing_is_written_when_one_output_cannot_be(folder: Path) -> None:
    lora(folder / "c", 3)
    tensors = folder / "c" / WEIGHTS
    raw = bytearray(tensors.read_bytes())
    raw[-4:] = b"\x00\x00\xc0\x7f"  # NaN
    tensors.write_bytes(raw)
    text = 'adapter c = "c"\n' + SUM + 'save a + c to "deep/er/y"\n'
    assert error(folder, text).code == "PEM0502"
    assert not (folder / "out").exists()
    assert not (folder / "deep").exists()


def test_a_failed_assertion_writes_nothing_and_shows_both_values(folder: Path) -> None:
    wrong = error(folder, SUM + 'assert norm(a) < 2 * 0.25 else "too large"\n')
    assert wrong.code == "PEM0501"
    assert "too large" in wrong.message
    size = sum((d**2).sum() for d in delta(folder / "a").values()) ** 0.5
    assert wrong.notes == (f"norm(a) is {size:.6g}", "2 * 0.25 is 0.5")
    assert not (folder / "out").exists()


def test_an_earlier_output_is_replaced_whole(folder: Path) -> None:
    build(folder, SUM)
    build(folder, DECLARED + 'save a to "out/x"\n')
    built, wanted = delta(folder / "out/x"), delta(folder / "a")
    assert all((built[site] == wanted[site]).all() for site in wanted)
    assert leftovers(folder) == []


# --- what is in the way --------------------------------------------------------------------


def foreign_file(folder: Path) -> None:
    build(folder, SUM)
    (folder / "out/x/notes.txt").write_text("mine")


def foreign_directory(folder: Path) -> None:
    lora(folder / "out/x", 5)


def file_in_the_way(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out/x").write_text("mine")


def link_in_the_way(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "mine").mkdir()
    (folder / "out/x").symlink_to(folder / "mine")


@pytest.mark.parametrize(
    "occupy", [foreign_file, foreign_directory, file_in_the_way, link_in_the_way]
)
def test_what_this_tool_did_not_make_is_left_alone(
    folder: Path, occupy: Callable[[Path], None]
) -> None:
    def everything() -> dict[Path, bytes | bool]:
        paths = (path for path in folder.rglob("*") if path != folder / "recipe.pem")
        return {path: path.is_file() and path.read_bytes() for path in paths}

    occupy(folder)
    before = everything()
    assert error(folder, SUM).code == "PEM0510"
    assert everything() == before


@pytest.mark.parametrize("target", ["a", "."])
def test_an_input_is_never_overwritten(folder: Path, target: str) -> None:
    before = contents(folder / "a")
    assert error(folder, DECLARED + f'save a to "{target}"\n').code in ("PEM0511", "PEM0345")
    assert contents(folder / "a") == before


def test_two_outputs_in_one_place_are_refused(folder: Path) -> None:
    for first, second in (("x", "x"), ("x", "x/y"), ("x/y", "x"), ("x", "./x")):
        text = DECLARED + f'save a to "{first}"\nsave b to "{second}"\n'
        assert error(folder, text).code == "PEM0344"


def test_a_link_does_not_lead_out_of_the_folder(folder: Path) -> None:
    outside = folder.parent / f"{folder.name}-outside"
    outside.mkdir()
    (folder / "out").symlink_to(outside)
    assert error(folder, SUM).code == "PEM0345"
    assert list(outside.iterdir()) == []


# --- what comes between --------------------------------------------------------------------


def test_a_full_disk_is_said_and_nothing_stays(folder: Path) -> None:
    """A file that may not grow past 1 kB stands in for a disk with no room."""
    done = subprocess.run(
        command("build", str(recipe(folder, SUM))),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)),
    )
    assert done.returncode == 1
    assert "error[PEM0512]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "out").exists()


BIG = {f"layers.{i}.q_proj": (512, 512) for i in range(40)}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing(tmp_path: Path, sent: signal.Signals) -> None:
    lora(tmp_path / "a", 1, BIG, rank=64)
    lora(tmp_path / "b", 2, BIG, rank=64)
    run = start(tmp_path, SUM + 'save a - b to "out/y" with rank=32\n')
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(f"out/.x.*/{WEIGHTS}")) and time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()
        time.sleep(0.005)
    run.send_signal(sent)
    _, written = run.communicate(timeout=60)
    assert run.returncode == 128 + sent
    assert "Traceback" not in written
    assert not (tmp_path / "out").exists()


def test_builds_at_the_same_time_leave_one_whole_output(folder: Path) -> None:
    runs = [start(folder, SUM) for _ in range(4)]
    results = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, results
    assert set(contents(folder / "out/x")) == FILES
    assert config_of(folder / "out/x")["r"] == 8
    assert leftovers(folder) == []


# --- what is built ----------------------------------------------------


def test_a_number_measured_of_models_weighs_an_adapter(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    for name, value in (("base", 0.0), ("chat", 0.5)):
        (folder / name).mkdir()
        save_file({"q.weight": torch.full((4, 4), value)}, folder / name / "model.safetensors")
    text = DECLARED + 'base m = "base"\nmodel chat on m = "chat"\n'
    build(folder, text + 'save norm(chat - m) * a to "measured"\nsave 2 * a to "said"\n')
    measured, said = delta(folder / "measured"), delta(folder / "said")
    assert all(np.allclose(measured[site], said[site]) for site in said)


def test_a_part_of_a_mix_meets_a_part_of_one_of_its_terms(folder: Path) -> None:
    """The initialisations of the two are held to each other at the sites they have."""
    text = DECLARED + 'save a["*.query"] ⊕ ⊖(a["*.query"] ⊕ b["*.query"]) to "out/x"\n'
    [built] = build(folder, text).outputs
    assert built.sites == 2


def test_an_output_without_a_site_lends_it_no_tensors(folder: Path) -> None:
    """`t` has tensors of one of the sites that only the other output has."""
    sites = {f"layers.{i}.{name}": (6, 8) for i in range(3) for name in "qv"}
    lora(folder / "a", 1, sites)
    lora(folder / "t", 2, {s: n for s, n in sites.items() if s not in ("layers.0.v", "layers.2.v")})
    text = 'adapter a = "a"\nadapter t = "t"\nsave t["*.q"] to "x"\nsave a to "y"\n'
    build(folder, text)
    for key, tensor in tensors_of(folder / "a").items():
        assert (tensors_of(folder / "y")[key] == tensor).all(), key
