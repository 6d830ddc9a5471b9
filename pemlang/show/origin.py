"""Where an output came from, for a person: `pem explain-output`."""

from __future__ import annotations

from itertools import groupby

from pemlang.artifact.provenance import Provenance
from pemlang.diagnostics import visible
from pemlang.graph.formula import count, size_text
from pemlang.ops.agree import TITLES

_HASH = 16


def as_text(found: Provenance) -> str:
    """The story of an output as lines for a terminal."""
    params = ", ".join(
        f"{visible(name)} = {visible(value)}" for name, value in found.params.items()
    )
    facts = [
        ("output", visible(found.output)),
        ("is", f"{visible(found.expression)} = {visible(found.normal_form, 700)}"),
        ("type", _type(found)),
        ("recipe", visible(found.recipe) + (f", with {params}" if params else "")),
        ("meaning", f"hash {visible(found.semantic_hash, 64)}"),
        ("built by", f"pemlang {visible(found.tool, 40)}, language {found.language}"),
    ]
    for loss in found.outcome.losses.values():
        facts.append(("truncation", f"took {loss.total:.3%} of the norm"))
    width = max(len(label) for label, _ in facts)
    lines = [f"{label:<{width}}  {value}" for label, value in facts]
    lines += ["", "made from"]
    for name, group in groupby(found.materials, lambda one: one.name):
        lines.append(f"  {visible(name)}")
        for one in group:
            lines.append(f"    {visible(one.uri)}  blake3 {visible(one.digest, _HASH)}")
    lines += ["", f"{visible(found.recipe)}, as it was", ""]
    lines += [f"  {visible(line, 2000)}".rstrip() for line in found.text.splitlines()]
    return "\n".join(lines)


def _type(found: Provenance) -> str:
    outcome = found.outcome
    parts = [TITLES.get(outcome.method, visible(outcome.method, 20))]
    parts += [f"rank {outcome.rank}"] if outcome.rank else []
    return ", ".join([*parts, count(outcome.sites, "site"), size_text(outcome.size)])
