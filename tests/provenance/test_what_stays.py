"""An output that is up to date: its tensors stay, and what stands beside them is brought up to
date, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import build, command, pem, recipe
from support.outputs import (
    CARD,
    CONFIG,
    DECLARED,
    REFACTORED,
    TEXT,
    WEIGHTS,
    asked,
    contents,
    flip,
    provenance,
    verified,
)

import pemlang

FORCED = pemlang.BuildOptions(force=True)


def traces(output: Path) -> dict[str, tuple[int, int]]:
    """What tells the files of an output from those of one that was made again."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in output.iterdir()}


def test_what_is_up_to_date_is_not_touched(folder: Path, output: Path) -> None:
    before = traces(output)
    [built] = build(folder, TEXT).outputs
    assert (built.was_there, traces(output)) == (True, before)
    [forced] = pemlang.load(folder / "recipe.pem").build(options=FORCED).outputs
    assert not forced.was_there
    assert traces(output).keys() == before.keys()
    assert traces(output)[WEIGHTS][0] != before[WEIGHTS][0]


def test_a_refactoring_keeps_the_tensors_and_brings_the_rest(folder: Path, output: Path) -> None:
    before = traces(output)
    text = (
        'adapter second = "b"\nadapter first = "a"\nlet y = first / 2\nsave second + y to "out/x"\n'
    )
    [built] = build(folder, text).outputs
    after = traces(output)
    assert built.was_there
    for name in (WEIGHTS, CONFIG):
        assert after[name] == before[name]
    assert asked(provenance(output))["recipe"]["text"] == text
    assert "`second + y`" in (output / CARD).read_text()
    assert verified(output).holds
    assert [path.name for path in output.parent.iterdir()] == ["x"]


@pytest.mark.parametrize("name", [".DS_Store", "._README.md", "Thumbs.db", "desktop.ini"])
def test_a_file_that_the_system_left_stops_no_build(folder: Path, output: Path, name: str) -> None:
    (output / name).write_bytes(b"\0\0\0\1Bud1")
    assert verified(output).holds
    assert build(folder, TEXT).outputs[0].was_there
    build(folder, TEXT.replace("a + b", "a - b"))
    assert name not in contents(output)


@pytest.mark.parametrize("force", [False, True])
def test_any_other_file_is_named_and_what_force_would_do(
    folder: Path, output: Path, force: bool
) -> None:
    (output / "notes.txt").write_text("mine")
    changed = recipe(folder, TEXT.replace("a + b", "a - b"))
    with pytest.raises(pemlang.PemError) as wrong:
        pemlang.load(changed).build(options=pemlang.BuildOptions(force=force))
    [told] = wrong.value.diagnostics
    assert "it holds notes.txt" in told.message
    assert told.notes == ("a build, with --force too, would remove it with the earlier output",)
    assert (output / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, CARD])
def test_what_was_changed_is_not_lost(folder: Path, output: Path, name: str) -> None:
    """Training may have gone on in it, and a card may have been written to."""
    whole = contents(output)
    flip(output / name, -3)
    before = contents(output)
    for text in (TEXT, REFACTORED, TEXT.replace("a + b", "a - b")):
        with pytest.raises(pemlang.PemError, match=f"PEM0510.*its {name} is not what was built"):
            build(folder, text)
    assert contents(output) == before
    recipe(folder, TEXT)
    pemlang.load(folder / "recipe.pem").build(options=FORCED)
    assert contents(output) == whole


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_what_is_not_whole_is_made_again(folder: Path, output: Path, name: str) -> None:
    before = (output / name).read_bytes()
    (output / name).unlink()
    [built] = build(folder, TEXT).outputs
    assert not built.was_there
    assert (output / name).read_bytes() == before
    assert verified(output).holds


def test_warnings_and_losses_are_told_again(folder: Path) -> None:
    text = DECLARED + 'save a + b to "out/x" with rank=1\n'
    first, second = build(folder, text), build(folder, text)
    assert [x.was_there for x in (*first.outputs, *second.outputs)] == [False, True]
    assert [warning.code for warning in first.warnings] == ["PEM0702"]
    before, after = ([w.as_json() for w in result.warnings] for result in (first, second))
    assert before == after
    assert first.outputs[0].loss == second.outputs[0].loss is not None


def test_a_failed_assertion_fails_though_all_is_up_to_date(folder: Path, output: Path) -> None:
    with pytest.raises(pemlang.PemError, match="PEM0501"):
        build(folder, TEXT + "assert norm(a) < 0.5\n")


