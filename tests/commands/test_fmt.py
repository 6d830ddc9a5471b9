"""`pem fmt`: files, folders, standard input, and what cannot be written."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from support import Done, pem
from support.processes import on_a_terminal, with_imports
from support.syntax import MESSY, NEAT

WRONG = "let x = = 1\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a recipe to change, one that is neat, one that is wrong, and what
    is not meant."""
    monkeypatch.chdir(tmp_path)
    for name in ("sub/deep", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("messy.pem", "sub/deep/messy.pem", ".hidden/messy.pem", "sub/.messy.pem"):
        (tmp_path / name).write_text(MESSY)
    (tmp_path / "sub/messy.txt").write_text(MESSY)
    (tmp_path / "neat.pem").write_text(NEAT)
    (tmp_path / "sub/key.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "sub/loop").symlink_to(tmp_path)
    (tmp_path / "sub/self.pem").symlink_to("self.pem")
    os.mkfifo(tmp_path / "sub/pipe.pem")
    return tmp_path


def fmt(*words: str | Path, input: str | None = None) -> Done:
    return pem("fmt", *words, input=input)


def test_files_are_rewritten_and_others_left_alone(folder: Path) -> None:
    (folder / "messy.pem").chmod(0o640)
    os.utime(folder / "neat.pem", ns=(1, 1))
    assert (fmt("messy.pem", "neat.pem").code, fmt("neat.pem").text) == (0, "")
    assert (folder / "messy.pem").read_text() == NEAT
    assert stat.S_IMODE((folder / "messy.pem").stat().st_mode) == 0o640
    assert (folder / "neat.pem").stat().st_mtime_ns == 1


def test_a_directory_stands_for_the_recipes_in_it(folder: Path) -> None:
    left = [".hidden/messy.pem", "sub/.messy.pem", "sub/messy.txt"]
    before = set(folder.rglob("*"))
    assert fmt(".", "messy.pem").code == 0
    assert [(folder / name).read_text() for name in left] == [MESSY] * 3
    assert [(folder / n).read_text() for n in ("messy.pem", "sub/deep/messy.pem")] == [NEAT] * 2
    assert set(folder.rglob("*")) == before


def test_check_names_what_would_change_and_writes_nothing(folder: Path) -> None:
    done = fmt("--check", ".", "messy.pem", folder / "messy.pem")
    assert done.out == "./messy.pem\n./sub/deep/messy.pem\n"
    assert done.code == 1
    assert (folder / "messy.pem").read_text() == MESSY
    assert (fmt("--check", "neat.pem").code, fmt("--check", "neat.pem").out) == (0, "")


def test_a_diff_is_a_patch(folder: Path) -> None:
    text = MESSY.rstrip()  # without a newline at its end
    (folder / "messy.pem").write_text(text)
    done = fmt("--diff", "messy.pem", "neat.pem")
    assert done.code == 1
    assert (folder / "messy.pem").read_text() == text
    subprocess.run(["patch", "-p0"], input=done.out, text=True, check=True, capture_output=True)
    assert (folder / "messy.pem").read_text() == NEAT
    assert (fmt("--diff", ".").code, fmt("--diff", "messy.pem").out) == (1, "")


def test_an_editor_gives_and_gets_text(folder: Path) -> None:
    assert (fmt("-", input=MESSY).out, fmt("-", input="let x=1").code) == (
        NEAT,
        0,
    )
    wrong = fmt("-", input=WRONG)
    assert (wrong.out, wrong.code) == ("", 1)
    assert "standard input:1:9" in wrong.err
    assert fmt("--check", "-", input="let x=1").out == "standard input\n"
    assert "+let x = 1\n" in fmt("--diff", "-", input="let x=1").out
    assert fmt("--check", "-", input="let x = 1\n").code == 0


def test_dos_newlines_and_a_byte_order_mark_go(folder: Path) -> None:
    (folder / "dos.pem").write_bytes(b"\xef\xbb\xbf" + NEAT.replace("\n", "\r\n").encode())
    assert fmt("--check", "dos.pem").code == 1
    assert fmt("dos.pem").code == 0
    assert (folder / "dos.pem").read_bytes() == NEAT.encode()


def test_a_link_stays_a_link(folder: Path) -> None:
    (folder / "link.pem").symlink_to("sub/deep/messy.pem")
    assert fmt("link.pem").code == 0
    assert (folder / "link.pem").is_symlink()
    assert (folder / "sub/deep/messy.pem").read_text() == NEAT


def test_a_mistake_in_one_file_leaves_it_and_hides_no_other(folder: Path) -> None:
    (folder / "a.pem").write_text(WRONG)
    done = fmt("a.pem", "nowhere.pem", "sub/pipe.pem", "sub/self.pem", "messy.pem")
    assert done.code == 1
    assert done.err.count("PEM0100") == 3
    assert "PEM0108" in done.err
    assert (folder / "a.pem").read_text() == WRONG
    assert (folder / "messy.pem").read_text() == NEAT


@pytest.mark.parametrize(
    "name", ["a\nb.pem", "\udcff.pem", "-x.pem", "a\u202eb.pem", "ø" * 100 + ".pem"]
)
def test_names_of_any_kind(folder: Path, name: str) -> None:
    (folder / "odd").mkdir()
    (folder / "odd" / name).write_text(MESSY)
    done = fmt("--check", "odd")
    assert (done.code, done.out.count("\n")) == (1, 1)
    assert "\u202e" not in fmt("--diff", "odd").out
    assert fmt("odd").code == 0
    assert (folder / "odd" / name).read_text() == NEAT
    assert fmt("x" * 5000).code == 1


def test_what_cannot_be_written_is_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = set(folder.rglob("*"))
    done = fmt("messy.pem")
    assert (done.code, "PEM0512" in done.err) == (1, True)
    assert "No space left" in done.err
    assert (folder / "messy.pem").read_text() == MESSY
    assert set(folder.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write anything")
def test_permissions_are_respected(folder: Path) -> None:
    (folder / "sub/deep").chmod(0o500)
    (folder / "messy.pem").chmod(0o400)
    (folder / "locked").mkdir(mode=0)
    done = fmt("sub", "messy.pem", "locked")
    (folder / "sub/deep").chmod(0o700)
    assert (done.code, done.err.count("PEM0512")) == (1, 2)
    assert done.err.count("PEM0100") == 1
    assert (folder / "messy.pem").read_text() == MESSY


@pytest.mark.parametrize("words", [[], ["--chek", "a.pem"], ["-", "a.pem"]])
def test_what_is_no_use_of_it(folder: Path, words: list[str]) -> None:
    done = fmt(*words)
    assert (done.code, done.out) == (2, "")
    assert "Usage" in done.err


def test_what_was_rewritten_is_named_and_counted(folder: Path) -> None:
    assert fmt("--check", ".").err == ""
    summary = (
        "reformatted ./messy.pem\nreformatted ./sub/deep/messy.pem\n2 of 3 recipes reformatted.\n"
    )
    done = fmt(".")
    assert (done.code, done.out, done.err) == (0, "", summary)
    assert fmt(".").text == ""
    (folder / "messy.pem").write_text(MESSY)
    done = on_a_terminal("fmt", "--check", ".", folder=folder)
    assert (done.code, done.out) == (1, "./messy.pem\r\n1 of 3 recipes would be reformatted.\r\n")


def test_operators_typed_in_ascii_may_stay_so(folder: Path) -> None:
    typed = "let x = 2 .* (a .+ .-b)  # ⊕ here\nlet y = x ⊖ a[like b] .+ c\n"
    ascii = "let x = 2 .* (a .+ .-b)  # ⊕ here\nlet y = x .- a[like b] .+ c\n"
    (folder / "typed.pem").write_text(typed)
    assert fmt("--ascii", "typed.pem").code == 0
    assert (folder / "typed.pem").read_text() == ascii
    assert fmt("--ascii", "--check", "typed.pem").code == 0
    assert (
        fmt("-", input=ascii).out == "let x = 2 ⊗ (a ⊕ ⊖b)  # ⊕ here\nlet y = x ⊖ a[like b] ⊕ c\n"
    )


def test_fmt_imports_no_more_than_the_parser(folder: Path) -> None:
    heavy = ("torch", "numpy", "peft", "networkx", "llvmlite")
    done = with_imports("fmt", "messy.pem", folder=folder, of=heavy)
    assert (done.code, done.out) == (0, "")
    assert done.err.endswith("reformatted.\n[]\n")
