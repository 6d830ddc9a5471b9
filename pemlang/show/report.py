"""What `pem report` says of a recipe or an adapter: sections of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from pemlang.artifact.write import params_text
from pemlang.check.checked import Checked
from pemlang.check.outputs import Output
from pemlang.compare.contents import model_contents
from pemlang.compare.measure import (
    MOST_ADAPTERS,
    MeasuredAdapter,
    Measurements,
    layer_name,
    measured,
)
from pemlang.compare.summary import facts_of, heads_of
from pemlang.dataclass import dataclass
from pemlang.diagnostics import render
from pemlang.formats import Adapter
from pemlang.formats.adapter import kinds_text
from pemlang.formats.identity import adapter_digest
from pemlang.formats.transformers import StoredModel
from pemlang.graph.dag import Graph
from pemlang.graph.formula import Formula, type_text
from pemlang.graph.leaves import Model, leaf
from pemlang.graph.node import AdapterNode, ModelNode, Node
from pemlang.graph.types import AdapterType, ModelType
from pemlang.inputs.resolver import read_stored
from pemlang.ops.models import TaskVector, difference
from pemlang.ops.points import weights_of
from pemlang.pipeline.forecast import forecast_of
from pemlang.pipeline.making import Tick
from pemlang.show import figures
from pemlang.show.graph import TooMany, leaf_name, picture
from pemlang.show.numbers import FiguresJson, figures_of
from pemlang.show.page import (
    CellValue,
    Column,
    PageSection,
    facts,
    folded,
    listing,
    paragraph,
    table,
)
from pemlang.show.plan import as_html
from pemlang.show.svg import as_svg

_HASH = 12  # characters of a digest


@dataclass(frozen=True)
class Reported:
    """What there is to see, as sections of a page; and the numbers behind its charts."""

    sections: list[PageSection]
    figures: FiguresJson | None = None


def report_on_recipe(checked: Checked, tick: Tick) -> Reported:
    """Everything there is to see of a recipe that is known by content; nothing is built or
    written.

    Raises:
        PemError: everything wrong with it, as a build would say.
    """
    measurements = _measured(checked, tick)
    sections = [
        PageSection("Outputs", _outputs(checked, measurements)),
        PageSection("Graph", _graph(checked)),
        PageSection("Plan", as_html(forecast_of(checked))),
        PageSection(_inputs_title(checked), _adapters(checked)),
        PageSection("Norms", _left_out(checked, measurements) + figures.norm_maps(measurements)),
        PageSection("Likeness", _likeness(measurements)),
        PageSection("Spectra", figures.spectra(measurements)),
        PageSection("Recipe", _recipe(checked)),
    ]
    if not measurements.norms:
        sections = [section for section in sections if section.title not in _MEASURED]
    return Reported(sections, figures_of(checked.source.name, measurements))


_MEASURED = ("Norms", "Likeness", "Spectra")


def report_on_stored(place: str, tick: Tick) -> Reported:
    """Everything there is to see of an adapter or a model, in a directory or on the hub.

    Raises:
        Fault, PemError: as summary.summarise.
    """
    adapter = read_stored(place)
    graph = Graph()
    if isinstance(adapter, StoredModel):
        return _on_model(place, adapter, graph, tick)
    node = leaf(graph, "", adapter, adapter.base)
    subject = MeasuredAdapter(PurePath(place).name or place, "input", node)
    measurements = measured(graph, [subject], tick)
    norms = measurements.norms[subject]
    sections = [
        PageSection("Adapter", facts(_facts(adapter, norms))),
        PageSection("Norms", figures.module_map(measurements, subject)),
        PageSection("Spectra", figures.spectra(measurements)),
        PageSection("Sites", _sites(adapter, norms)),
    ]
    return Reported(sections, figures_of(place, measurements))


def _on_model(place: str, model: StoredModel, graph: Graph, tick: Tick) -> Reported:
    node = Model(ModelType(None, model.layout.shapes), "", model)
    subject = MeasuredAdapter(
        PurePath(place).name or place, "input", weights_of(graph, graph.add(node))
    )
    measurements = measured(graph, [subject], tick)
    norms = measurements.norms[subject]
    seen = model_contents(model)
    about = [
        *seen.facts,
        ("norm", f"{_total(norms):.4g}"),
        ("content", adapter_digest(model)[:_HASH]),
    ]
    sections = [
        PageSection("Model", facts(about) + folded("Config", facts(seen.config))),
        PageSection("Norms", figures.module_map(measurements, subject, "‖W‖ (Frobenius)")),
        PageSection("Tensors", _tensors(model, norms)),
    ]
    return Reported(sections, figures_of(place, measurements))


def _tensors(model: StoredModel, norms: Mapping[str, float]) -> str:
    columns = [
        Column("tensor", "code"), Column("layer", "number"), Column("dtype"), Column("shape"),
        Column("parameters", "number"), Column("norm", "number"),
    ]  # fmt: skip
    rows: list[list[CellValue]] = [
        [
            name,
            layer_name(name),
            entry.dtype.lower(),
            "×".join(map(str, entry.shape)),
            math.prod(entry.shape),
            norms.get(name),
        ]
        for name, entry in sorted(model.header.entries.items())
    ]
    return table(columns, rows)


# --- recipes ---------------------------------------------------------------------------------


def _subjects(checked: Checked) -> tuple[list[MeasuredAdapter], list[MeasuredAdapter]]:
    """What of a recipe is measured: its adapters in the order they are declared in, and what its
    models were tuned by; and its outputs, of a model what it changes of the one it is made from."""
    write = Formula(lambda node: leaf_name(checked, node))
    inputs = [
        MeasuredAdapter(declared.name, "input", node)
        for node, declared in checked.leaves.items()
        if isinstance(node, AdapterNode)
    ]
    inputs += [
        MeasuredAdapter(write.value(node), "input", node)
        for node in checked.graph.order(output.node for output in checked.outputs)
        if isinstance(node, TaskVector) and all(isinstance(x, Model) for x in node.args)
    ]
    outputs = [
        MeasuredAdapter(output.path, "output", node)
        for output in checked.outputs
        if (node := _vector(checked.graph, output.node)) is not None
    ]
    return inputs, outputs


def _vector(graph: Graph, node: Node) -> AdapterNode | None:
    """What an output is measured by: an adapter itself; a model what it changes of the one that it
    is made from, where it has the tensors of that."""
    if isinstance(node, ModelNode):
        if node.shapes != node.origin.shapes:
            return None
        return difference(graph, AdapterType(node.type.base, node.shapes), node, node.origin)
    return node if isinstance(node, AdapterNode) else None


def _measured(checked: Checked, tick: Tick) -> Measurements:
    """The numbers of a recipe's adapters and outputs; raises as measured."""
    inputs, outputs = _subjects(checked)
    return measured(checked.graph, inputs[:MOST_ADAPTERS] + outputs[:MOST_ADAPTERS], tick)