def test_a_sweep_makes_only_what_is_new(folder: Path) -> None:
    text = DECLARED + 'param w: number = 0.5\nsave w * a + b to "out/{w}"\n'
    path = recipe(folder, text)
    pemlang.load(path).build(sweep=pemlang.Sweep("w", ("0.1", "0.2")))
    before = traces(folder / "out/0.2")
    result = pemlang.load(path).build(sweep=pemlang.Sweep("w", ("0.2", "0.3")))
    assert [built.was_there for built in result.outputs] == [True, False]
    assert traces(folder / "out/0.2") == before
    for name in ("0.1", "0.2", "0.3"):
        assert verified(folder / "out" / name, "--rebuild", "--threads", "1").holds


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["file", "share", "place"])
def test_a_refresh_that_fails_leaves_the_output_whole(
    folder: Path, output: Path, error: BaseException, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(output)

    def fails(path: Path, *_: object) -> None:
        if where == "share" or (path == output.parent) == (where == "place"):
            raise error

    name = "write.share" if where == "share" else "staging.flush"
    monkeypatch.setattr(f"pemlang.artifact.{name}", fails)
    with pytest.raises((pemlang.PemError, KeyboardInterrupt)):
        build(folder, REFACTORED)
    monkeypatch.undo()
    assert [path.name for path in output.parent.iterdir()] == ["x"]
    assert all(verdict.state == "same" for verdict in verified(output).outputs)
    if where != "place":
        assert contents(output) == before


def test_a_disk_without_links_gets_copies(
    folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    before = (output / WEIGHTS).read_bytes()
    build(folder, REFACTORED)
    assert (output / WEIGHTS).read_bytes() == before
    assert verified(output).holds


def test_another_build_that_comes_between_is_noticed(
    folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was up to date is something else by the time it is linked."""
    link = os.link

    def late(old: Path, new: Path) -> None:
        if old.name == WEIGHTS:
            flip(old, -1)
        link(old, new)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(pemlang.PemError, match="PEM0412"):
        build(folder, REFACTORED)


def test_refreshes_at_the_same_time_leave_one_whole_output(folder: Path, output: Path) -> None:
    texts = [REFACTORED + f"# {n}\n" for n in range(4)]
    runs = [
        subprocess.Popen(
            command("build", str(recipe(folder, text, f"r{n}.pem"))),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip
    written = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, written
    assert verified(output).holds
    assert [path.name for path in output.parent.iterdir()] == ["x"]


def test_an_output_that_stays_under_another_name_rebuilds(folder: Path) -> None:
    """What it is called is no part of what it means, nor of what is remembered of it."""
    text = DECLARED + 'let one = a + b\nsave one to "out/x" with rank=2\n'
    build(folder, text)
    result = build(folder, text.replace("one", "other"))
    [built], [warning] = result.outputs, result.warnings
    assert built.was_there
    assert "`other`" in warning.message
    done = pem("verify", built.path, "--rebuild")
    assert (done.code, "✗" in done.out) == (0, False)


def test_an_output_of_a_checkout_without_its_large_files_is_replaced(
    folder: Path, output: Path
) -> None:
    whole = contents(output)
    sha256 = hashlib.sha256((output / WEIGHTS).read_bytes()).hexdigest()
    (output / WEIGHTS).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 1\n"
    )
    build(folder, TEXT)
    assert contents(output) == whole
    (output / WEIGHTS).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n"
    )
    with pytest.raises(pemlang.PemError, match="PEM0510"):
        build(folder, TEXT)


def test_builds_in_threads_do_not_get_in_each_others_way(folder: Path, output: Path) -> None:
    """One finds its output up to date while another makes its own."""
    other = recipe(folder, TEXT.replace("out/x", "out/y"), "other.pem")
    paths = [folder / "recipe.pem", other] * 3
    with ThreadPoolExecutor(len(paths)) as pool:
        results = list(pool.map(lambda path: pemlang.load(path).build(), paths))
    assert all(len(result.outputs) == 1 for result in results)
    assert sorted(path.name for path in output.parent.iterdir()) == ["x", "y"]


def test_a_stage_that_is_no_business_of_ours_is_left_alone(folder: Path, output: Path) -> None:
    """Of another output, of another machine, not to be read, or with what is not ours in it."""
    name = next(iter(made_stages(output)))
    others = [
        name.replace(".x.", ".z."), name[:-24] + "00000000" + name[-16:], f"{name[:-1]}0",
    ]  # fmt: skip
    for other in others:
        (output.parent / other).mkdir(exist_ok=True)
    (output.parent / others[2] / "mine.txt").write_text("mine")
    (output.parent / others[0]).chmod(0)
    build(folder, TEXT)
    assert set(others) <= {path.name for path in output.parent.iterdir()}


def made_stages(output: Path) -> set[str]:
    """The name that a build of an output works under."""
    seen: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        mkdir = Path.mkdir

        def noted(path: Path, *args: Any, **options: Any) -> None:
            seen.add(path.name)
            mkdir(path, *args, **options)

        patch.setattr(Path, "mkdir", noted)
        pemlang.load(output.parents[1] / "recipe.pem").build(options=FORCED)
    return {name for name in seen if name.startswith(".x.")}
