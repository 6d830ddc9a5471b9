"""A change of meaning for a terminal, a pull request, a page and a program."""

from __future__ import annotations

from collections.abc import Sequence

from pemlang.compare.recipes import OutputChange, RecipeComparison
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.graph.formula import count
from pemlang.markup import code, hypertext, markdown

SAME = "no change of meaning"
NOTHING = "nothing is saved on either side: compare the recipes that import it"
_COLOURS = {"changed": "33", "added": "32", "removed": "31", "same": "2"}
_SIGNS = {"+": "added", "−": "removed", "~": "changed"}
_HASH = 12


@dataclass(frozen=True)
class RecipeDiffJson:
    """`pem diff` of recipes: what changed in the algebra."""

    same: bool
    old: str
    new: str
    outputs: Sequence[OutputChange]
    assertions: Sequence[str]
    notes: Sequence[str]


def phrases(change: OutputChange) -> str:
    """What became of an output."""
    if change.state in ("added", "removed"):
        value = change.values[1 if change.state == "added" else 0]
        return f"{change.state}, {value}"
    return "; ".join(change.changes) or SAME


def as_text(changes: RecipeComparison, colour: bool = False) -> str:
    """Lines for a terminal: `safe: toxic −0.6 → −0.75; rank 32 → 16`."""

    def paint(style: str, text: str) -> str:
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if colour else text

    if changes.same:
        lines = [f"{SAME} in {count(len(changes.outputs), 'output')}"]
    elif not changes.outputs and not changes.assertions:
        lines = [NOTHING]
    else:
        lines = [
            paint(output.state, f"{visible(output.name, 80)}: {phrases(output)}")
            for output in changes.outputs
        ]
        lines += [
            paint(_SIGNS[text[0]], f"{text[0]} assert{text[1:]}") for text in changes.assertions
        ]
    return "\n".join([*lines, *(f"note: {note}" for note in changes.notes)])


def as_markdown(changes: RecipeComparison) -> str:
    """The change for a pull request: what changed in sight, normal forms folded away."""
    lines = [f"{code(changes.old)} → {code(changes.new)}: **{_headline(changes)}**", ""]
    for output in changes.outputs:
        if output.state != "same":
            lines.append(f"- {code(output.name)}: {_plain(output)}")
    lines += [f"- {text[0]} assert {code(text[2:])}" for text in changes.assertions]
    changed = [output for output in changes.outputs if output.state != "same" or not changes.same]
    if changed and not changes.same:
        lines += ["", "<details><summary>Normal forms</summary>", ""]
        for output in changed:
            lines.append(f"- {code(output.path)}")
            for sign, value, hash_ in zip("−+", output.values, output.hashes, strict=True):
                if value is not None and hash_ is not None:
                    lines.append(f"  - {sign} {code(value)} (hash {code(hash_[:_HASH])})")
        lines += ["", "</details>"]
    lines += ["", *(f"> {markdown(note)}" for note in changes.notes)] if changes.notes else []
    return "\n".join([*lines, ""])


def _plain(output: OutputChange) -> str:
    if output.state in ("added", "removed"):
        return f"{output.state}, {code(phrases(output).partition(', ')[2])}"
    return "; ".join(code(text) for text in output.changes)


def as_html(changes: RecipeComparison) -> str:
    """A fragment of a page: everything in it escaped, no style and no script."""
    rows = [
        f'<tr class="{output.state}"><td><code>{hypertext(output.name)}</code></td>'
        f"<td>{hypertext(phrases(output))}</td>"
        f"<td><code>{_shown(output.values[0])}</code></td>"
        f"<td><code>{_shown(output.values[1])}</code></td></tr>"
        for output in changes.outputs
    ]
    asserted = "".join(f"<li>{hypertext(text)}</li>" for text in changes.assertions)
    notes = "".join(f"<p>{hypertext(note)}</p>" for note in changes.notes)
    return (
        f"<p><code>{hypertext(changes.old)}</code> → <code>{hypertext(changes.new)}</code>: "
        f"{hypertext(_headline(changes))}</p>"
        "<table><thead><tr><th>output</th><th>change</th><th>was</th><th>is</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        + (f"<p>Assertions</p><ul>{asserted}</ul>" if asserted else "")
        + notes
    )


def _shown(value: str | None) -> str:
    return "" if value is None else hypertext(value)


def as_json(changes: RecipeComparison) -> RecipeDiffJson:
    """The change as plain values."""
    return RecipeDiffJson(
        same=changes.same,
        old=changes.old,
        new=changes.new,
        outputs=changes.outputs,
        assertions=changes.assertions,
        notes=changes.notes,
    )


def _headline(changes: RecipeComparison) -> str:
    if changes.same:
        return SAME
    if not changes.outputs and not changes.assertions:
        return NOTHING
    changed = sum(output.state != "same" for output in changes.outputs)
    if not changed:
        return "assertions changed, no output did"
    return f"{count(changed, 'output')} of {len(changes.outputs)} changed"