def _left_out(checked: Checked, measurements: Measurements) -> str:
    if len(measurements.norms) == sum(map(len, _subjects(checked))):
        return ""
    return paragraph(
        f"Measured are the first {MOST_ADAPTERS} adapters and the first {MOST_ADAPTERS} outputs."
    )


def _outputs(checked: Checked, measurements: Measurements) -> str:
    if not checked.outputs:
        return paragraph("The recipe saves nothing.")
    write = Formula(lambda node: leaf_name(checked, node))
    norms: dict[Node, Mapping[str, float]] = {
        subject.node: values for subject, values in measurements.norms.items()
    }
    columns = [
        Column("output", "code"), Column("as written", "code"), Column("normal form", "code"),
        Column("type"), Column("dtype"), Column("norm", "number"), Column("semantic hash", "code"),
    ]  # fmt: skip
    rows: list[list[CellValue]] = []
    for output in checked.outputs:
        vector = _vector(checked.graph, output.node)
        measured_as = None if vector is None else norms.get(vector)
        rows.append([*_output(write, output, measured_as), checked.hash(output)[:_HASH]])
    of_models = any(isinstance(output.node, ModelNode) for output in checked.outputs)
    note = "The norm of a model is that of what it changes of the model that it is made from."
    return table(columns, rows) + (paragraph(note) if of_models else "")


def _output(write: Formula, output: Output, norms: Mapping[str, float] | None) -> list[CellValue]:
    return [
        output.path,
        output.label,
        write.value(output.node),
        type_text(output.node),
        output.dtype.lower() if output.dtype else "as inputs",
        None if norms is None else _total(norms),
    ]


def _total(norms: Mapping[str, float]) -> float:
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
    rows = [
        [declared.name, declared.path, *_cells(node.adapter)]
        for node, declared in checked.leaves.items()
    ]
    return table(columns, rows)


def _inputs_title(checked: Checked) -> str:
    models = any(isinstance(node, Model) for node in checked.leaves)
    return "Adapters and models" if models else "Adapters"


def _cells(adapter: Adapter) -> list[CellValue]:
    layout = adapter.layout
    is_model = isinstance(adapter, StoredModel)
    return [
        None if is_model else adapter.base or "not said",
        "model" if is_model else kinds_text(layout.shapes.kinds),
        _one_or_many(sorted(set(layout.ranks.values()))),
        _one_or_many(sorted(set(adapter.scales.values()))),
        len(layout.shapes),
        adapter.parameters(),
        ", ".join(sorted(layout.dtypes)).lower(),
        adapter_digest(adapter)[:_HASH],
    ]


def _one_or_many(values: Sequence[float]) -> CellValue:
    """A number that all sites share, or the least and the largest; none for (IA)³."""
    if not values:
        return None
    return values[0] if len(values) == 1 else f"{values[0]:.4g} … {values[-1]:.4g}"


def _likeness(measurements: Measurements) -> str:
    if not measurements.alike:
        return paragraph("No two adapters have one method and the same sites.")
    return "".join(map(figures.likeness, measurements.alike))


def _recipe(checked: Checked) -> str:
    params = list(params_text(checked).items())
    warnings = "\n\n".join(map(render, checked.diagnostics))
    return (
        (facts(params) if params else "")
        + (folded("Warnings", listing(warnings)) if warnings else "")
        + folded("Source", listing(checked.source.text))
    )


# --- adapters --------------------------------------------------------------------------------


def _facts(adapter: Adapter, norms: Mapping[str, float]) -> list[tuple[str, str]]:
    return [
        *facts_of(adapter),
        *heads_of(adapter),
        ("norm", f"{_total(norms):.4g}"),
        ("file", adapter.weights.name),
        ("content", adapter_digest(adapter)[:_HASH]),
    ]


def _sites(adapter: Adapter, norms: Mapping[str, float]) -> str:
    columns = [
        Column("site", "code"), Column("layer", "number"), Column("shape"),
        Column("rank", "number"), Column("scale", "number"), Column("parameters", "number"),
        Column("norm", "number"),
    ]  # fmt: skip
    rows: list[list[CellValue]] = [
        [
            site,
            layer_name(site),
            str(shape),
            adapter.layout.ranks.get(site),
            adapter.scales.get(site),
            adapter.numbers_at(site),
            norms[site],
        ]
        for site, shape in adapter.layout.shapes.items()
    ]
    return table(columns, rows)
