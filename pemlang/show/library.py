"""What libraries of recipes say of themselves: for the terminal, as Markdown, and as pages of HTML
that lead to each other; docs/library.md is that of the standard library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from textwrap import wrap
from urllib.parse import quote

from pemlang.artifact.card import MARK
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.markup import code, markdown
from pemlang.pipeline.documenting import LibraryDoc, NameDoc, standard_library
from pemlang.show.page import (
    HEAD,
    Column,
    PageLink,
    PageSection,
    escaped,
    folded,
    listing,
    paragraph,
    table,
    whole_page,
)

INDEX = "index"
_PAPER = re.compile(r"arXiv (\d{4}\.\d{4,5})")
_LINE = 4096  # characters of one line that are shown


@dataclass(frozen=True)
class DocJson:
    """`pem doc`: what files of recipes offer."""

    libraries: Sequence[LibraryDoc]


def start_of_page(form: str) -> str:
    """What tells a page of ours, markdown or html, from a file of someone else's."""
    return HEAD if form == "html" else f"{MARK}\n"


def as_markdown() -> str:
    """docs/library.md."""
    lines = [
        "# The standard library",
        "",
        "Recipes that come with pemlang, imported by name: `import std.paper (merge)`, or",
        "`import std.paper as paper` and then `paper.merge(a, b)`. `pem doc std` shows them too.",
        "What a call comes to is its normal form on adapters that are drawn.",
    ]
    for library in standard_library():
        lines += ["", *_markdown(library, "##")]
    return "\n".join(lines) + "\n"


# --- facts of a name, the same in every form ------------------------------------------------------


def _example(entry: NameDoc) -> str:
    """`merge(a, b)` is `0.5⊗a ⊕ 0.5⊗b`, as one line of plain text; nothing where none was drawn."""
    if entry.example is None:
        return ""
    type_ = f": {entry.example.type}" if entry.example.type else ""
    return f"{entry.example.call} is {entry.example.normal_form}{type_}"


def _import_of(library: LibraryDoc, entry: NameDoc | None = None) -> str:
    names = [entry] if entry else library.names
    return f"import {library.module} ({', '.join(x.name for x in names)})"


def _handed_on(library: LibraryDoc, shown: Callable[[str, str], str]) -> list[str]:
    """`Hands on merge, unlearn of std.paper`, a line for each file; `shown` gives what stands for a
    name of a file."""
    return [
        f"Hands on {', '.join(shown(each.of, name) for name in each.names)} of {shown('', each.of)}"
        for each in library.hands_on
    ]


# --- the terminal ---------------------------------------------------------------------------------


def as_text(library: LibraryDoc) -> str:
    """A library for the terminal."""
    lines = [library.name, *_indented(library.about, 2)]
    for told in _handed_on(library, lambda of, name: name):
        lines += _indented(told, 2)
    for entry in library.names:
        lines += ["", f"  {entry.signature}", *_indented(entry.about, 6)]
        lines += _indented(_example(entry), 6)
        lines += _indented(f"Source: {entry.source}" if entry.source else "", 6)
        lines += [line for test in entry.tests for line in _indented(f"Test: {test.title}", 6)]
    return "\n".join(visible(line, _LINE) for line in lines)


def _indented(text: str, columns: int) -> list[str]:
    return [" " * columns + line for line in wrap(text, 96 - columns)]


# --- Markdown -------------------------------------------------------------------------------------


def markdown_pages(libraries: Sequence[LibraryDoc]) -> dict[str, str]:
    """A page for each library and one that lists them, by the names of their files."""
    names = _page_names(libraries)
    index = [MARK, "", "# Recipes", ""]
    for library in libraries:
        about = f": {_prose_markdown(library.about)}" if library.about else ""
        index.append(f"- [{markdown(library.name)}]({quote(names[library.name])}.md){about}")
    pages = {f"{INDEX}.md": "\n".join(index) + "\n"}
    for library in libraries:
        lines = [MARK, "", *_markdown(library, "#")]
        pages[f"{names[library.name]}.md"] = "\n".join(lines) + "\n"
    return pages


def one_markdown(libraries: Sequence[LibraryDoc]) -> str:
    """All of them, one after the other."""
    return "\n".join("\n".join([*_markdown(library, "#"), ""]) for library in libraries)


def _markdown(library: LibraryDoc, level: str) -> Iterator[str]:
    yield f"{level} {markdown(library.name)}"
    if library.about:
        yield from ("", _prose_markdown(library.about))
    for told in _handed_on(library, lambda of, name: code(name)):
        yield from ("", f"{told}.")
    for entry in library.names:
        yield from ("", f"{level}# {entry.name}")  # an identifier
        if entry.about:
            yield from ("", _prose_markdown(entry.about))
        yield from ("", *_fenced(entry.text))
        if entry.example is not None:
            type_ = f": {entry.example.type}" if entry.example.type else ""
            yield ""
            yield f"{code(entry.example.call)} is {code(entry.example.normal_form)}{type_}."
        for word, names in (("Uses", entry.uses), ("Used by", entry.used_by)):
            if names:
                yield from ("", f"{word} {', '.join(_markdown_link(library, x) for x in names)}.")
        if entry.source:
            yield from ("", f"Source: {_prose_markdown(entry.source)}")
    tests = {test.text: None for entry in library.names for test in entry.tests}
    if tests:
        yield from ("", f"{level}# Its tests", "", *_fenced("\n\n".join(tests)))


