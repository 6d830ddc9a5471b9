"""What may stand where something is being written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from lsprotocol.types import (
    CompletionItem,
    CompletionItemKind,
    CompletionItemLabelDetails,
    MarkupContent,
    MarkupKind,
    TextEdit,
)

from pemlang.check.annotations import REFINEMENTS
from pemlang.check.declared import OPTIONS as DECLARED_WITH
from pemlang.check.files import std_modules
from pemlang.check.kinds import PLAIN
from pemlang.check.options import OPTIONS
from pemlang.check.outputs import HEADS
from pemlang.check.values import RecipeValue
from pemlang.dataclass import dataclass
from pemlang.diagnostics import Fault
from pemlang.formats.namings import NAMINGS
from pemlang.formats.readers import READERS
from pemlang.formats.record import formats_of
from pemlang.graph.node import AdapterNode, ModelNode
from pemlang.inputs.libraries import installed_modules
from pemlang.lsp.analysis import Analysis
from pemlang.lsp.cursor import CursorPlace, WrittenCall
from pemlang.lsp.hover import value_of, value_text
from pemlang.lsp.names import BoundName, shared_names
from pemlang.lsp.on_disk import hub_references, paths_from, recipes_from, sites_by_pattern
from pemlang.lsp.open_files import OpenFiles
from pemlang.lsp.places import TextPlaces
from pemlang.markup import markdown
from pemlang.modules import PARAMETRISATIONS
from pemlang.ops import FUNCTIONS
from pemlang.ops.merge import FULL
from pemlang.show.codes import catalogue
from pemlang.show.operators import settings_of, use
from pemlang.syntax import tree as t
from pemlang.syntax.parser import STATEMENTS
from pemlang.tensorfiles.dtypes import NAMES as DTYPE_NAMES

_KINDS = {
    "value": CompletionItemKind.Variable,
    "parameter": CompletionItemKind.Variable,
    "function": CompletionItemKind.Function,
    "module": CompletionItemKind.Module,
}
_VALUE_WORDS = ("if", "per", "not", "true", "false")
_SAVE_WITH = re.compile(r'\s*save\b.*\bto\s*"[^"]*"\s*with\b', re.DOTALL)
_DECLARED_WITH = re.compile(r'\s*(?:adapter|model)\b.*"[^"]*"\s*with\b', re.DOTALL)
_OPTION = re.compile(r"(?:,|\bwith)\s*(\w+)\s*=\s*$")
_NEXT_OPTION = re.compile(r"(?:,|\bwith)\s*$")
_PATH = re.compile(r"\s*(?:adapter|model)\b[^=]*=\s*$")
_IMPORT = re.compile(r"\s*(?:export\s+)?import\s*")
_MODULE = re.compile(r"\s*(?:export\s+)?import\s+((?:\w+\s*\.\s*)*)")
_MEMBER = re.compile(r"([^\W\d]\w*)\s*\.\s*$")
_TYPE = re.compile(r"(?:^\s*(?:let|adapter|param)\s+\w+|[(,]\s*\w+)\s*:\s*\[?\s*$|->\s*\[?\s*$")
_SELECTED = re.compile(r"([^\W\d][\w.]*)\s*$")
_NEW_NAME = re.compile(
    r"\s*(?:(?:base|model|adapter|param|let)\s+|def\s+(?:\w+\s*\((?:.*,)?\s*)?)$"
    r"|.*\bfor\s+(?:\w+\s*,\s*)*$|\s*(?:export\s+)?import\b.*\bas\s+$",
    re.DOTALL,
)
_LOOP = re.compile(r"\bfor\s+[\w\s,]+\sin\s+$")
_BEGUN = re.compile(r"[^\s=<>!]\s*(?:=|/)$")
_VALUE_ENDS = re.compile(r"[\w\])\"]\s+$")


@dataclass(frozen=True)
class Suggestion:
    """Something that may stand there.

    Attributes:
        text: what is written.
        kind: what it is.
        detail: its type, or what it means, in a few words.
        more: Markdown about it.
    """

    text: str
    kind: CompletionItemKind
    detail: str = ""
    more: str = ""


def completions(
    analysis: Analysis, cursor: CursorPlace, places: TextPlaces, directory: Path, files: OpenFiles
) -> list[CompletionItem]:
    """What may stand at the cursor.

    Args:
        analysis: what is known of the recipe, perhaps of an earlier text.
        cursor: where it is.
        places: those of the text as it is.
        directory: that of the recipe.
        files: the open recipes.
    """
    if cursor.in_comment:
        return []
    end = len(cursor.text)
    written = cursor.word
    if cursor.quote is not None:
        written = cursor.string
        suggestions = _in_string(analysis, cursor, directory)
    else:
        suggestions = _in_statement(analysis, cursor, directory, files)
    place = places.range(end - len(written), end)
    return [
        CompletionItem(
            label=x.text,
            label_details=CompletionItemLabelDetails(description=x.detail or None),
            kind=x.kind,
            documentation=MarkupContent(MarkupKind.Markdown, x.more) if x.more else None,
            text_edit=TextEdit(place, x.text),
            filter_text=x.text,
            sort_text=f"{index:04}",  # what fits best is first here, and not by its letters
        )
        for index, x in enumerate(suggestions)
    ]


def _words(words: Iterable[str], kind: CompletionItemKind, detail: str = "") -> list[Suggestion]:
    return [Suggestion(word, kind, detail) for word in words]


def _in_statement(
    analysis: Analysis, cursor: CursorPlace, directory: Path, files: OpenFiles
) -> Iterable[Suggestion]:
    """What may stand where no string is being written."""
    before = cursor.statement
    if not before.strip():
        return _words(STATEMENTS, CompletionItemKind.Keyword)
    if _NEW_NAME.fullmatch(before):
        return []
    if _IMPORT.match(before):
        return _imported(analysis, cursor, directory, files)
    member = _MEMBER.search(before)
    if member is not None:
        return _members(analysis, member[1])
    if _TYPE.search(before):
        return _words([*PLAIN, *PARAMETRISATIONS], CompletionItemKind.Class)
    if re.search(r"\bon\s+$", before):
        return [x for x in _names(analysis, cursor) if x.detail.startswith("base")]
    if not cursor.brackets:
        options = _options(analysis, cursor)
        if options is not None:
            return options
        if _BEGUN.search(before) and not cursor.word:  # what comes next is a space
            return []
        after = _after_value(before)
        if after:
            return _words(after, CompletionItemKind.Keyword)
    if cursor.bracket == "[" and _SELECTED.search(cursor.before_bracket):
        inside = cursor.text[cursor.brackets[-1] + 1 :]
        selectors = ("layers", "like") if not inside[: -len(cursor.word) or None].strip() else ()
        return [*_words(selectors, CompletionItemKind.Keyword), *_names(analysis, cursor)]
    of_call = [*_of_call(analysis, cursor)]
    return of_call if _takes_words(cursor) else [*of_call, *_values(analysis, cursor)]


def _takes_words(cursor: CursorPlace) -> bool:
    """Whether the parameter that is being given takes nothing but words of its own."""
    call = cursor.call
    operator = None if call is None or cursor.bracket != "(" else FUNCTIONS.get(call.function)
    if call is None or operator is None:
        return False
    params = {param.name: param for param in operator.signatures[0].params}
    return call.argument in params and params[call.argument].kinds == ("word",)


def _after_value(before: str) -> list[str]:
    """The words that may follow a whole value, or the path of a `save` or a declaration; none
    where something else is being written."""
    words = before.split()
    verb, last = words[0], words[-1]
    if not _VALUE_ENDS.search(before) or last in t.KEYWORDS:
        return []
    if before.rstrip().endswith('"') and verb in ("save", "adapter", "model"):
        return ["with"]
    return {"save": ["to"], "assert": ["and", "or", "else"]}.get(verb, [])


def _values(analysis: Analysis, cursor: CursorPlace) -> list[Suggestion]:
    """Names of the recipe, functions of the language, and the words that begin a value."""
    functions = [
        Suggestion(name, CompletionItemKind.Function, use(operator), operator.summary)
        for name, operator in FUNCTIONS.items()
    ]
    words = _words(_VALUE_WORDS, CompletionItemKind.Keyword)
    if _LOOP.search(cursor.statement):
        words += _words(["zip"], CompletionItemKind.Function, "the items of several lists")
    forms = _words(t.FORMS, CompletionItemKind.Function, "in tests")
    return [*_names(analysis, cursor), *functions, *forms, *words]


def _names(analysis: Analysis, cursor: CursorPlace) -> list[Suggestion]:
    own = _words(cursor.own_names, CompletionItemKind.Variable)
    if analysis.path not in analysis.names:
        return own
    names = analysis.names[analysis.path].visible_at(len(cursor.text))
    own = [x for x in own if x.text not in names]
    return [*own, *(_of_name(analysis, name, bound) for name, bound in names.items())]


def _of_name(analysis: Analysis, name: str, bound: BoundName) -> Suggestion:
    detail = ""
    if isinstance(bound.tree, t.Def):
        detail = f"def {bound.tree.signature}"
    elif isinstance(bound.tree, t.DefParam):
        detail = bound.tree.type.span.text
    else:
        value = value_of(analysis, bound)
        detail = "" if value is None else value_text(value, analysis.formula)
    doc = bound.tree.doc if isinstance(bound.tree, t.Statement) else ""
    return Suggestion(name, _KINDS[bound.role], detail, markdown(doc))


def _members(analysis: Analysis, module: str) -> list[Suggestion]:
    """The names of a file that is imported under a name."""
    file = analysis.names.get(analysis.path)
    bound = None if file is None else file.names.get(module)
    if file is None or bound is None or bound not in file.modules:
        return []
    shared = file.modules[bound].shared
    return [_of_name(analysis, name, bound) for name, bound in shared.items()]


def _imported(
    analysis: Analysis, cursor: CursorPlace, directory: Path, files: OpenFiles
) -> list[Suggestion]:
    """Modules of libraries, and what is in a file that is being imported."""
    if cursor.bracket == "(":
        target = _IMPORT.sub("", cursor.before_bracket, count=1)
        shared = shared_names(target, directory, files)
        return [_of_name(analysis, name, bound) for name, bound in shared.items()]
    written = _MODULE.fullmatch(cursor.statement)
    if not written:
        return _words(["as"], CompletionItemKind.Keyword)
    modules = std_modules()
    with suppress(Fault):  # what pip has installed is damaged: the check says so
        modules += installed_modules()
    before = "".join(written[1].split())
    rest = [x.removeprefix(before) for x in modules if x.startswith(before)]
    return _words(rest, CompletionItemKind.Module)


def _options(analysis: Analysis, cursor: CursorPlace) -> list[Suggestion] | None:
    """The options of a `save` or a declaration, and their words; None where there is none."""
    saves = _SAVE_WITH.match(cursor.statement)
    if not saves and not _DECLARED_WITH.match(cursor.statement):
        return None
    option = _OPTION.search(cursor.statement)
    if option is None:
        if not _NEXT_OPTION.search(cursor.statement):
            return None
        options: Iterable[str] = OPTIONS if saves else DECLARED_WITH
        return _words([f"{name}=" for name in options], CompletionItemKind.Property)
    words: dict[str, Iterable[str]] = {
        "dtype": DTYPE_NAMES,
        "format": [record.name for record in formats_of("adapter")],
        "reader": READERS,
        "rank": [FULL],
        "heads": HEADS,
    }
    told = _words(words.get(option[1], ()), CompletionItemKind.EnumMember)
    return told + (_names(analysis, cursor) if option[1] not in ("dtype", "format") else [])


def _of_call(analysis: Analysis, cursor: CursorPlace) -> Iterator[Suggestion]:
    """The parameters of the function that is being called, or the words of one."""
    call = cursor.call
    if call is None or cursor.bracket != "(":
        return
    if call.function in (*PARAMETRISATIONS, "adapter"):
        yield from _words([f"{x}=" for x in REFINEMENTS], CompletionItemKind.Property)
    operator = FUNCTIONS.get(call.function)
    if operator is not None:
        params, meant = operator.signatures[0].params, dict(settings_of(operator))
        left = call.not_given([param.name for param in params if not param.variadic])
        for param in params:
            if param.name == call.argument:
                yield from _words(param.words, CompletionItemKind.EnumMember)
            elif call.argument is None and param.name in left:
                detail = meant.get(param.name, "")
                yield Suggestion(f"{param.name}=", CompletionItemKind.Property, detail)
    elif call.argument is None:
        kinds = {x.name.name: x.type.span.text for x in params_of(analysis, call)}
        for name in call.not_given(list(kinds)):
            yield Suggestion(f"{name}=", CompletionItemKind.Property, kinds[name])


def params_of(analysis: Analysis, call: WrittenCall) -> tuple[t.DefParam, ...]:
    """The parameters of a `def` that is being called."""
    bound = function_of(analysis, call.function)
    return bound.tree.params if bound is not None and isinstance(bound.tree, t.Def) else ()


def function_of(analysis: Analysis, name: str) -> BoundName | None:
    """What a name that is called is bound to."""
    file = analysis.names.get(analysis.path)
    if file is None:
        return None
    module, dot, member = name.partition(".")
    bound = file.names.get(module)
    if not dot or bound is None:
        return bound
    return file.modules[bound].shared.get(member) if bound in file.modules else None


def _in_string(analysis: Analysis, cursor: CursorPlace, directory: Path) -> Iterable[Suggestion]:
    before, written = cursor.statement, cursor.string
    hole = re.search(r"\{(\w*)$", written)
    if hole is not None:
        start = written[: len(written) - len(hole[1])]
        return [
            Suggestion(f"{start}{x.text}}}", x.kind, x.detail) for x in _names(analysis, cursor)
        ]
    if _PATH.match(before):
        is_model = before.split()[0] == "model"
        local = _words(paths_from(directory, written), CompletionItemKind.Folder)
        return local + _words(hub_references(is_model), CompletionItemKind.Reference, "cached")
    if _IMPORT.fullmatch(before):
        return _words(recipes_from(directory, written), CompletionItemKind.File)
    if re.search(r"\bnames\s*=\s*$", before):
        words = dict.fromkeys(naming.word for naming in NAMINGS if naming.word)
        return _words(words, CompletionItemKind.EnumMember)
    if re.search(r"\bfails\s*\(.*,\s*$", before, re.DOTALL):
        return [
            Suggestion(code, CompletionItemKind.EnumMember, entry.title)
            for code, entry in catalogue().items()
        ]
    selected = _SELECTED.search(cursor.before_bracket) if cursor.bracket == "[" else None
    if selected is not None:
        bound = function_of(analysis, selected[1])
        return _sites([None if bound is None else value_of(analysis, bound)])
    if cursor.bracket == "{" or re.search(r"\btargets\s*=\s*\[[^\]]*$", before):
        names = analysis.names[analysis.path].names if analysis.path in analysis.names else {}
        return _sites([value_of(analysis, bound) for bound in names.values()])
    return []


def _sites(values: Iterable[RecipeValue | None]) -> list[Suggestion]:
    """Patterns for the sites of adapters, and the sites."""
    shapes = [x.shapes for x in values if isinstance(x, AdapterNode | ModelNode)]
    patterns = sites_by_pattern({site for some in shapes for site in some})
    return [
        Suggestion(pattern, CompletionItemKind.Value, f"{many} site{'s' * (many != 1)}")
        for pattern, many in patterns.items()
    ]
