"""A change of meaning for a terminal, a pull request, a page and a program."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pemlang.compare.meaning import Meaning, OutputChange
from pemlang.diagnostics import visible
from pemlang.graph.formula import count
from pemlang.markup import code, hypertext, markdown

SAME = "no change of meaning"
NOTHING = "nothing is saved on either side: compare the recipes that import it"
_COLOURS = {"changed": "33", "added": "32", "removed": "31", "same": "2"}
_SIGNS = {"+": "added", "−": "removed", "~": "changed"}
_HASH = 12


def phrases(change: OutputChange) -> str:
    """What became of one output."""
    if change.state in ("added", "removed"):
        value = change.values[1 if change.state == "added" else 0]
        return f"{change.state}, {value}"
    return "; ".join(change.changes) or SAME


def as_text(found: Meaning, colour: bool = False) -> str:
    """Lines for a terminal: `safe: toxic −0.6 → −0.75; rank 32 → 16`."""

    def paint(style: str, text: str) -> str:
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if colour else text

    if found.same:
        lines = [f"{SAME} in {count(len(found.outputs), 'output')}"]
    elif not found.outputs and not found.assertions:
        lines = [NOTHING]
    else:
        lines = [
            paint(one.state, f"{visible(one.name, 80)}: {phrases(one)}") for one in found.outputs
        ]
        lines += [
            paint(_SIGNS[text[0]], f"{text[0]} assert{text[1:]}") for text in found.assertions
        ]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def as_markdown(found: Meaning) -> str:
    """The change for a pull request: what changed in sight, normal forms folded away."""
    lines = [f"{code(found.old)} → {code(found.new)}: **{_headline(found)}**", ""]
    for one in found.outputs:
        if one.state != "same":
            lines.append(f"- {code(one.name)}: {_plain(one)}")
    lines += [f"- {text[0]} assert {code(text[2:])}" for text in found.assertions]
    changed = [one for one in found.outputs if one.state != "same" or not found.same]
    if changed and not found.same:
        lines += ["", "<details><summary>Normal forms</summary>", ""]
        for one in changed:
            lines.append(f"- {code(one.path)}")
            for sign, value, hash_ in zip("−+", one.values, one.hashes, strict=True):
                if value is not None and hash_ is not None:
                    lines.append(f"  - {sign} {code(value)} (hash {code(hash_[:_HASH])})")
        lines += ["", "</details>"]
    lines += ["", *(f"> {markdown(note)}" for note in found.notes)] if found.notes else []
    return "\n".join([*lines, ""])


def _plain(one: OutputChange) -> str:
    if one.state in ("added", "removed"):
        return f"{one.state}, {code(phrases(one).partition(', ')[2])}"
    return "; ".join(code(text) for text in one.changes)


def as_html(found: Meaning) -> str:
    """A fragment of a page: everything in it escaped, no style and no script."""
    rows = [
        f'<tr class="{one.state}"><td><code>{hypertext(one.name)}</code></td>'
        f"<td>{hypertext(phrases(one))}</td>"
        f"<td><code>{_shown(one.values[0])}</code></td>"
        f"<td><code>{_shown(one.values[1])}</code></td></tr>"
        for one in found.outputs
    ]
    asserted = "".join(f"<li>{hypertext(text)}</li>" for text in found.assertions)
    notes = "".join(f"<p>{hypertext(note)}</p>" for note in found.notes)
    return (
        f"<p><code>{hypertext(found.old)}</code> → <code>{hypertext(found.new)}</code>: "
        f"{hypertext(_headline(found))}</p>"
        "<table><thead><tr><th>output</th><th>change</th><th>was</th><th>is</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        + (f"<p>Assertions</p><ul>{asserted}</ul>" if asserted else "")
        + notes
    )


def _shown(value: str | None) -> str:
    return "" if value is None else hypertext(value)


def as_json(found: Meaning) -> dict[str, Any]:
    """The change as plain values."""
    return {"same": found.same, **asdict(found)}


def _headline(found: Meaning) -> str:
    if found.same:
        return SAME
    if not found.outputs and not found.assertions:
        return NOTHING
    changed = sum(one.state != "same" for one in found.outputs)
    if not changed:
        return "assertions changed, no output did"
    return f"{count(changed, 'output')} of {len(found.outputs)} changed"
