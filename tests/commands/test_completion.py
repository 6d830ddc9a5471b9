"""What the tab key does, in a real bash where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support import pem
from support.processes import pem_on_the_path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and a `pem` on the path that is the one under test."""
    for name, value in pem_on_the_path(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def bash(words: str, source: str) -> list[str]:
    """What bash would offer for the last of some words."""
    at = len(words.split(" ")) - 1
    script = (
        f"{source}; COMP_WORDS=({words}); COMP_CWORD={at}; "
        '$(complete -p pem | sed "s/.*-F \\([^ ]*\\) .*/echo \\1/;q" | sh) pem; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("installed", [False, True])
def test_bash_completes_commands_and_options(home: Path, installed: bool) -> None:
    source = 'eval "$(pem completion bash)"'
    if installed:
        assert pem("completion", "bash", "--install").code == 0
        source = f". {home}/.local/share/bash-completion/completions/pem"
    assert bash("pem che", source) == ["check"]
    assert bash("pem lo", source) == ["lock"]
    assert bash("pem check --lo", source) == ["--locked"]


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("bash", "data/bash-completion/completions/pem"),
        ("zsh", "data/zsh/site-functions/_pem"),
        ("fish", "config/fish/completions/pem.fish"),
    ],
)
def test_it_is_installed_where_the_shell_looks(
    home: Path, monkeypatch: pytest.MonkeyPatch, shell: str, file: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    done = pem("completion", "--install")
    assert (home / file).read_text() == pem("completion", shell).out
    assert str(home / file) in done.out
    assert ("fpath=(" in done.out) == (shell == "zsh")


def test_what_it_cannot_do_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/dash")
    assert pem("completion").code == 2
    assert pem("completion", "dash").code == 2
    (home / ".config").write_text("a file")
    done = pem("completion", "fish", "--install")
    assert done.code == 2
    assert "Cannot write" in done.err
