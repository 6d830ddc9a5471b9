"""Where an output came from, for a person: `pem explain-output`."""

from __future__ import annotations

from itertools import groupby

from pemlang.artifact.provenance import Provenance
from pemlang.diagnostics import visible
from pemlang.graph.formula import count, size_text

_HASH = 16


def as_text(provenance: Provenance) -> str:
    """The story of an output as lines for a terminal."""
    params = ", ".join(
        f"{visible(name)} = {visible(value)}" for name, value in provenance.params.items()
    )
    facts = [
        ("output", visible(provenance.output)),
        ("is", f"{visible(provenance.expression)} = {visible(provenance.normal_form, 700)}"),
        ("type", _type(provenance)),
        ("recipe", visible(provenance.recipe) + (f", with {params}" if params else "")),
        ("meaning", f"hash {visible(provenance.semantic_hash, 64)}"),
        ("built by", f"pemlang {visible(provenance.tool, 40)}, language {provenance.language}"),
    ]
    for loss in provenance.outcome.losses.values():
        facts.append(("truncation", f"took {loss.total:.3%} of the norm"))
    width = max(len(label) for label, _ in facts)
    lines = [f"{label:<{width}}  {value}" for label, value in facts]
    lines += ["", "made from"]
    for name, materials in groupby(provenance.materials, lambda material: material.name):
        lines.append(f"  {visible(name)}")
        for material in materials:
            digest = visible(material.digest, _HASH)
            lines.append(f"    {visible(material.uri)}  blake3 {digest}")
    lines += ["", f"{visible(provenance.recipe)}, as it was", ""]
    lines += [f"  {visible(line, 2000)}".rstrip() for line in provenance.text.splitlines()]
    return "\n".join(lines)


def _type(provenance: Provenance) -> str:
    outcome = provenance.outcome
    parts = [outcome.title]
    parts += [f"rank {outcome.rank}"] if outcome.rank else []
    return ", ".join([*parts, count(outcome.sites, "site"), size_text(outcome.size)])
