"""What `pem report` says of a recipe or an adapter: sections of a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from pemlang.api import Recipe
from pemlang.check.checked import Checked
from pemlang.check.conditions import Known
from pemlang.check.elaborate import leaf
from pemlang.check.options import Output, semantic_hash
from pemlang.compare.measure import MOST_SUBJECTS, Measured, Subject, Tick, layer_name, measured
from pemlang.compare.summary import facts_of, opened
from pemlang.diagnostics import render
from pemlang.formats.peft import Adapter
from pemlang.graph.formula import Algebra, type_text
from pemlang.graph.node import Graph
from pemlang.graph.numbers import shown
from pemlang.ops.agree import TITLES
from pemlang.pipeline.jobs import refuse_models
from pemlang.show import figures
from pemlang.show.graph import TooMany, leaf_name, picture
from pemlang.show.page import (
    Column,
    Section,
    Value,
    facts,
    folded,
    listing,
    paragraph,
    table,
)
from pemlang.show.plan import as_html
from pemlang.show.svg import as_svg
from pemlang.tensorfiles.digests import adapter_digest

_HASH = 12  # characters of a digest


def sections_of_recipe(recipe: Recipe, tick: Tick) -> list[Section]:
    """Everything there is to see of a recipe; nothing is built or written.

    Raises:
        PemError: everything wrong with it, as a build would say.
    """
    checked = recipe.identified()
    found = measured_of(checked, tick)
    sections = [
        Section("Outputs", _outputs(checked, found)),
        Section("Graph", _graph(checked)),
        Section("Plan", as_html(recipe.outlook())),
        Section("Adapters", _adapters(checked)),
        Section("Norms", _left_out(checked, found) + figures.norm_maps(found)),
        Section("Likeness", _likeness(found)),
        Section("Spectra", figures.spectra(found)),
        Section("Recipe", _recipe(checked)),
    ]
    return sections if found.norms else [s for s in sections if s.title not in _MEASURED]


_MEASURED = ("Norms", "Likeness", "Spectra")


def sections_of_adapter(place: str, tick: Tick) -> list[Section]:
    """Everything there is to see of an adapter, in a directory or on the hub.

    Raises:
        Fault, PemError: as summary.summarise.
    """
    adapter = opened(place)
    graph = Graph()
    subject = Subject(
        PurePath(place).name or place, "input", leaf(graph, "", adapter, adapter.config.base)
    )
    found = measured(graph, [subject], tick)
    return [
        Section("Adapter", facts(_facts(adapter, found, subject))),
        Section("Norms", figures.module_map(found, subject)),
        Section("Spectra", figures.spectra(found)),
        Section("Sites", _sites(adapter, found.norms[subject])),
    ]


# --- recipes ---------------------------------------------------------------------------------


def measured_of(checked: Checked, tick: Tick) -> Measured:
    """The numbers of a recipe's adapters, in the order they are declared in, and its outputs.

    Raises:
        PemError: PEM0601 it needs whole models; and as measured.
    """
    refuse_models(checked)
    inputs = [
        Subject(declared.name, "input", node)
        for node, declared in checked.elaborator.leaves.items()
    ]
    outputs = [Subject(output.path, "output", output.node) for output in checked.outputs]
    subjects = inputs[:MOST_SUBJECTS] + outputs[:MOST_SUBJECTS]
    return measured(checked.graph, subjects, tick)


def _left_out(checked: Checked, found: Measured) -> str:
    total = len(checked.elaborator.leaves) + len(checked.outputs)
    if len(found.norms) == total:
        return ""
    return paragraph(
        f"Measured are the first {MOST_SUBJECTS} adapters and the first {MOST_SUBJECTS} outputs."
    )


def _outputs(checked: Checked, found: Measured) -> str:
    if not checked.outputs:
        return paragraph("The recipe saves nothing.")
    algebra = Algebra(lambda node: leaf_name(checked, node))
    norms = {subject.node: values for subject, values in found.norms.items()}
    columns = [
        Column("output", "code"), Column("as written", "code"), Column("normal form", "code"),
        Column("type"), Column("dtype"), Column("norm", "number"), Column("semantic hash", "code"),
    ]  # fmt: skip
    return table(columns, [_output(algebra, output, norms) for output in checked.outputs])


def _output(algebra: Algebra, output: Output, norms: dict[Any, dict[str, float]]) -> list[Value]:
    known = norms.get(output.node)
    return [
        output.path,
        output.label,
        algebra.value(output.node),
        type_text(output.node),
        output.dtype.lower() if output.dtype else "as inputs",
        None if known is None else _total(known),
        semantic_hash(output)[:_HASH],
    ]


def _total(norms: dict[str, float]) -> float:
    return float(sum(norm**2 for norm in norms.values()) ** 0.5)


def _graph(checked: Checked) -> str:
    try:
        return f'<div class="scroll" tabindex="0">{as_svg(picture(checked), alone=False)}</div>'
    except TooMany as error:
        return paragraph(f"There is no picture: {error}.")


def _adapters(checked: Checked) -> str:
    columns = [
        Column("name", "code"), Column("path", "code"), Column("base"), Column("method"),
        Column("rank", "number"), Column("scale", "number"), Column("sites", "number"),
        Column("parameters", "number"), Column("dtype"), Column("content", "code"),
    ]  # fmt: skip
    rows = []
    for node, declared in checked.elaborator.leaves.items():
        if node.adapter is not None:
            rows.append([declared.name, declared.path, *_cells(node.adapter)])
    return table(columns, rows)


def _cells(adapter: Adapter) -> list[Value]:
    layout = adapter.layout
    return [
        adapter.config.base or "not said",
        TITLES[adapter.method],
        _one_or_many(sorted(set(layout.ranks.values()))),
        _one_or_many(sorted(set(adapter.scales.values()))),
        len(layout.shapes),
        _parameters(adapter),
        ", ".join(sorted(layout.dtypes)).lower(),
        adapter_digest(adapter)[:_HASH],
    ]


def _one_or_many(values: Sequence[float]) -> Value:
    """A number that all sites share, or the least and the largest; none for (IA)³."""
    if not values:
        return None
    return values[0] if len(values) == 1 else f"{values[0]:.4g} … {values[-1]:.4g}"


def _parameters(adapter: Adapter, site: str | None = None) -> int:
    """How many numbers an adapter holds, at a site or in all."""
    factors = adapter.layout.factors
    keys = factors[site] if site else [key for keys in factors.values() for key in keys]
    total = 0
    for key in keys:
        size = 1
        for length in adapter.header.entries[key].shape:
            size *= length
        total += size
    return total


def _likeness(found: Measured) -> str:
    if not found.alike:
        return paragraph("No two adapters have one method and the same sites.")
    return "".join(map(figures.likeness, found.alike))


def _recipe(checked: Checked) -> str:
    params = [(name, _param(value)) for name, value in checked.params.items()]
    warnings = "\n\n".join(map(render, checked.report))
    return (
        (facts(params) if params else "")
        + (folded("Warnings", listing(warnings)) if warnings else "")
        + folded("Source", listing(checked.source.text))
    )


def _param(value: object) -> str:
    if isinstance(value, Known):
        return str(value.truth).lower()
    return str(value) if isinstance(value, str) else shown(value)  # type: ignore[arg-type]


# --- adapters --------------------------------------------------------------------------------


def _facts(adapter: Adapter, found: Measured, subject: Subject) -> list[tuple[str, str]]:
    return [
        *facts_of(adapter),
        ("heads", ", ".join(adapter.layout.heads) or "none"),
        ("norm", f"{_total(found.norms[subject]):.4g}"),
        ("file", adapter.weights.name),
        ("content", adapter_digest(adapter)[:_HASH]),
    ]


def _sites(adapter: Adapter, norms: dict[str, float]) -> str:
    columns = [
        Column("site", "code"), Column("layer", "number"), Column("shape"),
        Column("rank", "number"), Column("scale", "number"), Column("parameters", "number"),
        Column("norm", "number"),
    ]  # fmt: skip
    rows: list[list[Value]] = [
        [
            site,
            layer_name(site),
            str(shape),
            adapter.layout.ranks.get(site),
            adapter.scales.get(site),
            _parameters(adapter, site),
            norms[site],
        ]
        for site, shape in adapter.layout.shapes.items()
    ]
    return table(columns, rows)
