"""Writes what editors colour recipes by, from the grammar, and packs the extension of VS Code:
`make editors`."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.sax.saxutils import quoteattr

import treesitter

from pemlang.check.kinds import PLAIN
from pemlang.modules import PARAMETRISATIONS
from pemlang.ops import FUNCTIONS
from pemlang.resources import resource
from pemlang.syntax.tree import FORMS, KEYWORDS
from pemlang.version import __version__

HERE = Path(__file__).parent
EXTENSION = HERE / "vscode"
TREE_SITTER = HERE / "tree-sitter"
_WORD = re.compile(r"^_?[A-Z]+\.\d:\s+/(\w+)\(\?!\\w\)/", re.MULTILINE)
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # what a zip can say, so that one text gives one file


def words() -> dict[str, list[str]]:
    """The words of the language by what they are; those of the grammar are all there."""
    every = set(_WORD.findall(_grammar())) | KEYWORDS
    constants = {"true", "false"}
    logic = {"and", "or", "not"}
    selectors = {"layers", "like"}
    return {
        "keyword": sorted(every - constants - logic - selectors),
        "logic": sorted(logic),
        "constant": sorted(constants),
        "selector": sorted(selectors),
        "type": sorted({*PLAIN, *PARAMETRISATIONS}),
        "function": sorted({*FUNCTIONS, *FORMS}),
    }


def _grammar() -> str:
    return (resource("grammar") / "pem.lark").read_text(encoding="utf-8")


def textmate() -> dict[str, object]:
    """The TextMate grammar, which VS Code and many others colour by."""
    known = {kind: "|".join(some) for kind, some in words().items()}

    def rule(name: str, match: str) -> dict[str, object]:
        return {"name": f"{name}.pem", "match": match}

    string = {
        "name": "string.quoted.double.pem",
        "begin": '"',
        "end": '"|$',
        "patterns": [
            rule("constant.character.escape", r"\\.|\{\{|\}\}"),
            rule("variable.other.interpolated", r"\{[^{}\"]*\}"),
        ],
    }
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "pem",
        "scopeName": "source.pem",
        "patterns": [
            rule("comment.line.documentation", r"##.*$"),
            rule("comment.line.number-sign", r"#.*$"),
            string,
            rule("variable.parameter", r"\b[^\W\d]\w*(?==[^=\s])"),
            rule("support.function", rf"\b(?:{known['function']})(?=\s*\()"),
            rule("keyword.other.selector", rf"(?<=\[)\s*(?:{known['selector']})\b"),
            rule("storage.type", rf"(?<=: |-> |\[|\()(?:{known['type']})\b"),
            rule("keyword.operator.logical", rf"\b(?:{known['logic']})\b(?!\s*=[^=])"),
            rule("constant.language", rf"\b(?:{known['constant']})\b"),
            rule("keyword.control", rf"\b(?:{known['keyword']})\b(?!\s*=[^=])"),
            rule("constant.numeric", r"\b[0-9][0-9_]*(?:\.[0-9][0-9_]*)?(?:[eE][+-]?[0-9]+)?\b"),
            rule("keyword.operator", r"\.[-+*]|[-+*/⊕⊖⊗]|<=|>=|==|!=|->|[<>=]"),
        ],
    }


def vim() -> str:
    """The syntax file of Vim and Neovim."""
    known = words()
    functions = r"\|".join(known["function"])
    keywords = {*known["keyword"], *known["logic"], *known["selector"]}
    both = sorted(keywords & set(known["type"]))  # what they are goes by where they stand
    begins = r"\|".join(both)
    return f"""\
" Recipes of pemlang. Written by editors/make.py.
if exists("b:current_syntax")
  finish
