"""What is around a command gives way: nothing is lost, nothing hangs, and no traceback is shown."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support import command, lora, pem, recipe
from support.outputs import PROVENANCE

TEXT = 'adapter a = "a"\nadapter b = "b"\nsave a + b to "out/x"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        lora(tmp_path / name, seed)
    recipe(tmp_path, TEXT)
    return tmp_path


def shell(text: str, folder: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line in which PEM is pem."""
    pem = " ".join(command())
    return subprocess.run(
        ["sh", "-c", text.replace("PEM ", f"{pem} ")],
        cwd=folder, capture_output=True, check=False, timeout=60, env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_none_to_fail_for(folder: Path, closed: str) -> None:
    for words in ("check recipe.pem", "build recipe.pem", "build --force recipe.pem", "ops"):
        done = shell(f"PEM {words} {closed}", folder)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert pem("verify", folder / "out/x").code == 0


@pytest.mark.parametrize("full", ["> /dev/full", "> /dev/full 2> /dev/full", "2> /dev/full"])
def test_a_stream_that_is_full_is_told(folder: Path, full: str) -> None:
    for words in ("ops", "build recipe.pem", "check --format json recipe.pem", "check no.pem"):
        done = shell(f"PEM {words} {full}", folder)
        assert b"Traceback" not in done.stderr
        if full == "> /dev/full" and words != "check no.pem":
            assert (done.returncode, b"PEM0530" in done.stderr) == (1, True)
    assert pem("verify", folder / "out/x").code == 0


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii", "utf-8", "koi8-r"])
def test_any_encoding_takes_what_is_told(folder: Path, encoding: str) -> None:
    for words in ("ops", "explain PEM0701", "build recipe.pem", "plan recipe.pem", "inspect a",
                  "inspect out/x", "diff recipe.pem recipe.pem"):  # fmt: skip
        done = shell(f"PEM {words}", folder, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, b"")
    name = "né⊕🙂.pem"
    done = shell(f"PEM check --format json '{name}'", folder, PYTHONIOENCODING=encoding)
    told = done.stdout.decode("utf-8" if encoding == "ascii" else encoding)
    assert name in json.loads(told)["messages"][0]["message"]


def test_a_folder_that_is_gone_is_told(folder: Path) -> None:
    for words in ("check recipe.pem", "build recipe.pem", "fmt recipe.pem", "diff a.pem b.pem"):
        done = shell(f"mkdir gone; cd gone; rmdir ../gone; PEM {words}", folder)
        assert (done.returncode, b"Traceback" in done.stderr) == (1, False)
        assert b"error[PEM0" in done.stderr


@pytest.mark.parametrize("megabytes", [100, 150, 200, 300, 400])
def test_little_memory_is_told(folder: Path, megabytes: int) -> None:
    """Libraries end a process in ways of their own where they have none; none of them is ours."""
    done = subprocess.run(
        command("build", "--force", "recipe.pem"),
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20,) * 2),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) == (folder / "out/x").exists()