def _markdown_link(library: LibraryDoc, name: str) -> str:
    """A name, which leads to its heading where the page has one."""
    own = any(entry.name == name for entry in library.names)
    return f"[{code(name)}](#{quote(name.lower())})" if own else code(name)


def _fenced(text: str) -> list[str]:
    """A block of code, in a fence longer than any in it."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    lines = [visible(line, _LINE) for line in text.split("\n")]
    return [f"{'`' * (longest + 1)}pem", *lines, "`" * (longest + 1)]


def _prose_markdown(text: str) -> str:
    return _prose(
        text,
        code,
        lambda plain: _PAPER.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", markdown(plain, _LINE)),
    )


def _prose(text: str, of_code: Callable[[str], str], of_words: Callable[[str], str]) -> str:
    """A sentence, what stands between ` in it apart from the rest."""
    return "".join(
        of_code(part[1:-1]) if part.startswith("`") and len(part) > 2 else of_words(part)
        for part in re.split(r"(`[^`]+`)", visible(text, _LINE))
        if part
    )


# --- HTML -----------------------------------------------------------------------------------------


def html_pages(libraries: Sequence[LibraryDoc]) -> dict[str, str]:
    """A page for each library and one that lists all names, by the names of their files."""
    names = _page_names(libraries)
    rows = [
        (_link(names, library, entry), library.name, _summary(entry.about))
        for library in libraries
        for entry in library.names
    ]
    columns = (Column("Name", "code"), Column("In", "code"), Column("What it is"))
    sections = [PageSection("All names", table(columns, rows))]
    for library in libraries:
        link = PageLink(library.name, f"{quote(names[library.name])}.html").html
        sections.append(PageSection(library.name, f"{paragraph(library.about)}<p>{link}</p>"))
    pages = {f"{INDEX}.html": whole_page("Recipes", sections)}
    for library in libraries:
        pages[f"{names[library.name]}.html"] = _html(library, libraries, names)
    return pages


def _page_names(libraries: Sequence[LibraryDoc]) -> dict[str, str]:
    """What the file of each library's page is called, by the library; no two alike, in whatever
    case."""
    taken, names = {INDEX}, {}
    for library in libraries:
        stem = library.name.removesuffix(".pem").rpartition("/")[2].strip(".") or "recipe"
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[library.name] = name
    return names


def _link(names: dict[str, str], library: LibraryDoc, entry: NameDoc) -> PageLink:
    return PageLink(entry.name, f"{quote(names[library.name])}.html#def-{quote(entry.name)}")


def _html(library: LibraryDoc, libraries: Sequence[LibraryDoc], names: dict[str, str]) -> str:
    links = {
        f"{other.name}.{entry.name}": _link(names, other, entry)
        for other in libraries
        for entry in other.names
    }
    links |= {entry.name: _link(names, library, entry) for entry in library.names}
    columns = (Column("Name", "code"), Column("What it is"))
    rows = [(links[entry.name], _summary(entry.about)) for entry in library.names]
    head = PageLink("All recipes", f"{INDEX}.html").html
    first = f"<p>{head}</p>{listing(_import_of(library))}" if rows else f"<p>{head}</p>"
    first += "".join(
        f"<p>{told}.</p>"
        for told in _handed_on(library, lambda of, name: _code_html(name, f"{of}.{name}", links))
    )
    sections = [PageSection("Names", first + (table(columns, rows) if rows else ""))]
    sections += [
        PageSection(entry.name, _entry_html(library, entry, links)) for entry in library.names
    ]
    return whole_page(library.name, sections, library.about)


def _entry_html(library: LibraryDoc, entry: NameDoc, links: dict[str, PageLink]) -> str:
    parts = [f'<div class="named" id="def-{escaped(entry.name)}">{listing(entry.signature)}</div>']
    parts += [f"<p>{_prose_html(entry.about, links)}</p>"] * bool(entry.about)
    if entry.example is not None:
        parts.append(f"<h3>On samples</h3>{listing(_example(entry))}")
    for word, names in (("Uses", entry.uses), ("Used by", entry.used_by)):
        if names:
            told = ", ".join(links[x].html if x in links else escaped(x) for x in names)
            parts.append(f"<p>{word} {told}.</p>")
    parts += [f"<p>Source: {_prose_html(entry.source, links)}</p>"] * bool(entry.source)
    for test in entry.tests:
        parts.append(folded(f"Test: {test.title}", listing(test.text)))
    parts.append(folded("As written", listing(f"{_import_of(library, entry)}\n\n{entry.text}")))
    return "\n".join(parts)


def _prose_html(text: str, links: dict[str, PageLink]) -> str:
    return _prose(
        text,
        lambda word: _code_html(word, word, links),
        lambda plain: _PAPER.sub(
            r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', escaped(plain, _LINE)
        ),
    )


def _code_html(text: str, name: str, links: dict[str, PageLink]) -> str:
    """A text as code, which leads to the page of a name where there is one."""
    return f"<code>{links[name].html if name in links else escaped(text)}</code>"


def _summary(about: str) -> str:
    """The first sentence, or what stands before its first semicolon."""
    return re.split(r"(?<=[.;])\s", about, maxsplit=1)[0].rstrip(";")