endif
syntax iskeyword @,48-57,_,192-255
syntax keyword pemKeyword {" ".join(sorted(keywords - set(both)))}
syntax keyword pemConstant {" ".join(known["constant"])}
syntax keyword pemType {" ".join(x for x in known["type"] if x not in both)}
syntax match pemType "\\<\\({begins}\\)\\>"
syntax match pemKeyword "^\\s*\\zs\\({begins}\\)\\>"
syntax match pemFunction "\\<\\({functions}\\)\\ze\\s*("
syntax match pemNumber "\\<[0-9][0-9_]*\\(\\.[0-9][0-9_]*\\)\\?\\([eE][+-]\\?[0-9]\\+\\)\\?\\>"
syntax match pemOperator "[-+*/⊕⊖⊗<>=]"
syntax region pemString start=+"+ skip=+\\\\.+ end=+"+ oneline
syntax match pemComment "#.*$"
syntax match pemDocumentation "##.*$"
highlight default link pemKeyword Keyword
highlight default link pemConstant Boolean
highlight default link pemType Type
highlight default link pemFunction Function
highlight default link pemNumber Number
highlight default link pemOperator Operator
highlight default link pemString String
highlight default link pemComment Comment
highlight default link pemDocumentation SpecialComment
let b:current_syntax = "pem"
"""


def made() -> dict[Path, str]:
    """The files that are made from the grammar."""
    coloured = json.dumps(textmate(), indent=1, ensure_ascii=False) + "\n"
    grammar = treesitter.grammar_js(_grammar())
    known = words()
    query = treesitter.highlights(grammar, known["function"], known["logic"])
    of_neovim = HERE / "neovim" / "queries" / "pem"
    of_helix = HERE / "helix" / "runtime" / "queries" / "pem"
    folds = (TREE_SITTER / "queries" / "folds.scm").read_text(encoding="utf-8")
    return {
        EXTENSION / "syntaxes" / "pem.tmLanguage.json": coloured,
        HERE / "neovim" / "syntax" / "pem.vim": vim(),
        TREE_SITTER / "grammar.js": grammar,
        TREE_SITTER / "queries" / "highlights.scm": query,
        of_neovim / "highlights.scm": query,
        of_neovim / "folds.scm": folds,
        of_helix / "highlights.scm": treesitter.helix(query),
    }


def mark_of_parser() -> str:
    """The first line of the parser of tree-sitter, which says of which grammar it is."""
    grammar = (TREE_SITTER / "grammar.js").read_bytes()
    return f"// Of grammar.js with the SHA-256 {hashlib.sha256(grammar).hexdigest()}\n"


def generate_parser() -> None:
    """Have tree-sitter write its parser anew, where the grammar is another."""
    parser = TREE_SITTER / "src" / "parser.c"
    if parser.exists() and parser.read_text(encoding="utf-8").startswith(mark_of_parser()):
        return
    tool = shutil.which("tree-sitter")
    if tool is None:
        sys.exit("the grammar is another, and tree-sitter, which writes its parser, is not there")
    subprocess.run([tool, "generate", "--abi", "14"], cwd=TREE_SITTER, check=True)
    parser.write_text(mark_of_parser() + parser.read_text(encoding="utf-8"), encoding="utf-8")


def pack(place: Path) -> None:
    """Write the extension as VS Code installs it: a zip with a manifest."""
    package = json.loads((EXTENSION / "package.json").read_text(encoding="utf-8"))
    package["version"] = _numbers(__version__)
    files = {
        f"extension/{path.relative_to(EXTENSION).as_posix()}": path.read_bytes()
        for path in sorted(EXTENSION.rglob("*"))
        if path.is_file() and path.name != "package.json"
    }
    files["extension/package.json"] = (json.dumps(package, indent=1) + "\n").encode()
    files["extension.vsixmanifest"] = _manifest(package).encode()
    files["[Content_Types].xml"] = _TYPES.encode()
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), content, zipfile.ZIP_DEFLATED)


def _numbers(version: str) -> str:
    """A version as VS Code has them: three numbers."""
    parts = [re.match(r"\d*", part)[0] or "0" for part in version.split(".")]  # type: ignore[index]
    return ".".join([*parts, "0", "0"][:3])


_TYPES = """\
<?xml version="1.0" encoding="utf-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">\
<Default Extension=".json" ContentType="application/json"/>\
<Default Extension=".js" ContentType="application/javascript"/>\
<Default Extension=".md" ContentType="text/markdown"/>\
<Default Extension=".vsixmanifest" ContentType="text/xml"/>\
</Types>
"""


def _manifest(package: dict[str, str]) -> str:
    identity = " ".join(
        f"{key}={quoteattr(value)}"
        for key, value in {
            "Language": "en-US",
            "Id": package["name"],
            "Version": package["version"],
            "Publisher": package["publisher"],
        }.items()
    )
    engine = quoteattr(package["engines"]["vscode"])  # type: ignore[index]
    return f"""\
<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011">
  <Metadata>
    <Identity {identity}/>
    <DisplayName>{package["displayName"]}</DisplayName>
    <Description xml:space="preserve">{package["description"]}</Description>
    <Categories>Programming Languages</Categories>
    <Properties>
      <Property Id="Microsoft.VisualStudio.Code.Engine" Value={engine}/>
    </Properties>
  </Metadata>
  <Installation><InstallationTarget Id="Microsoft.VisualStudio.Code"/></Installation>
  <Dependencies/>
  <Assets>
    <Asset Type="Microsoft.VisualStudio.Code.Manifest" Path="extension/package.json" \
Addressable="true"/>
    <Asset Type="Microsoft.VisualStudio.Services.Content.Details" Path="extension/README.md" \
Addressable="true"/>
  </Assets>
</PackageManifest>
"""


if __name__ == "__main__":
    for file, text in made().items():
        file.write_text(text, encoding="utf-8")
    generate_parser()
    pack(HERE.parent / "dist" / "pemlang.vsix")
