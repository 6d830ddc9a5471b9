"""The files for editors: what they colour, and that the extension speaks to the server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pygments.lexers import get_lexer_by_name, guess_lexer_for_filename
from pygments.token import Error, Keyword, Name, String
from support import lora
from support.editor_files import EDITORS, RECIPES, ROOT, make

from pemlang.ops import FUNCTIONS
from pemlang.version import __version__


def test_what_is_made_from_the_grammar_is_as_it_would_be_made() -> None:
    for path, text in make.made().items():
        assert path.read_text(encoding="utf-8") == text, "make editors writes it"


def test_every_word_of_the_grammar_is_coloured() -> None:
    grammar = (ROOT / "grammar" / "pem.lark").read_text(encoding="utf-8")
    words = set(re.findall(r"/(\w+)\(\?!\\w\)/", grammar))
    assert len(words) > 25
    assert words <= {word for some in make.words().values() for word in some}
    assert set(FUNCTIONS) <= set(make.words()["function"])


def test_the_extension_is_one_that_vs_code_installs(tmp_path: Path) -> None:
    one, two = tmp_path / "one.vsix", tmp_path / "two.vsix"
    make.pack(one)
    make.pack(two)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        names = set(archive.namelist())
        package = json.loads(archive.read("extension/package.json"))
        manifest = archive.read("extension.vsixmanifest").decode()
    assert {"[Content_Types].xml", "extension.vsixmanifest", "extension/extension.js"} <= names
    contributes = package["contributes"]
    named = [package["main"], *(x["path"] for x in contributes["grammars"])]
    named += [x["configuration"] for x in contributes["languages"]]
    assert {f"extension/{x.removeprefix('./')}" for x in named} <= names
    assert "extensions" not in contributes["languages"][0]  # .pem may be a certificate
    assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
    assert f'Version="{package["version"]}"' in manifest


def in_vs_code(folder: Path, *command: str) -> dict[str, Any]:
    """What the extension does with a server, in a small stand-in for VS Code."""
    script = Path(__file__).with_name("vscode.js")
    words = ["node", script, EDITORS / "vscode" / "extension.js", folder.resolve(), *command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_extension_asks_the_server_and_hands_on_what_it_answers(tmp_path: Path) -> None:
    lora(tmp_path / "a", 1)
    told = in_vs_code(tmp_path, sys.executable, "-m", "pemlang", "lsp")
    assert told["languages"] == [["merge.pem", "pem"]]
    assert told["diagnostics"] == ["PEM0206"]
    assert "adapter a: LoRA, rank 4" in told["hover"]
    assert told["completion"] > len(FUNCTIONS)
    assert told["signature"] is None
    assert told["definition"] == (tmp_path / "recipe.pem").resolve().as_uri()
    assert (told["references"], told["rename"]) == (3, 3)
    assert "PEM0386" in told["refused"]
    assert told["formatting"] == 0 and told["actions"] == ["write a"]
    assert told["hints"] == [": LoRA, rank 4, 4 sites"]
    assert told["lenses"] == ["a: LoRA, rank 4, 4 sites"]
    assert told["tokens"] % 5 == 0 and told["tokens"] > 50
    [message] = told["messages"]
    assert message.startswith("pem: the language server ended 5 times: it ended with SIGKILL")
    assert (told["again"], told["servers"]) == (4, 5), "one that is killed is started again"


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
@pytest.mark.parametrize(
    ("words", "why"),
    [(["no-such-pem", "lsp"], "ENOENT"), ([sys.executable, "-c", "exit(3)"], "it ended with 3")],
)
def test_a_server_that_never_answers_is_not_started_again(
    words: list[str], why: str, tmp_path: Path
) -> None:
    [message] = in_vs_code(tmp_path, *words)["messages"]
    assert why in message and message.endswith('pip install "pemlang[lsp]"')


def test_the_files_of_helix_and_of_tree_sitter_name_what_is_there() -> None:
    helix = tomllib.loads((EDITORS / "helix" / "languages.toml").read_text(encoding="utf-8"))
    [language], [grammar] = helix["language"], helix["grammar"]
    assert (EDITORS / Path(grammar["source"]["path"]).name / "src" / "parser.c").exists()
    assert language["language-servers"] == list(helix["language-server"])
    described = json.loads((EDITORS / "tree-sitter" / "tree-sitter.json").read_text("utf-8"))
    [grammar] = described["grammars"]
    for query in ("highlights", "locals"):
        assert (EDITORS / "tree-sitter" / grammar[query]).exists()
    assert described["metadata"]["version"] == __version__


def test_pygments_colours_every_recipe() -> None:
    lexer = get_lexer_by_name("pemlang")
    assert RECIPES
    for path in RECIPES:
        text = path.read_text(encoding="utf-8")
        tokens = list(lexer.get_tokens(text))
        assert [value for kind, value in tokens if kind is Error] == [], path
        assert "".join(value for _, value in tokens).strip() == text.strip()
    text = 'let x = ties(a, density=0.5) to "o"'
    coloured = {value: kind for kind, value in lexer.get_tokens(text)}
    assert coloured["let"] is Keyword and coloured["to"] is Keyword
    assert coloured["ties"] is Name.Builtin and coloured["density"] is Name.Attribute
    assert coloured["x"] is Name and coloured["o"] is String.Double


def test_pygments_takes_no_certificate_for_a_recipe() -> None:
    assert guess_lexer_for_filename("merge.pem", "language 1\n").name == "pemlang"
    certificate = "-----BEGIN CERTIFICATE-----\nMII\n"
    assert guess_lexer_for_filename("cert.pem", certificate).name == "ASCII armored"
