"""Recipes in colour where Pygments colours: Sphinx, MkDocs, Jupyter, `pygmentize -l pemlang`."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, include, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

from pemlang.check.kinds import PLAIN
from pemlang.modules import PARAMETRISATIONS
from pemlang.ops import FUNCTIONS
from pemlang.syntax.tree import FORMS, KEYWORDS

_CONSTANTS = ("true", "false")


class PemLexer(RegexLexer):  # type: ignore[misc]
    """Recipes of pemlang. A file is taken for one where it does not begin as a certificate does,
    whose extension is the same, and which Pygments calls `pem`."""

    name = "pemlang"
    aliases: ClassVar[list[str]] = ["pemlang"]
    alias_filenames: ClassVar[list[str]] = ["*.pem"]
    url = "https://pypi.org/project/pemlang/"

    tokens: ClassVar[dict[str, list[object]]] = {
        "root": [
            (r"##.*", String.Doc),
            (r"#.*", Comment.Single),
            (r'"', String.Double, "string"),
            include("words"),
            (r"\b[0-9][0-9_]*(\.[0-9][0-9_]*)?([eE][+-]?[0-9]+)?\b", Number),
            (r"\.[-+*]|[-+*/⊕⊖⊗]|<=|>=|==|!=|->|[<>=]|\.\.", Operator),
            (r"[()\[\]{},.:]", Punctuation),
            (r"\s+", Text),
        ],
        "words": [
            (r"[^\W\d]\w*(?==[^=\s])", Name.Attribute),
            (words((*FUNCTIONS, *FORMS), r"\b", r"(?=\s*\()"), Name.Builtin),
            (words(_CONSTANTS, r"\b", r"\b"), Keyword.Constant),
            (words(("layers", "like"), r"(?<=\[)", r"\b"), Keyword),
            (words(("and", "or", "not"), r"\b", r"\b"), Operator.Word),
            (words((*PLAIN, *PARAMETRISATIONS), r"(?<=[:>\[(] )", r"\b"), Keyword.Type),
            (words(sorted(KEYWORDS), r"\b", r"\b"), Keyword),
            (r"[^\W\d][\w\u0300-\u036f]*", Name),
        ],
        "string": [
            (r"\\.|\{\{|\}\}", String.Escape),
            (r"\{[^{}\"\n]*\}", String.Interpol),
            (r'[^"\\{}\n]+', String.Double),
            (r'"', String.Double, "#pop"),
            (r"\n", Text, "#pop"),
            (r"[{}\\]", String.Double),
        ],
    }

    def analyse_text(text: str) -> float:
        """How likely a text is a recipe."""
        return 0.0 if text.lstrip().startswith("-----BEGIN") else 0.5