def test_an_error_that_python_loses_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no memory to keep it in."""

    def lose(_: threading.Thread) -> None:
        raise SystemError("returned NULL without setting an exception")

    monkeypatch.setattr(threading.Thread, "start", lose)
    done = pem("build", folder / "recipe.pem")
    assert (done.code, "PEM0530" in done.err, "Traceback" in done.err) == (1, True, False)
    assert not (folder / "out/x").exists()


def test_threads_that_may_not_start_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = pem("build", folder / "recipe.pem")
    assert done.code == 0 or "PEM0530" in done.err
    assert (done.code == 0) == (folder / "out/x").exists()


@pytest.mark.parametrize(
    "words",
    ["check", "build", "plan", "graph", "diff recipe.pem", "report", "lock", "inspect", "verify"],
)
@pytest.mark.parametrize("name", ["n" * 5000, "n/" * 2000 + "n", "a\nb", "\x1b[31m", "\udcff"])
def test_names_of_any_kind(folder: Path, words: str, name: str) -> None:
    done = pem(*words.split(), name, folder=folder)
    assert done.code in (1, 2)
    assert "\x1b[31m" not in done.text


def pipe_as(folder: Path, *parts: str) -> None:
    folder.joinpath(*parts).unlink(missing_ok=True)
    os.mkfifo(folder.joinpath(*parts))


PIPES: dict[str, Callable[[Path], None]] = {
    "recipe": lambda folder: pipe_as(folder, "recipe.pem"),
    "import": lambda folder: (
        recipe(folder, 'import "lib.pem" as lib\n' + TEXT), pipe_as(folder, "lib.pem"),
    )[1],
    "config": lambda folder: pipe_as(folder, "a", "adapter_config.json"),
    "tensors": lambda folder: pipe_as(folder, "a", "adapter_model.safetensors"),
    "statistics": lambda folder: pipe_as(folder, "a", "statistics.safetensors"),
    "lock": lambda folder: pipe_as(folder, "pem.lock"),
}  # fmt: skip


@pytest.mark.parametrize("what", PIPES)
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(folder: Path, what: str) -> None:
    PIPES[what](folder)
    for words in ("check recipe.pem", "build --locked recipe.pem", "lock recipe.pem", "fmt ."):
        done = shell(f"timeout 20 PEM {words}", folder)
        assert done.returncode in (0, 1)
        assert b"Traceback" not in done.stderr


def test_a_pipe_in_a_provenance_is_not_waited_for(folder: Path) -> None:
    text = 'import "lib.pem" as lib\n' + TEXT.replace("a + b", "lib.half(a) + b")
    recipe(folder, "def half(x: adapter) -> adapter = 0.5 * x\n", "lib.pem")
    recipe(folder, text)
    assert pem("build", folder / "recipe.pem").code == 0
    for parts in (("lib.pem",), ("recipe.pem",), ("out", "x", "README.md")):
        pipe_as(folder, *parts)
    done = shell("timeout 20 PEM verify out/x", folder)
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False)
    pipe_as(folder, "out", "x", PROVENANCE)
    assert shell("timeout 20 PEM verify out/x", folder).returncode == 1
    assert shell("timeout 20 PEM build recipe.pem", folder).returncode == 1


def test_a_link_shows_no_other_file(folder: Path) -> None:
    (folder / "secret.txt").write_text("adapter secret = hunter2\n")
    (folder / "x.pem").symlink_to("secret.txt")
    (folder / "y.pem").symlink_to("/proc/self/environ")
    recipe(folder, 'import "x.pem" as x\nimport "y.pem" as y\n' + TEXT)
    for words in (["check", "recipe.pem"], ["check", "x.pem"], ["build", "y.pem"], ["fmt", "."]):
        done = pem(*words, folder=folder)
        assert "hunter2" not in done.text
        assert "PATH=" not in done.text
    assert (folder / "secret.txt").read_text() == "adapter secret = hunter2\n"


def test_a_folder_is_laid_out_and_nothing_outside_it(folder: Path) -> None:
    outside = folder / "outside.pem"
    outside.write_text("let  x = 1\n")
    inside = folder / "inside"
    inside.mkdir()
    (inside / "link.pem").symlink_to(outside)
    (inside / "own.pem").write_text("let  y = 1\n")
    assert pem("fmt", inside).code == 0
    assert outside.read_text() == "let  x = 1\n"
    assert (inside / "own.pem").read_text() == "let y = 1\n"


UNSEEN = "\x1b]0;t\x07\x9b31m\u202e\u200b\x7f"


def test_no_name_moves_the_cursor(tmp_path: Path) -> None:
    """Control characters and those that turn text around, in the name of the folder of all."""
    folder = tmp_path / f"h{UNSEEN}"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        lora(folder / name, seed)
    recipe(folder, TEXT)
    at = folder / "recipe.pem"
    for words in (
        ["build", at], ["lock", at], ["plan", at], ["plan", at, "--format", "json"],
        ["check", at, "--format", "github"], ["check", at, "--format", "sarif"],
        ["check", folder / "no.pem", "--format", "github"],
        ["check", folder / "no.pem", "--format", "json"],
        ["diff", folder / "a", folder / "b", "--format", "json"], ["diff", at, at],
        ["diff", at, at, "--format", "json"], ["inspect", folder / "a"],
        ["verify", folder / "out/x"], ["verify", folder / "out/x", "--format", "json"],
        ["explain-output", folder / "out/x"], ["clean", folder], ["report", at],
        ["build", at, "--out", tmp_path / "other"],
    ):  # fmt: skip
        done = pem(*words, folder=tmp_path)
        assert not set(UNSEEN) - set("]0;t31m") & set(done.text), words


@pytest.mark.parametrize(
    "address", ["https://evil.example", "www.evil.example", "WWW.evil.example"]
)
def test_an_address_in_a_name_is_no_link_in_the_card(tmp_path: Path, address: str) -> None:
    lora(tmp_path / "a", 1, base_model_name_or_path=f"see {address} now")
    recipe(tmp_path, 'adapter a = "a"\nsave 2 * a to "out/x"\n')
    assert pem("build", tmp_path / "recipe.pem").code == 0
    card = (tmp_path / "out/x/README.md").read_text()
    assert "evil" in card
    assert address not in card
