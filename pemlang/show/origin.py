"""Where an output came from, for a person: `pem explain-output`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from pemlang.artifact.provenance import Material, Outcome, Provenance
from pemlang.dataclass import dataclass
from pemlang.diagnostics import visible
from pemlang.graph.formula import count, size_text
from pemlang.syntax.remarks import Remark, remarks_of

_HASH = 16


@dataclass(frozen=True)
class OriginJson:
    """`pem explain-output`: where an output came from, by what it says of itself; `tuned` is what
    its recipe says that `pem tune` measured at the values of its params."""

    output: str
    expression: str
    normal_form: str
    semantic_hash: str
    outcome: Outcome
    recipe: str
    text: str
    params: Mapping[str, str]
    tuned: Mapping[str, str]
    materials: Sequence[Material]
    tool: str
    language: int


def as_text(provenance: Provenance) -> str:
    """The story of an output as lines for a terminal."""
    params = ", ".join(
        f"{visible(name)} = {visible(value)}" for name, value in provenance.params.items()
    )
    tuned = [
        ("tuned", f"{visible(name)} = {visible(remark.value)} gives {visible(remark.gives, 700)}")
        for name, remark in _tuned(provenance).items()
    ]
    facts = [
        ("output", visible(provenance.output)),
        ("is", f"{visible(provenance.expression)} = {visible(provenance.normal_form, 700)}"),
        ("type", _type(provenance)),
        ("recipe", visible(provenance.recipe) + (f", with {params}" if params else "")),
        *tuned,
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


def as_json(provenance: Provenance) -> OriginJson:
    """The same as plain values."""
    return OriginJson(
        output=provenance.output,
        expression=provenance.expression,
        normal_form=provenance.normal_form,
        semantic_hash=provenance.semantic_hash,
        outcome=provenance.outcome,
        recipe=provenance.recipe,
        text=provenance.text,
        params=provenance.params,
        tuned={name: remark.gives for name, remark in _tuned(provenance).items()},
        materials=provenance.materials,
        tool=provenance.tool,
        language=provenance.language,
    )


def _tuned(provenance: Provenance) -> dict[str, Remark]:
    """What the recipe says that values give, of the params that had just these."""
    return {
        name: remark
        for name, remark in remarks_of(provenance.text).items()
        if provenance.params.get(name) == remark.value
    }


def _type(provenance: Provenance) -> str:
    outcome = provenance.outcome
    parts = [provenance.title]
    parts += [f"rank {outcome.rank}"] if outcome.rank else []
    return ", ".join(
        [*parts, count(outcome.sites, provenance.format.part), size_text(outcome.size)]
    )
